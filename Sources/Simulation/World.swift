// SPDX-License-Identifier: Apache-2.0
//
// A world around the production scheduler: submitters, agents, peers that fail, an operator, a clock, and crashes. All
// of it follows from a seed, so that what was found once can be found again.

import MailTypes
package import QueueCore

/// The world. It runs until it is at rest, and then tells what is wrong.
package struct World {
    let rules: WorldRules
    var random: SeededGenerator
    package let store = MemoryQueueStore()
    package internal(set) var ledger = Ledger()
    package internal(set) var trace: [String] = []
    /// Points at which a crash could have been.
    package internal(set) var pointCount = 0
    package internal(set) var faults: [String] = []
    let checkers: [any Checker] = [
        NothingLost(), NothingInvented(), OneReportPerFailure(), NoReportForReport(), ReportsAsWished(),
        DuplicateOnlyAfterCrash(), ForwardedOnce(),
        WindowRespected(), PaceRespected(), BoundedMemory(), StatesLegal(),
    ]

    var now = Timestamp(microseconds: 1_700_000_000_000_000)
    var isHealed = false
    var commitCount = 0

    // The queue process: lost in a crash.
    var scheduler: Scheduler
    var numbering = MessageNumbering(last: MessageID(rawValue: 0))
    var pending: [(operation: StoreOperation, completion: Completion)] = []
    var wakeTime: Timestamp?
    var lastLink: UInt64 = 0
    var agents: [(id: AgentLinkID, kind: AgentKind)] = []
    /// Deliveries that agents have in hand.
    var open: [DeliveryOrder] = []
    /// What is to go on when these deliveries are settled.
    var forwards: [DeliveryID: [Forward]] = [:]
    /// Recipients whose delivery was begun and is not settled on the disk.
    var unsettled: Set<RecipientKey> = []
    var hasCrashed = false
    var isPaused = false
    /// It was asked to stop: it begins nothing more, and is started anew when all is done that was under way.
    var isStopping = false
    /// What the scheduler wants done; what is done may make it want more.
    var actions: [Scheduler.Action] = []
    var isPerforming = false

    // The outside.
    /// The destination that answers everything with 4xx.
    var storm: Route?
    /// Commits for which the disk is still full.
    var fullCommitCount = 0
    /// Links of agents that have broken the rules and may be disconnected.
    var dishonestLinks: Set<AgentLinkID> = []
    package internal(set) var stepCount = 0

    enum Completion {
        case nothing
        case accepted(NewMessage)
        case settled(Settlement)
        case exchanged(NewMessage, Settlement)
        /// Of a canary.
        case halfExchanged(NewMessage, Settlement)
        case forwarded([Forward], Settlement)
        /// Of a canary.
        case halfForwarded(Forward)
        case moved([DueMove])
        case operated(MessageID, OperatorVerb, [RecipientKey])
    }

    /// Deliveries that an agent takes at once.
    static let agentCapacity = 6

    static let limits = SchedulerLimits(
        recipientCountMax: 12, deliveryCountMax: 8, destinationDeliveryCountMax: 3, recipientCountPerDeliveryMax: 2,
        retry: RetrySchedule(minimum: .seconds(60), maximum: .seconds(600)), lifetime: .seconds(7_200),
        pageEntryCount: 4,
        rules: [
            DestinationRule(pattern: Samples.pattern("d3.example"), terms: DestinationTerms(deliveryCountMax: 1)),
            DestinationRule(pattern: Samples.pattern("d4.example"), terms: DestinationTerms(deliveriesPerMinuteMax: 6)),
        ], delayReportAge: .seconds(900))

    package init(_ rules: WorldRules) {
        self.rules = rules
        self.random = SeededGenerator(seed: rules.seed)
        self.scheduler = Scheduler(limits: Self.limits, isPaused: false, seed: rules.seed)
        self.ledger.limits = Self.limits
        self.ledger.agentCapacity = Self.agentCapacity
    }

    /// The limits that the scheduler is given.
    var schedulerLimits: SchedulerLimits {
        var limits = Self.limits
        if self.rules.canary == .widenedWindow { limits.destinationDeliveryCountMax += 2 }
        if self.rules.canary == .hastyStart { limits.rules = Array(limits.rules.prefix(1)) }
        if self.rules.canary == .boundlessMemory { limits.recipientCountMax *= 10 }
        return limits
    }

    /// Runs the world to its rest and answers every breach of a rule.
    package mutating func run() -> [String] {
        do throws(StoreFault) {
            try self.start()
            if let count = self.rules.firstMessageRecipientCount { self.submit(recipientCount: count) }
            for step in 0..<self.rules.stepCount where self.faults.isEmpty {
                try self.step()
                self.stepCount += 1
                if step % 50 == 0 { try self.check(isAtRest: false) }
            }
            if self.faults.isEmpty {
                try self.heal()
                try self.check(isAtRest: true)
            }
        } catch {
            // The memory store refuses what does not start from the state that is there.
            self.faults.append("the store says: \(error)")
        }
        return self.faults
    }

    mutating func check(isAtRest: Bool) throws(StoreFault) {
        for checker in self.checkers {
            let name = String(describing: type(of: checker))
            self.faults += try checker.faults(self.ledger, self.store, isAtRest: isAtRest).map { "\(name): \($0)" }
        }
    }

    mutating func note(_ text: @autoclosure () -> String) {
        self.trace.append(text())
        if self.trace.count > 400 { self.trace.removeFirst(200) }
    }

    mutating func chance(_ weight: Int) -> Bool { Int.random(in: 0..<100, using: &self.random) < weight }

    // MARK: - The queue process

    mutating func start() throws(StoreFault) {
        let report = try self.store.recover()
        self.numbering = MessageNumbering(last: report.lastMessageID)
        self.scheduler = Scheduler(
            limits: self.schedulerLimits, isPaused: false, seed: self.random.next(),
            suspended: try self.store.destinations(limit: 100))
        self.pending = []
        self.agents = []
        self.open = []
        self.forwards = [:]
        self.actions = []
        self.wakeTime = nil
        self.hasCrashed = false
        self.isPaused = false
        self.isStopping = false
        for kind in AgentKind.allCases { try self.joinAgent(kind) }
        try self.tell(.timePassed)
    }

    /// A point at which the process may die; answers whether it did.
    mutating func point() -> Bool {
        self.pointCount += 1
        let isStruck = !self.isHealed && self.chance(self.rules.crashWeight) && self.chance(20)
        guard self.rules.crashPoint == self.pointCount || isStruck else { return false }
        self.crash()
        return true
    }

    mutating func crash() {
        self.note("crash")
        self.ledger.forgetStarts()
        self.hasCrashed = true
        // What was begun and is not noted on the disk will be done again.
        for key in self.unsettled { self.ledger.cutOffCounts[key, default: 0] += 1 }
        self.unsettled = []
        self.open = []
        self.pending = []
    }

    mutating func noteCutOff(_ order: DeliveryOrder) {
        for recipient in order.recipients {
            let key = RecipientKey(message: order.message.id, number: recipient.number)
            self.ledger.cutOffCounts[key, default: 0] += 1
            self.unsettled.remove(key)
        }
    }

    mutating func tell(_ event: Scheduler.Event) throws(StoreFault) {
        self.ledger.latest = max(self.ledger.latest, self.now)
        self.scheduler.receive(event, at: self.now, into: &self.actions)
        self.ledger.peaks.recipientCount = max(self.ledger.peaks.recipientCount, self.scheduler.recipientCount)
        guard !self.isPerforming else { return }
        self.isPerforming = true
        var index = 0
        while index < self.actions.count, !self.hasCrashed, !self.point() {
            try self.perform(self.actions[index])
            index += 1
        }
        self.actions.removeAll(keepingCapacity: true)
        self.isPerforming = false
    }

    mutating func perform(_ action: Scheduler.Action) throws(StoreFault) {
        switch action {
        case .deliver(let order):
            self.note("deliver \(order.id.rawValue) \(order.message.id.text) \(order.recipients.map(\.number))")
            self.open.append(order)
            if self.rules.canary == .doubledDispatch, self.chance(10) { self.open.append(order) }
            self.ledger.note(open: self.open, of: order, at: self.now)
            for recipient in order.recipients {
                self.unsettled.insert(RecipientKey(message: order.message.id, number: recipient.number))
            }
        case .settle(let settlement):
            self.note(
                "settle \(settlement.message.text) \(settlement.endings.map { ($0.recipient.number, $0.status) })")
            if let forwards = self.forwards.removeValue(forKey: settlement.delivery) {
                return self.write(forwards, settlement)
            }
            self.pending.append((.settle(settlement.message, settlement.changes), .settled(settlement)))
        case .exchange(let settlement):
            let report = self.makeMessage(
                reversePath: .null, recipientCount: 1, domain: Int.random(in: 0...5, using: &self.random))
            if self.rules.canary == .halvedExchange {
                self.pending.append((.accept(report), .halfExchanged(report, settlement)))
                self.pending.append((.settle(settlement.message, settlement.changes), .settled(settlement)))
                return
            }
            self.pending.append(
                (
                    .exchange([report], for: settlement.message, settlement.changes),
                    .exchanged(report, settlement)
                ))
        case .loadDue(let after, let through, let limit):
            try self.tell(.dueLoaded(try self.store.due(after: after, through: through, limit: limit)))
        case .loadWork(let keys): try self.tell(.workLoaded(try self.store.load(keys)))
        case .move(let moves):
            self.note("move \(moves.map { ($0.from.recipient.message.text, $0.from.recipient.number) })")
            self.pending.append((.move(moves), .moved(moves)))
            self.notePendingMoves()
        case .quarantine(let key): self.faults.append("\(key) was quarantined")
        case .saveDestination(let route, let record):
            self.pending.append((.destination(route, record), .nothing))
        case .operate(let order):
            let numbers = try self.store.message(order.message)?.recipients.map(\.number) ?? []
            let keys = numbers.filter(order.concerns).map { RecipientKey(message: order.message, number: $0) }
            self.pending.append((.operate(order, now: self.now), .operated(order.message, order.verb, keys)))
        case .wake(let time): self.wakeTime = time
        case .disconnect(let link):
            guard self.dishonestLinks.contains(link) else {
                self.faults.append("an honest agent was disconnected: \(link.rawValue)")
                return
            }
            try self.loseAgent(link)
        }
    }

    // MARK: - The rest

    /// Faults end, peers answer, time goes on, until nothing is left to do.
    mutating func heal() throws(StoreFault) {
        self.isHealed = true
        if self.isStopping, !self.hasCrashed { self.crash() }
        if !self.hasCrashed {
            try self.tell(.limitsSet(self.schedulerLimits))
            try self.tell(.pauseSet(false))
        }
        var idleCount = 0
        var stepCount = 0
        while idleCount < 3, stepCount < 20_000, self.faults.isEmpty {
            stepCount += 1
            if self.hasCrashed { try self.start() }
            for kind in AgentKind.allCases where !self.agents.contains(where: { $0.kind == kind }) {
                if !self.hasCrashed { try self.joinAgent(kind) }
            }
            if !self.pending.isEmpty {
                try self.commit()
            } else if !self.open.isEmpty {
                try self.finishDelivery()
            } else if let wake = self.wakeTime {
                self.now = max(self.now, wake)
                self.wakeTime = nil
                try self.tell(.timePassed)
            } else {
                idleCount += 1
            }
            if !self.pending.isEmpty || !self.open.isEmpty { idleCount = 0 }
        }
        if stepCount >= 20_000 { self.faults.append("the world does not come to rest") }
        self.note("rest after \(stepCount) steps")
    }

    private mutating func notePendingMoves() {
        var count = 0
        for case .move(let moves) in self.pending.lazy.map(\.operation) { count += moves.count }
        self.ledger.peaks.moveCount = max(self.ledger.peaks.moveCount, count)
    }
}
