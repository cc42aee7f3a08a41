// SPDX-License-Identifier: Apache-2.0

import LMDB
import MailTypes
import QueueCore

/// Puts right what a check has found, if it is still so in this transaction.
struct Repair {
    let store: LMDBQueueStore

    func apply(
        _ fault: QueueFault, _ transaction: borrowing WriteTransaction, _ contentCursor: borrowing Cursor
    ) throws(LMDBError) {
        switch fault.kind {
        case .dueMissing, .dueDestination: try self.putDue(fault.key, transaction)
        case .dueStray: try self.deleteDue(fault.key, transaction)
        case .contentStray:
            guard let id = fault.message else { return }
            try self.deleteContent(id, transaction, contentCursor)
        case .unfinishedStray:
            guard let id = fault.message,
                try transaction.value(self.store.messages, key: messageKey(id).span, { _ in true }) != nil
            else { return }
            try transaction.delete(self.store.main, key: MainKey.unfinished(id).span)
        case .lastIDBehind:
            guard let id = fault.message else { return }
            let key = MainKey.lastMessageID
            let known = try transaction.value(self.store.main, key: key.span) { messageID($0) } ?? nil
            if let known, known >= id { return }
            try transaction.put(self.store.main, key: key.span, value: messageKey(id).span)
        case .destinationUnreadable:
            let value = try transaction.value(self.store.suspensions, key: fault.key.span) { Array(copying: $0) }
            guard let value, Route(octets: fault.key) == nil || (try? DestinationRecord(octets: value)) == nil else {
                return
            }
            try transaction.delete(self.store.suspensions, key: fault.key.span)
        case .messageUnreadable, .messageWithoutRecipients, .contentIncomplete, .recipientUnreadable,
            .recipientWithoutMessage, .contentUnreadable:
            // A person has to look at these.
            break
        }
    }

    private func recipient(
        _ place: DueKey, _ transaction: borrowing WriteTransaction
    ) throws(LMDBError) -> (isThere: Bool, record: RecipientRecord?) {
        let key = numberedKey(place.recipient.message, place.recipient.number)
        let octets = try transaction.value(self.store.recipients, key: key.span) { Array(copying: $0) }
        guard let octets else { return (false, nil) }
        return (true, try? RecipientRecord(number: place.recipient.number, octets: octets))
    }

    private func putDue(_ key: [UInt8], _ transaction: borrowing WriteTransaction) throws(LMDBError) {
        guard let place = dueKey(key.span), let record = try self.recipient(place, transaction).record,
            record.due == place.time
        else { return }
        var value: [UInt8] = []
        value.append(dueTo: record.destination, record.flow)
        try transaction.put(self.store.dues, key: key.span, value: value.span)
    }

    private func deleteDue(_ key: [UInt8], _ transaction: borrowing WriteTransaction) throws(LMDBError) {
        if let place = dueKey(key.span) {
            let (isThere, record) = try self.recipient(place, transaction)
            // One that cannot be read keeps its entry.
            guard !isThere || record.map({ $0.due != place.time }) ?? false else { return }
        }
        try transaction.delete(self.store.dues, key: key.span)
    }

    private func deleteContent(
        _ id: MessageID, _ transaction: borrowing WriteTransaction, _ cursor: borrowing Cursor
    ) throws(LMDBError) {
        for database in [self.store.messages, self.store.recipients] {
            let other = try transaction.cursor(database)
            if try other.seek(messageKey(id).span, { key, _ in messageID(key) == id }) == true { return }
        }
        guard try transaction.value(self.store.main, key: MainKey.unfinished(id).span, { _ in true }) == nil else {
            return
        }
        var isFound = try cursor.seek(numberedKey(id, 0).span) { key, _ in messageID(key) == id }
        while isFound == true {
            try cursor.delete()
            isFound = try cursor.next { key, _ in messageID(key) == id }
        }
    }
}
