// SPDX-License-Identifier: Apache-2.0

/// Which program delivers a recipient, and where to. Recipients of one route are one destination of the scheduler.
///
/// Written `local:USER`, `mailbox:OWNER:DOMAIN/LOCAL`, `alias:NAME`, `remote:NEXTHOP` or `bounce:`. Apus-lookup makes routes
/// from the settings; a route in a queue record says *where*, never *what to run*.
package enum Route: Hashable, Sendable {
    /// A system user's mailbox.
    case local(user: [UInt8])
    /// The mailbox of a virtual user, among those that a system user owns.
    case mailbox(owner: [UInt8], MailboxName)
    /// What the file of aliases says behind that name, as it is there when the mail is delivered: programs, files, a list.
    case alias(name: [UInt8])
    /// A domain whose MX hosts are looked up, or a host given directly (RFC 5321 §5.1).
    case remote(NextHop)
    /// A report to the sender is due; apus-bounce writes it.
    case bounce

    /// The names of users of this length and these octets are passed on; others are refused.
    package static let userOctetCountMax = 64

    package init?(octets: [UInt8]) { self.init(octets: octets[...]) }

    package init?(octets: ArraySlice<UInt8>) {
        guard let colon = octets.firstIndex(of: ASCII.colon) else { return nil }
        let kind = octets[..<colon]
        let rest = Array(octets[octets.index(after: colon)...])
        if kind.elementsEqual("local".utf8) {
            guard Self.isUserName(rest) else { return nil }
            self = .local(user: rest)
        } else if kind.elementsEqual("mailbox".utf8) {
            guard let end = rest.firstIndex(of: ASCII.colon), Self.isUserName(Array(rest[..<end])),
                let name = MailboxName(octets: rest[(end + 1)...])
            else { return nil }
            self = .mailbox(owner: Array(rest[..<end]), name)
        } else if kind.elementsEqual("alias".utf8) {
            guard Self.isAliasName(rest) else { return nil }
            self = .alias(name: rest)
        } else if kind.elementsEqual("remote".utf8) {
            guard let nextHop = NextHop(octets: rest) else { return nil }
            self = .remote(nextHop)
        } else if kind.elementsEqual("bounce".utf8), rest.isEmpty {
            self = .bounce
        } else {
            return nil
        }
    }

    package var octets: [UInt8] {
        var octets: [UInt8] = []
        octets.reserveCapacity(48)
        switch self {
        case .local(let user):
            octets.append(text: "local:" as StaticString)
            octets += user
        case .mailbox(let owner, let name):
            octets.append(text: "mailbox:" as StaticString)
            octets += owner
            octets.append(ASCII.colon)
            octets += name.octets
        case .alias(let name):
            octets.append(text: "alias:" as StaticString)
            octets += name
        case .remote(let nextHop):
            octets.append(text: "remote:" as StaticString)
            nextHop.append(to: &octets)
        case .bounce: octets.append(text: "bounce:" as StaticString)
        }
        return octets
    }

    /// The system user as whom it is delivered, as the route says; nil: it is not put into a mailbox of this system, or the
    /// settings say as whom.
    package var owner: [UInt8]? {
        switch self {
        case .local(let user): user
        case .mailbox(let owner, _): owner
        case .alias, .remote, .bounce: nil
        }
    }

    /// Whether the octets can be the name of an alias in a route: what a local part can mean, but for an `@`; in lower case.
    package static func isAliasName(_ octets: [UInt8]) -> Bool {
        !octets.isEmpty && octets.count <= MailAddress.localPartOctetCountMax
            && octets.allSatisfy { ($0.isPrintable || $0 >= 0x80) && $0 != ASCII.at && $0.lowercased == $0 }
            && (octets.isASCII || octets.isAddressText)
    }

    /// What useradd(8) accepts, and a little more: no slash, no dot or hyphen in front.
    package static func isUserName(_ octets: [UInt8]) -> Bool {
        guard let first = octets.first, octets.count <= Self.userOctetCountMax,
            first.isLetterOrDigit || first == 0x5F
        else { return false }
        return octets.allSatisfy { $0.isLetterOrDigit || $0 == 0x5F || $0 == ASCII.hyphen || $0 == ASCII.dot }
    }
}

/// The next host on a message's way, as administrators write it.
///
/// `example.org` is a domain whose MX records decide; `[mail.example.org]` is that host itself, no MX lookup;
/// `[192.0.2.1]` and `[2001:db8::1]` (also `[IPv6:2001:db8::1]`) are addresses. Each may be followed by `:PORT`.
/// `lmtp:/run/dovecot/lmtp` is a socket, `lmtp:[127.0.0.1]:24` a host, at which LMTP is spoken (RFC 2033).
package struct NextHop: Hashable, Sendable {
    /// The ways to name it.
    package enum Target: Hashable, Sendable {
        /// Lower case.
        case domain([UInt8])
        /// Lower case.
        case host([UInt8])
        case address(IPAddress)
        /// The absolute path of a socket of this machine; LMTP alone is spoken there.
        case socket([UInt8])
    }

    /// The room of sun_path, with the NUL behind it.
    private static let socketOctetCountMax = 107

    package let target: Target
    /// Nil: the port that the settings name, 25 by default; 24 for LMTP.
    package let port: UInt16?
    /// Whether LMTP is spoken instead of SMTP.
    package let isLMTP: Bool

    package init(target: Target, port: UInt16?, isLMTP: Bool = false) {
        self.isLMTP = isLMTP
        self.target = target
        self.port = port
    }

    private static let lmtpMark: [UInt8] = Array("lmtp:".utf8)

    package init?(octets: [UInt8]) { self.init(octets: octets[...]) }

    package init?(octets: ArraySlice<UInt8>) {
        var rest = Array(octets)
        // `lmtp:24` is port 24 of a host of that name.
        self.isLMTP = rest.starts(with: Self.lmtpMark) && [0x2F, 0x5B].contains(rest.dropFirst(5).first)
        if self.isLMTP { rest.removeFirst(Self.lmtpMark.count) }
        if rest.first == 0x2F {
            guard self.isLMTP, rest.count <= Self.socketOctetCountMax, rest.allSatisfy({ (0x21...0x7E).contains($0) })
            else { return nil }
            self.target = .socket(rest)
            self.port = nil
            return
        }
        if rest.first == 0x5B {
            guard let close = rest.firstIndex(of: 0x5D) else { return nil }
            let inner = Array(rest[1..<close])
            if let address = IPAddress(octets: inner) ?? MailAddress.literalAddress(rest[...close]) {
                self.target = .address(address)
            } else {
                guard MailAddress.isDomainName(inner) else { return nil }
                self.target = .host(inner.lowercasedOctets)
            }
            rest = Array(rest[(close + 1)...])
        } else {
            let end = rest.firstIndex(of: ASCII.colon) ?? rest.count
            let name = Array(rest[..<end])
            guard MailAddress.isDomainName(name) else { return nil }
            // `127.0.0.1:2526` in the settings can only mean the address.
            self.target = IPAddress(octets: name).map(Target.address) ?? .domain(name.lowercasedOctets)
            rest = Array(rest[end...])
        }
        if rest.isEmpty {
            self.port = nil
        } else {
            guard rest[0] == ASCII.colon, let port = rest[1...].decimal(limit: 65535), port > 0 else { return nil }
            self.port = UInt16(port)
        }
    }

    /// The domain, the host's name, the address or the path alone, as patterns and accounts name it.
    package var name: [UInt8] {
        switch self.target {
        case .domain(let name), .host(let name), .socket(let name): name
        case .address(let address): Array(address.text.utf8)
        }
    }

    package var octets: [UInt8] {
        var octets: [UInt8] = []
        self.append(to: &octets)
        return octets
    }

    /// Appends what `octets` is.
    package func append(to octets: inout [UInt8]) {
        if self.isLMTP { octets += Self.lmtpMark }
        switch self.target {
        case .socket(let path): octets += path
        case .domain(let name): octets += name
        case .host(let name):
            octets.append(0x5B)
            octets += name
            octets.append(0x5D)
        case .address(let address):
            octets.append(0x5B)
            address.append(to: &octets)
            octets.append(0x5D)
        }
        if let port = self.port {
            octets.append(ASCII.colon)
            octets.append(decimal: port)
        }
    }
}
