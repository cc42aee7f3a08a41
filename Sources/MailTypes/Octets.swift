// SPDX-License-Identifier: Apache-2.0
//
// Mail is octets. What this file offers works on ASCII alone and never interprets anything else:
// no case mapping of other alphabets, no repair of what is not UTF-8.

/// The octets that mail protocols give a meaning.
///
/// Computed, and the type usable from inline: only so do other modules see numbers where they would make a call each.
@usableFromInline package enum ASCII {
    @inlinable package static var nul: UInt8 { 0x00 }
    @inlinable package static var tab: UInt8 { 0x09 }
    @inlinable package static var lineFeed: UInt8 { 0x0A }
    @inlinable package static var carriageReturn: UInt8 { 0x0D }
    @inlinable package static var space: UInt8 { 0x20 }
    @inlinable package static var quote: UInt8 { 0x22 }
    @inlinable package static var hyphen: UInt8 { 0x2D }
    @inlinable package static var dot: UInt8 { 0x2E }
    @inlinable package static var colon: UInt8 { 0x3A }
    @inlinable package static var less: UInt8 { 0x3C }
    @inlinable package static var equals: UInt8 { 0x3D }
    @inlinable package static var greater: UInt8 { 0x3E }
    @inlinable package static var at: UInt8 { 0x40 }
    @inlinable package static var backslash: UInt8 { 0x5C }
}

extension UInt8 {
    /// `0`…`9`.
    @inlinable package var isDigit: Bool { self >= 0x30 && self <= 0x39 }
    /// `A`…`Z`, `a`…`z`.
    @inlinable package var isLetter: Bool {
        let folded = self | 0x20
        return folded >= 0x61 && folded <= 0x7A
    }
    /// A letter or a digit (RFC 5321 §4.1.2, Let-dig).
    @inlinable package var isLetterOrDigit: Bool { self.isDigit || self.isLetter }
    /// Printable ASCII, the space included.
    @inlinable package var isPrintable: Bool { self >= 0x20 && self <= 0x7E }
    /// The letter in lower case; every other octet as it is.
    @inlinable package var lowercased: UInt8 { self >= 0x41 && self <= 0x5A ? self | 0x20 : self }
    /// The letter in upper case; every other octet as it is.
    @inlinable package var uppercased: UInt8 { self >= 0x61 && self <= 0x7A ? self & 0xDF : self }
}

extension Collection where Element == UInt8 {
    /// The octets with ASCII letters in lower case.
    @inlinable package var lowercasedOctets: [UInt8] { self.map(\.lowercased) }

    /// Whether no octet is beyond ASCII.
    @inlinable package var isASCII: Bool {
        for octet in self where octet >= 0x80 { return false }
        return true
    }

    /// Whether the octets are UTF-8 that an address may have: without the control characters U+0080 to U+009F, with which
    /// somebody else's address would steer the terminal of who reads it, and without U+FFFD, which stands for octets that
    /// were lost.
    package var isAddressText: Bool {
        guard let text = String(validating: self, as: UTF8.self) else { return false }
        return text.unicodeScalars.allSatisfy { !(0x80...0x9F).contains($0.value) && $0.value != 0xFFFD }
    }

    /// Whether both are the same but for the case of ASCII letters.
    @inlinable package func equalsIgnoringCase(_ other: some Collection<UInt8>) -> Bool {
        self.count == other.count && self.elementsEqual(other) { $0.lowercased == $1.lowercased }
    }

    /// The decimal number that the octets spell, or nil if they spell none or one above `limit`.
    ///
    /// At least one digit, digits only, no sign; leading zeros are accepted.
    @inlinable package func decimal(limit: UInt64 = .max) -> UInt64? {
        guard !self.isEmpty, self.count <= 20 else { return nil }
        var value: UInt64 = 0
        for octet in self {
            guard octet.isDigit else { return nil }
            let (product, overflow) = value.multipliedReportingOverflow(by: 10)
            let (sum, carry) = product.addingReportingOverflow(UInt64(octet - 0x30))
            guard !overflow, !carry, sum <= limit else { return nil }
            value = sum
        }
        return value
    }

    /// Text for a person or a log, with `?` for everything that is not printable ASCII.
    @inlinable package var printableText: String {
        var text = ""
        text.reserveCapacity(self.count)
        for octet in self {
            text.unicodeScalars.append(octet.isPrintable ? Unicode.Scalar(octet) : "?")
        }
        return text
    }
}

extension Array where Element == UInt8 {
    /// Whether no octet is beyond ASCII. Not generic: every address is asked.
    @inlinable package var isASCII: Bool {
        for index in self.indices where self[index] >= 0x80 { return false }
        return true
    }

    /// The UTF-8 octets of a text of ours.
    package init(text: String) { self = Array(text.utf8) }

    /// The octets with `?` for everything that is not printable ASCII.
    package init(printable octets: ArraySlice<UInt8>) {
        self = Array(octets)
        for index in self.indices where !self[index].isPrintable { self[index] = 0x3F }
    }

    /// Appends the octets of a text of ours.
    package mutating func append(text: StaticString) {
        // Safety: the octets of a literal never move nor end, and are only copied from here.
        text.withUTF8Buffer { octets in unsafe self.append(contentsOf: octets) }
    }

    /// Appends the octets of a text of ours.
    package mutating func append(text: String) { self.append(contentsOf: text.utf8) }

    /// Appends a number in decimal.
    @inlinable package mutating func append(decimal value: some BinaryInteger) {
        if value < 0 { self.append(0x2D) }
        self.append(digitsOf: UInt64(value.magnitude))
    }

    /// Appends a number in decimal: all that is not generic of it.
    @usableFromInline package mutating func append(digitsOf value: UInt64) {
        guard value > 9 else { return self.append(0x30 + UInt8(truncatingIfNeeded: value)) }
        var rest = value
        var digits = InlineArray<20, UInt8>(repeating: 0)
        var first = 20
        while rest > 0 {
            first -= 1
            digits[first] = 0x30 + UInt8(truncatingIfNeeded: rest % 10)
            rest /= 10
        }
        // Safety: the pointer is used inside the closure only; Array has no append for a span yet.
        unsafe digits.span.extracting(first...).withUnsafeBufferPointer { unsafe self.append(contentsOf: $0) }
    }
}

extension UInt64 {
    /// How many digits the number has in decimal.
    package var digitCount: Int {
        var count = 1
        var rest = self / 10
        while rest > 0 {
            count += 1
            rest /= 10
        }
        return count
    }
}
