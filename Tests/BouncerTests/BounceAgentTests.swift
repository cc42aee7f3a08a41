// SPDX-License-Identifier: Apache-2.0

import Bouncer
import MailTypes
import MessageCore
import PipeCore
import Testing

private func octets(_ text: String) -> [UInt8] { Array(text.utf8) }
private func forwardPath(_ text: String) throws -> ForwardPath { try #require(ForwardPath(octets: octets(text))) }

/// The queue's side of a link to the agent.
private struct Queue {
    var agent: BounceAgent

    init(postmaster: String? = nil) throws {
        let address = try postmaster.map { try #require(MailAddress(text: $0)) }
        self.agent = BounceAgent(rules: BounceAgent.Rules(hostname: octets("mx.example.org"), postmaster: address))
    }

    /// Sends requests on a channel as octets and reads what comes back.
    mutating func send(_ requests: [DeliverRequest], channel: UInt32 = 1) throws -> [DeliverAnswer] {
        var sent: [UInt8] = []
        for request in requests { request.append(to: &sent, channel: channel) }
        var decoder = FrameDecoder()
        decoder.append(sent)
        var answers: [UInt8] = []
        while let frame = try decoder.next() {
            try self.agent.receive(
                frame, now: Timestamp(microseconds: 1_700_000_100_000_000), salt: 7, answers: &answers)
        }
        var back = FrameDecoder()
        back.append(answers)
        var received: [DeliverAnswer] = []
        while let frame = try back.next() {
            #expect(frame.channel == channel)
            received.append(try DeliverAnswer(frame))
        }
        return received
    }
}

private func delivery(from: String, size: Int) throws -> Delivery {
    Delivery(
        id: MessageID(rawValue: 1_700_000_000_000_000), reversePath: try #require(ReversePath(octets: octets(from))),
        octetCount: UInt64(size), bodyType: .sevenBit, route: .bounce,
        arrival: Timestamp(microseconds: 1_700_000_000_000_000))
}

private func envelope(from: String, size: Int, to: [(String, String?)]) throws -> [DeliverRequest] {
    var requests: [DeliverRequest] = [.deliver(try delivery(from: from, size: size))]
    for (number, (path, original)) in to.enumerated() {
        requests.append(
            .rcpt(
                DeliveryRecipient(
                    number: UInt32(number), forwardPath: try forwardPath(path),
                    originalForwardPath: try original.map { try forwardPath($0) })))
        let outcome = DeliveryOutcome(
            .failed, code: 550, status: EnhancedStatus(.permanent, 1, 1), reporter: "mx.remote.example[192.0.2.1]",
            text: "no such user")
        requests.append(
            .fate(
                RecipientFate(
                    number: UInt32(number), outcome: outcome,
                    lastAttempt: Timestamp(microseconds: 1_700_000_050_000_000))))
    }
    return requests + [.go]
}

/// The recipient of a report, of whose own fate nobody is told.
private func rcpt(_ path: ForwardPath) -> DeliverAnswer { .exchange(.rcpt(path, RecipientDSN(notify: .never))) }

private let message = octets("Received: from a\r\nSubject: hello\r\nMessage-ID: <1@a.example>\r\n\r\nbody\r\n")

@Suite("The agent that composes reports")
struct BounceAgentTests {
    @Test("asks for the header, then submits a report from <> to the sender in exchange")
    func report() throws {
        var queue = try Queue()
        let asked = try queue.send(
            try envelope(
                from: "joe@a.example", size: message.count, to: [("x@remote.example", nil), ("y@remote.example", nil)]))
        #expect(asked == [.want(offset: 0, octetCount: message.count)])
        // The content may come in any number of frames.
        #expect(try queue.send([.data(message[..<10])]) == [])
        let answers = try queue.send([.data(message[10...])])
        guard case .exchange(.mail(let mail))? = answers.first, case .exchange(.commit(let commit))? = answers.last
        else {
            Issue.record("no submission: \(answers)")
            return
        }
        #expect(mail.reversePath == .null)
        #expect(answers[1] == rcpt(try forwardPath("joe@a.example")))
        let content = answers.flatMap { answer in
            if case .exchange(.data(let octets)) = answer { Array(octets) } else { [UInt8]() }
        }
        #expect(UInt64(content.count) == commit.octetCount)
        #expect(commit.prefix.isEmpty && commit.suffix.isEmpty)
        let text = content.printableText
        for word in [
            "report-type=delivery-status", "Final-Recipient: rfc822; x@remote.example",
            "Final-Recipient: rfc822; y@remote.example", "Subject: hello", "In-Reply-To: <1@a.example>",
        ] { #expect(text.contains(word)) }
        #expect(!text.contains("body??"))
        #expect(!queue.agent.isIdle)
        #expect(try queue.send([.queued(MessageID(rawValue: 5))]) == [])
        #expect(queue.agent.isIdle)
    }

    @Test("pulls no more than the beginning of a large message, and nothing of an empty one")
    func sizes() throws {
        var queue = try Queue()
        let large = try queue.send(try envelope(from: "joe@a.example", size: 50_000_000, to: [("x@b.example", nil)]))
        #expect(large == [.want(offset: 0, octetCount: BounceAgent.headOctetCountMax)])
        let empty = try queue.send(
            try envelope(from: "joe@a.example", size: 0, to: [("x@b.example", nil)]), channel: 2)
        guard case .exchange(.commit)? = empty.last else {
            Issue.record("no submission: \(empty)")
            return
        }
    }

    @Test("keeps deliveries apart that come at the same time")
    func interleaved() throws {
        var queue = try Queue()
        let count = message.count
        _ = try queue.send(try envelope(from: "one@a.example", size: count, to: [("x@b.example", nil)]), channel: 1)
        _ = try queue.send(try envelope(from: "two@a.example", size: count, to: [("y@b.example", nil)]), channel: 2)
        let second = try queue.send([.data(message[...])], channel: 2)
        let first = try queue.send([.data(message[...])], channel: 1)
        #expect(second.contains(rcpt(try forwardPath("two@a.example"))))
        #expect(first.contains(rcpt(try forwardPath("one@a.example"))))
    }

    @Test("forgets a refused report; the queue asks again")
    func refused() throws {
        var queue = try Queue()
        _ = try queue.send(try envelope(from: "joe@a.example", size: message.count, to: [("x@b.example", nil)]))
        _ = try queue.send([.data(message[...])])
        let refusal = Refusal(452, EnhancedStatus(.transient, 3, 1), "full")
        #expect(try queue.send([.refused(refusal)]) == [])
        #expect(queue.agent.isIdle)
    }

    @Test("sends no report to <>: the postmaster is told, if there is one")
    func doubleBounce() throws {
        var without = try Queue()
        let dropped = try without.send(
            try envelope(from: "", size: 10, to: [("x@b.example", nil), ("y@b.example", nil)]))
        #expect(dropped.count == 3)
        for (number, answer) in dropped.prefix(2).enumerated() {
            guard case .outcome(UInt32(number), let outcome) = answer else {
                Issue.record("no outcome: \(answer)")
                return
            }
            #expect(outcome.kind == .failed)
        }
        #expect(dropped.last == .done)
        #expect(try without.send([.noted]) == [])
        #expect(without.agent.isIdle)

        var with = try Queue(postmaster: "boss@example.org")
        _ = try with.send(try envelope(from: "", size: message.count, to: [("x@b.example", nil)]))
        let told = try with.send([.data(message[...])])
        #expect(told.contains(rcpt(try forwardPath("boss@example.org"))))
    }

    @Test(
        "never reports to the postmaster that a report to the postmaster failed",
        arguments: [
            ("boss@example.org", nil), ("BOSS@example.ORG", nil), ("elsewhere@b.example", "boss@example.org"),
            ("postmaster", nil),
        ] as [(String, String?)])
    func tripleBounce(path: String, original: String?) throws {
        var queue = try Queue(postmaster: "boss@example.org")
        let answers = try queue.send(try envelope(from: "", size: 10, to: [(path, original)]))
        #expect(answers.last == .done)
    }

    @Test("closes the link on frames that are out of place")
    func outOfPlace() throws {
        let start = try envelope(from: "joe@a.example", size: 4, to: [("x@b.example", nil)])
        let tooMuch: [DeliverRequest] = start + [.data(octets("12345")[...])]
        for requests: [DeliverRequest] in [
            [.go], [.noted], [.data(octets("x")[...])], [start[0], .go], [start[0], start[0]],
            [start[0], start[1], start[1], .go, .noted], [start[0], start[2]], tooMuch, start + [.go],
            start + [.queued(MessageID(rawValue: 1))],
        ] {
            var queue = try Queue()
            #expect(throws: FrameFault.self) { _ = try queue.send(requests) }
        }
        let local = Delivery(
            id: MessageID(rawValue: 1), reversePath: .null, octetCount: 1, bodyType: .sevenBit,
            route: .local(user: octets("joe")), arrival: Timestamp(microseconds: 1))
        var queue = try Queue()
        #expect(throws: FrameFault.self) { _ = try queue.send([.deliver(local)]) }
    }

    @Test("sends an address no more reports in an hour than it may have, and all together no more in a minute")
    func restraint() throws {
        let limits = ReportLimits(perAddressPerHour: 2, perMinute: 3)
        var counter = ReportCounter()
        let (one, two) = (
            try #require(MailAddress(text: "one@a.example")), try #require(MailAddress(text: "two@a.example"))
        )
        let shouted = try #require(MailAddress(text: "ONE@A.EXAMPLE"))
        let start = Timestamp(microseconds: 1_700_000_000_000_000)
        #expect(counter.allow(one, limits, at: start) == .allowed)
        #expect(counter.allow(shouted, limits, at: start) == .allowed)
        #expect(counter.allow(one, limits, at: start) == .addressExceeded)
        #expect(counter.allow(two, limits, at: start) == .allowed)
        #expect(counter.allow(two, limits, at: start) == .allExceeded)
        #expect(counter.allow(two, limits, at: start.advanced(by: .seconds(59))) == .allExceeded)
        #expect(counter.allow(two, limits, at: start.advanced(by: .seconds(60))) == .allowed)
        #expect(counter.allow(one, limits, at: start.advanced(by: .seconds(3_599))) == .addressExceeded)
        #expect(counter.allow(one, limits, at: start.advanced(by: .seconds(3_600))) == .allowed)
        #expect(counter.allow(one, limits, at: Timestamp(microseconds: 5)) == .allowed)
        for _ in 0..<9 { #expect(counter.allow(one, ReportLimits(), at: start) == .allowed) }
    }

    static let senders: [(String, String, Bool)] = [
        ("joe@a.example", "Subject: x\r\n", false), ("owner-list@a.example", "", true),
        ("List-Request@a.example", "", true), ("request@a.example", "", false),
        ("joe@a.example", "Precedence: bulk\r\n", true),
        ("joe@a.example", "precedence: LIST\r\n", true), ("joe@a.example", "Precedence: first-class\r\n", false),
        ("joe@a.example", "List-Id: <l.a.example>\r\n", true), ("joe@a.example", "Auto-Submitted: no\r\n", false),
        ("joe@a.example", "Auto-Submitted: auto-generated; x=y\r\n", true),
    ]

    @Test("knows automatic mail and lists", arguments: senders)
    func bulk(sender: String, header: String, isBulk: Bool) throws {
        let fields = HeaderFields(octets(header + "\r\n"), isWholeMessage: true)
        #expect(BulkMail.isBulk(try #require(MailAddress(text: sender)), fields) == isBulk)
    }
}
