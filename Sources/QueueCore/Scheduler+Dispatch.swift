// SPDX-License-Identifier: Apache-2.0
//
// Who gets what next: destinations in turn, each within its window, each agent within its capacity, and no sender
// all of it.

import MailTypes

/// The destinations that can start a delivery, in turn; from the more urgent more are taken.
struct ReadyDestinations: Sendable {
    /// Behind the priorities: destinations of senders who have little, while there is a crowd.
    static let front = 3

    private var rings: InlineArray<4, Ring<Int>> = [Ring(), Ring(), Ring(), Ring()]
    private var choice = WeightedChoice<4>([1, 4, 16, 32])

    mutating func append(_ place: Int, at rank: Int) { self.rings[rank].append(place) }

    mutating func popFirst() -> (place: Int, rank: Int)? {
        guard let rank = self.choice.next({ !self.rings[$0].isEmpty }), let place = self.rings[rank].popFirst() else {
            return nil
        }
        return (place, rank)
    }
}

extension Scheduler {
    // MARK: - Agents

    mutating func join(_ link: AgentLinkID, _ kind: AgentKind, _ capacity: Int) {
        let capacity = capacity > 0 ? capacity : Int.max
        self.links[kind.rawValue].append(AgentLink(id: link, capacity: capacity))
    }

    /// An agent is gone: what it had is to be done again by its successor.
    mutating func lose(_ link: AgentLinkID, _ now: Timestamp, _ actions: inout [Action]) {
        for kind in AgentKind.allCases { self.links[kind.rawValue].removeAll { $0.id == link } }
        let lost = self.deliveries.filter { $0.value.link == link }.keys.sorted()
        for id in lost {
            self.deliveries[id]?.link = nil
            guard let delivery = self.deliveries[id], delivery.changes.isEmpty else { continue }
            self.takeBack(id, delivery, now, &actions)
        }
    }

    /// Mail that has been with so many agents when they were lost is deferred like any other failure.
    private static let lossCountMax = 3

    private mutating func takeBack(
        _ id: DeliveryID, _ delivery: DeliveryUnderWay, _ now: Timestamp, _ actions: inout [Action]
    ) {
        var isOrdinary = true
        for number in delivery.numbers {
            guard let index = self.messages[delivery.message]?.recipients.index(of: number) else { continue }
            self.messages[delivery.message]?.update(index) { $0.lossCount += 1 }
            guard let work = self.messages[delivery.message]?.recipients[index] else { continue }
            if work.lossCount >= Self.lossCountMax || work.verb != nil { isOrdinary = false }
        }
        guard isOrdinary else {
            self.deliveries[id]?.outcomes = [DeliveryOutcome?](repeating: nil, count: delivery.numbers.count)
            self.end(id, now, &actions)
            return
        }
        self.close(id)
        var flow: MailFlow?
        for number in delivery.numbers {
            guard let index = self.messages[delivery.message]?.recipients.index(of: number) else { continue }
            self.messages[delivery.message]?.update(index) {
                $0.phase = .waiting
                flow = $0.record.flow
            }
        }
        self.destinations[delivery.destination]?.window.ended()
        if let flow {
            self.destinations[delivery.destination]?.waiting.putBack(
                Job(message: delivery.message, flow: flow, numbers: delivery.numbers))
        }
        self.makeReady(delivery.destination, now)
        self.makeReportReady(delivery.message, now)
    }

    /// A delivery is over, or has to be done again.
    mutating func close(_ id: DeliveryID) {
        guard let delivery = self.deliveries.removeValue(forKey: id), let sender = delivery.sender,
            let kind = self.destinations[delivery.destination]?.kind
        else { return }
        self.senders.add(sender, deliveries: -1, kind)
    }

    /// The agent of a kind with the most room, by its place; nil if none has any.
    private func freeLink(_ kind: AgentKind) -> Int? {
        var best: Int?
        let links = self.links[kind.rawValue]
        for index in links.indices where links[index].freeCount > 0 {
            if let other = best, links[other].freeCount >= links[index].freeCount { continue }
            best = index
        }
        return best
    }

    // MARK: - Starting

    /// How many more deliveries can be begun by agents of a kind, and whether these are so few that it matters who begins
    /// them: less than a quarter of all that there could be.
    private func rest(_ kind: AgentKind) -> (count: Int, isCrowd: Bool) {
        let most = self.limits.deliveryCountMax
        var count = 0
        var capacity = 0
        for link in self.links[kind.rawValue] {
            count += min(link.freeCount, most)
            capacity += min(link.capacity, most)
        }
        let isCrowd = count < min(capacity, most) / 4 || most - self.deliveries.count < most / 4
        return (min(most - self.deliveries.count, count), isCrowd)
    }

    /// Lets a destination stand in line if it has work and room in its window and its time has come.
    mutating func makeReady(_ place: Int, _ now: Timestamp) {
        switch self.destinations[place]?.want(at: now) {
        case .nothing?, nil: return
        case .later(let start)?: self.delayed.insert(place, at: start)
        case .turn(let kind, let priority, let sender)?:
            var rank = Int(priority.rawValue)
            if let sender, self.rest(kind).isCrowd, self.senders.goesInFront(sender, kind) {
                rank = ReadyDestinations.front
            }
            if self.destinations[place]?.enterRing(rank) == true { self.ready[kind.rawValue].append(place, at: rank) }
        }
    }

    /// Nothing waits longer than this for the time between two deliveries.
    static let intervalMax = Duration.seconds(61)

    private mutating func endDelays(_ now: Timestamp) {
        while let place = self.delayed.popFirst(at: now, within: Self.intervalMax) {
            self.destinations[place]?.isDelayed = false
            if let start = self.destinations[place]?.nextStart { self.destinations[place]?.nextStart = min(start, now) }
            self.makeReady(place, now)
        }
    }

    /// So many destinations are asked in vain before it is left to the next event: in a crowd those of a sender who has
    /// much already.
    private static let refusalCountMax = 16

    /// Starts what can be started.
    mutating func dispatch(_ now: Timestamp, _ actions: inout [Action]) {
        guard !self.isPaused, !self.isStopping else { return }
        self.endDelays(now)
        for kind in AgentKind.allCases {
            var refusalCount = 0
            while self.deliveries.count < self.limits.deliveryCountMax, refusalCount < Self.refusalCountMax,
                let link = self.freeLink(kind), let (place, rank) = self.ready[kind.rawValue].popFirst()
            {
                guard self.destinations[place]?.leaveRing(rank, at: now) == true else {
                    self.makeReady(place, now)
                    continue
                }
                if let job = self.takeJob(place, kind) {
                    self.start(job, place, kind, link, now, &actions)
                } else {
                    refusalCount += 1
                }
                self.makeReady(place, now)
            }
        }
    }

    /// The next job of a destination: in a crowd, of a sender who may have one more.
    private mutating func takeJob(_ place: Int, _ kind: AgentKind) -> Job? {
        let rest = self.rest(kind)
        guard rest.isCrowd else { return self.destinations[place]?.waiting.take() }
        let senders = self.senders
        return self.destinations[place]?.waiting.take { senders.mayBegin($0, kind, restCount: rest.count) }
    }

    private mutating func start(
        _ job: Job, _ place: Int, _ kind: AgentKind, _ link: Int, _ now: Timestamp, _ actions: inout [Action]
    ) {
        guard let record = self.messages[job.message]?.record, self.operating[job.message] == nil,
            let route = self.destinations[place]?.route
        else { return }
        if kind == .bounce, self.messages[job.message]?.isUnderWay ?? false {
            self.messages[job.message]?.hasReportWaiting = true
            return
        }
        var numbers: [UInt32] = []
        var recipients: [RecipientRecord] = []
        var rest = job.numbers[...]
        let id = self.makeDeliveryID()
        // Copies with reverse-paths of their own go one by one, and are reported so.
        let most = record.verp != nil ? 1 : self.limits.recipientCountPerDeliveryMax
        while recipients.count < most, let number = rest.popFirst() {
            // An operator may have taken it away since, or led it elsewhere, and a number may stand in the line twice.
            guard let index = self.messages[job.message]?.recipients.index(of: number),
                let recipient = self.messages[job.message]?.recipients[index], recipient.phase == .waiting,
                recipient.record.destination == route
            else { continue }
            numbers.append(number)
            recipients.append(recipient.record)
            self.messages[job.message]?.update(index) { $0.phase = .inFlight(id) }
        }
        if !rest.isEmpty {
            self.destinations[place]?.waiting.putBack(
                Job(message: job.message, flow: job.flow, numbers: Array(rest)))
        }
        guard !numbers.isEmpty else { return }
        let agent = self.links[kind.rawValue][link].id
        self.links[kind.rawValue][link].inFlightCount += 1
        self.destinations[place]?.noteStart(now)
        self.senders.add(job.flow.sender, deliveries: 1, kind)
        self.deliveries[id] = DeliveryUnderWay(
            link: agent, destination: place, message: job.message, numbers: numbers, sender: job.flow.sender,
            outcomes: [DeliveryOutcome?](repeating: nil, count: numbers.count))
        actions.append(
            .deliver(DeliveryOrder(id: id, link: agent, message: record, route: route, recipients: recipients)))
    }

    /// Gives the agent of an ended delivery its room back.
    mutating func release(_ link: AgentLinkID?) {
        guard let link else { return }
        for kind in AgentKind.allCases {
            for index in self.links[kind.rawValue].indices where self.links[kind.rawValue][index].id == link {
                self.links[kind.rawValue][index].inFlightCount -= 1
            }
        }
    }
}
