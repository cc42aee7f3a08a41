// SPDX-License-Identifier: Apache-2.0

import MailTypes
package import QueueCore

/// Nothing is ever reported about a message without a reverse-path.
package struct NoReportForReport: Checker {
    package init() {}

    package func faults(
        _ ledger: Ledger, _ store: MemoryQueueStore, isAtRest: Bool
    ) throws(StoreFault) -> [String] {
        ledger.reportCounts.keys.sorted().filter { ledger.reports.contains($0.message) }.map {
            "\($0.message.text)/\($0.number) is a report about a report"
        }
    }
}
