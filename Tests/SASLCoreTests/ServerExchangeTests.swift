// SPDX-License-Identifier: Apache-2.0

import Cryptography
import MailTypes
import SASLCore
import Testing

private let cryptography = Cryptography()

private func octets(_ text: String) -> [UInt8] { Array(text.utf8) }

/// The exchange of RFC 7677 §3, with the channel binding that a test wants.
private struct Conversation {
    static let serverNonce = octets("%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0")
    static let salt = Base64.decode(octets("W22ZaJ0SNY7soEsUEjb6gQ==")) ?? []
    var server: ServerExchange
    let keys: SCRAMKeys?

    init?(_ mechanism: SASLMechanism, facts: ConnectionFacts = ConnectionFacts(), password: String = "pencil") {
        guard let server = ServerExchange(mechanism, facts: facts, nonce: Self.serverNonce) else { return nil }
        self.server = server
        let salted = cryptography.saltedPassword(octets(password), salt: Self.salt, iterationCount: 4_096)
        self.keys = SCRAMKeys(iterationCount: 4_096, salt: Self.salt, saltedPassword: salted, cryptography)
    }

    mutating func begin(_ message: String) -> ServerExchange.Action {
        self.server.receive(.begun(initialResponse: octets(message)), cryptography)
    }

    mutating func say(_ message: String) -> ServerExchange.Action {
        self.server.receive(.responded(octets(message)), cryptography)
    }

    /// Everything up to the proof of a client that knows "pencil" and binds as it is told.
    mutating func proof(header: String, binding: [UInt8], user: String = "user") throws -> ServerExchange.Action {
        let bare = "n=\(user),r=rOprNGfwEbeRWgbNEkqO"
        _ = self.begin(header + bare)
        guard case .challenge(let first) = self.server.receive(.keysFound(try #require(self.keys)), cryptography) else {
            return .deny(.malformed)
        }
        let c = Base64.encode(octets(header) + binding).printableText
        let final = "c=\(c),r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
        let spoken = octets("\(bare),\(first.printableText),\(final)")
        let salted = cryptography.saltedPassword(octets("pencil"), salt: Self.salt, iterationCount: 4_096)
        let clientKey = cryptography.authenticationCode(key: salted, octets("Client Key"))
        let signature = cryptography.authenticationCode(key: cryptography.digest(clientKey), spoken)
        let proof = Base64.encode(zip(clientKey, signature).map { $0 ^ $1 }).printableText
        return self.say("\(final),p=\(proof)")
    }
}

@Suite struct SCRAMTests {
    private static let final =
        "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="

    @Test("the exchange of RFC 7677 ends with its user")
    func vector() throws {
        var conversation = try #require(Conversation(.scramSHA256))
        #expect(conversation.begin("n,,n=user,r=rOprNGfwEbeRWgbNEkqO") == .findKeys(user: octets("user")))
        let keys = try #require(conversation.keys)
        #expect(
            conversation.server.receive(.keysFound(keys), cryptography)
                == .challenge(
                    octets("r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096")))
        #expect(
            conversation.say(Self.final) == .challenge(octets("v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=")))
        #expect(conversation.say("") == .grant(user: octets("user")))
    }

    @Test("the proof of another password is denied")
    func wrongPassword() throws {
        var conversation = try #require(Conversation(.scramSHA256, password: "brush"))
        _ = conversation.begin("n,,n=user,r=rOprNGfwEbeRWgbNEkqO")
        _ = conversation.server.receive(.keysFound(try #require(conversation.keys)), cryptography)
        #expect(conversation.say(Self.final) == .deny(.credentials))
    }

    @Test("any octet of the client's last message that is another one is denied")
    func tampering() throws {
        let length = Self.final.utf8.count
        for place in 0..<length {
            var conversation = try #require(Conversation(.scramSHA256))
            _ = conversation.begin("n,,n=user,r=rOprNGfwEbeRWgbNEkqO")
            _ = conversation.server.receive(.keysFound(try #require(conversation.keys)), cryptography)
            var message = octets(Self.final)
            message[place] ^= 1
            guard case .deny = conversation.server.receive(.responded(message), cryptography) else {
                Issue.record("taken with octet \(place) changed")
                continue
            }
        }
    }

    @Test("a message that ends anywhere else is denied")
    func cuts() throws {
        let first = octets("n,,n=user,r=rOprNGfwEbeRWgbNEkqO")
        for end in 0..<(first.count - 20) {
            var conversation = try #require(Conversation(.scramSHA256))
            let action = conversation.server.receive(.begun(initialResponse: Array(first[..<end])), cryptography)
            #expect(action == .deny(.malformed), "first, cut at \(end)")
        }
        let final = octets(Self.final)
        for end in final.indices {
            var conversation = try #require(Conversation(.scramSHA256))
            _ = conversation.begin("n,,n=user,r=rOprNGfwEbeRWgbNEkqO")
            _ = conversation.server.receive(.keysFound(try #require(conversation.keys)), cryptography)
            guard case .deny = conversation.server.receive(.responded(Array(final[..<end])), cryptography) else {
                Issue.record("final taken, cut at \(end)")
                continue
            }
        }
    }

    @Test(
        "a first message that the grammar does not have is denied",
        arguments: [
            "", "n", "n,", "n,,", "n,,n=user", "n,,m=x,n=user,r=abc", "n,,n=us=er,r=abc", "n,,n=,r=abc", "n,,n=user,r=",
            "x,,n=user,r=abc", "p=tls-exporter", "n,user,n=user,r=abc", "n,,r=abc,n=user", "n,,n=us\u{7}er,r=abc",
            "n,,n=user,r=a\u{e4}c",
        ])
    func malformedFirst(_ message: String) throws {
        var conversation = try #require(Conversation(.scramSHA256))
        #expect(conversation.begin(message) == .deny(.malformed))
    }

    @Test("a name holds commas and equals signs as =2C and =3D, and letters of any case are one user")
    func names() throws {
        var conversation = try #require(Conversation(.scramSHA256))
        #expect(conversation.begin("n,,n=A=2Cb=3Dc,r=abc") == .findKeys(user: octets("a,b=c")))
    }

    @Test("nobody acts for another user")
    func authorization() throws {
        var conversation = try #require(Conversation(.scramSHA256))
        #expect(conversation.begin("n,a=root,n=user,r=abc") == .deny(.authorization))
        conversation = try #require(Conversation(.scramSHA256))
        #expect(conversation.begin("n,a=user,n=user,r=abc") == .findKeys(user: octets("user")))
    }

    @Test("a client that has bound to our connection is granted, with either binding")
    func bound() throws {
        let facts = ConnectionFacts(exporterBinding: [1, 2, 3], endPointBinding: [9, 8], offersBinding: true)
        for (kind, data) in [("tls-exporter", [1, 2, 3]), ("tls-server-end-point", [9, 8])] as [(String, [UInt8])] {
            var conversation = try #require(Conversation(.scramSHA256Plus, facts: facts))
            guard case .challenge = try conversation.proof(header: "p=\(kind),,", binding: data) else {
                Issue.record("\(kind) was denied")
                continue
            }
            #expect(conversation.say("") == .grant(user: octets("user")))
        }
    }

    @Test("a client that has bound to another connection is denied: somebody is between us")
    func boundElsewhere() throws {
        let facts = ConnectionFacts(exporterBinding: [1, 2, 3], endPointBinding: [9, 8], offersBinding: true)
        var conversation = try #require(Conversation(.scramSHA256Plus, facts: facts))
        #expect(try conversation.proof(header: "p=tls-exporter,,", binding: [1, 2, 4]) == .deny(.binding))
        conversation = try #require(Conversation(.scramSHA256Plus, facts: facts))
        #expect(conversation.begin("p=tls-unique,,n=user,r=abc") == .deny(.binding))
        conversation = try #require(Conversation(.scramSHA256Plus, facts: facts))
        #expect(conversation.begin("n,,n=user,r=abc") == .deny(.malformed))
    }

    @Test("a client that was made to believe that we cannot bind is denied")
    func downgrade() throws {
        let facts = ConnectionFacts(exporterBinding: [1], offersBinding: true)
        var conversation = try #require(Conversation(.scramSHA256, facts: facts))
        #expect(conversation.begin("y,,n=user,r=abc") == .deny(.binding))
        conversation = try #require(Conversation(.scramSHA256))
        #expect(conversation.begin("y,,n=user,r=abc") == .findKeys(user: octets("user")))
    }
}

@Suite struct PasswordMechanismTests {
    private static let messages: [(String, ServerExchange.Action)] = [
        ("\0alice\0secret", .checkPassword(user: octets("alice"), password: octets("secret"))),
        ("ALICE\0alice\0s", .checkPassword(user: octets("alice"), password: octets("s"))),
        ("\0al ice\0p w", .checkPassword(user: octets("al ice"), password: octets("p w"))),
        ("bob\0alice\0secret", .deny(.authorization)),
        ("alice\0secret", .deny(.malformed)),
        ("\0\0secret", .deny(.malformed)),
        ("\0alice\0", .deny(.malformed)),
        ("", .deny(.malformed)),
        ("\0alice\0se\0cret", .deny(.malformed)),
        ("\0al\nice\0secret", .deny(.malformed)),
        ("\0alice:x\0secret", .deny(.malformed)),
    ]

    @Test("PLAIN reads its one message")
    func plain() {
        for (message, action) in Self.messages {
            var server = PlainServer()
            #expect(server.receive(.begun(initialResponse: nil)) == .challenge([]))
            #expect(server.receive(.responded(octets(message))) == action, "\(message)")
        }
    }

    @Test("PLAIN takes no octets that are not UTF-8, and no credentials beyond their limits")
    func plainLimits() {
        var server = PlainServer()
        #expect(server.receive(.responded([0, 0x61, 0, 0xFF])) == .deny(.malformed))
        let longest = [UInt8](repeating: 0x61, count: 255)
        #expect(
            server.receive(.responded([0] + longest + [0, 0x62]))
                == .checkPassword(user: longest, password: [0x62]))
        #expect(server.receive(.responded([0] + longest + [0x61, 0, 0x62])) == .deny(.malformed))
        let tooLong = [UInt8](repeating: 0x61, count: 1_025)
        #expect(server.receive(.responded([0, 0x61, 0] + tooLong)) == .deny(.malformed))
    }

    @Test("LOGIN asks for the name and the password, or for the password alone")
    func login() {
        var server = LoginServer()
        #expect(server.receive(.begun(initialResponse: nil)) == .challenge(octets("Username:")))
        #expect(server.receive(.responded(octets("Alice"))) == .challenge(octets("Password:")))
        #expect(
            server.receive(.responded(octets("pw"))) == .checkPassword(user: octets("alice"), password: octets("pw")))
        #expect(server.receive(.checked(true)) == .grant(user: octets("alice")))
        server = LoginServer()
        #expect(server.receive(.begun(initialResponse: octets("alice"))) == .challenge(octets("Password:")))
        #expect(server.receive(.responded([])) == .deny(.malformed))
    }

    @Test("EXTERNAL grants whom the certificate is of")
    func external() {
        let server = ExternalServer()
        #expect(server.receive(.begun(initialResponse: octets("Alice"))) == .findOwner(claimed: octets("alice")))
        #expect(server.receive(.begun(initialResponse: [])) == .findOwner(claimed: nil))
        #expect(server.receive(.ownerFound(octets("alice"))) == .grant(user: octets("alice")))
        #expect(server.receive(.ownerFound(nil)) == .deny(.credentials))
        #expect(server.receive(.begun(initialResponse: [7])) == .deny(.malformed))
    }
}
