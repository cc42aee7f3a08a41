// SPDX-License-Identifier: Apache-2.0

import LookupCore
import MailTypes
import Testing

private struct Directory: RecipientDirectory {
    mutating func finding(of name: [UInt8]) -> UserFinding {
        switch name.printableText {
        case "root": .superuser
        case "alice", "bob", "self": .exists
        default: .absent
        }
    }

    mutating func finding(of key: [UInt8], in role: TableRole) -> TableFinding {
        switch (role, key.printableText) {
        case (.virtualAliases, "v@v.example"): .found(octets("list, run"), place: "table")
        default: .absent
        }
    }
}

private func octets(_ text: String) -> [UInt8] { Array(text.utf8) }

private func resolver(_ aliases: String, hostname: String = "mx.l.example") -> RecipientResolver {
    var rules = RecipientResolver.Rules(localDomains: [octets("l.example")], hostname: octets(hostname))
    rules.virtual.domains = [octets("v.example")]
    return RecipientResolver(
        rules: rules,
        aliases: AliasFile(octets: octets(aliases), AliasFile.Terms(includes: true, programs: true, files: true)))
}

private func resolve(
    _ resolver: RecipientResolver, _ address: String, _ meaning: PathMeaning = .address
) throws -> String {
    var directory = Directory()
    let path = try #require(ForwardPath(octets: octets(address)))
    return switch resolver.resolve(path, meaning, in: &directory) {
    case .targets(let targets):
        targets.map { "\($0.forwardPath.octets.printableText)=\($0.route.octets.printableText)" }.joined(separator: " ")
    case .unknown(let status, _): "unknown \(status.octets.printableText)"
    case .later: "later"
    }
}

@Suite("An alias that is more than addresses")
struct DeliveredAliasTests {
    private static let aliases = """
        run: "|/bin/prog", alice
        box: /srv/box
        list: alice, far@away.example
        owner-list: bob
        nested: alice, run, list, bob
        Mixed: |prog
        "a b": |prog
        twice: run, run+tag, list@l.example
        plain: alice, bob
        self: |prog, Self@L.example
        bob: \\bob
        owner-bob: alice
        postmaster: |prog
        """

    static let cases: [(String, String)] = [
        ("run@l.example", "run@l.example=alias:run"),
        ("RUN+Tag@L.example", "RUN+Tag@L.example=alias:run"),
        ("box@l.example", "box@l.example=alias:box"),
        ("list@l.example", "list@l.example=alias:list"),
        ("owner-list@l.example", "bob@l.example=local:bob"),
        (
            "nested@l.example",
            "alice@l.example=local:alice run@l.example=alias:run list@l.example=alias:list bob@l.example=local:bob"
        ),
        ("mixed@l.example", "mixed@l.example=alias:mixed"),
        ("\"a b\"@l.example", "\"a b\"@l.example=alias:a b"),
        ("twice@l.example", "run@l.example=alias:run list@l.example=alias:list"),
        ("plain@l.example", "alice@l.example=local:alice bob@l.example=local:bob"),
        // The user behind it has a route of his own.
        ("self+tag@l.example", "self+tag@l.example=alias:self self@l.example=local:self"),
        ("bob@l.example", "bob@l.example=local:bob"),
        ("postmaster", "postmaster@mx.l.example=alias:postmaster"),
        ("postmaster@mx.l.example", "postmaster@mx.l.example=alias:postmaster"),
        ("root@l.example", "postmaster@l.example=alias:postmaster"),
        // By way of a virtual alias, local names are at the host.
        ("v@v.example", "list@mx.l.example=alias:list run@mx.l.example=alias:run"),
        // And so is the address that such a list sends from.
        ("owner-list@mx.l.example", "bob@mx.l.example=local:bob"),
        ("owner-none@mx.l.example", "owner-none@mx.l.example=remote:mx.l.example"),
        ("list@mx.l.example", "list@mx.l.example=remote:mx.l.example"),
    ]

    @Test("has a route of its own, wherever it is met", arguments: cases)
    func routes(address: String, wanted: String) throws {
        let resolver = resolver(Self.aliases)
        #expect(try resolve(resolver, address) == wanted)
        var directory = Directory()
        let path = try #require(ForwardPath(octets: octets(address)))
        #expect((resolver.check(path, in: &directory) == .remote) == wanted.contains("=remote:"))
    }

    static let meanings: [(String, PathMeaning, String)] = [
        ("self@mx.l.example", .name, "self@mx.l.example=alias:self self@mx.l.example=local:self"),
        ("self@mx.l.example", .user, "self@mx.l.example=local:self"),
        ("self@mx.l.example", .address, "self@mx.l.example=remote:mx.l.example"),
        ("SELF@l.example", .user, "SELF@l.example=local:self"),
        ("plain@away.example", .name, "alice@away.example=local:alice"),
        ("plain@l.example", .user, "unknown 5.1.1"),
        ("nobody@l.example", .name, "unknown 5.1.1"),
        ("nobody@l.example", .user, "unknown 5.1.1"),
        ("root@l.example", .user, "alice@l.example=local:alice"),
        ("postmaster@l.example", .user, "alice@l.example=local:alice"),
    ]

    @Test("leads to names and users whatever the domain that they are written with", arguments: meanings)
    func localMeanings(address: String, meaning: PathMeaning, wanted: String) throws {
        let aliases = "self: self, |prog\nplain: alice\nroot: alice\n"
        #expect(try resolve(resolver(aliases), address, meaning) == wanted)
    }

    @Test("is in a circle all the same if it leads nowhere else")
    func circles() {
        let resolver = resolver("a: b\nb: a\nowner-a: alice\nowner-b: alice\nc: c, |prog\nowner-c: alice\nd: /srv/d\n")
        #expect(resolver.circles().map(\.line) == [1, 2])
    }

    @Test("is explained with its reason")
    func explanation() throws {
        let resolver = resolver(Self.aliases)
        var directory = Directory()
        func steps(_ address: String) throws -> [String] {
            let path = try #require(ForwardPath(octets: octets(address)))
            return resolver.explain(path, in: &directory).steps.map {
                "\($0.subject.printableText) \($0.text.printableText)"
            }
        }
        #expect(
            try steps("run@l.example").suffix(2) == [
                "run is an alias of \"|/bin/prog\", alice",
                "run is done by apus-local, as it names programs or files",
            ])
        #expect(try steps("list@l.example").last == "list is done by apus-local, and sends to others as owner-list")
    }
}
