// SPDX-License-Identifier: Apache-2.0
//
// How many allocations the hot paths make. A build for release makes fewer than one for debugging, in which these run;
// Tests/EndToEnd/test_allocations.py counts those of the real programs. Who makes a bound larger must want it.

import CAllocations
import MailTypes
import PipeCore
import QueueCore
import SMTPCore
import Simulation
import Testing

/// How often `body` allocates, once everything is there that is made once: the least of some runs, so that what a run
/// of the tests in another thread brings along does not count.
private func allocations(_ body: () -> Void) -> UInt64 {
    var least = UInt64.max
    for _ in 0..<8 {
        let before = apus_allocation_count()
        body()
        least = min(least, apus_allocation_count() - before)
    }
    return least
}

private func octets(_ text: String) -> [UInt8] { Array(text.utf8) }

/// 4 KiB of content in lines, as it comes from a client.
private let content = octets(String(repeating: String(repeating: "x", count: 70) + "\r\n", count: 57))

@Suite("Allocations")
struct AllocationTests {
    @Test("the counter counts")
    func counter() {
        #expect(allocations { _ = [UInt8](repeating: 1, count: 1_000) } >= 1)
        #expect(allocations {} == 0)
    }

    @Test("content passes the decoder without any")
    func dataDecoder() {
        let content = content
        let count = allocations {
            var decoder = DataDecoder(mailOctetCountMax: 1_000_000, lineOctetCountMax: 998)
            let span = content.span
            var index = 0
            while index < span.count {
                guard case .run(let range) = decoder.next(span, at: &index, countMax: .max), !range.isEmpty else {
                    break
                }
            }
        }
        #expect(count == 0)
    }

    @Test("content is encoded for a server into the room that is there")
    func dataEncoder() {
        let content = content
        var output: [UInt8] = []
        output.reserveCapacity(2 * content.count)
        let count = allocations {
            output.removeAll(keepingCapacity: true)
            var encoder = DataEncoder()
            encoder.encode(content[...], into: &output)
            encoder.finish(into: &output)
        }
        #expect(count == 0)
    }

    @Test("a frame of content is read")
    func frames() {
        var frame: [UInt8] = []
        frame.appendData(7, content[...])
        var decoder = FrameDecoder()
        let count = allocations {
            decoder.append(frame.span)
            guard let frame = try? decoder.next(), frame.fieldCount == 1 else {
                Issue.record("no frame")
                return
            }
        }
        #expect(count <= Bound.frame)
    }

    @Test("a frame is written into the room that is there")
    func writtenFrames() {
        var output: [UInt8] = []
        output.reserveCapacity(8_192)
        let count = allocations {
            output.removeAll(keepingCapacity: true)
            output.appendData(7, content[...])
            SubmitAnswer.more(65_536).append(to: &output, channel: 7)
        }
        #expect(count <= Bound.writtenFrame)
    }

    @Test("a server's session takes a message")
    func serverSession() throws {
        let rules = ServerRules(
            hostname: octets("mx.example.org"),
            limits: ServerLimits(
                mailOctetCountMax: 100_000, recipientCountMax: 10, faultCountMax: 3, commandLineOctetCountMax: 512,
                dataLineOctetCountMax: 998))
        let lines = octets("MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.net>\r\nDATA\r\n")
        var session = ServerSession(rules: rules)
        var input = ServerInput(limits: rules.limits)
        _ = session.receive(.connected)
        _ = session.receive(.commandReceived(.hello(octets("c.example")), isFollowed: false))
        let id = MessageID(rawValue: 1)
        let count = allocations {
            var index = 0
            while case .command(let command) = input.next(lines.span, at: &index, contentCountMax: 0) {
                switch session.receive(.commandReceived(command, isFollowed: index < lines.count)) {
                case .checkSender: _ = session.receive(.verdict(.accepted(.senderAccepted)))
                case .checkRecipient: _ = session.receive(.verdict(.accepted(.recipientAccepted)))
                default: break
                }
            }
            _ = session.receive(.contentEnded(octetCount: 100))
            _ = session.receive(.verdict(.accepted(.queued(id))))
        }
        #expect(session.receive(.commandReceived(.data, isFollowed: false)) != .wait)
        #expect(count <= Bound.serverSession)
    }

    @Test("a client's session sends a message")
    func clientSession() throws {
        var session = ClientSession(helloName: octets("c.example"), peerName: octets("mx.example[192.0.2.1]"))
        _ = session.receive(.connected)
        let greeting = PeerReply(code: 220, status: nil, text: octets("mx.example"))
        let capabilities = PeerReply(code: 250, status: nil, text: octets("mx.example\nPIPELINING"))
        let ok = PeerReply(code: 250, status: EnhancedStatus(.success, 0, 0), text: octets("ok"))
        let goOn = PeerReply(code: 354, status: nil, text: octets("go on"))
        _ = session.receive(.replied(greeting))
        _ = session.receive(.replied(capabilities))
        let transaction = ClientSession.Transaction(
            reversePath: try #require(ReversePath(octets: octets("a@example.org"))),
            recipients: [try #require(ForwardPath(octets: octets("b@example.net")))], octetCount: 100,
            bodyType: .sevenBit)
        var last = ClientSession.Action.wait
        let count = allocations {
            _ = session.receive(.begin(transaction))
            for reply in [ok, ok, goOn] { _ = session.receive(.replied(reply)) }
            _ = session.receive(.contentSent)
            last = session.receive(.replied(ok))
        }
        guard case .conclude(let conclusion) = last else {
            Issue.record("\(last)")
            return
        }
        #expect(conclusion.verdicts.first??.kind == .delivered)
        #expect(count <= Bound.clientSession)
    }

    @Test("the scheduler takes a message from acceptance to its end")
    func scheduler() {
        let limits = SchedulerLimits(
            recipientCountMax: 1_000, deliveryCountMax: 100, destinationDeliveryCountMax: 20,
            recipientCountPerDeliveryMax: 100,
            retry: RetrySchedule(minimum: .seconds(300), maximum: .seconds(3_600)), lifetime: .seconds(86_400))
        var scheduler = Scheduler(limits: limits, isPaused: false, seed: 1)
        let now = Timestamp(microseconds: 1_000_000_000)
        var actions: [Scheduler.Action] = []
        scheduler.receive(.timePassed, at: now, into: &actions)
        scheduler.receive(.dueLoaded(DuePage(entries: [], hasMore: false, next: nil)), at: now, into: &actions)
        scheduler.receive(.agentJoined(AgentLinkID(1), .remote, capacity: 0), at: now, into: &actions)
        let messages = (1...8).map { id in
            let sample = Samples.message(UInt64(id), recipientCount: 1, at: now.microseconds)
            let recipients = sample.recipients.map { recipient in
                RecipientRecord(
                    number: recipient.number, forwardPath: recipient.forwardPath, originalPath: nil,
                    route: Samples.route("a.example"), flow: Samples.flow, state: .queued(last: nil), due: now)
            }
            return (sample.record, recipients)
        }
        let outcome = DeliveryOutcome(
            .delivered, code: 250, status: EnhancedStatus(.success, 0, 0), reporter: "mx", text: "ok")
        var number = 0
        var settledCount = 0
        actions.reserveCapacity(64)
        let count = allocations {
            actions.removeAll(keepingCapacity: true)
            scheduler.receive(.accepted(messages[number].0, messages[number].1), at: now, into: &actions)
            number += 1
            guard case .deliver(let order)? = actions.last(where: { if case .deliver = $0 { true } else { false } })
            else { return }
            scheduler.receive(.outcomeReceived(order.id, number: 0, outcome), at: now, into: &actions)
            scheduler.receive(.doneReceived(order.id), at: now, into: &actions)
            scheduler.receive(.settled(order.id), at: now, into: &actions)
            settledCount += 1
        }
        #expect(settledCount == 8)
        #expect(scheduler.recipientCount == 0)
        #expect(count <= Bound.scheduler)
    }
}

/// A fifth more than was measured in a build for debugging: 24, 0, 72, 9 and 150.
private enum Bound {
    static let frame: UInt64 = 29
    static let writtenFrame: UInt64 = 0
    static let serverSession: UInt64 = 86
    static let clientSession: UInt64 = 11
    static let scheduler: UInt64 = 180
}
