// SPDX-License-Identifier: Apache-2.0

import MailTypes

/// The addresses in a header field such as To: (RFC 5322 §3.4): what a program that hands in mail means by
/// "take the recipients from the message".
///
/// Names, comments, groups and folds are passed over; a source route is dropped. An address without a domain is answered as it
/// stands. Nothing is judged here: what is no address is refused by whoever is given it.
package struct AddressList: Sendable {
    /// Each without angle brackets, comments or blanks outside of quotes.
    package private(set) var addresses: [[UInt8]] = []
    /// How many octets of the field there are up to the end of each address that is one word without a domain, in order.
    package private(set) var bareEnds: [Int] = []

    /// Comments in comments beyond this are taken as one; there is no recursion.
    private static let commentDepthMax = 1_000

    /// Reads the body of a field, folded or not.
    package init(_ field: some Collection<UInt8>) {
        var reader = Reader()
        for octet in field { reader.take(octet) }
        reader.endItem()
        self.addresses = reader.addresses
        self.bareEnds = reader.bareEnds
    }

    /// One octet after the other.
    private struct Reader {
        var addresses: [[UInt8]] = []
        var bareEnds: [Int] = []
        /// Octets that were taken, and how many these were at the last octets of the two below.
        private var count = 0
        private var plainEnd = 0
        private var angledEnd = 0
        /// Whether there are several words outside of angle brackets, or blanks between the parts of one.
        private var hasGap = false
        /// What stands outside of angle brackets: an address, or a name.
        private var plain: [UInt8] = []
        /// What stands in angle brackets; nil if there were none.
        private var angled: [UInt8]?
        private var place = Place.outside
        private var commentDepth = 0
        private var isEscaped = false
        /// Where a quoted string, a comment or a literal began.
        private var outer = Place.outside

        private enum Place {
            case outside
            case angle
            case quoted
            case literal
        }

        mutating func take(_ octet: UInt8) {
            self.count += 1
            if self.commentDepth > 0 { return self.takeComment(octet) }
            switch self.place {
            case .quoted:
                if octet == ASCII.space || octet == ASCII.tab { self.unfold() }
                self.append(octet)
                if self.isEscaped {
                    self.isEscaped = false
                } else if octet == ASCII.backslash {
                    self.isEscaped = true
                } else if octet == ASCII.quote {
                    self.place = self.outer
                }
            case .literal:
                if octet == ASCII.space || octet == ASCII.tab { self.unfold() }
                self.append(octet)
                if octet == 0x5D { self.place = self.outer }
            case .outside, .angle: self.takeOpen(octet)
            }
        }

        private mutating func takeComment(_ octet: UInt8) {
            if self.isEscaped {
                self.isEscaped = false
            } else if octet == ASCII.backslash {
                self.isEscaped = true
            } else if octet == 0x28 {
                self.commentDepth = min(self.commentDepth + 1, AddressList.commentDepthMax)
            } else if octet == 0x29 {
                self.commentDepth -= 1
            }
        }

        private mutating func takeOpen(_ octet: UInt8) {
            switch octet {
            case 0x28: self.commentDepth = 1
            case ASCII.quote:
                self.outer = self.place
                self.place = .quoted
                self.append(octet)
            case 0x5B:
                self.outer = self.place
                self.place = .literal
                self.append(octet)
            case ASCII.space, ASCII.tab, ASCII.carriageReturn, ASCII.lineFeed:
                // Between the words of a name; an address has none.
                break
            case 0x3C where self.place == .outside:
                self.place = .angle
                self.angled = []
            case ASCII.greater where self.place == .angle: self.place = .outside
            case 0x2C where self.place == .outside, 0x3B where self.place == .outside: self.endItem()
            case ASCII.colon where self.place == .outside:
                // The name of a group.
                self.plain = []
                self.hasGap = false
            case ASCII.colon:
                // A source route ends here.
                self.angled = []
            default: self.append(octet)
            }
        }

        private mutating func append(_ octet: UInt8) {
            let isAngled = self.place == .angle || self.place != .outside && self.outer == .angle
            if isAngled {
                self.angled?.append(octet)
                self.angledEnd = self.count
            } else {
                if !self.plain.isEmpty, self.plainEnd != self.count - 1 { self.hasGap = true }
                self.plain.append(octet)
                self.plainEnd = self.count
            }
        }

        /// A blank comes: with a line end in front of it, that is a fold, which means nothing (RFC 5322 §3.2.2).
        private mutating func unfold() {
            if self.outer == .angle {
                guard self.angled?.last == ASCII.lineFeed else { return }
                self.angled?.removeLast()
                if self.angled?.last == ASCII.carriageReturn { self.angled?.removeLast() }
            } else {
                guard self.plain.last == ASCII.lineFeed else { return }
                self.plain.removeLast()
                if self.plain.last == ASCII.carriageReturn { self.plain.removeLast() }
            }
        }

        mutating func endItem() {
            let address = self.angled ?? self.plain
            if !address.isEmpty { self.addresses.append(address) }
            let isWord = address.allSatisfy { MailAddress.isAtomText($0) || $0 == ASCII.dot }
            if !address.isEmpty, isWord, self.angled != nil || !self.hasGap {
                self.bareEnds.append(self.angled != nil ? self.angledEnd : self.plainEnd)
            }
            self.hasGap = false
            self.plain = []
            self.angled = nil
            self.place = .outside
            self.outer = .outside
            self.isEscaped = false
        }
    }
}
