// SPDX-License-Identifier: Apache-2.0

import TOML
import Testing

/// A value as one word, so that tables of expectations stay readable.
private func word(_ value: TOMLValue) -> String {
    switch value {
    case .string(let text): "s:\(text)"
    case .integer(let number): "i:\(number)"
    case .float(let number): "f:\(number)"
    case .boolean(let truth): "b:\(truth)"
    case .moment(let text): "m:\(text)"
    case .array(let elements): "[\(elements.map { word($0.value) }.joined(separator: " "))]"
    case .table(let table): "{\(table.entries.map { "\($0.key)=\(word($0.value))" }.joined(separator: " "))}"
    }
}

private func read(_ text: String) -> (tree: String, faults: [TOMLFault]) {
    let (table, faults) = TOMLReader.read(Array(text.utf8))
    return (word(.table(table)), faults)
}

@Suite struct TOMLReaderTests {
    @Test(
        "A value means what TOML 1.0 says",
        arguments: [
            ("a = 1", "i:1"), ("a = +99", "i:99"), ("a = -17", "i:-17"), ("a = 1_000", "i:1000"), ("a = 0", "i:0"),
            ("a = -0", "i:0"), ("a = 0xDEAD_beef", "i:3735928559"), ("a = 0o755", "i:493"), ("a = 0b1101", "i:13"),
            ("a = 9223372036854775807", "i:9223372036854775807"),
            ("a = -9223372036854775808", "i:-9223372036854775808"),
            ("a = 3.25", "f:3.25"), ("a = -0.5", "f:-0.5"), ("a = 5e+2", "f:500.0"), ("a = 1e06", "f:1000000.0"),
            ("a = 6.5E-1", "f:0.65"), ("a = inf", "f:inf"), ("a = -inf", "f:-inf"), ("a = nan", "f:nan"),
            ("a = true", "b:true"), ("a = false", "b:false"),
            ("a = 1979-05-27", "m:1979-05-27"), ("a = 07:32:00.5", "m:07:32:00.5"),
            ("a = 1979-05-27T07:32:00Z", "m:1979-05-27T07:32:00Z"),
            ("a = 1979-05-27 07:32:00-07:00", "m:1979-05-27 07:32:00-07:00"),
            (#"a = """#, "s:"), (#"a = "b\tc\\ \"d\" \u00E9\U0001F426""#, "s:b\tc\\ \"d\" é🐦"),
            (#"a = 'C:\x'"#, #"s:C:\x"#), ("a = ''", "s:"),
            ("a = \"\"\"\nb\nc\"\"\"", "s:b\nc"), ("a = \"\"\"b\\\n   c\"\"\"", "s:bc"),
            ("a = \"\"\"b\\  \r\n\r\n  c\"\"\"", "s:bc"), ("a = \"\"\"b\r\nc\"\"\"", "s:b\nc"),
            ("a = \"\"\"\"b\"\"\"\"\"", "s:\"b\"\""), ("a = '''\n'b\\''''", "s:'b\\'"),
            ("a = []", "[]"), ("a = [1, \"b\", [2]]", "[i:1 s:b [i:2]]"), ("a = [1,\n# no\n 2,\n]", "[i:1 i:2]"),
            ("a = {}", "{}"), ("a = {b = 1, c.d = 2, \"e f\" = 3}", "{b=i:1 c={d=i:2} e f=i:3}"),
        ])
    func value(text: String, expected: String) {
        let (tree, faults) = read(text)
        #expect(faults.isEmpty)
        #expect(tree == "{a=\(expected)}")
    }

    @Test(
        "Keys and headers make the tables that TOML 1.0 says",
        arguments: [
            ("", "{}"), ("# only\n\n", "{}"), ("\u{FEFF}a = 1\r\nb = 2", "{a=i:1 b=i:2}"),
            ("a.b.c = 1\na.b.d = 2\na.e = 3", "{a={b={c=i:1 d=i:2} e=i:3}}"),
            ("\"a.b\" . 'c d' = 1", "{a.b={c d=i:1}}"), ("1.2 = 3", "{1={2=i:3}}"),
            ("[a]\nb = 1\n[c]\nd = 2 # x\n", "{a={b=i:1} c={d=i:2}}"),
            ("[a.b]\nc = 1\n[a]\nd = 2", "{a={b={c=i:1} d=i:2}}"),
            ("[[a]]\nb = 1\n[[a]]\n[a.c]\nd = 2\n[[a]]\nb = 3", "{a=[{b=i:1} {c={d=i:2}} {b=i:3}]}"),
            ("[a]\nb.c = 1\n[a.b.d]\ne = 2", "{a={b={c=i:1 d={e=i:2}}}}"),
            ("[ a . \"b c\" ]\nd = 1", "{a={b c={d=i:1}}}"),
        ])
    func tables(text: String, expected: String) {
        let (tree, faults) = read(text)
        #expect(faults.isEmpty)
        #expect(tree == expected)
    }

    @Test(
        "What is not TOML is refused with its line",
        arguments: [
            ("a = 1\na = 2", 2), ("a", 1), ("a = ", 1), ("= 1", 1), ("a = b", 1), ("a = 01", 1), ("a = 1__0", 1),
            ("a = 1_", 1), ("a = 0x", 1), ("a = +0x1", 1), ("a = 1.", 1), ("a = .5", 1), ("a = 01.5", 1),
            ("a = 9223372036854775808", 1), ("a = \"b", 1), ("a = \"b\nc\"", 1), ("a = 'b\nc'", 1), ("a = \"\\x\"", 1),
            ("a = \"\\uD800\"", 1), ("a = \"\\u12\"", 1), ("a = 1 b = 2", 1), ("a = [1 2]", 1), ("\n\na = [1,\n", 3),
            ("a = {b = 1,}", 1), ("a = {b = 1\n}", 1), ("[a", 1), ("[a]]", 1), ("[[a]", 1), ("[]", 1), ("[a]\n[a]", 2),
            ("a = 1\n[a]", 2), ("a = {}\n[a.b]", 2), ("[a]\nb.c = 1\n[a.b]", 3), ("[a.b]\n[a]\nb.c = 1", 3),
            ("a = []\n[[a]]", 2), ("[[a]]\n[a]", 2), ("[a]\n[[a]]", 2), ("a = \"\"\"b", 1), ("a = '''b''''''", 1),
            ("a.b = 1\na.b.c = 2", 2), ("a = 1\r", 1), ("a = \"\u{1}\"", 1), ("# \u{0}", 1), ("b = 2\na = 1979-5-1", 2),
        ])
    func refused(text: String, line: Int) {
        #expect(read(text).faults.first?.line == line)
    }

    @Test("One reading names every mistake and keeps what could be read")
    func goesOn() {
        let (tree, faults) = read("a = 1\nb = \nc = 3\n[d\ne = 4\n[f]\ng = 5\n")
        #expect(faults.map(\.line) == [2, 4])
        #expect(tree == "{a=i:1 c=i:3 e=i:4 f={g=i:5}}")
    }

    @Test("What follows a wrong header does not fall into the table before it")
    func wrongHeader() {
        let (tree, faults) = read("[a]\nb = 1\n[a]\nc = 2\n")
        #expect(faults.map(\.line) == [3])
        #expect(tree == "{a={b=i:1}}")
    }

    @Test("Keys and values know their lines")
    func lines() {
        let (table, faults) = TOMLReader.read(Array("a = '''\n\n'''\n\nb = [\n 1,\n 2 ]\n[[c]]\nd = 1\n".utf8))
        #expect(faults.isEmpty)
        #expect(table.entries.map(\.line) == [1, 5, 8])
        guard case .array(let elements)? = table["b"]?.value, case .array(let tables)? = table["c"]?.value,
            case .table(let inner)? = tables.first?.value
        else {
            Issue.record("b and c are lists")
            return
        }
        #expect(elements.map(\.line) == [6, 7])
        #expect(inner["d"]?.line == 9)
    }

    @Test("Octets that are not UTF-8 are refused with their line")
    func notUTF8() {
        #expect(TOMLReader.read([0x61, 0x3D, 0x31, 0x0A, 0x23, 0xFF]).faults.map(\.line) == [2])
    }

    @Test("No nesting is too deep to be refused, and no number of mistakes too large to be borne")
    func bounds() {
        #expect(read("a = " + String(repeating: "[", count: 100_000)).faults.first?.line == 1)
        #expect(read("a = " + String(repeating: "{a=", count: 100_000)).faults.first?.line == 1)
        #expect(read(String(repeating: "a.", count: 100_000) + "a = 1").faults.first?.line == 1)
        #expect(read(String(repeating: "=\n", count: 100_000)).faults.count == TOMLReader.faultCountMax)
    }

    @Test("A document cut at any octet is read without a trap")
    func everyCut() {
        let text =
            "[a.\"b\"]\nc = [1, {d = 'e'}, \"\"\"f\\\n g\"\"\"] # h\n[[i]]\nj = 1979-05-27 07:32:00Z\nk=\"\\u00e9\""
        let octets = Array(text.utf8)
        let whole = TOMLReader.read(octets)
        #expect(whole.faults.isEmpty)
        for end in octets.indices { #expect(TOMLReader.read(Array(octets[..<end])).table != whole.table) }
    }
}
