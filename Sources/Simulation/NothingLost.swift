// SPDX-License-Identifier: Apache-2.0

import MailTypes
package import QueueCore

/// Every acknowledged recipient is queued, delivered, sent on, reported to its sender, not reported as he wished, dropped for want
/// of a sender, or removed by the operator; and at rest nothing is queued that is not held.
package struct NothingLost: Checker {
    package init() {}

    package func faults(
        _ ledger: Ledger, _ store: MemoryQueueStore, isAtRest: Bool
    ) throws(StoreFault) -> [String] {
        var faults: [String] = []
        for key in ledger.acknowledged.sorted() {
            // The word of the queue alone does not count.
            let isEnded =
                ledger.hasArrived(key) || ledger.reportCounts[key] != nil || ledger.isLawfullyEnded(key)
            let record = try store.message(key.message)?.recipients.first { $0.number == key.number }
            if record == nil, !isEnded { faults.append("\(key.message.text)/\(key.number) is lost") }
            if let record, isAtRest, record.due != nil {
                faults.append("\(key.message.text)/\(key.number) is queued and nobody comes for it")
            }
        }
        let counts = try store.counts()
        if isAtRest, counts.scheduled > 0 { faults.append("\(counts.scheduled) entries are due for ever") }
        if isAtRest, store.hasLeftovers { faults.append("content is left without its message") }
        return faults
    }
}
