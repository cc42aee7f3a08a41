// SPDX-License-Identifier: Apache-2.0

import LookupCore
import MailTypes
import Testing

private func octets(_ text: String) -> [UInt8] { Array(text.utf8) }

/// Tables by role, and the users alice and bob. What is asked for a key with `busy` in it cannot be told.
private struct Directory: RecipientDirectory {
    var tables: [TableRole: TextTable] = [:]
    var asked: [String] = []

    mutating func finding(of name: [UInt8]) -> UserFinding {
        ["alice", "bob"].contains(name.printableText) ? .exists : .absent
    }

    mutating func finding(of key: [UInt8], in role: TableRole) -> TableFinding {
        self.asked.append(key.printableText)
        if key.printableText.contains("busy") { return .unknownNow(reason: "busy") }
        return self.tables[role]?.finding(of: key).map { .found($0.value, place: "\(role):\($0.line)") } ?? .absent
    }
}

private let aliases = """
    sales@v.example        joe@v.example, alice, far@away.example
    joe@v.example          joe@v.example, copy@away.example
    tagged+x@v.example     mary@v.example
    self@v.example         self@v.example
    circle@v.example       circle-2@v.example
    circle-2@v.example     circle@v.example
    stale@v.example        joe@v.example, gone@w.example
    broken@v.example       |/bin/sh
    empty@v.example
    late@v.example         busy@v.example
    twice@v.example        mary@v.example, MARY+tag@v.example, "mary"@v.example
    user@v.example         \\bob, alice@local.example
    @all.example           mary@v.example
    @moved.example         @v.example
    @local-too.example     @local.example
    @again.example         @moved.example
    alias@v.example        nobody@moved.example
    @round.example         @round.example
    """

private let mailboxes = """
    joe@v.example
    mary@v.example   this is not looked at
    ".."@v.example
    "a/b"@v.example
    kept@all.example
    in@table.example
    """

private func lookUp(
    _ text: String, _ change: (inout RecipientResolver.Rules) -> Void = { _ in }
) throws -> (check: String, resolve: String) {
    var rules = RecipientResolver.Rules(
        localDomains: [octets("local.example")], hostname: octets("mx.local.example"))
    rules.virtual = VirtualRules(
        domains: Set(
            [
                "v.example", "w.example", "all.example", "moved.example", "round.example", "local-too.example",
                "again.example",
            ].map(octets)),
        hasDomainTables: true, owner: octets("vmail"))
    rules.postmaster = .name(octets("alice"))
    change(&rules)
    let resolver = RecipientResolver(rules: rules, aliases: AliasFile(octets: octets("team: sales@v.example, bob\n")))
    var directory = Directory(tables: [
        .virtualAliases: TextTable(octets: octets(aliases)), .virtualMailboxes: TextTable(octets: octets(mailboxes)),
        .virtualDomains: TextTable(octets: octets("table.example\n")),
    ])
    let path = try #require(ForwardPath(octets: octets(text)))
    let check: String =
        switch resolver.check(path, in: &directory) {
        case .local: "local"
        case .remote: "remote"
        case .unknown(let status, _): "unknown \(status.octets.printableText)"
        case .later: "later"
        }
    let resolution = resolver.resolve(path, in: &directory)
    #expect(resolver.explain(path, in: &directory).resolution == resolution)
    let resolve: String =
        switch resolution {
        case .targets(let targets):
            targets.map { "\($0.forwardPath.octets.printableText)=\($0.route.octets.printableText)" }
                .joined(separator: " ")
        case .unknown(let status, _): "unknown \(status.octets.printableText)"
        case .later: "later"
        }
    return (check, resolve)
}

@Suite("Virtual domains")
struct VirtualDomainTests {
    static let cases: [(String, String, String)] = [
        ("mary@v.example", "local", "mary@v.example=mailbox:vmail:v.example/mary"),
        ("MARY@V.Example", "local", "MARY@V.Example=mailbox:vmail:v.example/mary"),
        ("mary+news@v.example", "local", "mary+news@v.example=mailbox:vmail:v.example/mary"),
        ("\"mary\"@v.example", "local", "\"mary\"@v.example=mailbox:vmail:v.example/mary"),
        ("nobody@v.example", "unknown 5.1.1", "unknown 5.1.1"),
        // The users of the system are nobody there.
        ("alice@v.example", "unknown 5.1.1", "unknown 5.1.1"),
        ("mary@w.example", "unknown 5.1.1", "unknown 5.1.1"),
        ("mary@away.example", "remote", "mary@away.example=remote:away.example"),
        ("in@table.example", "local", "in@table.example=mailbox:vmail:table.example/in"),
        ("out@table.example", "unknown 5.1.1", "unknown 5.1.1"),
        // An alias that names itself means the mailbox.
        (
            "joe@v.example", "local",
            "joe@v.example=mailbox:vmail:v.example/joe copy@away.example=remote:away.example"
        ),
        (
            "joe+tag@v.example", "local",
            "joe@v.example=mailbox:vmail:v.example/joe copy@away.example=remote:away.example"
        ),
        (
            "sales@v.example", "local",
            "joe@v.example=mailbox:vmail:v.example/joe copy@away.example=remote:away.example "
                + "alice@mx.local.example=local:alice far@away.example=remote:away.example"
        ),
        ("user@v.example", "local", "bob@mx.local.example=local:bob alice@mx.local.example=local:alice"),
        ("twice@v.example", "local", "mary@v.example=mailbox:vmail:v.example/mary"),
        // The alias of the whole goes before the one without its tag.
        ("tagged+x@v.example", "local", "mary@v.example=mailbox:vmail:v.example/mary"),
        ("tagged+y@v.example", "unknown 5.1.1", "unknown 5.1.1"),
        // A local alias may lead there.
        (
            "team@local.example", "local",
            "joe@v.example=mailbox:vmail:v.example/joe copy@away.example=remote:away.example "
                + "alice@local.example=local:alice far@away.example=remote:away.example bob@local.example=local:bob"
        ),
        // The alias of a domain is for who is not found.
        ("x@all.example", "local", "mary@v.example=mailbox:vmail:v.example/mary"),
        ("kept@all.example", "local", "kept@all.example=mailbox:vmail:all.example/kept"),
        ("kept+tag@all.example", "local", "kept+tag@all.example=mailbox:vmail:all.example/kept"),
        ("postmaster@all.example", "local", "mary@v.example=mailbox:vmail:v.example/mary"),
        ("mary@moved.example", "local", "mary@v.example=mailbox:vmail:v.example/mary"),
        ("mary+tag@moved.example", "local", "mary+tag@v.example=mailbox:vmail:v.example/mary"),
        // Another name of a domain makes nobody known, and the postmaster is its postmaster.
        ("nobody@moved.example", "unknown 5.1.1", "unknown 5.1.1"),
        ("nobody@again.example", "unknown 5.1.1", "unknown 5.1.1"),
        ("mary@again.example", "local", "mary@v.example=mailbox:vmail:v.example/mary"),
        ("alice@local-too.example", "local", "alice@mx.local.example=local:alice"),
        ("nobody@local-too.example", "unknown 5.1.1", "unknown 5.1.1"),
        ("postmaster@moved.example", "local", "alice@mx.local.example=local:alice"),
        ("postmaster@again.example", "local", "alice@mx.local.example=local:alice"),
        ("postmaster@local-too.example", "local", "alice@mx.local.example=local:alice"),
        // Behind an alias of an address it is a mistake.
        ("alias@v.example", "later", "later"),
        ("x@round.example", "later", "later"),
        // Every domain has a postmaster.
        ("Postmaster@v.example", "local", "alice@mx.local.example=local:alice"),
        ("postmaster@table.example", "local", "alice@mx.local.example=local:alice"),
        ("mailer-daemon@v.example", "unknown 5.1.1", "unknown 5.1.1"),
        // Mistakes and tables that cannot tell never make mail bounce.
        ("self@v.example", "later", "later"), ("circle@v.example", "later", "later"),
        ("stale@v.example", "later", "later"),
        ("broken@v.example", "later", "later"), ("empty@v.example", "later", "later"),
        ("late@v.example", "later", "later"),
        ("busy@v.example", "later", "later"), ("x+busy@v.example", "later", "later"),
        ("mary@busy.example", "later", "later"),
        // What an address may be does not matter to a path.
        ("\"..\"@v.example", "local", "\"..\"@v.example=mailbox:vmail:v.example/%2E."),
        ("\"a/b\"@v.example", "local", "\"a/b\"@v.example=mailbox:vmail:v.example/a%2Fb"),
    ]

    @Test("have the users of their tables, and nobody else", arguments: cases)
    func lookUps(address: String, check: String, resolve: String) throws {
        let found = try lookUp(address)
        #expect(found.check == check)
        #expect(found.resolve == resolve)
    }

    @Test("let a server have the mailboxes, for which nobody else is needed")
    func server() throws {
        let found = try lookUp("mary@v.example") {
            $0.virtual.owner = nil
            $0.virtual.server = NextHop(octets: octets("lmtp:/run/lmtp"))
        }
        #expect(found.resolve == "mary@v.example=remote:lmtp:/run/lmtp")
        #expect(try lookUp("mary@v.example") { $0.virtual.owner = nil }.resolve == "later")
    }

    @Test("are not asked for where there is none")
    func unasked() throws {
        let resolver = RecipientResolver(
            rules: RecipientResolver.Rules(localDomains: [octets("local.example")], hostname: octets("mx.example")),
            aliases: AliasFile())
        var directory = Directory()
        for text in ["alice@local.example", "x@away.example"] {
            _ = resolver.resolve(try #require(ForwardPath(octets: octets(text))), in: &directory)
        }
        #expect(directory.asked.isEmpty)
    }

    @Test("what an alias of many needs to know is asked for in a few turns")
    func turns() throws {
        struct Server: RecipientDirectory {
            var answers: Set<String> = []
            var missing: Set<String> = []
            var count = 0
            mutating func finding(of name: [UInt8]) -> UserFinding { .absent }
            mutating func finding(of key: [UInt8], in role: TableRole) -> TableFinding {
                self.count += 1
                let question = "\(role) \(key.printableText)"
                guard self.answers.contains(question) else {
                    self.missing.insert(question)
                    return .unknownNow(reason: "asked")
                }
                return role == .virtualMailboxes ? .found([], place: "server") : .absent
            }
        }
        var rules = RecipientResolver.Rules(localDomains: [octets("local.example")], hostname: octets("mx.example"))
        rules.virtual = VirtualRules(domains: [octets("v.example")], owner: octets("vmail"))
        let names = (0..<500).map { "u\($0)@v.example" }.joined(separator: ", ")
        let resolver = RecipientResolver(rules: rules, aliases: AliasFile(octets: octets("all: \(names)\n")))
        let path = try #require(ForwardPath(octets: octets("all@local.example")))
        var server = Server()
        for _ in 0..<3 {
            server.missing = []
            let resolution = resolver.resolve(path, in: &server)
            if server.missing.isEmpty {
                guard case .targets(let targets) = resolution else { break }
                #expect(targets.count == 500)
            }
            server.answers.formUnion(server.missing)
        }
        #expect(server.missing.isEmpty)
        #expect(server.count <= 3 * 1_000)
    }

    @Test("are explained step by step")
    func explained() throws {
        var rules = RecipientResolver.Rules(localDomains: [], hostname: octets("mx.example"))
        rules.virtual = VirtualRules(domains: [octets("v.example")], owner: octets("vmail"))
        var directory = Directory(tables: [
            .virtualAliases: TextTable(octets: octets(aliases)),
            .virtualMailboxes: TextTable(octets: octets(mailboxes)),
        ])
        let resolver = RecipientResolver(rules: rules, aliases: AliasFile())
        let path = try #require(ForwardPath(octets: octets("tagged+x@v.example")))
        let steps = resolver.explain(path, in: &directory).steps
        #expect(
            steps.map { "\($0.kind) \($0.subject.printableText) \($0.text.printableText)" } == [
                "domain v.example is a virtual domain",
                "alias tagged+x@v.example is an alias of mary@v.example",
                "domain v.example is a virtual domain",
                "mailbox mary@v.example has the mailbox v.example/mary",
            ])
        #expect(steps.last?.place == .table("virtualMailboxes:2"))
    }
}
