// SPDX-License-Identifier: Apache-2.0
//
// Mail of local recipients that goes on to others: each copy is a message of its own, in the transaction that settles the
// recipient whose it was.

import MailTypes
import QueueCore

extension World {
    /// A message that goes on, and whose it was.
    struct Forward {
        let key: RecipientKey
        let message: NewMessage
    }

    /// Makes the copies for recipients of local mail who have wished that it goes on; not every one of a delivery need.
    mutating func beginForwards(_ order: DeliveryOrder) {
        guard order.route.agentKind == .local, self.chance(self.rules.forwardWeight) else { return }
        let recipients = order.recipients.filter { _ in self.chance(70) }
        guard !recipients.isEmpty else { return }
        self.forwards[order.id] = recipients.map { recipient in
            let copy = self.makeMessage(
                reversePath: order.message.reversePath, recipientCount: Int.random(in: 1...2, using: &self.random),
                domain: Int.random(in: 0...5, using: &self.random))
            return Forward(key: RecipientKey(message: order.message.id, number: recipient.number), message: copy)
        }
    }

    /// What the agent says of a recipient whose mail goes on; nil if it does not.
    func forwarded(_ recipient: RecipientRecord, of order: DeliveryOrder) -> DeliveryOutcome? {
        guard let forward = self.forwards[order.id]?.first(where: { $0.key.number == recipient.number }) else {
            return nil
        }
        var outcome = Samples.delivery
        outcome.forwarding = forward.message.recipients.count == 1 ? .one : .several
        return outcome
    }

    /// What the transaction of a settlement with forwards consists of.
    mutating func write(_ forwards: [Forward], _ settlement: Settlement) {
        guard self.rules.canary != .halvedForward else {
            for forward in forwards { self.pending.append((.accept(forward.message), .halfForwarded(forward))) }
            self.pending.append((.settle(settlement.message, settlement.changes), .settled(settlement)))
            return
        }
        self.pending.append(
            (
                .exchange(forwards.map(\.message), for: settlement.message, settlement.changes),
                .forwarded(forwards, settlement)
            ))
    }

    /// A copy is on the disk.
    mutating func record(_ forward: Forward) {
        self.ledger.forwardCounts[forward.key, default: 0] += 1
        self.offer(forward.message)
        for recipient in forward.message.recipients {
            self.ledger.acknowledged.insert(RecipientKey(message: forward.message.record.id, number: recipient.number))
        }
    }
}
