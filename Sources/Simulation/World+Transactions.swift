// SPDX-License-Identifier: Apache-2.0
//
// How the world writes: what is one transaction, and what can go wrong with it.

import MailTypes
import QueueCore

extension World {
    // MARK: - Transactions

    mutating func commit() throws(StoreFault) {
        guard !self.pending.isEmpty, !self.point() else { return }
        let count = Int.random(in: 1...self.pending.count, using: &self.random)
        let batch = Array(self.pending.prefix(count))
        self.pending.removeFirst(count)
        self.commitCount += 1
        if self.isFull() { return try self.refuse(batch) }
        let isBroken = !self.isHealed && self.chance(self.rules.commitErrorWeight)
        let isSkipped =
            self.commitCount == self.rules.skippedCommit
            || self.rules.canary == .skippedCommit && self.commitCount.isMultiple(of: 25)
        if isBroken, self.chance(50) {
            // The disk does not have it; the process cannot know, and ends.
            self.note("commit error, without effect")
            return self.crash()
        }
        if !isSkipped { _ = try self.store.commit(batch.map(\.operation)) }
        if self.rules.canary == .lostDueEntry, self.commitCount.isMultiple(of: 25) { try self.loseDueEntry() }
        self.note("commit \(count)\(isSkipped ? " skipped" : "")")
        for (_, completion) in batch { self.record(completion) }
        if isBroken {
            self.note("commit error, and the disk has it")
            return self.crash()
        }
        // A crash here: the disk has it, and nobody was told.
        guard !self.point() else { return }
        for (_, completion) in batch where !self.hasCrashed { try self.complete(completion) }
    }

    private mutating func isFull() -> Bool {
        guard !self.isHealed else { return false }
        if self.fullCommitCount == 0, self.chance(self.rules.storeFullWeight) {
            self.fullCommitCount = Int.random(in: 1...12, using: &self.random)
        }
        guard self.fullCommitCount > 0 else { return false }
        self.fullCommitCount -= 1
        return true
    }

    private func loseDueEntry() throws(StoreFault) {
        let page = try self.store.due(after: nil, through: Timestamp(microseconds: .max), limit: 1)
        _ = try self.store.commit(page.entries.map { .quarantine($0.key) })
    }

    /// No room: new mail is refused, the rest tried again.
    mutating func refuse(_ batch: [(operation: StoreOperation, completion: Completion)]) throws(StoreFault) {
        self.note("full")
        let kept = batch.filter { entry in
            if case .accept = entry.operation { return false }
            return true
        }
        self.pending.insert(contentsOf: kept, at: 0)
    }

    /// What is now true on the disk.
    mutating func record(_ completion: Completion) {
        switch completion {
        case .nothing, .moved: break
        case .accepted(let message): self.offer(message)
        case .settled(let settlement):
            for change in settlement.changes {
                self.unsettled.remove(RecipientKey(message: settlement.message, number: change.number))
            }
            self.record(settlement.endings)
        case .halfExchanged(let report, let settlement), .exchanged(let report, let settlement):
            for ending in settlement.endings {
                let key = RecipientKey(message: settlement.message, number: ending.recipient.number)
                self.unsettled.remove(key)
                self.ledger.noteReport(ending.recipient.owedReport, of: key)
            }
            // What the operator wanted meanwhile may have been done to a recipient whose delay was reported.
            self.record(settlement.endings)
            self.offer(report)
            for recipient in report.recipients {
                self.ledger.acknowledged.insert(RecipientKey(message: report.record.id, number: recipient.number))
            }
        case .forwarded(let forwards, let settlement):
            self.record(.settled(settlement))
            for forward in forwards { self.record(forward) }
        case .halfForwarded(let forward): self.record(forward)
        case .operated(_, let verb, let keys):
            if verb == .remove { self.ledger.removed.formUnion(keys) }
            if verb == .bounce { self.noteReturned(keys) }
        }
    }

    /// The operator has returned recipients; their senders hear of it if they want to.
    mutating func noteReturned(_ keys: [RecipientKey]) {
        for key in keys {
            if self.ledger.wishes[key]?.wants(.failure) ?? true {
                self.ledger.failed.insert(key)
            } else {
                self.ledger.unreported.insert(key)
            }
        }
    }

    mutating func record(_ endings: [RecipientEnding]) {
        for ending in endings {
            let key = RecipientKey(message: ending.message, number: ending.recipient.number)
            switch ending.status {
            case .failed, .expired: self.ledger.failed.insert(key)
            case .dropped: self.ledger.dropped.insert(key)
            case .removed: self.ledger.removed.insert(key)
            case .unreported: self.ledger.unreported.insert(key)
            case .delivered:
                let isPassedOn = ending.outcome?.hasPassedOnDSN == true && ending.recipient.route.agentKind == .remote
                // With one address the wish has gone on as well.
                if !isPassedOn, ending.outcome?.forwarding != .one { self.ledger.succeeded.insert(key) }
            case .deferred, .reported, .warned: break
            }
        }
    }

    mutating func complete(_ completion: Completion) throws(StoreFault) {
        switch completion {
        case .nothing: break
        case .accepted(let message):
            for recipient in message.recipients {
                self.ledger.acknowledged.insert(RecipientKey(message: message.record.id, number: recipient.number))
            }
            try self.tell(.accepted(message.record, message.recipients))
        case .settled(let settlement): try self.tell(.settled(settlement.delivery))
        case .halfExchanged(let report, _): try self.tell(.accepted(report.record, report.recipients))
        case .exchanged(let report, let settlement):
            try self.tell(.settled(settlement.delivery))
            if !self.hasCrashed { try self.tell(.accepted(report.record, report.recipients)) }
        case .forwarded(let forwards, let settlement):
            try self.tell(.settled(settlement.delivery))
            for forward in forwards where !self.hasCrashed {
                try self.tell(.accepted(forward.message.record, forward.message.recipients))
            }
        case .halfForwarded(let forward):
            try self.tell(.accepted(forward.message.record, forward.message.recipients))
        case .moved(let moves): try self.tell(.moved(moves))
        case .operated(let id, _, _): try self.tell(.orderCommitted(id))
        }
    }
}
