// SPDX-License-Identifier: Apache-2.0

import LookupCore
import MailTypes
import Testing

private func octets(_ text: String) -> [UInt8] { Array(text.utf8) }

/// The users alice, joe and joe-smith; and mailboxes of v.example that a table lists. What has `busy` in it cannot be told.
private struct Directory: RecipientDirectory {
    mutating func finding(of name: [UInt8]) -> UserFinding {
        if name.printableText.contains("busy") { return .unknownNow }
        return ["alice", "joe", "joe-smith"].contains(name.printableText) ? .exists : .absent
    }

    mutating func finding(of key: [UInt8], in role: TableRole) -> TableFinding {
        if key.printableText.contains("busy") { return .unknownNow(reason: "busy") }
        if role == .virtualAliases, key.printableText == "joe-news@v.example" {
            return .found(octets("Joe@v.example"), place: "table")
        }
        return role == .virtualMailboxes && ["joe@v.example", "joe-smith@v.example"].contains(key.printableText)
            ? .found([], place: "table") : .absent
    }
}

private func answer(_ user: String, _ address: String, _ table: String = "") throws -> Bool? {
    let resolver = RecipientResolver(
        rules: RecipientResolver.Rules(
            localDomains: [octets("example.org")], hostname: octets("mx.example.org"), delimiters: octets("+-")),
        aliases: AliasFile(octets: octets("joe-list: alice\njoe-news: joe\n")))
    var directory = Directory()
    return resolver.maySend(
        octets(user), as: .address(try #require(MailAddress(text: address))), SenderTable(octets: octets(table)),
        in: &directory)
}

private struct CannotTell: Error {}

private func may(_ user: String, _ address: String, _ table: String = "") throws -> Bool {
    guard let isAllowed = try answer(user, address, table) else { throw CannotTell() }
    return isAllowed
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

    @Test("An address with a delimiter in it is that of the longest name that exists")
    func longestName() throws {
        for domain in ["example.org", "v.example"] {
            let at = domain == "v.example" ? "@v.example" : ""
            #expect(try may("joe\(at)", "joe@\(domain)"))
            #expect(try may("joe\(at)", "joe-news@\(domain)"))
            #expect(try may("joe\(at)", "joe-news+x@\(domain)"))
            #expect(try !may("joe\(at)", "joe-smith@\(domain)"))
            #expect(try !may("joe\(at)", "joe-smith+news@\(domain)"))
            #expect(try may("joe-smith\(at)", "joe-smith+news@\(domain)"))
            #expect(try answer("joe\(at)", "joe-busy@\(domain)") == nil)
        }
        #expect(try !may("joe", "joe-list@example.org"))
        #expect(try may("joe", "joe-list@example.org", "joe: joe-list@example.org"))
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
