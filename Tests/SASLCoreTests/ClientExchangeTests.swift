// SPDX-License-Identifier: Apache-2.0

import Cryptography
import MailTypes
import SASLCore
import Testing

private let cryptography = Cryptography()

private func octets(_ text: String) -> [UInt8] { Array(text.utf8) }

private func makeClient(
    _ offered: [SASLMechanism], user: String = "user", password: String = "pencil",
    nonce: String = "rOprNGfwEbeRWgbNEkqO"
) -> ClientExchange? {
    ClientExchange(offered, user: octets(user), password: octets(password), nonce: octets(nonce))
}

@Suite struct ClientExchangeTests {
    /// RFC 7677 §3.
    private static let serverFirst =
        "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
    private static let proof =
        "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
    private static let serverFinal = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="

    /// A client that has answered the first message of RFC 7677.
    private func proven() throws -> ClientExchange {
        var client = try #require(makeClient([.plain, .scramSHA256]))
        #expect(
            client.receive(.begun, cryptography)
                == .respond(octets("n,,n=user,r=rOprNGfwEbeRWgbNEkqO"), isLast: false))
        guard case .salt(let salt, 4_096) = client.receive(.challenged(octets(Self.serverFirst)), cryptography) else {
            Issue.record("no salt")
            return client
        }
        let salted = cryptography.saltedPassword(octets("pencil"), salt: salt, iterationCount: 4_096)
        #expect(client.receive(.salted(salted), cryptography) == .respond(octets(Self.proof), isLast: false))
        return client
    }

    @Test("SCRAM-SHA-256 is spoken as in RFC 7677, and the server has to prove itself")
    func scram() throws {
        var client = try self.proven()
        #expect(client.receive(.challenged(octets(Self.serverFinal)), cryptography) == .respond([], isLast: true))
        for wrong in ["v=AAAA", "e=other-error", "", "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G5="] {
            var client = try self.proven()
            #expect(client.receive(.challenged(octets(wrong)), cryptography) == .giveUp(.credentials), "\(wrong)")
            #expect(client.receive(.challenged([]), cryptography) == .giveUp(.malformed), "it is over")
        }
    }

    @Test("a server cannot have a proof made that is easily guessed from, nor one that costs minutes")
    func serverFirstMessages() throws {
        let nonce = "r=rOprNGfwEbeRWgbNEkqO%x"
        for wrong in [
            "\(nonce),s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4095", "\(nonce),s=W22ZaJ0SNY7soEsUEjb6gQ==,i=100001",
            "\(nonce),s=,i=4096", "\(nonce),s=*,i=4096", "\(nonce),s=W22ZaJ0SNY7soEsUEjb6gQ==",
            "\(nonce),s=W22ZaJ0SNY7soEsUEjb6gQ==,i=99999999999999999999", "m=ext,\(nonce),s=W22ZaA==,i=4096",
            "r=rOprNGfwEbeRWgbNEkqO,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096", "r=other,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096", "",
        ] {
            var client = try #require(makeClient([.scramSHA256]))
            _ = client.receive(.begun, cryptography)
            #expect(client.receive(.challenged(octets(wrong)), cryptography) == .giveUp(.malformed), "\(wrong)")
        }
    }

    @Test("our own server takes what our client says, names with commas and equals signs included")
    func ownServer() throws {
        let user = "a=b,c@example.org"
        var client = try #require(makeClient([.scramSHA256], user: user, password: "geheim ü"))
        var server = try #require(
            ServerExchange(.scramSHA256, facts: ConnectionFacts(), nonce: octets("server")))
        let salt = octets("0123456789abcdef")
        let salted = cryptography.saltedPassword(octets("geheim ü"), salt: salt, iterationCount: 5_000)
        let keys = try #require(SCRAMKeys(iterationCount: 5_000, salt: salt, saltedPassword: salted, cryptography))
        guard case .respond(let first?, false) = client.receive(.begun, cryptography) else {
            Issue.record("no first message")
            return
        }
        #expect(server.receive(.begun(initialResponse: first), cryptography) == .findKeys(user: octets(user)))
        guard case .challenge(let offer) = server.receive(.keysFound(keys), cryptography) else {
            Issue.record("no offer")
            return
        }
        #expect(client.receive(.challenged(offer), cryptography) == .salt(salt: salt, iterationCount: 5_000))
        guard case .respond(let proof?, false) = client.receive(.salted(salted), cryptography),
            case .challenge(let signature) = server.receive(.responded(proof), cryptography)
        else {
            Issue.record("the proof is not taken")
            return
        }
        #expect(client.receive(.challenged(signature), cryptography) == .respond([], isLast: true))
        #expect(server.receive(.responded([]), cryptography) == .grant(user: octets(user)))
    }

    @Test("PLAIN is one message; LOGIN waits to be asked, in whatever words")
    func others() throws {
        var plain = try #require(makeClient([.login, .plain, .external]))
        #expect(plain.receive(.begun, cryptography) == .respond(octets("\0user\0pencil"), isLast: true))
        var login = try #require(makeClient([.login, .xoauth2]))
        #expect(login.receive(.begun, cryptography) == .respond(nil, isLast: false))
        #expect(
            login.receive(.challenged(octets("Benutzer?")), cryptography) == .respond(octets("user"), isLast: false))
        #expect(login.receive(.challenged([]), cryptography) == .respond(octets("pencil"), isLast: true))
        #expect(login.receive(.challenged([]), cryptography) == .giveUp(.malformed))
        #expect(makeClient([.external, .xoauth2, .scramSHA256Plus]) == nil, "nothing in common")
    }

    @Test("the file of accounts has a host, a user and a password on each line, and says which lines have not")
    func accounts() {
        let file = AccountFile(
            octets: octets(
                """
                # ours
                Relay.Example.org shop@example.org   correct horse  battery
                \t192.0.2.1\tme\tp:w #1\r
                relay.example.org other x

                relay.example.org onlyuser
                relay.example.org shop@example.org again
                alone
                """))
        #expect(file.count == 3)
        #expect(
            file.password(host: octets("relay.EXAMPLE.org"), user: octets("shop@example.org"))
                == octets("correct horse  battery"))
        #expect(file.password(host: octets("192.0.2.1"), user: octets("me")) == octets("p:w #1"))
        #expect(file.password(host: octets("relay.example.org"), user: octets("Other")) == nil)
        #expect(file.password(host: octets("elsewhere.example"), user: octets("other")) == nil)
        #expect(file.faults.map(\.line) == [6, 7, 8])
    }
}
