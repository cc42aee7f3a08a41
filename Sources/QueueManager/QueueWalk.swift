// SPDX-License-Identifier: Apache-2.0

import LMDBQueueStore
import MailTypes
import QueueCore
import Unix

/// A message that matches a filter, with those of its recipients that do.
struct FilteredMessage {
    let message: StoredMessage
    let matching: [RecipientRecord]

    /// Nil if it does not match.
    init?(_ message: StoredMessage, _ filter: QueueFilter, _ scheduler: borrowing Scheduler, now: Timestamp) {
        guard filter.matches(message.record, now: now) else { return nil }
        self.message = message
        self.matching = message.recipients.filter { recipient in
            filter.matches(recipient, isUnderWay: scheduler.isUnderWay(recipient, of: message.record.id))
        }
        // A message all of whose recipients cannot be read is shown as long as nothing is asked of recipients.
        guard !self.matching.isEmpty || !filter.concernsRecipients else { return nil }
    }
}

extension Scheduler {
    func isUnderWay(_ recipient: RecipientRecord, of message: MessageID) -> Bool {
        self.isUnderWay(RecipientKey(message: message, number: recipient.number))
    }
}

/// A walk through the queue, or to one message of it, in pages that one turn of the event loop bears.
///
/// It ends at the last message that was there when it began, so that it ends while new mail comes.
struct QueueWalk {
    private let filter: QueueFilter
    private let last: MessageID
    private let now = WallClock.now()
    private var after: MessageID?
    private(set) var isAtEnd = false
    /// Messages of the last page that cannot be read.
    private(set) var unreadable: [MessageID] = []

    private static let messageLimit = 100
    private static let recipientLimit = 2_000

    init(_ filter: QueueFilter, through last: MessageID) {
        self.filter = filter
        self.last = last
    }

    /// The matching messages of the next page; there may be none of them although the walk goes on.
    mutating func next(_ manager: QueueManager) throws(StoreFault) -> [FilteredMessage] {
        guard !self.isAtEnd else { return [] }
        let page = try manager.store.page(
            after: self.after, messageLimit: Self.messageLimit, recipientLimit: Self.recipientLimit)
        self.unreadable = []
        guard let end = page.last else {
            self.isAtEnd = true
            return []
        }
        self.after = end
        self.isAtEnd = end >= self.last
        self.unreadable = page.unreadable
        return page.messages.compactMap { message in
            guard message.record.id <= self.last else { return nil }
            return FilteredMessage(message, self.filter, manager.scheduler, now: self.now)
        }
    }
}
