// SPDX-License-Identifier: Apache-2.0

package import MailTypes

/// What is asked of a server that mail is handed to.
///
/// A later demand (DANE, MTA-STS) is one more word here, found for each domain instead of set.
package enum TLSDemand: String, CaseIterable, Sendable {
    /// Plain text.
    case off
    /// STARTTLS if it is offered, whatever the certificate; plain text otherwise.
    case may
    /// STARTTLS, whatever the certificate.
    case require
    /// STARTTLS, and a certificate for the host's name that an authority vouches for.
    case verify
    /// The same, before the greeting (RFC 8314 §3.3).
    case implicit

    /// For texts about a word that is none of them.
    package static var list: String { Self.allCases.map(\.rawValue).joined(separator: ", ") }
}

/// A `[[destination]]` as programs are handed it: a pattern, then `name=value` words.
///
///     *.example.org connections-max=5 messages-per-minute-max=60 tls=verify
///
/// Each program takes from it what concerns it.
package struct DestinationSetting: Equatable, Sendable {
    package let pattern: DomainPattern
    /// The pattern as it was written.
    package let name: String
    package let numbers: [String: Int]
    /// What is asked of these hosts; nil for what is asked of all.
    package let tls: TLSDemand?
    /// As whom we authenticate ourselves to these hosts; nil: we do not.
    package let user: [UInt8]?

    /// The names of the numbers, with what each may be.
    package static let ranges: [(name: String, range: ClosedRange<Int>)] = [
        ("connections-max", 1...10_000), ("messages-per-connection-max", 1...1_000_000),
        ("messages-per-minute-max", 1...1_000_000),
    ]

    /// All values of `destination`, in order: the first whose pattern matches counts.
    package static func all(_ table: SettingsTable) throws(SettingsFault) -> [DestinationSetting] {
        var settings: [DestinationSetting] = []
        for text in table.texts("destination") { settings.append(try Self(text)) }
        return settings
    }

    private init(_ text: String) throws(SettingsFault) {
        var words = text.split(separator: " ").map(String.init)[...]
        let name = words.popFirst() ?? ""
        guard let pattern = DomainPattern(text: name) else {
            throw SettingsFault("destination", "\(text) does not begin with a domain, *.domain or *")
        }
        var numbers: [String: Int] = [:]
        var tls: TLSDemand?
        var user: [UInt8]?
        for word in words {
            let parts = word.split(separator: "=", maxSplits: 1).map(String.init)
            if parts.count == 2, parts[0] == "user" {
                guard parts[1].utf8.count <= SASLLimits.userOctetCountMax else {
                    throw SettingsFault("destination", "user is longer than \(SASLLimits.userOctetCountMax) octets")
                }
                user = Array(parts[1].utf8)
                continue
            }
            if parts.count == 2, parts[0] == "tls" {
                guard let demand = TLSDemand(rawValue: parts[1]) else {
                    throw SettingsFault("destination", "\(word) is not one of \(TLSDemand.list)")
                }
                tls = demand
                continue
            }
            guard parts.count == 2, let known = Self.ranges.first(where: { $0.name == parts[0] }),
                let number = Int(parts[1]), known.range.contains(number)
            else { throw SettingsFault("destination", "\(word) is not one of its limits") }
            numbers[known.name] = number
        }
        self.pattern = pattern
        self.name = name
        self.numbers = numbers
        self.tls = tls
        self.user = user
    }
}

/// What is asked of the hosts of each next hop: by apus-remote, which holds to it, and by apus-queue, which explains it.
package struct DestinationTable: Equatable, Sendable {
    package let settings: [DestinationSetting]
    private let tls: TLSDemand

    /// - Parameter tlsName: under which name the table says what is asked of all.
    package init(_ table: SettingsTable, tlsName: String) throws(SettingsFault) {
        guard let tls = TLSDemand(rawValue: table.text(tlsName, default: TLSDemand.may.rawValue)) else {
            throw SettingsFault(tlsName, "must be one of \(TLSDemand.list)")
        }
        self.tls = tls
        self.settings = try DestinationSetting.all(table)
    }

    /// What is said of this next hop alone: the first whose pattern matches.
    package func setting(_ nextHop: NextHop) -> DestinationSetting? {
        self.settings.first { $0.pattern.matches(nextHop) }
    }

    /// What is asked of the hosts of this next hop.
    package func tls(_ nextHop: NextHop) -> TLSDemand { self.setting(nextHop)?.tls ?? self.tls }
}
