// SPDX-License-Identifier: Apache-2.0

package import MailTypes

/// The header of a message that a program of this machine hands in (RFC 6409 §8): what is missing is added, what is
/// nobody else's business is taken out.
package struct OutgoingHeader: Sendable {
    /// Who sends, when, and by which name.
    package struct Author: Sendable {
        /// `user@example.org`, for From: where there is none.
        package var address: [UInt8]
        /// A person's name to go with it; may be empty.
        package var name: [UInt8]
        package var date: Timestamp
        /// What stands in front of the `@` of a Message-ID:, and what behind.
        package var messageID: (left: [UInt8], right: [UInt8])

        package init(address: [UInt8], name: [UInt8], date: Timestamp, messageID: (left: [UInt8], right: [UInt8])) {
            self.address = address
            self.name = name
            self.date = date
            self.messageID = messageID
        }
    }

    /// The fields, with line ends as they came.
    package let octets: [UInt8]
    /// The recipients that the header names: of To:, Cc: and Bcc:, or, if the message is passed on once more, of
    /// Resent-To: and so on alone.
    package let recipients: [[UInt8]]

    private static let removed = ["bcc", "resent-bcc", "return-path"].map { Array($0.utf8) }
    private static let completed = [
        "from", "sender", "reply-to", "to", "cc", "resent-from", "resent-sender", "resent-reply-to", "resent-to",
        "resent-cc",
    ].map { Array($0.utf8) }
    private static let first = ["to", "cc", "bcc"].map { Array($0.utf8) }
    private static let again = ["resent-to", "resent-cc", "resent-bcc"].map { Array($0.utf8) }

    /// - Parameters:
    ///   - header: as the program wrote it.
    ///   - author: nil if nothing is to be added.
    ///   - lineEnd: LF or CR LF, as in the message.
    package init(_ header: HeaderFields, author: Author?, lineEnd: [UInt8]) {
        var kept: [UInt8] = []
        kept.reserveCapacity(header.endOffset + 256)
        var seen: Set<[UInt8]> = []
        var named: [[UInt8]] = []
        var namedAgain: [[UInt8]] = []
        for field in header {
            let name = field.name.lowercasedOctets
            seen.insert(name)
            if Self.first.contains(name) { named += AddressList(field.body).addresses }
            if Self.again.contains(name) { namedAgain += AddressList(field.body).addresses }
            if Self.removed.contains(name) { continue }
            if let author, Self.completed.contains(name) {
                kept += Self.completed(field, domain: author.messageID.right)
            } else {
                kept += field.octets
            }
        }
        if let last = kept.last, last != ASCII.lineFeed { kept += lineEnd }
        let isAgain = seen.contains { $0.starts(with: "resent-".utf8) }
        self.recipients = isAgain ? namedAgain : named
        if let author { kept = Self.additions(author, seen, lineEnd) + kept }
        self.octets = kept
    }

    /// The field with a domain behind each address that has none: elsewhere it would be nobody's, or another's.
    private static func completed(_ field: HeaderFields.Field, domain: [UInt8]) -> [UInt8] {
        let ends = AddressList(field.body).bareEnds
        guard !ends.isEmpty else { return Array(field.octets) }
        var octets: [UInt8] = []
        var rest = field.octets
        for end in ends {
            let index = field.body.startIndex + end
            octets += rest[..<index]
            octets += [ASCII.at] + domain
            rest = rest[index...]
        }
        return octets + rest
    }

    private static func additions(_ author: Author, _ seen: Set<[UInt8]>, _ lineEnd: [UInt8]) -> [UInt8] {
        var octets: [UInt8] = []
        func isMissing(_ name: String) -> Bool { !seen.contains(Array(name.utf8)) }
        if isMissing("date") {
            octets += Array("Date: ".utf8) + MailDate(author.date).octets + lineEnd
        }
        if isMissing("from") {
            octets += Array("From: ".utf8)
            if author.name.isEmpty {
                octets += author.address
            } else {
                octets += Self.phrase(author.name) + Array(" <".utf8) + author.address + [ASCII.greater]
            }
            octets += lineEnd
        }
        if isMissing("message-id") {
            octets += Array("Message-ID: <".utf8) + author.messageID.left + [ASCII.at] + author.messageID.right
            octets += [ASCII.greater] + lineEnd
        }
        return octets
    }

    /// A name as it may stand in a header: in quotes if it is more than plain words, and without control characters.
    private static func phrase(_ name: [UInt8]) -> [UInt8] {
        let printable = name.filter { $0 >= ASCII.space && $0 != 0x7F }
        if printable.allSatisfy({ MailAddress.isAtomText($0) || $0 == ASCII.space || $0 >= 0x80 }) { return printable }
        var octets: [UInt8] = [ASCII.quote]
        for octet in printable {
            if octet == ASCII.quote || octet == ASCII.backslash { octets.append(ASCII.backslash) }
            octets.append(octet)
        }
        octets.append(ASCII.quote)
        return octets
    }
}
