// SPDX-License-Identifier: Apache-2.0

import MailTypes
package import QueueCore

/// A recipient's mail is delivered once, and once more for each time that a crash or an agent cut its delivery off.
package struct DuplicateOnlyAfterCrash: Checker {
    package init() {}

    package func faults(
        _ ledger: Ledger, _ store: MemoryQueueStore, isAtRest: Bool
    ) throws(StoreFault) -> [String] {
        var faults: [String] = []
        for (key, count) in ledger.deliveryCounts.sorted(by: { $0.key < $1.key }) {
            let cutOffCount = ledger.cutOffCounts[key] ?? 0
            if count > 1 + cutOffCount {
                faults.append(
                    "\(key.message.text)/\(key.number) was delivered \(count) times and cut off \(cutOffCount) times")
            }
        }
        return faults
    }
}
