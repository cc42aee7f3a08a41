// SPDX-License-Identifier: Apache-2.0

/// An enhanced mail system status code (RFC 3463 §2), such as `5.1.1`.
package struct EnhancedStatus: Hashable, Sendable {
    /// What the first number says; a status of another class cannot be built.
    package enum Class: UInt8, Hashable, Sendable {
        case success = 2
        case transient = 4
        case permanent = 5
    }

    package let statusClass: Class
    /// 0…999.
    package let subject: UInt16
    /// 0…999.
    package let detail: UInt16

    /// - Precondition: `subject` and `detail` are at most 999.
    package init(_ statusClass: Class, _ subject: UInt16, _ detail: UInt16) {
        precondition(subject <= 999 && detail <= 999)
        self.statusClass = statusClass
        self.subject = subject
        self.detail = detail
    }

    package init?(octets: [UInt8]) { self.init(octets: octets[...]) }

    /// Reads `class.subject.detail`; nil if the octets are anything else.
    package init?(octets: ArraySlice<UInt8>) {
        var numbers = InlineArray<3, UInt16>(repeating: 0)
        var place = 0
        var digitCount = 0
        for octet in octets {
            if octet == ASCII.dot {
                guard digitCount > 0, place < 2 else { return nil }
                place += 1
                digitCount = 0
            } else {
                guard octet.isDigit, digitCount < 3 else { return nil }
                numbers[place] = numbers[place] * 10 + UInt16(octet - 0x30)
                digitCount += 1
            }
        }
        guard place == 2, digitCount > 0, numbers[0] <= 5, let statusClass = Class(rawValue: UInt8(numbers[0]))
        else { return nil }
        self.init(statusClass, numbers[1], numbers[2])
    }

    /// `5.1.1` as octets.
    package var octets: [UInt8] {
        var octets: [UInt8] = []
        octets.reserveCapacity(8)
        self.append(to: &octets)
        return octets
    }

    /// Appends what `octets` is.
    package func append(to octets: inout [UInt8]) {
        octets.append(0x30 + self.statusClass.rawValue)
        octets.append(ASCII.dot)
        octets.append(decimal: self.subject)
        octets.append(ASCII.dot)
        octets.append(decimal: self.detail)
    }
}
