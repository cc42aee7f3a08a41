// SPDX-License-Identifier: Apache-2.0

/// The coding of values that stand behind `=` in a command (RFC 3461 §4): what is no printable character, or is `+` or
/// `=`, is written as `+` and two hexadecimal digits.
package enum Xtext {
    private static let digits = Array("0123456789ABCDEF".utf8)

    package static func encode(_ octets: some Collection<UInt8>) -> [UInt8] {
        var coded: [UInt8] = []
        for octet in octets {
            if (0x21...0x7E).contains(octet), octet != 0x2B, octet != ASCII.equals {
                coded.append(octet)
            } else {
                coded += [0x2B, Self.digits[Int(octet >> 4)], Self.digits[Int(octet & 15)]]
            }
        }
        return coded
    }

    /// Nil if the octets are no xtext.
    package static func decode(_ octets: some Collection<UInt8>) -> [UInt8]? {
        var decoded: [UInt8] = []
        var rest = Array(octets)[...]
        while let octet = rest.popFirst() {
            guard (0x21...0x7E).contains(octet), octet != ASCII.equals else { return nil }
            guard octet == 0x2B else {
                decoded.append(octet)
                continue
            }
            guard let high = rest.popFirst().flatMap(Self.value), let low = rest.popFirst().flatMap(Self.value) else {
                return nil
            }
            decoded.append(high << 4 | low)
        }
        return decoded
    }

    /// UTF-8 as utf-8-addr-xtext (RFC 6533 §3): printable characters, any other one as `\x{HEX}`.
    package static func encodeUnicode(_ octets: [UInt8]) -> [UInt8] {
        var coded: [UInt8] = []
        for scalar in String(decoding: octets, as: UTF8.self).unicodeScalars {
            switch scalar.value {
            case 0x2B, 0x3D, 0x5C: Self.append(scalar, to: &coded)
            case 0x21...0x7E: coded.append(UInt8(scalar.value))
            default: Self.append(scalar, to: &coded)
            }
        }
        return coded
    }

    static func append(_ scalar: Unicode.Scalar, to coded: inout [UInt8]) {
        coded += Array("\\x{".utf8)
        var digits: [UInt8] = []
        var rest = scalar.value
        repeat {
            digits.append(Self.digits[Int(rest & 15)])
            rest >>= 4
        } while rest > 0 || digits.count < 2
        coded += digits.reversed()
        coded.append(0x7D)
    }

    /// The UTF-8 that utf-8-addr-xtext (RFC 6533 §3) stands for: printable characters, any other one as `\x{HEX}`. Nil if the
    /// octets are none.
    ///
    /// - Parameter allowsUnicode: whether they may be utf-8-addr-unitext: UTF-8 stands for itself as well.
    package static func decodeUnicode(_ octets: [UInt8], allowsUnicode: Bool = true) -> [UInt8]? {
        guard !octets.isEmpty, !allowsUnicode || octets.isAddressText else { return nil }
        var decoded: [UInt8] = []
        var rest = octets[...]
        while let octet = rest.popFirst() {
            if octet >= 0x80, allowsUnicode {
                decoded.append(octet)
                continue
            }
            guard (0x21...0x7E).contains(octet), octet != ASCII.equals, octet != 0x2B else { return nil }
            guard octet == ASCII.backslash else {
                decoded.append(octet)
                continue
            }
            guard let units = Self.scalar(&rest).flatMap({ UTF8.encode($0) }) else { return nil }
            decoded += units
        }
        return decoded
    }

    /// Whether the octets are utf-8-addr-xtext, or utf-8-addr-unitext.
    package static func isUnicodeXtext(_ octets: [UInt8], allowsUnicode: Bool = false) -> Bool {
        Self.decodeUnicode(octets, allowsUnicode: allowsUnicode) != nil
    }

    /// The character that stands as `x{HEX}` at the beginning, which is taken off.
    private static func scalar(_ rest: inout ArraySlice<UInt8>) -> Unicode.Scalar? {
        guard rest.popFirst() == 0x78, rest.popFirst() == 0x7B, let end = rest.firstIndex(of: 0x7D) else { return nil }
        let number = rest[..<end]
        rest = rest[(end + 1)...]
        guard (2...6).contains(number.count) else { return nil }
        var scalar: UInt32 = 0
        for digit in number {
            guard let value = Self.value(digit) else { return nil }
            scalar = scalar << 4 | UInt32(value)
        }
        // What a control character would do in a report must not be tried.
        guard scalar >= 0x20, !(0x7F...0x9F).contains(scalar) else { return nil }
        return Unicode.Scalar(scalar)
    }

    /// RFC 3461 has capitals only.
    private static func value(_ digit: UInt8) -> UInt8? {
        switch digit {
        case 0x30...0x39: digit - 0x30
        case 0x41...0x46: digit - 0x41 + 10
        default: nil
        }
    }
}
