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

    @Test("Fields that stand there twice are counted")
    func twice() {
        var presence = FieldPresence()
        presence.receive(Array("From: a\r\nfrom: b\r\n\r\nFrom: c\r\n".utf8).span)
        #expect(presence.count(of: .from) == 2)
    }
}
