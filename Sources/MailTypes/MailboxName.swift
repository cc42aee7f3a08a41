// SPDX-License-Identifier: Apache-2.0

/// The mailbox of a virtual user: a domain and what the user is called there.
///
/// Written `example.org/joe`, each half so that it can be the name of a directory: letters of an address are in lower
/// case, and every octet but letters, digits, `-`, `_`, `+`, `=` and a dot that is not the first is written as `%2F`
/// and the like. So neither half can be `.` or `..`, or have a slash, a colon or a NUL in it, whatever the address.
package struct MailboxName: Hashable, Sendable {
    /// In lower case.
    package let domain: [UInt8]
    /// The meaning of the local part, without quotes, in lower case.
    package let localPart: [UInt8]

    /// Longer ones, as they are written, are refused: files have names of at most 255 octets, and a route must fit into
    /// a key of the queue.
    package static let componentOctetCountMax = 200

    /// Nil if a half is empty or too long to be written.
    ///
    /// - Parameter localPart: its meaning, without quotes.
    package init?(domain: [UInt8], localPart: [UInt8]) {
        self.domain = domain.lowercasedOctets
        self.localPart = localPart.lowercasedOctets
        guard !domain.isEmpty, !localPart.isEmpty, self.domainComponent.count <= Self.componentOctetCountMax,
            self.localComponent.count <= Self.componentOctetCountMax
        else { return nil }
    }

    /// Reads what `octets` is, and nothing else: there is one way to write a name.
    package init?(octets: ArraySlice<UInt8>) {
        let halves = octets.split(separator: Self.slash, omittingEmptySubsequences: false)
        guard halves.count == 2, let domain = Self.decoded(halves[0]), let localPart = Self.decoded(halves[1]),
            let name = MailboxName(domain: domain, localPart: localPart), name.octets.elementsEqual(octets)
        else { return nil }
        self = name
    }

    /// As it is written in a route.
    package var octets: [UInt8] { self.domainComponent + [Self.slash] + self.localComponent }

    /// The domain as the name of a directory.
    package var domainComponent: [UInt8] { Self.encoded(self.domain) }

    /// The local part as the name of a directory.
    package var localComponent: [UInt8] { Self.encoded(self.localPart) }

    private static let slash: UInt8 = 0x2F
    private static let percent: UInt8 = 0x25
    private static let digits: [UInt8] = Array("0123456789ABCDEF".utf8)

    private static func encoded(_ octets: [UInt8]) -> [UInt8] {
        var encoded: [UInt8] = []
        for octet in octets {
            let isPlain =
                switch octet {
                case ASCII.dot: !encoded.isEmpty
                case ASCII.hyphen, 0x5F, 0x2B, 0x3D: true
                default: octet.isLetterOrDigit
                }
            if isPlain {
                encoded.append(octet)
            } else {
                encoded += [Self.percent, Self.digits[Int(octet >> 4)], Self.digits[Int(octet & 15)]]
            }
        }
        return encoded
    }

    private static func decoded(_ octets: ArraySlice<UInt8>) -> [UInt8]? {
        var decoded: [UInt8] = []
        var rest = octets
        while let octet = rest.popFirst() {
            guard octet == Self.percent else {
                decoded.append(octet)
                continue
            }
            guard let high = rest.popFirst().flatMap({ Self.digits.firstIndex(of: $0) }),
                let low = rest.popFirst().flatMap({ Self.digits.firstIndex(of: $0) })
            else { return nil }
            decoded.append(UInt8(high << 4 | low))
        }
        return decoded
    }
}
