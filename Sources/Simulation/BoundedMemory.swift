// SPDX-License-Identifier: Apache-2.0

import MailTypes
package import QueueCore

/// The scheduler never holds more of the queue in memory than its window and one page of the index.
package struct BoundedMemory: Checker {
    package init() {}

    package func faults(
        _ ledger: Ledger, _ store: MemoryQueueStore, isAtRest: Bool
    ) throws(StoreFault) -> [String] {
        guard let limits = ledger.limits else { return [] }
        var faults: [String] = []
        // Why a page more: mail that has expired is taken in to be failed even where there is no room.
        let recipientCountMax = limits.recipientCountMax + limits.pageEntryCount
        if ledger.peaks.recipientCount > recipientCountMax {
            faults.append("\(ledger.peaks.recipientCount) recipients in memory, at most \(recipientCountMax) may be")
        }
        return faults
    }
}
