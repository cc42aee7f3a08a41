// SPDX-License-Identifier: Apache-2.0

import LookupCore
import MailTypes
import Testing

private func octets(_ text: String) -> [UInt8] { Array(text.utf8) }

/// Files that aliases include, and the users alice and bob.
private struct Directory: RecipientDirectory {
    var lists: [String: String]

    mutating func finding(of name: [UInt8]) -> UserFinding {
        ["alice", "bob", "list"].contains(name.printableText) ? .exists : .absent
    }

    mutating func finding(ofList path: String) -> AliasListFinding {
        guard let text = self.lists[path] else { return .unknownNow(reason: "there is no \(path)") }
        let list = AliasList(octets: octets(text))
        return list.faults.isEmpty ? .targets(list.targets) : .unknownNow(reason: "faults")
    }
}

@Suite("An alias that includes a file")
struct AliasListTests {
    @Test(
        "has the targets of all its lines",
        arguments: [
            ("alice\nbob@away.example\n", "alice bob@away.example"),
            ("# people\n\n  alice, bob ,\r\n\t# more\nJoe Smith <joe@away.example>", "alice bob joe@away.example"),
            (":include:/other\n\\bob\n", ":include:/other \\bob"),
        ])
    func lists(text: String, wanted: String) {
        let list = AliasList(octets: octets(text))
        #expect(list.faults == [])
        #expect(list.targets.map(\.octets.printableText).joined(separator: " ") == wanted)
    }

    @Test(
        "tells its mistakes with their lines",
        arguments: [
            ("alice\n|/bin/sh\n/var/file\n", [2, 3]), ("alice bob\n", [1]), ("\n\n", [1]), ("", [1]),
            ("alice\n:include:relative\n", [2]), ("alice\n,\n", [2]),
        ])
    func faults(text: String, lines: [Int]) {
        #expect(AliasList(octets: octets(text)).faults.map(\.line) == lines)
    }

    @Test("tells no more than a hundred mistakes, and takes no more than ten thousand targets")
    func bounds() {
        let bad = AliasList(octets: octets(String(repeating: "|x\n", count: 500)))
        #expect(bad.faults.count == AliasFile.faultCountMax)
        let many = AliasList(octets: octets(String(repeating: "alice\n", count: 10_001)))
        #expect(many.faults.map(\.line) == [10_001])
        #expect(many.targets.count == 10_000)
        #expect(!AliasList(octets: [UInt8](repeating: 0x61, count: AliasList.octetCountMax + 1)).faults.isEmpty)
    }

    @Test("is a mistake where that is not allowed")
    func notAllowed() {
        let text = octets("list: :include:/list\nother: \":include:/with blank\"\nwrong: :include:list\n")
        #expect(AliasFile(octets: text).faults.map(\.line) == [1, 2, 3])
        let file = AliasFile(octets: text, AliasFile.Terms(includes: true))
        #expect(file.faults.map(\.line) == [3])
        #expect(file.entries[octets("list")]?.targets == [.list(path: "/list")])
        #expect(file.entries[octets("other")]?.targets == [.list(path: "/with blank")])
    }

    static let cases: [(String, String)] = [
        ("list", "alice@l.example=local:alice far@away.example=remote:away.example"),
        ("list+tag", "alice@l.example=local:alice far@away.example=remote:away.example"),
        // Files include others, and themselves; each is read once.
        ("nested", "bob@l.example=local:bob alice@l.example=local:alice far@away.example=remote:away.example"),
        ("twice", "alice@l.example=local:alice far@away.example=remote:away.example"),
        // A file that names the alias means the user of that name.
        ("bob", "bob@l.example=local:bob alice@l.example=local:alice"),
        ("self", "later"),
        ("circle", "later"), ("missing", "later"), ("broken", "later"), ("half", "later"),
    ]

    @Test("leads where the file says", arguments: cases)
    func resolutions(name: String, wanted: String) throws {
        let aliases = """
            list: :include:/list
            nested: :include:/nested
            twice: :include:/list, :include:/list, alice
            self: :include:/self
            bob: :include:/bob
            circle: :include:/circle
            missing: :include:/missing
            broken: :include:/broken
            half: bob, :include:/missing
            """
        var directory = Directory(lists: [
            "/list": "alice\nfar@away.example\n", "/nested": "bob\n:include:/list\n:include:/nested\n",
            "/self": "self\n",
            "/bob": "bob, alice\n", "/circle": ":include:/circle-2\n", "/circle-2": "circle\n:include:/circle\n",
            "/broken": "alice\n|/bin/sh\n",
        ])
        let resolver = RecipientResolver(
            rules: RecipientResolver.Rules(localDomains: [octets("l.example")], hostname: octets("mx.l.example")),
            aliases: AliasFile(octets: octets(aliases), AliasFile.Terms(includes: true)))
        #expect(resolver.circles().isEmpty)
        let path = try #require(ForwardPath(octets: octets("\(name)@l.example")))
        let found: String =
            switch resolver.resolve(path, in: &directory) {
            case .targets(let targets):
                targets.map { "\($0.forwardPath.octets.printableText)=\($0.route.octets.printableText)" }
                    .joined(separator: " ")
            case .unknown: "unknown"
            case .later: "later"
            }
        #expect(found == wanted)
        #expect((resolver.check(path, in: &directory) == .local) == (wanted != "later"))
    }
}
