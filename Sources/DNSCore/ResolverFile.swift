// SPDX-License-Identifier: Apache-2.0

package import MailTypes

/// Where a resolver listens.
package struct ResolverAddress: Hashable, Sendable {
    package let address: IPAddress
    package let port: UInt16

    package init(address: IPAddress, port: UInt16) {
        self.address = address
        self.port = port
    }

    /// Reads `192.0.2.1`, `192.0.2.1:5353`, `2001:db8::1`, or `[2001:db8::1]:5353`. Without a port it is 53.
    package init?(octets: some Collection<UInt8>) {
        let octets = Array(octets)
        if let address = IPAddress(octets: octets) {
            self.init(address: address, port: 53)
            return
        }
        guard let colon = octets.lastIndex(of: ASCII.colon),
            let port = octets[(colon + 1)...].decimal(limit: 65535), port > 0
        else {
            guard octets.first == 0x5B, octets.last == 0x5D,
                let address = IPAddress(octets: octets.dropFirst().dropLast())
            else { return nil }
            self.init(address: address, port: 53)
            return
        }
        var host = octets[..<colon]
        if host.first == 0x5B, host.last == 0x5D, host.count > 2 {
            host = host.dropFirst().dropLast()
        } else if host.contains(ASCII.colon) {
            return nil
        }
        guard let address = IPAddress(octets: host) else { return nil }
        self.init(address: address, port: UInt16(port))
    }

    package var octets: [UInt8] {
        var octets: [UInt8] =
            if case .v6 = self.address { [0x5B] + self.address.octets + [0x5D] } else { self.address.octets }
        octets.append(ASCII.colon)
        octets.append(decimal: self.port)
        return octets
    }

    /// The resolvers that a file in the form of resolv.conf(5) names, in its order; at most `countMax`.
    ///
    /// Search lists and options are for people's short names and concern no mail. Without a resolver, it is the
    /// one on this machine, as resolv.conf(5) has it.
    package static func list(resolverFile octets: [UInt8], countMax: Int) -> [ResolverAddress] {
        var list: [ResolverAddress] = []
        for line in octets.split(separator: ASCII.lineFeed) {
            let words = line.split { $0 == ASCII.space || $0 == ASCII.tab || $0 == ASCII.carriageReturn }
            guard words.count >= 2, words[0].elementsEqual("nameserver".utf8),
                let address = IPAddress(octets: words[1]), list.count < countMax
            else { continue }
            list.append(ResolverAddress(address: address, port: 53))
        }
        return list.isEmpty ? [ResolverAddress(address: .v4(0x7F00_0001), port: 53)] : list
    }
}
