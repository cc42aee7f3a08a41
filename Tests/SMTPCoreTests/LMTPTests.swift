// SPDX-License-Identifier: Apache-2.0

import MailTypes
import SMTPCore
import Testing

private func octets(_ text: String) -> [UInt8] { Array(text.utf8) }

/// A session with a server of mailboxes, which has three recipients before it.
private struct Talk {
    var session = ClientSession(helloName: octets("mx.example"), peerName: octets("/lmtp"), isLMTP: true)

    init(offering: String = "PIPELINING") {
        _ = self.session.receive(.connected)
        #expect(self.hear(220, "ready") == .send(octets("LHLO mx.example\r\n")))
        #expect(self.hear(250, "lmtp\n\(offering)") == .announceReady)
    }

    mutating func hear(_ code: UInt16, _ text: String) -> ClientSession.Action {
        self.session.receive(.replied(PeerReply(code: code, status: nil, text: octets(text))))
    }

    mutating func begin() -> ClientSession.Action {
        self.session.receive(
            .begin(
                ClientSession.Transaction(
                    reversePath: .null,
                    recipients: ["a@x.example", "b@x.example", "c@x.example"].compactMap {
                        ForwardPath(octets: octets($0))
                    },
                    octetCount: 10, bodyType: .sevenBit)))
    }

    /// Up to the end of the content, with the second recipient refused.
    mutating func send() {
        _ = self.begin()
        for (code, text) in [(250, "ok"), (250, "ok"), (550, "who?"), (250, "ok")] { _ = self.hear(UInt16(code), text) }
        #expect(self.hear(354, "go") == .sendContent)
        #expect(self.session.receive(.contentSent) == .wait)
    }
}

private func kinds(_ action: ClientSession.Action) -> [DeliveryOutcome.Kind?] {
    guard case .conclude(let conclusion) = action else { return [] }
    return conclusion.verdicts.map { $0?.kind }
}

@Suite struct LMTPTests {
    @Test("a malformed answer after the final dot counts for its recipient, and nobody knows of those behind it")
    func broken() {
        var talk = Talk()
        talk.send()
        let reply = PeerReply(code: 250, status: nil, text: octets("saved"))
        #expect(kinds(talk.session.receive(.replyFaulted(.lineTooLong, reply))) == [.delivered, .failed, .deferred])
    }

    @Test("each recipient that was taken has its own reply after the final dot, in their order")
    func replies() {
        var talk = Talk()
        for _ in 0..<2 {
            talk.send()
            #expect(talk.hear(452, "over quota") == .wait)
            #expect(!talk.session.isReady)
            #expect(kinds(talk.hear(250, "saved")) == [.deferred, .failed, .delivered])
            #expect(talk.session.isReady, "and the next message follows on the connection")
        }
    }

    @Test("a server that announces DSN is given the sender's wishes, and said to have them", arguments: [true, false])
    func wishes(_ hasDSN: Bool) {
        var talk = Talk(offering: hasDSN ? "PIPELINING\nDSN" : "PIPELINING")
        talk.send()
        _ = talk.hear(250, "saved")
        guard case .conclude(let conclusion) = talk.hear(250, "saved") else {
            Issue.record("it goes on")
            return
        }
        #expect(conclusion.verdicts.map { $0?.hasPassedOnDSN } == [hasDSN, false, hasDSN])
    }

    @Test("without all replies those that are missing are uncertain, and those that came stand")
    func cutShort() {
        var talk = Talk()
        talk.send()
        #expect(talk.hear(250, "saved") == .wait)
        let action = talk.session.receive(.disconnected)
        #expect(kinds(action) == [.delivered, .failed, .deferred])
        guard case .conclude(let conclusion) = action else { return }
        #expect(conclusion.verdicts[2]?.text.printableText.contains("may be delivered twice") == true)
    }

    @Test(
        "a server that does not know LHLO is not greeted as one of SMTP, and one that takes content for nobody is left")
    func violations() {
        var session = ClientSession(helloName: octets("mx.example"), peerName: octets("/lmtp"), isLMTP: true)
        _ = session.receive(.connected)
        _ = session.receive(.replied(PeerReply(code: 220, status: nil, text: octets("smtp"))))
        let reply = PeerReply(code: 500, status: nil, text: octets("what?"))
        guard case .conclude = session.receive(.replied(reply)) else {
            Issue.record("it goes on")
            return
        }
        var talk = Talk()
        _ = talk.begin()
        for code: UInt16 in [250, 550, 550, 550] { _ = talk.hear(code, "x") }
        #expect(kinds(talk.hear(354, "go")) == [.failed, .failed, .failed])
        #expect(!talk.session.isReady)
    }
}
