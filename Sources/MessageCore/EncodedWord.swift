// SPDX-License-Identifier: Apache-2.0
//
// Text that is not ASCII in header fields (RFC 2047).

import MailTypes

extension Array where Element == UInt8 {
    /// Appends the words of a field without structure, such as `Subject`: as they are if they are printable ASCII, in
    /// encoded words of UTF-8 otherwise, folded between them.
    mutating func append(unstructured text: [UInt8]) {
        guard !text.allSatisfy(\.isPrintable) else { return self += text }
        self.appendEncodedWords(text)
    }

    /// Appends the name in front of an address: as it is if it is a phrase of plain words, otherwise in encoded words.
    mutating func append(phrase text: [UInt8]) {
        let isPlain = text.allSatisfy { $0.isLetterOrDigit || $0 == ASCII.space || $0 == ASCII.hyphen }
        if isPlain { self += text } else { self.appendEncodedWords(text) }
    }

    private mutating func appendEncodedWords(_ text: [UInt8]) {
        // Each word has whole characters (RFC 2047 §5), and with its frame at most 75 octets.
        var words: [[UInt8]] = [[]]
        var character: [UInt8] = []
        func close(_ character: inout [UInt8], _ words: inout [[UInt8]]) {
            if words[words.count - 1].count + character.count > 45 { words.append([]) }
            words[words.count - 1] += character
            character = []
        }
        for octet in text {
            if octet & 0xC0 != 0x80 { close(&character, &words) }
            character.append(octet)
        }
        close(&character, &words)
        for (index, word) in words.enumerated() {
            if index > 0 { self.append(text: "\r\n ") }
            self.append(text: "=?utf-8?B?")
            self += Base64.encode(word)
            self.append(text: "?=")
        }
    }
}
