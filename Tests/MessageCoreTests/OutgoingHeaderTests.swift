// SPDX-License-Identifier: Apache-2.0

import MailTypes
import MessageCore
import Testing

@Suite struct AddressListTests {
    @Test(
        "the addresses of RFC 5322 §3.4 are found, names and comments passed over",
        arguments: [
            ("alice@example.org", ["alice@example.org"]),
            ("Alice <alice@example.org>, bob", ["alice@example.org", "bob"]),
            ("\"Smith, Alice\" <alice@example.org>", ["alice@example.org"]),
            ("alice@example.org (Alice, of (the) West)", ["alice@example.org"]),
            ("friends: a@b.example, C <c@d.example>;, e@f.example", ["a@b.example", "c@d.example", "e@f.example"]),
            ("undisclosed-recipients:;", []), ("", []), (" , ,, ", []),
            ("<@relay.example,@other.example:user@example.org>", ["user@example.org"]),
            ("\"a, b\"@example.org", ["\"a, b\"@example.org"]),
            ("user@[IPv6:2001:db8::1]", ["user@[IPv6:2001:db8::1]"]),
            ("X <user@[192.0.2.1]>", ["user@[192.0.2.1]"]),
            ("\r\n\tone@example.org,\r\n two@example.org", ["one@example.org", "two@example.org"]),
            ("\"unclosed <a@b>", ["\"unclosed <a@b>"]), ("(unclosed a@b", []), ("<a@b", ["a@b"]),
            ("\"q\\\"x\" <a@b>", ["a@b"]),
            ("\"a\r\n b\"@example.org, x@[192.0.\r\n 2.1]", ["\"a b\"@example.org", "x@[192.0. 2.1]"]),
            ("\"a\n\tb\" <\"c\n d\"@e>", ["\"c d\"@e"]),
            // No fold: whoever sends it has to refuse it.
            ("\"a\r\nb\"@example.org", ["\"a\r\nb\"@example.org"]),
        ])
    func lists(field: String, addresses: [String]) {
        #expect(AddressList(Array(field.utf8)).addresses.map { String(decoding: $0, as: UTF8.self) } == addresses)
    }
}

@Suite struct OutgoingHeaderTests {
    private static let author = OutgoingHeader.Author(
        address: Array("alice@example.org".utf8), name: Array("Alice \"A\" Smith".utf8),
        date: Timestamp(microseconds: 1_700_000_000_000_000),
        messageID: (Array("77.5".utf8), Array("example.org".utf8)))

    private func header(_ text: String, author: OutgoingHeader.Author? = Self.author) -> OutgoingHeader {
        OutgoingHeader(
            HeaderFields(Array(text.utf8), isWholeMessage: true), author: author, lineEnd: [ASCII.lineFeed])
    }

    @Test("what is missing is added in front, and what is there stays as it was")
    func completion() {
        let bare = self.header("Subject: x\n y\n")
        #expect(
            String(decoding: bare.octets, as: UTF8.self)
                == "Date: Tue, 14 Nov 2023 22:13:20 +0000\nFrom: \"Alice \\\"A\\\" Smith\" <alice@example.org>\n"
                + "Message-ID: <77.5@example.org>\nSubject: x\n y\n")
        let whole = "Date: now\nfrom: me@d\nMESSAGE-ID: <1@2>\nTo: a@b\n"
        #expect(self.header(whole).octets == Array(whole.utf8))
        #expect(self.header("Subject: x", author: nil).octets == Array("Subject: x\n".utf8))
    }

    @Test(
        "an address without a domain gets one, and nothing else is touched",
        arguments: [
            ("From: root (Cron Daemon)", "From: root@example.org (Cron Daemon)"),
            ("To: A <alice>, bob,\n carol@c (x)", "To: A <alice@example.org>, bob@example.org,\n carol@c (x)"),
            ("Cc:list: a, <b>;", "Cc:list: a@example.org, <b@example.org>;"), ("To: two words", "To: two words"),
            ("To: undisclosed-recipients:;", "To: undisclosed-recipients:;"), ("Reply-To: <>", "Reply-To: <>"),
            ("To: \"q q\", a@b", "To: \"q q\", a@b"), ("To: (c) alice ", "To: (c) alice@example.org "),
            ("To: <@relay:user>", "To: <@relay:user@example.org>"), ("X-To: alice", "X-To: alice"),
        ])
    func domains(field: String, wanted: String) {
        let rest = "From: me@d\nDate: now\nMessage-ID: <1@2>\n"
        let isFrom = field.hasPrefix("From")
        let header = self.header((isFrom ? String(rest.dropFirst(11)) : rest) + field + "\n")
        #expect(String(decoding: header.octets, as: UTF8.self).hasSuffix("<1@2>\n\(wanted)\n"))
        let untouched = self.header(field + "\n", author: nil)
        #expect(String(decoding: untouched.octets, as: UTF8.self) == field + "\n")
    }

    @Test("blind copies and a return path are taken out, and the blind are recipients")
    func removal() {
        let header = self.header(
            "To: a@b\nBcc: secret@c,\n other@c\nReturn-Path: <x@y>\nCc: d\nbCC : third@c\n", author: nil)
        #expect(header.octets == Array("To: a@b\nCc: d\n".utf8))
        #expect(
            header.recipients.map { String(decoding: $0, as: UTF8.self) }
                == ["a@b", "secret@c", "other@c", "d", "third@c"])
    }

    @Test("a message that is passed on once more goes to whom it is resent alone")
    func resent() {
        let header = self.header("Resent-To: n@b\nResent-Bcc: m@b\nTo: a@b\nBcc: c@b\n", author: nil)
        #expect(header.recipients == [Array("n@b".utf8), Array("m@b".utf8)])
        #expect(header.octets == Array("Resent-To: n@b\nTo: a@b\n".utf8))
    }

    @Test("a name cannot begin another field")
    func names() {
        var author = Self.author
        author.name = Array("Eve\r\nBcc: all@example.org".utf8)
        let text = String(decoding: self.header("Date: x\nMessage-ID: y\n", author: author).octets, as: UTF8.self)
        #expect(text.hasPrefix("From: \"EveBcc: all@example.org\" <alice@example.org>\n"))
    }
}
