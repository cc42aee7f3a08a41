// SPDX-License-Identifier: Apache-2.0
//
// Messages on their way into the queue, from their first frame to the operation that accepts them.

import LMDBQueueStore
import MailTypes
import PipeCore
import QueueCore
import Unix

extension QueueManager {
    /// A message begins to arrive.
    func begin(_ submission: Submission) {
        // What is the queue's already comes on: the delivery that it settles is waited for.
        if submission.reported == nil {
            if self.isStopping {
                self.refuse(submission, Refusals.stopping)
            } else if !self.checkRoom(for: Self.messageOctetCountMin) {
                self.refuse(submission, self.isBroken ? Refusals.broken : Refusals.full)
            } else if submission.mail.declaredSize > self.settings.messageOctetCountMax {
                self.refuse(submission, Refusals.tooLarge)
            }
        }
    }

    func add(
        _ path: ForwardPath, as meaning: PathMeaning = .address, _ dsn: RecipientDSN, to submission: Submission
    ) {
        guard !submission.isEnded else { return }
        guard submission.recipients.count < self.settings.recipientCountMax else {
            return self.refuse(submission, Refusals.tooManyRecipients)
        }
        let place = submission.add(path, dsn)
        self.lookup.resolve(path, meaning) { resolution in
            guard !submission.isEnded else { return }
            submission.resolved(place, resolution)
            if submission.commit != nil { self.commitAsked(submission) }
        }
    }

    /// Content has come, so many octets; a large message goes on to the store.
    func contentArrived(_ submission: Submission, _ octetCount: Int) {
        guard !submission.isEnded else { return }
        // The reserve is for what is the queue's already, as mail is that goes on to others.
        guard self.checkRoom(for: octetCount, isForward: submission.reported != nil) else {
            return self.refuse(submission, self.isBroken ? Refusals.broken : Refusals.full)
        }
        // Why a forward may be larger: it was measured when it came in, and the fields in front have come since.
        guard submission.isForward || submission.octetCount <= self.settings.messageOctetCountMax else {
            return self.refuse(submission, Refusals.tooLarge)
        }
        guard !self.memory.isFull else { return self.refuse(submission, Refusals.crowded) }
        let least = self.memory.isCrowded ? self.store.contentChunkOctetCount : Self.spillOctetCount
        guard submission.content.count >= least else { return }
        let id = submission.id ?? self.numbering.next(now: WallClock.now())
        submission.id = id
        self.arriving.insert(id)
        let (offset, octets) = submission.takeChunks(of: self.store.contentChunkOctetCount)
        self.committer.add(
            .spill(id, offset: offset, octets: octets), .spilled(submission, octetCount: octets.count))
    }

    /// The submitter wants the message accepted; begins once all routes are known.
    func commitAsked(_ submission: Submission) {
        guard !submission.isEnded, let commit = submission.commit, submission.pendingCount == 0 else { return }
        guard commit.octetCount == submission.octetCount else {
            return self.refuse(submission, Refusals.miscounted)
        }
        let now = WallClock.now()
        let records: [RecipientRecord]
        let priority = self.settings.priority(of: submission.mail)
        switch submission.verdict(
            recipientCountMax: self.settings.recipientCountMax, priority: priority, now: now)
        {
        case .refused(let refusal): return self.refuse(submission, refusal)
        case .accepted(let accepted): records = accepted
        }
        let id = submission.id ?? self.numbering.next(now: now)
        submission.id = id
        self.arriving.insert(id)
        var prefix: [UInt8] = []
        if !commit.prefix.isEmpty || !commit.suffix.isEmpty {
            prefix.reserveCapacity(commit.prefix.count + 13 + commit.suffix.count)
            prefix += commit.prefix
            prefix += id.octets
            prefix += commit.suffix
        }
        let offset = submission.spilledCount
        let message = NewMessage(
            record: MessageRecord(
                id: id, reversePath: submission.mail.reversePath, bodyType: submission.mail.bodyType, arrival: now,
                expiry: now.advanced(by: self.settings.lifetime), prefix: prefix,
                contentOctetCount: submission.octetCount, trace: submission.mail.trace, dsn: submission.mail.dsn,
                unicode: submission.mail.unicode.with(unicodeHeader: commit.hasUnicodeHeader),
                verp: submission.verp ?? (self.settings.isVERP(submission.mail) ? .plus : nil)),
            recipients: records, content: submission.takeRest(), contentOffset: offset)
        if submission.isForward {
            // It is committed with the delivery that it stands for, when all of its copies are there.
            submission.home?.submission(submission, ready: message)
            return
        }
        submission.isCommitting = true
        if let delivery = submission.reported {
            self.reports[delivery] = (submission, message)
            self.tell(.reportReceived(delivery))
        } else {
            self.committer.add(.accept(message), .accepted(submission, message))
        }
    }

    func exchange(_ settlement: Settlement) {
        guard let (submission, message) = self.reports.removeValue(forKey: settlement.delivery) else {
            // The scheduler only asks for what was reported; without the report nothing may be settled.
            return self.broke("an exchange without a report")
        }
        self.committer.add(
            .exchange([message], for: settlement.message, settlement.changes),
            .exchanged(submission, message, settlement))
    }

    /// Refuses a message, and removes what has been written of it.
    func refuse(_ submission: Submission, _ refusal: Refusal) {
        guard !submission.isEnded else { return }
        QueueLog.refused(submission, refusal)
        self.counters.refused += 1
        self.discard(submission)
        submission.home?.submission(submission, refused: refusal)
    }

    /// The submitter has gone or thought better of it.
    func abandon(_ submission: Submission) {
        guard !submission.isEnded else { return }
        self.discard(submission)
    }

    private func discard(_ submission: Submission) {
        submission.end()
        // Why: its operations that wait must not follow the one that is given up; one that is being written is accepted,
        // whoever has gone meanwhile; and a report that is complete is exchanged, because the scheduler counts on it.
        if submission.isCommitting, submission.reported != nil { return }
        guard self.committer.withdraw(submission) else { return }
        self.removeContent(submission)
    }

    /// Removes what has been written of a message that does not come.
    func removeContent(_ submission: Submission) {
        guard let id = submission.id else { return }
        self.arriving.remove(id)
        guard submission.spilledCount > 0 else { return }
        self.committer.add(.discard(id), .nothing)
    }
}
