// SPDX-License-Identifier: Apache-2.0
//
// Internationalised domains (RFC 5890). Between our programs, in records and in DNS a domain is always in ASCII: its
// labels beyond that are A-labels (`xn--…`). People and other servers may write U-labels.

/// How a domain with U-labels is written in A-labels (RFC 5891, UTS #46).
///
/// That takes tables of characters, which no value has: whoever has them (`IDN`) hands this to those who read addresses.
package struct DomainMapping: Sendable {
    private let map: @Sendable ([UInt8]) -> [UInt8]?

    /// - Parameter map: from a domain of UTF-8 to one of ASCII; nil for what is none.
    package init(_ map: @escaping @Sendable ([UInt8]) -> [UInt8]?) { self.map = map }

    /// Knows ASCII alone.
    package static let none = DomainMapping { _ in nil }

    /// The domain in ASCII; as it is if it is so already. Nil if it is no domain.
    package func ascii(_ domain: some Collection<UInt8>) -> [UInt8]? {
        let octets = Array(domain)
        if octets.isASCII { return MailAddress.isDomain(octets) ? octets : nil }
        guard MailAddress.isDomainName(octets[...], alphabet: .unicode), let mapped = self.map(octets),
            MailAddress.isDomainName(mapped)
        else { return nil }
        return mapped
    }

    /// A pattern of domains or addresses (`*.example.org`, `joe@example.org`) with its domain in ASCII; as it is if it has none.
    package func asciiPattern(_ pattern: String) -> String {
        let octets = Array(pattern.utf8)
        guard !octets.isASCII else { return pattern }
        var start = octets.lastIndex(of: ASCII.at).map { $0 + 1 } ?? 0
        if octets[start...].starts(with: "*.".utf8) { start += 2 }
        guard let domain = self.ascii(octets[start...]) else { return pattern }
        return String(decoding: octets[..<start] + domain, as: UTF8.self)
    }
}

extension MailAddress {
    /// Reads an address as a person or another server writes it, with its domain in A-labels; nil if it is none.
    package init?(octets: some Collection<UInt8>, domains: DomainMapping) {
        guard let address = MailAddress(octets: Array(octets), alphabet: .unicode)?.mapped(domains) else { return nil }
        self = address
    }

    /// The same address with its domain in A-labels; nil if the domain is none.
    package func mapped(_ domains: DomainMapping) -> MailAddress? {
        if !self.isInternational || self.domain.isASCII { return self }
        guard let domain = domains.ascii(self.domain) else { return nil }
        return MailAddress(octets: self.localPart + [ASCII.at] + domain, alphabet: .unicodeLocalPart)
    }
}

extension ReversePath {
    /// See `MailAddress.mapped`.
    package func mapped(_ domains: DomainMapping) -> ReversePath? {
        switch self {
        case .null: self
        case .address(let address): address.mapped(domains).map { .address($0) }
        }
    }
}

extension ForwardPath {
    /// Reads a path as a person writes it, without its angle brackets, with its domain in A-labels.
    package init?(octets: some Collection<UInt8>, domains: DomainMapping) {
        guard let path = ForwardPath(octets: Array(octets), alphabet: .unicode)?.mapped(domains) else { return nil }
        self = path
    }

    /// See `MailAddress.mapped`.
    package func mapped(_ domains: DomainMapping) -> ForwardPath? {
        switch self {
        case .postmaster: self
        case .address(let address): address.mapped(domains).map { .address($0) }
        }
    }
}
