// SPDX-License-Identifier: Apache-2.0

import MailTypes
package import QueueCore

/// What is delivered was handed in, and what is reported was handed in and failed.
package struct NothingInvented: Checker {
    package init() {}

    package func faults(
        _ ledger: Ledger, _ store: MemoryQueueStore, isAtRest: Bool
    ) throws(StoreFault) -> [String] {
        var faults: [String] = []
        for key in ledger.deliveryCounts.keys.sorted() where !ledger.offered.contains(key) {
            faults.append("\(key.message.text)/\(key.number) was delivered and never handed in")
        }
        for key in ledger.reportCounts.keys.sorted() {
            let name = "\(key.message.text)/\(key.number)"
            if !ledger.offered.contains(key) { faults.append("\(name) was reported and never handed in") }
            if !ledger.failed.contains(key) { faults.append("\(name) was reported and had not failed") }
        }
        return faults
    }
}
