// SPDX-License-Identifier: Apache-2.0
//
// The interface between the queue's logic and its disk. Two kinds of store keep it: LMDBQueueStore, and
// MemoryQueueStore for the simulation. Both pass the same conformance tests.

package import MailTypes

/// How one recipient changes: from the record that the scheduler has to `after`.
package struct RecipientChange: Hashable, Sendable {
    package let number: UInt32
    /// The due time of the record as it is now.
    package let dueBefore: Timestamp?
    /// The record as it shall be; nil deletes it, and the message with its last recipient.
    package let after: RecipientRecord?

    package init(number: UInt32, dueBefore: Timestamp?, after: RecipientRecord?) {
        self.number = number
        self.dueBefore = dueBefore
        self.after = after
    }
}

/// A recipient whose next attempt is put off (or brought forward) without an attempt.
package struct DueMove: Hashable, Sendable {
    package let from: DueKey
    package let to: Timestamp

    package init(from: DueKey, to: Timestamp) {
        self.from = from
        self.to = to
    }
}

/// One step of the queue. Several of them make one transaction; each is whole or not at all.
package enum StoreOperation: Hashable, Sendable {
    /// The message, all recipients and the rest of the content: the instant of acceptance.
    case accept(NewMessage)
    /// A message of another queue, with recipients as they are: they may be held, may have failed, and their numbers may
    /// have gaps.
    case restore(NewMessage)
    /// Content of a message that is still arriving: whole chunks from a multiple of the chunk size on.
    case spill(MessageID, offset: UInt64, octets: [UInt8])
    /// Content of a message that will not come, enough of it to find out whether there is room for outcomes. It may use what
    /// is kept for these, and is discarded.
    case probe(MessageID)
    /// What was spilled of a message that will not come.
    case discard(MessageID)
    /// The outcomes of a delivery.
    case settle(MessageID, [RecipientChange])
    /// The messages are accepted, and what they stand for is settled: the failures that a report is about, or the
    /// recipients whose mail goes on to others.
    case exchange([NewMessage], for: MessageID, [RecipientChange])
    /// Other times in the due index, for recipients that are still where the moves say.
    case move([DueMove])
    /// Takes an entry out of the due index whose record cannot be read; the record stays for people to look at.
    case quarantine(DueKey)
    /// Writes or deletes the back-off state of a destination.
    case destination(Route, DestinationRecord?)
    /// An operator's verb on recipients of a message but those whose delivery is under way.
    case operate(OperatorOrder, now: Timestamp)
    /// Puts right what a check has found, if it is still there and can be put right without losing mail.
    case repair(QueueFault)

    package var isProbe: Bool { if case .probe = self { true } else { false } }

    /// The message that it is about, whose operations keep their order; nil: of none, or of several, of which each is done only
    /// where all is as it was.
    package var message: MessageID? {
        switch self {
        case .accept(let message), .restore(let message): message.record.id
        case .spill(let id, _, _), .probe(let id), .discard(let id), .settle(let id, _), .exchange(_, let id, _): id
        case .operate(let order, _): order.message
        case .quarantine(let key): key.recipient.message
        case .move, .destination, .repair: nil
        }
    }

    /// The chunks of a probe. The outcome of a delivery changes a few pages in each of five trees, and in the list of those
    /// that are free.
    package static let probeChunkCount = 32

    /// Whether it brings mail that is not the queue's duty yet, and may be refused.
    package var isNewMail: Bool {
        switch self {
        case .accept, .restore, .spill: true
        case .probe, .discard, .settle, .exchange, .move, .quarantine, .destination, .operate, .repair: false
        }
    }

    /// How many messages it accepts.
    package var messageCount: Int {
        switch self {
        case .accept, .restore: 1
        case .exchange(let messages, _, _): messages.count
        case .spill, .probe, .discard, .settle, .move, .quarantine, .destination, .operate, .repair: 0
        }
    }

    /// Octets of content that it brings.
    package var contentOctetCount: Int {
        switch self {
        case .accept(let message), .restore(let message): message.content.count
        case .exchange(let messages, _, _): messages.reduce(0) { $0 + $1.content.count }
        case .spill(_, _, let octets): octets.count
        case .probe, .discard, .settle, .move, .quarantine, .destination, .operate, .repair: 0
        }
    }
}

/// What `commit` tells besides success.
package struct CommitReport: Hashable, Sendable {
    /// For each `operate` of the transaction in order, the numbers of the recipients that changed.
    package var operated: [[UInt32]]
    /// Records that were met and could not be read.
    package var undecodable: [UndecodableRecord]
    /// Changes that were left out because their recipient is not there: memory had lost track of the disk.
    package var strayCount: Int

    package init(operated: [[UInt32]] = [], undecodable: [UndecodableRecord] = [], strayCount: Int = 0) {
        self.operated = operated
        self.undecodable = undecodable
        self.strayCount = strayCount
    }
}

/// A record that does not have the form that we write.
package struct UndecodableRecord: Error, Hashable, Sendable {
    /// `message`, `recipient`, `due` or `destination`.
    package let database: String
    package let key: [UInt8]

    package init(database: String, key: [UInt8]) {
        self.database = database
        self.key = key
    }
}

/// Why a store did not do what was asked. Nothing of the transaction happened.
package enum StoreFault: Error, Hashable, Sendable {
    /// No room on the disk or in the map. Less may still fit.
    case full(String)
    /// The disk or the environment failed. What was written since the last good commit is unknown: the only safe
    /// continuation is a restart into recovery.
    case broken(String)
}

/// A page of the due index.
package struct DuePage: Hashable, Sendable {
    package let entries: [DueEntry]
    /// Whether more entries are due that did not fit.
    package let hasMore: Bool
    /// If not: when the first entry after them is due.
    package let next: Timestamp?
    /// Entries that could not be read, for quarantine.
    package let undecodable: [DueKey]

    package init(entries: [DueEntry], hasMore: Bool, next: Timestamp?, undecodable: [DueKey] = []) {
        self.entries = entries
        self.hasMore = hasMore
        self.next = next
        self.undecodable = undecodable
    }
}

/// A message with those of its recipients that were asked for.
package struct StoredMessage: Hashable, Sendable {
    package let record: MessageRecord
    package var recipients: [RecipientRecord]
    /// Recipients whose records cannot be read, and are left out.
    package var unreadableCount = 0

    package init(record: MessageRecord, recipients: [RecipientRecord]) {
        self.record = record
        self.recipients = recipients
    }
}

/// A part of a walk through the messages.
package struct MessagePage: Hashable, Sendable {
    /// In the order of ids.
    package var messages: [StoredMessage] = []
    /// Messages whose envelope cannot be read.
    package var unreadable: [MessageID] = []
    /// The last message that was looked at; nil: there was none, the walk is at its end.
    package var last: MessageID?

    package init() {}
}

/// Recipients that were loaded, grouped by message in the order asked.
package struct LoadedWork: Hashable, Sendable {
    package var messages: [StoredMessage]
    /// Entries whose recipient or message cannot be read. Entries that have become stale are left out silently.
    package var undecodable: [DueKey]

    package init(messages: [StoredMessage] = [], undecodable: [DueKey] = []) {
        self.messages = messages
        self.undecodable = undecodable
    }
}

/// How much there is.
package struct QueueCounts: Hashable, Sendable {
    package var messages: Int
    package var recipients: Int
    /// Recipients in the due index; the others are held.
    package var scheduled: Int

    package init(messages: Int, recipients: Int, scheduled: Int) {
        self.messages = messages
        self.recipients = recipients
        self.scheduled = scheduled
    }
}

/// What `recover` found and did at the start.
package struct RecoveryReport: Hashable, Sendable {
    /// The highest message id that was ever given out; the next one is above it.
    package var lastMessageID: MessageID
    /// Unfinished acceptances whose content was removed.
    package var discardedCount: Int
    /// Due entries that were missing or wrong, and were put right.
    package var repairedDueCount: Int

    package init(lastMessageID: MessageID, discardedCount: Int, repairedDueCount: Int) {
        self.lastMessageID = lastMessageID
        self.discardedCount = discardedCount
        self.repairedDueCount = repairedDueCount
    }
}

/// The durable queue. `commit` is called by one thread; the readers may be called by another meanwhile, and see the
/// state after some whole transaction.
package protocol QueueStore: AnyObject {
    /// `spill` takes multiples of this many octets.
    var contentChunkOctetCount: Int { get }

    /// Does all operations in order, or none. When it returns, they are on stable storage.
    func commit(_ operations: [StoreOperation]) throws(StoreFault) -> CommitReport

    /// The entries after `after` that are due at `through` or before, at most `limit`, in order.
    func due(after: DueKey?, through: Timestamp, limit: Int) throws(StoreFault) -> DuePage

    /// The recipients of these entries. One that is no longer due at that time is left out.
    func load(_ keys: [DueKey]) throws(StoreFault) -> LoadedWork

    /// Prefix and content of a message from `offset` on, at most `count` octets; fewer only at the end. Nil: no such
    /// message.
    func content(_ message: MessageID, offset: UInt64, count: Int) throws(StoreFault) -> [UInt8]?

    /// The messages after `after`, in the order of ids: at most `messageLimit`, and no further one once they have
    /// `recipientLimit` recipients.
    func page(after: MessageID?, messageLimit: Int, recipientLimit: Int) throws(StoreFault) -> MessagePage

    /// One message with all its recipients.
    func message(_ id: MessageID) throws(StoreFault) -> StoredMessage?

    func counts() throws(StoreFault) -> QueueCounts

    /// The destinations that were suspended, at most `limit`.
    func destinations(limit: Int) throws(StoreFault) -> [(route: Route, record: DestinationRecord)]

    /// Puts right what a crash can leave behind. Called once, before everything else.
    func recover() throws(StoreFault) -> RecoveryReport
}

extension QueueStore {
    /// Whole messages after `after`, in the order of ids, of at most `limit` that are there; those that cannot be read
    /// are left out.
    package func messages(after: MessageID?, limit: Int) throws(StoreFault) -> [StoredMessage] {
        try self.page(after: after, messageLimit: limit, recipientLimit: .max).messages
    }
}
