// SPDX-License-Identifier: Apache-2.0
//
// What a sender wishes about reports (RFC 3461): the parameters of MAIL and RCPT, as they travel from the client through
// the queue to the next server.

/// RET: how much of the message a report of its failure returns (RFC 3461 §4.3).
package enum ReturnedContent: UInt8, Hashable, Sendable, CaseIterable {
    case full = 1
    case headers = 2

    /// Reads `FULL` or `HDRS`, in any case of letters.
    package init?(octets: some Collection<UInt8>) {
        guard let value = Self.allCases.first(where: { octets.equalsIgnoringCase($0.octets) }) else { return nil }
        self = value
    }

    package var octets: [UInt8] {
        switch self {
        case .full: Array("FULL".utf8)
        case .headers: Array("HDRS".utf8)
        }
    }
}

/// What MAIL says about reports.
package struct MessageDSN: Hashable, Sendable {
    /// Nil: nothing was said.
    package var returned: ReturnedContent?
    /// ENVID as xtext, as the client gave it (RFC 3461 §4.4); empty: none. At most `envelopeIDOctetCountMax` octets.
    package var envelopeID: [UInt8]

    package static let envelopeIDOctetCountMax = 100

    package init(returned: ReturnedContent? = nil, envelopeID: [UInt8] = []) {
        self.returned = returned
        self.envelopeID = envelopeID
    }

    package var isEmpty: Bool { self.returned == nil && self.envelopeID.isEmpty }

    /// Whether the octets are an ENVID: xtext of printable characters, not too long.
    package static func isEnvelopeID(_ octets: some Collection<UInt8>) -> Bool {
        guard octets.count <= Self.envelopeIDOctetCountMax, let decoded = Xtext.decode(octets) else { return false }
        return !decoded.isEmpty && decoded.allSatisfy(\.isPrintable)
    }
}

/// NOTIFY: of which events the sender wants to hear (RFC 3461 §4.1). The empty set is `NEVER`.
package struct NotifyConditions: OptionSet, Hashable, Sendable {
    package let rawValue: UInt8

    package init(rawValue: UInt8) { self.rawValue = rawValue & 7 }

    package static let success = NotifyConditions(rawValue: 1)
    package static let failure = NotifyConditions(rawValue: 2)
    package static let delay = NotifyConditions(rawValue: 4)
    package static let never: NotifyConditions = []

    private static let words: [(word: [UInt8], condition: NotifyConditions)] = [
        (Array("SUCCESS".utf8), .success), (Array("FAILURE".utf8), .failure), (Array("DELAY".utf8), .delay),
    ]
    private static let neverWord = Array("NEVER".utf8)

    /// Reads `NEVER`, or words of `SUCCESS`, `FAILURE`, `DELAY` with commas between them, in any case of letters.
    package init?(octets: some Collection<UInt8>) {
        if octets.equalsIgnoringCase(Self.neverWord) {
            self = .never
            return
        }
        var conditions: NotifyConditions = []
        for word in octets.split(separator: 0x2C, omittingEmptySubsequences: false) {
            guard let known = Self.words.first(where: { word.equalsIgnoringCase($0.word) }) else { return nil }
            conditions.insert(known.condition)
        }
        guard !conditions.isEmpty else { return nil }
        self = conditions
    }

    package var octets: [UInt8] {
        guard !self.isEmpty else { return Self.neverWord }
        return Array(Self.words.filter { self.contains($0.condition) }.map(\.word).joined(separator: [0x2C]))
    }
}

/// What RCPT says about reports.
package struct RecipientDSN: Hashable, Sendable {
    /// Nil: nothing was said.
    package var notify: NotifyConditions?
    /// ORCPT as the client gave it: a type, `;`, and the address in the coding of the type (RFC 3461 §4.2, RFC 6533 §3);
    /// empty: none. At most `originalRecipientOctetCountMax` octets.
    package var originalRecipient: [UInt8]

    package static let originalRecipientOctetCountMax = 500

    package init(notify: NotifyConditions? = nil, originalRecipient: [UInt8] = []) {
        self.notify = notify
        self.originalRecipient = originalRecipient
    }

    package var isEmpty: Bool { self.notify == nil && self.originalRecipient.isEmpty }

    /// Whether a report is wanted. A sender who says nothing hears of failures and of delays (RFC 3461 §4.1).
    package func wants(_ condition: NotifyConditions) -> Bool {
        (self.notify ?? [.failure, .delay]).contains(condition)
    }

    /// What the copies of a message know that went to several addresses in the place of one: of success the sender hears
    /// once, that it was expanded (RFC 3461 §5.2.7.3).
    package var ofExpansion: RecipientDSN {
        RecipientDSN(notify: self.notify?.subtracting(.success), originalRecipient: self.originalRecipient)
    }

    /// Whether the octets are an ORCPT: a type of letters, digits and hyphens, and an address in its coding.
    package static func isOriginalRecipient(_ octets: some Collection<UInt8>) -> Bool {
        guard octets.count <= Self.originalRecipientOctetCountMax, let parts = Self.parts(octets) else { return false }
        if parts.type.equalsIgnoringCase(Self.unicodeType) { return Xtext.isUnicodeXtext(parts.address) }
        guard let decoded = Xtext.decode(parts.address) else { return false }
        return !decoded.isEmpty && decoded.allSatisfy(\.isPrintable)
    }

    /// The original recipient as a report names it (RFC 3464 §2.3.1): the type, and the address without its coding. That
    /// of an internationalised address stays, as RFC 6533 §3 wants it in a part that is ASCII. Nil: there is none.
    package var reportedOriginal: [UInt8]? {
        guard let parts = Self.parts(self.originalRecipient) else { return nil }
        let isUnicode = parts.type.equalsIgnoringCase(Self.unicodeType)
        guard let address = isUnicode ? parts.address : Xtext.decode(parts.address) else { return nil }
        return parts.type + Array("; ".utf8) + Array(printable: address[...])
    }

    /// The ORCPT of an address that was given without one.
    package static func originalRecipient(of path: ForwardPath) -> [UInt8] {
        let coded = Array("rfc822;".utf8) + Xtext.encode(path.octets)
        return coded.count <= Self.originalRecipientOctetCountMax ? coded : []
    }

    private static let unicodeType = Array("utf-8".utf8)

    private static func parts(_ octets: some Collection<UInt8>) -> (type: [UInt8], address: [UInt8])? {
        let octets = Array(octets)
        guard let place = octets.firstIndex(of: 0x3B), (1...40).contains(place) else { return nil }
        let type = Array(octets[..<place])
        guard type.allSatisfy({ $0.isLetterOrDigit || $0 == ASCII.hyphen }) else { return nil }
        return (type, Array(octets[(place + 1)...]))
    }
}

/// The coding of values that stand behind `=` in a command (RFC 3461 §4): what is no printable character, or is `+` or
/// `=`, is written as `+` and two hexadecimal digits.
package enum Xtext {
    private static let digits = Array("0123456789ABCDEF".utf8)

    package static func encode(_ octets: some Collection<UInt8>) -> [UInt8] {
        var coded: [UInt8] = []
        for octet in octets {
            if (0x21...0x7E).contains(octet), octet != 0x2B, octet != ASCII.equals {
                coded.append(octet)
            } else {
                coded += [0x2B, Self.digits[Int(octet >> 4)], Self.digits[Int(octet & 15)]]
            }
        }
        return coded
    }

    /// Nil if the octets are no xtext.
    package static func decode(_ octets: some Collection<UInt8>) -> [UInt8]? {
        var decoded: [UInt8] = []
        var rest = Array(octets)[...]
        while let octet = rest.popFirst() {
            guard (0x21...0x7E).contains(octet), octet != ASCII.equals else { return nil }
            guard octet == 0x2B else {
                decoded.append(octet)
                continue
            }
            guard let high = rest.popFirst().flatMap(Self.value), let low = rest.popFirst().flatMap(Self.value) else {
                return nil
            }
            decoded.append(high << 4 | low)
        }
        return decoded
    }

    /// Whether the octets are utf-8-addr-xtext (RFC 6533 §3): printable characters, any other one as `\x{HEX}`.
    package static func isUnicodeXtext(_ octets: [UInt8]) -> Bool {
        guard !octets.isEmpty else { return false }
        var rest = octets[...]
        while let octet = rest.popFirst() {
            guard (0x21...0x7E).contains(octet), octet != ASCII.equals, octet != 0x2B else { return false }
            guard octet == ASCII.backslash else { continue }
            guard rest.popFirst() == 0x78, rest.popFirst() == 0x7B, let end = rest.firstIndex(of: 0x7D) else {
                return false
            }
            let number = rest[..<end]
            guard (2...6).contains(number.count) else { return false }
            var scalar: UInt32 = 0
            for digit in number {
                guard let value = Self.value(digit) else { return false }
                scalar = scalar << 4 | UInt32(value)
            }
            // What a control character would do in a report must not be tried.
            guard scalar >= 0x20, scalar != 0x7F, Unicode.Scalar(scalar) != nil else { return false }
            rest = rest[(end + 1)...]
        }
        return true
    }

    /// RFC 3461 has capitals only.
    private static func value(_ digit: UInt8) -> UInt8? {
        switch digit {
        case 0x30...0x39: digit - 0x30
        case 0x41...0x46: digit - 0x41 + 10
        default: nil
        }
    }
}

/// What a report says of a recipient (RFC 3464 §2.3.3).
package enum ReportAction: UInt8, Hashable, Sendable, CaseIterable {
    case failed = 2
    /// Still tried.
    case delayed = 3
    /// In the mailbox.
    case delivered = 4
    /// Handed to a server that sends no reports of success.
    case relayed = 5
    /// Sent on to several addresses.
    case expanded = 6

    package init?(octets: some Collection<UInt8>) {
        guard let action = Self.allCases.first(where: { octets.elementsEqual($0.octets) }) else { return nil }
        self = action
    }

    package var octets: [UInt8] { Array(self.word.utf8) }

    package var word: String {
        switch self {
        case .failed: "failed"
        case .delayed: "delayed"
        case .delivered: "delivered"
        case .relayed: "relayed"
        case .expanded: "expanded"
        }
    }

    /// The kind of outcome that it is said of.
    package var outcomeKind: DeliveryOutcome.Kind {
        switch self {
        case .failed: .failed
        case .delayed: .deferred
        case .delivered, .relayed, .expanded: .delivered
        }
    }
}
