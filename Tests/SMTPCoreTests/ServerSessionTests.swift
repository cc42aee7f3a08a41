// SPDX-License-Identifier: Apache-2.0

import MailTypes
import SMTPCore
import Testing

@Suite("ServerSession")
struct ServerSessionTests {
    private let rules = ServerRules(
        hostname: Array("mx.example.org".utf8),
        limits: ServerLimits(
            mailOctetCountMax: 1_000, recipientCountMax: 10, faultCountMax: 3, commandLineOctetCountMax: 512,
            dataLineOctetCountMax: 998))
    private let path: ForwardPath = .postmaster

    /// A session after HELO and MAIL.
    private func collecting() -> ServerSession {
        var session = ServerSession(rules: self.rules)
        _ = session.receive(.connected)
        _ = session.receive(.commandReceived(.hello([0x63]), isFollowed: false))
        _ = session.receive(.commandReceived(.mail(.null, MailParameters()), isFollowed: false))
        _ = session.receive(.verdict(.accepted(.senderAccepted)))
        return session
    }

    private func closingCode(_ action: ServerSession.Action) -> UInt16? {
        if case .replyThenClose(let reply) = action { return reply.code }
        return nil
    }

    @Test("a client that speaks before the greeting gets 554 instead of it")
    func earlyTalker() {
        var session = ServerSession(rules: self.rules)
        #expect(self.closingCode(session.receive(.spokenTooSoon)) == 554)
        #expect(session.receive(.connected) == .wait)
    }

    @Test("a question is open until its verdict, and after a refusal the sender stays")
    func question() {
        var session = self.collecting()
        #expect(!session.isAsking)
        #expect(
            session.receive(.commandReceived(.recipient(self.path), isFollowed: true)) == .checkRecipient(self.path))
        #expect(session.isAsking)
        #expect(session.receive(.verdict(.refused(.recipientUnknown))) == .reply(.recipientUnknown))
        #expect(!session.isAsking)
        #expect(
            session.receive(.commandReceived(.recipient(self.path), isFollowed: true)) == .checkRecipient(self.path))
    }

    @Test("commands that bring no mail further count as faults past the first hundred, until a message is taken")
    func idleCommands() {
        let commands: [Command] = [.noOperation, .reset, .help, .extendedHello([0x63]), .verify(nil)]
        func count(_ session: inout ServerSession) -> Int {
            for number in 1...1_000 {
                let command = commands[number % commands.count]
                if let code = self.closingCode(session.receive(.commandReceived(command, isFollowed: false))) {
                    #expect(code == 421)
                    return number
                }
            }
            return 0
        }
        var session = ServerSession(rules: self.rules)
        _ = session.receive(.connected)
        #expect(count(&session) == 100 + 3 + 1)
        var other = self.collecting()
        for _ in 1...90 { _ = other.receive(.commandReceived(.noOperation, isFollowed: false)) }
        _ = other.receive(.commandReceived(.recipient(self.path), isFollowed: false))
        _ = other.receive(.verdict(.accepted(.recipientAccepted)))
        _ = other.receive(.commandReceived(.data, isFollowed: false))
        _ = other.receive(.contentEnded(octetCount: 1))
        _ = other.receive(.verdict(.accepted(.done)))
        #expect(count(&other) == 100 + 3 + 1)
    }

    @Test("VRFY leaves the mail as it was")
    func verify() {
        var session = self.collecting()
        #expect(session.receive(.commandReceived(.verify(self.path), isFollowed: false)) == .verify(self.path))
        #expect(session.receive(.verdict(.accepted(.addressExists))) == .reply(.addressExists))
        #expect(
            session.receive(.commandReceived(.recipient(self.path), isFollowed: false)) == .checkRecipient(self.path))
    }

    @Test("VRFY before HELO does not stand for it")
    func verifyFirst() {
        var session = ServerSession(rules: self.rules)
        _ = session.receive(.connected)
        _ = session.receive(.commandReceived(.verify(self.path), isFollowed: false))
        _ = session.receive(.verdict(.accepted(.cannotVerify)))
        guard
            case .reply(let reply) = session.receive(
                .commandReceived(.mail(.null, MailParameters()), isFollowed: false))
        else {
            Issue.record("MAIL was taken before HELO")
            return
        }
        #expect(reply.code == 503)
    }

    @Test("a verdict of 421 ends the session")
    func verdictCloses() {
        var session = self.collecting()
        _ = session.receive(.commandReceived(.recipient(self.path), isFollowed: false))
        let action = session.receive(.verdict(.refused(Reply(421, EnhancedStatus(.transient, 7, 0), "Enough"))))
        #expect(self.closingCode(action) == 421)
        #expect(session.isClosed)
    }

    @Test("whatever timing brings after the end is ignored, questions too")
    func afterTheEnd() {
        var session = self.collecting()
        _ = session.receive(.commandReceived(.recipient(self.path), isFollowed: false))
        #expect(session.receive(.disconnected) == .close)
        let late: [ServerSession.Event] = [
            .verdict(.accepted(.recipientAccepted)), .contentEnded(octetCount: 1), .contentFaulted(.tooLarge),
            .idleLimitReached, .stopRequested, .disconnected, .connected, .spokenTooSoon,
            .commandReceived(.data, isFollowed: false), .commandFaulted(.unknownCommand),
        ]
        for event in late { #expect(session.receive(event) == .wait) }
    }

    @Test("a stop and a silence can come at any point, also within a question")
    func endsAnywhere() {
        var asking = self.collecting()
        _ = asking.receive(.commandReceived(.recipient(self.path), isFollowed: false))
        var other = asking
        #expect(asking.receive(.stopRequested) == .wait)
        #expect(self.closingCode(other.receive(.idleLimitReached)) == 421)
        var fresh = ServerSession(rules: self.rules)
        #expect(self.closingCode(fresh.receive(.stopRequested)) == 421)
    }

    @Test("every reply of ours has a status of the class of its code, but those that RFC 2034 excepts")
    func statuses() {
        let replies: [Reply] = [
            .help, .done, .senderAccepted, .recipientAccepted, .queued(MessageID(rawValue: 1)), .addressExists,
            .cannotVerify, .queueUnavailable, .lookupUnavailable, .lookupFailed, .recipientUnknown, .mailLoop,
            .relayingDenied(client: .v4(1), domain: Array("example.com".utf8)), self.rules.shuttingDown,
            self.rules.tooManySessions, self.rules.tooManySessionsOfClient,
        ]
        for reply in replies {
            #expect(reply.status.map { UInt16($0.statusClass.rawValue) } == reply.code / 100)
        }
    }
}
