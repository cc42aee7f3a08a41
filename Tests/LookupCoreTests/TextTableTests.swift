// SPDX-License-Identifier: Apache-2.0

import LookupCore
import MailTypes
import Testing

private func octets(_ text: String) -> [UInt8] { Array(text.utf8) }

private func value(_ key: String, _ text: String) -> String? {
    TextTable(octets: octets(text)).finding(of: octets(key)).map { $0.value.printableText }
}

@Suite("A table in a text file")
struct TextTableTests {
    static let text = """
        # people
        Joe@Example.ORG\tjoe.smith@example.net, bob
        mary@example.org
        @example.org   all@example.org\r
          , more@example.org
          # not here
        "joe smith"@example.org  js
        "plain"@example.org p
        example.com  anything at all

        """

    static let cases: [(String, String?)] = [
        ("joe@example.org", "joe.smith@example.net, bob"), ("Joe@example.org", nil), ("mary@example.org", ""),
        ("@example.org", "all@example.org   , more@example.org"), ("\"joe smith\"@example.org", "js"),
        ("plain@example.org", "p"), ("example.com", "anything at all"), ("example.org", nil), ("", nil),
    ]

    @Test("has a value for each key, whatever the case of its letters and its needless quotes", arguments: cases)
    func entries(key: String, wanted: String?) {
        let table = TextTable(octets: octets(Self.text))
        #expect(table.faults.isEmpty)
        #expect(!table.hasUnreadableLine)
        #expect(value(key, Self.text) == wanted)
    }

    @Test(
        "tells which line is wrong, and then knows that any key may be missing",
        arguments: [
            ("ok@example.org x\njoe smith\n", 2), ("  @example.org x\n", 1), ("joe@example..org x\n", 1),
            ("a@b@c x\n", 1),
            ("ok@example.org\n\"joe@example.org x\n", 2), ("@ x\n", 1), ("-x.org y\n", 1),
            ("joe@example.org \(String(repeating: "x", count: 65_537))\n", 1),
        ])
    func unreadable(text: String, line: Int) {
        let table = TextTable(octets: octets(text))
        #expect(table.hasUnreadableLine)
        #expect(table.faults.map(\.line) == [line])
    }

    @Test("takes the first of two entries, and says so")
    func twice() {
        let table = TextTable(octets: octets("joe@example.org a\nJOE@example.org b\n"))
        #expect(table.finding(of: octets("joe@example.org"))?.value == octets("a"))
        #expect(table.faults.map(\.line) == [2])
        #expect(!table.hasUnreadableLine)
    }

    @Test("tells no more than a hundred faults")
    func manyFaults() {
        let table = TextTable(octets: octets(String(repeating: "!\n", count: 1_000)))
        #expect(table.faults.count == TextTable.faultCountMax)
    }

    @Test(
        "is asked with one key for each address",
        arguments: [
            ("Joe@Example.org", "joe@example.org"), ("\"joe\"@example.org", "joe@example.org"),
            ("\"j\\oe\"@example.org", "joe@example.org"), ("\"a b\"@example.org", "\"a b\"@example.org"),
            ("\"a\\\"b\"@example.org", "\"a\\\"b\"@example.org"), ("\"\"@example.org", "\"\"@example.org"),
            ("\"a@b\"@example.org", "\"a@b\"@example.org"), ("@Example.ORG", "@example.org"),
            ("Example.ORG", "example.org"),
        ])
    func keys(word: String, key: String) throws {
        let written = try #require(TableKey.key(octets(word), .none))
        #expect(written == octets(key))
        #expect(TableKey.key(written, .none) == written)
        #expect(written.count <= TableKey.octetCountMax)
    }
}
