// SPDX-License-Identifier: Apache-2.0

import MailTypes

/// Recipients of one message that wait at one destination.
struct Job: Hashable, Sendable {
    let message: MessageID
    var numbers: [UInt32]
}

/// What the scheduler knows of a destination that has, or lately had, work.
struct Destination: Sendable {
    let route: Route
    let kind: AgentKind
    var window: DestinationWindow
    /// Set while the destination is down, or was when last tried.
    var suspension: DestinationRecord?
    var waiting = Ring<Job>()
    /// Recipients in `waiting`; some may have been taken away meanwhile by an operator.
    var waitingCount = 0
    /// Recipients asked from the disk that have not come yet.
    var loadingCount = 0
    /// Whether it stands in the ring of destinations that can start a delivery.
    var isReady = false
    /// Whether it stands in the ring of destinations that could be forgotten.
    var isIdleListed = false
    /// The mean time between two ends of deliveries: the speed at which waiting mail is taken off; nil until it is known.
    private var pace: Duration?
    private var paceStart: Timestamp?
    private var endCount = 0
    /// The time up to which mail that found no room in memory has been given other times.
    private var spreadUntil = Timestamp(microseconds: 0)

    init(_ route: Route, windowMaximum: Int, suspension: DestinationRecord? = nil) {
        self.route = route
        self.kind = route.agentKind
        self.suspension = suspension
        self.window = DestinationWindow(maximum: windowMaximum, isProbing: suspension != nil)
    }

    func isSuspended(at now: Timestamp) -> Bool { self.suspension.map { now < $0.suspendedUntil } ?? false }

    /// Down when last tried, and now to be tried with one delivery.
    func isProbing(at now: Timestamp) -> Bool { self.suspension.map { now >= $0.suspendedUntil } ?? false }

    var isIdle: Bool {
        self.waiting.isEmpty && self.window.inFlightCount == 0 && self.loadingCount == 0 && self.suspension == nil
    }

    mutating func add(_ number: UInt32, of message: MessageID) {
        self.waitingCount += 1
        let joined = self.waiting.updateLast { job in
            guard job.message == message else { return false }
            job.numbers.append(number)
            return true
        }
        if joined != true { self.waiting.append(Job(message: message, numbers: [number])) }
    }

    mutating func takeJob() -> Job? {
        guard let job = self.waiting.popFirst() else { return nil }
        self.waitingCount -= job.numbers.count
        return job
    }

    mutating func putBack(_ job: Job) {
        self.waiting.prepend(job)
        self.waitingCount += job.numbers.count
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

    /// When the next recipient without room in memory should be looked at again: each one a pace after the other, a
    /// little faster than the destination is, so that it never runs dry; what comes too early is put off again.
    mutating func spread(_ now: Timestamp, limit: Duration) -> Timestamp {
        guard let pace = self.pace else { return now.advanced(by: .milliseconds(300)) }
        let earliest = now.advanced(by: max(pace * self.waitingCount / 2, .milliseconds(20)))
        let latest = max(earliest, now.advanced(by: limit))
        self.spreadUntil = min(max(self.spreadUntil, earliest).advanced(by: pace * 3 / 4), latest)
        return self.spreadUntil
    }
}

/// A message of which at least one recipient is in memory.
struct MessageWork: Sendable {
    let record: MessageRecord
    /// In the order of numbers.
    private(set) var recipients: [RecipientWork] = []
    /// A report waits for the deliveries that are under way, so that one report tells of all failures.
    var hasReportWaiting = false

    /// The place of a number in `recipients`, which are in the order of numbers.
    func index(of number: UInt32) -> Int? {
        let index = self.lowerBound(number)
        return index < self.recipients.count && self.recipients[index].record.number == number ? index : nil
    }

    /// Adds a recipient whose number is not there.
    mutating func insert(_ recipient: RecipientWork) {
        self.recipients.insert(recipient, at: self.lowerBound(recipient.record.number))
    }

    private func lowerBound(_ number: UInt32) -> Int {
        var low = 0
        var high = self.recipients.count
        while low < high {
            let middle = (low + high) / 2
            if self.recipients[middle].record.number < number { low = middle + 1 } else { high = middle }
        }
        return low
    }

    mutating func remove(at index: Int) { self.recipients.remove(at: index) }

    /// Changes one recipient in place; its number stays.
    mutating func update(_ index: Int, _ body: (inout RecipientWork) -> Void) { body(&self.recipients[index]) }

    init(record: MessageRecord) { self.record = record }

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
