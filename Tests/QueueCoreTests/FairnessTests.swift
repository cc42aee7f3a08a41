// SPDX-License-Identifier: Apache-2.0

import MailTypes
import QueueCore
import Simulation
import Testing

/// A scheduler with its agent and its disk, both of the simplest kind: deliveries end when the test says so, and what is
/// moved is found again at its time.
private struct Site {
    var scheduler: Scheduler
    var now = Timestamp(microseconds: 1_000_000_000)
    /// What is with the agent, in the order of its beginning.
    var open: [DeliveryOrder] = []
    /// What is on the disk; nil: nothing is ever found there, for tests of what fits in memory.
    private var disk: [RecipientKey: (message: MessageRecord, recipient: RecipientRecord)]? = [:]
    /// How far anything was put off.
    private(set) var longestMove = Duration.zero
    private var lastID: UInt64 = 0
    private var wakeTime: Timestamp?

    init(
        recipientCountMax: Int = 20_000, deliveryCountMax: Int = 2_000, windowMax: Int = 20,
        rules: [DestinationRule] = [], hasDisk: Bool = true
    ) {
        if !hasDisk { self.disk = nil }
        self.scheduler = Scheduler(
            limits: SchedulerLimits(
                recipientCountMax: recipientCountMax, deliveryCountMax: deliveryCountMax,
                destinationDeliveryCountMax: windowMax, recipientCountPerDeliveryMax: 100,
                retry: RetrySchedule(minimum: .seconds(300), maximum: .seconds(3_600)), lifetime: .seconds(86_400),
                rules: rules),
            isPaused: false, seed: 1)
        self.tell(.agentJoined(AgentLinkID(1), .remote, capacity: 0))
    }

    mutating func tell(_ event: Scheduler.Event) {
        var actions: [Scheduler.Action] = []
        self.scheduler.receive(event, at: self.now, into: &actions)
        var index = 0
        while index < actions.count {
            self.perform(actions[index], &actions)
            index += 1
        }
    }

    private mutating func perform(_ action: Scheduler.Action, _ actions: inout [Scheduler.Action]) {
        func tell(_ event: Scheduler.Event) { self.scheduler.receive(event, at: self.now, into: &actions) }
        switch action {
        case .deliver(let order): self.open.append(order)
        case .settle(let settlement):
            for change in settlement.changes {
                self.disk?[RecipientKey(message: settlement.message, number: change.number)] = nil
            }
            tell(.settled(settlement.delivery))
        case .loadDue(let after, let through, let limit): tell(.dueLoaded(self.page(after, through, limit)))
        case .loadWork(let keys):
            var work = LoadedWork()
            for key in keys {
                if let found = self.disk?[key.recipient] { work.add(found.recipient, of: found.message) }
            }
            tell(.workLoaded(work))
        case .move(let moves):
            for move in moves {
                self.disk?[move.from.recipient]?.recipient.due = move.to
                self.longestMove = max(self.longestMove, move.to.elapsed(since: self.now))
            }
            tell(.moved(moves))
        case .wake(let time): self.wakeTime = time
        case .saveDestination: break
        case .exchange, .operate, .quarantine, .disconnect: Issue.record("\(action) was not expected")
        }
    }

    private func page(_ after: DueKey?, _ through: Timestamp, _ limit: Int) -> DuePage {
        var entries = (self.disk ?? [:]).compactMap { key, found in
            found.recipient.due.map { due in
                DueEntry(
                    key: DueKey(time: due, recipient: key), destination: found.recipient.destination,
                    flow: found.recipient.flow)
            }
        }
        entries = entries.filter { entry in after.map { entry.key > $0 } ?? true }.sorted { $0.key < $1.key }
        let due = entries.prefix { $0.key.time <= through }
        return DuePage(
            entries: Array(due.prefix(limit)), hasMore: due.count > limit,
            next: due.count > limit ? nil : entries.dropFirst(due.count).first?.key.time)
    }

    /// Accepts a message to one domain; answers its id.
    @discardableResult
    mutating func accept(
        from sender: String, to domain: String, _ priority: MailPriority = .normal
    ) -> MessageID {
        self.accept(from: sender, to: domain, Samples.route(domain), priority)
    }

    /// Accepts a message to somebody here.
    mutating func accept(from sender: String, toUser user: String) -> MessageID {
        self.accept(from: sender, to: "here.example", .local(user: Array(user.utf8)), .normal)
    }

    private mutating func accept(
        from sender: String, to domain: String, _ route: Route, _ priority: MailPriority
    ) -> MessageID {
        self.lastID += 1
        var message = Samples.message(self.lastID, recipientCount: 1, at: self.now.microseconds)
        let path = ReversePath(octets: Array(sender.utf8)) ?? .null
        message.recipients = [
            RecipientRecord(
                number: 0, forwardPath: Samples.path("user@\(domain)"), originalPath: nil, route: route,
                flow: MailFlow(path, priority), state: .queued(last: nil), due: self.now)
        ]
        self.disk?[RecipientKey(message: message.record.id, number: 0)] = (message.record, message.recipients[0])
        self.tell(.accepted(message.record, message.recipients))
        return message.record.id
    }

    /// The oldest delivery under way ends well.
    mutating func finish(at index: Int = 0) {
        let order = self.open.remove(at: index)
        self.tell(
            .outcomeReceived(
                order.id, number: 0,
                DeliveryOutcome(
                    .delivered, code: 250, status: EnhancedStatus(.success, 0, 0), reporter: "mx", text: "ok")))
        self.tell(.doneReceived(order.id))
    }

    /// Time goes on by so much, with every timer that is due meanwhile.
    mutating func pass(_ span: Duration) {
        let end = self.now.advanced(by: span)
        while let wake = self.wakeTime, wake <= end {
            self.now = max(self.now, wake)
            self.wakeTime = nil
            self.tell(.timePassed)
        }
        self.now = end
    }

    func isOpen(_ id: MessageID) -> Bool { self.open.contains { $0.message.id == id } }
}

@Suite struct FairnessTests {
    @Test("a single message to a healthy host leaves at once behind 30,000 of one sender for hosts that do not answer")
    func singleBehindMany() {
        var site = Site(hasDisk: false)
        for number in 0..<30_000 { site.accept(from: "bulk@example.com", to: "slow\(number % 10_000).example") }
        #expect(site.open.count >= 1_400, "most of what the limits allow is used: \(site.open.count)")
        let single = site.accept(from: "alice@example.net", to: "healthy.example")
        #expect(site.isOpen(single))
        #expect(site.scheduler.recipientCount <= 20_000)
    }

    @Test("the same with a hundred senders of many: whoever has little finds a place")
    func singleBehindManySenders() {
        var site = Site(deliveryCountMax: 400, hasDisk: false)
        for number in 0..<15_000 {
            site.accept(from: "bulk@s\(number % 100).example", to: "slow\(number % 997).example")
        }
        let single = site.accept(from: "alice@example.net", to: "healthy.example")
        #expect(site.isOpen(single))
    }

    @Test("a single message to a healthy host leaves at once behind thousands of senders' mail for one slow host")
    func manySendersToOneHost() {
        var site = Site(recipientCountMax: 2_000)
        for number in 0..<3_000 { site.accept(from: "user@s\(number).example", to: "slow.example") }
        let single = site.accept(from: "alice@example.net", to: "healthy.example")
        site.pass(.seconds(2))
        let isOpen = site.isOpen(single)
        #expect(isOpen)
    }

    @Test("the share of a destination does not grow because it was idle once")
    func shareAfterIdleness() {
        var site = Site(recipientCountMax: 2_000)
        for round in 0..<2 {
            for host in 0..<9 {
                for _ in 0..<(round == 0 ? 1 : 600) { site.accept(from: "list@example.com", to: "slow\(host).example") }
            }
            if round == 0 { while !site.open.isEmpty { site.finish() } }
        }
        for _ in 0..<5 {
            let single = site.accept(from: "list@example.com", to: "fast.example")
            site.pass(.seconds(1))
            let isOpen = site.isOpen(single)
            #expect(isOpen)
            if let place = site.open.firstIndex(where: { $0.message.id == single }) { site.finish(at: place) }
        }
    }

    @Test("mail of a sender for people here does not wait for what he sends to the world")
    func kindsApart() {
        var site = Site()
        site.tell(.agentJoined(AgentLinkID(2), .local, capacity: 64))
        for number in 0..<300 { site.accept(from: "news@example.com", to: "host\(number).example") }
        #expect(site.open.count == 300)
        let single = site.accept(from: "news@example.com", toUser: "joe")
        let isOpen = site.isOpen(single)
        #expect(isOpen)
    }

    @Test("at one destination a single message goes next, however many of another sender wait")
    func turnsAtOneDestination() {
        var site = Site(windowMax: 5)
        for _ in 0..<1_000 { site.accept(from: "list@example.com", to: "popular.example") }
        let single = site.accept(from: "alice@example.net", to: "popular.example")
        #expect(!site.isOpen(single))
        for _ in 0..<2 { site.finish() }
        #expect(site.isOpen(single))
    }

    @Test("a list that writes each message from another address is one sender")
    func variableReversePaths() {
        var site = Site(windowMax: 5)
        for number in 0..<500 {
            site.accept(from: "list-\(number)-user=example.org@lists.example.com", to: "popular.example")
        }
        let single = site.accept(from: "alice@lists.example.com", to: "popular.example")
        for _ in 0..<2 { site.finish() }
        #expect(site.isOpen(single))
    }

    @Test("urgent mail goes before other mail, and what is not urgent still goes")
    func priorities() {
        var site = Site(windowMax: 1)
        var urgent: Set<MessageID> = []
        for _ in 0..<100 { site.accept(from: "news@example.com", to: "one.example", .low) }
        for _ in 0..<100 { urgent.insert(site.accept(from: "pager@example.com", to: "one.example", .high)) }
        site.finish()
        var first: [Bool] = []
        for _ in 0..<51 {
            first.append(urgent.contains(site.open[0].message.id))
            site.finish()
        }
        // Sixteen to one.
        #expect(first.count { $0 } == 48)
    }

    @Test("among destinations with mail of the same urgency each has its turn")
    func destinationsTakeTurns() {
        var site = Site(deliveryCountMax: 1)
        for _ in 0..<50 { site.accept(from: "a@example.com", to: "busy.example") }
        let calm = (0..<5).map { _ in site.accept(from: "a@example.com", to: "calm.example") }
        var openCount = 0
        for _ in 0..<12 {
            openCount += site.open.count { calm.contains($0.message.id) }
            site.finish()
        }
        #expect(openCount == 5)
    }

    @Test("a minute in which nothing ends puts nothing off for longer than five minutes")
    func standstill() {
        var site = Site(recipientCountMax: 1_000, hasDisk: false)
        for _ in 0..<600 { site.accept(from: "list@example.com", to: "busy.example") }
        for _ in 0..<51 {
            site.pass(.milliseconds(2))
            site.finish()
        }
        // The agent, the queue or the network stood still; then one delivery ends, and mail comes as before.
        site.pass(.seconds(60))
        site.finish()
        for _ in 0..<200 { site.accept(from: "list@example.com", to: "busy.example") }
        #expect((.seconds(1) ... .seconds(300)).contains(site.longestMove), "\(site.longestMove)")
    }

    @Test("nothing is forgotten: every message of a crowd is delivered in the end")
    func crowdDrains() {
        var site = Site(recipientCountMax: 100, deliveryCountMax: 20)
        for number in 0..<600 {
            site.accept(
                from: "s\(["a", "b", "c"][number % 3])@example.com", to: "d\(number % 50).example",
                MailPriority.allCases[number % 3])
        }
        var deliveredCount = 0
        for _ in 0..<100_000 where deliveredCount < 600 {
            if site.open.isEmpty {
                site.pass(.seconds(1))
            } else {
                site.finish(at: deliveredCount % site.open.count)
                deliveredCount += 1
                site.pass(.milliseconds(1))
            }
        }
        #expect(deliveredCount == 600)
    }
}

@Suite struct DestinationTermsTests {
    private static func rule(_ pattern: String, _ terms: DestinationTerms) -> DestinationRule {
        DestinationRule(pattern: Samples.pattern(pattern), terms: terms)
    }

    @Test("a destination has no more deliveries at once than its rule allows, and others have the general limit")
    func connections() {
        var site = Site(rules: [Self.rule("*.example.org", DestinationTerms(deliveryCountMax: 2))])
        for _ in 0..<30 {
            site.accept(from: "a@example.com", to: "mx.example.org")
            site.accept(from: "a@example.com", to: "other.example")
        }
        #expect(site.open.count { $0.route == Samples.route("mx.example.org") } == 2)
        #expect(site.open.count { $0.route == Samples.route("other.example") } == 5)
    }

    @Test("deliveries to a destination with a limit for each minute begin evenly", arguments: [60, 6, 600])
    func pace(perMinute: Int) {
        var site = Site(
            windowMax: 1_000, rules: [Self.rule("slow.example", DestinationTerms(deliveriesPerMinuteMax: perMinute))])
        for _ in 0..<2_000 { site.accept(from: "a@example.com", to: "slow.example") }
        // What a late timer may catch up with is two of the fastest.
        #expect((1...2).contains(site.open.count))
        var startedCount = site.open.count
        for _ in 0..<600 {
            while !site.open.isEmpty { site.finish() }
            site.pass(.milliseconds(100))
            startedCount += site.open.count
        }
        #expect(abs(startedCount - perMinute) <= 2, "in one minute: \(startedCount)")
    }

    @Test("however many others have had mail since, a destination keeps its pace; what was learnt of it is forgotten")
    func forgotten() {
        var site = Site(
            windowMax: 50, rules: [Self.rule("slow.example", DestinationTerms(deliveriesPerMinuteMax: 1))])
        func pass(_ count: Int, _ name: String) {
            for number in 0..<count {
                site.accept(from: "a@example.com", to: "\(name)\(number).example")
                site.finish()
            }
        }
        func openCount(of name: String) -> Int {
            for _ in 0..<30 { site.accept(from: "a@example.com", to: name) }
            let count = site.open.count
            while !site.open.isEmpty { site.finish() }
            return count
        }
        _ = openCount(of: "wide.example")
        pass(900, "few")
        #expect(openCount(of: "wide.example") > 5)
        site.accept(from: "a@example.com", to: "slow.example")
        #expect(site.open.count == 1)
        site.finish()
        pass(1_001, "many")
        #expect(openCount(of: "wide.example") == 5)
        site.accept(from: "a@example.com", to: "slow.example")
        #expect(site.open.isEmpty)
        site.pass(.seconds(61))
        #expect(site.open.count == 1)
    }

    @Test("a clock that is set back does not stop a destination with a limit for each minute")
    func clockSetBack() {
        var site = Site(rules: [Self.rule("slow.example", DestinationTerms(deliveriesPerMinuteMax: 6))])
        for _ in 0..<10 { site.accept(from: "a@example.com", to: "slow.example") }
        site.finish()
        site.now = Timestamp(microseconds: 500_000_000)
        site.tell(.timePassed)
        #expect(site.open.count == 1)
    }

    @Test("the first rule that matches counts, and a reload takes effect on mail that waits")
    func reload() {
        var site = Site(rules: [
            Self.rule("mx.example.org", DestinationTerms(deliveryCountMax: 1)),
            Self.rule("*", DestinationTerms(deliveryCountMax: 3)),
        ])
        for _ in 0..<10 {
            site.accept(from: "a@example.com", to: "mx.example.org")
            site.accept(from: "a@example.com", to: "other.example")
        }
        #expect(site.open.count == 4)
        var limits = SchedulerLimits(
            recipientCountMax: 20_000, deliveryCountMax: 2_000, destinationDeliveryCountMax: 2,
            recipientCountPerDeliveryMax: 100,
            retry: RetrySchedule(minimum: .seconds(300), maximum: .seconds(3_600)), lifetime: .seconds(86_400))
        limits.rules = []
        site.tell(.limitsSet(limits))
        for _ in 0..<4 { site.finish() }
        #expect(site.open.count { $0.route == Samples.route("mx.example.org") } == 2)
        #expect(site.open.count { $0.route == Samples.route("other.example") } == 2)
    }
}
