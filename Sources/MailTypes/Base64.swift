// SPDX-License-Identifier: Apache-2.0

/// Base64 with the alphabet and the padding of RFC 4648 §4, without line ends.
package enum Base64 {
    private static let alphabet = Array("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".utf8)

    package static func encode(_ octets: some Collection<UInt8>) -> [UInt8] {
        var text: [UInt8] = []
        text.reserveCapacity((octets.count + 2) / 3 * 4)
        var bits: UInt32 = 0
        var count = 0
        for octet in octets {
            bits = bits << 8 | UInt32(octet)
            count += 1
            guard count == 3 else { continue }
            for shift in [UInt32(18), 12, 6, 0] { text.append(Self.alphabet[Int(bits >> shift & 63)]) }
            (bits, count) = (0, 0)
        }
        if count == 1 {
            text.append(Self.alphabet[Int(bits >> 2 & 63)])
            text.append(Self.alphabet[Int(bits << 4 & 63)])
            text += [ASCII.equals, ASCII.equals]
        } else if count == 2 {
            text.append(Self.alphabet[Int(bits >> 10 & 63)])
            text.append(Self.alphabet[Int(bits >> 4 & 63)])
            text.append(Self.alphabet[Int(bits << 2 & 63)])
            text.append(ASCII.equals)
        }
        return text
    }

    /// What the text stands for; nil for anything that `encode` would not have written: another length than a multiple
    /// of four, an octet outside of the alphabet, padding elsewhere than at the end, bits that are set behind it.
    package static func decode(_ text: some Collection<UInt8>) -> [UInt8]? {
        guard text.count % 4 == 0 else { return nil }
        var octets: [UInt8] = []
        octets.reserveCapacity(text.count / 4 * 3)
        var bits: UInt32 = 0
        var count = 0
        var paddingCount = 0
        for octet in text {
            if octet == ASCII.equals {
                paddingCount += 1
                guard paddingCount <= 2 else { return nil }
            } else {
                guard paddingCount == 0, let value = Self.value(octet) else { return nil }
                bits = bits << 6 | value
                count += 1
                guard count == 4 else { continue }
                for shift in [UInt32(16), 8, 0] { octets.append(UInt8(truncatingIfNeeded: bits >> shift)) }
                (bits, count) = (0, 0)
            }
        }
        switch (count, paddingCount) {
        case (0, 0): break
        case (2, 2) where bits & 0xF == 0: octets.append(UInt8(truncatingIfNeeded: bits >> 4))
        case (3, 1) where bits & 0x3 == 0:
            octets.append(UInt8(truncatingIfNeeded: bits >> 10))
            octets.append(UInt8(truncatingIfNeeded: bits >> 2))
        default: return nil
        }
        return octets
    }

    private static func value(_ octet: UInt8) -> UInt32? {
        switch octet {
        case 0x41...0x5A: UInt32(octet) - 0x41
        case 0x61...0x7A: UInt32(octet) - 0x61 + 26
        case 0x30...0x39: UInt32(octet) - 0x30 + 52
        case 0x2B: 62
        case 0x2F: 63
        default: nil
        }
    }
}
