// SPDX-License-Identifier: Apache-2.0
//
// Mail that goes on to others (pipes.md §3, "Forwarding"): each recipient who has it so becomes a message of its own,
// with the content that is in the queue already and one more Delivered-To: field, in the same transaction in which the
// recipient is settled. A crash neither loses nor doubles it.

import MailTypes
import PipeCore
import QueueCore

/// The forwards of one delivery: from its `done` until the scheduler settles it.
final class Forwarding: SubmissionHome {
    /// What an agent wants for one recipient.
    struct Wish {
        let recipient: RecipientRecord
        let reversePath: ReversePath
        /// Whether each copy has a reverse-path of its own.
        let isVERP: Bool
        var paths: [(path: ForwardPath, meaning: PathMeaning)] = []
        /// What the agent says of the recipient, to be told when the copies are complete.
        var outcome: DeliveryOutcome?

        /// What the sender wishes about reports, as the mail takes it along: with the address that he wrote to, which nobody
        /// could tell from the new ones (RFC 3461 §5.2.7.1).
        var dsn: RecipientDSN {
            var dsn = self.paths.count > 1 ? self.recipient.dsn.ofExpansion : self.recipient.dsn
            if dsn.originalRecipient.isEmpty {
                let path = self.recipient.originalPath ?? self.recipient.forwardPath
                dsn.originalRecipient = RecipientDSN.originalRecipient(of: path)
            }
            return dsn
        }
    }

    private struct Copy {
        let wish: Wish
        let outcome: DeliveryOutcome
        let submission: Submission
        /// How much of the content it has.
        var offset: UInt64 = 0
        var message: NewMessage?
    }

    private let delivery: DeliveryID
    private let source: MessageRecord
    /// The reverse-path that the agent was told.
    private let reversePath: ReversePath
    private unowned let manager: QueueManager
    private var list: [Copy] = []
    /// Those that have come to nothing.
    private var faults: [(number: UInt32, outcome: DeliveryOutcome)] = []
    private var isEnded = false

    /// So much of the content is handed on at once.
    private static let partOctetCount = 131_072

    init(_ delivery: DeliveryID, _ source: MessageRecord, reversePath: ReversePath, _ manager: QueueManager) {
        self.reversePath = reversePath
        self.delivery = delivery
        self.source = source
        self.manager = manager
    }

    /// Whether it is a list that sends in its own name (RFC 3461 §5.2.7.3): what the sender wishes about reports ends there.
    private func isList(_ wish: Wish) -> Bool { wish.reversePath != self.reversePath }

    /// The messages that are complete, and their submissions.
    var messages: [NewMessage] { self.list.compactMap(\.message) }
    var copies: [(Submission, NewMessage)] {
        self.list.compactMap { copy in copy.message.map { (copy.submission, $0) } }
    }

    private var trace: [UInt8] {
        let isPostmastersReport = MailRequest.isPostmastersReport(self.source.trace)
        return MailRequest.forwarded + self.source.id.octets
            + (isPostmastersReport ? [0x20] + MailRequest.postmastersReport : [])
    }

    /// Begins all copies. The manager is told of the delivery's end when the last one is complete or has failed.
    func begin(_ wishes: [Wish]) {
        for wish in wishes {
            guard let outcome = wish.outcome else { continue }
            // Why no size: it has been taken once, and the field in front may make it larger than the limit by a little.
            // What arrives of it is not measured either.
            let isUnicode = wish.recipient.forwardPath.isInternational
            let mail = MailRequest(
                reversePath: wish.reversePath, bodyType: self.source.bodyType, declaredSize: 0,
                trace: self.trace, dsn: self.isList(wish) ? MessageDSN() : self.source.dsn,
                // The field in front is a part of the header.
                unicode: self.source.unicode.with(unicodeHeader: isUnicode))
            let submission = Submission(
                channel: 0, mail: mail, reported: self.delivery, source: wish.recipient.route,
                verp: wish.isVERP ? .hyphen : nil, credit: Int.max, memory: self.manager.memory,
                home: self)
            self.list.append(Copy(wish: wish, outcome: outcome, submission: submission))
        }
        for submission in self.list.map(\.submission) { self.fill(submission) }
        self.endIfComplete()
    }

    private func fill(_ submission: Submission) {
        guard let place = self.place(of: submission) else { return }
        let wish = self.list[place].wish
        self.manager.begin(submission)
        let dsn = self.isList(wish) ? RecipientDSN() : wish.dsn
        for (path, meaning) in wish.paths { self.manager.add(path, as: meaning, dsn, to: submission) }
        guard !submission.isEnded else { return }
        var line = Array("Delivered-To: ".utf8)
        line += wish.recipient.forwardPath.octets
        line += [0x0D, 0x0A]
        guard (try? submission.append(line[...])) != nil else { return }
        self.goOn(submission)
    }

    /// Hands content on until it is all there, or a part of it is on its way to the store.
    private func goOn(_ submission: Submission) {
        guard let place = self.place(of: submission) else { return }
        while !submission.isEnded, self.list[place].offset < self.source.octetCount {
            let part = self.manager.content(
                self.source.id, offset: self.list[place].offset, octetCount: Self.partOctetCount)
            guard let part, !part.isEmpty, (try? submission.append(part)) != nil else {
                return self.manager.refuse(submission, Refusals.broken)
            }
            self.list[place].offset += UInt64(part.count)
            let before = submission.spilledCount
            self.manager.contentArrived(submission, part.count)
            // It goes on when the store has taken it.
            if submission.spilledCount > before { return }
        }
        guard !submission.isEnded else { return }
        submission.commit = CommitRequest(octetCount: submission.octetCount, prefix: [], suffix: [])
        self.manager.commitAsked(submission)
    }

    private func place(of submission: Submission) -> Int? { self.list.firstIndex { $0.submission === submission } }

    // MARK: SubmissionHome

    func submission(_ submission: Submission, granted octetCount: Int) { self.goOn(submission) }

    func submission(_ submission: Submission, ready message: NewMessage) {
        guard let place = self.place(of: submission) else { return }
        self.list[place].message = message
        self.endIfComplete()
    }

    func submission(_ submission: Submission, refused refusal: Refusal) {
        guard let place = self.place(of: submission) else { return }
        let copy = self.list.remove(at: place)
        var outcome = DeliveryOutcome(
            refusal.code >= 500 ? .failed : .deferred, code: 0, status: refusal.status,
            reporter: Array("apus-queue".utf8), text: refusal.text)
        // It is not the mailbox that is in the way.
        outcome.hasAnswered = outcome.kind == .deferred
        self.faults.append((copy.wish.recipient.number, outcome))
        self.endIfComplete()
    }

    /// In the queue: told by the settlement of the delivery.
    func submission(_ submission: Submission, queued id: MessageID) {}

    private func endIfComplete() {
        guard !self.isEnded, self.list.allSatisfy({ $0.message != nil }) else { return }
        self.isEnded = true
        for copy in self.list { copy.submission.isCommitting = true }
        var outcomes = self.faults
        for copy in self.list {
            var outcome = copy.outcome
            // With one address, the sender's wishes about reports have gone on as well; with several, he hears of the
            // expansion (RFC 3461 §5.2.7). A list's mail is its own, and delivered to the list.
            if !self.isList(copy.wish) { outcome.forwarding = copy.wish.paths.count == 1 ? .one : .several }
            outcomes.append((copy.wish.recipient.number, outcome))
        }
        self.manager.forwarded(self, self.delivery, outcomes)
    }

    /// The agent has gone: the delivery will be asked for again.
    func abandon() {
        guard !self.isEnded else { return }
        self.isEnded = true
        for copy in self.list { self.manager.abandon(copy.submission) }
        self.list = []
    }
}

extension QueueManager {
    /// The reverse-path that the next server is told: that of mail which is not for whom the sender wrote to is rewritten
    /// (SRS), if the settings say so and the sender is not one of ours.
    func rewritten(
        _ reversePath: ReversePath, of message: MessageRecord, to recipients: [RecipientRecord]
    ) -> ReversePath {
        guard let rewriting = self.settings.rewriting, case .address(let address) = reversePath,
            !self.settings.ownDomains.contains(address.domain.lowercasedOctets),
            message.trace.starts(with: MailRequest.forwarded) || recipients.contains(where: { $0.originalPath != nil })
        else { return reversePath }
        return .address(rewriting.rewritten(address, at: message.arrival))
    }

    /// All copies of a delivery are complete, or have come to nothing: it ends as any other.
    func forwarded(
        _ forwarding: Forwarding, _ delivery: DeliveryID, _ outcomes: [(number: UInt32, outcome: DeliveryOutcome)]
    ) {
        if !forwarding.messages.isEmpty { self.forwardings[delivery] = forwarding }
        for (number, outcome) in outcomes { self.tell(.outcomeReceived(delivery, number: number, outcome)) }
        self.tell(.doneReceived(delivery))
    }
}
