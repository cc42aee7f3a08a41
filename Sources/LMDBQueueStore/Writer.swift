// SPDX-License-Identifier: Apache-2.0

import LMDB
import MailTypes
import QueueCore

/// The operations of one transaction. It is made anew when the transaction has to be repeated.
struct Writer {
    private let store: LMDBQueueStore
    private(set) var report = CommitReport()
    /// Reused for every value.
    private var value: [UInt8] = []
    /// The highest id that the transaction has seen.
    private var lastMessageID: MessageID?

    init(_ store: LMDBQueueStore) {
        self.store = store
        self.value.reserveCapacity(1_024)
    }

    mutating func apply(
        _ operation: StoreOperation, _ transaction: borrowing WriteTransaction, _ cursor: borrowing Cursor,
        _ contentCursor: borrowing Cursor
    ) throws(LMDBError) {
        switch operation {
        case .accept(let message), .restore(let message): try self.accept(message, transaction)
        case .spill(let id, let offset, let octets): try self.spill(id, offset, octets, transaction)
        case .probe(let id):
            let octetCount = StoreOperation.probeChunkCount * self.store.contentChunkOctetCount
            try self.spill(id, 0, [UInt8](repeating: 0, count: octetCount), transaction)
        case .discard(let id):
            // Why: only what is marked as unfinished may go; an accepted message is not discarded by any mistake.
            if try transaction.delete(self.store.main, key: MainKey.unfinished(id).span) {
                try self.deleteContent(id, contentCursor)
            }
        case .settle(let id, let changes): try self.settle(id, changes, transaction, cursor, contentCursor)
        case .exchange(let messages, let id, let changes):
            for message in messages { try self.accept(message, transaction) }
            try self.settle(id, changes, transaction, cursor, contentCursor)
        case .move(let moves):
            for move in moves { try self.move(move, transaction) }
        case .quarantine(let key): try transaction.delete(self.store.dues, key: dueKey(key).span)
        case .destination(let route, let record): try self.save(route, record, transaction)
        case .repair(let fault): try Repair(store: self.store).apply(fault, transaction, contentCursor)
        case .operate(let order, let now): try self.operate(order, now, transaction, cursor, contentCursor)
        }
    }

    /// Writes what concerns the transaction as a whole.
    mutating func finish(_ transaction: borrowing WriteTransaction) throws(LMDBError) {
        guard let last = self.lastMessageID else { return }
        let key = MainKey.lastMessageID
        let known = try transaction.value(self.store.main, key: key.span) { messageID($0) }
        if let known = known ?? nil, known >= last { return }
        try transaction.put(self.store.main, key: key.span, value: messageKey(last).span)
    }

    private mutating func see(_ id: MessageID) { self.lastMessageID = self.lastMessageID.map { max($0, id) } ?? id }

    // MARK: - Acceptance

    private mutating func accept(
        _ message: NewMessage, _ transaction: borrowing WriteTransaction
    ) throws(LMDBError) {
        let id = message.record.id
        self.see(id)
        self.value.removeAll(keepingCapacity: true)
        self.value.append(message.record)
        try transaction.putAscending(self.store.messages, key: messageKey(id).span, value: self.value.span)
        for recipient in message.recipients {
            try self.put(recipient, id, transaction, isNew: true)
        }
        try self.putContent(id, message.contentOffset, message.content, transaction)
        if message.contentOffset > 0 {
            try transaction.delete(self.store.main, key: MainKey.unfinished(id).span)
        }
    }

    private mutating func spill(
        _ id: MessageID, _ offset: UInt64, _ octets: [UInt8], _ transaction: borrowing WriteTransaction
    ) throws(LMDBError) {
        self.see(id)
        // Recovery finds what has arrived of a message by this mark.
        let mark = [recordVersion]
        try transaction.put(self.store.main, key: MainKey.unfinished(id).span, value: mark.span)
        try self.putContent(id, offset, octets, transaction)
    }

    private func putContent(
        _ id: MessageID, _ offset: UInt64, _ octets: [UInt8], _ transaction: borrowing WriteTransaction
    ) throws(LMDBError) {
        let size = self.store.contentChunkOctetCount
        precondition(offset % UInt64(size) == 0)
        var number = UInt32(truncatingIfNeeded: offset / UInt64(size))
        var start = 0
        let span = octets.span
        while start < span.count {
            let end = min(start + size, span.count)
            try transaction.putAscending(
                self.store.contents, key: numberedKey(id, number).span, value: span.extracting(start..<end))
            number &+= 1
            start = end
        }
    }

    // MARK: - Settlement

    private mutating func put(
        _ record: RecipientRecord, _ id: MessageID, _ transaction: borrowing WriteTransaction, isNew: Bool
    ) throws(LMDBError) {
        let key = numberedKey(id, record.number)
        self.value.removeAll(keepingCapacity: true)
        self.value.append(record)
        if isNew {
            try transaction.putAscending(self.store.recipients, key: key.span, value: self.value.span)
        } else {
            try transaction.put(self.store.recipients, key: key.span, value: self.value.span)
        }
        guard let due = record.due else { return }
        self.value.removeAll(keepingCapacity: true)
        self.value.append(dueTo: record.destination, record.flow)
        let entry = dueKey(DueKey(time: due, recipient: RecipientKey(message: id, number: record.number)))
        try transaction.put(self.store.dues, key: entry.span, value: self.value.span)
    }

    private mutating func settle(
        _ id: MessageID, _ changes: [RecipientChange], _ transaction: borrowing WriteTransaction,
        _ cursor: borrowing Cursor, _ contentCursor: borrowing Cursor
    ) throws(LMDBError) {
        var isAnyDeleted = false
        for change in changes {
            let key = numberedKey(id, change.number)
            let isThere = try cursor.seek(key.span) { found, _ in
                recipientKey(found) == RecipientKey(message: id, number: change.number)
            }
            // Why: writing a record that is not there would call a recipient back to life.
            guard isThere == true else {
                self.report.strayCount += 1
                continue
            }
            if let due = change.dueBefore {
                let entry = dueKey(DueKey(time: due, recipient: RecipientKey(message: id, number: change.number)))
                try transaction.delete(self.store.dues, key: entry.span)
            }
            if let after = change.after {
                try self.put(after, id, transaction, isNew: false)
            } else {
                try cursor.delete()
                isAnyDeleted = true
            }
        }
        guard isAnyDeleted else { return }
        let isAnyLeft = try cursor.seek(numberedKey(id, 0).span) { found, _ in messageID(found) == id }
        guard isAnyLeft != true else { return }
        try transaction.delete(self.store.messages, key: messageKey(id).span)
        try self.deleteContent(id, contentCursor)
    }

    private func deleteContent(_ id: MessageID, _ cursor: borrowing Cursor) throws(LMDBError) {
        var isFound = try cursor.seek(numberedKey(id, 0).span) { found, _ in messageID(found) == id }
        while isFound == true {
            self.store.environment.noteTouched(self.store.contentChunkOctetCount)
            try cursor.delete()
            isFound = try cursor.next { found, _ in messageID(found) == id }
        }
    }

    // MARK: - Other times

    private mutating func move(_ move: DueMove, _ transaction: borrowing WriteTransaction) throws(LMDBError) {
        let from = dueKey(move.from)
        let recipient = move.from.recipient
        let key = numberedKey(recipient.message, recipient.number)
        // A move from where the recipient no longer is has nothing to do.
        guard let destination = try transaction.value(self.store.dues, key: from.span, { Array(copying: $0) }),
            var record = try transaction.value(self.store.recipients, key: key.span, { Array(copying: $0) }),
            record.count >= recipientDueOffset + 8, move.to.microseconds > 0
        else { return }
        let to = dueKey(DueKey(time: move.to, recipient: recipient))
        for place in 0..<8 { record[recipientDueOffset + place] = to[place] }
        try transaction.delete(self.store.dues, key: from.span)
        try transaction.put(self.store.dues, key: to.span, value: destination.span)
        try transaction.put(self.store.recipients, key: key.span, value: record.span)
    }

    private mutating func save(
        _ route: Route, _ record: DestinationRecord?, _ transaction: borrowing WriteTransaction
    ) throws(LMDBError) {
        let key = route.octets
        guard let record else {
            try transaction.delete(self.store.suspensions, key: key.span)
            return
        }
        self.value.removeAll(keepingCapacity: true)
        self.value.append(record)
        try transaction.put(self.store.suspensions, key: key.span, value: self.value.span)
    }

    private mutating func operate(
        _ order: OperatorOrder, _ now: Timestamp,
        _ transaction: borrowing WriteTransaction, _ cursor: borrowing Cursor, _ contentCursor: borrowing Cursor
    ) throws(LMDBError) {
        var changes: [RecipientChange] = []
        var isFound = try cursor.seek(numberedKey(order.message, 0).span) { key, value in
            self.collect(&changes, order, now, key, value)
        }
        while isFound == true {
            isFound = try cursor.next { key, value in self.collect(&changes, order, now, key, value) }
        }
        try self.settle(order.message, changes, transaction, cursor, contentCursor)
        self.report.operated.append(changes.map(\.number))
    }

    /// Notes what the verb does to one recipient; false at the end of the message.
    private mutating func collect(
        _ changes: inout [RecipientChange], _ order: OperatorOrder, _ now: Timestamp, _ key: Span<UInt8>,
        _ value: Span<UInt8>
    ) -> Bool {
        guard let place = recipientKey(key), place.message == order.message else { return false }
        guard order.concerns(place.number) else { return true }
        do throws(RecordFault) {
            let record = try RecipientRecord(number: place.number, octets: Array(copying: value))
            if let change = order.verb.change(record, now: now) { changes.append(change) }
        } catch {
            self.report.undecodable.append(UndecodableRecord(database: "recipient", key: Array(copying: key)))
        }
        return true
    }
}
