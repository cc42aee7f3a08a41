// SPDX-License-Identifier: Apache-2.0

/// How urgent a message is against others that wait for the same place: it goes first, and the others still go.
package enum MailPriority: UInt8, Hashable, Comparable, Sendable, CaseIterable {
    case low
    case normal
    case high

    package init?(octets: ArraySlice<UInt8>) {
        for priority in Self.allCases where octets.elementsEqual(priority.text.utf8) {
            self = priority
            return
        }
        return nil
    }

    /// `low`, `normal`, `high`: the word in settings, frames and tools.
    package var text: String {
        switch self {
        case .low: "low"
        case .normal: "normal"
        case .high: "high"
        }
    }

    package var octets: [UInt8] { Array(self.text.utf8) }

    package static func < (left: MailPriority, right: MailPriority) -> Bool { left.rawValue < right.rawValue }
}
