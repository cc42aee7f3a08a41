// SPDX-License-Identifier: Apache-2.0

import MailTypes
package import QueueCore

/// What is delivered or reported was handed in, is delivered once unless a crash or a lost agent cut it off, and is
/// reported at most once and only if it failed.
package struct NothingInvented: Checker {
    package init() {}

    package func faults(
        _ ledger: Ledger, _ store: MemoryQueueStore, isAtRest: Bool
    ) throws(StoreFault) -> [String] {
        var faults: [String] = []
        for (key, count) in ledger.deliveryCounts.sorted(by: { $0.key < $1.key }) {
            let name = "\(key.message.text)/\(key.number)"
            if !ledger.offered.contains(key) { faults.append("\(name) was delivered and never handed in") }
            if count > 1, !ledger.cutOff.contains(key) { faults.append("\(name) was delivered \(count) times") }
        }
        for (key, count) in ledger.reportCounts.sorted(by: { $0.key < $1.key }) {
            let name = "\(key.message.text)/\(key.number)"
            if !ledger.failed.contains(key) { faults.append("\(name) was reported and had not failed") }
            if count > 1 { faults.append("\(name) was reported \(count) times") }
            if ledger.reports.contains(key.message) { faults.append("\(name) is a report about a report") }
        }
        return faults
    }
}
