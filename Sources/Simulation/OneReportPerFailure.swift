// SPDX-License-Identifier: Apache-2.0

import MailTypes
package import QueueCore

/// A failed recipient is reported at most once, and at rest exactly once unless it is held, was delivered all the same, was
/// removed by the operator, or has no sender to tell.
package struct OneReportPerFailure: Checker {
    package init() {}

    package func faults(
        _ ledger: Ledger, _ store: MemoryQueueStore, isAtRest: Bool
    ) throws(StoreFault) -> [String] {
        var faults: [String] = []
        for (key, count) in ledger.reportCounts.sorted(by: { $0.key < $1.key }) where count > 1 {
            faults.append("\(key.message.text)/\(key.number) was reported \(count) times")
        }
        guard isAtRest else { return faults }
        for key in ledger.failed.sorted() where ledger.reportCounts[key] == nil {
            let isEnded =
                ledger.hasArrived(key) || ledger.removed.contains(key) || ledger.dropped.contains(key)
            let isQueued = try store.message(key.message)?.recipients.contains { $0.number == key.number } ?? false
            if !isEnded, !isQueued { faults.append("\(key.message.text)/\(key.number) failed and was not reported") }
        }
        return faults
    }
}
