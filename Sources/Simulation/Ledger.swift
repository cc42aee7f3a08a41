// SPDX-License-Identifier: Apache-2.0

package import MailTypes
package import QueueCore

/// What happened outside of the queue, where no crash can undo it: the truth that the checkers hold the queue against.
package struct Ledger: Sendable {
    /// Recipients of messages whose acceptance is on the disk, whether or not the submitter heard of it.
    package var offered: Set<RecipientKey> = []
    /// Recipients of messages whose submitter was told that they are queued.
    package var acknowledged: Set<RecipientKey> = []
    /// How often a recipient's mail reached the mailbox.
    package var deliveryCounts: [RecipientKey: Int] = [:]
    /// How often a recipient's mail went on to others. It counts when its transaction is whole.
    package var forwardCounts: [RecipientKey: Int] = [:]
    /// How often a report about a recipient came into the queue. A report counts when its transaction is whole.
    package var reportCounts: [RecipientKey: Int] = [:]
    /// Recipients that a peer or the queue's patience has failed.
    package var failed: Set<RecipientKey> = []
    /// What the senders wished about reports, as they said it.
    package var wishes: [RecipientKey: RecipientDSN] = [:]
    /// How often each other report about a recipient came into the queue.
    package var otherReportCounts: [ReportAction: [RecipientKey: Int]] = [:]
    /// Recipients whose delivery is noted on the disk, by a server that sends no report of it.
    package var succeeded: Set<RecipientKey> = []
    /// Failed recipients of whom the sender did not want to hear.
    package var unreported: Set<RecipientKey> = []
    /// Failed recipients of messages without a sender to tell.
    package var dropped: Set<RecipientKey> = []
    /// Recipients that the operator took out.
    package var removed: Set<RecipientKey> = []
    /// Recipients that a peer has refused for good: one of the reasons for which a recipient may fail.
    package var refused: Set<RecipientKey> = []
    /// Recipients that the operator has ordered to be taken out, and to be returned.
    package var orderedOut: Set<RecipientKey> = []
    package var returned: Set<RecipientKey> = []
    /// When a message is too old, and the latest that the clock has ever shown.
    package var expiries: [MessageID: Timestamp] = [:]
    package var latest = Timestamp(microseconds: 0)
    /// Messages without a reverse-path.
    package var reports: Set<MessageID> = []
    /// How often a recipient's delivery was cut off by a crash or a lost agent, or its outcome withheld: so many more
    /// deliveries are lawful.
    package var cutOffCounts: [RecipientKey: Int] = [:]
    /// What the scheduler was allowed, and what agents take at once.
    package var limits: SchedulerLimits?
    package var agentCapacity = 0
    /// The most of each kind at any instant.
    package var peaks = Peaks()
    /// The most deliveries that each destination had in hand at once.
    package var destinationPeaks: [Route: Int] = [:]
    /// The shortest time between the beginnings of two deliveries of a destination, and when the last one began.
    package var shortestPauses: [Route: Duration] = [:]
    private var lastStarts: [Route: Timestamp] = [:]
    /// Recipients that two agents had at a time.
    package var doubled: Set<RecipientKey> = []

    /// The most at any instant.
    package struct Peaks: Hashable, Sendable {
        /// Deliveries that agents had in hand: all together, of one agent.
        package var deliveryCount = 0
        package var agentDeliveryCount = 0
        /// Recipients of one delivery.
        package var deliveryRecipientCount = 0
        /// Recipients in the scheduler's memory, and moves that it waits for.
        package var recipientCount = 0
        package var moveCount = 0
    }

    package init() {}

    /// Whether a recipient's mail has reached the mailbox, or gone on.
    func hasArrived(_ key: RecipientKey) -> Bool { self.deliveryCounts[key] != nil || self.forwardCounts[key] != nil }

    /// Whether a message could be found too old, or found so for as long as its report is tried.
    private func isTooOld(_ message: MessageID, by span: Duration = .zero) -> Bool {
        self.expiries[message].map { $0.advanced(by: span) <= self.latest } ?? false
    }

    /// Whether there was a reason for which a recipient may fail.
    private func mayFail(_ key: RecipientKey) -> Bool {
        self.refused.contains(key) || self.returned.contains(key) || self.isTooOld(key.message)
    }

    /// Whether the queue may have done with a recipient that has not arrived and is in no report, as it says: the operator wanted
    /// it out; or it has failed, and the sender did not want to hear of it, or there is none, or the report was too old.
    func isLawfullyEnded(_ key: RecipientKey) -> Bool {
        if self.removed.contains(key), self.orderedOut.contains(key) { return true }
        guard self.mayFail(key) else { return false }
        let isUnwanted = !(self.wishes[key]?.wants(.failure) ?? true)
        if self.unreported.contains(key), isUnwanted { return true }
        let isReportTooOld = self.isTooOld(key.message, by: self.limits?.lifetime ?? .zero)
        return self.dropped.contains(key) && (self.reports.contains(key.message) || isReportTooOld)
    }

    /// A report about a recipient has come into the queue.
    mutating func noteReport(_ action: ReportAction?, of key: RecipientKey) {
        guard let action, action != .failed else { return self.reportCounts[key, default: 0] += 1 }
        self.otherReportCounts[action, default: [:]][key, default: 0] += 1
    }

    /// The clock was set, or the process knows nothing any more of what it began.
    mutating func forgetStarts() { self.lastStarts = [:] }

    /// A delivery was begun; `open` are all that agents have in hand, this one included.
    mutating func note(open: [DeliveryOrder], of order: DeliveryOrder, at now: Timestamp) {
        if let last = self.lastStarts[order.route] {
            let pause = now.elapsed(since: last)
            self.shortestPauses[order.route] = min(self.shortestPauses[order.route] ?? pause, pause)
        }
        self.lastStarts[order.route] = now
        let ofDestination = open.count { $0.route == order.route }
        let ofAgent = open.count { $0.link == order.link }
        self.peaks.deliveryCount = max(self.peaks.deliveryCount, open.count)
        self.destinationPeaks[order.route] = max(self.destinationPeaks[order.route] ?? 0, ofDestination)
        self.peaks.agentDeliveryCount = max(self.peaks.agentDeliveryCount, ofAgent)
        self.peaks.deliveryRecipientCount = max(self.peaks.deliveryRecipientCount, order.recipients.count)
        for other in open where other.message.id == order.message.id && other.id != order.id {
            for recipient in order.recipients where other.recipients.contains(where: { $0.number == recipient.number })
            {
                self.doubled.insert(RecipientKey(message: order.message.id, number: recipient.number))
            }
        }
    }
}

/// One rule about the whole, in one sentence; `faults` names every breach of it.
package protocol Checker: Sendable {
    /// - Parameter isAtRest: whether everything that could be done has been done.
    func faults(_ ledger: Ledger, _ store: MemoryQueueStore, isAtRest: Bool) throws(StoreFault) -> [String]
}
