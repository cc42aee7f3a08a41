// SPDX-License-Identifier: Apache-2.0

import MailTypes
import MessageCore
import Testing

@Suite struct MailboxListTests {
    @Test(
        "What every mail program reads alike is read",
        arguments: [
            ("a@b.example", ["a@b.example"]),
            (" <a@b.example> ", ["a@b.example"]),
            ("Ann <a@b.example>", ["a@b.example"]),
            ("Ann B. Cee\r\n <a@b.example>", ["a@b.example"]),
            (#""Cee, Ann \"<x@y.example>\"" <a@b.example> (at work (not at home))"#, ["a@b.example"]),
            ("(Ann) a@b.example (Ann)", ["a@b.example"]),
            ("(\\) x@y.example) a@b.example", ["a@b.example"]),
            ("a@b.example, Bob <b@c.example>,, ", ["a@b.example", "b@c.example"]),
            ("Zoë =?utf-8?q?Fo=C3=A9?= < a@b.example >", ["a@b.example"]),
            (#""a b"@c.example"#, [#""a b"@c.example"#]),
            ("<\"a>\"@[192.0.2.1]>", [#""a>"@[192.0.2.1]"#]),
        ])
    func read(_ text: String, _ expected: [String]) {
        #expect(MailboxList(Array(text.utf8), countMax: 2)?.addresses.map(\.text) == expected)
    }

    @Test(
        "What somebody could read as another address is not read",
        arguments: [
            "", " ", ",", "(a@b.example)", "Ann", "a@", "@b.example", "a@b.example c@d.example", "x a@b.example",
            "x(y)a@b.example", "x .a@b.example", "a@b .example", "a @b.example", "a@b.example <c@d.example>",
            "<a@b.example> c@d.example", "<a@b.example> <c@d.example>", "<a@b.example> \"c\"", "<a@b.example",
            "a@b.example>", "<<a@b.example>>", "<@x.example:a@b.example>", "Team: a@b.example;", "a@b.example;",
            "\"x <a@b.example>", "(x <a@b.example>", "x) <a@b.example>", "Ann \\<x@y.example> <a@b.example>",
            "[c@d.example] <a@b.example>", "a@[192.0.2.1", "\"a\"b@c.example", "a\u{0}@b.example", "a@b.example\u{7F}",
            "a@b.example, ceo", "<a@b.example, c@d.example>", "\"x\\", "<>",
        ])
    func refused(_ text: String) { #expect(MailboxList(Array(text.utf8), countMax: 9) == nil) }

    @Test("Only so many are read")
    func count() {
        let two = Array("a@b.example, a@b.example".utf8)
        #expect(MailboxList(two, countMax: 2)?.addresses.count == 2)
        #expect(MailboxList(two, countMax: 1) == nil)
    }
}
