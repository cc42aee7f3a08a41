// SPDX-License-Identifier: Apache-2.0

import MailTypes
package import QueueCore

/// What is on the disk is a row of the table of states: a message has its content and at least one recipient, no route is
/// the bounce agent's, and exactly the recipients that are not held are in the due index, where they lead to.
package struct StatesLegal: Checker {
    package init() {}

    package func faults(
        _ ledger: Ledger, _ store: MemoryQueueStore, isAtRest: Bool
    ) throws(StoreFault) -> [String] {
        var faults: [String] = []
        var entries: [DueKey: Route] = [:]
        for entry in try store.due(after: nil, through: Timestamp(microseconds: .max), limit: .max).entries {
            entries[entry.key] = entry.destination
        }
        for message in try store.messages(after: nil, limit: .max) {
            let id = message.record.id
            if message.recipients.isEmpty { faults.append("\(id.text) has no recipients") }
            if try store.content(id, offset: 0, count: .max).map({ UInt64($0.count) }) != message.record.octetCount {
                faults.append("\(id.text) has not its content")
            }
            for recipient in message.recipients {
                let name = "\(id.text)/\(recipient.number)"
                if recipient.route == .bounce { faults.append("\(name) has the bounce agent's route") }
                guard let due = recipient.due else { continue }
                let key = DueKey(time: due, recipient: RecipientKey(message: id, number: recipient.number))
                if entries.removeValue(forKey: key) != recipient.destination {
                    faults.append("\(name) is not in the due index as it should be")
                }
            }
        }
        if !entries.isEmpty { faults.append("\(entries.count) due entries belong to nobody") }
        return faults
    }
}
