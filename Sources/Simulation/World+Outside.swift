// SPDX-License-Identifier: Apache-2.0
//
// What happens to the queue from outside: submitters, agents, peers, an operator, the clock.

import MailTypes
import QueueCore

extension World {
    // MARK: - The outside

    mutating func step() throws(StoreFault) {
        if self.hasCrashed {
            try self.start()
        } else if self.isStopping, self.open.isEmpty, self.pending.isEmpty {
            // A new process knows of no beginnings.
            self.ledger.forgetStarts()
            try self.start()
        }
        switch Int.random(in: 0..<100, using: &self.random) {
        case 0..<15: self.submit(recipientCount: Int.random(in: 1...4, using: &self.random))
        case 15..<45: try self.commit()
        case 45..<75: try self.finishDelivery()
        case 75..<90: try self.passTime()
        default:
            if self.chance(self.rules.agentLossWeight * 10),
                let index = self.agents.indices.randomElement(using: &self.random)
            {
                try self.loseAgent(self.agents[index].id)
            }
            if self.chance(self.rules.stormWeight * 10) { self.turnStorm() }
            if self.rules.canary == .inventedDelivery {
                self.ledger.deliveryCounts[RecipientKey(message: self.numbering.last, number: 99)] = 1
            }
            if self.chance(self.rules.operatorWeight * 10) { try self.operate() }
            if self.chance(self.rules.crashWeight * 10) { self.crash() }
            if self.chance(self.rules.clockJumpWeight * 10) { self.jump() }
            if self.rules.changeWeight > 0, self.chance(self.rules.changeWeight * 10), !self.hasCrashed {
                try self.change()
            }
            for kind in AgentKind.allCases where !self.agents.contains(where: { $0.kind == kind }) && self.chance(50) {
                if !self.hasCrashed { try self.joinAgent(kind) }
            }
        }
    }

    /// The administrator pauses the queue or lets it go on, gives it other settings, or stops it.
    private mutating func change() throws(StoreFault) {
        switch Int.random(in: 0..<6, using: &self.random) {
        case 0..<3:
            let isPaused = !self.isPaused
            self.isPaused = isPaused
            self.note("pause \(isPaused)")
            try self.tell(.pauseSet(isPaused))
        case 3..<5:
            var limits = self.schedulerLimits
            if self.chance(50) {
                limits.destinationDeliveryCountMax = 1
                limits.recipientCountPerDeliveryMax = 1
                limits.retry = RetrySchedule(minimum: .seconds(10), maximum: .seconds(20))
                limits.delayReportAge = self.chance(50) ? nil : .seconds(60)
            }
            self.note("settings \(limits.destinationDeliveryCountMax) \(limits.retry.minimum)")
            try self.tell(.limitsSet(limits))
        default:
            self.note("stop")
            self.isStopping = true
            try self.tell(.stopRequested)
        }
    }

    mutating func makeMessage(
        reversePath: ReversePath, recipientCount: Int, domain: Int
    ) -> NewMessage {
        let id = self.numbering.next(now: self.now)
        let priority = MailPriority.allCases.randomElement(using: &self.random) ?? .normal
        let flow = MailFlow(reversePath, priority)
        let recipients = (0..<recipientCount).map { number in
            RecipientRecord(
                number: UInt32(number), forwardPath: Samples.path("user\(number)@example.org"), originalPath: nil,
                route: (domain + number / 2) % 6 == 5
                    ? .local(user: Array("user".utf8)) : Samples.route("d\((domain + number / 2) % 6).example"),
                flow: flow, state: .queued(last: nil), due: self.now, dsn: self.wish(RecipientKey(id, number)))
        }
        return NewMessage(
            record: MessageRecord(
                id: id, reversePath: reversePath, bodyType: .sevenBit, arrival: self.now,
                expiry: self.now.advanced(by: Self.limits.lifetime), prefix: [], contentOctetCount: 3, trace: []),
            recipients: recipients, content: [1, 2, 3])
    }

    /// What a sender wishes about a recipient: half of them say nothing.
    private mutating func wish(_ key: RecipientKey) -> RecipientDSN {
        let words: [NotifyConditions?] = [
            .never, .success, .failure, .delay, [.success, .failure, .delay], [.success, .delay],
        ]
        let wish = RecipientDSN(notify: self.chance(50) ? nil : words.randomElement(using: &self.random) ?? nil)
        self.ledger.wishes[key] = wish
        return self.rules.canary == .lostWish ? RecipientDSN() : wish
    }

    /// An id is a message's own only once it is on the disk: the id of one that never came is given out again.
    mutating func offer(_ message: NewMessage) {
        if message.record.reversePath == .null { self.ledger.reports.insert(message.record.id) }
        self.ledger.expiries[message.record.id] = message.record.expiry
        for recipient in message.recipients {
            self.ledger.offered.insert(RecipientKey(message: message.record.id, number: recipient.number))
        }
    }

    mutating func submit(recipientCount: Int) {
        let hasSender = self.rules.firstMessageRecipientCount != nil || !self.chance(10)
        // Most mail is of one sender, so that the others have to get past it.
        let name = self.chance(70) ? "sender" : ["other", "third"].randomElement(using: &self.random) ?? "other"
        let sender = ReversePath(octets: Array("\(name)@example.com".utf8)) ?? .null
        let message = self.makeMessage(
            reversePath: hasSender ? sender : .null, recipientCount: recipientCount,
            domain: Int.random(in: 0...5, using: &self.random))
        self.note("submit \(message.record.id.text)")
        self.pending.append((.accept(message), .accepted(message)))
    }

    mutating func finishDelivery() throws(StoreFault) {
        guard let index = self.open.indices.randomElement(using: &self.random) else { return }
        let order = self.open.remove(at: index)
        if !self.isHealed, self.chance(self.rules.frameFaultWeight) { return try self.finishWrongly(order) }
        if order.route == .bounce { return try self.finishReport(order) }
        self.beginForwards(order)
        let isHostDown = self.isHostDown(order)
        for recipient in order.recipients {
            guard !self.hasCrashed else { return }
            let outcome = self.forwarded(recipient, of: order) ?? self.attempt(recipient, of: order, isHostDown)
            try self.tell(.outcomeReceived(order.id, number: recipient.number, outcome))
            if !self.hasCrashed, self.point() { return }
        }
        guard !self.hasCrashed else { return }
        try self.tell(.doneReceived(order.id))
    }

    private mutating func isHostDown(_ order: DeliveryOrder) -> Bool {
        !self.isHealed && (self.storm == order.route ? self.chance(50) : self.chance(self.rules.deferredWeight / 2))
    }

    /// What a peer does with one recipient.
    private mutating func attempt(
        _ recipient: RecipientRecord, of order: DeliveryOrder, _ isHostDown: Bool
    ) -> DeliveryOutcome {
        var outcome =
            self.storm == order.route && !self.isHealed && !isHostDown ? Samples.deferral : self.outcome(isHostDown)
        let key = RecipientKey(message: order.message.id, number: recipient.number)
        if outcome.kind == .failed { self.ledger.refused.insert(key) }
        if outcome.kind == .delivered {
            self.ledger.deliveryCounts[key, default: 0] += 1
            outcome.hasPassedOnDSN = self.chance(50)
        }
        return outcome
    }

    /// An agent that breaks the rules of its dialect: what it did in the world stays done.
    private mutating func finishWrongly(_ order: DeliveryOrder) throws(StoreFault) {
        let first = order.recipients[0]
        let outcome = order.route == .bounce ? Samples.deferral : self.attempt(first, of: order, false)
        let fault = FrameFault.allCases.randomElement(using: &self.random) ?? .cut
        self.note("agent's fault: \(fault) in \(order.id.rawValue)")
        switch fault {
        case .repeatedOutcome, .strangeNumber:
            self.noteCutOff(order)
            self.dishonestLinks.insert(order.link)
            try self.tell(.outcomeReceived(order.id, number: first.number, outcome))
            guard !self.hasCrashed else { return }
            let number = fault == .strangeNumber ? 99 : first.number
            try self.tell(.outcomeReceived(order.id, number: number, outcome))
            if !self.hasCrashed, self.agents.contains(where: { $0.id == order.link }) {
                self.faults.append("an agent that broke the rules was not disconnected")
            }
        case .cut:
            self.noteCutOff(order)
            try self.tell(.outcomeReceived(order.id, number: first.number, outcome))
            if !self.hasCrashed { try self.loseAgent(order.link) }
        case .missingOutcome:
            // The recipient may have its mail and the queue does not hear of it.
            self.ledger.cutOffCounts[RecipientKey(message: order.message.id, number: first.number), default: 0] += 1
            try self.tell(.doneReceived(order.id))
        case .repeatedDone, .lateOutcome:
            for recipient in order.recipients where !self.hasCrashed {
                let later = recipient.number == first.number ? outcome : Samples.deferral
                try self.tell(.outcomeReceived(order.id, number: recipient.number, later))
            }
            if !self.hasCrashed { try self.tell(.doneReceived(order.id)) }
            guard !self.hasCrashed else { return }
            let late = Scheduler.Event.outcomeReceived(order.id, number: first.number, Samples.failure)
            try self.tell(fault == .repeatedDone ? .doneReceived(order.id) : late)
        }
    }

    /// How an agent can be wrong.
    private enum FrameFault: CaseIterable {
        case repeatedOutcome
        case strangeNumber
        case cut
        case missingOutcome
        case repeatedDone
        case lateOutcome
    }

    private mutating func turnStorm() {
        let number = Int.random(in: 0...4, using: &self.random)
        self.storm = self.storm == nil ? Samples.route("d\(number).example") : nil
        let isOver = self.storm == nil
        self.note("storm at d\(number).example\(isOver ? " is over" : "")")
    }

    mutating func outcome(_ isHostDown: Bool) -> DeliveryOutcome {
        if isHostDown {
            return DeliveryOutcome(
                .deferred, code: 0, status: EnhancedStatus(.transient, 4, 1), reporter: "mx", text: "no answer")
        }
        let number = Int.random(in: 0..<100, using: &self.random)
        if number < self.rules.failedWeight { return Samples.failure }
        if !self.isHealed, number < self.rules.failedWeight + self.rules.deferredWeight { return Samples.deferral }
        return Samples.delivery
    }

    mutating func finishReport(_ order: DeliveryOrder) throws(StoreFault) {
        if order.message.reversePath == .null, self.rules.canary != .reportedReport {
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

    mutating func passTime() throws(StoreFault) {
        self.now = self.now.advanced(by: .milliseconds(Int.random(in: 1...120_000, using: &self.random)))
        guard let wake = self.wakeTime, self.now >= wake else { return }
        self.wakeTime = nil
        try self.tell(.timePassed)
    }

    mutating func jump() {
        // An hour, or a week: more than any mail lives.
        let span = self.chance(70) ? 3_600 : 604_800
        let seconds = Int.random(in: -span...span, using: &self.random)
        self.note("clock jump by \(seconds) s")
        self.ledger.forgetStarts()
        self.now = self.now.advanced(by: .seconds(seconds))
    }

    mutating func joinAgent(_ kind: AgentKind) throws(StoreFault) {
        self.lastLink += 1
        let id = AgentLinkID(self.lastLink)
        self.agents.append((id, kind))
        try self.tell(.agentJoined(id, kind, capacity: Self.agentCapacity))
    }

    mutating func loseAgent(_ link: AgentLinkID) throws(StoreFault) {
        guard let index = self.agents.firstIndex(where: { $0.id == link }) else { return }
        let agent = self.agents.remove(at: index)
        self.note("lost agent \(agent.kind)")
        for order in self.open where order.link == agent.id { self.noteCutOff(order) }
        self.open.removeAll { $0.link == agent.id }
        try self.tell(.agentLost(agent.id))
    }

    mutating func operate() throws(StoreFault) {
        let messages = try self.store.messages(after: nil, limit: 50)
        guard let message = messages.randomElement(using: &self.random) else { return }
        let id = message.record.id
        let verb = self.verb()
        // Half the orders are for some of the recipients only.
        let only = message.recipients.map(\.number).filter { _ in self.chance(50) }
        let order = OperatorOrder(verb, id, only: self.chance(50) ? Set(only) : nil)
        self.note("operator \(verb) \(id.text) \(order.only?.sorted() ?? [])")
        // A verb on what is under way takes effect when that has ended; whatever comes of it is lawful.
        for recipient in message.recipients where order.means(recipient.number) {
            let key = RecipientKey(message: id, number: recipient.number)
            if verb == .remove { self.ledger.orderedOut.insert(key) }
            if verb == .bounce { self.ledger.returned.insert(key) }
            if verb == .bounce, self.scheduler.isUnderWay(key) { self.noteReturned([key]) }
        }
        try self.tell(.ordered(order, destinations: verb.wantedDestinations(message.recipients)))
    }

    private mutating func verb() -> OperatorVerb {
        switch Int.random(in: 0..<6, using: &self.random) {
        case 0: return .flush
        case 1: return .hold
        case 2: return .release
        case 3: return .remove
        case 4: return .bounce
        default:
            let number = Int.random(in: 0...5, using: &self.random)
            return .reroute(number == 5 ? .local(user: Array("user".utf8)) : Samples.route("d\(number).example"))
        }
    }
}

extension RecipientKey {
    fileprivate init(_ message: MessageID, _ number: Int) { self.init(message: message, number: UInt32(number)) }
}
