// SPDX-License-Identifier: Apache-2.0

import MailTypes
import SMTPCore
import Testing

private func octets(_ text: String) -> [UInt8] { Array(text.utf8) }

/// A session whose server has answered EHLO with these lines.
private struct Talk {
    var session = ClientSession(
        helloName: octets("client.example"), peerName: octets("mx.example"), isAuthenticating: true)

    init() {
        _ = self.session.receive(.connected)
        _ = self.hear(220, "mx.example")
    }

    mutating func hear(_ code: UInt16, _ text: String) -> ClientSession.Action {
        self.session.receive(.replied(PeerReply(code: code, status: nil, text: octets(text))))
    }

    mutating func prove(_ mechanism: SASLMechanism, _ text: String?, isLast: Bool = true) -> ClientSession.Action {
        self.session.receive(.proved(.response(mechanism, text.map(octets), isLast: isLast)))
    }
}

private func failure(_ action: ClientSession.Action) -> String {
    guard case .conclude(let conclusion) = action, let failure = conclusion.failure else { return "\(action)" }
    return "\(failure.kind.rawValue) \(failure.status.octets.printableText) \(failure.text.printableText)"
}

@Suite struct ClientAuthenticationTests {
    @Test("the mechanisms are read from EHLO, in the old form too, and the first message waits until we are known")
    func plain() {
        var talk = Talk()
        #expect(talk.hear(250, "mx.example\nAUTH=LOGIN plain\nAUTH PLAIN NTLM SCRAM-SHA-256") == .seekProof)
        #expect(talk.session.capabilities.mechanisms == [.login, .plain, .scramSHA256])
        #expect(!talk.session.isReady && talk.session.stage == .authentication)
        #expect(talk.prove(.plain, "\0u\0p") == .send(octets("AUTH PLAIN AHUAcA==\r\n")))
        #expect(talk.hear(235, "welcome") == .announceReady)
        #expect(talk.session.isReady)
    }

    @Test("challenges are passed on decoded, and answers go back encoded")
    func challenges() {
        var talk = Talk()
        _ = talk.hear(250, "mx.example\nAUTH LOGIN")
        #expect(talk.prove(.login, nil, isLast: false) == .send(octets("AUTH LOGIN\r\n")))
        #expect(talk.hear(334, "VXNlcm5hbWU6") == .passChallenge(octets("Username:")))
        #expect(talk.prove(.login, "user", isLast: false) == .send(octets("dXNlcg==\r\n")))
        #expect(talk.hear(334, "") == .passChallenge([]))
        #expect(talk.prove(.login, "") == .send(octets("\r\n")))
        #expect(talk.hear(235, "ok") == .announceReady)
    }

    @Test("an empty first response is an equals sign, and one that does not fit into the command comes after it")
    func firstResponses() {
        var talk = Talk()
        _ = talk.hear(250, "mx.example\nAUTH PLAIN")
        #expect(talk.prove(.plain, "") == .send(octets("AUTH PLAIN =\r\n")))
        talk = Talk()
        _ = talk.hear(250, "mx.example\nAUTH PLAIN")
        let long = String(repeating: "x", count: 400)
        #expect(talk.prove(.plain, long) == .send(octets("AUTH PLAIN\r\n")))
        #expect(talk.hear(334, "") == .send(Base64.encode(octets(long)) + octets("\r\n")))
        #expect(talk.hear(235, "ok") == .announceReady)
    }

    @Test("whatever is wrong with our credentials, the mail waits")
    func refusals() {
        var talk = Talk()
        #expect(
            failure(talk.hear(250, "mx.example\nSIZE"))
                == "deferred 4.7.0 We cannot authenticate ourselves: the server does not offer it")
        talk = Talk()
        _ = talk.hear(250, "mx.example\nAUTH PLAIN")
        _ = talk.prove(.plain, "x")
        #expect(failure(talk.hear(535, "wrong password")) == "deferred 4.7.8 wrong password (in reply to AUTH)")
        #expect(talk.session.receive(.quit) == .send(octets("QUIT\r\n")))
        talk = Talk()
        _ = talk.hear(250, "mx.example\nAUTH PLAIN")
        #expect(
            failure(talk.session.receive(.proved(.none("no password"))))
                == "deferred 4.7.0 We cannot authenticate ourselves: no password")
        talk = Talk()
        _ = talk.hear(250, "mx.example\nAUTH PLAIN")
        _ = talk.prove(.plain, "x")
        #expect(failure(talk.hear(334, "no base64!")).hasPrefix("deferred 4.5.0 The server said 334"))
    }

    @Test("a server that is content before it has proven itself is not believed")
    func tooEarly() {
        var talk = Talk()
        _ = talk.hear(250, "mx.example\nAUTH SCRAM-SHA-256")
        _ = talk.prove(.scramSHA256, "n,,n=u,r=x", isLast: false)
        #expect(
            failure(talk.hear(235, "ok"))
                == "deferred 4.7.0 We cannot authenticate ourselves: the server is content without a proof of its own")
        #expect(!talk.session.isReady)
    }

    @Test("a proof that nobody asked for changes nothing")
    func outOfPlace() {
        var talk = Talk()
        #expect(talk.prove(.plain, "x") == .wait)
        _ = talk.hear(250, "mx.example\nAUTH PLAIN")
        _ = talk.prove(.plain, "x")
        #expect(talk.prove(.plain, "x") == .wait)
        #expect(talk.hear(235, "ok") == .announceReady)
        #expect(talk.prove(.plain, "x") == .wait)
    }
}
