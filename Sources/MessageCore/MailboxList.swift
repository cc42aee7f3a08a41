// SPDX-License-Identifier: Apache-2.0

package import MailTypes

/// The mailboxes of a field such as From: or Sender:, where it matters that everybody reads the same ones.
///
/// It is the grammar of RFC 5322 §3.4 without what is obsolete: a name is words, an address has neither blanks nor comments
/// in it, and nothing stands behind an angle bracket but comments. Of groups there are none. A field beyond that could
/// be read by a mail program as another address than by us; `AddressList` is for fields where that does no harm.
package struct MailboxList: Sendable {
    /// In their order, repetitions included; one at least.
    package let addresses: [MailAddress]

    /// Reads the body of a field, folded or not; nil if it is not a list of mailboxes from the first to the last octet, or
    /// one of more than `countMax`.
    package init?(_ body: [UInt8], countMax: Int) {
        var reader = Reader(body)
        var addresses: [MailAddress] = []
        var item: [Token] = []
        while true {
            guard let token = reader.next() else { return nil }
            guard token.kind == .end || token.isMark(0x2C) else {
                item.append(token)
                continue
            }
            // Empty places between commas are obsolete, and mean nothing to anybody.
            if !item.isEmpty {
                guard addresses.count < countMax, let address = Self.mailbox(item[...]) else { return nil }
                addresses.append(address)
                item.removeAll(keepingCapacity: true)
            }
            if token.kind == .end { break }
        }
        guard !addresses.isEmpty else { return nil }
        self.addresses = addresses
    }

    private static func mailbox(_ tokens: ArraySlice<Token>) -> MailAddress? {
        guard tokens.last?.isMark(ASCII.greater) == true else { return Self.address(tokens) }
        guard let open = tokens.firstIndex(where: { $0.isMark(ASCII.less) }) else { return nil }
        // A dot in a name is obsolete too, but `J. Doe` is everywhere.
        let isName = tokens[..<open].allSatisfy { $0.kind == .word || $0.kind == .quoted || $0.isMark(ASCII.dot) }
        return isName ? Self.address(tokens[(open + 1)...].dropLast()) : nil
    }

    private static func address(_ tokens: ArraySlice<Token>) -> MailAddress? {
        // Apart from each other, two words are an address to us and two things to somebody else.
        guard tokens.dropFirst().allSatisfy({ !$0.isApart }) else { return nil }
        let isAddress = tokens.allSatisfy {
            switch $0.kind {
            case .word, .quoted, .literal: true
            case .mark: $0.isMark(ASCII.dot) || $0.isMark(ASCII.at)
            case .end: false
            }
        }
        return isAddress ? MailAddress(octets: Array(tokens.map(\.octets).joined()), alphabet: .unicode) : nil
    }

    private struct Token {
        enum Kind {
            case word
            case quoted
            case literal
            /// One octet that is none of the others.
            case mark
            case end
        }

        let kind: Kind
        let octets: ArraySlice<UInt8>
        /// Whether blanks or comments stand before it.
        let isApart: Bool

        func isMark(_ octet: UInt8) -> Bool { self.kind == .mark && self.octets.first == octet }
    }

    private struct Reader {
        private let octets: [UInt8]
        private var index = 0

        init(_ octets: [UInt8]) { self.octets = octets }

        /// Nil for what is no token: a control character, or something that is not closed.
        mutating func next() -> Token? {
            let before = self.index
            guard self.skip() else { return nil }
            let isApart = self.index > before
            let start = self.index
            guard start < self.octets.count else { return Token(kind: .end, octets: [], isApart: isApart) }
            guard let kind = self.take(self.octets[start]) else { return nil }
            return Token(kind: kind, octets: self.octets[start..<self.index], isApart: isApart)
        }

        private mutating func take(_ first: UInt8) -> Token.Kind? {
            switch first {
            case ASCII.quote: return self.takeThrough(ASCII.quote) ? .quoted : nil
            case 0x5B: return self.takeThrough(0x5D) ? .literal : nil
            case ASCII.less, ASCII.greater, ASCII.at, ASCII.dot, ASCII.colon, 0x2C, 0x3B:
                self.index += 1
                return .mark
            default:
                let start = self.index
                while self.index < self.octets.count, Self.isWord(self.octets[self.index]) { self.index += 1 }
                return self.index > start ? .word : nil
            }
        }

        /// Atoms, and text beyond ASCII (RFC 6532 §3.2).
        private static func isWord(_ octet: UInt8) -> Bool {
            switch octet {
            case 0x00...0x20, 0x7F: false
            case 0x28, 0x29, 0x3C, 0x3E, 0x5B, 0x5D, 0x3A, 0x3B, 0x40, 0x5C, 0x2C, 0x2E, 0x22: false
            default: true
            }
        }

        private mutating func takeThrough(_ end: UInt8) -> Bool {
            self.index += 1
            while self.index < self.octets.count {
                let octet = self.octets[self.index]
                self.index += octet == ASCII.backslash ? 2 : 1
                if octet == end { return true }
            }
            return false
        }

        /// Past blanks, folds and comments; false if a comment does not end.
        private mutating func skip() -> Bool {
            var depth = 0
            while self.index < self.octets.count {
                switch self.octets[self.index] {
                case ASCII.backslash where depth > 0: self.index += 1
                case 0x28: depth += 1
                case 0x29 where depth > 0: depth -= 1
                case ASCII.space, ASCII.tab, ASCII.carriageReturn, ASCII.lineFeed: break
                default: if depth == 0 { return true }
                }
                self.index += 1
            }
            return depth == 0
        }
    }
}
