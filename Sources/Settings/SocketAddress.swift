// SPDX-License-Identifier: Apache-2.0

package import MailTypes

/// An address and a port, as listeners have them: `127.0.0.1:2525`, `[::]:25`.
package struct SocketAddress: Hashable, Sendable {
    package let address: IPAddress
    /// 1…65535.
    package let port: UInt16

    package init(address: IPAddress, port: UInt16) {
        self.address = address
        self.port = port
    }

    /// Nil unless the text is an IPv4 address, or an IPv6 address in brackets, with a colon and a port.
    package init?(text: String) {
        let octets = Array(text.utf8)
        guard let colon = octets.lastIndex(of: ASCII.colon),
            let port = octets[(colon + 1)...].decimal(limit: 65_535), port > 0
        else { return nil }
        var host = octets[..<colon]
        let isBracketed = host.first == 0x5B && host.last == 0x5D && host.count > 2
        if isBracketed { host = host.dropFirst().dropLast() }
        guard isBracketed == host.contains(ASCII.colon), let address = IPAddress(octets: host) else { return nil }
        self.address = address
        self.port = UInt16(port)
    }

    package var text: String {
        switch self.address {
        case .v4: "\(self.address.text):\(self.port)"
        case .v6: "[\(self.address.text)]:\(self.port)"
        }
    }
}
