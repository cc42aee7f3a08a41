// SPDX-License-Identifier: Apache-2.0

import MailTypes
import SASLCore

/// A client that answers challenges with what it likes, and a password file in which anything may stand.
enum CredentialsBody {
    /// Not a digest, but what the mechanisms do with one.
    private struct Mixing: SASLCryptography {
        func digest(_ octets: [UInt8]) -> [UInt8] {
            var sums = [UInt8](repeating: 7, count: 32)
            for (index, octet) in octets.enumerated() { sums[index % 32] = sums[index % 32] &* 31 &+ octet }
            return sums
        }

        func authenticationCode(key: [UInt8], _ octets: [UInt8]) -> [UInt8] { self.digest(key + octets) }

        func areEqual(_ left: [UInt8], _ right: [UInt8]) -> Bool { left == right }
    }

    static func run(_ script: inout FuzzScript) throws(Breach) {
        let mechanisms: [SASLMechanism] = [.plain, .login, .scramSHA256, .scramSHA256Plus, .external]
        let facts = ConnectionFacts(exporterBinding: [1, 2], endPointBinding: [3], offersBinding: true)
        guard
            let keys = SCRAMKeys(
                iterationCount: 4_096, salt: [1], storedKey: [UInt8](repeating: 2, count: 32),
                serverKey: [UInt8](repeating: 3, count: 32)),
            var server = ServerExchange(
                mechanisms[script.next(mechanisms.count)], facts: facts, nonce: Array("nonce".utf8))
        else { throw Breach(text: "no exchange") }
        var isBegun = false
        for piece in script.pieces() {
            var action = server.receive(
                isBegun ? .responded(Array(piece)) : .begun(initialResponse: Array(piece)), Mixing())
            isBegun = true
            // Questions are answered until the client has its turn again.
            for _ in 0..<4 {
                switch action {
                case .challenge: break
                case .checkPassword(let user, let password):
                    try Self.check(user)
                    try hold((1...1_024).contains(password.count), "a password of \(password.count) octets")
                    action = server.receive(.checked(script.next(2) == 1), Mixing())
                case .findKeys(let user):
                    try Self.check(user)
                    action = server.receive(.keysFound(keys), Mixing())
                case .findOwner(let claimed):
                    if let claimed { try Self.check(claimed) }
                    action = server.receive(.ownerFound(claimed), Mixing())
                case .grant(let user): return try Self.check(user)
                case .deny: return try Self.readFile(script.stream)
                }
            }
        }
        try Self.readFile(script.stream)
    }

    private static func check(_ user: [UInt8]) throws(Breach) {
        try hold(CredentialText.user(user) == user, "a name that is none")
    }

    private static func readFile(_ octets: [UInt8]) throws(Breach) {
        let file = PasswordFile(octets: octets)
        for user in file.entries.keys { try Self.check(user) }
        for case .scram(let keys) in file.hashes {
            try hold(SCRAMKeys(text: keys.text[...]) == keys, "keys do not survive")
        }
        let hash = Array("{CRYPT}$6$a$b".utf8)
        let user = Array("alice".utf8)
        if let changed = PasswordFile.text(octets, settingPasswordOf: user, to: hash) {
            let after = PasswordFile(octets: changed)
            try hold(after.entries[user]?.password == .crypt(Array("$6$a$b".utf8)), "a password was not set")
            for (other, entry) in file.entries where other != user {
                try hold(after.entries[other] == entry, "another user was changed")
            }
        }
    }
}
