// SPDX-License-Identifier: Apache-2.0

import Glibc
import MailTypes
import TLSEngine
import Testing

private func workshop() throws -> Workshop { try #require(Workshop.shared, "the openssl command is needed") }

private func keys(_ mark: UInt8...) -> TLSTicketKeys {
    let keys = TLSTicketKeys()
    keys.replace(mark.map { Array(repeating: $0, count: TLSTicketKeys.octetCount) })
    return keys
}

private func server(
    _ names: [String] = ["ec"], minimum: TLSVersion = .tls12, tickets: TLSTicketKeys = keys(1), asks: Bool = false
) throws -> TLSServerContext {
    let workshop = try workshop()
    return try TLSServerContext(
        try names.map { try workshop.credential($0) }, minimum: minimum, tickets: tickets, asksForCertificate: asks)
}

private func strict() throws -> TLSClientContext { try TLSClientContext(authorities: try workshop().path("ca.pem")) }

private func pair(
    _ context: TLSServerContext, _ client: TLSClientContext, serverName: String? = "mx.example.org",
    names: [String] = ["mx.example.org"], session: TLSSession? = nil
) throws -> Pair {
    Pair(
        try TLSEngine(client: client, serverName: serverName, names: names, session: session),
        try TLSEngine(server: context))
}

@Suite struct EngineTests {
    @Test(
        "A handshake and octets both ways, cut into pieces of any size", arguments: [1, 2, 3, 7, 100, 1_000, Int.max])
    func pieces(size: Int) throws {
        let pair = try pair(try server(), try strict())
        try pair.client.start()
        try pair.run(pieces: size)
        #expect(pair.client.state == .established && pair.server.state == .established)
        let summary = try #require(pair.client.summary)
        #expect(summary.version == "TLSv1.3" && summary.isVerified && !summary.isResumed)
        #expect(summary.cipher.hasPrefix("TLS_"))
        #expect(pair.server.summary?.peer == nil)
        let long = (0..<100_000).map { UInt8(truncatingIfNeeded: $0 / 251) }
        try pair.client.say(long)
        try pair.server.say(Array("220 hello\r\n".utf8))
        try pair.run(pieces: size)
        #expect(pair.heardByServer == long)
        #expect(pair.heardByClient == Array("220 hello\r\n".utf8))
        pair.client.close()
        try pair.run(pieces: size)
        #expect(pair.server.state == .ended)
        // Who has said that he sends no more can still be told something.
        try pair.server.say(Array("221 bye\r\n".utf8))
        #expect(pair.server.hasOutput)
    }

    @Test("A handshake that is cut anywhere is no handshake, and says so")
    func everyCut() throws {
        let first = try pair(try server(), try strict())
        try first.client.start()
        first.collect()
        let hello = first.toServer
        for cut in hello.indices {
            let engine = try TLSEngine(server: try server())
            try engine.feed(Array(hello[..<cut])) { _ in Issue.record("plain text before the handshake") }
            #expect(engine.state == .handshaking && !engine.hasOutput)
            #expect(throws: TLSError.self) { try engine.receiveEnd() }
            #expect(engine.state == .failed)
        }
    }

    @Test("An octet that is changed anywhere in the first flight never ends in a handshake that holds")
    func everyChange() throws {
        let context = try server()
        let client = try strict()
        for place in stride(from: 0, to: 250, by: 3) {
            let pair = try pair(context, client)
            try pair.client.start()
            pair.collect()
            pair.toServer[place % pair.toServer.count] ^= 0x55
            #expect(throws: TLSError.self, "octet \(place)") {
                try pair.run()
                if pair.server.state != .established { try pair.server.receiveEnd() }
            }
        }
    }

    @Test("Plain text instead of TLS is an error with a reason, and an alert for the other side")
    func plainText() throws {
        let engine = try TLSEngine(server: try server())
        #expect(throws: TLSError("TLS handshake: wrong version number")) {
            try engine.feed(Array("EHLO client.example\r\n".utf8)) { _ in }
        }
        #expect(engine.state == .failed)
        #expect(throws: TLSError.self) { try engine.say([1]) }
    }

    @Test("Records in another order are refused")
    func reordered() throws {
        let pair = try pair(try server(), try strict())
        try pair.client.start()
        try pair.run()
        try pair.client.say(Array("MAIL FROM:<a@example.org>\r\n".utf8))
        pair.collect()
        let first = pair.toServer
        pair.toServer = []
        try pair.client.say(Array("RCPT TO:<b@example.org>\r\n".utf8))
        pair.collect()
        pair.toServer += first
        #expect(throws: TLSError.self) { try pair.run() }
        #expect(pair.heardByServer.isEmpty)
    }

    @Test("Nothing can be sent before the handshake is done")
    func tooEarly() throws {
        let pair = try pair(try server(), try strict())
        #expect(throws: TLSError.self) { try pair.client.say([1]) }
        #expect(throws: TLSError.self) { try pair.server.say([1]) }
    }

    @Test("The client of a strict context refuses a name that the certificate does not have, and any other authority")
    func wrongName() throws {
        for (names, context, reason) in [
            (["mx.elsewhere.example"], try strict(), "hostname mismatch"),
            (["mx.example.org"], try TLSClientContext(authorities: try workshop().path("other.crt")), "self-signed"),
        ] {
            let pair = try pair(try server(), context, names: names)
            try pair.client.start()
            let error = #expect(throws: TLSError.self) { try pair.run() }
            #expect(error.map { $0.text.contains(reason) ? reason : $0.text } == reason)
            #expect(pair.client.state == .failed)
            // The server learns it by the alert.
            pair.collect()
            #expect(throws: TLSError.self) { try pair.run() }
        }
    }

    @Test("A lenient client takes any certificate, even an old one, and does not call it verified")
    func lenient() throws {
        let pair = try pair(try server(["old"]), try TLSClientContext(), names: [])
        try pair.client.start()
        try pair.run()
        #expect(pair.client.summary?.isVerified == false)
        #expect(pair.client.summary?.peer?.name == "old")
    }

    @Test("Only what is asked for is spoken")
    func minimum() throws {
        let pair = try pair(try server(minimum: .tls13), try TLSClientContext(), names: [])
        try pair.client.start()
        try pair.run()
        #expect(pair.client.summary?.version == "TLSv1.3")
    }
}

@Suite struct TicketTests {
    /// A session of a first connection.
    private func session(_ context: TLSServerContext, _ client: TLSClientContext) throws -> TLSSession {
        let pair = try pair(context, client)
        try pair.client.start()
        try pair.run()
        return try #require(pair.client.takeSession())
    }

    private func isResumed(_ context: TLSServerContext, _ client: TLSClientContext, _ session: TLSSession) throws
        -> Bool
    {
        let pair = try pair(context, client, session: session)
        try pair.client.start()
        try pair.run()
        #expect(pair.client.summary?.isVerified == true)
        #expect(pair.server.summary?.isResumed == pair.client.summary?.isResumed)
        return pair.client.summary?.isResumed == true
    }

    @Test("A session is resumed by another process with the same keys, also after the keys have moved on")
    func rotation() throws {
        let client = try strict()
        for (now, expected) in [
            (keys(1), true), (keys(2, 1), true), (keys(3, 2, 1), true), (keys(4, 3, 2), false), (keys(), false),
        ] {
            let first = try session(try server(tickets: keys(1)), client)
            #expect(try self.isResumed(try server(tickets: now), client, first) == expected)
        }
    }

    @Test("New keys count for connections to come of a context that is there")
    func replaced() throws {
        let client = try strict()
        let tickets = keys(1)
        let context = try server(tickets: tickets)
        let first = try session(context, client)
        tickets.replace([Array(repeating: 9, count: 80), [1, 2, 3]])
        #expect(try !self.isResumed(context, client, first))
        #expect(try self.isResumed(context, client, try session(context, client)))
    }

    @Test("A session survives the exchange of the certificate")
    func newCertificate() throws {
        let client = try strict()
        let first = try session(try server(["ec"]), client)
        #expect(try self.isResumed(try server(["rsa"]), client, first))
    }
}

@Suite struct CredentialTests {
    @Test("The certificate is chosen by name, whatever the letters, and the first is for all others")
    func serverName() throws {
        let context = try server(["ec", "other"])
        for (name, expected) in [
            ("other.example", "other"), ("OTHER.example", "other"), ("mx.example.org", "ec"), ("a.example.net", "ec"),
            ("a.b.example.net", "ec"), ("nobody.example", "ec"), (nil, "ec"),
        ] as [(String?, String)] {
            let pair = try pair(context, try TLSClientContext(), serverName: name, names: [])
            try pair.client.start()
            try pair.run()
            #expect(pair.client.summary?.peer?.name == expected, "\(name ?? "-")")
        }
    }

    @Test("RSA and ECDSA stand side by side, and the client has the certificate that it can verify")
    func bothKinds() throws {
        let pair = try pair(try server(["rsa", "ec"]), try strict())
        try pair.client.start()
        try pair.run()
        #expect(pair.client.summary?.isVerified == true)
        #expect(["ec", "rsa"].contains(pair.client.summary?.peer?.name ?? ""))
    }

    @Test("A client that is asked may show a certificate or none")
    func clientCertificate() throws {
        let pair = try pair(try server(asks: true), try strict())
        try pair.client.start()
        try pair.run()
        #expect(pair.server.state == .established && pair.server.summary?.peer == nil)
    }

    @Test(
        "What is wrong with the files is said",
        arguments: [
            ("ec.pem", "rsa.key", "the private key does not belong to the certificate"),
            ("ec.key", "ec.key", "there is no certificate in it"),
            ("ec.pem", "ec.pem", "there is no private key in it"),
            ("ec.pem", "locked.key", "the private key is encrypted with a password"),
        ])
    func wrong(chain: String, key: String, expected: String) throws {
        let workshop = try workshop()
        #expect(throws: TLSError(expected)) {
            try TLSCredential(chain: workshop.octets(chain), key: workshop.octets(key))
        }
    }

    @Test("Chain and key may be in one file")
    func oneFile() throws {
        let workshop = try workshop()
        let both = try workshop.octets("ec.key") + workshop.octets("ec.pem")
        #expect(try TLSCredential(chain: both, key: both).names == ["mx.example.org", "*.example.net"])
    }

    @Test("Certificates are looked at in every way that can be told without asking anybody")
    func findings() throws {
        let workshop = try workshop()
        let now = Timestamp(microseconds: UInt64(time()) * 1_000_000)
        #expect(try workshop.credential("ec").findings(now: now) == [])
        #expect(
            try workshop.credential("weak").findings(now: now) == [.unusable("an RSA key of 1024 bits is too weak")])
        #expect(try workshop.credential("old").findings(now: now).count == 1)
        let later = Timestamp(microseconds: now.microseconds + 801 * 43_200_000_000)
        #expect(
            try workshop.credential("ec").findings(now: later) == [.fault("the certificate has expired 35 days ago")])
        let soon = Timestamp(microseconds: now.microseconds + 721 * 43_200_000_000)
        #expect(try workshop.credential("ec").findings(now: soon) == [.advice("the certificate expires in 4 days")])
        let before = Timestamp(microseconds: now.microseconds - 86_400_000_000)
        #expect(try workshop.credential("ec").findings(now: before) == [.fault("the certificate is not valid yet")])
        let disordered = try TLSCredential(
            chain: workshop.octets("ec.crt") + workshop.octets("other.crt"), key: workshop.octets("ec.key"))
        #expect(
            disordered.findings(now: now) == [
                .fault("certificate 2 of the chain is not the issuer of the one before it")
            ])
        let alone = try TLSCredential(chain: workshop.octets("ec.crt"), key: workshop.octets("ec.key"))
        #expect(alone.findings(now: now).count == 1)
    }

    @Test("A text that is no PEM, cut anywhere, is an error and nothing else")
    func everyCut() throws {
        let workshop = try workshop()
        let whole = try workshop.octets("ec.crt")
        let key = try workshop.octets("ec.key")
        for cut in stride(from: 0, to: whole.count - 2, by: 7) {
            #expect(throws: TLSError.self) { try TLSCredential(chain: Array(whole[..<cut]), key: key) }
        }
    }
}

private func time() -> Int { Int(Glibc.time(nil)) }
