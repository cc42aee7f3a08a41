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
    ///
    /// - Parameter allowsUnicode: whether an address of the type `utf-8` may be UTF-8 itself (RFC 6533 §3,
    ///   utf-8-addr-unitext): with SMTPUTF8 alone, and never between our programs (`asciiOriginalRecipient`).
    package static func isOriginalRecipient(_ octets: some Collection<UInt8>, allowsUnicode: Bool = false) -> Bool {
        guard octets.count <= Self.originalRecipientOctetCountMax, let parts = Self.parts(octets) else { return false }
        if parts.type.equalsIgnoringCase(Self.unicodeType) {
            return Xtext.isUnicodeXtext(parts.address, allowsUnicode: allowsUnicode)
        }
        guard let decoded = Xtext.decode(parts.address) else { return false }
        return !decoded.isEmpty && decoded.allSatisfy(\.isPrintable)
    }

    /// The original recipient as a report names it (RFC 3464 §2.3.1): the type, and the address without its coding. Nil:
    /// there is none.
    ///
    /// - Parameter isCoded: whether that of an internationalised address stays, as RFC 6533 §3 wants it in a part that is
    ///   ASCII.
    package func reportedOriginal(isCoded: Bool) -> [UInt8]? {
        guard let parts = Self.parts(self.originalRecipient) else { return nil }
        guard parts.type.equalsIgnoringCase(Self.unicodeType) else {
            guard let address = Xtext.decode(parts.address) else { return nil }
            return parts.type + Array("; ".utf8) + Array(printable: address[...])
        }
        let address = isCoded ? parts.address : Xtext.decodeUnicode(parts.address)
        return address.map { parts.type + Array("; ".utf8) + $0 }
    }

    /// The original recipient as an address; nil if there is none, or it is none of mail.
    package var originalPath: ForwardPath? {
        guard let parts = Self.parts(self.originalRecipient) else { return nil }
        let isUnicode = parts.type.equalsIgnoringCase(Self.unicodeType)
        guard isUnicode || parts.type.equalsIgnoringCase(Array("rfc822".utf8)),
            let address = isUnicode ? Xtext.decodeUnicode(parts.address) : Xtext.decode(parts.address)
        else { return nil }
        return ForwardPath(octets: address, alphabet: isUnicode ? .unicodeLocalPart : .ascii)
    }

    /// The same ORCPT in ASCII, whose octets are kept and passed on; nil if that is too long.
    package static func asciiOriginalRecipient(_ octets: [UInt8]) -> [UInt8]? {
        if octets.isASCII { return octets }
        var coded: [UInt8] = []
        for scalar in String(decoding: octets, as: UTF8.self).unicodeScalars {
            if scalar.isASCII { coded.append(UInt8(scalar.value)) } else { Xtext.append(scalar, to: &coded) }
        }
        return coded.count <= Self.originalRecipientOctetCountMax ? coded : nil
    }

    /// The ORCPT of an address that was given without one; empty if it is too long.
    package static func originalRecipient(of path: ForwardPath) -> [UInt8] {
        let coded =
            path.isInternational
            ? Self.unicodeType + [0x3B] + Xtext.encodeUnicode(path.octets)
            : Array("rfc822;".utf8) + Xtext.encode(path.octets)
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
