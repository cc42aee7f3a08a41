// SPDX-License-Identifier: Apache-2.0

import MailTypes
import QueueCore
import Simulation
import Testing

/// A scheduler in conversation: what goes in and what comes out.
private struct Conversation {
    var scheduler: Scheduler
    var now = Timestamp(microseconds: 1_000_000_000)

    init(
        recipientCountMax: Int = 1_000, windowMax: Int = 20, perDelivery: Int = 100, isPaused: Bool = false
    ) {
        let limits = SchedulerLimits(
            recipientCountMax: recipientCountMax, deliveryCountMax: 100, destinationDeliveryCountMax: windowMax,
            recipientCountPerDeliveryMax: perDelivery,
            retry: RetrySchedule(minimum: .seconds(300), maximum: .seconds(3_600)), lifetime: .seconds(86_400))
        self.scheduler = Scheduler(limits: limits, isPaused: isPaused, seed: 1)
        // The first scan finds an empty index.
        _ = self.tell(.timePassed)
        _ = self.tell(.dueLoaded(DuePage(entries: [], hasMore: false, next: nil)))
    }

    mutating func tell(_ event: Scheduler.Event) -> [Scheduler.Action] {
        var actions: [Scheduler.Action] = []
        self.scheduler.receive(event, at: self.now, into: &actions)
        return actions
    }

    mutating func join(_ kind: AgentKind, capacity: Int = 0, link: UInt64 = 1) {
        _ = self.tell(.agentJoined(AgentLinkID(link), kind, capacity: capacity))
    }

    mutating func accept(
        _ id: UInt64, _ domains: [String], from reversePath: ReversePath? = nil, _ priority: MailPriority = .normal
    ) -> [Scheduler.Action] {
        let message = Samples.message(id, recipientCount: domains.count, at: self.now.microseconds)
        let recipients = zip(message.recipients, domains).map { recipient, domain in
            RecipientRecord(
                number: recipient.number, forwardPath: recipient.forwardPath, originalPath: nil,
                route: Samples.route(domain), flow: MailFlow(reversePath ?? message.record.reversePath, priority),
                state: .queued(last: nil), due: self.now)
        }
        return self.tell(.accepted(message.record, recipients))
    }
}

extension [Scheduler.Action] {
    fileprivate var orders: [DeliveryOrder] {
        self.compactMap { if case .deliver(let order) = $0 { order } else { nil } }
    }

    fileprivate var settlements: [Settlement] {
        self.compactMap { if case .settle(let settlement) = $0 { settlement } else { nil } }
    }
}

private let hostDown = DeliveryOutcome(
    .deferred, code: 0, status: EnhancedStatus(.transient, 4, 1), reporter: "mx", text: "no answer")
private let delivered = DeliveryOutcome(
    .delivered, code: 250, status: EnhancedStatus(.success, 0, 0), reporter: "mx", text: "ok")

@Suite struct SchedulerTests {
    @Test("accepted mail is dispatched at once, recipients of one route together")
    func grouping() {
        var talk = Conversation()
        talk.join(.remote)
        let orders = talk.accept(1, ["a.example", "b.example", "a.example"]).orders
        #expect(orders.map { $0.recipients.map(\.number) } == [[0, 2], [1]])
    }

    @Test("a delivery has at most as many recipients as the limit says")
    func recipientLimit() {
        var talk = Conversation(perDelivery: 2)
        talk.join(.remote)
        let orders = talk.accept(1, ["a.example", "a.example", "a.example", "a.example", "a.example"]).orders
        #expect(orders.map { $0.recipients.map(\.number) } == [[0, 1], [2, 3], [4]])
    }

    @Test("an agent gets no more deliveries than it bears")
    func capacity() {
        var talk = Conversation()
        talk.join(.remote, capacity: 2)
        #expect(talk.accept(1, ["a.example", "b.example", "c.example"]).orders.count == 2)
        #expect(talk.tell(.doneReceived(DeliveryID(1))).orders.isEmpty)
        // Its room is free once the outcomes are noted.
        #expect(talk.tell(.settled(DeliveryID(1))).orders.count == 1)
    }

    @Test("destinations take turns: the busy one does not keep the other waiting")
    func turns() {
        var talk = Conversation(windowMax: 50)
        talk.join(.remote, capacity: 1)
        #expect(talk.accept(1, ["busy.example"]).orders.count == 1)
        for id in 2...20 { _ = talk.accept(UInt64(id), ["busy.example"]) }
        _ = talk.accept(100, ["calm.example"])
        var served: [UInt64] = []
        for number in 1...3 {
            _ = talk.tell(.outcomeReceived(DeliveryID(UInt32(number)), number: 0, delivered))
            _ = talk.tell(.doneReceived(DeliveryID(UInt32(number))))
            served += talk.tell(.settled(DeliveryID(UInt32(number)))).orders.map(\.message.id.rawValue)
        }
        #expect(served == [2, 100, 3])
    }

    @Test("a delivered recipient is settled by its deletion, a deferred one by a later time")
    func outcomes() {
        var talk = Conversation()
        talk.join(.remote)
        _ = talk.accept(1, ["a.example", "a.example"])
        _ = talk.tell(.outcomeReceived(DeliveryID(1), number: 0, delivered))
        _ = talk.tell(.outcomeReceived(DeliveryID(1), number: 1, Samples.deferral))
        let settlement = talk.tell(.doneReceived(DeliveryID(1))).settlements.first
        #expect(settlement?.changes.map(\.after?.attemptCount) == [nil, 1])
        let due = settlement?.changes.last?.after?.due
        #expect(due.map { $0 > talk.now } == true)
        #expect(settlement?.endings.map(\.status) == [.delivered, .deferred])
    }

    @Test("a recipient without an outcome is deferred, an outcome told twice ends the link")
    func misbehaviour() {
        var talk = Conversation()
        talk.join(.remote)
        _ = talk.accept(1, ["a.example", "a.example"])
        _ = talk.tell(.outcomeReceived(DeliveryID(1), number: 0, delivered))
        #expect(talk.tell(.outcomeReceived(DeliveryID(1), number: 0, delivered)) == [.disconnect(AgentLinkID(1))])
        #expect(talk.tell(.outcomeReceived(DeliveryID(1), number: 9, delivered)) == [.disconnect(AgentLinkID(1))])
        let endings = talk.tell(.doneReceived(DeliveryID(1))).settlements.first?.endings
        #expect(endings?.map(\.status) == [.delivered, .deferred])
    }

    @Test("what is deferred after its expiry fails with 5.4.7, and the last reason is told")
    func expiry() {
        var talk = Conversation()
        talk.join(.remote)
        _ = talk.accept(1, ["a.example"])
        talk.now = talk.now.advanced(by: .seconds(3_600))
        _ = talk.tell(.outcomeReceived(DeliveryID(1), number: 0, Samples.deferral))
        let ending = talk.tell(.doneReceived(DeliveryID(1))).settlements.first?.endings.first
        #expect(ending?.status == .expired)
        #expect(ending?.outcome?.status == EnhancedStatus(.permanent, 4, 7))
        #expect(ending?.outcome?.text.printableText == "delivery time expired; last: 450 4.2.0 try later")
    }

    @Test("all failures of a message go to the bounce agent together, once nothing of it is under way")
    func oneReport() {
        var talk = Conversation()
        talk.join(.remote)
        talk.join(.bounce, link: 2)
        _ = talk.accept(1, ["a.example", "b.example"])
        for number: UInt32 in [0, 1] {
            let id = DeliveryID(number + 1)
            _ = talk.tell(.outcomeReceived(id, number: number, Samples.failure))
            _ = talk.tell(.doneReceived(id))
        }
        #expect(talk.tell(.settled(DeliveryID(1))).orders.isEmpty)
        let orders = talk.tell(.settled(DeliveryID(2))).orders
        #expect(orders.map(\.route) == [.bounce])
        #expect(orders.first?.recipients.map(\.number).sorted() == [0, 1])
    }

    @Test("a host that is down is tried no more until its time, and its mail leaves memory")
    func suspension() {
        var talk = Conversation()
        talk.join(.remote)
        for id in 1...10 { _ = talk.accept(UInt64(id), ["down.example"]) }
        var moves = 0
        var saved: [DestinationRecord?] = []
        for number in 1...5 {
            _ = talk.tell(.outcomeReceived(DeliveryID(UInt32(number)), number: 0, hostDown))
            for action in talk.tell(.doneReceived(DeliveryID(UInt32(number)))) {
                if case .move(let moved) = action { moves += moved.count }
                if case .saveDestination(_, let record) = action { saved.append(record) }
            }
        }
        #expect(saved.count == 1)
        #expect(moves == 5)
        let fresh = talk.accept(50, ["down.example"])
        #expect(fresh.orders.isEmpty)
        #expect(talk.accept(51, ["up.example"]).orders.count == 1)
    }

    @Test("mail whose id is ahead of a clock that was set back is looked at while its destination is down")
    func idAhead() {
        let now = Timestamp(microseconds: 1_000_000_000)
        let route = Samples.route("down.example")
        let limits = SchedulerLimits(
            recipientCountMax: 100, deliveryCountMax: 10, destinationDeliveryCountMax: 5,
            recipientCountPerDeliveryMax: 10,
            retry: RetrySchedule(minimum: .seconds(300), maximum: .seconds(3_600)), lifetime: .seconds(86_400))
        for (id, isLookedAt) in [(now.microseconds + 3_600_000_000, true), (now.microseconds - 1_000_000, false)] {
            let suspension = DestinationRecord(suspendedUntil: now.advanced(by: .seconds(600)), suspensionCount: 1)
            var scheduler = Scheduler(
                limits: limits, isPaused: false, seed: 1, suspended: [(route: route, record: suspension)])
            var actions: [Scheduler.Action] = []
            scheduler.receive(.timePassed, at: now, into: &actions)
            let key = DueKey(time: now, recipient: RecipientKey(message: MessageID(rawValue: id), number: 0))
            let entry = DueEntry(key: key, destination: route, flow: Samples.flow)
            actions = []
            scheduler.receive(
                .dueLoaded(DuePage(entries: [entry], hasMore: false, next: nil)), at: now, into: &actions)
            #expect(actions.contains(.loadWork([key])) == isLookedAt)
        }
    }

    @Test("what a host answers about one message keeps no other mail for it waiting, whatever status it has")
    func answered() {
        var talk = Conversation()
        talk.join(.remote)
        var refusal = DeliveryOutcome(
            .deferred, code: 451, status: EnhancedStatus(.transient, 3, 0), reporter: "mx", text: "not for him now")
        refusal.hasAnswered = true
        for id in 1...5 {
            _ = talk.accept(UInt64(id), ["a.example"])
            _ = talk.tell(.outcomeReceived(DeliveryID(UInt32(id)), number: 0, refusal))
            #expect(talk.tell(.doneReceived(DeliveryID(UInt32(id)))).settlements.count == 1)
            _ = talk.tell(.settled(DeliveryID(UInt32(id))))
        }
        #expect(talk.accept(50, ["a.example"]).orders.count == 1)
    }

    @Test("when an agent is lost, its deliveries are given to the next one")
    func loss() {
        var talk = Conversation()
        talk.join(.remote, capacity: 5)
        _ = talk.accept(1, ["a.example"])
        #expect(talk.tell(.agentLost(AgentLinkID(1))).orders.isEmpty)
        let orders = talk.tell(.agentJoined(AgentLinkID(2), .remote, capacity: 5)).orders
        #expect(orders.map(\.message.id.rawValue) == [1])
        #expect(orders.first?.link == AgentLinkID(2))
    }

    @Test("mail that its agent does not survive is deferred after three times")
    func poison() {
        var talk = Conversation()
        talk.join(.remote)
        _ = talk.accept(1, ["a.example"])
        #expect(talk.tell(.agentLost(AgentLinkID(1))).settlements.isEmpty)
        talk.join(.remote, link: 2)
        #expect(talk.tell(.agentLost(AgentLinkID(2))).settlements.isEmpty)
        talk.join(.remote, link: 3)
        let settlements = talk.tell(.agentLost(AgentLinkID(3))).settlements
        #expect(settlements.first?.endings.map(\.status) == [.deferred])
    }

    @Test("while paused nothing is read or delivered; afterwards all is found")
    func pause() {
        var talk = Conversation(isPaused: true)
        talk.join(.remote)
        #expect(talk.accept(1, ["a.example"]) == [])
        let actions = talk.tell(.pauseSet(false))
        #expect(actions.contains { if case .loadDue = $0 { true } else { false } })
    }

    @Test("memory holds no more recipients than its limit, however many are accepted")
    func bounded() {
        var talk = Conversation(recipientCountMax: 400)
        for id in 1...2_000 { _ = talk.accept(UInt64(id), ["d\(id % 7).example"]) }
        #expect(talk.scheduler.recipientCount <= 400)
    }

    @Test("what two orders make due is found, also if the clock was set back between them")
    func ordersOverASetBackClock() {
        var talk = Conversation()
        let id = MessageID(rawValue: 1)
        _ = talk.tell(.ordered(OperatorOrder(.flush, id), destinations: []))
        talk.now = Timestamp(microseconds: 400_000_000)
        _ = talk.tell(.ordered(OperatorOrder(.flush, id), destinations: []))
        _ = talk.tell(.orderCommitted(id))
        let actions = talk.tell(.orderCommitted(id))
        // What the second order has written is due at its time, not at that of the first.
        #expect(
            actions.contains { if case .loadDue(_, talk.now, _) = $0 { true } else { false } }, "\(actions)")
    }

    @Test("a verb on what is under way waits for the delivery's end")
    func lateVerb() {
        var talk = Conversation()
        talk.join(.remote)
        _ = talk.accept(1, ["a.example", "b.example"])
        let id = MessageID(rawValue: 1)
        #expect(
            talk.tell(.ordered(OperatorOrder(.remove, id), destinations: []))
                == [.operate(OperatorOrder(.remove, id, except: [0, 1]))])
        _ = talk.tell(.orderCommitted(id))
        _ = talk.tell(.outcomeReceived(DeliveryID(1), number: 0, Samples.deferral))
        let removed = talk.tell(.doneReceived(DeliveryID(1))).settlements.first
        #expect(removed?.endings.map(\.status) == [.removed])
        #expect(removed?.changes.map(\.after) == [nil])
        _ = talk.tell(.outcomeReceived(DeliveryID(2), number: 1, delivered))
        #expect(talk.tell(.doneReceived(DeliveryID(2))).settlements.first?.endings.map(\.status) == [.delivered])
    }

    @Test("who is removed during a delivery that fails is not reported")
    func removedAndFailed() {
        var talk = Conversation()
        talk.join(.remote)
        _ = talk.accept(1, ["a.example"])
        _ = talk.tell(.ordered(OperatorOrder(.remove, MessageID(rawValue: 1)), destinations: []))
        _ = talk.tell(.orderCommitted(MessageID(rawValue: 1)))
        _ = talk.tell(.outcomeReceived(DeliveryID(1), number: 0, Samples.failure))
        let settlement = talk.tell(.doneReceived(DeliveryID(1))).settlements.first
        #expect(settlement?.endings.map(\.status) == [.removed])
        #expect(settlement?.changes.map(\.after) == [nil])
    }

    @Test("what waits for one host and is led to another is not delivered to the first")
    func rerouteWhileWaiting() {
        var talk = Conversation(windowMax: 1)
        talk.join(.remote)
        let first = talk.accept(1, ["a.example"]).orders
        #expect(first.count == 1)
        #expect(talk.accept(2, ["a.example"]).orders.isEmpty)
        let id = MessageID(rawValue: 2)
        let route = Samples.route("b.example")
        _ = talk.tell(.ordered(OperatorOrder(.reroute(route), id), destinations: [route]))
        var actions = talk.tell(.orderCommitted(id))
        // It is found with its new route, for which there is no room either.
        let due = DueKey(time: talk.now, recipient: RecipientKey(message: id, number: 0))
        #expect(actions.contains { if case .loadDue = $0 { true } else { false } })
        _ = talk.accept(3, ["b.example"])
        actions = talk.tell(
            .dueLoaded(
                DuePage(
                    entries: [DueEntry(key: due, destination: route, flow: Samples.flow)], hasMore: false, next: nil)))
        let message = Samples.message(2, recipientCount: 1, at: talk.now.microseconds)
        let recipient = RecipientRecord(
            number: 0, forwardPath: message.recipients[0].forwardPath, originalPath: nil, route: route,
            flow: Samples.flow, state: .queued(last: nil), due: talk.now)
        var work = LoadedWork()
        work.add(recipient, of: message.record)
        _ = talk.tell(.workLoaded(work))
        // Now the first host has room.
        _ = talk.tell(.outcomeReceived(first[0].id, number: 0, delivered))
        #expect(talk.tell(.doneReceived(first[0].id)).orders.isEmpty)
    }

    @Test("reroute waits for the end of a delivery, and changes only the recipients that are meant")
    func lateReroute() {
        var talk = Conversation()
        talk.join(.remote)
        _ = talk.accept(1, ["a.example", "b.example"])
        let id = MessageID(rawValue: 1)
        let route = Samples.route("elsewhere.example")
        let order = OperatorOrder(.reroute(route), id, only: [0])
        #expect(
            talk.tell(.ordered(order, destinations: [route]))
                == [.operate(OperatorOrder(.reroute(route), id, only: [0], except: [0]))])
        _ = talk.tell(.orderCommitted(id))
        for number: UInt32 in [0, 1] {
            _ = talk.tell(.outcomeReceived(DeliveryID(number + 1), number: number, Samples.deferral))
            let after = talk.tell(.doneReceived(DeliveryID(number + 1))).settlements.first?.changes.first?.after
            #expect(after?.route == (number == 0 ? route : Samples.route("b.example")))
            #expect(after?.attemptCount == 1)
        }
    }
}

@Suite struct MoveTests {
    @Test("no more of the index is read while moves of as many recipients as fit in memory wait for their commit")
    func movesAreBounded() {
        var conversation = Conversation(recipientCountMax: 1_000)
        conversation.join(.remote)
        // A destination that is down, and then its mail of many days at once.
        for id in 1...3 as ClosedRange<UInt64> {
            for order in conversation.accept(id, ["down.example"]).orders {
                _ = conversation.tell(.outcomeReceived(order.id, number: 0, hostDown))
                _ = conversation.tell(.doneReceived(order.id))
            }
        }
        var moves: [DueMove] = []
        // An order on a message that is not in memory makes the scheduler look at the index from now on.
        _ = conversation.tell(.ordered(OperatorOrder(.release, MessageID(rawValue: 900)), destinations: []))
        var actions = conversation.tell(.orderCommitted(MessageID(rawValue: 900)))
        var id: UInt64 = 1_000
        for _ in 0..<50 {
            for case .move(let moved) in actions { moves += moved }
            guard actions.contains(where: { if case .loadDue = $0 { true } else { false } }) else { break }
            let entries = (0..<500).map { _ in
                id += 1
                let key = RecipientKey(message: MessageID(rawValue: id), number: 0)
                return DueEntry(
                    key: DueKey(time: Timestamp(microseconds: 999_000_000), recipient: key),
                    destination: Samples.route("down.example"), flow: Samples.flow)
            }
            actions = conversation.tell(.dueLoaded(DuePage(entries: entries, hasMore: true, next: nil)))
        }
        #expect(moves.count >= 500)
        #expect(moves.count <= 2_000)
        let after = conversation.tell(.moved(moves))
        #expect(after.contains { if case .loadDue = $0 { true } else { false } }, "it goes on after the commit")
    }

    @Test("what an operator makes due while its move is being committed is found behind the move")
    func orderOverMove() {
        var talk = Conversation()
        talk.join(.remote)
        for id in 1...3 as ClosedRange<UInt64> {
            for order in talk.accept(id, ["down.example"]).orders {
                _ = talk.tell(.outcomeReceived(order.id, number: 0, hostDown))
                _ = talk.tell(.doneReceived(order.id))
            }
        }
        // Its mail is put off; the move is on its way to the disk.
        let key = RecipientKey(message: MessageID(rawValue: 4), number: 0)
        let accepted = talk.accept(4, ["down.example"])
        var moves: [DueMove] = []
        for case .move(let moved) in accepted { moves += moved }
        #expect(moves.map(\.from.recipient) == [key])
        // An order comes first: the recipient is due now, at another time than the move is from.
        talk.now = talk.now.advanced(by: .seconds(5))
        let flushed = talk.now
        _ = talk.tell(.ordered(OperatorOrder(.flush, key.message), destinations: [Samples.route("down.example")]))
        _ = talk.tell(.orderCommitted(key.message))
        let entry = DueEntry(
            key: DueKey(time: flushed, recipient: key), destination: Samples.route("down.example"), flow: Samples.flow)
        let passed = talk.tell(.dueLoaded(DuePage(entries: [entry], hasMore: false, next: nil)))
        #expect(passed.isEmpty, "\(passed)")
        // The move changes nothing on the disk, and the cursor goes back.
        let actions = talk.tell(.moved(moves))
        guard case .loadDue(let after, _, _)? = actions.first(where: { if case .loadDue = $0 { true } else { false } })
        else {
            Issue.record("nothing is read: \(actions)")
            return
        }
        #expect(after.map { $0 < entry.key } ?? true)
    }

    @Test("a host is not down until a time that only a clock that was ahead can have meant")
    func suspensionOfAnotherYear() {
        let limits = SchedulerLimits(
            recipientCountMax: 1_000, deliveryCountMax: 100, destinationDeliveryCountMax: 20,
            recipientCountPerDeliveryMax: 100, retry: RetrySchedule(minimum: .seconds(300), maximum: .seconds(3_600)),
            lifetime: .seconds(86_400))
        let now = Timestamp(microseconds: 1_000_000_000)
        for (seconds, isTried) in [(3_000, false), (4_000, false), (31_536_000, true)] {
            var talk = Conversation()
            talk.scheduler = Scheduler(
                limits: limits, isPaused: false, seed: 1,
                suspended: [
                    (
                        Samples.route("a.example"),
                        DestinationRecord(suspendedUntil: now.advanced(by: .seconds(seconds)), suspensionCount: 1)
                    )
                ])
            talk.join(.remote)
            #expect(talk.accept(1, ["a.example"]).orders.count == (isTried ? 1 : 0), "\(seconds)")
        }
    }
}
