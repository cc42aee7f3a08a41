// SPDX-License-Identifier: Apache-2.0

import LookupCore
import MailTypes
import Testing

private func octets(_ text: String) -> [UInt8] { Array(text.utf8) }

private func may(_ user: String, _ address: String, _ table: String = "") throws -> Bool {
    let resolver = RecipientResolver(
        rules: RecipientResolver.Rules(localDomains: [octets("example.org")], hostname: octets("mx.example.org")),
        aliases: AliasFile())
    return resolver.maySend(
        octets(user), as: .address(try #require(MailAddress(text: address))), SenderTable(octets: octets(table)))
}

@Suite struct SenderTableTests {
    @Test("Without a line a user has his own address, tags included, and no other")
    func own() throws {
        #expect(try may("alice", "alice@example.org"))
        #expect(try may("alice", "Alice+list@Example.ORG"))
        #expect(try !may("alice", "bob@example.org"))
        #expect(try !may("alice", "alice@elsewhere.example"))
        #expect(try may("alice@elsewhere.example", "alice@elsewhere.example"))
        #expect(try may("alice@elsewhere.example", "alice+x@elsewhere.example"))
        #expect(try !may("alice@elsewhere.example", "alice@example.org"))
    }

    @Test("A line says all that a user may send as")
    func table() throws {
        let table = "# users\nAlice: sales@example.org, @lists.example.org\nroot: *\nmute:\n"
        #expect(try may("alice", "Sales@example.org", table))
        #expect(try may("alice", "anything@lists.example.org", table))
        #expect(try !may("alice", "alice@example.org", table))
        #expect(try !may("alice", "a@sub.lists.example.org", table))
        #expect(try may("root", "who@ever.example", table))
        #expect(try !may("mute", "mute@example.org", table))
        #expect(try may("bob", "bob@example.org", table))
    }

    @Test("A line that is not in order is told, and gives nothing")
    func faults() throws {
        let table = SenderTable(octets: octets("alice\nbob: not an address\n: x@y.example\ncarol: carol@example.org"))
        #expect(table.faults.map(\.line) == [1, 2, 3])
        #expect(table.allows(octets("carol"), try #require(MailAddress(text: "carol@example.org"))) == true)
    }
}
