// SPDX-License-Identifier: Apache-2.0

import MailTypes
import QueueCore
import Simulation
import Testing

/// One recipient of one message, seen by the scheduler.
private struct Fate {
    var scheduler: Scheduler
    var now = Timestamp(microseconds: 1_000_000_000)

    init(_ notify: NotifyConditions?, route: Route = Samples.route("a.example"), hasBounceAgent: Bool = true) {
        let limits = SchedulerLimits(
            recipientCountMax: 100, deliveryCountMax: 10, destinationDeliveryCountMax: 5,
            recipientCountPerDeliveryMax: 10,
            retry: RetrySchedule(minimum: .seconds(300), maximum: .seconds(300)), lifetime: .seconds(86_400),
            delayReportAge: .seconds(600))
        self.scheduler = Scheduler(limits: limits, isPaused: false, seed: 1)
        _ = self.tell(.timePassed)
        _ = self.tell(.dueLoaded(DuePage(entries: [], hasMore: false, next: nil)))
        _ = self.tell(.agentJoined(AgentLinkID(1), route.agentKind, capacity: 0))
        if hasBounceAgent { _ = self.tell(.agentJoined(AgentLinkID(2), .bounce, capacity: 0)) }
        let message = Samples.message(1, recipientCount: 1, at: self.now.microseconds)
        let recipient = RecipientRecord(
            number: 0, forwardPath: message.recipients[0].forwardPath, originalPath: nil, route: route,
            flow: Samples.flow, state: .queued(last: nil), due: self.now, dsn: RecipientDSN(notify: notify))
        _ = self.tell(.accepted(message.record, [recipient]))
    }

    @discardableResult mutating func tell(_ event: Scheduler.Event) -> [Scheduler.Action] {
        var actions: [Scheduler.Action] = []
        self.scheduler.receive(event, at: self.now, into: &actions)
        return actions
    }

    /// The agent ends a delivery; how the record and the log line are then.
    mutating func end(_ delivery: UInt32, _ outcome: DeliveryOutcome?) -> (RecipientRecord?, RecipientEnding.Status?) {
        if let outcome { self.tell(.outcomeReceived(DeliveryID(delivery), number: 0, outcome)) }
        for action in self.tell(.doneReceived(DeliveryID(delivery))) {
            guard case .settle(let settlement) = action else { continue }
            return (settlement.changes.first?.after, settlement.endings.first?.status)
        }
        return (nil, nil)
    }

    /// The bounce agent hands a report in.
    mutating func report(_ delivery: UInt32) -> (RecipientRecord?, RecipientEnding.Status?) {
        for action in self.tell(.reportReceived(DeliveryID(delivery))) {
            guard case .exchange(let settlement) = action else { continue }
            return (settlement.changes.first?.after, settlement.endings.first?.status)
        }
        return (nil, nil)
    }
}

private func delivered(passesOn: Bool = false) -> DeliveryOutcome {
    var outcome = DeliveryOutcome(
        .delivered, code: 250, status: EnhancedStatus(.success, 0, 0), reporter: "mx", text: "ok")
    outcome.hasPassedOnDSN = passesOn
    return outcome
}

@Suite("Which report is due")
struct ReportTests {
    static let wishes: [NotifyConditions?] =
        [nil] + (0...7).map { NotifyConditions(rawValue: $0) }

    @Test("follows NOTIFY, what became of the recipient, and who reports it", arguments: wishes)
    func matrix(notify: NotifyConditions?) {
        let wish = RecipientDSN(notify: notify)
        var failed = Fate(notify)
        let failure = failed.end(1, Samples.failure)
        #expect(failure.0?.owedReport == (wish.wants(.failure) ? .failed : nil))
        #expect(failure.1 == (wish.wants(.failure) ? .failed : .unreported))
        var relayed = Fate(notify)
        #expect(relayed.end(1, delivered()).0?.owedReport == (wish.wants(.success) ? .relayed : nil))
        var passedOn = Fate(notify)
        #expect(passedOn.end(1, delivered(passesOn: true)).0 == nil)
        var local = Fate(notify, route: .local(user: Array("joe".utf8)))
        #expect(local.end(1, delivered(passesOn: true)).0?.owedReport == (wish.wants(.success) ? .delivered : nil))
        var young = Fate(notify)
        young.now = young.now.advanced(by: .seconds(599))
        #expect(young.end(1, Samples.deferral).0?.owedReport == nil)
        var old = Fate(notify)
        old.now = old.now.advanced(by: .seconds(600))
        #expect(old.end(1, Samples.deferral).0?.owedReport == (wish.wants(.delay) ? .delayed : nil))
        var expired = Fate(notify)
        expired.now = expired.now.advanced(by: .seconds(3_600))
        let end = expired.end(1, Samples.deferral)
        #expect(end.0?.owedReport == (wish.wants(.failure) ? .failed : nil))
        #expect(end.1 == (wish.wants(.failure) ? .expired : .unreported))
    }

    @Test("of a delay: once, and the recipient is tried again at its time")
    func delay() {
        var fate = Fate(nil)
        fate.now = fate.now.advanced(by: .seconds(600))
        _ = fate.end(1, Samples.deferral)
        fate.tell(.settled(DeliveryID(1)))
        let told = fate.report(2)
        #expect(told.1 == .warned)
        #expect(told.0?.owedReport == nil && told.0?.isDelayTold == true && told.0?.lastOutcome == Samples.deferral)
        #expect(told.0?.due.map { $0 > fate.now && $0 < fate.now.advanced(by: .seconds(400)) } == true)
    }

    @Test("of a delay keeps no mail waiting: if it cannot be sent the recipient is tried all the same")
    func delayUntold() {
        for outcome in [nil, Samples.deferral, Samples.failure] {
            var fate = Fate(nil)
            fate.now = fate.now.advanced(by: .seconds(600))
            _ = fate.end(1, Samples.deferral)
            fate.tell(.settled(DeliveryID(1)))
            let after = fate.end(2, outcome)
            #expect(after.1 == .deferred)
            #expect(after.0?.owedReport == nil && after.0?.due != nil)
            // An agent that says that there will be none is not asked again.
            #expect(after.0?.isDelayTold == (outcome?.kind == .failed))
        }
        var fate = Fate(nil, hasBounceAgent: false)
        fate.now = fate.now.advanced(by: .seconds(600))
        #expect(fate.end(1, Samples.deferral).0?.owedReport == nil)
    }

    @Test("that is put off for as long as a message is tried is given up, and the log says so")
    func reportTooOld() {
        var fate = Fate(nil)
        _ = fate.end(1, Samples.failure)
        fate.tell(.settled(DeliveryID(1)))
        // The message would have been tried for an hour, and its report for a day more.
        fate.now = fate.now.advanced(by: .seconds(86_400))
        var young = fate
        #expect(young.end(2, Samples.deferral).1 == .deferred)
        fate.now = fate.now.advanced(by: .seconds(3_600))
        let end = fate.end(2, nil)
        #expect(end.0 == nil && end.1 == .dropped)
    }

    @Test("of a delay that cannot be sent now is asked for again after retry-min, not at once")
    func delayRefused() {
        var fate = Fate(nil)
        fate.now = fate.now.advanced(by: .seconds(600))
        _ = fate.end(1, Samples.deferral)
        fate.tell(.settled(DeliveryID(1)))
        // Its destination has been down for longer than the next attempt was to wait.
        fate.now = fate.now.advanced(by: .seconds(3_600))
        for outcome in [nil, Samples.deferral] {
            var other = fate
            let due = other.end(2, outcome).0?.due
            #expect(due.map { $0 >= other.now.advanced(by: .seconds(300)) } == true)
        }
    }
}
