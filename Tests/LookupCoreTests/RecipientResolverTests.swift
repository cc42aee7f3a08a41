// SPDX-License-Identifier: Apache-2.0

import LookupCore
import MailTypes
import Testing

/// Users by name; the names that cannot be asked for begin with `busy`.
private struct Users: RecipientDirectory {
    var names: Set<String> = ["alice", "bob", "carol", "joe-smith", "a", "d"]

    mutating func finding(of name: [UInt8]) -> UserFinding {
        let name = name.printableText
        if name == "root" { return .superuser }
        if name.hasPrefix("busy") { return .unknownNow }
        return self.names.contains(name) ? .exists : .absent
    }
}

private func octets(_ text: String) -> [UInt8] { Array(text.utf8) }

private func rules() -> RecipientResolver.Rules {
    RecipientResolver.Rules(
        localDomains: [octets("example.org"), octets("other.example"), octets("[192.0.2.1]")],
        hostname: octets("mx.example.org"))
}

private func resolver(
    _ aliases: String = "", _ change: (inout RecipientResolver.Rules) -> Void = { _ in }
) -> RecipientResolver {
    var rules = rules()
    change(&rules)
    return RecipientResolver(rules: rules, aliases: AliasFile(octets: octets(aliases)))
}

private func path(_ text: String) throws -> ForwardPath { try #require(ForwardPath(octets: octets(text))) }

private func check(_ resolver: RecipientResolver, _ text: String) throws -> String {
    var users = Users()
    switch resolver.check(try path(text), in: &users) {
    case .local: return "local"
    case .remote: return "remote"
    case .unknown(let status, _): return "unknown \(status.octets.printableText)"
    case .later: return "later"
    }
}

private func resolve(_ resolver: RecipientResolver, _ text: String) throws -> String {
    var users = Users()
    switch resolver.resolve(try path(text), in: &users) {
    case .targets(let targets):
        return targets.map { "\($0.forwardPath.octets.printableText)=\($0.route.octets.printableText)" }
            .joined(separator: " ")
    case .unknown(let status, _): return "unknown \(status.octets.printableText)"
    case .later: return "later"
    }
}

@Suite("Which recipients are ours")
struct RecipientCheckTests {
    static let aliases = """
        team: alice, bob
        broken: |prog
        uses-broken: bob, broken
        circle: circle-2
        circle-2: circle
        joe+special: bob
        """

    static let cases: [(String, String)] = [
        ("alice@example.org", "local"),
        ("ALICE@EXAMPLE.ORG", "local"),
        ("\"alice\"@example.org", "local"),
        ("alice+tag@example.org", "local"),
        ("alice@other.example", "local"),
        ("alice@[192.0.2.1]", "local"),
        ("alice@[192.0.2.2]", "remote"),
        ("alice@mx.example.org", "remote"),
        ("alice@sub.example.org", "remote"),
        ("nobody@example.org", "unknown 5.1.1"),
        ("nobody+tag@example.org", "unknown 5.1.1"),
        ("+tag@example.org", "unknown 5.1.1"),
        ("\"\"@example.org", "unknown 5.1.1"),
        ("\"../../etc\"@example.org", "unknown 5.1.1"),
        ("\"alice \"@example.org", "unknown 5.1.1"),
        ("team@example.org", "local"),
        ("Team+x@example.org", "local"),
        ("broken@example.org", "later"),
        ("busy@example.org", "later"),
        ("joe+special@example.org", "local"),
        ("joe+other@example.org", "unknown 5.1.1"),
        ("postmaster", "local"),
        ("PostMaster@example.org", "local"),
        ("postmaster@mx.example.org", "local"),
        ("mailer-daemon@mx.example.org", "local"),
        ("postmaster@remote.example", "remote"),
        ("uses-broken@example.org", "later"),
        ("circle@example.org", "later"),
        ("root@example.org", "later"),
    ]

    @Test("is told by domain, alias and user", arguments: cases)
    func verdicts(address: String, wanted: String) throws {
        #expect(try check(resolver(Self.aliases), address) == wanted)
    }

    @Test("is root where somebody reads what comes for the postmaster")
    func superuser() throws {
        #expect(try check(resolver("root: alice"), "root@example.org") == "local")
        #expect(try check(resolver("postmaster: alice"), "root@example.org") == "local")
        #expect(try check(resolver("postmaster: root"), "root@example.org") == "later")
        #expect(try resolve(resolver("postmaster: root, alice"), "root@example.org") == "alice@example.org=local:alice")
        #expect(try check(resolver("to-root: root"), "to-root@example.org") == "later")
    }

    @Test("is not told from a file of aliases with a line that cannot be read")
    func unreadable() throws {
        #expect(try check(resolver("what is this\n"), "nobody@example.org") == "later")
        #expect(try check(resolver("what is this\n"), "alice@example.org") == "local")
        #expect(try resolve(resolver("what is this\n"), "nobody@example.org") == "later")
        // A name behind an alias as well, but for users, who are known without the file.
        #expect(try resolve(resolver("team: alice, nobody\nwhat is this\n"), "team@example.org") == "later")
        #expect(
            try resolve(resolver("team: alice\nwhat is this\n"), "team@example.org") == "alice@example.org=local:alice")
    }

    @Test("splits at another delimiter, or at none, but finds a whole name first")
    func delimiters() throws {
        let hyphen = resolver { $0.delimiters = [ASCII.hyphen] }
        #expect(try check(hyphen, "alice-tag@example.org") == "local")
        #expect(try resolve(hyphen, "joe-smith@example.org") == "joe-smith@example.org=local:joe-smith")
        #expect(try check(hyphen, "alice+tag@example.org") == "unknown 5.1.1")
        #expect(try check(resolver { $0.delimiters = [] }, "alice+tag@example.org") == "unknown 5.1.1")
    }

    @Test(
        "splits at each of several delimiters, and finds the longest name first",
        arguments: [
            ("joe-smith+tag", "joe-smith"), ("alice-x+tag", "alice"), ("alice+x-tag", "alice"), ("bob+a+b", "bob"),
            ("joe-smith-tag", nil), ("+alice", nil), ("-+alice", nil), ("nobody+a-b", nil), ("carol=x", nil),
        ])
    func severalDelimiters(name: String, user: String?) throws {
        let several = resolver { $0.delimiters = octets("+-") }
        let wanted = user.map { "\(name)@example.org=local:\($0)" } ?? "unknown 5.1.1"
        #expect(try resolve(several, "\(name)@example.org") == wanted)
    }
}

@Suite("Where recipients go")
struct RecipientResolutionTests {
    static let aliases = """
        team: alice, bob@example.org, carol@remote.example, gone
        all: team, Team@other.example, alice@example.org, carol@REMOTE.example
        alice: alice, alice@backup.example
        a: b
        b: a
        c: d, c2
        c2: c, x@remote.example
        user: \\alice
        broken: bob, /dev/null
        uses-broken: bob, broken
        waits: busy
        odd: "no such thing"
        quoted: "two words"
        "two words": bob
        """

    static let cases: [(String, String)] = [
        ("bob@example.org", "bob@example.org=local:bob"),
        ("Bob+Tag@Example.Org", "Bob+Tag@Example.Org=local:bob"),
        ("x@remote.example", "x@remote.example=remote:remote.example"),
        ("x@[192.0.2.9]", "x@[192.0.2.9]=remote:[192.0.2.9]"),
        ("x@[IPv6:2001:db8::1]", "x@[IPv6:2001:db8::1]=remote:[2001:db8::1]"),
        ("x@192.0.2.9", "unknown 5.1.2"),
        ("nobody@example.org", "unknown 5.1.1"),
        // An alias of a user's own name goes to the user as well.
        ("alice@example.org", "alice@example.org=local:alice alice@backup.example=remote:backup.example"),
        // A target that does not exist is left to the deliverer, which tells the sender.
        (
            "team@example.org",
            "alice@example.org=local:alice alice@backup.example=remote:backup.example bob@example.org=local:bob "
                + "carol@remote.example=remote:remote.example gone@example.org=local:gone"
        ),
        (
            "ALL+x@other.example",
            "alice@other.example=local:alice alice@backup.example=remote:backup.example bob@other.example=local:bob "
                + "carol@remote.example=remote:remote.example gone@other.example=local:gone"
        ),
        ("a@example.org", "later"),
        ("b@example.org", "later"),
        ("c@example.org", "d@example.org=local:d x@remote.example=remote:remote.example"),
        ("user@example.org", "alice@example.org=local:alice"),
        ("broken@example.org", "later"),
        ("uses-broken@example.org", "later"),
        ("waits@example.org", "later"),
        ("odd@example.org", "later"),
        ("quoted@example.org", "bob@example.org=local:bob"),
    ]

    @Test("follows aliases to distinct ends", arguments: cases)
    func resolutions(address: String, wanted: String) throws {
        #expect(try resolve(resolver(Self.aliases), address) == wanted)
    }

    @Test("goes to the smarthost if it is not ours")
    func smarthost() throws {
        let hop = NextHop(octets: octets("[relay.example]:587"))
        let some = resolver { $0.smarthost = hop }
        #expect(try resolve(some, "x@remote.example") == "x@remote.example=remote:[relay.example]:587")
        #expect(try resolve(some, "bob@example.org") == "bob@example.org=local:bob")
    }

    @Test("never loses the postmaster's mail")
    func postmaster() throws {
        #expect(try resolve(resolver("postmaster: bob\n"), "postmaster") == "bob@mx.example.org=local:bob")
        #expect(try resolve(resolver("postmaster: bob\n"), "mailer-daemon@example.org") == "bob@example.org=local:bob")
        // Nobody is named: apus-local keeps it in the queue until there is such a user.
        #expect(try resolve(resolver(), "postmaster") == "postmaster@mx.example.org=local:postmaster")
        #expect(try resolve(resolver("root: carol\n"), "postmaster@example.org") == "carol@example.org=local:carol")
        #expect(try resolve(resolver { $0.singleUser = octets("bob") }, "postmaster") == "bob@mx.example.org=local:bob")
        let address = AliasFile.Target.address(try #require(MailAddress(text: "boss@remote.example")))
        #expect(
            try resolve(resolver("root: carol\n") { $0.postmaster = address }, "root@example.org")
                == "carol@example.org=local:carol")
        #expect(
            try resolve(resolver { $0.postmaster = address }, "root@example.org")
                == "boss@remote.example=remote:remote.example")
        let name = AliasFile.Target.name(octets("bob"))
        #expect(try resolve(resolver { $0.postmaster = name }, "postmaster") == "bob@mx.example.org=local:bob")
        // A setting that leads back to the postmaster says nothing.
        let circle = AliasFile.Target.address(try #require(MailAddress(text: "postmaster@example.org")))
        #expect(
            try resolve(resolver { $0.postmaster = circle }, "postmaster@example.org")
                == "postmaster@example.org=local:postmaster")
        #expect(try resolve(resolver("postmaster: postmaster\n"), "postmaster@example.org") == "later")
    }

    @Test("ends in bounds, however many targets aliases have")
    func bounds() throws {
        let wide = "wide: " + (0..<2_000).map { "u\($0)@remote.example" }.joined(separator: ",")
        #expect(try resolve(resolver(wide), "wide@example.org") == "later")
        let deep = (0..<3_000).map { "d\($0): d\($0 + 1)" }.joined(separator: "\n")
        #expect(try resolve(resolver(deep), "d0@example.org") == "later")
        let dense = (0..<40).map { i in "n\(i): " + (0..<40).map { "n\($0)" }.joined(separator: ",") }
        #expect(try resolve(resolver(dense.joined(separator: "\n")), "n0@example.org") == "later")
    }

    @Test("tells the circles of a file with their lines")
    func circles() {
        let circles = resolver(Self.aliases).circles()
        #expect(circles.map(\.line) == [4, 5])
        #expect(resolver("joe: joe, x@remote.example\n").circles() == [])
    }
}

@Suite("How a recipient is explained")
struct ExplanationTests {
    private static let aliases = """
        # comment
        team: alice, bob+x, far@remote.example
        postmaster: alice
        broken: |sh
        """

    private static func steps(_ resolver: RecipientResolver, _ text: String) throws -> [String] {
        var users = Users()
        let (steps, resolution) = resolver.explain(try path(text), in: &users)
        var plain = Users()
        #expect(resolution == resolver.resolve(try path(text), in: &plain), "the explanation changes the answer")
        return steps.map { step in
            let place =
                switch step.place {
                case .nothing: ""
                case .setting(let name): " (\(name))"
                case .aliasLine(let line): " (line \(line))"
                case .table(let text): " (\(text))"
                }
            return "\(step.subject.printableText) \(step.text.printableText)\(place)"
        }
    }

    @Test("each step is told with the setting or the line that it follows from")
    func steps() throws {
        let resolver = resolver(Self.aliases)
        #expect(
            try Self.steps(resolver, "Bob+News@Example.org") == [
                "example.org is one of our domains (domains.local)",
                "bob+news is looked for as bob (local.recipient-delimiter)", "bob is a user",
            ])
        #expect(
            try Self.steps(resolver, "team@other.example") == [
                "other.example is one of our domains (domains.local)",
                "team is an alias of alice, bob+x, far@remote.example (line 2)", "alice is a user",
                "bob+x is looked for as bob (local.recipient-delimiter)", "bob is a user",
                "remote.example is not one of our domains",
                "remote.example goes to the hosts of its MX records, or of its address if it has none",
            ])
        #expect(
            try Self.steps(resolver, "nobody@example.org").last == "nobody is neither an alias nor a user")
        #expect(
            try Self.steps(resolver, "broken@example.org").last
                == "broken is an alias that cannot be read whole (line 4)")
        #expect(
            try Self.steps(resolver, "postmaster@mx.example.org").first
                == "mx.example.org is the name of this host, where role addresses are local (hostname)")
        #expect(try Self.steps(resolver, "busy1@example.org").last == "busy1 cannot be looked up among the users now")
    }

    @Test("a smarthost, a literal and the reader of the postmaster's mail are named")
    func routes() throws {
        let smart = resolver { $0.smarthost = NextHop(octets: octets("[smart.example]:587")) }
        #expect(
            try Self.steps(smart, "x@far.example").last
                == "far.example goes to the smarthost [smart.example]:587 (remote.smarthost)")
        #expect(try Self.steps(resolver(), "x@[192.0.2.9]").last == "[192.0.2.9] goes to that address")
        let read = resolver { $0.postmaster = .name(octets("carol")) }
        #expect(
            try Self.steps(read, "postmaster").suffix(2) == [
                "postmaster has its mail read by carol (bounce.postmaster)", "carol is a user",
            ])
        #expect(try Self.steps(resolver(), "postmaster").last == "postmaster has nobody who reads its mail")
    }
}
