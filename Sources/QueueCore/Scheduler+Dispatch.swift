// SPDX-License-Identifier: Apache-2.0
//
// Who gets what next: destinations in turn, each within its window, each agent within its capacity.

import MailTypes

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
            guard let index = self.messages[delivery.message]?.index(of: number) else { continue }
            self.messages[delivery.message]?.update(index) { $0.lossCount += 1 }
            guard let work = self.messages[delivery.message]?.recipients[index] else { continue }
            if work.lossCount >= Self.lossCountMax || work.verb != nil { isOrdinary = false }
        }
        guard isOrdinary else {
            self.deliveries[id]?.outcomes = [DeliveryOutcome?](repeating: nil, count: delivery.numbers.count)
            self.end(id, now, &actions)
            return
        }
        self.deliveries[id] = nil
        for number in delivery.numbers {
            guard let index = self.messages[delivery.message]?.index(of: number) else { continue }
            self.messages[delivery.message]?.update(index) { $0.phase = .waiting }
        }
        self.destinations[delivery.destination]?.window.ended()
        self.destinations[delivery.destination]?.putBack(Job(message: delivery.message, numbers: delivery.numbers))
        self.makeReady(delivery.destination)
        self.makeReportReady(delivery.message)
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

    /// Starts what can be started.
    mutating func dispatch(_ now: Timestamp, _ actions: inout [Action]) {
        guard !self.isPaused, !self.isStopping else { return }
        for kind in AgentKind.allCases {
            while self.deliveries.count < self.limits.deliveryCountMax, !self.ready[kind.rawValue].isEmpty,
                let link = self.freeLink(kind), let place = self.ready[kind.rawValue].popFirst()
            {
                self.destinations[place]?.isReady = false
                guard self.destinations[place]?.window.hasRoom ?? false else { continue }
                if let job = self.destinations[place]?.takeJob() { self.start(job, place, kind, link, now, &actions) }
                self.makeReady(place)
            }
        }
    }

    private mutating func start(
        _ job: Job, _ place: Int, _ kind: AgentKind, _ link: Int, _ now: Timestamp, _ actions: inout [Action]
    ) {
        guard let record = self.messages[job.message]?.record, self.operating[job.message] == nil else { return }
        if kind == .bounce, self.messages[job.message]?.isUnderWay ?? false {
            self.messages[job.message]?.hasReportWaiting = true
            return
        }
        var numbers: [UInt32] = []
        var recipients: [RecipientRecord] = []
        var rest = job.numbers[...]
        let id = self.makeDeliveryID()
        while recipients.count < self.limits.recipientCountPerDeliveryMax, let number = rest.popFirst() {
            // An operator may have taken it away since, and a number may stand in the line twice.
            guard let index = self.messages[job.message]?.index(of: number),
                let recipient = self.messages[job.message]?.recipients[index], recipient.phase == .waiting,
                recipient.record.destination.agentKind == kind
            else { continue }
            numbers.append(number)
            recipients.append(recipient.record)
            self.messages[job.message]?.update(index) { $0.phase = .inFlight(id) }
        }
        if !rest.isEmpty { self.destinations[place]?.putBack(Job(message: job.message, numbers: Array(rest))) }
        guard !numbers.isEmpty, let route = self.destinations[place]?.route else { return }
        let agent = self.links[kind.rawValue][link].id
        self.links[kind.rawValue][link].inFlightCount += 1
        self.destinations[place]?.window.started()
        self.deliveries[id] = DeliveryUnderWay(
            link: agent, destination: place, message: job.message, numbers: numbers,
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
