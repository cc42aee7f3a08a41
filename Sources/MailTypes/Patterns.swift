// SPDX-License-Identifier: Apache-2.0
//
// How administrators say which domains or senders a rule is for.

/// Some domains: `example.org` is that one, `*.example.org` all below it, `*` all. Case does not matter.
///
/// An address literal or a host stands for itself: `192.0.2.1`, `mail.example.org`.
package struct DomainPattern: Hashable, Sendable {
    private enum Kind: Hashable {
        case every
        case exactly([UInt8])
        /// With the dot in front.
        case below([UInt8])
    }

    private let kind: Kind

    /// `*`.
    package static let every = DomainPattern(kind: .every)

    private init(kind: Kind) { self.kind = kind }

    package init?(octets: ArraySlice<UInt8>) {
        let octets = octets.lowercasedOctets
        if octets.elementsEqual("*".utf8) {
            self.kind = .every
        } else if octets.starts(with: "*.".utf8) {
            guard MailAddress.isDomainName(octets[2...]) else { return nil }
            self.kind = .below(Array(octets[1...]))
        } else {
            guard MailAddress.isDomainName(octets) || IPAddress(octets: octets) != nil else { return nil }
            self.kind = .exactly(octets)
        }
    }

    package init?(text: String) { self.init(octets: Array(text.utf8)[...]) }

    package func matches(_ domain: some Collection<UInt8>) -> Bool {
        switch self.kind {
        case .every: return true
        case .exactly(let name):
            return domain.count == name.count && zip(domain, name).allSatisfy { $0.lowercased == $1 }
        case .below(let suffix):
            guard domain.count > suffix.count else { return false }
            return zip(domain.suffix(suffix.count), suffix).allSatisfy { $0.lowercased == $1 }
        }
    }

    /// Whether a next hop is one of these: by its domain, its host's name or its address, whatever its port.
    package func matches(_ nextHop: NextHop) -> Bool { self.matches(nextHop.name) }
}

/// Some senders: `user@example.org`, `@example.org` (everybody there), `@*.example.org`, or `<>` (reports).
///
/// The local part is compared as it stands, the domain without regard to case (RFC 5321 §2.4).
package struct SenderPattern: Hashable, Sendable {
    private enum Kind: Hashable {
        case null
        /// An empty local part is everybody's.
        case mailbox(localPart: [UInt8], domain: DomainPattern)
    }

    private let kind: Kind

    package init?(text: String) {
        let octets = Array(text.utf8)
        if text == "<>" {
            self.kind = .null
            return
        }
        guard let at = octets.lastIndex(of: ASCII.at), let domain = DomainPattern(octets: octets[(at + 1)...]) else {
            return nil
        }
        let localPart = Array(octets[..<at])
        guard
            localPart.isEmpty
                || MailAddress.localPartEnd(localPart, alphabet: .unicodeLocalPart) == localPart.count
        else { return nil }
        self.kind = .mailbox(localPart: localPart, domain: domain)
    }

    package func matches(_ path: ReversePath) -> Bool {
        switch (self.kind, path) {
        case (.null, .null): true
        case (.mailbox(let localPart, let domain), .address(let address)):
            (localPart.isEmpty || address.localPart.elementsEqual(localPart)) && domain.matches(address.domain)
        case (.null, .address), (.mailbox, .null): false
        }
    }
}
