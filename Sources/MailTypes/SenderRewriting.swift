// SPDX-License-Identifier: Apache-2.0
//
// SRS, the sender rewriting scheme: mail that is forwarded gets a reverse-path in a domain of ours, so that the next
// server does not take it for forged (SPF); what comes back to that address goes to the sender.
//
//     alice@a.example       -> SRS0=CODE=TT=a.example=alice@srs.example
//     SRS0=…@b.example      -> SRS1=CODE=b.example==…@srs.example     (the part behind SRS0, of who has rewritten it first)
//     SRS1=…=b.example=…@c  -> SRS1=CODE=b.example=…@srs.example
//
// CODE authenticates the rest, so that nobody can send to any address by ours; TT is the day, after some of which an address is no
// longer taken. Others may have changed the case of what comes back.

/// Makes reverse-paths in a domain of ours, and leads back what comes to them.
package struct SenderRewriting: Equatable, Sendable {
    /// Where rewritten addresses are.
    package let domain: [UInt8]
    /// The authentication code of octets under our secret, at least five octets.
    private let code: @Sendable ([UInt8]) -> [UInt8]

    /// Shorter secrets could be guessed.
    package static let secretOctetCountMin = 16
    /// For so many days an address is taken.
    package static let dayCountMax = 21
    private static let dayCycle: UInt64 = 1_024
    private static let alphabet: [UInt8] = Array("abcdefghijklmnopqrstuvwxyz234567".utf8)

    package init(domain: [UInt8], code: @escaping @Sendable ([UInt8]) -> [UInt8]) {
        self.domain = domain.lowercasedOctets
        self.code = code
    }

    /// Whether both make the same addresses.
    package static func == (left: SenderRewriting, right: SenderRewriting) -> Bool {
        left.domain == right.domain && left.code(left.domain) == right.code(right.domain)
    }

    /// Whether an address is one that could be ours: in our domain, and beginning as one of the scheme.
    package func isOurs(_ address: MailAddress) -> Bool {
        address.domain.equalsIgnoringCase(self.domain) && Self.kind(Array(address.localPart)) != nil
    }

    private static func kind(_ localPart: [UInt8]) -> UInt8? {
        guard localPart.count > 5, localPart.prefix(3).equalsIgnoringCase("SRS".utf8),
            [0x30, 0x31].contains(localPart[3]),
            [ASCII.equals, 0x2B, ASCII.hyphen].contains(localPart[4])
        else { return nil }
        return localPart[3]
    }

    // MARK: There

    /// The reverse-path of mail that is forwarded.
    ///
    /// - Returns: the same address if it cannot be rewritten: it would be too long, or its local part is in quotes.
    package func rewritten(_ address: MailAddress, at now: Timestamp) -> MailAddress {
        guard !address.domain.equalsIgnoringCase(self.domain), address.localPart.first != ASCII.quote else {
            return address
        }
        let localPart = Array(address.localPart)
        var rest: [UInt8]
        switch Self.kind(localPart) {
        case 0x30: rest = Array(address.domain) + [ASCII.equals] + localPart.dropFirst(4)
        case 0x31:
            // Whoever was first stays; those between are left out.
            let parts = localPart.dropFirst(5).split(separator: ASCII.equals, maxSplits: 1)
            guard parts.count == 2 else { return address }
            rest = Array(parts[1])
        default:
            rest = Self.day(now) + [ASCII.equals] + Array(address.domain) + [ASCII.equals] + localPart
        }
        let isFirst = Self.kind(localPart) == nil
        let start = Array((isFirst ? "SRS0=" : "SRS1=").utf8)
        let octets = start + self.mark(start, rest) + [ASCII.equals] + rest + [ASCII.at] + self.domain
        return MailAddress(octets: octets, alphabet: .unicodeLocalPart) ?? address
    }

    private static func day(_ time: Timestamp) -> [UInt8] {
        let day = Int(time.seconds / 86_400 % Self.dayCycle)
        return [Self.alphabet[day >> 5], Self.alphabet[day & 31]]
    }

    /// Eight characters of the code, of what does not change with the case.
    private func mark(_ start: [UInt8], _ rest: [UInt8]) -> [UInt8] {
        let octets = self.code(start.lowercasedOctets + rest.lowercasedOctets)
        var number: UInt64 = 0
        for octet in octets.prefix(5) { number = number << 8 | UInt64(octet) }
        return (0..<8).map { Self.alphabet[Int(number >> (5 * (7 - $0)) & 31)] }
    }

    // MARK: And back

    /// Whose address was rewritten; nil if it was not by us, or too long ago.
    package func original(_ address: MailAddress, at now: Timestamp) -> MailAddress? {
        let localPart = Array(address.localPart)
        guard self.isOurs(address), let kind = Self.kind(localPart) else { return nil }
        let parts = localPart.dropFirst(5).split(separator: ASCII.equals, maxSplits: 1)
        guard parts.count == 2 else { return nil }
        let rest = Array(parts[1])
        let start = Array((kind == 0x30 ? "SRS0=" : "SRS1=").utf8)
        guard Self.areEqual(Array(parts[0]).lowercasedOctets, self.mark(start, rest)) else { return nil }
        guard kind == 0x30 else {
            let first = rest.split(separator: ASCII.equals, maxSplits: 1)
            guard first.count == 2 else { return nil }
            return MailAddress(
                octets: Array("SRS0".utf8) + first[1] + [ASCII.at] + first[0], alphabet: .unicodeLocalPart)
        }
        let words = rest.split(separator: ASCII.equals, maxSplits: 2, omittingEmptySubsequences: false)
        guard words.count == 3, let age = Self.age(Array(words[0]), now), age <= Self.dayCountMax else { return nil }
        return MailAddress(octets: Array(words[2]) + [ASCII.at] + words[1], alphabet: .unicodeLocalPart)
    }

    private static func age(_ word: [UInt8], _ now: Timestamp) -> Int? {
        guard word.count == 2, let high = Self.alphabet.firstIndex(of: word[0].lowercased),
            let low = Self.alphabet.firstIndex(of: word[1].lowercased)
        else { return nil }
        let today = Int(now.seconds / 86_400 % Self.dayCycle)
        return (today - (high << 5 | low) + Int(Self.dayCycle)) % Int(Self.dayCycle)
    }

    /// In a time that does not tell where they differ.
    private static func areEqual(_ left: [UInt8], _ right: [UInt8]) -> Bool {
        guard left.count == right.count else { return false }
        return zip(left, right).reduce(0 as UInt8) { $0 | ($1.0 ^ $1.1) } == 0
    }
}
