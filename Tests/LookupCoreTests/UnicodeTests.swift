// SPDX-License-Identifier: Apache-2.0

import LookupCore
import MailTypes
import Testing

private func octets(_ text: String) -> [UInt8] { Array(text.utf8) }
private func text(_ octets: [UInt8]) -> String { String(decoding: octets, as: UTF8.self) }

/// Two domains and no others.
private let domains = DomainMapping { domain in
    switch text(domain).lowercased() {
    case "bücher.example": octets("xn--bcher-kva.example")
    case "ö.example": octets("xn--nda.example")
    default: nil
    }
}

private struct Directory: RecipientDirectory {
    let aliases: TextTable
    let mailboxes: TextTable

    mutating func finding(of name: [UInt8]) -> UserFinding { name == octets("alice") ? .exists : .absent }

    mutating func finding(of key: [UInt8], in role: TableRole) -> TableFinding {
        let table = role == .virtualAliases ? self.aliases : self.mailboxes
        return table.finding(of: key).map { .found($0.value, place: "\(role):\($0.line)") } ?? .absent
    }
}

@Suite("Tables and aliases beyond ASCII")
struct UnicodeTests {
    @Test(
        "a key's local part is as it is, and its domain is in ASCII",
        arguments: [
            ("jörg@example.org", "jörg@example.org"), ("JÖRG@bücher.example", "jÖrg@xn--bcher-kva.example"),
            ("joe@Bücher.example", "joe@xn--bcher-kva.example"), ("@bücher.example", "@xn--bcher-kva.example"),
            ("bücher.example", "xn--bcher-kva.example"), ("\"jörg\"@a.example", "jörg@a.example"),
            ("\"j ö\"@a.example", "\"j ö\"@a.example"), ("jörg@other-ü.example", nil), ("@other-ü.example", nil),
            ("bücher", nil),
        ] as [(String, String?)])
    func keys(word: String, key: String?) {
        let written = TableKey.key(octets(word), domains)
        #expect(written.map(text) == key)
        if let written { #expect(TableKey.key(written, .none) == written) }
    }

    static let cases: [(String, [String])] = [
        ("jörg@xn--bcher-kva.example", ["jörg@xn--bcher-kva.example mailbox:vmail:xn--bcher-kva.example/j%C3%B6rg"]),
        (
            "jörg+ä@xn--bcher-kva.example",
            ["jörg+ä@xn--bcher-kva.example mailbox:vmail:xn--bcher-kva.example/j%C3%B6rg"]
        ),
        ("JÖRG@xn--bcher-kva.example", []),
        (
            "Jörg@xn--bcher-kva.example",
            [
                "Jörg@xn--bcher-kva.example mailbox:vmail:xn--bcher-kva.example/j%C3%B6rg"
            ]
        ),
        (
            "größe@xn--bcher-kva.example",
            [
                "jörg@xn--bcher-kva.example mailbox:vmail:xn--bcher-kva.example/j%C3%B6rg",
                "δ@xn--nda.example remote:xn--nda.example",
            ]
        ),
        ("é@xn--nda.example", ["é@xn--nda.example remote:xn--nda.example"]),
        ("jörg@moved.example", ["jörg@xn--bcher-kva.example mailbox:vmail:xn--bcher-kva.example/j%C3%B6rg"]),
        ("bärbel@local.example", ["alice@local.example local:alice", "δ@xn--nda.example remote:xn--nda.example"]),
    ]

    @Test("an address finds what is said of it, whichever way its domain is written in the tables", arguments: cases)
    func resolved(address: String, targets: [String]) throws {
        var rules = RecipientResolver.Rules(localDomains: [octets("local.example")], hostname: octets("mx.example"))
        rules.virtual = VirtualRules(
            domains: [octets("xn--bcher-kva.example"), octets("moved.example")], owner: octets("vmail"))
        let aliases = AliasFile(octets: octets("Bärbel: alice, δ@Ö.example\n"), domains: domains)
        #expect(aliases.faults.isEmpty)
        let resolver = RecipientResolver(rules: rules, aliases: aliases, domains: domains)
        var directory = Directory(
            aliases: TextTable(
                octets: octets(
                    "größe@bücher.example jörg@BÜCHER.example, δ@ö.example\n@moved.example @bücher.example\n"),
                domains: domains),
            mailboxes: TextTable(octets: octets("jörg@bücher.example\n"), domains: domains))
        let path = try #require(ForwardPath(octets: octets(address), alphabet: .unicodeLocalPart))
        let resolution = resolver.resolve(path, in: &directory)
        guard case .targets(let found) = resolution else {
            #expect(targets.isEmpty, "\(resolution)")
            return
        }
        #expect(found.map { "\(text($0.forwardPath.octets)) \(text($0.route.octets))" } == targets)
    }

    @Test("who may send as an address beyond ASCII is found as well")
    func senders() throws {
        let table = SenderTable(octets: octets("alice: jörg@bücher.example, @ö.example\n"), domains: domains)
        #expect(table.faults.isEmpty)
        for (address, isAllowed) in [
            ("jörg@xn--bcher-kva.example", true), ("ä@xn--nda.example", true), ("ä@xn--bcher-kva.example", false),
        ] {
            let address = try #require(MailAddress(octets: octets(address), alphabet: .unicodeLocalPart))
            #expect(table.allows(octets("alice"), address) == isAllowed)
        }
        // Without a line in the table a user is his own address, however its domain is written.
        let rules = RecipientResolver.Rules(localDomains: [], hostname: octets("mx.example"))
        let resolver = RecipientResolver(rules: rules, aliases: AliasFile(), domains: domains)
        var directory = Directory(aliases: TextTable(octets: []), mailboxes: TextTable(octets: []))
        let own = try #require(ForwardPath(octets: octets("jörg+x@xn--bcher-kva.example"), alphabet: .unicodeLocalPart))
        for (user, isAllowed) in [
            ("jörg@bücher.example", true), ("jörg@xn--bcher-kva.example", true), ("jörg@ö.example", false),
        ] { #expect(resolver.maySend(octets(user), as: own, SenderTable(), in: &directory) == isAllowed) }
    }

    @Test("octets that are no UTF-8 are told with their line")
    func broken() {
        let broken: [UInt8] = octets("j") + [0xF6] + octets("rg")
        #expect(AliasFile(octets: broken + octets(": alice\n")).hasUnreadableLine)
        #expect(TextTable(octets: broken + octets("@a.example x\n")).faults.map(\.line) == [1])
    }
}
