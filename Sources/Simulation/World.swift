// SPDX-License-Identifier: Apache-2.0
//
// A world around the production scheduler: submitters, agents, peers that fail, an operator, a clock, and crashes. All
// of it follows from a seed, so that what was found once can be found again.

import MailTypes
package import QueueCore

/// How a world behaves.
package struct WorldRules: Sendable {
    package var seed: UInt64
    /// Steps with faults, before the world heals and comes to rest.
    package var stepCount: Int
    /// How likely each event is, in a hundred; faults that are switched off never happen.
    package var crashWeight: Int
    package var agentLossWeight: Int
    package var storeFullWeight: Int
    package var operatorWeight: Int
    package var clockJumpWeight: Int
    /// Of a hundred answers of peers, so many are temporary and so many permanent failures.
    package var deferredWeight: Int
    package var failedWeight: Int
    /// A crash exactly before this point; for the exhaustive mode.
    package var crashPoint: Int?
    /// The canary: the commit with this number claims success and does nothing.
    package var skippedCommit: Int?
    /// Messages handed in before the first step, and whether more follow.
    package var firstMessageRecipientCount: Int?

    /// Some faults are left out by chance, so that rare combinations happen.
    package init(seed: UInt64, stepCount: Int = 1_500) {
        var random = SeededGenerator(seed: seed)
        func weight(_ most: Int) -> Int { Int.random(in: 0...3, using: &random) == 0 ? 0 : most }
        self.seed = seed
        self.stepCount = stepCount
        self.crashWeight = weight(2)
        self.agentLossWeight = weight(2)
        self.storeFullWeight = weight(2)
        self.operatorWeight = weight(4)
        self.clockJumpWeight = weight(1)
        self.deferredWeight = weight(40)
        self.failedWeight = weight(20)
    }

    /// One message, no chance, no faults but a crash at `crashPoint`.
    package init(recipientCount: Int, crashPoint: Int?) {
        self.init(seed: 1, stepCount: 0)
        self.crashWeight = 0
        self.agentLossWeight = 0
        self.storeFullWeight = 0
        self.operatorWeight = 0
        self.clockJumpWeight = 0
        self.deferredWeight = 30
        self.failedWeight = 40
        self.crashPoint = crashPoint
        self.firstMessageRecipientCount = recipientCount
    }
}

/// The world. It runs until it is at rest, and then tells what is wrong.
package struct World {
    let rules: WorldRules
    var random: SeededGenerator
    package let store = MemoryQueueStore()
    package private(set) var ledger = Ledger()
    package private(set) var trace: [String] = []
    /// Points at which a crash could have been.
    package private(set) var pointCount = 0
    package private(set) var faults: [String] = []
    private let checkers: [any Checker] = [NothingLost(), NothingInvented()]

    private var now = Timestamp(microseconds: 1_700_000_000_000_000)
    private var isHealed = false
    private var commitCount = 0

    // The queue process: lost in a crash.
    private var scheduler: Scheduler
    private var numbering = MessageNumbering(last: MessageID(rawValue: 0))
    private var pending: [(operation: StoreOperation, completion: Completion)] = []
    private var wakeTime: Timestamp?
    private var lastLink: UInt64 = 0
    private var agents: [(id: AgentLinkID, kind: AgentKind)] = []
    /// Deliveries that agents have in hand.
    private var open: [DeliveryOrder] = []
    /// Recipients whose delivery was begun and is not settled on the disk.
    private var unsettled: Set<RecipientKey> = []
    private var hasCrashed = false

    private enum Completion {
        case nothing
        case accepted(NewMessage)
        case settled(Settlement)
        case exchanged(NewMessage, Settlement)
        case moved([DueMove])
        case operated(MessageID, OperatorVerb, [RecipientKey])
    }

    private static let limits = SchedulerLimits(
        recipientCountMax: 12, deliveryCountMax: 8, destinationDeliveryCountMax: 3, recipientCountPerDeliveryMax: 2,
        retry: RetrySchedule(minimum: .seconds(60), maximum: .seconds(600)), lifetime: .seconds(7_200),
        pageEntryCount: 4)

    package init(_ rules: WorldRules) {
        self.rules = rules
        self.random = SeededGenerator(seed: rules.seed)
        self.scheduler = Scheduler(limits: Self.limits, isPaused: false, seed: rules.seed)
    }

    /// Runs the world to its rest and answers every breach of a rule.
    package mutating func run() -> [String] {
        do throws(StoreFault) {
            try self.start()
            if let count = self.rules.firstMessageRecipientCount { self.submit(recipientCount: count) }
            for step in 0..<self.rules.stepCount where self.faults.isEmpty {
                try self.step()
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

    private mutating func check(isAtRest: Bool) throws(StoreFault) {
        for checker in self.checkers {
            self.faults += try checker.faults(self.ledger, self.store, isAtRest: isAtRest)
        }
    }

    private mutating func note(_ text: @autoclosure () -> String) {
        self.trace.append(text())
        if self.trace.count > 400 { self.trace.removeFirst(200) }
    }

    private mutating func chance(_ weight: Int) -> Bool { Int.random(in: 0..<100, using: &self.random) < weight }

    // MARK: - The queue process

    private mutating func start() throws(StoreFault) {
        let report = try self.store.recover()
        self.numbering = MessageNumbering(last: report.lastMessageID)
        self.scheduler = Scheduler(
            limits: Self.limits, isPaused: false, seed: self.random.next(),
            suspended: try self.store.destinations(limit: 100))
        self.pending = []
        self.agents = []
        self.open = []
        self.wakeTime = nil
        self.hasCrashed = false
        for kind in AgentKind.allCases { try self.joinAgent(kind) }
        try self.tell(.timePassed)
    }

    /// A point at which the process may die; answers whether it did.
    private mutating func point() -> Bool {
        self.pointCount += 1
        let isStruck = !self.isHealed && self.chance(self.rules.crashWeight) && self.chance(20)
        guard self.rules.crashPoint == self.pointCount || isStruck else { return false }
        self.crash()
        return true
    }

    private mutating func crash() {
        self.note("crash")
        self.hasCrashed = true
        // What was begun and is not noted on the disk will be done again.
        self.ledger.cutOff.formUnion(self.unsettled)
        self.unsettled = []
        self.open = []
        self.pending = []
    }

    private mutating func noteCutOff(_ order: DeliveryOrder) {
        for recipient in order.recipients {
            self.ledger.cutOff.insert(RecipientKey(message: order.message.id, number: recipient.number))
        }
    }

    private mutating func tell(_ event: Scheduler.Event) throws(StoreFault) {
        var actions: [Scheduler.Action] = []
        self.scheduler.receive(event, at: self.now, into: &actions)
        for action in actions {
            guard !self.hasCrashed, !self.point() else { return }
            try self.perform(action)
        }
    }

    private mutating func perform(_ action: Scheduler.Action) throws(StoreFault) {
        switch action {
        case .deliver(let order):
            self.note("deliver \(order.id.rawValue) \(order.message.id.text) \(order.recipients.map(\.number))")
            self.open.append(order)
            for recipient in order.recipients {
                self.unsettled.insert(RecipientKey(message: order.message.id, number: recipient.number))
            }
        case .settle(let settlement):
            self.note(
                "settle \(settlement.message.text) \(settlement.endings.map { ($0.recipient.number, $0.status) })")
            self.pending.append((.settle(settlement.message, settlement.changes), .settled(settlement)))
        case .exchange(let settlement):
            let report = self.makeMessage(
                reversePath: .null, recipientCount: 1, domain: Int.random(in: 0...5, using: &self.random))
            self.pending.append(
                (
                    .exchange(report, reported: settlement.message, settlement.changes),
                    .exchanged(report, settlement)
                ))
        case .loadDue(let after, let through, let limit):
            try self.tell(.dueLoaded(try self.store.due(after: after, through: through, limit: limit)))
        case .loadWork(let keys): try self.tell(.workLoaded(try self.store.load(keys)))
        case .move(let moves):
            self.note("move \(moves.map { ($0.from.recipient.message.text, $0.from.recipient.number) })")
            self.pending.append((.move(moves), .moved(moves)))
        case .quarantine(let key): self.faults.append("\(key) was quarantined")
        case .saveDestination(let route, let record):
            self.pending.append((.destination(route, record), .nothing))
        case .operate(let id, let verb, let except):
            let numbers = try self.store.message(id)?.recipients.map(\.number) ?? []
            let keys = numbers.filter { !except.contains($0) }.map { RecipientKey(message: id, number: $0) }
            self.pending.append((.operate(id, verb, except: except, now: self.now), .operated(id, verb, keys)))
        case .wake(let time): self.wakeTime = time
        case .disconnect(let link): self.faults.append("an honest agent was disconnected: \(link.rawValue)")
        }
    }

    // MARK: - Transactions

    private mutating func commit() throws(StoreFault) {
        guard !self.pending.isEmpty, !self.point() else { return }
        let count = Int.random(in: 1...self.pending.count, using: &self.random)
        let batch = Array(self.pending.prefix(count))
        self.pending.removeFirst(count)
        self.commitCount += 1
        if !self.isHealed, self.chance(self.rules.storeFullWeight) { return try self.refuse(batch) }
        let isSkipped = self.commitCount == self.rules.skippedCommit
        if !isSkipped { _ = try self.store.commit(batch.map(\.operation)) }
        self.note("commit \(count)\(isSkipped ? " skipped" : "")")
        for (_, completion) in batch { self.record(completion) }
        // A crash here: the disk has it, and nobody was told.
        guard !self.point() else { return }
        for (_, completion) in batch where !self.hasCrashed { try self.complete(completion) }
    }

    /// No room: new mail is refused, the rest tried again.
    private mutating func refuse(_ batch: [(operation: StoreOperation, completion: Completion)]) throws(StoreFault) {
        self.note("full")
        let kept = batch.filter { entry in
            if case .accept = entry.operation { return false }
            return true
        }
        self.pending.insert(contentsOf: kept, at: 0)
    }

    /// What is now true on the disk.
    private mutating func record(_ completion: Completion) {
        switch completion {
        case .nothing, .moved: break
        case .accepted(let message): self.offer(message)
        case .settled(let settlement):
            for change in settlement.changes {
                self.unsettled.remove(RecipientKey(message: settlement.message, number: change.number))
            }
            self.record(settlement.endings)
        case .exchanged(let report, let settlement):
            for change in settlement.changes {
                self.ledger.reportCounts[
                    RecipientKey(message: settlement.message, number: change.number), default: 0] += 1
            }
            self.offer(report)
            for recipient in report.recipients {
                self.ledger.acknowledged.insert(RecipientKey(message: report.record.id, number: recipient.number))
            }
        case .operated(_, let verb, let keys):
            if verb == .remove { self.ledger.removed.formUnion(keys) }
            if verb == .bounce { self.ledger.failed.formUnion(keys) }
        }
    }

    private mutating func record(_ endings: [RecipientEnding]) {
        for ending in endings {
            let key = RecipientKey(message: ending.message, number: ending.recipient.number)
            switch ending.status {
            case .failed, .expired: self.ledger.failed.insert(key)
            case .dropped: self.ledger.dropped.insert(key)
            case .removed: self.ledger.removed.insert(key)
            case .delivered, .deferred, .reported: break
            }
        }
    }

    private mutating func complete(_ completion: Completion) throws(StoreFault) {
        switch completion {
        case .nothing: break
        case .accepted(let message):
            for recipient in message.recipients {
                self.ledger.acknowledged.insert(RecipientKey(message: message.record.id, number: recipient.number))
            }
            try self.tell(.accepted(message.record, message.recipients))
        case .settled(let settlement): try self.tell(.settled(settlement.delivery))
        case .exchanged(let report, let settlement):
            try self.tell(.settled(settlement.delivery))
            if !self.hasCrashed { try self.tell(.accepted(report.record, report.recipients)) }
        case .moved(let moves): try self.tell(.moved(moves))
        case .operated(let id, _, _): try self.tell(.orderCommitted(id))
        }
    }

    // MARK: - The outside

    private mutating func step() throws(StoreFault) {
        if self.hasCrashed { try self.start() }
        switch Int.random(in: 0..<100, using: &self.random) {
        case 0..<15: self.submit(recipientCount: Int.random(in: 1...4, using: &self.random))
        case 15..<45: try self.commit()
        case 45..<75: try self.finishDelivery()
        case 75..<90: try self.passTime()
        default:
            if self.chance(self.rules.agentLossWeight * 10) { try self.loseAgent() }
            if self.chance(self.rules.operatorWeight * 10) { try self.operate() }
            if self.chance(self.rules.crashWeight * 10) { self.crash() }
            if self.chance(self.rules.clockJumpWeight * 10) { self.jump() }
            for kind in AgentKind.allCases where !self.agents.contains(where: { $0.kind == kind }) && self.chance(50) {
                if !self.hasCrashed { try self.joinAgent(kind) }
            }
        }
    }

    private mutating func makeMessage(
        reversePath: ReversePath, recipientCount: Int, domain: Int
    ) -> NewMessage {
        let id = self.numbering.next(now: self.now)
        let recipients = (0..<recipientCount).map { number in
            RecipientRecord(
                number: UInt32(number), forwardPath: Samples.path("user\(number)@example.org"), originalPath: nil,
                route: (domain + number / 2) % 6 == 5
                    ? .local(user: Array("user".utf8)) : Samples.route("d\((domain + number / 2) % 6).example"),
                state: .queued(last: nil), due: self.now)
        }
        return NewMessage(
            record: MessageRecord(
                id: id, reversePath: reversePath, bodyType: .sevenBit, arrival: self.now,
                expiry: self.now.advanced(by: Self.limits.lifetime), prefix: [], contentOctetCount: 3, trace: []),
            recipients: recipients, content: [1, 2, 3])
    }

    /// An id is a message's own only once it is on the disk: the id of one that never came is given out again.
    private mutating func offer(_ message: NewMessage) {
        if message.record.reversePath == .null { self.ledger.reports.insert(message.record.id) }
        for recipient in message.recipients {
            self.ledger.offered.insert(RecipientKey(message: message.record.id, number: recipient.number))
        }
    }

    private mutating func submit(recipientCount: Int) {
        let hasSender = self.rules.firstMessageRecipientCount != nil || !self.chance(10)
        let sender = ReversePath(octets: Array("sender@example.com".utf8)) ?? .null
        let message = self.makeMessage(
            reversePath: hasSender ? sender : .null, recipientCount: recipientCount,
            domain: Int.random(in: 0...5, using: &self.random))
        self.note("submit \(message.record.id.text)")
        self.pending.append((.accept(message), .accepted(message)))
    }

    private mutating func finishDelivery() throws(StoreFault) {
        guard let index = self.open.indices.randomElement(using: &self.random) else { return }
        let order = self.open.remove(at: index)
        if order.route == .bounce { return try self.finishReport(order) }
        let isHostDown = !self.isHealed && self.chance(self.rules.deferredWeight / 2)
        for recipient in order.recipients {
            guard !self.hasCrashed else { return }
            let outcome = self.outcome(isHostDown)
            let key = RecipientKey(message: order.message.id, number: recipient.number)
            if outcome.kind == .delivered { self.ledger.deliveryCounts[key, default: 0] += 1 }
            try self.tell(.outcomeReceived(order.id, number: recipient.number, outcome))
            if !self.hasCrashed, self.point() { return }
        }
        guard !self.hasCrashed else { return }
        try self.tell(.doneReceived(order.id))
    }

    private mutating func outcome(_ isHostDown: Bool) -> DeliveryOutcome {
        if isHostDown {
            return DeliveryOutcome(
                .deferred, code: 0, status: EnhancedStatus(.transient, 4, 1), reporter: "mx", text: "no answer")
        }
        let number = Int.random(in: 0..<100, using: &self.random)
        if number < self.rules.failedWeight { return Samples.failure }
        if !self.isHealed, number < self.rules.failedWeight + self.rules.deferredWeight { return Samples.deferral }
        return DeliveryOutcome(
            .delivered, code: 250, status: EnhancedStatus(.success, 0, 0), reporter: "mx", text: "ok")
    }

    private mutating func finishReport(_ order: DeliveryOrder) throws(StoreFault) {
        if order.message.reversePath == .null {
            for recipient in order.recipients where !self.hasCrashed {
                try self.tell(.outcomeReceived(order.id, number: recipient.number, Samples.failure))
            }
            if !self.hasCrashed { try self.tell(.doneReceived(order.id)) }
        } else if !self.isHealed, self.chance(10) {
            // The agent cannot make its report now.
            try self.tell(.doneReceived(order.id))
        } else {
            try self.tell(.reportReceived(order.id))
        }
    }

    private mutating func passTime() throws(StoreFault) {
        self.now = self.now.advanced(by: .milliseconds(Int.random(in: 1...120_000, using: &self.random)))
        guard let wake = self.wakeTime, self.now >= wake else { return }
        self.wakeTime = nil
        try self.tell(.timePassed)
    }

    private mutating func jump() {
        self.note("clock jump")
        self.now = self.now.advanced(by: .seconds(Int.random(in: -3_600...3_600, using: &self.random)))
    }

    private mutating func joinAgent(_ kind: AgentKind) throws(StoreFault) {
        self.lastLink += 1
        let id = AgentLinkID(self.lastLink)
        self.agents.append((id, kind))
        try self.tell(.agentJoined(id, kind, capacity: 3))
    }

    private mutating func loseAgent() throws(StoreFault) {
        guard let index = self.agents.indices.randomElement(using: &self.random) else { return }
        let agent = self.agents.remove(at: index)
        self.note("lost agent \(agent.kind)")
        for order in self.open where order.link == agent.id { self.noteCutOff(order) }
        self.open.removeAll { $0.link == agent.id }
        try self.tell(.agentLost(agent.id))
    }

    private mutating func operate() throws(StoreFault) {
        let messages = try self.store.messages(after: nil, limit: 50)
        guard let message = messages.randomElement(using: &self.random),
            let verb = OperatorVerb.allCases.randomElement(using: &self.random)
        else { return }
        self.note("operator \(verb.rawValue) \(message.record.id.text)")
        // A verb on what is under way takes effect when that has ended; whatever comes of it is lawful.
        for recipient in message.recipients {
            let key = RecipientKey(message: message.record.id, number: recipient.number)
            if verb == .bounce, self.scheduler.isUnderWay(key) { self.ledger.failed.insert(key) }
        }
        try self.tell(.ordered(message.record.id, verb, destinations: message.recipients.map(\.destination)))
    }

    // MARK: - The rest

    /// Faults end, peers answer, time goes on, until nothing is left to do.
    private mutating func heal() throws(StoreFault) {
        self.isHealed = true
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
}
