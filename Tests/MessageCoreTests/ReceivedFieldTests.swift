// SPDX-License-Identifier: Apache-2.0

import MailTypes
import MessageCore
import Testing

@Suite("ReceivedField")
struct ReceivedFieldTests {
    private func field(
        helo: String = "client.example", client: IPAddress = .v4(0xC000_0201),
        transport: ReceivedField.Transport = .esmtp,
        recipient: ForwardPath? = nil
    ) -> String {
        let field = ReceivedField(
            helloName: Array(helo.utf8), client: client, hostname: Array("mx.example.org".utf8), transport: transport,
            recipient: recipient, date: Timestamp(microseconds: 1_795_446_231_000_000))
        let id = Array("0642p9hh7nvc0".utf8)
        return String(decoding: field.prefix + id + field.suffix, as: UTF8.self)
    }

    @Test("names the only recipient")
    func oneRecipient() throws {
        let address = try #require(MailAddress(text: "user@example.org"))
        let expected = """
            Received: from client.example ([192.0.2.1])\r
            \tby mx.example.org with ESMTP id 0642p9hh7nvc0\r
            \tfor <user@example.org>; Mon, 23 Nov 2026 15:03:51 +0000\r

            """
        #expect(self.field(recipient: .address(address)) == expected)
    }

    @Test("names nobody if there are several recipients, and says SMTP after HELO")
    func severalRecipients() {
        let expected = """
            Received: from client.example ([192.0.2.1])\r
            \tby mx.example.org with SMTP id 0642p9hh7nvc0; Mon, 23 Nov 2026 15:03:51 +0000\r

            """
        #expect(self.field(transport: .smtp) == expected)
    }

    @Test("marks an IPv6 client as a literal does")
    func clientOfIPv6() throws {
        let client = try #require(IPAddress(text: "2001:db8::1"))
        #expect(self.field(client: client).contains("([IPv6:2001:db8::1])"))
    }

    @Test(
        "stays one well-formed field whatever the client calls itself",
        arguments: [
            ("a(b)c", "a?b?c"), ("x; y", "x??y"), ("<\"@\\,", "?????"), ("a\r\nX: y", "a??X:?y"), ("", "unknown"),
            ("[IPv6:::1]", "[IPv6:::1]"), ("my_pc", "my_pc"), ("\u{e9}", "??"),
        ])
    func strangeHello(name: String, shown: String) {
        #expect(self.field(helo: name).hasPrefix("Received: from \(shown) ([192.0.2.1])\r\n\tby "))
    }

    @Test("fits into the fields of a commit frame at its longest")
    func longest() throws {
        let local = String(repeating: "l", count: 255)
        let domain = Array(repeating: String(repeating: "d", count: 50), count: 5).joined(separator: ".")
        let field = ReceivedField(
            helloName: [UInt8](repeating: 0x61, count: 1_000), client: .v6(.max, .max),
            hostname: Array(domain.utf8), transport: .esmtp,
            recipient: .address(try #require(MailAddress(text: "\(local)@\(domain)"))),
            date: Timestamp(microseconds: .max))
        #expect(field.prefix.count <= 998)
        #expect(field.suffix.count <= 998)
    }
}

@Suite("ReceivedCounter")
struct ReceivedCounterTests {
    private func count(_ text: String, cuts: [Int] = []) -> Int {
        let octets = Array(text.utf8)
        var counter = ReceivedCounter()
        var start = 0
        for end in cuts + [octets.count] {
            counter.receive(octets[start..<end].span)
            start = end
        }
        return counter.count
    }

    private let cases: [(text: String, count: Int)] = [
        ("", 0),
        ("\r\nReceived: body\r\n", 0),
        ("Received: a\r\n\r\n", 1),
        ("received: a\r\n\tfolded\r\nRECEIVED :b\r\nSubject: x\r\n\r\nReceived: c\r\n", 2),
        ("Received-SPF: pass\r\nX-Received: x\r\nReceive: y\r\nReceived\r\nReceived : z\r\n", 1),
        ("Subject: x\r\n Received: folded\r\nReceived:\r\n\r\n", 1),
        ("Rec\r\nReceived: a", 1),
    ]

    @Test("counts the fields of the header and nothing of the body, at every cut")
    func everyCut() {
        for (text, expected) in self.cases {
            let octetCount = text.utf8.count
            #expect(self.count(text) == expected, "whole: \(text.debugDescription)")
            #expect(self.count(text, cuts: Array(0..<octetCount)) == expected, "octets: \(text.debugDescription)")
            for cut in 0...octetCount {
                #expect(self.count(text, cuts: [cut]) == expected, "cut at \(cut): \(text.debugDescription)")
            }
        }
    }

    @Test("fifty are a long way, fifty-one a loop")
    func loop() {
        var counter = ReceivedCounter()
        for number in 1...51 {
            counter.receive(Array("Received: \(number)\r\n".utf8).span)
            #expect(counter.isLoop == (number > 50))
        }
    }
}
