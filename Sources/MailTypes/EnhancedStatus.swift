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
        let parts = octets.split(separator: ASCII.dot, maxSplits: 3, omittingEmptySubsequences: false)
        guard parts.count == 3, parts.allSatisfy({ (1...3).contains($0.count) }),
            let first = parts[0].decimal(limit: 5), let statusClass = Class(rawValue: UInt8(first)),
            let subject = parts[1].decimal(limit: 999), let detail = parts[2].decimal(limit: 999)
        else { return nil }
        self.init(statusClass, UInt16(subject), UInt16(detail))
    }

    /// `5.1.1` as octets.
    package var octets: [UInt8] {
        var octets: [UInt8] = []
        octets.reserveCapacity(8)
        octets.append(decimal: self.statusClass.rawValue)
        octets.append(ASCII.dot)
        octets.append(decimal: self.subject)
        octets.append(ASCII.dot)
        octets.append(decimal: self.detail)
        return octets
    }
}
