// SPDX-License-Identifier: Apache-2.0

import MailTypes

/// Recipients of one message that wait at one destination.
struct Job: Hashable, Sendable {
    let message: MessageID
    let flow: MailFlow
    var numbers: [UInt32]
}

/// What waits at one destination: flows take turns, and of a more urgent one more is taken.
///
/// Each flow is first in, first out.
struct WaitingLine: Sendable {
    private struct Flow {
        /// Most flows have one job: it needs no storage of its own.
        var first: Job
        var others = Ring<Job>()

        /// Adds a recipient to the last job if that is of its message.
        mutating func join(_ number: UInt32, of message: MessageID) -> Bool {
            func join(_ job: inout Job) -> Bool {
                guard job.message == message else { return false }
                job.numbers.append(number)
                return true
            }
            return self.others.isEmpty ? join(&self.first) : self.others.updateLast(join) ?? false
        }

        mutating func prepend(_ job: Job) {
            self.others.prepend(self.first)
            self.first = job
        }
    }

    private var flows: [MailFlow: Flow] = [:]
    /// The flows, each once, in turn, by priority.
    private var turns: InlineArray<3, Ring<MailFlow>> = [Ring(), Ring(), Ring()]
    private var choice = WeightedChoice<3>([1, 4, 16])
    private var jobCount = 0
    /// Recipients in it; some may have been taken away meanwhile by an operator.
    private(set) var recipientCount = 0

    var isEmpty: Bool { self.jobCount == 0 }

    /// The most urgent that waits; nil if nothing does.
    var topPriority: MailPriority? {
        guard self.jobCount > 0 else { return nil }
        for priority in MailPriority.allCases.reversed() where !self.turns[Int(priority.rawValue)].isEmpty {
            return priority
        }
        return nil
    }

    /// Whose turn is next among the most urgent.
    var nextSender: UInt32? {
        self.topPriority.flatMap { self.turns[Int($0.rawValue)].first?.sender }
    }

    mutating func add(_ number: UInt32, of message: MessageID, _ flow: MailFlow) {
        if self.flows[flow]?.join(number, of: message) ?? false {
            self.recipientCount += 1
        } else {
            self.append(Job(message: message, flow: flow, numbers: [number]))
        }
    }

    private mutating func append(_ job: Job) {
        self.recipientCount += job.numbers.count
        self.jobCount += 1
        guard self.flows[job.flow]?.others.append(job) == nil else { return }
        self.flows[job.flow] = Flow(first: job)
        self.turns[Int(job.flow.priority.rawValue)].append(job.flow)
    }

    /// Puts a job back, to be the next one of its flow.
    mutating func putBack(_ job: Job) {
        guard self.flows[job.flow]?.prepend(job) != nil else { return self.append(job) }
        self.recipientCount += job.numbers.count
        self.jobCount += 1
    }

    /// How many flows are asked in vain before it is somebody else's turn.
    private static let refusalCountMax = 8

    /// The next job whose sender may have one more; nil if there is none among the next few.
    mutating func take(_ isAllowed: (UInt32) -> Bool) -> Job? {
        var refusalCount = 0
        while self.jobCount > 0, refusalCount < Self.refusalCountMax,
            let place = self.choice.next({ !self.turns[$0].isEmpty }), let flow = self.turns[place].popFirst()
        {
            guard isAllowed(flow.sender) else {
                refusalCount += 1
                self.turns[place].append(flow)
                continue
            }
            guard let job = self.flows[flow]?.first else { continue }
            if let next = self.flows[flow]?.others.popFirst() {
                self.flows[flow]?.first = next
                self.turns[place].append(flow)
            } else {
                self.flows[flow] = nil
            }
            self.jobCount -= 1
            self.recipientCount -= job.numbers.count
            return job
        }
        return nil
    }

    /// The next job, whoever's it is.
    mutating func take() -> Job? { self.take { _ in true } }
}

/// Chooses among a few places in proportion to their weights, smoothly, and never leaves one out for good.
///
/// Each choice gives every place that can be chosen its weight as credit, and takes the sum from the one with the most.
struct WeightedChoice<let count: Int>: Sendable {
    private let weights: InlineArray<count, Int>
    private var credits = InlineArray<count, Int>(repeating: 0)

    init(_ weights: InlineArray<count, Int>) { self.weights = weights }

    /// The next place among those that `canBeChosen`; nil if there is none.
    mutating func next(_ canBeChosen: (Int) -> Bool) -> Int? {
        var best: Int?
        var sum = 0
        for place in 0..<count {
            guard canBeChosen(place) else {
                // Why: nobody saves up while absent.
                self.credits[place] = 0
                continue
            }
            self.credits[place] += self.weights[place]
            sum += self.weights[place]
            if best.map({ self.credits[place] > self.credits[$0] }) ?? true { best = place }
        }
        if let best { self.credits[best] -= sum }
        return best
    }
}
