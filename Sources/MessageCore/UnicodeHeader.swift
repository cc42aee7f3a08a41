// SPDX-License-Identifier: Apache-2.0

private import MailTypes

/// Looks whether the header of a message that comes in pieces has octets beyond ASCII (RFC 6532 §3): such a message needs a
/// server with SMTPUTF8 (RFC 6531 §3.6).
///
/// It takes the content as the decoder gives it: lines that end with CR LF, cut anywhere. After the header it does
/// nothing more.
package struct UnicodeHeader: Sendable {
    private enum Place: Equatable {
        case atLineStart
        case inLine
        /// A CR at the very start of a line: the empty line, if LF follows.
        case inEmptyLine
        /// Nothing can change any more.
        case done
    }

    private var place: Place = .atLineStart
    /// Whether there was one.
    package private(set) var isFound = false

    package init() {}

    /// Takes the next piece of the content.
    package mutating func receive(_ octets: Span<UInt8>) {
        for index in octets.indices {
            let octet = octets[index]
            switch self.place {
            case .done: return
            case .inEmptyLine where octet == ASCII.lineFeed: self.place = .done
            case .atLineStart where octet == ASCII.carriageReturn: self.place = .inEmptyLine
            case .atLineStart, .inLine, .inEmptyLine:
                self.place = octet == ASCII.lineFeed ? .atLineStart : .inLine
                guard octet >= 0x80 else { continue }
                self.isFound = true
                self.place = .done
            }
        }
    }
}
