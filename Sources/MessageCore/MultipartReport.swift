// SPDX-License-Identifier: Apache-2.0

import MailTypes

/// A `multipart/report` message (RFC 6522): three parts between boundaries that occur in none of them.
///
/// Every part comes out as 7-bit text with lines of at most 998 octets, unless it may be 8-bit (in a report that only
/// servers with SMTPUTF8 are given). A part that has anything else in it, as the
/// header of a message may, is written as quoted-printable (RFC 2045 §6.7; RFC 6522 §4 allows it for headers): a
/// report must be deliverable to every server, as nobody is told if it is not. Only a whole message that somebody wants
/// back stays as it is, as no coding is allowed for it.
package struct MultipartReport: Sendable {
    /// One part. Its body ends in CR LF, or is empty.
    package struct Part: Sendable {
        package let contentType: String
        package let description: String
        package let body: [UInt8]
        /// Whether it may be written in a coding; otherwise `isLines` must hold for it.
        package let mayBeEncoded: Bool
        /// Whether it may be 8-bit text, which goes without a coding then.
        package let mayBeEightBit: Bool

        package init(
            contentType: String, description: String, body: [UInt8], mayBeEncoded: Bool = true,
            mayBeEightBit: Bool = false
        ) {
            self.mayBeEncoded = mayBeEncoded
            self.mayBeEightBit = mayBeEightBit
            self.contentType = contentType
            self.description = description
            self.body = body
        }
    }

    private let reportType: String
    private let parts: [(part: Part, isEncoded: Bool, body: [UInt8])]
    private let salt: UInt64

    /// - Parameters:
    ///   - reportType: the kind of report, for the parameter of that name, such as `delivery-status`.
    ///   - salt: any number that a sender cannot foresee: it keeps the search for a boundary short.
    package init(reportType: String, parts: [Part], salt: UInt64) {
        self.reportType = reportType
        self.parts = parts.map { part in
            Self.isPlain(part.body) || !part.mayBeEncoded || part.mayBeEightBit && Self.isLines(part.body)
                ? (part, false, part.body) : (part, true, Self.quotedPrintable(part.body))
        }
        self.salt = salt
    }

    /// The message: the given header fields (complete lines), those of MIME, and the parts.
    package func message(fields: [UInt8]) -> [UInt8] {
        let boundary = self.boundary
        var message = fields
        message.append(text: "MIME-Version: 1.0\r\nContent-Type: multipart/report; report-type=")
        message.append(text: self.reportType)
        message.append(text: ";\r\n boundary=\"")
        message += boundary
        message.append(text: "\"\r\n")
        if self.parts.contains(where: { Self.isEightBit($0.body) }) {
            message.append(text: "Content-Transfer-Encoding: 8bit\r\n")
        }
        message.append(text: "\r\nThis is a report in the format of MIME.\r\n")
        for (part, isEncoded, body) in self.parts {
            message.append(text: "\r\n--")
            message += boundary
            message.append(text: "\r\nContent-Type: ")
            message.append(text: part.contentType)
            message.append(text: "\r\nContent-Description: ")
            message.append(text: part.description)
            if isEncoded {
                message.append(text: "\r\nContent-Transfer-Encoding: quoted-printable")
            } else if Self.isEightBit(body) {
                message.append(text: "\r\nContent-Transfer-Encoding: 8bit")
            }
            message.append(text: "\r\n\r\n")
            message += body
        }
        message.append(text: "\r\n--")
        message += boundary
        message.append(text: "--\r\n")
        return message
    }

    /// The first of the boundaries made from the salt that occurs in no part. There are more of them than a part
    /// can hold, so that the search ends.
    private var boundary: [UInt8] {
        var number = self.salt
        while true {
            var boundary = Array("=_apus-".utf8)
            boundary += MessageID(rawValue: number).octets
            if !self.parts.contains(where: { Self.contains($0.body, boundary) }) { return boundary }
            number &+= 1
        }
    }

    private static func contains(_ body: [UInt8], _ word: [UInt8]) -> Bool {
        guard let first = word.first, body.count >= word.count else { return false }
        return (0...(body.count - word.count)).contains { start in
            body[start] == first && body[start..<(start + word.count)].elementsEqual(word)
        }
    }

    /// Whether the body can stand as it is (RFC 2045 §2.7): ASCII without NUL, CR and LF only together,
    /// lines of at most 998 octets.
    static func isPlain(_ body: [UInt8]) -> Bool { !Self.isEightBit(body) && Self.isLines(body) }

    private static func isEightBit(_ body: [UInt8]) -> Bool { body.contains { $0 >= 0x80 } }

    /// Whether the body is 8-bit text (RFC 2045 §2.8): no NUL, CR and LF only together, lines of at most 998 octets.
    static func isLines(_ body: [UInt8]) -> Bool {
        var column = 0
        var index = 0
        while index < body.count {
            switch body[index] {
            case ASCII.carriageReturn:
                guard index + 1 < body.count, body[index + 1] == ASCII.lineFeed else { return false }
                column = 0
                index += 1
            case ASCII.nul, ASCII.lineFeed:
                return false
            default:
                column += 1
                guard column <= 998 else { return false }
            }
            index += 1
        }
        return true
    }

    /// RFC 2045 §6.7, with soft line breaks so that no line is longer than 76 octets.
    static func quotedPrintable(_ body: [UInt8]) -> [UInt8] {
        let digits = Array("0123456789ABCDEF".utf8)
        var encoded: [UInt8] = []
        encoded.reserveCapacity(body.count + body.count / 4)
        var column = 0
        var index = 0
        while index < body.count {
            let octet = body[index]
            index += 1
            let isLineEnd = octet == ASCII.carriageReturn && index < body.count && body[index] == ASCII.lineFeed
            if isLineEnd {
                encoded.append(text: "\r\n")
                column = 0
                index += 1
                continue
            }
            // Rule 3: white space at the end of a line is encoded; here, the one before CR.
            let isBeforeEnd = index == body.count || body[index] == ASCII.carriageReturn
            let isBlank = octet == ASCII.space || octet == ASCII.tab
            let isLiteral =
                (octet.isPrintable && octet != ASCII.equals || octet == ASCII.tab) && !(isBlank && isBeforeEnd)
            let width = isLiteral ? 1 : 3
            if column + width > 75 {
                encoded.append(text: "=\r\n")
                column = 0
            }
            if isLiteral {
                encoded.append(octet)
            } else {
                encoded += [ASCII.equals, digits[Int(octet >> 4)], digits[Int(octet & 15)]]
            }
            column += width
        }
        return encoded
    }
}
