// SPDX-License-Identifier: Apache-2.0
//
// Which addresses a user may send as:
//
//     # user: address, @domain
//     alice: alice@example.org, sales@example.org
//     news: @lists.example.org
//     root: *

package import MailTypes

/// The table, read and checked.
package struct SenderTable: Equatable, Sendable {
    private enum Pattern: Equatable, Sendable {
        case any
        /// In lower case.
        case address([UInt8])
        /// In lower case.
        case domain([UInt8])
    }

    private var patterns: [[UInt8]: [Pattern]] = [:]
    /// The other lines are good.
    package private(set) var faults: [LineFault] = []

    package static let octetCountMax = 16 << 20

    package init() {}

    /// - Parameter domains: how those beyond ASCII are written.
    package init(octets: [UInt8], domains: DomainMapping = .none) {
        for (index, line) in octets.split(separator: ASCII.lineFeed, omittingEmptySubsequences: false).enumerated() {
            let text = Self.trimmed(line)
            guard let first = text.first, first != 0x23 else { continue }
            guard let colon = text.firstIndex(of: ASCII.colon), colon > text.startIndex else {
                self.faults.append(LineFault(line: index + 1, text: "expected user: address, @domain"))
                continue
            }
            let user = Self.trimmed(text[..<colon]).lowercasedOctets
            // A user with a line has what the line says, even if that is nothing.
            self.patterns[user, default: []] += []
            for word in text[(colon + 1)...].split(separator: 0x2C).map(Self.trimmed) where !word.isEmpty {
                if let pattern = Self.pattern(word, domains) {
                    self.patterns[user]?.append(pattern)
                } else {
                    self.faults.append(LineFault(line: index + 1, text: "\(word.printableText) is no address"))
                }
            }
        }
    }

    package var userCount: Int { self.patterns.count }

    /// Whether a user may send as an address; nil if the table has no line for the user.
    ///
    /// - Parameter user: in lower case.
    package func allows(_ user: [UInt8], _ address: MailAddress) -> Bool? {
        guard let patterns = self.patterns[user] else { return nil }
        let octets = address.octets.lowercasedOctets
        let domain = address.domain.lowercasedOctets
        return patterns.contains { pattern in
            switch pattern {
            case .any: true
            case .address(let known): known == octets
            case .domain(let known): known == domain
            }
        }
    }

    private static func pattern(_ word: ArraySlice<UInt8>, _ domains: DomainMapping) -> Pattern? {
        if word.elementsEqual("*".utf8) { return .any }
        if word.first == ASCII.at { return domains.ascii(word.dropFirst()).map { .domain($0.lowercasedOctets) } }
        return MailAddress(octets: word, domains: domains).map { .address($0.octets.lowercasedOctets) }
    }

    private static func trimmed(_ text: ArraySlice<UInt8>) -> ArraySlice<UInt8> {
        LineFile.trimmed(text, isBlank: \.isTableBlank)
    }
}
