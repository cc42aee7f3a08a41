// SPDX-License-Identifier: Apache-2.0

/// The queue's number of a message: microseconds since 1970 at acceptance, never used twice.
///
/// Shown as thirteen characters of base 32 (digits and lower-case letters without i, l, o, u), whose
/// order as text is the order of the numbers. The same word stands in `Received:`, logs and tools.
package struct MessageID: Hashable, Comparable, Sendable {
    package let rawValue: UInt64

    package init(rawValue: UInt64) { self.rawValue = rawValue }

    private static let alphabet: [UInt8] = Array("0123456789abcdefghjkmnpqrstvwxyz".utf8)

    /// Thirteen octets of base 32.
    package var octets: [UInt8] {
        let alphabet = Self.alphabet
        return [UInt8](count: 13) { place in
            alphabet[Int(truncatingIfNeeded: (self.rawValue &>> UInt64(5 * (12 - place))) & 31)]
        }
    }

    /// The same as text, for tools and tests.
    package var text: String { String(decoding: self.octets, as: UTF8.self) }

    package init?(octets: [UInt8]) { self.init(octets: octets[...]) }

    /// Reads what `octets` writes; letters of either case. Nil for anything else.
    package init?(octets: ArraySlice<UInt8>) {
        guard octets.count == 13 else { return nil }
        var value: UInt64 = 0
        let digits = Self.digits
        for octet in octets {
            guard octet < 128, digits[Int(octet)] < 32 else { return nil }
            // The first character carries the four uppermost bits only.
            guard value < 1 << 59 else { return nil }
            value = value << 5 | UInt64(digits[Int(octet)])
        }
        self.rawValue = value
    }

    /// The value of each ASCII character as a digit, 32 if it is none.
    private static let digits: [UInt8] = (0..<128).map { octet in
        Self.alphabet.firstIndex(of: UInt8(octet).lowercased).map { UInt8($0) } ?? 32
    }

    package static func < (left: MessageID, right: MessageID) -> Bool { left.rawValue < right.rawValue }
}

extension Array where Element == UInt8 {
    /// An array of `count` octets, each made from its place.
    fileprivate init(count: Int, _ octet: (Int) -> UInt8) {
        self = []
        self.reserveCapacity(count)
        for place in 0..<count { self.append(octet(place)) }
    }
}
