// SPDX-License-Identifier: Apache-2.0
//
// What an operator can have done to recipients, and what becomes of each of them.

package import MailTypes

/// What an operator does to recipients.
package enum OperatorVerb: Hashable, Sendable {
    /// Due now.
    case flush
    /// Out of the due index until released.
    case hold
    /// What was held is due now.
    case release
    /// Deleted without a report.
    case remove
    /// Failed, and reported to the sender, if he wants to know.
    case bounce
    /// Another route, and due now; what is held stays held. Never to `bounce`.
    case reroute(Route)

    /// The word of pipes.md §5 and of the log.
    package var word: String {
        switch self {
        case .flush: "flush"
        case .hold: "hold"
        case .release: "release"
        case .remove: "remove"
        case .bounce: "bounce"
        case .reroute: "reroute"
        }
    }

    /// What becomes of a recipient; nil if nothing does.
    ///
    /// - Parameter now: the time at which it becomes due.
    package func change(_ record: RecipientRecord, now: Timestamp) -> RecipientChange? {
        var after = record
        switch self {
        case .flush:
            guard record.due != nil else { return nil }
            after.due = now
        case .hold:
            guard record.due != nil else { return nil }
            after.due = nil
        case .release:
            guard record.due == nil else { return nil }
            // The time that a report was held is none in which it was tried.
            if record.owedReport != nil { after.lastAttempt = now }
            after.due = now
        case .remove:
            return RecipientChange(number: record.number, dueBefore: record.due, after: nil)
        case .bounce:
            guard !record.isEnded else { return nil }
            // The sender may have said that he does not want to know (RFC 3461 §4.1).
            guard record.dsn.wants(.failure) else {
                return RecipientChange(number: record.number, dueBefore: record.due, after: nil)
            }
            after.state = .failed(Self.returnedByOperator)
            // From now on the report is tried.
            after.lastAttempt = now
            after.due = now
        case .reroute(let route):
            guard !record.isEnded, record.route != route, route != .bounce else { return nil }
            after.route = route
            if record.due != nil { after.due = now }
        }
        return RecipientChange(number: record.number, dueBefore: record.due, after: after)
    }

    /// Destinations that an operator wants tried now, although they may be down.
    package func wantedDestinations(_ recipients: some Sequence<RecipientRecord>) -> [Route] {
        switch self {
        case .hold, .remove, .bounce: return []
        case .reroute(let route): return [route]
        case .flush, .release:
            var seen: Set<Route> = []
            return recipients.map(\.destination).filter { seen.insert($0).inserted }
        }
    }

    private static let returnedByOperator = DeliveryOutcome(
        .failed, code: 554, status: EnhancedStatus(.permanent, 0, 0), reporter: "apus-queue",
        text: "returned by the postmaster")
}

/// A verb on recipients of one message: one transaction.
package struct OperatorOrder: Hashable, Sendable {
    package let message: MessageID
    package let verb: OperatorVerb
    /// The numbers of the recipients that are meant; nil: all.
    package let only: Set<UInt32>?
    /// Those whose delivery is under way: the scheduler does the verb to them when it has ended.
    package var except: Set<UInt32>

    package init(
        _ verb: OperatorVerb, _ message: MessageID, only: Set<UInt32>? = nil, except: Set<UInt32> = []
    ) {
        self.message = message
        self.verb = verb
        self.only = only
        self.except = except
    }

    /// Whether a recipient is meant, whatever is under way.
    package func means(_ number: UInt32) -> Bool { self.only?.contains(number) ?? true }

    /// Whether the transaction changes a recipient.
    package func concerns(_ number: UInt32) -> Bool { self.means(number) && !self.except.contains(number) }
}

/// One word for how it stands with a recipient.
package enum RecipientStatus: String, Hashable, Sendable, CaseIterable {
    /// Waits for its next attempt.
    case queued
    /// With an agent.
    case delivering
    /// Kept back by the operator.
    case held
    /// A report to the sender is due.
    case failed
    /// Delivered; a report of that is due.
    case reporting

    package init(_ recipient: RecipientRecord, isUnderWay: Bool) {
        if recipient.due == nil {
            self = .held
        } else if recipient.isEnded {
            self = recipient.hasFailed ? .failed : .reporting
        } else {
            self = isUnderWay ? .delivering : .queued
        }
    }
}
