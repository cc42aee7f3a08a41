// SPDX-License-Identifier: Apache-2.0

/// How much of the scheduler each sender has. A sender with much leaves a rest for those who have little.
struct SenderBook: Sendable {
    private struct Load {
        /// Recipients in memory, or asked from the disk.
        var recipientCount = 0
        /// Under way, by kind of agent: what a list sends to the world must not hold up its mail for people here.
        var deliveryCounts = InlineArray<3, Int>(repeating: 0)

        var isNothing: Bool {
            self.recipientCount <= 0 && self.deliveryCounts.indices.allSatisfy { self.deliveryCounts[$0] <= 0 }
        }
    }

    private var loads: [UInt32: Load] = [:]

    /// With so few recipients in memory a sender gets in as long as there is any room.
    private static let smallRecipientCount = 20
    /// With so few deliveries under way a sender goes in front when there are few left to begin.
    private static let smallDeliveryCount = 4
    /// A sender may have so many times as many deliveries under way as are left for all. So one sender alone gets three
    /// quarters of them, two senders three sevenths each, and whoever comes finds some.
    private static let shareOfRest = 3

    func isSmall(_ sender: UInt32) -> Bool {
        (self.loads[sender]?.recipientCount ?? 0) < Self.smallRecipientCount
    }

    /// Whether a sender may begin a delivery when `restCount` more can be begun by all, with agents of that kind.
    func mayBegin(_ sender: UInt32, _ kind: AgentKind, restCount: Int) -> Bool {
        let count = self.loads[sender]?.deliveryCounts[kind.rawValue] ?? 0
        return count == 0 || count < restCount.multipliedReportingOverflow(by: Self.shareOfRest).partialValue
    }

    func goesInFront(_ sender: UInt32, _ kind: AgentKind) -> Bool {
        (self.loads[sender]?.deliveryCounts[kind.rawValue] ?? 0) < Self.smallDeliveryCount
    }

    mutating func add(_ sender: UInt32, recipients: Int) {
        self.loads[sender, default: Load()].recipientCount += recipients
        if let load = self.loads[sender], load.isNothing { self.loads[sender] = nil }
    }

    mutating func add(_ sender: UInt32, deliveries: Int, _ kind: AgentKind) {
        self.loads[sender, default: Load()].deliveryCounts[kind.rawValue] += deliveries
        if let load = self.loads[sender], load.isNothing { self.loads[sender] = nil }
    }
}
