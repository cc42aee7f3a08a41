// SPDX-License-Identifier: Apache-2.0

import MailTypes
import SMTPCore
import Testing

private let client = IPAddress.v4(0xC000_0201)
private let other = IPAddress.v4(0xC000_0202)
private let alice = Array("alice".utf8)

@Suite struct AuthenticationFailureTests {
    @Test("A client that has failed too often waits until the time is over, whoever it wants to be")
    func client() {
        var failures = AuthenticationFailures(clientCountMax: 3, userCountMax: 100, span: .seconds(600))
        for second in 0..<3 {
            #expect(!failures.isBlocked(SMTPCoreTests.client, now: .seconds(second)))
            failures.noteFailure(SMTPCoreTests.client, user: nil, now: .seconds(second))
        }
        #expect(failures.isBlocked(SMTPCoreTests.client, now: .seconds(3)))
        #expect(!failures.isBlocked(other, now: .seconds(3)))
        #expect(failures.isBlocked(SMTPCoreTests.client, now: .seconds(599)))
        #expect(!failures.isBlocked(SMTPCoreTests.client, now: .seconds(600)))
    }

    @Test("The /64 of an IPv6 client counts as one")
    func network() {
        var failures = AuthenticationFailures(clientCountMax: 2, userCountMax: 100, span: .seconds(600))
        failures.noteFailure(IPAddress(high: 0x2001_0db8_0000_0001, low: 1), user: nil, now: .zero)
        failures.noteFailure(IPAddress(high: 0x2001_0db8_0000_0001, low: 2), user: nil, now: .zero)
        #expect(failures.isBlocked(IPAddress(high: 0x2001_0db8_0000_0001, low: 3), now: .zero))
        #expect(!failures.isBlocked(IPAddress(high: 0x2001_0db8_0000_0002, low: 1), now: .zero))
    }

    @Test("Many clients that guess at one user are kept from him, and he himself is not")
    func user() {
        var failures = AuthenticationFailures(clientCountMax: 100, userCountMax: 5, span: .seconds(600))
        failures.noteSuccess(other, user: alice, now: .zero)
        for host in UInt32(0)..<5 { failures.noteFailure(.v4(0x0A00_0000 + host), user: alice, now: .seconds(1)) }
        #expect(failures.isBlocked(SMTPCoreTests.client, user: alice, now: .seconds(2)))
        #expect(!failures.isBlocked(other, user: alice, now: .seconds(2)))
        #expect(!failures.isBlocked(SMTPCoreTests.client, user: Array("bob".utf8), now: .seconds(2)))
        #expect(!failures.isBlocked(SMTPCoreTests.client, user: alice, now: .seconds(602)))
    }

    @Test("Memory does not grow with the number of those who fail")
    func bounded() {
        var counts = RecentCounts<UInt32>(span: .seconds(10), keyCountMax: 100)
        for key in UInt32(0)..<10_000 {
            counts.add(to: key, now: .milliseconds(Int(key) * 10))
            #expect(counts.keyCount <= 100)
        }
        #expect(counts.count(of: 9_999, now: .seconds(100)) == 1)
        var atOnce = RecentCounts<UInt32>(span: .seconds(10), keyCountMax: 100)
        for key in UInt32(0)..<10_000 { atOnce.add(to: key, now: .zero) }
        #expect(atOnce.keyCount <= 100)
    }
}

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
