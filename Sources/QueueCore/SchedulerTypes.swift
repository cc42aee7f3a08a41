// SPDX-License-Identifier: Apache-2.0

package import MailTypes

/// One connection to an agent, numbered by the driver; a number is used once.
package struct AgentLinkID: Hashable, Comparable, Sendable {
    package let rawValue: UInt64

    package init(_ rawValue: UInt64) { self.rawValue = rawValue }

    package static func < (left: AgentLinkID, right: AgentLinkID) -> Bool { left.rawValue < right.rawValue }
}

/// Which routes an agent serves.
package enum AgentKind: Int, Hashable, Sendable, CaseIterable {
    case remote
    case local
    case bounce
}

extension Route {
    /// The kind of agent that this route needs.
    package var agentKind: AgentKind {
        switch self {
        case .remote: .remote
        case .local, .mailbox, .alias: .local
        case .bounce: .bounce
        }
    }
}

/// One delivery from its start until its outcomes are committed; the channel number on its link.
package struct DeliveryID: Hashable, Comparable, Sendable {
    package let rawValue: UInt32

    package init(_ rawValue: UInt32) { self.rawValue = rawValue }

    package static func < (left: DeliveryID, right: DeliveryID) -> Bool { left.rawValue < right.rawValue }
}

/// What bounds the scheduler.
package struct SchedulerLimits: Hashable, Sendable {
    /// Recipients in memory. Those read from the disk fill three quarters; the rest is for mail just accepted.
    package var recipientCountMax: Int
    /// Deliveries under way at once, over all destinations.
    package var deliveryCountMax: Int
    /// The widest window of one destination.
    package var destinationDeliveryCountMax: Int
    /// Recipients of one message that share a delivery.
    package var recipientCountPerDeliveryMax: Int
    /// For deferred recipients, and for destinations that are down.
    package var retry: RetrySchedule
    /// How long a message is tried.
    package var lifetime: Duration
    /// After how long a sender is told that his message is still tried; nil: never.
    package var delayReportAge: Duration?
    /// Entries of the due index read at once.
    package var pageEntryCount: Int
    /// What is special about some destinations; the first that matches counts.
    package var rules: [DestinationRule]

    package init(
        recipientCountMax: Int, deliveryCountMax: Int, destinationDeliveryCountMax: Int,
        recipientCountPerDeliveryMax: Int, retry: RetrySchedule, lifetime: Duration, pageEntryCount: Int = 500,
        rules: [DestinationRule] = [], delayReportAge: Duration? = nil
    ) {
        self.delayReportAge = delayReportAge
        self.recipientCountMax = max(recipientCountMax, 4)
        self.deliveryCountMax = max(deliveryCountMax, 1)
        self.destinationDeliveryCountMax = max(destinationDeliveryCountMax, 1)
        self.recipientCountPerDeliveryMax = max(recipientCountPerDeliveryMax, 1)
        self.retry = retry
        self.lifetime = lifetime
        self.pageEntryCount = max(pageEntryCount, 1)
        self.rules = rules
    }
}

/// A delivery that an agent is to begin.
package struct DeliveryOrder: Hashable, Sendable {
    package let id: DeliveryID
    package let link: AgentLinkID
    package let message: MessageRecord
    /// `bounce` if the recipients are to be reported.
    package let route: Route
    package let recipients: [RecipientRecord]

    package init(
        id: DeliveryID, link: AgentLinkID, message: MessageRecord, route: Route, recipients: [RecipientRecord]
    ) {
        self.id = id
        self.link = link
        self.message = message
        self.route = route
        self.recipients = recipients
    }
}

/// What is to be logged of a recipient once its change is committed.
package struct RecipientEnding: Hashable, Sendable {
    /// How it ended, or that it did not.
    package enum Status: String, Hashable, Sendable {
        case delivered
        /// Still queued.
        case deferred
        /// A report is due.
        case failed
        /// Failed because the message is too old; a report is due.
        case expired
        /// The report is in the queue.
        case reported
        /// The report about the delay is in the queue; the recipient is still tried.
        case warned
        /// Failed, and the sender wants no report of it.
        case unreported
        /// A report was owed, and none can be sent.
        case dropped
        /// By the operator.
        case removed
    }

    package let status: Status
    package let message: MessageID
    package let recipient: RecipientRecord
    package let outcome: DeliveryOutcome?
    /// Since the acceptance.
    package let delay: Duration

    package init(
        status: Status, message: MessageID, recipient: RecipientRecord, outcome: DeliveryOutcome?, delay: Duration
    ) {
        self.status = status
        self.message = message
        self.recipient = recipient
        self.outcome = outcome
        self.delay = delay
    }
}

/// What a delivery changes, as one transaction.
package struct Settlement: Hashable, Sendable {
    package let delivery: DeliveryID
    package let message: MessageID
    package let changes: [RecipientChange]
    /// To be logged after the commit.
    package let endings: [RecipientEnding]

    package init(
        delivery: DeliveryID, message: MessageID, changes: [RecipientChange], endings: [RecipientEnding]
    ) {
        self.delivery = delivery
        self.message = message
        self.changes = changes
        self.endings = endings
    }
}

extension Scheduler {
    /// What the scheduler is told.
    package enum Event: Equatable, Sendable {
        /// A message was accepted: its transaction is committed.
        case accepted(MessageRecord, [RecipientRecord])
        /// An agent said hello. `capacity` 0: as many deliveries as we like.
        case agentJoined(AgentLinkID, AgentKind, capacity: Int)
        case agentLost(AgentLinkID)
        case outcomeReceived(DeliveryID, number: UInt32, DeliveryOutcome)
        case doneReceived(DeliveryID)
        /// The agent of a bounce has handed in a report that can be accepted.
        case reportReceived(DeliveryID)
        /// The settlement (or exchange) of this delivery is committed.
        case settled(DeliveryID)
        case dueLoaded(DuePage)
        case workLoaded(LoadedWork)
        /// These moves are committed.
        case moved([DueMove])
        /// An operator's verb; `destinations` are those that shall be tried although they are down.
        case ordered(OperatorOrder, destinations: [Route])
        /// The transaction of that order is committed.
        case orderCommitted(MessageID)
        /// Entries were put into the due index from outside: the earliest of them.
        case dueAdded(Timestamp)
        /// The time of a `wake` has come.
        case timePassed
        case pauseSet(Bool)
        case limitsSet(SchedulerLimits)
        /// Start nothing more.
        case stopRequested
    }

    /// What the scheduler wants done.
    package enum Action: Equatable, Sendable {
        case deliver(DeliveryOrder)
        /// Commit, then `.settled`.
        case settle(Settlement)
        /// Commit together with the report that the agent handed in, then `.settled`.
        case exchange(Settlement)
        /// Read a page of the due index, then `.dueLoaded`.
        case loadDue(after: DueKey?, through: Timestamp, limit: Int)
        /// Read these recipients, then `.workLoaded`.
        case loadWork([DueKey])
        /// Commit, then `.moved`.
        case move([DueMove])
        case quarantine(DueKey)
        case saveDestination(Route, DestinationRecord?)
        /// Commit an `operate` of the store with this order, then `.orderCommitted`.
        case operate(OperatorOrder)
        /// Tell `.timePassed` then; replaces the one before.
        case wake(Timestamp)
        /// The agent has broken the rules.
        case disconnect(AgentLinkID)
    }
}
