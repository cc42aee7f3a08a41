// SPDX-License-Identifier: Apache-2.0
//
// The one grammar of mailboxes in the tree (RFC 5321 §4.1.2). Every program that is handed an address
// by another makes it anew through these initializers; there is no way to a `MailAddress` around them.

/// Which characters an address may have. Whoever reads one says so; without a word it is ASCII.
package enum AddressAlphabet: Sendable {
    /// RFC 5321 §4.1.2.
    case ascii
    /// UTF-8 in the local part (RFC 6531 §3.3); the domain is written in ASCII, as everywhere between our programs.
    case unicodeLocalPart
    /// UTF-8 in both: what people and other servers write. `mapped` leads from it to the one before.
    case unicode
}

/// A mailbox: `Local-part@Domain`, in the form in which it came.
package struct MailAddress: Hashable, Sendable {
    /// The whole, `local-part@domain`, at most 256 - 2 octets for the path brackets, and more by a margin:
    /// local parts are taken up to `localPartOctetCountMax`, domains up to 255 octets.
    package let octets: [UInt8]
    /// Where the `@` is.
    private let separator: Int
    /// Whether only servers with SMTPUTF8 can be told the address (RFC 6531 §3.2), as it is written: it is not ASCII.
    package let isInternational: Bool

    /// RFC 5321 §4.5.3.1.1 asks for 64; people use more (VERP, SRS), and others take it.
    package static let localPartOctetCountMax = 255
    /// RFC 5321 §4.5.3.1.2.
    package static let domainOctetCountMax = 255

    package init?(octets: [UInt8], alphabet: AddressAlphabet = .ascii) {
        self.init(octets: octets[...], alphabet: alphabet)
    }

    /// Reads a mailbox; nil if the octets are not one from the first to the last. The limits count octets, whatever the
    /// alphabet is.
    package init?(octets: ArraySlice<UInt8>, alphabet: AddressAlphabet = .ascii) {
        let octets = Array(octets)
        // Almost every address is ASCII, whatever may come; so the others alone cost more.
        let isInternational = alphabet != .ascii && !octets.isASCII
        let alphabet = isInternational ? alphabet : .ascii
        guard let end = Self.localPartEnd(octets, alphabet: alphabet), end < octets.count, octets[end] == ASCII.at,
            end <= Self.localPartOctetCountMax, Self.isDomain(octets[(end + 1)...], alphabet: alphabet),
            !isInternational || octets.isAddressText
        else { return nil }
        self.octets = octets
        self.separator = end
        self.isInternational = isInternational
    }

    package init?(text: String) { self.init(octets: Array(text.utf8)) }

    /// As it came: quotes and case are kept (RFC 5321 §2.4).
    package var localPart: ArraySlice<UInt8> { self.octets[..<self.separator] }

    /// As it came; compare it without regard to case.
    package var domain: ArraySlice<UInt8> { self.octets[(self.separator + 1)...] }

    /// The local part without quotes and backslashes: what it *means* (RFC 5321 §4.1.2: `"a"` is `a`).
    package var unquotedLocalPart: [UInt8] {
        guard self.octets.first == ASCII.quote else { return Array(self.localPart) }
        var result: [UInt8] = []
        var isEscaped = false
        for octet in self.localPart.dropFirst().dropLast() {
            if !isEscaped, octet == ASCII.backslash {
                isEscaped = true
            } else {
                result.append(octet)
                isEscaped = false
            }
        }
        return result
    }

    /// Whether the domain is an address literal such as `[192.0.2.1]`.
    package var isLiteral: Bool { self.octets[self.separator + 1] == 0x5B }

    package var text: String { self.octets.printableText }

    /// The end of the local part that the octets begin with; nil if they begin with none.
    package static func localPartEnd(_ octets: [UInt8], alphabet: AddressAlphabet = .ascii) -> Int? {
        guard let first = octets.first else { return nil }
        if first == ASCII.quote { return Self.quotedStringEnd(octets, alphabet) }
        var index = 0
        var wasDot = true
        while index < octets.count {
            let octet = octets[index]
            if octet == ASCII.dot {
                guard !wasDot else { return nil }
                wasDot = true
            } else if Self.isAtomText(octet) || octet >= 0x80 && alphabet != .ascii {
                wasDot = false
            } else {
                break
            }
            index += 1
        }
        return wasDot ? nil : index
    }

    private static func quotedStringEnd(_ octets: [UInt8], _ alphabet: AddressAlphabet) -> Int? {
        func isText(_ octet: UInt8) -> Bool { octet.isPrintable || octet >= 0x80 && alphabet != .ascii }
        var index = 1
        while index < octets.count {
            switch octets[index] {
            case ASCII.quote: return index + 1
            case ASCII.backslash:
                guard index + 1 < octets.count, isText(octets[index + 1]) else { return nil }
                index += 2
            case let octet where isText(octet): index += 1
            default: return nil
            }
        }
        return nil
    }

    /// RFC 5322 §3.2.3, atext.
    package static func isAtomText(_ octet: UInt8) -> Bool {
        if octet.isLetterOrDigit { return true }
        switch octet {
        // ! # $ % & ' * + - / = ? ^ _ ` { | } ~
        case 0x21, 0x23...0x27, 0x2A, 0x2B, 0x2D, 0x2F, 0x3D, 0x3F, 0x5E...0x60, 0x7B...0x7E: return true
        default: return false
        }
    }

    /// The same for whole arrays.
    package static func isDomain(_ octets: [UInt8]) -> Bool { Self.isDomain(octets[...]) }
    package static func isDomainName(_ octets: [UInt8]) -> Bool { Self.isDomainName(octets[...]) }
    package static func literalAddress(_ octets: [UInt8]) -> IPAddress? { Self.literalAddress(octets[...]) }

    /// Whether the octets are a Domain or an address-literal (RFC 5321 §4.1.2, §4.1.3).
    package static func isDomain(_ octets: ArraySlice<UInt8>, alphabet: AddressAlphabet = .ascii) -> Bool {
        guard let first = octets.first, octets.count <= Self.domainOctetCountMax else { return false }
        if first == 0x5B { return Self.literalAddress(octets) != nil }
        return Self.isDomainName(octets, alphabet: alphabet)
    }

    /// Whether the octets are a Domain: labels of letters, digits and inner hyphens.
    ///
    /// The underscore, which host names in the wild have, is taken too; an empty label (a final dot too) is not. Whether a
    /// label beyond ASCII is a U-label is not looked at: that takes `DomainMapping`.
    package static func isDomainName(_ octets: ArraySlice<UInt8>, alphabet: AddressAlphabet = .ascii) -> Bool {
        guard octets.count <= Self.domainOctetCountMax else { return false }
        var labelOctetCount = 0
        var last = ASCII.dot
        // In UTF-8 a label may be longer than what DNS takes.
        let countMax = alphabet == .unicode && !octets.isASCII ? Self.domainOctetCountMax : 63
        for octet in octets {
            if octet == ASCII.dot {
                guard labelOctetCount > 0, last != ASCII.hyphen else { return false }
                labelOctetCount = 0
            } else {
                let isBeyond = octet >= 0x80 && alphabet == .unicode
                guard
                    octet.isLetterOrDigit || octet == 0x5F || (octet == ASCII.hyphen && labelOctetCount > 0)
                        || isBeyond,
                    labelOctetCount < countMax
                else { return false }
                labelOctetCount += 1
            }
            last = octet
        }
        return labelOctetCount > 0 && last != ASCII.hyphen
    }

    /// The address in `[192.0.2.1]` or `[IPv6:2001:db8::1]`; nil for anything else (RFC 5321 §4.1.3).
    ///
    /// Other tags of a General-address-literal have never been registered and are refused.
    package static func literalAddress(_ octets: ArraySlice<UInt8>) -> IPAddress? {
        guard octets.first == 0x5B, octets.last == 0x5D, octets.count > 2 else { return nil }
        let inner = Array(octets.dropFirst().dropLast())
        if inner.count > 5, inner[0..<5].equalsIgnoringCase(Array("IPv6:".utf8)) {
            let address = inner[5...]
            guard address.contains(ASCII.colon) else { return nil }
            return IPAddress(octets: address)
        }
        guard !inner.contains(ASCII.colon) else { return nil }
        return IPAddress(octets: inner)
    }
}

/// Where a message comes from and where reports about it go (RFC 5321 §3.3, §4.1.2).
package enum ReversePath: Hashable, Sendable {
    /// `<>`: no report is ever sent about this message.
    case null
    case address(MailAddress)

    package init?(octets: [UInt8], alphabet: AddressAlphabet = .ascii) {
        self.init(octets: octets[...], alphabet: alphabet)
    }

    /// Reads a path without its angle brackets; no octets are the null path.
    package init?(octets: ArraySlice<UInt8>, alphabet: AddressAlphabet = .ascii) {
        if octets.isEmpty {
            self = .null
        } else {
            guard let address = MailAddress(octets: octets, alphabet: alphabet) else { return nil }
            self = .address(address)
        }
    }

    package var isInternational: Bool {
        switch self {
        case .null: false
        case .address(let address): address.isInternational
        }
    }

    /// Without angle brackets; empty for the null path.
    package var octets: [UInt8] {
        switch self {
        case .null: []
        case .address(let address): address.octets
        }
    }
}

/// Whom a message is for (RFC 5321 §3.3, §4.1.2).
package enum ForwardPath: Hashable, Sendable {
    /// `<postmaster>` without a domain (RFC 5321 §4.5.1), in any case of letters.
    case postmaster
    case address(MailAddress)

    package init?(octets: [UInt8], alphabet: AddressAlphabet = .ascii) {
        self.init(octets: octets[...], alphabet: alphabet)
    }

    /// Reads a path without its angle brackets.
    package init?(octets: ArraySlice<UInt8>, alphabet: AddressAlphabet = .ascii) {
        if octets.count == 10, octets.equalsIgnoringCase("postmaster".utf8) {
            self = .postmaster
        } else {
            guard let address = MailAddress(octets: octets, alphabet: alphabet) else { return nil }
            self = .address(address)
        }
    }

    package var isInternational: Bool {
        switch self {
        case .postmaster: false
        case .address(let address): address.isInternational
        }
    }

    /// Without angle brackets.
    package var octets: [UInt8] {
        switch self {
        case .postmaster: Array("postmaster".utf8)
        case .address(let address): address.octets
        }
    }
}
