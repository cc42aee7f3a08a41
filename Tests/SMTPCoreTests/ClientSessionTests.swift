// SPDX-License-Identifier: Apache-2.0

import MailTypes
import SMTPCore
import Testing

/// A session that is fed a server's lines, and what it does.
private struct Conversation {
    var session = ClientSession(
        helloName: Array("client.example".utf8), peerName: Array("mx.example[192.0.2.1]".utf8))

    /// Connects and says hello; the session is ready after it.
    init(offering keywords: String...) {
        _ = self.session.receive(.connected)
        #expect(self.hear("220 mx.example ESMTP") == .send(octets("EHLO client.example\r\n")))
        #expect(self.hear((["250 mx.example"] + keywords).joined(separator: "\n")) == .announceReady)
    }

    /// A connection before its greeting.
    init(unconnected: Void) { _ = self.session.receive(.connected) }

    mutating func hear(_ text: String) -> ClientSession.Action { self.session.receive(.replied(parsed(text))) }

    mutating func begin(
        _ recipients: String..., from: String = "a@example.org", octetCount: UInt64 = 100, body: BodyType = .sevenBit
    ) -> ClientSession.Action {
        self.session.receive(
            .begin(
                ClientSession.Transaction(
                    reversePath: ReversePath(octets: Array(from.utf8)) ?? .null,
                    recipients: recipients.compactMap { ForwardPath(octets: Array($0.utf8)) },
                    octetCount: octetCount, bodyType: body)))
    }
}

private func octets(_ text: String) -> [UInt8] { Array(text.utf8) }

/// `250 2.1.0 text` as the parser gives it.
private func parsed(_ text: String) -> PeerReply {
    var words = text.split(separator: " ", omittingEmptySubsequences: false)
    let code = UInt16(words.removeFirst()) ?? 0
    let status = words.first.flatMap { EnhancedStatus(octets: Array($0.utf8)) }
    if status != nil { words.removeFirst() }
    return PeerReply(code: code, status: status, text: octets(words.joined(separator: " ")))
}

/// `failed 550 5.1.1 text`.
private func outcome(_ text: String) -> DeliveryOutcome? {
    let words = text.split(separator: " ", maxSplits: 3)
    guard words.count == 4, let kind = DeliveryOutcome.Kind(rawValue: String(words[0])), let code = UInt16(words[1]),
        let status = EnhancedStatus(octets: Array(words[2].utf8))
    else { return nil }
    var outcome = DeliveryOutcome(
        kind, code: code, status: status, reporter: octets("mx.example[192.0.2.1]"), text: octets(String(words[3])))
    // What is said of a message or a recipient, and ends no session, is no sign that the host is down.
    let places = ["to MAIL FROM)", "to RCPT TO)", "to DATA)", "to end of data)"]
    outcome.hasAnswered = kind == .deferred && code != 421 && places.contains { text.hasSuffix($0) }
    return outcome
}

private func conclude(_ verdicts: String?..., failure: String? = nil) -> ClientSession.Action {
    .conclude(
        ClientSession.Conclusion(verdicts: verdicts.map { $0.flatMap(outcome) }, failure: failure.flatMap(outcome)))
}

@Suite("Client sessions")
struct ClientSessionTests {
    @Test("without PIPELINING, each command waits for the answer to the one before")
    func stepByStep() {
        var talk = Conversation()
        #expect(talk.begin("b@example.net", "c@example.net") == .send(octets("MAIL FROM:<a@example.org>\r\n")))
        #expect(talk.session.stage == .mail)
        #expect(talk.hear("250 ok") == .send(octets("RCPT TO:<b@example.net>\r\n")))
        #expect(talk.session.stage == .recipient)
        #expect(talk.hear("550 5.1.1 no such user") == .send(octets("RCPT TO:<c@example.net>\r\n")))
        #expect(talk.hear("251 ok") == .send(octets("DATA\r\n")))
        #expect(talk.session.stage == .data)
        #expect(talk.hear("354 go") == .sendContent)
        #expect(talk.session.stage == .content)
        #expect(talk.session.receive(.contentSent) == .wait)
        #expect(talk.session.stage == .finalReply)
        #expect(
            talk.hear("250 2.6.0 queued as 1")
                == conclude(
                    "failed 550 5.1.1 no such user (in reply to RCPT TO)", "delivered 250 2.6.0 queued as 1"))
        #expect(talk.session.isReady)
    }

    @Test("with PIPELINING, the envelope is one write, and the next message needs no RSET")
    func pipelined() {
        var talk = Conversation(offering: "PIPELINING", "SIZE 1000", "8BITMIME")
        for _ in 0..<2 {
            #expect(
                talk.begin("b@example.net", "postmaster", from: "", body: .eightBitMIME)
                    == .send(
                        octets(
                            "MAIL FROM:<> SIZE=100 BODY=8BITMIME\r\nRCPT TO:<b@example.net>\r\nRCPT TO:<postmaster>\r\nDATA\r\n"
                        )))
            #expect(talk.hear("250 ok") == .wait)
            #expect(talk.hear("250 ok") == .wait)
            #expect(talk.hear("250 ok") == .wait)
            #expect(talk.hear("354 go") == .sendContent)
            #expect(talk.session.receive(.contentSent) == .wait)
            #expect(talk.hear("250 done") == conclude("delivered 250 2.0.0 done", "delivered 250 2.0.0 done"))
        }
        #expect(talk.session.transactionCount == 2)
        #expect(talk.session.receive(.quit) == .send(octets("QUIT\r\n")))
        #expect(talk.hear("221 bye") == .close)
    }

    @Test("8-bit mail goes to a server without 8BITMIME as it is, without BODY")
    func eightBitWithoutExtension() {
        var talk = Conversation(offering: "PIPELINING")
        #expect(
            talk.begin("b@example.net", body: .eightBitMIME)
                == .send(octets("MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.net>\r\nDATA\r\n")))
    }

    @Test("a 354 for nobody is answered with a lone dot, and the next message needs no RSET")
    func loneDot() {
        var talk = Conversation(offering: "PIPELINING")
        _ = talk.begin("b@example.net")
        _ = talk.hear("250 ok")
        _ = talk.hear("550 5.1.1 no")
        #expect(talk.hear("354 go") == .send(octets(".\r\n")))
        #expect(talk.hear("554 no recipients") == conclude("failed 550 5.1.1 no (in reply to RCPT TO)"))
        #expect(
            talk.begin("c@example.net")
                == .send(octets("MAIL FROM:<a@example.org>\r\nRCPT TO:<c@example.net>\r\nDATA\r\n")))
    }

    @Test("an envelope that is left behind is reset before the next")
    func reset() {
        var talk = Conversation(offering: "PIPELINING")
        _ = talk.begin("b@example.net")
        _ = talk.hear("250 ok")
        _ = talk.hear("450 4.2.1 later")
        #expect(talk.hear("503 5.5.1 no recipients") == conclude("deferred 450 4.2.1 later (in reply to RCPT TO)"))
        #expect(
            talk.begin("c@example.net")
                == .send(octets("RSET\r\nMAIL FROM:<a@example.org>\r\nRCPT TO:<c@example.net>\r\nDATA\r\n")))
        #expect(talk.hear("250 flushed") == .wait)
        #expect(talk.session.stage == .mail)

        var slow = Conversation()
        _ = slow.begin("b@example.net")
        _ = slow.hear("250 ok")
        #expect(slow.hear("550 5.1.1 no") == conclude("failed 550 5.1.1 no (in reply to RCPT TO)"))
        #expect(slow.begin("c@example.net") == .send(octets("RSET\r\n")))
        #expect(slow.hear("250 flushed") == .send(octets("MAIL FROM:<a@example.org>\r\n")))
    }

    @Test(
        "what a refusal of MAIL means for all recipients",
        arguments: [
            ("450 4.7.1 later", nil, "deferred 450 4.7.1 later (in reply to MAIL FROM)"),
            ("553 5.1.8 never", "failed 553 5.1.8 never (in reply to MAIL FROM)", nil),
        ] as [(String, String?, String?)])
    func mailRefused(_ reply: String, _ verdict: String?, _ failure: String?) {
        var slow = Conversation()
        _ = slow.begin("b@example.net", "c@example.net")
        #expect(slow.hear(reply) == conclude(verdict, verdict, failure: failure))
        #expect(slow.session.isReady)

        var fast = Conversation(offering: "PIPELINING")
        _ = fast.begin("b@example.net", "c@example.net")
        #expect(fast.hear(reply) == .wait)
        #expect(fast.hear("503 5.5.1 need MAIL") == .wait)
        #expect(fast.hear("250 what?") == .wait)
        #expect(fast.hear("503 5.5.1 need RCPT") == conclude(verdict, verdict, failure: failure))

        // A server that says 354 nevertheless gets no content.
        var odd = Conversation(offering: "PIPELINING")
        _ = odd.begin("b@example.net")
        _ = odd.hear(reply)
        _ = odd.hear("250 what?")
        #expect(odd.hear("354 go") == .send(octets(".\r\n")))
        #expect(odd.hear("250 thanks") == conclude(verdict, failure: failure))
    }

    @Test(
        "what replies to RCPT mean",
        arguments: [
            ("450 greylisted", "deferred 450 4.0.0 greylisted (in reply to RCPT TO)"),
            ("550 no", "failed 550 5.0.0 no (in reply to RCPT TO)"),
            ("550 4.1.1 odd", "failed 550 5.0.0 odd (in reply to RCPT TO)"),
            ("552 too many", "deferred 452 4.5.3 too many (552 in reply to RCPT TO)"),
            ("552 5.5.3 too many", "deferred 452 4.5.3 too many (552 in reply to RCPT TO)"),
            ("552 5.2.2 full", "failed 552 5.2.2 full (in reply to RCPT TO)"),
        ])
    func recipientRefused(_ reply: String, _ verdict: String) {
        var talk = Conversation()
        _ = talk.begin("b@example.net")
        _ = talk.hear("250 ok")
        #expect(talk.hear(reply) == conclude(verdict))
    }

    @Test("a refusal of DATA or of the content settles those that were accepted, and only those")
    func dataRefused() {
        var talk = Conversation(offering: "PIPELINING")
        _ = talk.begin("b@example.net", "c@example.net")
        _ = talk.hear("250 ok")
        _ = talk.hear("550 no")
        _ = talk.hear("250 ok")
        #expect(
            talk.hear("451 4.3.0 busy")
                == conclude(
                    "failed 550 5.0.0 no (in reply to RCPT TO)", "deferred 451 4.3.0 busy (in reply to DATA)"))

        _ = talk.begin("b@example.net")
        for reply in ["250 reset", "250 ok", "250 ok"] { _ = talk.hear(reply) }
        #expect(talk.hear("354 go") == .sendContent)
        _ = talk.session.receive(.contentSent)
        #expect(
            talk.hear("554 5.7.1 spam") == conclude("failed 554 5.7.1 spam (in reply to end of data)"))
        #expect(talk.session.isReady)
    }

    @Test("a message above the announced size is not offered")
    func tooLarge() {
        var talk = Conversation(offering: "SIZE 99")
        #expect(
            talk.begin("b@example.net", octetCount: 100)
                == conclude("failed 0 5.3.4 The message has 100 octets, the server takes at most 99"))
        #expect(talk.session.isReady)
        #expect(talk.begin("b@example.net", octetCount: 99) == .send(octets("MAIL FROM:<a@example.org> SIZE=99\r\n")))

        var unlimited = Conversation(offering: "SIZE 0")
        #expect(
            unlimited.begin("b@example.net", octetCount: 1 << 40)
                == .send(octets("MAIL FROM:<a@example.org> SIZE=1099511627776\r\n")))
    }

    @Test("a server that does not know EHLO is greeted with HELO")
    func helloFallback() {
        var talk = Conversation(unconnected: ())
        #expect(talk.session.stage == .greeting)
        _ = talk.hear("220 hi")
        #expect(talk.hear("502 what?") == .send(octets("HELO client.example\r\n")))
        #expect(talk.hear("250 PIPELINING") == .announceReady)
        #expect(talk.session.capabilities == Capabilities())
    }

    @Test(
        "a server that refuses the session leaves the recipients to the next one",
        arguments: [
            (["421 4.3.2 closing"], "deferred 421 4.3.2 closing (as a greeting)", false),
            (["450 later"], "deferred 450 4.0.0 later (as a greeting)", true),
            (["554 5.7.1 go away"], "failed 554 5.7.1 go away (as a greeting)", true),
            (["220 hi", "450 later"], "deferred 450 4.0.0 later (in reply to EHLO)", true),
            (["220 hi", "500 what?", "550 no"], "failed 550 5.0.0 no (in reply to EHLO)", true),
            (["354 hi"], "deferred 0 4.5.0 The server said 354 where that has no meaning: hi", true),
        ] as [([String], String, Bool)])
    func sessionRefused(_ replies: [String], _ failure: String, _ canQuit: Bool) {
        var talk = Conversation(unconnected: ())
        for reply in replies.dropLast() { _ = talk.hear(reply) }
        #expect(talk.hear(replies.last ?? "") == conclude(failure: failure))
        #expect(!talk.session.isReady)
        #expect(talk.session.receive(.quit) == (canQuit ? .send(octets("QUIT\r\n")) : .close))
    }

    @Test(
        "421 in the envelope ends the session and keeps the verdicts that were given",
        arguments: [0, 1, 2, 3])
    func closingInEnvelope(_ count: Int) {
        var talk = Conversation(offering: "PIPELINING")
        _ = talk.begin("b@example.net", "c@example.net")
        for reply in ["250 ok", "550 no", "250 ok"].prefix(count) { _ = talk.hear(reply) }
        let place = ["MAIL FROM", "RCPT TO", "RCPT TO", "DATA"][count]
        #expect(
            talk.hear("421 4.3.2 bye")
                == conclude(
                    count >= 2 ? "failed 550 5.0.0 no (in reply to RCPT TO)" : nil, nil,
                    failure: "deferred 421 4.3.2 bye (in reply to \(place))"))
        #expect(talk.session.receive(.quit) == .close)
    }

    @Test("421 after the final dot is an answer, and ends the session")
    func closingAtTheEnd() {
        var talk = Conversation(offering: "PIPELINING")
        _ = talk.begin("b@example.net")
        for reply in ["250 ok", "250 ok", "354 go"] { _ = talk.hear(reply) }
        _ = talk.session.receive(.contentSent)
        #expect(talk.hear("421 4.3.2 bye") == conclude("deferred 421 4.3.2 bye (in reply to end of data)"))
        #expect(!talk.session.isReady)
    }

    @Test(
        "silence after the final dot may mean delivered; no other server is tried",
        arguments: [
            (ClientSession.Event.timedOut, "The server did not answer in time"),
            (.disconnected, "The connection was lost"),
            (.replyFaulted(.noReplyCode), "The server sent something that is no SMTP reply"),
            (.replied(parsed("354 what?")), "The server answered the end of the data with 354"),
        ])
    func uncertain(_ event: ClientSession.Event, _ text: String) {
        var talk = Conversation(offering: "PIPELINING")
        _ = talk.begin("b@example.net", "c@example.net")
        for reply in ["250 ok", "550 no", "250 ok", "354 go"] { _ = talk.hear(reply) }
        _ = talk.session.receive(.contentSent)
        #expect(
            talk.session.receive(event)
                == conclude(
                    "failed 550 5.0.0 no (in reply to RCPT TO)",
                    "deferred 0 4.4.2 \(text) after the final dot: the message may be delivered twice"))
        #expect(talk.session.receive(.quit) == .close)
    }

    @Test(
        "a malformed answer to the final dot says what its first digit says, and nothing is sent over it any more",
        arguments: [
            ("250 2.0.0 queued", "delivered 250 2.0.0 queued"),
            ("451 no", "deferred 451 4.0.0 no (in reply to end of data)"),
            ("554 5.6.0 no", "failed 554 5.6.0 no (in reply to end of data)"),
        ])
    func broken(_ reply: String, _ verdict: String) {
        for fault in [ReplyFault.lineTooLong, .tooManyLines] {
            var talk = Conversation(offering: "PIPELINING")
            _ = talk.begin("b@example.net")
            for reply in ["250 ok", "250 ok", "354 go"] { _ = talk.hear(reply) }
            _ = talk.session.receive(.contentSent)
            #expect(talk.session.receive(.replyFaulted(fault, parsed(reply))) == conclude(verdict))
            #expect(talk.session.receive(.quit) == .close)
        }
    }

    @Test("silence before the final dot leaves the accepted recipients to the next server")
    func silentInContent() {
        var talk = Conversation(offering: "PIPELINING")
        _ = talk.begin("b@example.net")
        for reply in ["250 ok", "250 ok", "354 go"] { _ = talk.hear(reply) }
        #expect(
            talk.session.receive(.timedOut)
                == conclude(
                    nil, failure: "deferred 0 4.4.1 The server did not answer in time (while content was being sent)"))
        // QUIT would be content.
        #expect(talk.session.receive(.quit) == .close)
    }

    @Test("a server that refuses in the middle of content is believed, and the end is not sent")
    func refusedInContent() {
        var talk = Conversation(offering: "PIPELINING")
        _ = talk.begin("b@example.net")
        for reply in ["250 ok", "250 ok", "354 go"] { _ = talk.hear(reply) }
        #expect(
            talk.hear("552 5.3.4 too big")
                == conclude("failed 552 5.3.4 too big (while content was being sent)"))
        #expect(talk.session.receive(.contentSent) == .wait)
        #expect(talk.session.receive(.quit) == .close)

        var odd = Conversation(offering: "PIPELINING")
        _ = odd.begin("b@example.net")
        for reply in ["250 ok", "250 ok", "354 go"] { _ = odd.hear(reply) }
        #expect(
            odd.hear("250 early")
                == conclude(nil, failure: "deferred 0 4.5.0 The server said 250 where that has no meaning: early"))
    }

    @Test("a reply that nobody asked for ends an idle session")
    func unasked() {
        for said in ["250 hello?", "421 too long idle"] {
            var talk = Conversation()
            _ = talk.begin("b@example.net")
            for reply in ["250 ok", "550 no"] { _ = talk.hear(reply) }
            #expect(talk.session.isReady)
            #expect(talk.hear(said) == .close)
            #expect(talk.session.stage == .closed)
        }
    }

    @Test("a word behind the answer to EHLO, or the end, is told to who waits for the session to be ready")
    func unaskedAtOnce() {
        var talk = Conversation()
        #expect(talk.hear("421 4.3.2 too busy") == conclude(failure: "deferred 421 4.3.2 too busy"))
        var lost = Conversation()
        #expect(
            lost.session.receive(.disconnected)
                == conclude(failure: "deferred 0 4.4.2 The server closed the connection"))
    }

    @Test("a message that is begun on a session that has ended is left to the next server")
    func beginTooLate() {
        var talk = Conversation()
        _ = talk.session.receive(.quit)
        guard case .conclude(let conclusion) = talk.begin("b@example.net") else {
            Issue.record("no conclusion")
            return
        }
        #expect(conclusion.verdicts == [nil])
        #expect(conclusion.failure?.kind == .deferred)
    }

    @Test("no sequence of events makes the session send content that nobody accepted, or crash")
    func anySequence() {
        let replies = ["220 a", "250 a", "354 a", "421 a", "450 a", "550 a", "552 a"].map(parsed)
        var events = replies.map { ClientSession.Event.replied($0) }
        let transaction = ClientSession.Transaction(
            reversePath: .null, recipients: [.postmaster, .postmaster], octetCount: 1, bodyType: .sevenBit)
        events += [
            .connected, .begin(transaction), .contentSent, .timedOut, .disconnected, .quit, .replyFaulted(.lineTooLong),
        ]
        // A walk of 200,000 steps by a fixed generator, with a new session whenever one has closed.
        var state: UInt64 = 1
        for isPipelined in [false, true] {
            var session = ClientSession(helloName: [0x61], peerName: [0x62])
            var openVerdictCount = 0
            for _ in 0..<100_000 {
                state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
                if session.stage == .closed {
                    session = ClientSession(helloName: [0x61], peerName: [0x62])
                    openVerdictCount = 0
                    if isPipelined {
                        for event in [
                            ClientSession.Event.connected, .replied(parsed("220 a")),
                            .replied(parsed("250 a\nPIPELINING")),
                        ] { _ = session.receive(event) }
                    }
                }
                let event = events[Int(state >> 33) % events.count]
                let wasReady = session.isReady
                switch session.receive(event) {
                case .conclude(let conclusion):
                    #expect(conclusion.failure != nil || !conclusion.verdicts.contains(nil))
                    // The answer to a message that could not begin says nothing of the one under way.
                    if case .begin = event, !wasReady { break }
                    if openVerdictCount > 0 { #expect(conclusion.verdicts.count == openVerdictCount) }
                    openVerdictCount = 0
                case .sendContent:
                    #expect(openVerdictCount > 0)
                case .seekProof, .passChallenge:
                    Issue.record("nobody has to say who we are")
                case .wait, .send, .startTLS, .announceReady, .close:
                    if case .begin = event, wasReady { openVerdictCount = 2 }
                    // A session never closes over recipients that it has not told of.
                    if session.stage == .closed, event != .quit { #expect(openVerdictCount == 0) }
                }
            }
        }
    }
}
