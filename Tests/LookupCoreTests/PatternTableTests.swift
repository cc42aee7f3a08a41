// SPDX-License-Identifier: Apache-2.0

import LookupCore
import MailTypes
import Testing

private func octets(_ text: String) -> [UInt8] { Array(text.utf8) }

/// The whole match and its groups, parted by bars; `-` for a group without a part in it.
private func match(_ pattern: String, _ text: String) throws -> String? {
    try RegularExpression(octets(pattern)).match(octets(text)).map { groups in
        groups.map { $0.map(\.printableText) ?? "-" }.joined(separator: "|")
    }
}

@Suite("A regular expression")
struct RegularExpressionTests {
    static let cases: [(String, String, String?)] = [
        ("", "abc", ""), ("b", "abc", "b"), ("^b", "abc", nil), ("c$", "abc", "c"), ("^abc$", "abc", "abc"),
        ("^$", "", ""), ("^$", "x", nil), ("a.c", "abc", "abc"), ("a\\.c", "abc", nil), ("a\\.c", "a.c", "a.c"),
        ("ab*c", "ac", "ac"), ("ab*c", "abbbc", "abbbc"), ("ab+c", "ac", nil), ("ab?c", "abbc", nil),
        ("a{2}", "aaa", "aa"), ("a{2,}", "aaaa", "aaaa"), ("a{1,2}", "aaaa", "aa"), ("a{0}b", "ab", "b"),
        ("(a|b)+c", "xabac", "abac|a"), ("(a)|(b)", "b", "b|-|b"), ("(a*)(b*)", "aab", "aab|aa|b"),
        ("^(.*)-list@", "my-own-list@x", "my-own-list@|my-own"), ("(?:a|b)(c)", "bc", "bc|c"),
        ("[a-c]+", "xxabcd", "abc"), ("[^@]+$", "joe@example.org", "example.org"), ("[]a]+", "]a", "]a"),
        ("[a-]+", "a-b", "a-"), ("[[:digit:]]+", "ab12", "12"), ("\\d+@", "x42@y", "42@"), ("\\w+", "-a_1-", "a_1"),
        ("^JOE@", "joe@example.org", "joe@"), ("[A-Z]+", "joe", "joe"), ("a|ab", "ab", "a"),
        ("(a*)*b", "aab", "aab|aa"),
        ("(a*)+$", "aaa", "aaa|aaa"), ("(|a)b", "ab", "ab|a"), ("x*", "aaa", ""), ("\\/", "a/b", "/"),
        ("[\\]]", "]", "]"),
    ]

    @Test("finds the leftmost match and what its groups have", arguments: cases)
    func matches(pattern: String, text: String, wanted: String?) throws { #expect(try match(pattern, text) == wanted) }

    @Test(
        "is refused if it is none, or too large",
        arguments: [
            "(", ")", "(a", "a)", "[", "[a", "[z-a]", "*", "a|*", "+a", "a{", "a{x}", "a{2,1}", "a{256}", "\\", "\\1",
            "\\b",
            "[[:x:]]", "(((((((((((a)))))))))))", "(a{200}){200}", "((?:){255}){255}", "a{255}{255}", "a**", "a+?",
            "(a)*{2}", "a" + String(repeating: "*", count: 100_000),
            String(repeating: "(?:", count: 60) + String(repeating: ")", count: 60),
            String(repeating: "a", count: 3_000),
        ])
    func refused(pattern: String) {
        #expect(throws: RegularExpression.Fault.self) { try RegularExpression(octets(pattern)) }
    }

    @Test("takes a time that no text can make long")
    func time() throws {
        let clock = ContinuousClock()
        let start = clock.now
        for pattern in ["(a*)*c", "(a|aa)+c", "(a|a)*c", "(.*)(.*)(.*)(.*)c", "(?:a?){20}a{20}c"] {
            _ = try match(pattern, String(repeating: "a", count: 600))
        }
        #expect(clock.now - start < .seconds(5))
    }
}

@Suite("A table of patterns")
struct PatternTableTests {
    static let regexps = """
        # lists
        /^([a-z]+)-(subscribe|leave)@lists\\.example$/  $1+$2@away.example
        /^x\\/y@/
            slash@v.example
        !/@v\\.example$/ other@v.example
        /^(.*)@v\\.example$/  $1@away.example
        """

    @Test(
        "of regular expressions has the first that matches, with what its groups have",
        arguments: [
            ("news-leave@lists.example", "news+leave@away.example"), ("x/y@v.example", "slash@v.example"),
            ("a@w.example", "other@v.example"), ("joe@v.example", "joe@away.example"),
            // A stranger's address cannot put another target into the list.
            ("\"a, x@evil.example, \"@v.example", nil), ("a,b@v.example", nil), ("|sh@v.example", nil),
            ("@v.example", nil),
        ])
    func regexps(key: String, value: String?) {
        let table = RegexpTable(octets: octets(Self.regexps))
        #expect(table.faults == [])
        #expect(table.count == 4)
        #expect(table.finding(of: octets(key))?.value.printableText == value)
    }

    @Test(
        "of regular expressions tells its mistakes with their lines",
        arguments: [
            ("joe@v.example x\n", 1), ("\n/a x\n", 2), ("/a/i x\n", 1), ("/(/ x\n", 1), ("/a/ $1\n", 1),
            ("/(a)/ $2\n", 1),
            ("!/(a)/ $1\n", 1), ("/(a)/ $0\n", 1), ("if /a/\n", 1),
        ])
    func mistakes(text: String, line: Int) {
        #expect(RegexpTable(octets: octets(text)).faults.map(\.line) == [line])
    }

    @Test("of beginnings has the longest one")
    func prefixes() {
        let table = PrefixTable(
            octets: octets("sales- all@v.example\nSales-EU- eu@v.example\n# x\na@ a\nb\n  continued\n"))
        #expect(table.faults == [])
        func value(_ key: String) -> String? { table.finding(of: octets(key))?.value.printableText }
        #expect(value("sales-us@v.example") == "all@v.example")
        #expect(value("sales-eu-1@v.example") == "eu@v.example")
        #expect(value("a@any.example") == "a")
        #expect(value("bob@v.example") == "continued")
        #expect(value("sales@v.example") == nil)
        #expect(value("@v.example") == nil)
        #expect(PrefixTable(octets: octets("a x\nA y\n")).faults.map(\.line) == [2])
        #expect(PrefixTable(octets: octets("a\u{1}b x\n")).faults.map(\.line) == [1])
    }

    @Test("has its bounds")
    func bounds() {
        let many = RegexpTable(octets: octets(String(repeating: "/a/ x\n", count: 1_001)))
        #expect(many.faults.map(\.line) == [1_001])
        #expect(RegexpTable(octets: octets(String(repeating: "x\n", count: 500))).faults.count == 100)
    }
}
