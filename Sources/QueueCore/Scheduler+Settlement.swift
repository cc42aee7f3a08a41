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
            let message = self.messages[delivery.message]?.record
        else { return }
        var changes: [RecipientChange] = []
        var endings: [RecipientEnding] = []
        var isHostDown = true
        // Recipients that were deferred together come back together.
        let random = self.random.next()
        for (number, answer) in zip(delivery.numbers, delivery.outcomes) {
            guard let index = self.messages[delivery.message]?.recipients.index(of: number),
                let recipient = self.messages[delivery.message]?.recipients[index]
            else { continue }
            let outcome = answer ?? Self.outcomeMissing
            if !Self.tellsThatHostIsDown(outcome) { isHostDown = false }
            let step = self.next(recipient, message, outcome, now, random)
            var told = step.after ?? recipient.record
            if step.after == nil { told.attemptCount = told.attemptCount == .max ? .max : told.attemptCount + 1 }
            changes.append(RecipientChange(number: number, dueBefore: recipient.record.due, after: step.after))
            endings.append(
                RecipientEnding(
                    status: step.status, message: message.id, recipient: told, outcome: step.outcome ?? outcome,
                    delay: now.elapsed(since: message.arrival)))
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

    /// What an attempt leads to.
    private struct Step {
        /// The record after it; nil: the queue has done its duty.
        var after: RecipientRecord?
        /// The word for the log.
        var status: RecipientEnding.Status
        /// What is logged in the place of the outcome of the attempt: an expiry, not the deferral that it came from.
        var outcome: DeliveryOutcome?

        init(_ after: RecipientRecord?, _ status: RecipientEnding.Status, _ outcome: DeliveryOutcome? = nil) {
            self.after = after
            self.status = status
            self.outcome = outcome
        }
    }

    private func next(
        _ recipient: RecipientWork, _ message: MessageRecord, _ outcome: DeliveryOutcome, _ now: Timestamp,
        _ random: UInt64
    ) -> Step {
        var after = recipient.record
        after.attemptCount = after.attemptCount == .max ? .max : after.attemptCount + 1
        after.lastAttempt = now
        let retry = now.advanced(by: self.limits.retry.delay(attemptCount: after.attemptCount, random: random))
        switch recipient.record.owedReport {
        case .delayed?:
            // The report cannot be sent, or not now. The delivery must not wait for it: the next delay may be told.
            return self.resume(recipient, isTold: outcome.kind == .failed, .deferred, now, random)
        case _?:
            // The bounce agent: either it has decided that no report can be sent, or it is asked again.
            if outcome.kind == .failed { return Step(nil, .dropped) }
            if recipient.verb == .remove { return Step(nil, .removed) }
            after.lastAttempt = recipient.record.lastAttempt
            if recipient.verb == nil, self.isReportTooOld(recipient.record, message, now) {
                return Step(nil, .dropped, Self.expired(outcome, "the report found no way into the queue in time"))
            }
            after.due = recipient.verb == .hold ? nil : retry
            return Step(after, .deferred)
        case nil: break
        }
        switch outcome.kind {
        case .failed where recipient.verb == .remove: return Step(nil, .removed)
        case .delivered:
            guard let action = Self.successReport(of: recipient.record, message, outcome) else {
                return Step(nil, .delivered)
            }
            after.state = .reporting(action, outcome)
            after.due = recipient.verb == .hold ? nil : now
            return Step(after, .delivered)
        case .failed:
            guard Self.isFailureWanted(after, message) else { return Step(nil, .unreported) }
            after.state = .failed(outcome)
            after.due = recipient.verb == .hold ? nil : now
            return Step(after, .failed)
        case .deferred:
            after.state = .queued(last: outcome)
            if let verb = recipient.verb { return self.obeyLate(verb, after, retry, now) }
            if now >= message.expiry { return Self.expire(after, message, outcome, now) }
            after.due = retry
            if self.isDelayDue(after, message, now) {
                after.state = .reporting(.delayed, outcome)
                after.due = now
            }
            return Step(after, .deferred)
        }
    }

    /// Whether a report has been tried for as long as a message is since there was something to report: as with a report that
    /// is in the queue and cannot be delivered, nobody is left to tell.
    private func isReportTooOld(_ recipient: RecipientRecord, _ message: MessageRecord, _ now: Timestamp) -> Bool {
        now >= max(recipient.lastAttempt, message.expiry).advanced(by: self.limits.lifetime)
    }

    /// Too old: failed, and reported if that is wanted.
    private static func expire(
        _ record: RecipientRecord, _ message: MessageRecord, _ last: DeliveryOutcome?, _ now: Timestamp
    ) -> Step {
        let failure = Self.expired(last)
        guard Self.isFailureWanted(record, message) else { return Step(nil, .unreported, failure) }
        var after = record
        after.state = .failed(failure)
        // From now on the report is tried, however long ago the last attempt was.
        after.lastAttempt = now
        after.due = now
        return Step(after, .expired, failure)
    }

    // MARK: - Which report is due (RFC 3461 §4.1, §5.2)

    /// Whether a failure is reported. That of a report is, to the postmaster, though no sender can want it.
    private static func isFailureWanted(_ recipient: RecipientRecord, _ message: MessageRecord) -> Bool {
        message.reversePath == .null || recipient.dsn.wants(.failure)
    }

    /// What is to be reported of a delivery; nil: nothing. A server that has taken over the sender's wishes reports itself.
    private static func successReport(
        of recipient: RecipientRecord, _ message: MessageRecord, _ outcome: DeliveryOutcome
    ) -> ReportAction? {
        guard recipient.dsn.wants(.success), message.reversePath != .null else { return nil }
        switch recipient.route {
        case .bounce, .mailbox: return .delivered
        // Mail that goes on to one other address goes on with the sender's wishes.
        case .local, .alias:
            switch outcome.forwarding {
            case .none: return .delivered
            case .one: return nil
            case .several: return .expanded
            }
        // Whoever speaks LMTP puts it into the mailbox.
        case .remote(let nextHop) where nextHop.isLMTP: return outcome.hasPassedOnDSN ? nil : .delivered
        case .remote: return outcome.hasPassedOnDSN ? nil : .relayed
        }
    }

    /// Whether the sender is to be told now that a recipient is still tried. While there is no bounce agent the mail goes
    /// on without it.
    func isDelayDue(_ recipient: RecipientRecord, _ message: MessageRecord, _ now: Timestamp) -> Bool {
        guard let age = self.limits.delayReportAge, !recipient.isDelayTold, recipient.owedReport == nil,
            recipient.dsn.wants(.delay), message.reversePath != .null, now < message.expiry
        else { return false }
        return now.elapsed(since: message.arrival) >= age && !self.links[AgentKind.bounce.rawValue].isEmpty
    }

    /// A recipient whose delay was to be reported is owed a delivery again.
    private func resume(
        _ recipient: RecipientWork, isTold: Bool, _ status: RecipientEnding.Status, _ now: Timestamp, _ random: UInt64
    ) -> Step {
        var after = recipient.record
        after.state = .queued(last: recipient.record.lastOutcome)
        after.isDelayTold = isTold
        let delay = self.limits.retry.delay(attemptCount: after.attemptCount, random: random)
        // Why: the delivery may be overdue. Tried again at once, mail for a destination that is down would be found too old
        // for its silence again at once, and the bounce agent be asked on and on.
        let earliest = isTold ? now : now.advanced(by: self.limits.retry.minimum)
        let retry = max(earliest, after.lastAttempt.advanced(by: delay))
        if let verb = recipient.verb { return self.obeyLate(verb, after, retry, now) }
        after.due = retry
        return Step(after, status, after.lastOutcome)
    }

    /// What the operator wanted while the delivery was under way.
    private func obeyLate(
        _ verb: OperatorVerb, _ record: RecipientRecord, _ retry: Timestamp, _ now: Timestamp
    ) -> Step {
        guard let change = verb.change(record, now: now) else {
            var after = record
            after.due = retry
            return Step(after, .deferred)
        }
        guard let after = change.after else { return Step(nil, verb == .bounce ? .unreported : .removed) }
        return after.hasFailed ? Step(after, .failed, after.lastOutcome) : Step(after, .deferred)
    }

    private static func expired(_ last: DeliveryOutcome?, _ words: String = "delivery time expired") -> DeliveryOutcome
    {
        var text = Array(words.utf8)
        if let last {
            // The words are ours, so the reply stands within them.
            text += Array("; last: ".utf8)
            if last.code > 0 { text += Array("\(last.code) ".utf8) + last.status.octets + [ASCII.space] }
            text += last.text
        }
        return DeliveryOutcome(
            .failed, code: 0, status: EnhancedStatus(.permanent, 4, 7),
            reporter: last?.reporter ?? Array("apus-queue".utf8), text: text)
    }

    /// RFC 3463 §3.4, §3.5: the system or the way to it, not the mailbox or the message. What a host has answered about one
    /// of them says nothing of the system, whatever status it has.
    private static func tellsThatHostIsDown(_ outcome: DeliveryOutcome) -> Bool {
        guard outcome.kind == .deferred, !outcome.hasAnswered else { return false }
        return outcome.code == 421 || outcome.status.subject == 4 || outcome.status.subject == 3
    }

    /// The report about these recipients has been handed in.
    mutating func endWithReport(_ id: DeliveryID, _ now: Timestamp, _ actions: inout [Action]) {
        guard let delivery = self.deliveries[id], delivery.changes.isEmpty,
            let work = self.messages[delivery.message], self.destinations[delivery.destination]?.kind == .bounce
        else { return }
        var changes: [RecipientChange] = []
        var endings: [RecipientEnding] = []
        let random = self.random.next()
        for number in delivery.numbers {
            guard let index = work.recipients.index(of: number) else { continue }
            let record = work.recipients[index].record
            let step =
                record.owedReport == .delayed
                ? self.resume(work.recipients[index], isTold: true, .warned, now, random) : Step(nil, .reported)
            changes.append(RecipientChange(number: number, dueBefore: record.due, after: step.after))
            endings.append(
                RecipientEnding(
                    status: step.status, message: work.record.id, recipient: record, outcome: record.lastOutcome,
                    delay: now.elapsed(since: work.record.arrival)))
            self.messages[delivery.message]?.update(index) { $0.phase = .settling(id) }
        }
        self.deliveries[id]?.changes = changes
        actions.append(
            .exchange(Settlement(delivery: id, message: delivery.message, changes: changes, endings: endings)))
        self.feedBack(.answered, delivery.destination, now, &actions)
    }

    // MARK: - Expiry and delay without an attempt

    /// Whether a recipient is too old, so that it need not wait for a destination that is down.
    func isExpiredInVain(_ recipient: RecipientRecord, _ message: MessageRecord, _ now: Timestamp) -> Bool {
        now >= message.expiry && recipient.owedReport == nil
    }

    /// Makes a recipient that is not in memory fail.
    mutating func expire(
        _ recipient: RecipientRecord, of message: MessageRecord, _ now: Timestamp, _ actions: inout [Action]
    ) {
        self.settleInVain(
            recipient, of: message, Self.expire(recipient, message, recipient.lastOutcome, now), now, &actions)
    }

    private static let hostDown = DeliveryOutcome(
        .deferred, code: 0, status: EnhancedStatus(.transient, 4, 1), reporter: "apus-queue",
        text: "the destination does not answer at present")

    /// Has the sender told of the delay of a recipient that is not in memory, because its destination is down.
    mutating func tellDelay(
        _ recipient: RecipientRecord, of message: MessageRecord, _ now: Timestamp, _ actions: inout [Action]
    ) {
        var after = recipient
        let last = recipient.lastOutcome ?? Self.hostDown
        after.state = .reporting(.delayed, last)
        after.due = now
        self.settleInVain(recipient, of: message, Step(after, .deferred, last), now, &actions)
    }

    /// Changes a recipient that is not in memory, without an attempt.
    private mutating func settleInVain(
        _ recipient: RecipientRecord, of message: MessageRecord, _ step: Step, _ now: Timestamp,
        _ actions: inout [Action]
    ) {
        let id = self.makeDeliveryID()
        let place = self.place(recipient.destination)
        let change = RecipientChange(number: recipient.number, dueBefore: recipient.due, after: step.after)
        self.messages[message.id, default: MessageWork(record: message)].insert(
            RecipientWork(record: recipient, phase: .settling(id)))
        self.recipientCount += 1
        self.recipientCounts[recipient.destination.agentKind.rawValue] += 1
        self.senders.add(recipient.flow.sender, recipients: 1)
        self.deliveries[id] = DeliveryUnderWay(
            link: nil, destination: place, message: message.id, numbers: [recipient.number], outcomes: [nil],
            changes: [change])
        let ending = RecipientEnding(
            status: step.status, message: message.id, recipient: step.after ?? recipient, outcome: step.outcome,
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
        self.listIdle(delivery.destination, now)
    }

    private mutating func conclude(_ change: RecipientChange, _ message: MessageID, _ now: Timestamp) {
        guard let index = self.messages[message]?.recipients.index(of: change.number) else { return }
        let kind = self.messages[message]?.recipients[index].record.destination.agentKind
        guard let after = change.after, after.due != nil, after.owedReport != nil, kind != .bounce, !self.isPaused,
            self.operating[message] == nil
        else {
            // Done, held, deferred to another time, or about to be changed by an operator.
            self.drop(change.number, of: message)
            if let due = change.after?.due { self.noteDue(due) }
            return
        }
        // What is to be reported stays in memory: the report comes next.
        self.recipientCounts[kind?.rawValue ?? 0] -= 1
        self.recipientCounts[AgentKind.bounce.rawValue] += 1
        self.messages[message]?.update(index) { $0 = RecipientWork(record: after) }
        let place = self.place(.bounce)
        self.destinations[place]?.waiting.add(change.number, of: message, after.flow)
        self.makeReady(place, now)
    }

    /// Puts a report into the line that had waited for the message's other deliveries.
    mutating func makeReportReady(_ message: MessageID, _ now: Timestamp) {
        guard self.messages[message]?.hasReportWaiting == true, let work = self.messages[message], !work.isUnderWay
        else { return }
        self.messages[message]?.hasReportWaiting = false
        let place = self.place(.bounce)
        let owed = work.recipients.filter { $0.phase == .waiting && $0.record.owedReport != nil }.map(\.record)
        // Those that were put into the line by the same commit are there already; a number that stands there twice is
        // passed over the second time.
        for record in owed { self.destinations[place]?.waiting.add(record.number, of: message, record.flow) }
        self.makeReady(place, now)
    }

    // MARK: - Destinations that go down and come back

    private mutating func feedBack(
        _ feedback: DestinationWindow.Feedback, _ place: Int, _ now: Timestamp, _ actions: inout [Action]
    ) {
        guard let kind = self.destinations[place]?.kind else { return }
        self.destinations[place]?.noteEnd(now)
        let told = kind == .bounce ? .answered : feedback
        let isDown = self.destinations[place]?.window.ended(told) ?? false
        if isDown {
            guard let destination = self.destinations[place] else { return }
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
            if told == .answered, self.destinations[place]?.suspension != nil,
                let route = self.destinations[place]?.route
            {
                self.destinations[place]?.suspension = nil
                self.suspendedCount -= 1
                actions.append(.saveDestination(route, nil))
            }
            self.makeReady(place, now)
        }
    }
}
