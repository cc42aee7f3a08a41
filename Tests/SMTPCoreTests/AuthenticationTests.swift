// SPDX-License-Identifier: Apache-2.0

import MailTypes
import SMTPCore
import Testing

@Suite struct AuthenticationExchangeTests {
    private static let limits = ServerLimits(
        mailOctetCountMax: 10_000, recipientCountMax: 10, faultCountMax: 20, commandLineOctetCountMax: 1_024,
        dataLineOctetCountMax: 998)

    /// A session that waits for the answer to a challenge.
    private static func challenged() -> ServerSession {
        var session = ServerSession(rules: ServerRules(hostname: Array("mx.example.org".utf8), limits: Self.limits))
        session.authentication = AuthenticationOffer(mechanisms: [.plain], allowsClearText: true)
        _ = session.receive(.connected)
        _ = session.receive(.commandReceived(.extendedHello(Array("c".utf8)), isFollowed: false))
        _ = session.receive(.commandReceived(.authenticate(Array("PLAIN".utf8), .none), isFollowed: false))
        _ = session.receive(.challenged([]))
        return session
    }

    @Test("A response may be as long as RFC 4954 has it, and what is longer ends the exchange with 500 5.5.6")
    func lineLength() {
        for (length, isTaken) in [(12_286, true), (12_287, false), (60_000, false)] {
            var input = ServerInput(limits: Self.limits)
            input.beginResponse()
            let octets = [UInt8](repeating: 0x41, count: length) + [13, 10] + Array("NOOP\r\n".utf8)
            var index = 0
            let token = input.next(octets.span, at: &index, contentCountMax: 0)
            #expect(token == (isTaken ? .response(0..<length) : .responseFault(.tooLong)))
            #expect(input.next(octets.span, at: &index, contentCountMax: 0) == .command(.noOperation))
        }
        var session = Self.challenged()
        guard case .giveUpCredentialsThenReply(let reply) = session.receive(.responseFaulted(.tooLong)) else {
            Issue.record("the exchange goes on")
            return
        }
        #expect(reply.code == 500)
        #expect(reply.status?.octets == Array("5.5.6".utf8))
    }

    @Test("A challenge of any length is one line")
    func longChallenge() {
        var session = Self.challenged()
        _ = session.receive(.responseReceived([], isFollowed: false))
        guard case .receiveResponse(let reply) = session.receive(.challenged([UInt8](repeating: 1, count: 3_000)))
        else {
            Issue.record("no challenge")
            return
        }
        #expect(reply.octets.count == 4 + 4_000 + 2)
    }

    /// The lines of an answer to EHLO that announce AUTH.
    private static func announced(_ session: inout ServerSession) -> [String] {
        guard
            case .reply(let reply) = session.receive(
                .commandReceived(.extendedHello(Array("c".utf8)), isFollowed: false))
        else { return ["no reply"] }
        return reply.lines.map(\.printableText).filter { $0.hasPrefix("AUTH") }
    }

    @Test("Where TLS is required no mechanism is announced without it, as each would be refused")
    func required() {
        for (tls, before) in [(ServerTLS.required, []), (.offered, ["AUTH SCRAM-SHA-256"])] {
            var session = ServerSession(
                rules: ServerRules(hostname: Array("mx.example.org".utf8), limits: Self.limits), tls: tls)
            session.authentication = AuthenticationOffer(mechanisms: [.scramSHA256, .plain])
            _ = session.receive(.connected)
            #expect(Self.announced(&session) == before)
            _ = session.receive(.commandReceived(.startTLS, isFollowed: false))
            _ = session.receive(.secured)
            #expect(Self.announced(&session) == ["AUTH SCRAM-SHA-256 PLAIN"])
        }
        // Nor a password on this machine, which may be shown without TLS elsewhere.
        var session = ServerSession(
            rules: ServerRules(hostname: Array("mx.example.org".utf8), limits: Self.limits), tls: .required)
        session.authentication = AuthenticationOffer(mechanisms: [.plain], allowsClearText: true)
        _ = session.receive(.connected)
        #expect(Self.announced(&session) == [])
    }

    @Test("What was proven before STARTTLS is forgotten under TLS")
    func startTLS() {
        var session = ServerSession(
            rules: ServerRules(hostname: Array("mx.example.org".utf8), limits: Self.limits), tls: .offered)
        session.authentication = AuthenticationOffer(mechanisms: [.scramSHA256, .plain])
        _ = session.receive(.connected)
        _ = session.receive(.commandReceived(.extendedHello(Array("c".utf8)), isFollowed: false))
        _ = session.receive(.commandReceived(.authenticate(Array("SCRAM-SHA-256".utf8), .none), isFollowed: false))
        _ = session.receive(.verdict(.accepted(.authenticated)))
        #expect(session.isAuthenticated)
        _ = session.receive(.commandReceived(.startTLS, isFollowed: false))
        _ = session.receive(.secured)
        #expect(!session.isAuthenticated)
    }
}
