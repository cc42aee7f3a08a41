// SPDX-License-Identifier: Apache-2.0
//
// Reports go to addresses that anybody can forge: how many, and to whom none.

package import MailTypes
package import MessageCore

/// How many reports may be sent.
package struct ReportLimits: Hashable, Sendable {
    /// To one address within an hour; nil: any number.
    package let perAddressPerHour: Int?
    /// To all together within a minute; nil: any number.
    package let perMinute: Int?

    package init(perAddressPerHour: Int? = nil, perMinute: Int? = nil) {
        self.perAddressPerHour = perAddressPerHour
        self.perMinute = perMinute
    }
}

/// Counts reports against their limits, in hours and minutes that begin with the first report in them.
package struct ReportCounter: Sendable {
    package enum Verdict: Hashable, Sendable {
        case allowed
        /// The address has had as many as it may have.
        case addressExceeded
        /// All have, for now.
        case allExceeded
    }

    /// So many addresses are known at once. Those beyond have the limit of all alone.
    package static let addressCountMax = 50_000

    private var hourStart = Timestamp(microseconds: 0)
    private var counts: [[UInt8]: Int] = [:]
    private var minuteStart = Timestamp(microseconds: 0)
    private var minuteCount = 0

    package init() {}

    /// Asks for one more report, and counts it if it is allowed.
    package mutating func allow(_ address: MailAddress, _ limits: ReportLimits, at now: Timestamp) -> Verdict {
        // A clock that was set back begins anew as well.
        if now < self.minuteStart || now.elapsed(since: self.minuteStart) >= .seconds(60) {
            self.minuteStart = now
            self.minuteCount = 0
        }
        if now < self.hourStart || now.elapsed(since: self.hourStart) >= .seconds(3_600) {
            self.hourStart = now
            self.counts.removeAll(keepingCapacity: true)
        }
        let key = address.octets.lowercasedOctets
        let count = self.counts[key] ?? 0
        if let most = limits.perAddressPerHour, count >= most { return .addressExceeded }
        if let most = limits.perMinute, self.minuteCount >= most { return .allExceeded }
        self.minuteCount += 1
        if limits.perAddressPerHour != nil, count > 0 || self.counts.count < Self.addressCountMax {
            self.counts[key] = count + 1
        }
        return .allowed
    }
}

/// Mail whose sender gets no report that he has not asked for and does not need: of a delay.
///
/// RFC 3834 §2 keeps automatic answers from lists and from what is automatic itself. A failure is reported to them all
/// the same, as those who run lists live by it.
package enum BulkMail {
    package static func isBulk(_ sender: MailAddress, _ header: HeaderFields) -> Bool {
        let name = sender.unquotedLocalPart.lowercasedOctets
        if name.starts(with: "owner-".utf8) || name.reversed().starts(with: "-request".utf8.reversed()) { return true }
        if header.value(of: "List-Id") != nil { return true }
        if let precedence = header.value(of: "Precedence"),
            ["bulk", "junk", "list"].contains(where: { precedence.equalsIgnoringCase($0.utf8) })
        {
            return true
        }
        guard let automatic = header.value(of: "Auto-Submitted") else { return false }
        let word = automatic.prefix { $0 != 0x3B && $0 != ASCII.space }
        return !word.equalsIgnoringCase("no".utf8)
    }
}
