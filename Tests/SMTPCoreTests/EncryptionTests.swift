// SPDX-License-Identifier: Apache-2.0

import MailTypes
import SMTPCore
import Testing

private let limits = ServerLimits(
    mailOctetCountMax: 1_000, recipientCountMax: 10, faultCountMax: 10, commandLineOctetCountMax: 512,
    dataLineOctetCountMax: 998)
private let rules = ServerRules(hostname: Array("mx.example.org".utf8), limits: limits)

private func code(_ action: ServerSession.Action) -> UInt16? {
    switch action {
    case .reply(let reply), .abandonThenReply(let reply), .replyThenClose(let reply), .startTLS(let reply): reply.code
    default: nil
    }
}

private func offersTLS(_ action: ServerSession.Action) -> Bool {
    guard case .reply(let reply) = action else { return false }
    return reply.lines.contains(Array("STARTTLS".utf8))
}

extension ServerSession {
    fileprivate mutating func say(_ command: Command, isFollowed: Bool = false) -> Action {
        self.receive(.commandReceived(command, isFollowed: isFollowed))
    }
}

private let client = Array("client.example".utf8)

@Suite struct ServerEncryptionTests {
    @Test("After the handshake the session is as new, and STARTTLS is not offered again")
    func asNew() {
        var session = ServerSession(rules: rules, tls: .offered)
        _ = session.receive(.connected)
        #expect(code(session.say(.startTLS)) == 503, "before EHLO")
        #expect(offersTLS(session.say(.extendedHello(client))))
        guard case .startTLS(let reply) = session.say(.startTLS) else {
            Issue.record("no handshake")
            return
        }
        #expect(reply.code == 220)
        #expect(session.isSecuring && !session.isOpenToInput)
        #expect(session.receive(.secured) == .wait)
        #expect(session.isSecured && !session.isExtended)
        #expect(code(session.say(.mail(.null, MailParameters()))) == 503, "EHLO is forgotten")
        #expect(!offersTLS(session.say(.extendedHello(client))))
        #expect(code(session.say(.startTLS)) == 503)
        #expect(session.say(.mail(.null, MailParameters())) == .checkSender(.null, MailParameters()))
    }

    @Test("Octets behind STARTTLS in the same packet end the session")
    func followed() {
        var session = ServerSession(rules: rules, tls: .offered)
        _ = session.receive(.connected)
        _ = session.say(.extendedHello(client))
        guard case .replyThenClose(let reply) = session.say(.startTLS, isFollowed: true) else {
            Issue.record("the session goes on")
            return
        }
        #expect(reply.code == 554)
        #expect(session.isClosed)
    }

    @Test("Without a certificate STARTTLS is neither offered nor taken")
    func notOffered() {
        var session = ServerSession(rules: rules)
        _ = session.receive(.connected)
        #expect(!offersTLS(session.say(.extendedHello(client))))
        #expect(code(session.say(.startTLS)) == 502)
    }

    @Test("Where TLS is required there is no mail without it, but everything else")
    func required() {
        var session = ServerSession(rules: rules, tls: .required)
        _ = session.receive(.connected)
        #expect(offersTLS(session.say(.extendedHello(client))))
        #expect(code(session.say(.mail(.null, MailParameters()))) == 530)
        #expect(code(session.say(.verify(nil))) == 530)
        #expect(code(session.say(.noOperation)) == 250)
        _ = session.say(.startTLS)
        _ = session.receive(.secured)
        _ = session.say(.extendedHello(client))
        #expect(session.say(.mail(.null, MailParameters())) == .checkSender(.null, MailParameters()))
    }

    @Test("STARTTLS within a mail is refused and the mail goes on")
    func withinMail() {
        var session = ServerSession(rules: rules, tls: .offered)
        _ = session.receive(.connected)
        _ = session.say(.extendedHello(client))
        _ = session.say(.mail(.null, MailParameters()))
        _ = session.receive(.verdict(.accepted(.senderAccepted)))
        #expect(code(session.say(.startTLS)) == 503)
        #expect(session.say(.recipient(.postmaster)) == .checkRecipient(.postmaster))
    }

    @Test("Implicit TLS: the handshake, then the greeting; a stop, a limit and a failure before it are silent")
    func implicit() {
        var session = ServerSession(rules: rules, tls: .implicit)
        #expect(session.isSecuring)
        for end in [ServerSession.Event.idleLimitReached, .handshakeFailed, .stopRequested, .disconnected] {
            var other = session
            #expect(other.receive(end) == .close)
            #expect(other.isClosed)
        }
        #expect(session.receive(.secured) == .wait)
        #expect(code(session.receive(.connected)) == 220)
        #expect(!offersTLS(session.say(.extendedHello(client))))
    }
}

@Suite struct ClientEncryptionTests {
    private func reply(_ code: UInt16, _ text: String = "ok") -> ClientSession.Event {
        .replied(PeerReply(code: code, status: nil, text: Array(text.utf8)))
    }

    private func session(_ encryption: ClientSession.Encryption) -> ClientSession {
        var session = ClientSession(helloName: client, peerName: Array("mx".utf8), encryption: encryption)
        _ = session.receive(.connected)
        return session
    }

    private let offer = "mx\nPIPELINING\nSTARTTLS\nSIZE 1000"

    @Test("STARTTLS when it is offered, then EHLO anew, and only what is said under TLS counts")
    func startTLS() {
        var session = session(.opportunistic)
        _ = session.receive(self.reply(220))
        #expect(session.receive(self.reply(250, self.offer)) == .send(Array("STARTTLS\r\n".utf8)))
        #expect(session.stage == .startTLS)
        #expect(session.receive(self.reply(220)) == .startTLS)
        #expect(session.stage == .handshake)
        #expect(session.receive(.secured) == .send(Array("EHLO client.example\r\n".utf8)))
        #expect(session.capabilities == Capabilities())
        #expect(session.receive(self.reply(250, "mx\n8BITMIME\nSTARTTLS")) == .announceReady)
        #expect(session.capabilities.hasEightBitMIME && !session.capabilities.hasPipelining)
        #expect(session.isSecured)
    }

    @Test("Without an offer, or after a refusal, an opportunistic client goes on in plain text, others defer")
    func noOffer() {
        for (encryption, isDeferred) in [(ClientSession.Encryption.opportunistic, false), (.required, true)] {
            var session = session(encryption)
            _ = session.receive(self.reply(220))
            let withoutOffer = session.receive(self.reply(250, "mx\nPIPELINING"))
            Self.expect(withoutOffer, isDeferred, "4.7.4")
            var refused = self.session(encryption)
            _ = refused.receive(self.reply(220))
            _ = refused.receive(self.reply(250, self.offer))
            Self.expect(refused.receive(self.reply(454, "not now")), isDeferred, "4.0.0")
        }
    }

    private static func expect(_ action: ClientSession.Action, _ isDeferred: Bool, _ status: String) {
        guard isDeferred else {
            #expect(action == .announceReady)
            return
        }
        guard case .conclude(let conclusion) = action, let failure = conclusion.failure else {
            Issue.record("no conclusion: \(action)")
            return
        }
        #expect(failure.kind == .deferred)
        #expect(failure.status.octets == Array(status.utf8))
    }

    @Test("A handshake that fails, times out or is cut defers with 4.7.5 and is known as one")
    func handshakeFails() {
        for end in [ClientSession.Event.handshakeFailed("no common cipher"), .timedOut, .disconnected] {
            var session = session(.required)
            _ = session.receive(self.reply(220))
            _ = session.receive(self.reply(250, self.offer))
            _ = session.receive(self.reply(220))
            Self.expect(session.receive(end), true, "4.7.5")
            #expect(session.hasHandshakeFailed && !session.isReady)
        }
    }

    /// A session with a server that offers TLS and that TLS was not reached with: refused, or after a handshake that failed.
    private func withoutTLS(isRefused: Bool, offer: String) -> ClientSession {
        var session = ClientSession(
            helloName: client, peerName: Array("mx".utf8), encryption: isRefused ? .opportunistic : .none,
            hasMissedTLS: !isRefused)
        for event in [ClientSession.Event.connected, self.reply(220), self.reply(250, offer)] {
            _ = session.receive(event)
        }
        if isRefused { _ = session.receive(self.reply(454)) }
        _ = session.receive(
            .begin(
                ClientSession.Transaction(
                    reversePath: .null, recipients: [.postmaster], octetCount: 3, bodyType: .sevenBit)))
        return session
    }

    private func refusal(_ code: UInt16, _ status: String?) -> ClientSession.Event {
        .replied(
            PeerReply(
                code: code, status: status.flatMap { EnhancedStatus(octets: Array($0.utf8)) }, text: Array("no".utf8)))
    }

    @Test("Where TLS was offered and not reached, a refusal that may be for want of it only puts off")
    func wantOfTLS() {
        // How far the replies are good, the refusal, and whether it is for good.
        let cases: [(Int, UInt16, String?, Bool)] = [
            (0, 530, "5.7.0", false), (0, 530, nil, false), (0, 550, nil, false), (0, 554, "5.7.1", false),
            (0, 552, "5.3.4", true), (1, 530, nil, false), (1, 550, "5.7.1", false), (1, 550, nil, true),
            (1, 550, "5.1.1", true), (2, 530, "5.7.0", false), (2, 554, nil, true),
        ]
        for (good, code, status, isForGood) in cases {
            for isRefused in [false, true] {
                for offer in [self.offer, "mx\nSTARTTLS"] {
                    var session = self.withoutTLS(isRefused: isRefused, offer: offer)
                    var replies = Array(repeating: self.reply(250), count: good) + [self.refusal(code, status)]
                    if offer == self.offer { replies += Array(repeating: self.reply(503), count: 2 - good) }
                    var conclusion: ClientSession.Conclusion?
                    for reply in replies {
                        if case .conclude(let made) = session.receive(reply) { conclusion = made }
                    }
                    let outcome = conclusion?.verdicts.first.flatMap { $0 } ?? conclusion?.failure
                    #expect(outcome?.kind == (isForGood ? .failed : .deferred), "\(good) \(code) \(isRefused) \(offer)")
                    if !isForGood { #expect(outcome?.status.octets.starts(with: "4.7.".utf8) == true) }
                    #expect(session.isReady == isForGood, "no other message goes this way")
                }
            }
        }
    }

    @Test("A server that speaks in the middle of the handshake is not believed")
    func spokenTooSoon() {
        var session = session(.opportunistic)
        _ = session.receive(self.reply(220))
        _ = session.receive(self.reply(250, self.offer))
        _ = session.receive(self.reply(220))
        guard case .conclude = session.receive(self.reply(250)) else {
            Issue.record("a reply in clear text was taken")
            return
        }
        #expect(!session.isReady)
    }

    @Test("Implicit TLS: the handshake before the greeting, and EHLO once")
    func implicit() {
        var session = ClientSession(helloName: client, peerName: Array("mx".utf8), encryption: .implicit)
        #expect(session.receive(.connected) == .startTLS)
        #expect(session.receive(.secured) == .wait)
        #expect(session.stage == .greeting)
        _ = session.receive(self.reply(220))
        #expect(session.receive(self.reply(250, self.offer)) == .announceReady)
    }
}
