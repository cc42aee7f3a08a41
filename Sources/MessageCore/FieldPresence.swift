// SPDX-License-Identifier: Apache-2.0

package import MailTypes

/// Which of the fields that every message has to have (RFC 5322 §3.6) are in the header of one that comes in pieces, and
/// whom it says to be from.
///
/// It takes the content as the decoder gives it: lines that end with CR LF, cut anywhere. After the header it does
/// nothing more.
package struct FieldPresence: Sendable {
    /// A field that a server for submission looks for. All but `sender` it adds if they are missing (RFC 6409 §8).
    package enum Field: String, CaseIterable, Sendable {
        case date
        case from
        case messageID = "message-id"
        case sender
    }

    /// Whom a message says to be from: the authors in From:, and who has sent it for them in Sender: (RFC 5322 §3.6.2).
    package enum Authors: Equatable, Sendable {
        /// Each address once, in the order of the header.
        case addresses([Author])
        /// A field that is not a list of mailboxes, or one that is too long.
        case unreadable(Field)
    }

    package struct Author: Hashable, Sendable {
        package let field: Field
        package let address: MailAddress
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

    /// Whether the first line is the `From ` of a mailbox file (RFC 4155), or one quoted by `>`: no field, but no body either.
    package private(set) var isMailboxLine = false
    /// The octets of `From ` that the first line has so far; nil once it has others.
    private var mailboxMarkCount: Int? = 0
    private static let mailboxMark = Array("From ".utf8)

    /// The octets of From: and Sender: that are kept, together. 0: they are passed over.
    private let authorOctetCountMax: Int
    /// These fields as they came, without the line feeds; empty as long as they are passed over.
    private var authorFields: [(field: Field, body: [UInt8])] = []
    private var authorOctetCount = 0
    /// Whether the line belongs to one of them.
    private var isInAuthorField = false

    private static let nameOctetCountMax = 12

    /// - Parameter authorOctetCountMax: how much of From: and Sender: may be kept for `authors`; 0: it is not asked for.
    package init(authorOctetCountMax: Int = 0) { self.authorOctetCountMax = authorOctetCountMax }

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
                let start = index
                while index < octets.count, octets[index] != ASCII.lineFeed { index += 1 }
                if self.isInAuthorField { self.keep(octets.extracting(start..<index)) }
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
        if isFirstLine { self.matchMailboxMark(octet) }
        switch octet {
        case ASCII.colon where !self.name.isEmpty:
            self.hasLine = true
            while let last = self.name.last, last == ASCII.space || last == ASCII.tab { self.name.removeLast() }
            self.isInAuthorField = false
            for field in Field.allCases where self.name.elementsEqual(field.rawValue.utf8) {
                self.counts[field, default: 0] += 1
                if self.authorOctetCountMax > 0, field == .from || field == .sender { self.beginAuthors(field) }
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
                if self.isInAuthorField { self.keep([octet].span) }
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

    /// Looks whether the message begins with `From `, perhaps quoted.
    private mutating func matchMailboxMark(_ octet: UInt8) {
        guard let count = self.mailboxMarkCount, count < Self.mailboxMark.count else { return }
        if octet == Self.mailboxMark[count] {
            self.mailboxMarkCount = count + 1
        } else if count > 0 || octet != ASCII.greater {
            self.mailboxMarkCount = nil
        }
    }

    private mutating func endWithoutField() {
        if !self.hasLine {
            self.isMailboxLine = self.mailboxMarkCount == Self.mailboxMark.count
            self.isHeaderless = !self.isMailboxLine
        }
        self.hasLine = true
        self.isInAuthorField = false
        self.place = .inLine
    }

    private mutating func beginAuthors(_ field: Field) {
        self.isInAuthorField = true
        // A field takes its room even if it is empty, so that there cannot be many of these either.
        self.authorOctetCount += field.rawValue.utf8.count
        if self.authorOctetCount <= self.authorOctetCountMax { self.authorFields.append((field, [])) }
    }

    /// One octet too many is counted, and no more is kept.
    private mutating func keep(_ octets: Span<UInt8>) {
        guard self.authorOctetCount <= self.authorOctetCountMax, let last = self.authorFields.indices.last else {
            return
        }
        self.authorOctetCount += octets.count
        guard self.authorOctetCount <= self.authorOctetCountMax else { return }
        for index in octets.indices { self.authorFields[last].body.append(octets[index]) }
    }

    /// The addresses in From: and Sender:, once the header has come. None, if there are no such fields.
    ///
    /// - Parameter countMax: a field with more is not read.
    package func authors(countMax: Int) -> Authors {
        guard self.authorOctetCount <= self.authorOctetCountMax else {
            return .unreadable(self.authorFields.last?.field ?? .from)
        }
        var authors: [Author] = []
        var known: Set<MailAddress> = []
        for (field, body) in self.authorFields {
            guard let list = MailboxList(body, countMax: countMax) else { return .unreadable(field) }
            for address in list.addresses where known.insert(address).inserted {
                authors.append(Author(field: field, address: address))
            }
        }
        return authors.count > countMax ? .unreadable(.from) : .addresses(authors)
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
        // Such a line would end the header for whoever reads the message. It becomes a field, as elsewhere.
        if self.isMailboxLine { octets.append(text: "X-Mailbox-Line: ") }
        return octets
    }
}
