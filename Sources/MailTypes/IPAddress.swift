// SPDX-License-Identifier: Apache-2.0

/// An IPv4 or IPv6 address as a value.
///
/// An IPv6 address that only wraps an IPv4 one (`::ffff:192.0.2.1`) is that IPv4 address: a client must
/// not gain or lose rights by the family of the socket that it came through.
package enum IPAddress: Hashable, Sendable {
    /// In host order: 127.0.0.1 is `0x7F000001`.
    case v4(UInt32)
    /// The upper and the lower half, in host order.
    case v6(UInt64, UInt64)

    package init(high: UInt64, low: UInt64) {
        if high == 0, low >> 32 == 0xFFFF {
            self = .v4(UInt32(truncatingIfNeeded: low))
        } else {
            self = .v6(high, low)
        }
    }

    /// Whether it is an address of this machine for itself: 127.0.0.0/8, `::1`.
    package var isLoopback: Bool {
        switch self {
        case .v4(let bits): bits >> 24 == 127
        case .v6(let high, let low): high == 0 && low == 1
        }
    }

    /// `0.0.0.0` or `::`.
    package var isUnspecified: Bool {
        switch self {
        case .v4(let bits): bits == 0
        case .v6(let high, let low): high == 0 && low == 0
        }
    }

    package init?(octets: [UInt8]) { self.init(octets: octets[...]) }

    /// Reads `192.0.2.1`, or any form of RFC 4291 §2.2 (`2001:db8::1`, `::ffff:192.0.2.1`).
    package init?(octets: ArraySlice<UInt8>) {
        let octets = Array(octets)
        if octets.contains(ASCII.colon) {
            guard let address = Self.readIPv6(octets) else { return nil }
            self = address
        } else {
            guard let bits = Self.readIPv4(octets) else { return nil }
            self = .v4(bits)
        }
    }

    package init?(text: String) { self.init(octets: Array(text.utf8)) }

    private static func readIPv4(_ octets: [UInt8]) -> UInt32? {
        guard octets.count <= 15 else { return nil }
        var bits: UInt32 = 0
        var dotCount = 0
        var number: UInt32 = 0
        var digitCount = 0
        for octet in octets {
            if octet == ASCII.dot {
                guard digitCount > 0, dotCount < 3 else { return nil }
                bits = bits << 8 | number
                dotCount += 1
                number = 0
                digitCount = 0
            } else {
                // Why: a leading zero means octal to some readers; refusing it leaves no doubt.
                guard octet.isDigit, digitCount == 0 || number > 0 else { return nil }
                number = number * 10 + UInt32(octet - 0x30)
                guard number <= 255 else { return nil }
                digitCount += 1
            }
        }
        guard dotCount == 3, digitCount > 0 else { return nil }
        return bits << 8 | number
    }

    private static func readIPv6(_ octets: [UInt8]) -> IPAddress? {
        guard octets.count <= 45 else { return nil }
        var front: [UInt16] = []
        var back: [UInt16] = []
        var isGapSeen = false
        var index = 0
        if octets.first == ASCII.colon {
            guard octets.count >= 2, octets[1] == ASCII.colon else { return nil }
            isGapSeen = true
            index = 2
        }
        while index < octets.count {
            let end = octets[index...].firstIndex(of: ASCII.colon) ?? octets.count
            let part = octets[index..<end]
            if end == octets.count, part.contains(ASCII.dot) {
                guard let bits = Self.readIPv4(Array(part)) else { return nil }
                let groups = [UInt16(bits >> 16), UInt16(truncatingIfNeeded: bits)]
                if isGapSeen { back += groups } else { front += groups }
                index = end
                break
            }
            guard let group = Self.readGroup(part) else { return nil }
            if isGapSeen { back.append(group) } else { front.append(group) }
            index = end
            guard index < octets.count else { break }
            index += 1
            if index < octets.count, octets[index] == ASCII.colon {
                guard !isGapSeen else { return nil }
                isGapSeen = true
                index += 1
            } else if index == octets.count {
                return nil
            }
        }
        let count = front.count + back.count
        guard isGapSeen ? count <= 7 : count == 8 else { return nil }
        let groups = front + Array(repeating: 0, count: 8 - count) + back
        let high = groups[0..<4].reduce(UInt64(0)) { $0 << 16 | UInt64($1) }
        let low = groups[4..<8].reduce(UInt64(0)) { $0 << 16 | UInt64($1) }
        return IPAddress(high: high, low: low)
    }

    private static func readGroup(_ octets: ArraySlice<UInt8>) -> UInt16? {
        guard (1...4).contains(octets.count) else { return nil }
        var value: UInt16 = 0
        for octet in octets {
            switch octet.lowercased {
            case 0x30...0x39: value = value << 4 | UInt16(octet - 0x30)
            case 0x61...0x66: value = value << 4 | UInt16(octet.lowercased - 0x61 + 10)
            default: return nil
            }
        }
        return value
    }

    /// The customary form; IPv6 as RFC 5952 asks: lower case, the longest run of zeros as `::`.
    package var octets: [UInt8] {
        var octets: [UInt8] = []
        octets.reserveCapacity(40)
        self.append(to: &octets)
        return octets
    }

    /// Appends what `octets` is.
    package func append(to octets: inout [UInt8]) {
        switch self {
        case .v4(let bits):
            octets.append(decimal: bits >> 24)
            octets.append(ASCII.dot)
            octets.append(decimal: bits >> 16 & 255)
            octets.append(ASCII.dot)
            octets.append(decimal: bits >> 8 & 255)
            octets.append(ASCII.dot)
            octets.append(decimal: bits & 255)
        case .v6(let high, let low):
            var groups: [UInt16] = []
            for half in [high, low] {
                for shift: UInt64 in [48, 32, 16, 0] { groups.append(UInt16(truncatingIfNeeded: half >> shift)) }
            }
            let gap = Self.longestZeroRun(groups)
            var index = 0
            while index < 8 {
                if let gap, index == gap.lowerBound {
                    octets += [ASCII.colon, ASCII.colon]
                    index = gap.upperBound
                    continue
                }
                if index > 0, index != gap?.upperBound { octets.append(ASCII.colon) }
                octets += Array(String(groups[index], radix: 16).utf8)
                index += 1
            }
        }
    }

    package var text: String { String(decoding: self.octets, as: UTF8.self) }

    private static func longestZeroRun(_ groups: [UInt16]) -> Range<Int>? {
        var best: Range<Int>?
        var index = 0
        while index < groups.count {
            let start = index
            while index < groups.count, groups[index] == 0 { index += 1 }
            if index - start >= 2, index - start > (best?.count ?? 0) { best = start..<index }
            if index == start { index += 1 }
        }
        return best
    }
}

/// A block of addresses in CIDR form: `127.0.0.0/8`, `::1/128`, or a single address.
package struct Network: Hashable, Sendable {
    package let base: IPAddress
    /// 0…32 or 0…128.
    package let prefixLength: Int

    package init?(octets: [UInt8]) { self.init(octets: octets[...]) }

    /// Reads `ADDRESS/LENGTH` or `ADDRESS`. Nil if it is neither, or if bits beyond the prefix are set:
    /// `10.0.0.1/8` is more likely a slip than a wish.
    package init?(octets: ArraySlice<UInt8>) {
        let parts = octets.split(separator: 0x2F, maxSplits: 1, omittingEmptySubsequences: false)
        guard let first = parts.first, let base = IPAddress(octets: first) else { return nil }
        let width = if case .v4 = base { 32 } else { 128 }
        var length = width
        if parts.count == 2 {
            guard let number = parts[1].decimal(limit: UInt64(width)) else { return nil }
            length = Int(number)
        }
        self.base = base
        self.prefixLength = length
        guard Self.masked(base, length) == base else { return nil }
    }

    package init?(text: String) { self.init(octets: Array(text.utf8)) }

    package func contains(_ address: IPAddress) -> Bool {
        switch (self.base, address) {
        case (.v4, .v4), (.v6, .v6): Self.masked(address, self.prefixLength) == self.base
        case (.v4, .v6), (.v6, .v4): false
        }
    }

    private static func masked(_ address: IPAddress, _ length: Int) -> IPAddress {
        switch address {
        case .v4(let bits):
            return .v4(length == 0 ? 0 : bits & (UInt32.max << UInt32(32 - length)))
        case .v6(let high, let low):
            let highMask: UInt64 = length >= 64 ? .max : (length == 0 ? 0 : .max << UInt64(64 - length))
            let lowMask: UInt64 = length <= 64 ? 0 : (length == 128 ? .max : .max << UInt64(128 - length))
            return .v6(high & highMask, low & lowMask)
        }
    }
}
