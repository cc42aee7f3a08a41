// SPDX-License-Identifier: Apache-2.0

import MailTypes

/// Finds the line with a dot alone that ends a message on standard input, unless `-i` was given.
///
/// The dot and its line end are no part of the message. Lines end in LF or CR LF.
struct DotEnd {
    /// What of a line that may be the last one has been held back.
    private var held: [UInt8] = []
    private var isLineStart = true
    /// Whether the dot has come; what follows is not looked at.
    private(set) var isEnded = false

    /// Answers what of the message is known to belong to it now.
    mutating func receive(_ octets: some Sequence<UInt8>) -> [UInt8] {
        var content: [UInt8] = []
        for octet in octets where !self.isEnded {
            if !self.held.isEmpty {
                // A dot at the start of a line, perhaps with a CR.
                if octet == ASCII.lineFeed {
                    self.held = []
                    self.isEnded = true
                    continue
                }
                if octet == ASCII.carriageReturn, self.held.count == 1 {
                    self.held.append(octet)
                    continue
                }
                content += self.held
                self.held = []
            } else if self.isLineStart, octet == ASCII.dot {
                self.held = [octet]
                self.isLineStart = false
                continue
            }
            content.append(octet)
            self.isLineStart = octet == ASCII.lineFeed
        }
        return content
    }

    /// The input has ended: a dot without a line end was the last line too.
    mutating func finish() {
        if !self.held.isEmpty { self.isEnded = true }
        self.held = []
    }
}
