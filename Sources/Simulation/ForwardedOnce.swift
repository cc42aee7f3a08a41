// SPDX-License-Identifier: Apache-2.0

import MailTypes
package import QueueCore

/// A recipient's mail that goes on to others goes on once, whatever crashes.
package struct ForwardedOnce: Checker {
    package init() {}

    package func faults(
        _ ledger: Ledger, _ store: MemoryQueueStore, isAtRest: Bool
    ) throws(StoreFault) -> [String] {
        var faults: [String] = []
        for (key, count) in ledger.forwardCounts.sorted(by: { $0.key < $1.key }) where count > 1 {
            faults.append("\(key.message.text)/\(key.number) was sent on \(count) times")
        }
        return faults
    }
}
