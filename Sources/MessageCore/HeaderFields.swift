// SPDX-License-Identifier: Apache-2.0

import MailTypes

/// The header at the beginning of a message, in memory, field by field (RFC 5322 §2.2).
///
/// It is made for mail as it comes, not as it should be: a line that is neither a field nor the continuation of one
/// ends the header (the body began without an empty line), white space before the colon is tolerated, a lone line
/// feed ends a line as CR LF does, and octets that are not ASCII are passed on as they are. Nothing is decoded.
///
/// The work is linear in the octets that are handed in, and these are the caller's bound.
package struct HeaderFields: Sequence, Sendable {
    /// What was handed in: the beginning of a message, or the whole.
    package let octets: [UInt8]
    /// Where the last complete field ends; the empty line is not part of it.
    package let endOffset: Int
    /// Where the body begins, past the empty line if there is one. Nil if the header goes on beyond `octets`.
    package let bodyOffset: Int?

    /// Finds the end of the header.
    ///
    /// - Parameter isWholeMessage: whether `octets` is the message to its end, so that its last line is complete.
    ///   Otherwise a field that reaches the end of `octets` is left out, as its rest is not there.
    package init(_ octets: [UInt8], isWholeMessage: Bool) {
        self.octets = octets
        var index = 0
        /// Where the field starts that the line before belongs to.
        var fieldStart: Int?
        while index < octets.count {
            guard let lineEnd = Self.lineEnd(octets, from: index) ?? (isWholeMessage ? octets.count : nil) else {
                break
            }
            switch Self.kind(ofLine: octets[index..<lineEnd], isFirst: index == 0) {
            case .field:
                fieldStart = index
            case .continuation where fieldStart != nil:
                break
            case .envelope:
                break
            case .empty:
                self.endOffset = index
                self.bodyOffset = lineEnd
                return
            case .continuation, .other:
                self.endOffset = index
                self.bodyOffset = index
                return
            }
            index = lineEnd
        }
        self.endOffset = isWholeMessage ? octets.count : fieldStart ?? 0
        self.bodyOffset = isWholeMessage ? octets.count : nil
    }

    /// One field.
    package struct Field: Sendable {
        /// As it stands there, without the colon and white space before it.
        package let name: ArraySlice<UInt8>
        /// The whole field with its line ends.
        package let octets: ArraySlice<UInt8>
        /// What follows the colon, folded as it is.
        package let body: ArraySlice<UInt8>

        /// Whether the field has this name, in any case of letters.
        package func isNamed(_ name: [UInt8]) -> Bool { self.name.equalsIgnoringCase(name) }

        /// The body on one line (RFC 5322 §2.2.3), without white space around it.
        package var value: [UInt8] {
            var value: [UInt8] = []
            value.reserveCapacity(self.body.count)
            for octet in self.body where octet != ASCII.carriageReturn && octet != ASCII.lineFeed {
                if value.isEmpty, octet == ASCII.space || octet == ASCII.tab { continue }
                value.append(octet)
            }
            while let last = value.last, last == ASCII.space || last == ASCII.tab { value.removeLast() }
            return value
        }
    }

    /// Walks the fields from the first to the last.
    package struct Iterator: IteratorProtocol {
        private let octets: [UInt8]
        private let endOffset: Int
        private var index = 0

        fileprivate init(_ octets: [UInt8], endOffset: Int) {
            self.octets = octets
            self.endOffset = endOffset
        }

        package mutating func next() -> Field? {
            while self.index < self.endOffset {
                let start = self.index
                self.index = self.lineEnd(from: start)
                guard let colon = HeaderFields.colon(ofLine: self.octets[start..<self.index]) else {
                    // The envelope line of a mailbox file, before the first field.
                    continue
                }
                while self.index < self.endOffset, HeaderFields.isBlank(self.octets[self.index]) {
                    self.index = self.lineEnd(from: self.index)
                }
                var nameEnd = colon
                while nameEnd > start, HeaderFields.isBlank(self.octets[nameEnd - 1]) { nameEnd -= 1 }
                return Field(
                    name: self.octets[start..<nameEnd], octets: self.octets[start..<self.index],
                    body: self.octets[(colon + 1)..<self.index])
            }
            return nil
        }

        private func lineEnd(from start: Int) -> Int {
            HeaderFields.lineEnd(self.octets, from: start) ?? self.octets.count
        }
    }

    package func makeIterator() -> Iterator { Iterator(self.octets, endOffset: self.endOffset) }

    /// The unfolded value of the first field of that name, or nil if there is none.
    package func value(of name: StaticString) -> [UInt8]? {
        let name = Array(name.description.utf8)
        for field in self where field.isNamed(name) { return field.value }
        return nil
    }

    // MARK: Lines

    private enum LineKind {
        case field
        case continuation
        /// `From ` of a mailbox file (RFC 4155), or one quoted by `>`; only as the first line.
        case envelope
        case empty
        case other
    }

    private static func kind(ofLine line: ArraySlice<UInt8>, isFirst: Bool) -> LineKind {
        guard let first = line.first else { return .empty }
        if first == ASCII.lineFeed || line.elementsEqual([ASCII.carriageReturn, ASCII.lineFeed]) { return .empty }
        if Self.isBlank(first) { return .continuation }
        if Self.colon(ofLine: line) != nil { return .field }
        let isEnvelope = line.starts(with: Self.envelopeWord) || line.starts(with: [ASCII.greater] + Self.envelopeWord)
        return isFirst && isEnvelope ? .envelope : .other
    }

    private static let envelopeWord: [UInt8] = Array("From ".utf8)

    /// Where the colon is that ends the name of the field on this line; nil if no field begins there.
    fileprivate static func colon(ofLine line: ArraySlice<UInt8>) -> Int? {
        var isNameEnded = false
        for index in line.indices {
            let octet = line[index]
            if octet == ASCII.colon { return index > line.startIndex ? index : nil }
            if Self.isBlank(octet) {
                guard index > line.startIndex else { return nil }
                isNameEnded = true
            } else if isNameEnded || octet <= ASCII.space || octet >= 0x7F {
                return nil
            }
        }
        return nil
    }

    /// Past the line feed that ends the line from `start` on; nil if none does.
    fileprivate static func lineEnd(_ octets: [UInt8], from start: Int) -> Int? {
        var index = start
        while index < octets.count {
            if octets[index] == ASCII.lineFeed { return index + 1 }
            index += 1
        }
        return nil
    }

    fileprivate static func isBlank(_ octet: UInt8) -> Bool { octet == ASCII.space || octet == ASCII.tab }
}
