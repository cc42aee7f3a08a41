// SPDX-License-Identifier: Apache-2.0

package import MailTypes

/// Which of the fields that every message has to have (RFC 5322 §3.6) are in the header of one that comes in pieces.
///
/// It takes the content as the decoder gives it: lines that end with CR LF, cut anywhere. After the header it does
/// nothing more.
package struct FieldPresence: Sendable {
    /// A field that a server for submission adds if it is missing (RFC 6409 §8).
    package enum Field: String, CaseIterable, Sendable {
        case date
        case from
        case messageID = "message-id"
    }

    private enum Place: Equatable {
        /// The name of a field, or what seems to be one, has begun.
        case inName
        case inLine
        /// A CR at the very start of a line: the empty line, if LF follows.
        case inEmptyLine
        case pastHeader
    }

    private var place: Place = .inName
    private var name: [UInt8] = []
    private var counts: [Field: Int] = [:]
    private var hasLine = false
    /// Whether the first line is neither a field nor the empty line: a body without a header.
    package private(set) var isHeaderless = false

    private static let nameOctetCountMax = 12

    package init() {}

    package func count(of field: Field) -> Int { self.counts[field] ?? 0 }

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
                self.place = .inName
                self.name.removeAll(keepingCapacity: true)
            case .inEmptyLine:
                self.place = octet == ASCII.lineFeed ? .pastHeader : .inLine
            case .inName:
                self.takeName(octet)
            }
            index += 1
        }
    }

    private mutating func takeName(_ octet: UInt8) {
        let isFirstLine = !self.hasLine
        switch octet {
        case ASCII.colon where !self.name.isEmpty:
            self.hasLine = true
            while let last = self.name.last, last == ASCII.space || last == ASCII.tab { self.name.removeLast() }
            for field in Field.allCases where self.name.elementsEqual(field.rawValue.utf8) {
                self.counts[field, default: 0] += 1
            }
            self.place = .inLine
        case ASCII.carriageReturn where self.name.isEmpty:
            self.hasLine = true
            self.place = .inEmptyLine
        case ASCII.space, ASCII.tab:
            // The continuation of a field, if there was one; or obsolete blanks in front of the colon.
            if self.name.isEmpty {
                self.isHeaderless = self.isHeaderless || isFirstLine
                self.hasLine = true
                self.place = .inLine
            } else {
                self.append(octet)
            }
        case 0x21...0x7E where octet != ASCII.colon:
            guard self.name.last != ASCII.space, self.name.last != ASCII.tab else { return self.endWithoutField() }
            self.append(octet.lowercased)
        default:
            self.endWithoutField()
            if octet == ASCII.lineFeed {
                self.place = .inName
                self.name.removeAll(keepingCapacity: true)
            }
        }
    }

    private mutating func endWithoutField() {
        if !self.hasLine { self.isHeaderless = true }
        self.hasLine = true
        self.place = .inLine
    }

    /// A name that is longer than those that are looked for is none of them; its end need not be kept.
    private mutating func append(_ octet: UInt8) {
        if self.name.count <= Self.nameOctetCountMax { self.name.append(octet) }
    }

    /// What is to stand in front of the message so that it has what it must have; empty if it lacks nothing.
    ///
    /// - Parameters:
    ///   - sender: for From:; nil if nobody is known.
    ///   - messageID: `left@right`.
    package func additions(date: Timestamp, sender: [UInt8]?, messageID: [UInt8]) -> [UInt8] {
        var octets: [UInt8] = []
        func add(_ name: StaticString, _ body: [UInt8]) {
            octets.append(text: name)
            octets.append(text: ": ")
            octets += body
            octets += [ASCII.carriageReturn, ASCII.lineFeed]
        }
        if self.count(of: .date) == 0 { add("Date", MailDate(date).octets) }
        if self.count(of: .from) == 0, let sender { add("From", [ASCII.less] + sender + [ASCII.greater]) }
        if self.count(of: .messageID) == 0 { add("Message-ID", [ASCII.less] + messageID + [ASCII.greater]) }
        // Without an empty line the body would be taken for more of the header.
        if self.isHeaderless { octets += [ASCII.carriageReturn, ASCII.lineFeed] }
        return octets
    }
}
