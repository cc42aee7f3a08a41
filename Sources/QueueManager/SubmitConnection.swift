// SPDX-License-Identifier: Apache-2.0

import MailTypes
import NIOCore
import PipeCore
import PipeDrivers
import Unix

/// One program that hands in mail, with all its channels (pipes.md §2).
final class SubmitConnection: LinkReceiver, SubmissionHome {
    private unowned let manager: QueueManager
    private var link: Link?
    private var submissions: [UInt32: Submission] = [:]
    /// Whether the other side has ended its output and waits for answers.
    private var isInputEnded = false

    /// Messages that one program may be handing in at once.
    private static let submissionCountMax = 20_000

    init(_ ends: LinkEnds, _ manager: QueueManager) {
        self.manager = manager
        self.link = Link(
            ends, program: "apus-queue", capacity: UInt32(Self.submissionCountMax),
            unreadOctetCountMax: Link.unreadAnswerOctetCountMax,
            // A program of apusd that ends its output is gone: nobody would hear the answer, and so it must not happen.
            answersBehindInput: !manager.program.isSupervised, receiver: self, on: manager.eventLoop)
    }

    /// Whether a message is arriving or being committed.
    var isBusy: Bool { !self.submissions.isEmpty }

    func close() { self.link?.close() }

    func refuseAll(_ refusal: Refusal) {
        for channel in self.submissions.keys.sorted() {
            if let submission = self.submissions[channel] { self.answer(.refused(refusal), submission) }
        }
    }

    func linkOpened(_ link: Link, hello: Hello) {}

    func linkReceived(_ frame: Frame, from link: Link) {
        do throws(FrameFault) {
            try self.take(try SubmitRequest(frame), frame.channel)
        } catch {
            link.close(because: error)
        }
    }

    private func take(_ request: SubmitRequest, _ channel: UInt32) throws(FrameFault) {
        let submission = self.submissions[channel]
        switch request {
        case .mail(let mail):
            guard submission == nil, channel != 0, self.submissions.count < Self.submissionCountMax else {
                throw FrameFault(.outOfPlace, .mail)
            }
            let new = Submission(
                channel: channel, mail: mail, reported: nil, credit: FrameLimits.creditOctetCount,
                memory: self.manager.memory, home: self)
            self.submissions[channel] = new
            self.manager.begin(new)
        case .rcpt(let path, let dsn):
            guard let submission else { return }
            guard submission.commit == nil else { throw FrameFault(.outOfPlace, .rcpt) }
            self.manager.add(path, dsn, to: submission)
        case .data(let octets):
            guard let submission else { return }
            guard submission.commit == nil, !submission.recipients.isEmpty else { throw FrameFault(.outOfPlace, .data) }
            try submission.append(octets)
            self.manager.contentArrived(submission, octets.count)
        case .commit(let commit):
            guard let submission else { return }
            guard submission.commit == nil, !submission.recipients.isEmpty else {
                throw FrameFault(.outOfPlace, .commit)
            }
            submission.commit = commit
            self.manager.commitAsked(submission)
        case .abort:
            guard let submission else { return }
            self.submissions[channel] = nil
            self.manager.abandon(submission)
        }
    }

    /// By hand, what was asked for is answered behind the end of the input (pipes.md §1).
    func linkInputEnded(_ link: Link) -> Bool {
        for (channel, submission) in self.submissions where submission.commit == nil {
            self.submissions[channel] = nil
            self.manager.abandon(submission)
        }
        self.isInputEnded = true
        return self.isBusy
    }

    func linkClosed(_ link: Link) {
        for submission in self.submissions.values { self.manager.abandon(submission) }
        self.submissions = [:]
        self.link = nil
        self.manager.closed(self)
    }

    // MARK: - Answers

    func submission(_ submission: Submission, queued id: MessageID) {
        self.answer(.queued(id), submission)
    }

    func submission(_ submission: Submission, refused refusal: Refusal) {
        self.answer(.refused(refusal), submission)
    }

    func submission(_ submission: Submission, granted octetCount: Int) {
        submission.grant(octetCount)
        self.link?.send { SubmitAnswer.more(UInt64(octetCount)).append(to: &$0, channel: submission.channel) }
    }

    private func answer(_ answer: SubmitAnswer, _ submission: Submission) {
        guard self.submissions[submission.channel] === submission else { return }
        self.submissions[submission.channel] = nil
        self.link?.send { answer.append(to: &$0, channel: submission.channel) }
        if self.isInputEnded, !self.isBusy { self.link?.close() }
    }
}
