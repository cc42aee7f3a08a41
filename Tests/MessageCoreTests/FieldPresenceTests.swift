// SPDX-License-Identifier: Apache-2.0

import MailTypes
import MessageCore
import Testing

/// What is added to a message, fed in pieces of every length.
private func additions(_ message: String) -> String {
    let octets = Array(message.utf8)
    var results: Set<String> = []
    for length in 1...max(octets.count, 1) {
        var presence = FieldPresence()
        var start = 0
        while start < octets.count {
            let end = min(start + length, octets.count)
            presence.receive(Array(octets[start..<end]).span)
            start = end
        }
        let added = presence.additions(
            date: Timestamp(microseconds: 0), sender: Array("a@example.org".utf8), messageID: Array("1@mx".utf8))
        results.insert(String(decoding: added, as: UTF8.self))
    }
    #expect(results.count == 1, "it depends on the pieces: \(message)")
    return results.first ?? ""
}

private let date = "Date: Thu, 01 Jan 1970 00:00:00 +0000\r\n"
private let from = "From: <a@example.org>\r\n"
private let id = "Message-ID: <1@mx>\r\n"

@Suite struct FieldPresenceTests {
    @Test(
        "What a message lacks is added, and nothing else",
        arguments: [
            ("Date: x\r\nFrom: y\r\nMessage-ID: z\r\n\r\nbody\r\n", ""),
            ("DATE : x\r\nfrom\t: y\r\nmessage-id:z\r\n\r\n", ""),
            ("Subject: x\r\n\r\nDate: in the body\r\n", date + from + id),
            ("Subject: x\r\n From: folded\r\nDated: x\r\n\r\n", date + from + id),
            ("From: x\r\nSubject: y\r\n\r\n", date + id),
            ("\r\nbody\r\n", date + from + id),
            ("", date + from + id),
            ("no header here\r\n", date + from + id + "\r\n"),
            (" blank\r\n", date + from + id + "\r\n"),
            ("a-very-long-name-of-a-field-that-ends-in-date: x\r\n\r\n", date + from + id),
        ])
    func added(_ message: String, _ expected: String) { #expect(additions(message) == expected) }

    @Test("The first line of a mailbox file becomes a field, and the header behind it stays one")
    func mailboxLine() {
        let all: String = date + from + id
        let mark = "X-Mailbox-Line: "
        let cases: [(String, String)] = [
            ("From alice Thu Jan  1 00:00:00 1970\r\nFrom: y\r\n\r\nbody\r\n", date + id + mark),
            (">>From alice\r\n\r\nbody\r\n", all + mark), ("From \r\nSubject: x\r\n\r\n", all + mark),
            ("From : x\r\n\r\n", date + id), ("from alice\r\n\r\nbody\r\n", all + "\r\n"),
            ("Date: x\r\nFrom alice\r\nFrom: y\r\n\r\n", id),
        ]
        for (message, expected) in cases { #expect(additions(message) == expected, "\(message)") }
    }

    @Test("Fields that stand there twice are counted")
    func twice() {
        var presence = FieldPresence()
        presence.receive(Array("From: a\r\nfrom: b\r\n\r\nFrom: c\r\n".utf8).span)
        #expect(presence.count(of: .from) == 2)
    }

    @Test(
        "Whom a message says to be from is read from From: and Sender:, folded or not, and from nowhere else",
        arguments: [
            ("From: a@example.org\r\n\r\nFrom: b@example.org\r\n", "from a@example.org"),
            ("FROM : a@example.org\r\nsender:b@example.org\r\n\r\n", "from a@example.org, sender b@example.org"),
            (
                "Sender: a@b.example\r\nFrom: A\r\n <a@b.example>,\r\n\tc@d.example\r\n",
                "sender a@b.example, from c@d.example"
            ),
            ("Subject: x\r\nFrom: a@b.example\r\nX: y\r\n c@d.example\r\n", "from a@b.example"),
            ("From: a@b.example\r\nno field\r\n , c@d.example\r\n\r\n", "from a@b.example"),
            ("Sender: a@b.example\r\nsender: c@b.example\r\n\r\n", "sender a@b.example, sender c@b.example"),
            ("Resent-From: a@b.example\r\nReply-To: c@d.example\r\n\r\n", ""),
            ("From: a@b.example\r\nSender:\r\n\r\n", "sender unreadable"),
            ("From: somebody\r\n\r\n", "from unreadable"),
            ("From: 1@b.example, 2@b.example, 3@b.example, 4@b.example\r\n\r\n", "from unreadable"),
            ("Sender: 1@b.example, 2@b.example\r\nFrom: 3@b.example, 4@b.example\r\n\r\n", "from unreadable"),
            ("From: \(String(repeating: "x", count: 90)) <a@b.example>\r\n\r\n", "from unreadable"),
        ])
    func authors(_ message: String, _ expected: String) {
        let octets = Array(message.utf8)
        for length in 1...octets.count {
            var presence = FieldPresence(authorOctetCountMax: 100)
            for start in stride(from: 0, to: octets.count, by: length) {
                presence.receive(Array(octets[start..<min(start + length, octets.count)]).span)
            }
            let found =
                switch presence.authors(countMax: 3) {
                case .unreadable(let field): "\(field.rawValue) unreadable"
                case .addresses(let authors):
                    authors.map { "\($0.field.rawValue) \($0.address.text)" }.joined(separator: ", ")
                }
            #expect(found == expected, "in pieces of \(length)")
        }
    }

    @Test("Fields without end are counted and not kept")
    func bounded() {
        var presence = FieldPresence(authorOctetCountMax: 100)
        let field = Array("From:\r\n".utf8)
        for _ in 0..<10_000 { presence.receive(field.span) }
        #expect(presence.count(of: .from) == 10_000)
        #expect(presence.authors(countMax: 3) == .unreadable(.from))
    }
}
