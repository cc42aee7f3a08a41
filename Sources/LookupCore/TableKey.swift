// SPDX-License-Identifier: Apache-2.0

package import MailTypes

/// What tables are asked with: an address, `@domain`, or a domain, always written in the same way.
///
/// ASCII letters are in lower case, other characters are as they are; a domain is in ASCII. A local part is written without quotes if it can be, as `"joe"@example.org` is
/// `joe@example.org`.
package enum TableKey {
    /// The longest key: a quoted local part, an `@`, and a domain.
    package static let octetCountMax = 2 * MailAddress.localPartOctetCountMax + 2 + 1 + MailAddress.domainOctetCountMax

    /// The key of an address.
    ///
    /// - Parameters:
    ///   - localPart: its meaning, without quotes.
    package static func address(localPart: [UInt8], domain: some Collection<UInt8>) -> [UInt8] {
        Self.written(localPart.lowercasedOctets) + [ASCII.at] + domain.lowercasedOctets
    }

    /// The key of all addresses of a domain that have none of their own.
    package static func catchAll(domain: some Collection<UInt8>) -> [UInt8] { [ASCII.at] + domain.lowercasedOctets }

    /// The key that a word of a table stands for; nil if it is none that is ever asked with.
    package static func key(_ word: [UInt8], _ domains: DomainMapping) -> [UInt8]? {
        if word.first == ASCII.at { return domains.ascii(word.dropFirst()).map { Self.catchAll(domain: $0) } }
        if let address = MailAddress(octets: word, domains: domains) {
            return Self.address(localPart: address.unquotedLocalPart, domain: address.domain)
        }
        // Why: a word without a dot is a local part whose domain was forgotten.
        return word.contains(ASCII.dot) ? domains.ascii(word)?.lowercasedOctets : nil
    }

    /// The address of a local part, which is given without quotes; nil if it cannot be written.
    package static func address(of localPart: [UInt8], at domain: [UInt8]) -> MailAddress? {
        MailAddress(octets: Self.written(localPart) + [ASCII.at] + domain, alphabet: .unicodeLocalPart)
    }

    /// A local part as it is written in an address, in quotes where it needs them.
    private static func written(_ localPart: [UInt8]) -> [UInt8] {
        if MailAddress.localPartEnd(localPart, alphabet: .unicodeLocalPart) == localPart.count,
            localPart.first != ASCII.quote
        {
            return localPart
        }
        var quoted: [UInt8] = [ASCII.quote]
        for octet in localPart {
            if octet == ASCII.quote || octet == ASCII.backslash { quoted.append(ASCII.backslash) }
            quoted.append(octet)
        }
        return quoted + [ASCII.quote]
    }
}
