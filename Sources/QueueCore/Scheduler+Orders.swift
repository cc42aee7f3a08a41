// SPDX-License-Identifier: Apache-2.0
//
// The operator's verbs. The store changes the records on disk; here memory is made to follow. Recipients whose delivery
// is under way cannot be changed now: they are when it has ended.

import MailTypes

extension Scheduler {
    mutating func obey(_ given: OperatorOrder, _ routes: [Route], _ now: Timestamp, _ actions: inout [Action]) {
        var order = given
        let message = order.message
        self.allowProbe(routes, now)
        var pending = self.operating[message] ?? PendingOrder(floor: now)
        pending.count += 1
        // Why: the clock may have been set back since the order before.
        pending.floor = min(pending.floor, now)
        self.operating[message] = pending
        for recipient in self.messages[message]?.recipients ?? [] where order.means(recipient.record.number) {
            switch recipient.phase {
            case .waiting:
                if let due = recipient.record.due {
                    let floor = self.operating[message]?.floor ?? now
                    self.operating[message]?.floor = min(floor, due)
                }
                self.drop(recipient.record.number, of: message)
            case .inFlight:
                order.except.insert(recipient.record.number)
                if let index = self.messages[message]?.recipients.index(of: recipient.record.number) {
                    self.messages[message]?.update(index) { $0.verb = order.verb }
                }
            case .settling:
                // Its change stands before this order in the store, and the order applies to what comes of it.
                break
            }
        }
        actions.append(.operate(order))
    }

    /// An operator who flushes wants an attempt now, whatever is known of the destination.
    private mutating func allowProbe(_ routes: [Route], _ now: Timestamp) {
        for route in routes {
            guard let place = self.places[route], let suspension = self.destinations[place]?.suspension,
                suspension.suspendedUntil > now
            else { continue }
            self.destinations[place]?.suspension?.suspendedUntil = now
        }
    }

    /// The order is on stable storage: what memory has of the message is read anew.
    mutating func concludeOrder(_ message: MessageID, _ now: Timestamp) {
        guard var order = self.operating[message] else { return }
        order.count -= 1
        guard order.count == 0 else {
            self.operating[message] = order
            return
        }
        self.operating[message] = nil
        for recipient in self.messages[message]?.recipients ?? [] where recipient.phase == .waiting {
            if let due = recipient.record.due { order.floor = min(order.floor, due) }
            self.drop(recipient.record.number, of: message)
        }
        self.noteDue(order.floor)
    }
}
