// SPDX-License-Identifier: Apache-2.0

import MailTypes

/// Every value that is written as text: what is read is written, and read again as the same.
enum AddressesBody {
    static func run(_ octets: [UInt8]) throws(Breach) {
        if let address = MailAddress(octets: octets) {
            try hold(MailAddress(octets: address.octets) == address, "an address is lost")
            try hold(address.octets.allSatisfy(\.isPrintable), "an address is not printable")
            try hold(address.localPart.count <= MailAddress.localPartOctetCountMax, "a local part is too long")
            try hold(address.domain.count <= MailAddress.domainOctetCountMax, "a domain is too long")
            try hold(address.isLiteral || MailAddress.isDomainName(address.domain), "a domain that is none")
            _ = address.unquotedLocalPart
            _ = address.text
        }
        for alphabet in [AddressAlphabet.unicodeLocalPart, .unicode] {
            guard let address = MailAddress(octets: octets, alphabet: alphabet) else { continue }
            try hold(MailAddress(octets: address.octets, alphabet: alphabet) == address, "an address is lost")
            try hold(address.octets.allSatisfy { $0.isPrintable || $0 >= 0x80 }, "an address has control characters")
            try hold(alphabet == .unicode || address.domain.isASCII, "a domain that is not ASCII")
            let isPlain = MailAddress(octets: octets) != nil
            try hold(address.isInternational != isPlain, "an address is of two alphabets")
            // As good a mapping as any: what matters is what is made of it.
            let mapped = address.mapped(DomainMapping { $0.map { $0 < 0x80 ? $0 : 0x78 } })
            try hold(mapped?.domain.isASCII ?? true, "a domain that was not mapped")
        }
        if let coded = Xtext.decodeUnicode(octets) {
            try hold(Xtext.decodeUnicode(Xtext.encodeUnicode(coded)) == coded, "an address is lost in its coding")
        }
        if let path = ReversePath(octets: octets) {
            try hold(ReversePath(octets: path.octets) == path, "a reverse-path is lost")
        }
        if let path = ForwardPath(octets: octets) {
            try hold(ForwardPath(octets: path.octets) == path, "a forward-path is lost")
        }
        if let address = IPAddress(octets: octets) {
            try hold(IPAddress(octets: address.octets) == address, "\(address.text) is lost")
            _ = address.isUnspecified
        }
        if let network = Network(octets: octets) {
            try hold(network.contains(network.base), "a network without its base")
        }
        if let route = Route(octets: octets) {
            try hold(Route(octets: route.octets) == route, "a route is lost")
        }
        if let hop = NextHop(octets: octets) {
            try hold(NextHop(octets: hop.octets) == hop, "a next hop is lost")
        }
        if let id = MessageID(octets: octets) {
            try hold(MessageID(octets: id.octets) == id, "an id is lost")
        }
        if let status = EnhancedStatus(octets: octets) {
            try hold(EnhancedStatus(octets: status.octets) == status, "a status is lost")
        }
    }
}
