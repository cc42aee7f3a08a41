// SPDX-License-Identifier: Apache-2.0

import Cryptography
import MailTypes
import PipeCore
import QueueCore

/// The settings of apus-queue, checked. Documentation/settings-queue.md describes them.
struct QueueSettings: Equatable, Sendable {
    /// The directory of the environment; it must exist.
    let directory: String
    let isPaused: Bool
    /// From the acceptance until a deferral becomes a failure.
    let lifetime: Duration
    /// Of one message, without what the queue puts in front.
    let messageOctetCountMax: UInt64
    /// Of one message, aliases expanded.
    let recipientCountMax: Int
    /// Octets that stay free on the disk for what is in the queue already.
    let reserve: UInt64
    /// Octets that the data file may grow to.
    let sizeMax: Int
    /// Octets of just accepted content that are kept in memory.
    let cacheOctetCountMax: Int
    /// Deliveries under way have so long to end after the wish to stop.
    let stopTimeout: Duration
    let scheduler: SchedulerLimits
    /// What apus-remote asks of other servers, to explain it.
    let destinations: DestinationTable
    /// What makes reverse-paths of mail that is forwarded; nil: they stay.
    let rewriting: SenderRewriting?
    /// In lower case: senders there are ours.
    let ownDomains: Set<[UInt8]>
    private let highPrioritySenders: [SenderPattern]
    private let lowPrioritySenders: [SenderPattern]
    private let verpSenders: [SenderPattern]

    private static let names: Set<String> = [
        "directory", "paused", "lifetime", "retry-min", "retry-max", "message-size-max", "recipients-max", "reserve",
        "size-max", "cache-size", "deliveries-max", "destination-deliveries-max", "delivery-recipients-max",
        "window-recipients-max", "high-priority-sender", "low-priority-sender", "destination", "delay-report-after",
        "verp-sender", "remote-tls", "srs-domain", "srs-secret", "local-domain", "stop-timeout",
    ]

    init(_ table: SettingsTable) throws(SettingsFault) {
        if let name = table.unknownName(known: Self.names) { throw SettingsFault(name, "no such setting") }
        self.directory = try table.required("directory")
        self.isPaused = try table.boolean("paused", default: false)
        let year = 366 * 86_400
        self.lifetime = try table.duration("lifetime", in: 1...year, default: .seconds(5 * 86_400))
        let retryMinimum = try table.duration("retry-min", in: 1...year, default: .seconds(300))
        let retryMaximum = try table.duration("retry-max", in: 1...year, default: .seconds(4 * 3_600))
        guard retryMinimum <= retryMaximum else { throw SettingsFault("retry-max", "must not be below retry-min") }
        let large = 1 << 46
        self.messageOctetCountMax = UInt64(
            try table.integer("message-size-max", in: 1...large, default: 50 << 20))
        self.recipientCountMax = try table.integer("recipients-max", in: 1...100_000, default: 10_000)
        self.reserve = UInt64(try table.integer("reserve", in: 0...large, default: 128 << 20))
        self.sizeMax = try table.integer("size-max", in: (16 << 20)...large, default: 1 << 40)
        self.cacheOctetCountMax = try table.integer("cache-size", in: 0...(1 << 30), default: 8 << 20)
        self.stopTimeout = try table.duration("stop-timeout", in: 1...3_600, default: .seconds(20))
        let delayReportAge = try table.duration("delay-report-after", in: 0...year, default: .seconds(4 * 3_600))
        self.destinations = try DestinationTable(table, tlsName: "remote-tls")
        self.scheduler = SchedulerLimits(
            recipientCountMax: try table.integer("window-recipients-max", in: 100...1_000_000, default: 20_000),
            deliveryCountMax: try table.integer("deliveries-max", in: 1...100_000, default: 2_000),
            destinationDeliveryCountMax: try table.integer("destination-deliveries-max", in: 1...10_000, default: 20),
            recipientCountPerDeliveryMax: try table.integer("delivery-recipients-max", in: 1...1_000, default: 100),
            retry: RetrySchedule(minimum: retryMinimum, maximum: retryMaximum),
            lifetime: self.lifetime,
            rules: self.destinations.settings.map { setting in
                DestinationRule(
                    pattern: setting.pattern,
                    terms: DestinationTerms(
                        deliveryCountMax: setting.numbers["connections-max"],
                        deliveriesPerMinuteMax: setting.numbers["messages-per-minute-max"]))
            },
            delayReportAge: delayReportAge > .zero ? delayReportAge : nil)
        self.rewriting = try SenderRewriting(table)
        self.ownDomains = Set(table.texts("local-domain").map { Array($0.utf8).lowercasedOctets })
        let expected = "a sender such as user@example.org, @example.org, @*.example.org or <>"
        self.highPrioritySenders = try table.values("high-priority-sender", expected) { SenderPattern(text: $0) }
        self.lowPrioritySenders = try table.values("low-priority-sender", expected) { SenderPattern(text: $0) }
        self.verpSenders = try table.values("verp-sender", expected) { SenderPattern(text: $0) }
    }

    /// Whether each recipient's copy has a reverse-path of its own.
    func isVERP(_ mail: MailRequest) -> Bool {
        guard mail.reversePath != .null else { return false }
        return mail.isVERP || self.verpSenders.contains { $0.matches(mail.reversePath) }
    }

    /// How urgent a message is: what is said of its sender here, otherwise what its submitter wishes.
    func priority(of mail: MailRequest) -> MailPriority {
        if self.highPrioritySenders.contains(where: { $0.matches(mail.reversePath) }) { return .high }
        if self.lowPrioritySenders.contains(where: { $0.matches(mail.reversePath) }) { return .low }
        return mail.priority
    }
}
