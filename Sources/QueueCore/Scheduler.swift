// SPDX-License-Identifier: Apache-2.0
//
// The logic of the queue: what is delivered when, by whom, and what becomes of it. Without disk, clock or pipes.
// It must never start a delivery of a recipient twice at a time, never forget one that is in the due index, and never
// hold more than its window of the queue in memory.

package import MailTypes

/// Decides what is delivered next.
///
/// The due index on disk is the truth; memory holds a window of it. A cursor runs through the index in the order of
/// time: what is due and before the cursor is in memory, unless it was given another time. Mail just accepted is put
/// straight into memory if there is room, and otherwise found by the cursor. Destinations take turns; one that is down
/// holds nothing in memory, because its mail is given the time of its next probe.
package struct Scheduler: Sendable {
    var limits: SchedulerLimits
    var isPaused: Bool
    var isStopping = false
    var random: SeededGenerator

    // The window of the queue.
    var messages: [MessageID: MessageWork] = [:]
    /// Recipients in memory.
    package internal(set) var recipientCount = 0
    /// The same by kind of agent, so that an absent agent's mail leaves room for the others'.
    var recipientCounts = [Int](repeating: 0, count: AgentKind.allCases.count)

    // Destinations, by place in `destinations`.
    var destinations: [Destination?] = []
    var freePlaces: [Int] = []
    var places: [Route: Int] = [:]
    var idle = Ring<Int>()
    /// Places that can start a delivery, by kind of agent.
    var ready = [ReadyDestinations](repeating: ReadyDestinations(), count: AgentKind.allCases.count)
    /// Places that may start their next delivery at a time.
    var delayed = TimeHeap()
    var senders = SenderBook()
    /// Destinations that were down when last tried.
    package internal(set) var suspendedCount = 0
    var nextSweep = Timestamp(microseconds: 0)

    // Agents and what they have.
    var links = [[AgentLink]](repeating: [], count: AgentKind.allCases.count)
    var deliveries: [DeliveryID: DeliveryUnderWay] = [:]
    private var lastDelivery: UInt32 = 0

    // The cursor in the due index.
    var cursor: DueKey?
    /// When the next entry behind the cursor is due, as far as is known; nil: never.
    var nextDue: Timestamp? = Timestamp(microseconds: 0)
    var isLoading = false
    /// A place to which the cursor must go back when the page that is being read has come.
    var loweredWhileLoading: Timestamp?
    /// Destinations for which recipients were asked, and whose they are.
    var loadingPlaces: [Int] = []
    var loadingSenders: [UInt32] = []
    /// Recipients whose move is being committed.
    var moving: [RecipientKey: PendingMove] = [:]
    /// About how many destinations have work and are not down: those that are new are added, and now and then all are counted.
    var activeCount = 0
    /// Entries of the index that were gone through since they were counted.
    var entryCountSinceActiveCount = 0
    /// Messages on which an operator's verb is being committed.
    var operating: [MessageID: PendingOrder] = [:]
    private var wakeTime: Timestamp?

    /// An order that is being committed.
    struct PendingOrder: Sendable {
        var count = 0
        /// The earliest due time of a recipient that was passed over or put out of memory because of it.
        var floor: Timestamp
    }

    /// A move that is being committed.
    struct PendingMove: Sendable {
        let from: Timestamp
        /// When an operator has given the recipient another time meanwhile, the move will change nothing, and the cursor, which
        /// has passed that time, must go back.
        var passed: Timestamp?
    }

    /// - Parameters:
    ///   - seed: of the jitter.
    ///   - suspended: the destinations that were down when the queue stopped.
    package init(
        limits: SchedulerLimits, isPaused: Bool, seed: UInt64,
        suspended: [(route: Route, record: DestinationRecord)] = []
    ) {
        self.limits = limits
        self.isPaused = isPaused
        self.random = SeededGenerator(seed: seed)
        for entry in suspended where self.places[entry.route] == nil {
            let destination = Destination(entry.route, limits, suspension: entry.record)
            self.places[entry.route] = self.destinations.count
            self.destinations.append(destination)
            self.suspendedCount += 1
        }
    }

    /// Takes an event in and appends what is to be done, in order.
    package mutating func receive(_ event: Event, at now: Timestamp, into actions: inout [Action]) {
        switch event {
        case .accepted(let record, let recipients): self.accept(record, recipients, now, &actions)
        case .agentJoined(let link, let kind, let capacity): self.join(link, kind, capacity)
        case .agentLost(let link): self.lose(link, now, &actions)
        case .outcomeReceived(let delivery, let number, let outcome):
            self.note(outcome, of: number, in: delivery, &actions)
            return
        case .doneReceived(let delivery): self.end(delivery, now, &actions)
        case .reportReceived(let delivery): self.endWithReport(delivery, now, &actions)
        case .settled(let delivery): self.conclude(delivery, now)
        case .dueLoaded(let page): self.take(page, now, &actions)
        case .workLoaded(let work): self.take(work, now, &actions)
        case .moved(let moves): self.conclude(moves)
        case .ordered(let order, let routes): self.obey(order, routes, now, &actions)
        case .orderCommitted(let message): self.concludeOrder(message, now)
        case .dueAdded(let time): self.noteDue(time)
        case .timePassed:
            self.wakeTime = nil
            self.sweep(now, &actions)
        case .pauseSet(let isPaused): self.isPaused = isPaused
        case .limitsSet(let limits): self.setLimits(limits, now)
        case .stopRequested: self.isStopping = true
        }
        self.dispatch(now, &actions)
        self.load(now, &actions)
        self.setWake(now, &actions)
    }

    /// Deliveries that are under way or being committed.
    package var deliveryCount: Int { self.deliveries.count }

    /// Agents that are there.
    package var agentCount: Int { self.links.reduce(0) { $0 + $1.count } }

    /// Recipients in memory whose agents are there.
    package var servedRecipientCount: Int {
        AgentKind.allCases.reduce(0) { count, kind in
            self.links[kind.rawValue].isEmpty ? count : count + self.recipientCounts[kind.rawValue]
        }
    }

    /// Whether any recipient of a message is in memory.
    package func holds(_ message: MessageID) -> Bool { self.messages[message] != nil }

    /// Recipients that are with an agent or being committed.
    package func isUnderWay(_ key: RecipientKey) -> Bool {
        guard let work = self.messages[key.message], let index = work.recipients.index(of: key.number) else {
            return false
        }
        return work.recipients[index].phase != .waiting
    }

    private mutating func setWake(_ now: Timestamp, _ actions: inout [Action]) {
        guard !self.isPaused, !self.isStopping else { return }
        var next = self.delayed.first
        if !self.isLoading, let due = self.nextDue, due > now { next = next.map { min($0, due) } ?? due }
        guard let next, next > now, self.wakeTime.map({ next < $0 || $0 <= now }) ?? true else { return }
        self.wakeTime = next
        actions.append(.wake(next))
    }

    mutating func makeDeliveryID() -> DeliveryID {
        repeat {
            self.lastDelivery &+= 1
        } while self.lastDelivery == 0
            || self.deliveries[DeliveryID(self.lastDelivery)] != nil
        return DeliveryID(self.lastDelivery)
    }

    // MARK: - Destinations

    private mutating func setLimits(_ limits: SchedulerLimits, _ now: Timestamp) {
        self.limits = limits
        for place in self.destinations.indices where self.destinations[place] != nil {
            self.destinations[place]?.setLimits(limits)
            self.makeReady(place, now)
        }
    }

    /// The place of a destination, made if need be.
    mutating func place(_ route: Route) -> Int {
        if let place = self.places[route] { return place }
        let destination = Destination(route, self.limits)
        let place: Int
        if let free = self.freePlaces.popLast() {
            place = free
            self.destinations[free] = destination
        } else {
            place = self.destinations.count
            self.destinations.append(destination)
        }
        self.places[route] = place
        self.activeCount += 1
        return place
    }

    private static let idleCountMax = 1_000

    /// Remembers the window of an idle destination for a while, and forgets that of the one idle longest.
    mutating func listIdle(_ place: Int, _ now: Timestamp) {
        guard self.destinations[place]?.enterIdleList() == true else { return }
        self.idle.append(place)
        guard self.idle.count > Self.idleCountMax, let oldest = self.idle.popFirst() else { return }
        if let start = self.destinations[oldest]?.nextStart, start > now,
            start <= now.advanced(by: Self.intervalMax)
        {
            // Forgotten, it would have its next delivery too early.
            self.idle.append(oldest)
            return
        }
        self.destinations[oldest]?.isIdleListed = false
        if let candidate = self.destinations[oldest], candidate.isIdle, candidate.readyRanks == 0,
            !candidate.isDelayed
        {
            self.forget(oldest, candidate.route)
        }
    }

    private mutating func forget(_ place: Int, _ route: Route) {
        self.destinations[place] = nil
        self.places[route] = nil
        self.freePlaces.append(place)
    }

    /// Forgets destinations that were down and for which no mail has come since: every ten minutes.
    private mutating func sweep(_ now: Timestamp, _ actions: inout [Action]) {
        guard now >= self.nextSweep else { return }
        self.nextSweep = now.advanced(by: .seconds(600))
        let old = self.limits.retry.maximum * 2
        for place in self.destinations.indices {
            guard let destination = self.destinations[place], let suspension = destination.suspension,
                now >= suspension.suspendedUntil.advanced(by: old), destination.waiting.isEmpty,
                destination.window.inFlightCount == 0, destination.loadingCount == 0
            else { continue }
            actions.append(.saveDestination(destination.route, nil))
            self.destinations[place]?.suspension = nil
            self.suspendedCount -= 1
            self.listIdle(place, now)
        }
    }
}
