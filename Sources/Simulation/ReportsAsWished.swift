// SPDX-License-Identifier: Apache-2.0

import MailTypes
package import QueueCore

/// Nobody hears of what he did not want to hear, of a delay or a success nobody hears twice, and at rest everybody has
/// heard of the successes that he wanted to hear of, unless the report found no way into the queue for too long.
package struct ReportsAsWished: Checker {
    package init() {}

    package func faults(
        _ ledger: Ledger, _ store: MemoryQueueStore, isAtRest: Bool
    ) throws(StoreFault) -> [String] {
        var faults: [String] = []
        func wants(_ key: RecipientKey, _ condition: NotifyConditions) -> Bool {
            ledger.wishes[key]?.wants(condition) ?? true
        }
        for key in ledger.reportCounts.keys.sorted() where !wants(key, .failure) {
            faults.append("\(key.message.text)/\(key.number): a failure was reported, which was not wanted")
        }
        for (action, counts) in ledger.otherReportCounts.sorted(by: { $0.key.rawValue < $1.key.rawValue }) {
            let condition: NotifyConditions = action == .delayed ? .delay : .success
            for (key, count) in counts.sorted(by: { $0.key < $1.key }) {
                let name = "\(key.message.text)/\(key.number)"
                if count > 1 { faults.append("\(name) was reported as \(action.word) \(count) times") }
                if !wants(key, condition) { faults.append("\(name): \(action.word) was reported, and was not wanted") }
                if ledger.reports.contains(key.message) { faults.append("\(name) is a report about a report") }
            }
        }
        guard isAtRest else { return faults }
        for key in ledger.succeeded.sorted() where wants(key, .success) && !ledger.reports.contains(key.message) {
            let isReported = [ReportAction.delivered, .relayed, .expanded].contains {
                ledger.otherReportCounts[$0]?[key] != nil
            }
            let isQueued = try store.message(key.message)?.recipients.contains { $0.number == key.number } ?? false
            if !isReported, !isQueued, !ledger.removed.contains(key), !ledger.dropped.contains(key) {
                faults.append("\(key.message.text)/\(key.number) was delivered, and nobody was told")
            }
        }
        return faults
    }
}
