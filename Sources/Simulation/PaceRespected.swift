// SPDX-License-Identifier: Apache-2.0

import MailTypes
package import QueueCore

/// Two deliveries to a destination for which the administrator has set a pace never begin closer to each other than it says.
package struct PaceRespected: Checker {
    package init() {}

    /// So much may be caught up with, after a timer that came late.
    private static let catchUp = Duration.milliseconds(100)

    package func faults(
        _ ledger: Ledger, _ store: MemoryQueueStore, isAtRest: Bool
    ) throws(StoreFault) -> [String] {
        guard let limits = ledger.limits else { return [] }
        var faults: [String] = []
        for (route, pause) in ledger.shortestPauses {
            guard let interval = limits.terms(of: route).interval, pause < interval - Self.catchUp else { continue }
            faults.append("\(route.octets.printableText): two deliveries begun within \(pause), not \(interval)")
        }
        return faults.sorted()
    }
}
