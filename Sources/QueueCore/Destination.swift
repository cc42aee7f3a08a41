// SPDX-License-Identifier: Apache-2.0

import MailTypes

/// What the scheduler knows of a destination that has, or lately had, work.
struct Destination: Sendable {
    let route: Route
    let kind: AgentKind
    var window: DestinationWindow
    /// Set while the destination is down, or was when last tried.
    var suspension: DestinationRecord?
    var waiting = WaitingLine()
    /// Recipients asked from the disk that have not come yet.
    var loadingCount = 0
    /// In which rings of destinations that can start a delivery it stands: a bit for each rank.
    var readyRanks: UInt8 = 0
    /// It is not down for longer than this from now on, whatever is written: the clock may have been ahead then.
    private var suspensionMax: Duration
    /// The time between the beginnings of two deliveries, if the administrator wants one.
    var interval: Duration?
    /// No delivery is begun before.
    var nextStart = Timestamp(microseconds: 0)
    /// Whether it waits for that time.
    var isDelayed = false
    /// Whether it stands in the ring of destinations that could be forgotten.
    var isIdleListed = false
    /// The mean time between two ends of deliveries: the speed at which waiting mail is taken off; nil until it is known.
    private var pace: Duration?
    private var paceStart: Timestamp?
    private var endCount = 0
    /// Since when mail has been put off without knowing the pace.
    private var blindSince: Timestamp?
    /// The time up to which mail that found no room in memory has been given other times.
    private var spreadUntil = Timestamp(microseconds: 0)

    init(_ route: Route, _ limits: SchedulerLimits, suspension: DestinationRecord? = nil) {
        let terms = limits.terms(of: route)
        self.route = route
        self.kind = route.agentKind
        self.suspension = suspension
        self.window = DestinationWindow(
            maximum: terms.deliveryCountMax ?? limits.destinationDeliveryCountMax, isProbing: suspension != nil)
        self.interval = terms.interval
        self.suspensionMax = Self.suspensionMax(limits)
    }

    private static func suspensionMax(_ limits: SchedulerLimits) -> Duration { limits.retry.maximum * 9 / 8 }

    /// The administrator has changed the limits.
    mutating func setLimits(_ limits: SchedulerLimits) {
        let terms = limits.terms(of: self.route)
        self.window.setMaximum(terms.deliveryCountMax ?? limits.destinationDeliveryCountMax)
        self.interval = terms.interval
        self.suspensionMax = Self.suspensionMax(limits)
    }

    /// So much may be caught up with: timers are not exact.
    private static let catchUp = Duration.milliseconds(100)

    /// A delivery begins.
    mutating func noteStart(_ now: Timestamp) {
        self.window.started()
        guard let interval = self.interval else { return }
        self.nextStart = max(self.nextStart, now.advanced(by: .zero - Self.catchUp)).advanced(by: interval)
    }

    func isSuspended(at now: Timestamp) -> Bool { self.suspendedUntil(at: now) != nil }

    /// The time before which it is not tried, as it is down; nil if it may be tried.
    func suspendedUntil(at now: Timestamp) -> Timestamp? {
        guard let until = self.suspension?.suspendedUntil, now < until,
            until <= now.advanced(by: self.suspensionMax)
        else { return nil }
        return until
    }

    /// Down when last tried, and now to be tried with one delivery.
    func isProbing(at now: Timestamp) -> Bool { self.suspension != nil && !self.isSuspended(at: now) }

    // Why these change what they look at, in one call: a destination that is only asked is copied first, with all that
    // waits at it, and they are called for every delivery.

    /// What a destination stands in line for.
    enum Want {
        case nothing
        /// Nothing before this time.
        case later(Timestamp)
        /// A delivery, and whose would be the next.
        case turn(AgentKind, MailPriority, sender: UInt32?)
    }

    /// What it wants now. One that wants something later is marked as delayed, and says so once.
    mutating func want(at now: Timestamp) -> Want {
        guard let priority = self.waiting.topPriority, self.window.hasRoom else { return .nothing }
        if self.nextStart > now {
            guard !self.isDelayed else { return .nothing }
            self.isDelayed = true
            return .later(self.nextStart)
        }
        return .turn(self.kind, priority, sender: self.waiting.nextSender)
    }

    /// Takes a place in the ring of a rank; false if it stands there or in a better one already.
    mutating func enterRing(_ rank: Int) -> Bool {
        let bit = UInt8(1) << rank
        guard self.readyRanks < bit else { return false }
        self.readyRanks |= bit
        return true
    }

    /// Leaves the ring of a rank. Whether a delivery can be begun: there is work, room in the window, and the time has come.
    mutating func leaveRing(_ rank: Int, at now: Timestamp) -> Bool {
        self.readyRanks &= ~(UInt8(1) << rank)
        return self.window.hasRoom && !self.waiting.isEmpty && self.nextStart <= now
    }

    /// Whether it is to be listed with those that could be forgotten. Told once.
    mutating func enterIdleList() -> Bool {
        guard self.isIdle, !self.isIdleListed else { return false }
        self.isIdleListed = true
        return true
    }

    var isIdle: Bool {
        self.waiting.isEmpty && self.window.inFlightCount == 0 && self.loadingCount == 0 && self.suspension == nil
    }

    /// A delivery ended at `now`. Only while more waits does the time tell how fast the destination is; it is taken over
    /// many ends, because they come in bursts.
    mutating func noteEnd(_ now: Timestamp) {
        guard !self.waiting.isEmpty, let start = self.paceStart, now >= start else {
            // It has run dry although mail was put off: that was too long.
            if self.waiting.isEmpty, self.spreadUntil > now { self.pace = self.pace.map { $0 / 2 } }
            self.paceStart = now
            self.endCount = 0
            return
        }
        self.endCount += 1
        let elapsed = now.elapsed(since: start)
        guard self.endCount >= Self.endCountMin || elapsed >= .seconds(10) else { return }
        self.pace = max(elapsed / self.endCount, .microseconds(20))
        self.paceStart = now
        self.endCount = 0
    }

    private static let endCountMin = 50

    /// Nothing is put off for longer. A pace is measured over standstills as well, of an agent, of the network, of this
    /// program, and says nothing once they are over; but what was put off is found at its time only.
    private static let spreadMax = Duration.seconds(300)

    /// When the next recipient without room in memory should be looked at again: each one a pace after the other, a
    /// little faster than the destination is, so that it never runs dry; what comes too early is put off again.
    mutating func spread(_ now: Timestamp, limit: Duration) -> Timestamp {
        guard let pace = self.pace ?? self.interval else {
            // Nothing has ended yet: it may be as slow as it has been until now.
            let since = self.blindSince ?? now
            self.blindSince = since
            return now.advanced(by: min(max(now.elapsed(since: since), .milliseconds(300)), limit))
        }
        self.blindSince = nil
        let wait = max(pace * self.waiting.recipientCount / 2, .milliseconds(20))
        let earliest = now.advanced(by: min(wait, Self.spreadMax))
        let latest = max(earliest, now.advanced(by: limit))
        self.spreadUntil = min(max(self.spreadUntil, earliest).advanced(by: pace * 3 / 4), latest)
        return self.spreadUntil
    }
}

/// A message of which at least one recipient is in memory.
struct MessageWork: Sendable {
    private let shared: SharedRecord
    var record: MessageRecord { self.shared.record }
    /// In the order of numbers.
    private(set) var recipients: [RecipientWork] = []
    /// A report waits for the deliveries that are under way, so that one report tells of all failures.
    var hasReportWaiting = false

    /// Adds a recipient whose number is not there.
    mutating func insert(_ recipient: RecipientWork) {
        self.recipients.insert(recipient, at: self.recipients.lowerBound(recipient.record.number))
    }

    mutating func remove(at index: Int) { self.recipients.remove(at: index) }

    /// Changes one recipient in place; its number stays.
    mutating func update(_ index: Int, _ body: (inout RecipientWork) -> Void) { body(&self.recipients[index]) }

    init(record: MessageRecord) { self.shared = SharedRecord(record) }

    /// Never changes. A class, as whoever looks into a dictionary copies what is found there, and a record is made of
    /// many parts.
    private final class SharedRecord: Sendable {
        let record: MessageRecord
        init(_ record: MessageRecord) { self.record = record }
    }

    /// Whether a delivery of this message is under way or not yet committed.
    var isUnderWay: Bool {
        self.recipients.contains { recipient in
            switch recipient.phase {
            case .waiting: false
            case .inFlight, .settling: true
            }
        }
    }
}

/// A recipient in memory.
struct RecipientWork: Sendable {
    enum Phase: Hashable, Sendable {
        /// In the job of a destination. → `inFlight`, or out of memory
        case waiting
        /// With an agent. → `settling`, or `waiting` if the agent is lost
        case inFlight(DeliveryID)
        /// Its change is being committed. → `waiting` for its report, or out of memory
        case settling(DeliveryID)
    }

    var record: RecipientRecord
    var phase: Phase = .waiting
    /// Agents that were lost with it.
    var lossCount = 0
    /// What the operator wants as soon as the delivery under way has ended.
    var verb: OperatorVerb?
}

/// A delivery that was started.
struct DeliveryUnderWay: Sendable {
    /// Nil for a change without an agent: an expiry.
    var link: AgentLinkID?
    let destination: Int
    let message: MessageID
    let numbers: [UInt32]
    /// In whose account it stands; nil for a change without an agent.
    var sender: UInt32?
    var outcomes: [DeliveryOutcome?]
    /// Not empty once the delivery has ended and is being committed.
    var changes: [RecipientChange] = []
}

/// An agent that is connected.
struct AgentLink: Sendable {
    let id: AgentLinkID
    let capacity: Int
    var inFlightCount = 0

    var freeCount: Int { self.capacity - self.inFlightCount }
}

extension Array where Element == RecipientWork {
    /// The place of a number among recipients that are in the order of numbers.
    func index(of number: UInt32) -> Int? {
        let index = self.lowerBound(number)
        return index < self.count && self[index].record.number == number ? index : nil
    }

    /// The place of the first number that is not below this one.
    fileprivate func lowerBound(_ number: UInt32) -> Int {
        var low = 0
        var high = self.count
        while low < high {
            let middle = (low + high) / 2
            if self[middle].record.number < number { low = middle + 1 } else { high = middle }
        }
        return low
    }
}
