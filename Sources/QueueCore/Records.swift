// SPDX-License-Identifier: Apache-2.0
//
// What the queue keeps of a message, as values. Documentation/queue.md has the table of legal states; the types here
// cannot express others.

package import MailTypes

/// One recipient of one message.
package struct RecipientKey: Hashable, Comparable, Sendable {
    package let message: MessageID
    /// 0 and up, in the order of acceptance.
    package let number: UInt32

    package init(message: MessageID, number: UInt32) {
        self.message = message
        self.number = number
    }

    package static func < (left: RecipientKey, right: RecipientKey) -> Bool {
        left.message != right.message ? left.message < right.message : left.number < right.number
    }
}

/// The envelope of a message, written once at acceptance and never changed.
package struct MessageRecord: Hashable, Sendable {
    package let id: MessageID
    package let reversePath: ReversePath
    package let bodyType: BodyType
    /// When it was accepted.
    package let arrival: Timestamp
    /// A deferral at or after this instant is a failure (RFC 5321 §4.5.4.1).
    package let expiry: Timestamp
    /// What the queue puts in front of the content: a Received: field, or nothing.
    package let prefix: [UInt8]
    /// The content without `prefix`.
    package let contentOctetCount: UInt64
    /// One line about the client, for the log and for people.
    package let trace: [UInt8]
    /// What the sender wishes about reports.
    package let dsn: MessageDSN
    /// What the message has to do with SMTPUTF8.
    package let unicode: UnicodeDemand
    /// Set if each recipient's copy has a reverse-path of its own (`ReversePath.variable`).
    package let verp: VERPDelimiter?

    package init(
        id: MessageID, reversePath: ReversePath, bodyType: BodyType, arrival: Timestamp, expiry: Timestamp,
        prefix: [UInt8], contentOctetCount: UInt64, trace: [UInt8], dsn: MessageDSN = MessageDSN(),
        unicode: UnicodeDemand = .none, verp: VERPDelimiter? = nil
    ) {
        self.unicode = unicode
        self.verp = verp
        self.dsn = dsn
        self.id = id
        self.reversePath = reversePath
        self.bodyType = bodyType
        self.arrival = arrival
        self.expiry = expiry
        self.prefix = prefix
        self.contentOctetCount = contentOctetCount
        self.trace = trace
    }

    /// What an agent is given: prefix and content.
    package var octetCount: UInt64 { self.contentOctetCount + UInt64(self.prefix.count) }
}

/// One recipient that is still the queue's duty. It is deleted when it is delivered, reported or removed.
package struct RecipientRecord: Hashable, Sendable {
    /// What is owed to the recipient.
    package enum State: Hashable, Sendable {
        /// A delivery. The last attempt's outcome, if there was one, is a deferral.
        case queued(last: DeliveryOutcome?)
        /// A report to the sender, about this outcome, which is of the action's kind. After a report about a delay a
        /// delivery is owed again; after any other one nothing is.
        case reporting(ReportAction, DeliveryOutcome)

        /// A report about this failure is owed.
        package static func failed(_ failure: DeliveryOutcome) -> State { .reporting(.failed, failure) }
    }

    package let number: UInt32
    package let forwardPath: ForwardPath
    /// What the client gave, if an alias led from there to `forwardPath`.
    package let originalPath: ForwardPath?
    /// What the sender wishes about reports.
    package let dsn: RecipientDSN
    /// Where the recipient is delivered. Never `bounce`.
    package var route: Route
    /// With whom it takes turns.
    package let flow: MailFlow
    package var state: State
    /// The key of its entry in the due index; nil: held by the operator, and not in the index.
    package var due: Timestamp?
    /// Deliveries and reports that were tried and noted.
    package var attemptCount: UInt32
    /// When the last of them ended, or when it was decided without one that a report is owed; zero before the first.
    package var lastAttempt: Timestamp
    /// Whether the sender was told of the delay, or cannot be: he is told once.
    package var isDelayTold: Bool

    package init(
        number: UInt32, forwardPath: ForwardPath, originalPath: ForwardPath?, route: Route, flow: MailFlow,
        state: State, due: Timestamp?, attemptCount: UInt32 = 0, lastAttempt: Timestamp = Timestamp(microseconds: 0),
        dsn: RecipientDSN = RecipientDSN(), isDelayTold: Bool = false
    ) {
        self.dsn = dsn
        self.isDelayTold = isDelayTold
        self.number = number
        self.forwardPath = forwardPath
        self.originalPath = originalPath
        self.route = route
        self.flow = flow
        self.state = state
        self.due = due
        self.attemptCount = attemptCount
        self.lastAttempt = lastAttempt
    }

    /// Where the next step leads: its own route, or the bounce agent while a report is owed.
    package var destination: Route {
        switch self.state {
        case .queued: self.route
        case .reporting: .bounce
        }
    }

    /// The report that is owed; nil: none.
    package var owedReport: ReportAction? {
        switch self.state {
        case .queued: nil
        case .reporting(let action, _): action
        }
    }

    /// Whether no delivery is owed any more.
    package var isEnded: Bool { self.owedReport.map { $0 != .delayed } ?? false }

    package var hasFailed: Bool { self.owedReport == .failed }

    package var lastOutcome: DeliveryOutcome? {
        switch self.state {
        case .queued(let last): last
        case .reporting(_, let outcome): outcome
        }
    }
}

/// A place in the due index, which is ordered by it.
package struct DueKey: Hashable, Comparable, Sendable {
    package let time: Timestamp
    package let recipient: RecipientKey

    package init(time: Timestamp, recipient: RecipientKey) {
        self.time = time
        self.recipient = recipient
    }

    /// The place before everything due at `time`, given as the last possible one of the microsecond before.
    package static func before(_ time: Timestamp) -> DueKey? {
        guard time.microseconds > 0 else { return nil }
        return DueKey(
            time: Timestamp(microseconds: time.microseconds - 1),
            recipient: RecipientKey(message: MessageID(rawValue: .max), number: .max))
    }

    package static func < (left: DueKey, right: DueKey) -> Bool {
        left.time != right.time ? left.time < right.time : left.recipient < right.recipient
    }
}

/// One entry of the due index.
package struct DueEntry: Hashable, Sendable {
    package let key: DueKey
    package let destination: Route
    package let flow: MailFlow

    package init(key: DueKey, destination: Route, flow: MailFlow) {
        self.key = key
        self.destination = destination
        self.flow = flow
    }
}

/// What of a destination's back-off outlives a restart: it is only there while the destination is suspended.
package struct DestinationRecord: Hashable, Sendable {
    /// Nothing is tried before.
    package var suspendedUntil: Timestamp
    /// How often in a row it was suspended; at least 1.
    package var suspensionCount: UInt32

    package init(suspendedUntil: Timestamp, suspensionCount: UInt32) {
        self.suspendedUntil = suspendedUntil
        self.suspensionCount = suspensionCount
    }
}

/// A message that is about to be accepted, with all that the transaction writes.
package struct NewMessage: Hashable, Sendable {
    package var record: MessageRecord
    /// At least one, numbered 0 and up; none is held.
    package var recipients: [RecipientRecord]
    /// The content from `contentOffset` on; what is before it has been spilled.
    package var content: [UInt8]
    /// 0, or a multiple of the store's `contentChunkOctetCount`.
    package var contentOffset: UInt64

    package init(record: MessageRecord, recipients: [RecipientRecord], content: [UInt8], contentOffset: UInt64 = 0) {
        self.record = record
        self.recipients = recipients
        self.content = content
        self.contentOffset = contentOffset
    }
}
