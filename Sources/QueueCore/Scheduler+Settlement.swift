// SPDX-License-Identifier: Apache-2.0
//
// What becomes of a recipient after an attempt.

import MailTypes

extension Scheduler {
    // MARK: - Outcomes

    mutating func note(
        _ outcome: DeliveryOutcome, of number: UInt32, in id: DeliveryID, _ actions: inout [Action]
    ) {
        guard let delivery = self.deliveries[id], delivery.changes.isEmpty else { return }
        guard let place = delivery.numbers.firstIndex(of: number), delivery.outcomes[place] == nil else {
            if let link = delivery.link { actions.append(.disconnect(link)) }
            return
        }
        self.deliveries[id]?.outcomes[place] = outcome
    }

    private static let outcomeMissing = DeliveryOutcome(
        .deferred, code: 0, status: EnhancedStatus(.transient, 3, 0), reporter: "apus-queue",
        text: "the delivering program told no outcome")

    /// A delivery has ended: decides what becomes of each recipient.
    mutating func end(_ id: DeliveryID, _ now: Timestamp, _ actions: inout [Action]) {
        guard let delivery = self.deliveries[id], delivery.changes.isEmpty,
            let work = self.messages[delivery.message]
        else { return }
        var changes: [RecipientChange] = []
        var endings: [RecipientEnding] = []
        var isHostDown = true
        // Recipients that were deferred together come back together.
        let random = self.random.next()
        for (number, answer) in zip(delivery.numbers, delivery.outcomes) {
            guard let index = work.index(of: number) else { continue }
            let outcome = answer ?? Self.outcomeMissing
            if !Self.tellsThatHostIsDown(outcome) { isHostDown = false }
            let recipient = work.recipients[index]
            let (after, status) = self.next(recipient, work.record, outcome, now, random)
            var told = after ?? recipient.record
            // What is noted is what is logged: an expiry, not the deferral that it came from.
            let isFailing = status == .failed || status == .expired
            if after == nil { told.attemptCount = told.attemptCount == .max ? .max : told.attemptCount + 1 }
            changes.append(RecipientChange(number: number, dueBefore: recipient.record.due, after: after))
            endings.append(
                RecipientEnding(
                    status: status, message: work.record.id, recipient: told,
                    outcome: isFailing ? told.lastOutcome : outcome,
                    delay: now.elapsed(since: work.record.arrival)))
            self.messages[delivery.message]?.update(index) { $0.phase = .settling(id) }
        }
        self.deliveries[id]?.changes = changes
        actions.append(
            .settle(Settlement(delivery: id, message: delivery.message, changes: changes, endings: endings)))
        if delivery.link == nil {
            self.destinations[delivery.destination]?.window.ended()
            self.makeReady(delivery.destination, now)
        } else {
            self.feedBack(isHostDown ? .failed : .answered, delivery.destination, now, &actions)
        }
    }

    /// The record after an attempt (nil: the queue has done its duty), and the word for the log.
    private func next(
        _ recipient: RecipientWork, _ message: MessageRecord, _ outcome: DeliveryOutcome, _ now: Timestamp,
        _ random: UInt64
    ) -> (RecipientRecord?, RecipientEnding.Status) {
        var after = recipient.record
        after.attemptCount = after.attemptCount == .max ? .max : after.attemptCount + 1
        after.lastAttempt = now
        let retry = now.advanced(by: self.limits.retry.delay(attemptCount: after.attemptCount, random: random))
        if recipient.record.hasFailed {
            // The bounce agent: either it has decided that no report can be sent, or it is asked again.
            if outcome.kind == .failed { return (nil, .dropped) }
            if recipient.verb == .remove { return (nil, .removed) }
            after.lastAttempt = recipient.record.lastAttempt
            after.due = recipient.verb == .hold ? nil : retry
            return (after, .deferred)
        }
        switch outcome.kind {
        case .delivered: return (nil, .delivered)
        case .failed:
            after.state = .failed(outcome)
            after.due = recipient.verb == .hold ? nil : now
            return (after, .failed)
        case .deferred:
            after.state = .queued(last: outcome)
            if let verb = recipient.verb { return self.obeyLate(verb, after, retry, now) }
            if now >= message.expiry {
                after.state = .failed(Self.expired(outcome))
                after.due = now
                return (after, .expired)
            }
            after.due = retry
            return (after, .deferred)
        }
    }

    /// What the operator wanted while the delivery was under way.
    private func obeyLate(
        _ verb: OperatorVerb, _ record: RecipientRecord, _ retry: Timestamp, _ now: Timestamp
    ) -> (RecipientRecord?, RecipientEnding.Status) {
        guard let change = verb.change(record, now: now) else {
            var after = record
            after.due = retry
            return (after, .deferred)
        }
        guard let after = change.after else { return (nil, .removed) }
        return (after, after.hasFailed ? .failed : .deferred)
    }

    private static func expired(_ last: DeliveryOutcome?) -> DeliveryOutcome {
        let text = Array("delivery time expired".utf8) + (last.map { Array("; last: ".utf8) + $0.text } ?? [])
        return DeliveryOutcome(
            .failed, code: last?.code ?? 0, status: EnhancedStatus(.permanent, 4, 7),
            reporter: last?.reporter ?? Array("apus-queue".utf8), text: text)
    }

    /// RFC 3463 §3.4, §3.5: the system or the way to it, not the mailbox or the message.
    private static func tellsThatHostIsDown(_ outcome: DeliveryOutcome) -> Bool {
        guard outcome.kind == .deferred else { return false }
        return outcome.code == 421 || outcome.status.subject == 4 || outcome.status.subject == 3
    }

    /// The report of these failures has been handed in.
    mutating func endWithReport(_ id: DeliveryID, _ now: Timestamp, _ actions: inout [Action]) {
        guard let delivery = self.deliveries[id], delivery.changes.isEmpty,
            let work = self.messages[delivery.message], self.destinations[delivery.destination]?.kind == .bounce
        else { return }
        var changes: [RecipientChange] = []
        var endings: [RecipientEnding] = []
        for number in delivery.numbers {
            guard let index = work.index(of: number) else { continue }
            let record = work.recipients[index].record
            changes.append(RecipientChange(number: number, dueBefore: record.due, after: nil))
            endings.append(
                RecipientEnding(
                    status: .reported, message: work.record.id, recipient: record, outcome: record.lastOutcome,
                    delay: now.elapsed(since: work.record.arrival)))
            self.messages[delivery.message]?.update(index) { $0.phase = .settling(id) }
        }
        self.deliveries[id]?.changes = changes
        actions.append(
            .exchange(Settlement(delivery: id, message: delivery.message, changes: changes, endings: endings)))
        self.feedBack(.answered, delivery.destination, now, &actions)
    }

    // MARK: - Expiry without an attempt

    /// Whether a recipient is too old, so that it need not wait for a destination that is down.
    func isExpiredInVain(_ recipient: RecipientRecord, _ message: MessageRecord, _ now: Timestamp) -> Bool {
        now >= message.expiry && !recipient.hasFailed
    }

    /// Makes a recipient that is not in memory fail.
    mutating func expire(
        _ recipient: RecipientRecord, of message: MessageRecord, _ now: Timestamp, _ actions: inout [Action]
    ) {
        let id = self.makeDeliveryID()
        let place = self.place(recipient.destination)
        let failure = Self.expired(recipient.lastOutcome)
        var after = recipient
        after.state = .failed(failure)
        after.due = now
        let change = RecipientChange(number: recipient.number, dueBefore: recipient.due, after: after)
        self.messages[message.id, default: MessageWork(record: message)].insert(
            RecipientWork(record: recipient, phase: .settling(id)))
        self.recipientCount += 1
        self.recipientCounts[recipient.destination.agentKind.rawValue] += 1
        self.senders.add(recipient.flow.sender, recipients: 1)
        self.deliveries[id] = DeliveryUnderWay(
            link: nil, destination: place, message: message.id, numbers: [recipient.number], outcomes: [nil],
            changes: [change])
        let ending = RecipientEnding(
            status: .expired, message: message.id, recipient: after, outcome: failure,
            delay: now.elapsed(since: message.arrival))
        actions.append(
            .settle(Settlement(delivery: id, message: message.id, changes: [change], endings: [ending])))
    }

    // MARK: - After the commit

    /// The changes of a delivery are on stable storage.
    mutating func conclude(_ id: DeliveryID, _ now: Timestamp) {
        guard let delivery = self.deliveries[id], !delivery.changes.isEmpty else { return }
        self.close(id)
        self.release(delivery.link)
        for change in delivery.changes { self.conclude(change, delivery.message, now) }
        self.makeReportReady(delivery.message, now)
        self.makeReady(delivery.destination, now)
        self.listIdle(delivery.destination)
    }

    private mutating func conclude(_ change: RecipientChange, _ message: MessageID, _ now: Timestamp) {
        guard let index = self.messages[message]?.index(of: change.number) else { return }
        let kind = self.messages[message]?.recipients[index].record.destination.agentKind
        guard let after = change.after, after.due != nil, after.hasFailed, kind != .bounce, !self.isPaused,
            self.operating[message] == nil
        else {
            // Delivered, held, deferred to another time, or about to be changed by an operator.
            self.drop(change.number, of: message)
            if let due = change.after?.due { self.noteDue(due) }
            return
        }
        // A new failure stays in memory: its report comes next.
        self.recipientCounts[kind?.rawValue ?? 0] -= 1
        self.recipientCounts[AgentKind.bounce.rawValue] += 1
        self.messages[message]?.update(index) { $0 = RecipientWork(record: after) }
        let place = self.place(.bounce)
        self.destinations[place]?.waiting.add(change.number, of: message, after.flow)
        self.makeReady(place, now)
    }

    /// Puts a report into the line that had waited for the message's other deliveries.
    mutating func makeReportReady(_ message: MessageID, _ now: Timestamp) {
        guard let work = self.messages[message], work.hasReportWaiting, !work.isUnderWay else { return }
        self.messages[message]?.hasReportWaiting = false
        let place = self.place(.bounce)
        let failures = work.recipients.filter { $0.phase == .waiting && $0.record.hasFailed }.map(\.record)
        // Those that were put into the line by the same commit are there already; a number that stands there twice is
        // passed over the second time.
        for record in failures { self.destinations[place]?.waiting.add(record.number, of: message, record.flow) }
        self.makeReady(place, now)
    }

    // MARK: - Destinations that go down and come back

    private mutating func feedBack(
        _ feedback: DestinationWindow.Feedback, _ place: Int, _ now: Timestamp, _ actions: inout [Action]
    ) {
        guard let destination = self.destinations[place] else { return }
        self.destinations[place]?.noteEnd(now)
        let told = destination.kind == .bounce ? .answered : feedback
        let isDown = self.destinations[place]?.window.ended(told) ?? false
        if isDown {
            // Why: deliveries that were started before it was found down tell nothing new.
            guard !destination.isSuspended(at: now) else { return }
            let count = (destination.suspension?.suspensionCount ?? 0) &+ 1
            let delay = self.limits.retry.delay(attemptCount: count, random: self.random.next())
            let record = DestinationRecord(suspendedUntil: now.advanced(by: delay), suspensionCount: max(count, 1))
            if destination.suspension == nil { self.suspendedCount += 1 }
            self.destinations[place]?.suspension = record
            actions.append(.saveDestination(destination.route, record))
            self.clear(place, until: record.suspendedUntil, now, &actions)
        } else {
            if told == .answered, destination.suspension != nil {
                self.destinations[place]?.suspension = nil
                self.suspendedCount -= 1
                actions.append(.saveDestination(destination.route, nil))
            }
            self.makeReady(place, now)
        }
    }
}
