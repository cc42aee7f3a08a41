// SPDX-License-Identifier: Apache-2.0
//
// What follows a transaction: answers, log lines, and what the scheduler makes of it. Nothing here runs before the sync.

import MailTypes
import NIOCore
import QueueCore
import Unix

extension QueueManager: CommitterOwner {
    func committed(_ completions: [Completion], _ report: CommitReport) {
        for record in report.undecodable { QueueLog.undecodable(record) }
        if report.strayCount > 0 { QueueLog.note("stray-changes", "\(report.strayCount)") }
        var operated = report.operated[...]
        let now = WallClock.now()
        self.isPerforming = true
        for completion in completions {
            switch completion {
            case .nothing: break
            case .accepted(let submission, let message): self.accepted(submission, message, now)
            case .spilled(let submission, let octetCount):
                submission.stored(octetCount)
                if !submission.isEnded { submission.home?.submission(submission, granted: octetCount) }
            case .settled(let settlement): self.settled(settlement, now, report: nil)
            case .exchanged(let submission, let message, let settlement):
                self.settled(settlement, now, report: message.record.id)
                self.accepted(submission, message, now)
            case .forwarded(let copies, let settlement):
                self.settled(settlement, now, report: nil)
                for (submission, message) in copies { self.accepted(submission, message, now) }
            case .moved(let moves): self.scheduler.receive(.moved(moves), at: now, into: &self.actions)
            case .operated(let message):
                let numbers = operated.popFirst() ?? []
                self.scheduler.receive(.orderCommitted(message), at: now, into: &self.actions)
                self.ordered(message, numbers)
            case .told(let listener): listener.committed()
            }
        }
        self.isPerforming = false
        self.perform()
    }

    private func accepted(_ submission: Submission, _ message: NewMessage, _ now: Timestamp) {
        self.counters.accepted += 1
        self.arriving.remove(message.record.id)
        QueueLog.queued(message, delay: now.elapsed(since: message.record.arrival))
        // The acceptance is complete; from here on it only remains to be told.
        if !submission.isEnded { submission.home?.submission(submission, queued: message.record.id) }
        submission.end()
        if message.contentOffset == 0 {
            self.cache.insert(message.record.id, prefix: message.record.prefix, content: message.content)
        }
        self.scheduler.receive(.accepted(message.record, message.recipients), at: now, into: &self.actions)
    }

    private func settled(_ settlement: Settlement, _ now: Timestamp, report: MessageID?) {
        for ending in settlement.endings {
            self.counters.count(ending.status)
            QueueLog.ending(ending, report: report)
        }
        if report == nil {
            for agent in self.agents.values { agent.noted(settlement) }
        }
        self.scheduler.receive(.settled(settlement.delivery), at: now, into: &self.actions)
        if !self.scheduler.holds(settlement.message) { self.cache.remove(settlement.message) }
    }

    private func ordered(_ message: MessageID, _ numbers: [UInt32]) {
        guard var waiting = self.orders[message], !waiting.isEmpty else { return }
        let done = waiting.removeFirst()
        self.orders[message] = waiting.isEmpty ? nil : waiting
        done(numbers)
    }

    func refused(_ completions: [Completion], _ reason: String) {
        QueueLog.note("queue-full", reason)
        for completion in completions {
            switch completion {
            case .accepted(let submission, _), .spilled(let submission, _):
                submission.isCommitting = false
                if submission.isEnded { self.removeContent(submission) }
                self.refuse(submission, Refusals.full)
            case .told(let listener): listener.refused(reason)
            case .nothing, .settled, .exchanged, .forwarded, .moved, .operated: break
            }
        }
    }

    func stoodStill(_ stands: Bool) {
        // Deliveries whose outcomes cannot be noted would be done again.
        self.isStandingStill = stands
        self.tell(.pauseSet(self.settings.isPaused || stands))
    }

    func broke(_ reason: String) {
        // Why: after a failed sync nobody knows what is on the disk, and a second sync would claim success. What was
        // not answered is refused by the links closing; a restart reads what is really there.
        guard !self.isBroken else { return }
        self.isBroken = true
        QueueLog.note("queue-broken", reason)
        for submitter in self.submitters.values { submitter.refuseAll(Refusals.broken) }
        self.eventLoop.assumeIsolated().scheduleTask(in: .milliseconds(100)) { ExitStatus.system.exit() }
    }
}
