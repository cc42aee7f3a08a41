// SPDX-License-Identifier: Apache-2.0

import MessageCore
import Testing

@Suite("Whether a header is ASCII")
struct UnicodeHeaderTests {
    static let messages: [(String, Bool)] = [
        ("", false), ("Subject: x\r\n\r\nü\r\n", false), ("Subject: ü\r\n\r\nx\r\n", true),
        ("Subject: x\r\n ü\r\n", true),
        ("Subject: ü", true), ("\r\nSubject: ü\r\n", false), ("a\r\n\rü\r\n\r\n", true), ("ü: x\r\n\r\n", true),
        ("a: b\r\n\r\n\r\nü", false),
    ]

    @Test("is found out to its end and no further, at every cut", arguments: messages)
    func cuts(text: String, isFound: Bool) {
        let octets = Array(text.utf8)
        for cut in 0...octets.count {
            var header = UnicodeHeader()
            header.receive(Array(octets[..<cut]).span)
            header.receive(Array(octets[cut...]).span)
            #expect(header.isFound == isFound, "cut at \(cut)")
        }
    }
}
