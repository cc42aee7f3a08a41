// SPDX-License-Identifier: Apache-2.0

private import MailTypes

/// Counts the `Received:` fields of a message that comes in pieces, to find a mail loop (RFC 5321 §6.3).
///
/// It takes the content as the decoder gives it: lines that end with CR LF, cut anywhere. After the empty
/// line that ends the header it does nothing more, so that a large body costs nothing.
package struct ReceivedCounter: Sendable {
    /// Fields seen so far.
    package private(set) var count = 0

    /// More fields than these are a loop.
    package static let countMax = 50

    package var isLoop: Bool { self.count > Self.countMax }

    private enum Place: Equatable {
        /// So many octets of this line have agreed with the name.
        case matching(Int)
        /// The name is complete; blanks before the colon are obsolete syntax (RFC 5322 §4.5) and still seen.
        case named
        /// Whatever this line still says does not matter.
        case inLine
        /// A CR at the very start of a line: the empty line, if LF follows.
        case inEmptyLine
        case pastHeader
    }

    private var place: Place = .matching(0)

    private static let name: [UInt8] = Array("received".utf8)

    package init() {}

    /// Takes the next piece of the content.
    package mutating func receive(_ octets: Span<UInt8>) {
        var index = 0
        while index < octets.count {
            let octet = octets[index]
            switch self.place {
            case .pastHeader:
                return
            case .inLine:
                while index < octets.count, octets[index] != ASCII.lineFeed { index += 1 }
                guard index < octets.count else { return }
                self.place = .matching(0)
            case .inEmptyLine:
                self.place = octet == ASCII.lineFeed ? .pastHeader : .inLine
            case .named:
                if octet == ASCII.colon {
                    self.count += 1
                    self.place = .inLine
                } else if octet == ASCII.lineFeed {
                    self.place = .matching(0)
                } else if octet != ASCII.space, octet != ASCII.tab {
                    self.place = .inLine
                }
            case .matching(let matched):
                if octet.lowercased == Self.name[matched] {
                    self.place = matched + 1 == Self.name.count ? .named : .matching(matched + 1)
                } else if octet == ASCII.lineFeed {
                    self.place = .matching(0)
                } else {
                    self.place = matched == 0 && octet == ASCII.carriageReturn ? .inEmptyLine : .inLine
                }
            }
            index += 1
        }
    }
}
