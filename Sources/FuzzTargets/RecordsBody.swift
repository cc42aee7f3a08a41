// SPDX-License-Identifier: Apache-2.0

import LMDBQueueStore
import MailTypes
import QueueCore

/// A disk that has changed a record of the queue.
enum RecordsBody {
    static func run(_ octets: [UInt8]) throws(Breach) {
        if let record = try? MessageRecord(id: MessageID(rawValue: 7), octets: octets) {
            var written: [UInt8] = []
            written.append(record)
            try hold((try? MessageRecord(id: MessageID(rawValue: 7), octets: written)) == record, "a message is lost")
        }
        if let record = try? RecipientRecord(number: 3, octets: octets) {
            var written: [UInt8] = []
            written.append(record)
            try hold((try? RecipientRecord(number: 3, octets: written)) == record, "a recipient is lost")
            try hold(record.route != .bounce, "a recipient of the bounce agent")
        }
        if let record = try? DestinationRecord(octets: octets) {
            var written: [UInt8] = []
            written.append(record)
            try hold((try? DestinationRecord(octets: written)) == record, "a destination is lost")
        }
        let key = DueKey(
            time: Timestamp(microseconds: 9), recipient: RecipientKey(message: MessageID(rawValue: 7), number: 3))
        if let entry = try? DueEntry(key: key, value: octets.span) {
            var written: [UInt8] = []
            written.append(dueTo: entry.destination, entry.flow)
            try hold((try? DueEntry(key: key, value: written.span)) == entry, "a due entry is lost")
        }
    }
}
