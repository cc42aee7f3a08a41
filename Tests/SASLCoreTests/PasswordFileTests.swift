// SPDX-License-Identifier: Apache-2.0

import Cryptography
import MailTypes
import SASLCore
import Testing

private func octets(_ text: String) -> [UInt8] { Array(text.utf8) }

@Suite struct PasswordFileTests {
    @Test("entries are read with their schemes, and the line of a mistake is told")
    func reading() {
        let file = PasswordFile(
            octets: octets(
                """
                # users
                alice:{CRYPT}$6$abc$def
                Bob:{SHA512-CRYPT}$6$abc$def
                carol:$y$j9T$abc$def
                dora:{CRYPT}!$6$abc$def
                nobody
                eve:{PLAIN}secret
                eve:{CRYPT}$1$md5$hash
                alice:{CRYPT}$6$other$hash
                frank:{SCRAM-SHA-256}10,c2FsdA==,AA==,AA==
                grace:

                """))
        #expect(file.entries.count == 4)
        #expect(file.entries[octets("bob")]?.password == .crypt(octets("$6$abc$def")))
        #expect(file.entries[octets("carol")]?.password == .crypt(octets("$y$j9T$abc$def")))
        #expect(file.entries[octets("dora")]?.password == .locked)
        #expect(file.faults.map(\.line) == [6, 7, 8, 9, 10, 11])
        #expect(file.hashes.count == 3)
        #expect(!file.hasOnlySCRAM)
    }

    @Test(
        "each scheme makes entries that are read again, and only the right password fits",
        arguments: Cryptography.Scheme.allCases)
    func schemes(_ scheme: Cryptography.Scheme) throws {
        let cryptography = Cryptography()
        // A system whose crypt(3) lacks a method has no entries of it to be tested.
        guard let entry = cryptography.entry(octets("correct horse"), scheme) else { return }
        let file = PasswordFile(octets: octets("alice:") + entry)
        #expect(file.faults == [])
        let hash = try #require(file.entries[octets("alice")]?.password)
        #expect(cryptography.isRight(octets("correct horse"), for: hash))
        #expect(!cryptography.isRight(octets("correct Horse"), for: hash))
        #expect(!cryptography.isRight([], for: hash))
        #expect(file.hasOnlySCRAM == (scheme == .scramSHA256))
        #expect(cryptography.entry(octets("correct horse"), scheme) != entry, "two entries have two salts")
    }

    @Test("this system's crypt(3) has at least one method")
    func methods() {
        #expect(
            Cryptography().entry(octets("x"), .sha512) != nil || Cryptography().entry(octets("x"), .yescrypt) != nil)
    }

    @Test("a locked user has no right password")
    func locked() { #expect(!Cryptography().isRight(octets("!"), for: .locked)) }

    @Test("a certificate is of one user, or of nobody")
    func certificates() {
        let print = String(repeating: "ab", count: 32)
        let other = String(repeating: "CD:", count: 31) + "CD"
        let file = PasswordFile(
            octets: octets(
                "a:{CERTIFICATE}\(print)\nb:{certificate}\(other)\nc:{CERTIFICATE}\(print)\nd:{CERTIFICATE}12"))
        #expect(file.owner(of: [UInt8](repeating: 0xAB, count: 32)) == nil)
        #expect(file.owner(of: [UInt8](repeating: 0xCD, count: 32)) == octets("b"))
        #expect(file.faults.map(\.line) == [4])
        #expect(file.hasCertificates)
    }

    @Test("a password is changed in its line, and nothing else is")
    func changing() {
        let before = "# mine\nalice:{CRYPT}$6$a$b\nalice:{CERTIFICATE}00\nbob:{CRYPT}$6$c$d\n"
        let hash = octets("{CRYPT}$6$new$new")
        #expect(
            PasswordFile.text(octets(before), settingPasswordOf: octets("alice"), to: hash)
                == octets("# mine\nalice:{CRYPT}$6$new$new\nalice:{CERTIFICATE}00\nbob:{CRYPT}$6$c$d\n"))
        #expect(
            PasswordFile.text(octets(before), settingPasswordOf: octets("dora"), to: hash)
                == octets(before + "dora:{CRYPT}$6$new$new\n"))
        #expect(
            PasswordFile.text(octets(before), settingPasswordOf: octets("alice"), to: nil)
                == octets("# mine\nbob:{CRYPT}$6$c$d\n"))
        #expect(PasswordFile.text(octets(before), settingPasswordOf: octets("dora"), to: nil) == nil)
        #expect(PasswordFile.text([], settingPasswordOf: octets("a"), to: hash) == octets("a:{CRYPT}$6$new$new\n"))
    }
}

@Suite struct Base64Tests {
    @Test("what is encoded is decoded, at every length")
    func roundTrip() {
        for count in 0..<70 {
            let octets = (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 151 &+ 7) }
            #expect(Base64.decode(Base64.encode(octets)) == octets)
        }
        #expect(Base64.encode(octets("foobar")) == octets("Zm9vYmFy"))
        #expect(Base64.encode(octets("fooba")) == octets("Zm9vYmE="))
        #expect(Base64.encode(octets("foob")) == octets("Zm9vYg=="))
    }

    @Test(
        "what is not base64 is refused",
        arguments: [
            "A", "AA", "AAA", "AA=A", "====", "=AAA", "AAAA=", "A===", "AB==", "AAB=", "AA==AAAA", "AA A", "AA-_",
            "\0AAA",
        ])
    func strict(_ text: String) { #expect(Base64.decode(octets(text)) == nil) }
}
