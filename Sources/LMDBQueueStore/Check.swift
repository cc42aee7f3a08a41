// SPDX-License-Identifier: Apache-2.0
//
// Holds the file against Documentation/queue.md, in slices. A slice is one read transaction, and every transaction of
// the queue keeps the rules: what is found is wrong, however the mail goes on meanwhile.

import LMDB
import MailTypes
package import QueueCore

extension LMDBQueueStore {
    /// Looks at about `limit` records from a place on.
    package func check(_ place: CheckPlace, limit: Int) throws(StoreFault) -> CheckSlice {
        defer { self.environment.noteTouched(limit * 4_096) }
        return try self.read { transaction throws(LMDBError) in
            var check = Check(store: self, after: place.after, left: limit)
            switch place.database {
            case .message: try check.messages(transaction)
            case .recipient: try check.recipients(transaction)
            case .due: try check.dues(transaction)
            case .content: try check.contents(transaction)
            case .destination: try check.destinations(transaction)
            case .main: try check.main(transaction)
            }
            var slice = check.slice
            if let after = check.after {
                slice.next = place
                slice.next?.after = after
            } else {
                slice.next = place.nextDatabase
            }
            return slice
        }
    }
}

/// One slice.
private struct Check {
    let store: LMDBQueueStore
    /// The last key that was looked at; nil: the database is at its end.
    var after: [UInt8]?
    /// How much may still be looked at.
    var left: Int
    var slice = CheckSlice()

    init(store: LMDBQueueStore, after: [UInt8]?, left: Int) {
        self.store = store
        self.after = after
        self.left = left
    }

    private mutating func note(
        _ kind: QueueFault.Kind, _ key: [UInt8], _ message: MessageID?, _ number: UInt32?, _ text: String
    ) {
        self.slice.faults.append(QueueFault(kind, key: key, message: message, number: number, text))
    }

    private mutating func note(_ kind: QueueFault.Kind, _ key: [UInt8], _ message: MessageID?, _ text: String) {
        self.note(kind, key, message, nil, text)
    }

    private mutating func note(_ kind: QueueFault.Kind, _ key: [UInt8], _ text: String) {
        self.note(kind, key, nil, nil, text)
    }

    /// The next key of a database with its value; nil if there is none, or no more is to be looked at now.
    private mutating func next(
        _ cursor: borrowing Cursor, isFirst: Bool
    ) throws(LMDBError) -> (key: [UInt8], value: [UInt8])? {
        guard self.left > 0 else { return nil }
        func copy(_ key: Span<UInt8>, _ value: Span<UInt8>) -> (key: [UInt8], value: [UInt8]) {
            (Array(copying: key), Array(copying: value))
        }
        var found: (key: [UInt8], value: [UInt8])?
        if isFirst, let after = self.after {
            found = try cursor.seek(after.span) { copy($0, $1) }
            if found?.key == after { found = try cursor.next { copy($0, $1) } }
        } else {
            found = try cursor.next { copy($0, $1) }
        }
        self.after = found?.key
        if found != nil {
            self.left -= 1
            self.slice.count += 1
        }
        return found
    }

    private func isThere(
        _ id: MessageID, in database: Database, _ transaction: borrowing ReadTransaction
    ) throws(LMDBError) -> Bool {
        let cursor = try transaction.cursor(database)
        return try cursor.seek(messageKey(id).span) { key, _ in messageID(key) == id } ?? false
    }

    // MARK: - Messages

    mutating func messages(_ transaction: borrowing ReadTransaction) throws(LMDBError) {
        let cursor = try transaction.cursor(self.store.messages)
        var isFirst = true
        while let (key, value) = try self.next(cursor, isFirst: isFirst) {
            isFirst = false
            guard key.count == 8, let id = messageID(key.span),
                let record = try? MessageRecord(id: id, octets: value)
            else {
                self.note(
                    .messageUnreadable, key, messageID(key.span), "the envelope cannot be read; it stays where it is")
                continue
            }
            if try !self.isThere(id, in: self.store.recipients, transaction) {
                self.note(.messageWithoutRecipients, key, id, "the message has no recipients")
            }
            let mark = MainKey.unfinished(id)
            if try transaction.value(self.store.main, key: mark.span, { _ in true }) != nil {
                self.note(.unfinishedStray, mark, id, "an accepted message is marked as arriving")
            }
            try self.content(of: record, key, transaction)
        }
    }

    /// Whether the chunks of a message are all there, of the right sizes, and no more.
    private mutating func content(
        of record: MessageRecord, _ key: [UInt8], _ transaction: borrowing ReadTransaction
    ) throws(LMDBError) {
        let size = UInt64(self.store.contentChunkOctetCount)
        let cursor = try transaction.cursor(self.store.contents)
        func chunk(_ key: Span<UInt8>, _ value: Span<UInt8>) -> (number: UInt32, octetCount: Int)? {
            guard let place = recipientKey(key), place.message == record.id else { return nil }
            return (place.number, value.count)
        }
        var number: UInt32 = 0
        var octetCount: UInt64 = 0
        var found = try cursor.seek(numberedKey(record.id, 0).span) { chunk($0, $1) } ?? nil
        while let part = found {
            let wanted = min(size, record.contentOctetCount - octetCount)
            guard part.number == number, wanted > 0, UInt64(part.octetCount) == wanted else {
                let text =
                    part.number != number
                    ? "part \(number) of the content is missing"
                    : "part \(number) of the content has \(part.octetCount) octets instead of \(wanted)"
                return self.note(.contentIncomplete, key, record.id, text)
            }
            number += 1
            octetCount += wanted
            self.left -= 1
            found = try cursor.next { chunk($0, $1) } ?? nil
        }
        if octetCount != record.contentOctetCount {
            self.note(
                .contentIncomplete, key, record.id,
                "\(octetCount) of \(record.contentOctetCount) octets of the content are there")
        }
    }

    // MARK: - Recipients and the due index

    mutating func recipients(_ transaction: borrowing ReadTransaction) throws(LMDBError) {
        let cursor = try transaction.cursor(self.store.recipients)
        var isFirst = true
        while let (key, value) = try self.next(cursor, isFirst: isFirst) {
            isFirst = false
            guard let place = recipientKey(key.span),
                let record = try? RecipientRecord(number: place.number, octets: value)
            else {
                let place = recipientKey(key.span)
                self.note(
                    .recipientUnreadable, key, place?.message, place?.number,
                    "the recipient cannot be read; it stays where it is and is not tried")
                continue
            }
            let envelope = try transaction.value(self.store.messages, key: messageKey(place.message).span) {
                Array(copying: $0)
            }
            guard let envelope else {
                self.note(
                    .recipientWithoutMessage, key, place.message, place.number,
                    "<\(record.forwardPath.octets.printableText)> has no message")
                continue
            }
            // A message that cannot be read is not tried, and so not due.
            guard let due = record.due, (try? MessageRecord(id: place.message, octets: envelope)) != nil else {
                continue
            }
            try self.due(of: record, DueKey(time: due, recipient: place), transaction)
        }
    }

    private mutating func due(
        of record: RecipientRecord, _ place: DueKey, _ transaction: borrowing ReadTransaction
    ) throws(LMDBError) {
        let entry = dueKey(place)
        let key = Array(copying: entry.span)
        let value = try transaction.value(self.store.dues, key: entry.span) { Array(copying: $0) }
        let id = place.recipient.message
        guard let value else {
            return self.note(
                .dueMissing, key, id, record.number, "the recipient is not in the due index: it is not tried")
        }
        let wanted = DueEntry(key: place, destination: record.destination, flow: record.flow)
        guard (try? DueEntry(key: place, value: value.span)) != wanted else { return }
        self.note(
            .dueDestination, key, id, record.number,
            "the due index has another destination or sender than the recipient")
    }

    mutating func dues(_ transaction: borrowing ReadTransaction) throws(LMDBError) {
        let cursor = try transaction.cursor(self.store.dues)
        var isFirst = true
        while let (key, _) = try self.next(cursor, isFirst: isFirst) {
            isFirst = false
            guard let place = dueKey(key.span) else {
                self.note(.dueStray, key, "an entry of the due index has no key of ours")
                continue
            }
            let recipient = place.recipient
            let octets = try transaction.value(
                self.store.recipients, key: numberedKey(recipient.message, recipient.number).span
            ) { Array(copying: $0) }
            // One that cannot be read was named; its entry is taken out when it is due.
            guard let octets else {
                self.note(
                    .dueStray, key, recipient.message, recipient.number, "an entry of the due index is of no recipient")
                continue
            }
            guard let record = try? RecipientRecord(number: recipient.number, octets: octets), record.due != place.time
            else { continue }
            self.note(
                .dueStray, key, recipient.message, recipient.number,
                "an entry of the due index has another time than the recipient")
        }
    }

    // MARK: - Content, destinations, and the rest

    /// Content belongs to a message, or to one that is arriving. The chunks of one id are not looked at one by one.
    mutating func contents(_ transaction: borrowing ReadTransaction) throws(LMDBError) {
        let cursor = try transaction.cursor(self.store.contents)
        var start = self.after
        while self.left > 0 {
            func copy(_ key: Span<UInt8>, _ value: Span<UInt8>) -> [UInt8] { Array(copying: key) }
            var found: [UInt8]?
            if let start {
                found = try cursor.seek(start.span) { copy($0, $1) }
                if found == start { found = try cursor.next { copy($0, $1) } }
            } else {
                found = try cursor.next { copy($0, $1) }
            }
            self.after = found
            guard let key = found else { return }
            self.left -= 1
            guard let id = recipientKey(key.span)?.message else {
                self.note(.contentUnreadable, key, messageID(key.span), "a part of content has no key of ours")
                start = key
                continue
            }
            self.slice.count += 1
            let isOwed =
                try self.isThere(id, in: self.store.messages, transaction)
                ? true : self.isThere(id, in: self.store.recipients, transaction)
            let mark = MainKey.unfinished(id)
            if !isOwed, try transaction.value(self.store.main, key: mark.span, { _ in true }) == nil {
                let key = messageKey(id)
                self.note(.contentStray, Array(copying: key.span), id, "content of no message and no recipient")
            }
            // The last possible chunk of this id: what follows is of another.
            let lastKey = numberedKey(id, .max)
            let last = Array(copying: lastKey.span)
            start = last
            self.after = last
        }
    }

    mutating func destinations(_ transaction: borrowing ReadTransaction) throws(LMDBError) {
        let cursor = try transaction.cursor(self.store.suspensions)
        var isFirst = true
        while let (key, value) = try self.next(cursor, isFirst: isFirst) {
            isFirst = false
            if Route(octets: key) == nil || (try? DestinationRecord(octets: value)) == nil {
                self.note(.destinationUnreadable, key, "the back-off of \(key.printableText) cannot be read")
            }
        }
    }

    mutating func main(_ transaction: borrowing ReadTransaction) throws(LMDBError) {
        self.after = nil
        self.slice.count += 1
        let lastKey = MainKey.lastMessageID
        let known = try transaction.value(self.store.main, key: lastKey.span) { messageID($0) } ?? nil
        var highest: MessageID?
        for database in [self.store.messages, self.store.contents] {
            let last = try transaction.cursor(database).last { key, _ in messageID(key) } ?? nil
            if let last { highest = max(highest ?? last, last) }
        }
        guard let highest, known.map({ $0 < highest }) ?? true else { return }
        self.note(
            .lastIDBehind, MainKey.lastMessageID, highest,
            "the last id given out is \(known?.text ?? "not noted"), and there is \(highest.text)")
    }
}
