// SPDX-License-Identifier: Apache-2.0

import LookupCore
import MailTypes
import Testing

/// The file as lines of `name -> target target` in the order of names; broken entries end in `!`.
private func listing(_ file: AliasFile) -> [String] {
    file.entries
        .map { name, entry in
            let targets = entry.targets.map { target in
                switch target {
                case .name(let name): name.printableText
                case .user(let user): "\\" + user.printableText
                case .address(let address): "<\(address.text)>"
                case .list(let path): "[\(path)]"
                case .program(let command): "|\(command)|"
                case .file(let path): "{\(path)}"
                }
            }
            return "\(name.printableText) -> \(targets.joined(separator: " "))\(entry.isBroken ? "!" : "")"
        }
        .sorted()
}

private func file(_ text: String) -> AliasFile { AliasFile(octets: Array(text.utf8)) }

@Suite("A file of aliases")
struct AliasFileTests {
    static let good: [(String, [String])] = [
        ("", []),
        ("# nothing\n\n   # here\n", []),
        ("a: b\n", ["a -> b"]),
        ("a:b,c\nd : e , <f@example.org>", ["a -> b c", "d -> e <f@example.org>"]),
        (
            "Team: Alice,\n  bob@example.net,\n# between\n\n\tcarol\nother: x\n",
            ["other -> x", "team -> Alice <bob@example.net> carol"]
        ),
        ("\"joe smith\": \"joe smith\"@example.org, \"j s\"\n", ["joe smith -> <\"joe smith\"@example.org> j s"]),
        ("a: \\b, \\\"c\"\r\n", ["a -> \\b \\c"]),
        ("a: Joe <joe@example.org>, \"Smith, Joe\" <js@example.org>\n", ["a -> <joe@example.org> <js@example.org>"]),
        ("a: b,\n", ["a -> b"]),
        ("\"a:b\": c\n", ["a:b -> c"]),
    ]

    @Test("is read without a fault as aliases(5) says", arguments: good)
    func goodFiles(text: String, wanted: [String]) {
        #expect(listing(file(text)) == wanted)
        #expect(file(text).faults == [])
        #expect(!file(text).hasUnreadableLine)
    }

    /// Text, entries, lines of the faults, whether a name could not be read, a word of the first fault.
    static let bad: [(String, [String], [Int], Bool, String)] = [
        ("ok: x\na: |/bin/prog\n", ["a -> !", "ok -> x"], [2], false, "programs"),
        ("a: \"|/bin/prog -x, y\", b\n", ["a -> b!"], [1], false, "programs"),
        ("a: /var/mail/a\n", ["a -> !"], [1], false, "files"),
        ("a: :include:/etc/list\n", ["a -> !"], [1], false, ":include:"),
        ("a:\n", ["a -> !"], [1], false, "no target"),
        ("a: b c\n", ["a -> !"], [1], false, "comma"),
        ("a: b@@c\n", ["a -> !"], [1], false, "neither"),
        ("a: \\-x\n", ["a -> !"], [1], false, "backslash"),
        ("a: Joe <joe>\n", ["a -> !"], [1], false, "between < and >"),
        ("a: b\nA: c\n", ["a -> b"], [2], false, "line 1"),
        ("no colon here\nb: c\n", ["b -> c"], [1], true, "colon"),
        ("a b: c\n", [], [1], true, "no name"),
        ("a@example.org: c\n", [], [1], true, "no name"),
        (":include: x\n", [], [1], true, "no name"),
        ("  b: c\n", [], [1], true, "continues"),
        ("\"a: b\n", [], [1], true, "colon"),
    ]

    @Test("tells its mistakes with their lines and keeps what is right", arguments: bad)
    func badFiles(text: String, entries: [String], lines: [Int], isUnreadable: Bool, word: String) {
        let file = file(text)
        #expect(listing(file) == entries)
        #expect(file.faults.map(\.line) == lines)
        #expect(file.hasUnreadableLine == isUnreadable)
        #expect(file.faults.first?.text.contains(word) == true)
    }

    /// Text, entries where programs and files are allowed, whether that is a fault.
    static let special: [(String, String, Bool)] = [
        ("a: |/bin/prog", "a -> |/bin/prog|", false),
        ("a: | prog -x 'y z'", "a -> |prog -x 'y z'|", false),
        ("a: \"|/bin/prog -x, y\", b", "a -> |/bin/prog -x, y| b", false),
        ("a: |\"/bin/prog -x, y\", b", "a -> |/bin/prog -x, y| b", false),
        ("a: |echo \"x, y\" z", "a -> |echo \"x, y\" z|", false),
        ("a: \"|echo \\\"x\\\"\"", "a -> |echo \"x\"|", false),
        ("a: /var/mail/a, /srv/dir/", "a -> {/var/mail/a} {/srv/dir/}", false),
        ("a: \"/srv/a, b\"", "a -> {/srv/a, b}", false),
        ("a: /dev/null", "a -> {/dev/null}", false),
        ("a: |", "a -> !", true), ("a: \"| \"", "a -> !", true), ("a: |\"\"", "a -> !", true),
        ("a: |\u{1}", "a -> !", true), ("a: |" + String(repeating: "x", count: 5_000), "a -> !", true),
        ("a: /", "a -> !", true), ("a: //", "a -> !", true), ("a: /srv/../etc/x", "a -> !", true),
        ("a: /srv/./x", "a -> !", true), ("a: /srv/..", "a -> !", true),
    ]

    @Test("has programs and files where the settings allow them", arguments: special)
    func programsAndFiles(text: String, wanted: String, isFaulty: Bool) {
        let octets = Array(text.utf8)
        let file = AliasFile(octets: octets, AliasFile.Terms(programs: true, files: true))
        #expect(listing(file) == [wanted])
        #expect(file.faults.isEmpty != isFaulty)
        let entry = file.entries[Array("a".utf8)]
        #expect(entry?.hasActions != isFaulty)
        let refused = AliasFile(octets: octets)
        #expect(refused.entries[Array("a".utf8)]?.isBroken == true)
        #expect(refused.faults.first?.text.contains(text.contains("|") ? "alias-programs" : "alias-files") == true)
    }

    @Test("names the owner of a list, but none of an owner")
    func owners() {
        let file = file("list: a\nowner-list: b\nowner-owner-list: c\nowner-: d\nother: e\nowner-owner: f\n")
        func owner(_ name: String) -> String? { file.owner(of: Array(name.utf8))?.printableText }
        #expect(owner("list") == "owner-list")
        for name in ["owner-list", "other", "owner-", "owner-owner", "nobody"] { #expect(owner(name) == nil) }
        #expect(owner("owner") == "owner-owner")
    }

    @Test("is never read beyond its limits, and never traps")
    func limits() {
        let many = "a: " + (0...AliasFile.targetCountMax).map { "u\($0)" }.joined(separator: ",")
        #expect(file(many).entries[Array("a".utf8)]?.isBroken == true)
        let faulty = String(repeating: "x\n", count: 1_000)
        #expect(file(faulty).faults.count == AliasFile.faultCountMax)
        let text = Array("a: \"b\\\", <c@d>, :i: | \\\\e,\n f\n\"x\": y\r\n".utf8)
        for cut in 0...text.count {
            _ = AliasFile(octets: Array(text[..<cut]))
            _ = AliasFile(octets: Array(text[cut...]))
        }
        var generator = SystemRandomNumberGenerator()
        let alphabet = Array("ab:,\"\\<>@|/# \n\r\t\u{0}é".utf8)
        for _ in 0..<2_000 {
            let octets = (0..<40).map { _ in alphabet[Int.random(in: 0..<alphabet.count, using: &generator)] }
            let file = AliasFile(octets: octets, AliasFile.Terms(includes: true, programs: true, files: true))
            for fault in file.faults { #expect(fault.text.utf8.allSatisfy { $0.isPrintable }) }
        }
    }
}
