// SPDX-License-Identifier: Apache-2.0

import MailTypes
package import QueueCore

/// No more deliveries are under way to one destination, at one agent or in all, and no more recipients in one of them, than
/// the limits allow, and no recipient is with two agents at once.
package struct WindowRespected: Checker {
    package init() {}

    package func faults(
        _ ledger: Ledger, _ store: MemoryQueueStore, isAtRest: Bool
    ) throws(StoreFault) -> [String] {
        guard let limits = ledger.limits else { return [] }
        var faults: [String] = []
        func hold(_ count: Int, _ limit: Int, _ what: String) {
            if count > limit { faults.append("\(count) \(what), \(limit) are allowed") }
        }
        hold(ledger.peaks.deliveryCount, limits.deliveryCountMax, "deliveries at once")
        for (route, count) in ledger.destinationPeaks.sorted(by: {
            $0.key.octets.lexicographicallyPrecedes($1.key.octets)
        }) {
            let limit = limits.terms(of: route).deliveryCountMax ?? limits.destinationDeliveryCountMax
            hold(count, limit, "deliveries to \(route.octets.printableText)")
        }
        hold(ledger.peaks.agentDeliveryCount, ledger.agentCapacity, "deliveries at one agent")
        hold(ledger.peaks.deliveryRecipientCount, limits.recipientCountPerDeliveryMax, "recipients in one delivery")
        for key in ledger.doubled.sorted() {
            faults.append("\(key.message.text)/\(key.number) was with two agents at once")
        }
        return faults
    }
}
