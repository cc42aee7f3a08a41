// SPDX-License-Identifier: Apache-2.0
//
// What a crash can leave behind, and how it is put right. Every transaction is whole or not there, so there is little:
// content of messages whose acceptance never came. Deliveries that were under way are simply still in the due index.

import LMDB
import MailTypes
package import QueueCore

extension LMDBQueueStore {
    /// A queue with at most so many recipients is compared with its due index at the start; it takes milliseconds.
    private static let checkedRecipientCountMax = 20_000

    package func recover() throws(StoreFault) -> RecoveryReport {
        do throws(LMDBError) {
            return try self.environment.write(isEssential: true) { transaction throws(LMDBError) in
                let discardedCount = try self.discardUnfinished(transaction)
                var last = MessageID(rawValue: 0)
                let lastKey = MainKey.lastMessageID
                let noted = try transaction.value(self.main, key: lastKey.span) { messageID($0) }
                if let noted = noted ?? nil { last = noted }
                let highest = try transaction.cursor(self.messages).last { key, _ in messageID(key) }
                if let highest = highest ?? nil { last = max(last, highest) }
                var repairedCount = 0
                if try transaction.count(self.recipients) <= Self.checkedRecipientCountMax,
                    try transaction.count(self.dues) <= 2 * Self.checkedRecipientCountMax
                {
                    repairedCount = try self.repairDue(transaction)
                }
                return RecoveryReport(
                    lastMessageID: last, discardedCount: discardedCount, repairedDueCount: repairedCount)
            }
        } catch {
            throw Self.fault(error)
        }
    }

    private func discardUnfinished(_ transaction: borrowing WriteTransaction) throws(LMDBError) -> Int {
        var ids: [MessageID] = []
        let prefix = MainKey.unfinished
        let marks = try transaction.cursor(self.main)
        func take(_ key: Span<UInt8>) -> Bool {
            let octets = Array(copying: key)
            guard octets.starts(with: prefix) else { return false }
            if let id = messageID(key.extracting(prefix.count..<key.count)) { ids.append(id) }
            return true
        }
        var isFound = try marks.seek(prefix.span) { key, _ in take(key) }
        while isFound == true { isFound = try marks.next { key, _ in take(key) } }
        var count = 0
        for id in ids {
            try transaction.delete(self.main, key: MainKey.unfinished(id).span)
            // Why: no transaction leaves a mark beside its message; a mark that damage has left must not cost the content.
            guard try transaction.value(self.messages, key: messageKey(id).span, { _ in true }) == nil else { continue }
            count += 1
            let cursor = try transaction.cursor(self.contents)
            var isContent = try cursor.seek(numberedKey(id, 0).span) { key, _ in messageID(key) == id }
            while isContent == true {
                try cursor.delete()
                isContent = try cursor.next { key, _ in messageID(key) == id }
            }
        }
        return count
    }

    /// Makes the due index what the recipients say it is; answers how many entries were wrong.
    private func repairDue(_ transaction: borrowing WriteTransaction) throws(LMDBError) -> Int {
        var wanted: [DueKey: DueEntry] = [:]
        let recipients = try transaction.cursor(self.recipients)
        var isFound: Bool? = true
        while isFound == true {
            isFound = try recipients.next { key, value in
                if let place = recipientKey(key),
                    let record = try? RecipientRecord(number: place.number, octets: Array(copying: value)),
                    let due = record.due
                {
                    let key = DueKey(time: due, recipient: place)
                    wanted[key] = DueEntry(key: key, destination: record.destination, flow: record.flow)
                }
                return true
            }
        }
        var stray: [[UInt8]] = []
        let dues = try transaction.cursor(self.dues)
        isFound = true
        while isFound == true {
            isFound = try dues.next { key, value in
                if let place = dueKey(key), let entry = try? DueEntry(key: place, value: value), wanted[place] == entry
                {
                    wanted[place] = nil
                } else {
                    stray.append(Array(copying: key))
                }
                return true
            }
        }
        for key in stray { try transaction.delete(self.dues, key: key.span) }
        for (key, entry) in wanted {
            var value: [UInt8] = []
            value.append(dueTo: entry.destination, entry.flow)
            try transaction.put(self.dues, key: dueKey(key).span, value: value.span)
        }
        return stray.count + wanted.count
    }
}
