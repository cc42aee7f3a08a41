// SPDX-License-Identifier: Apache-2.0
//
// The submitting side of the dialect `submit` (pipes.md §2).

import MailTypes
import NIOCore
import PipeCore
import PipeDrivers
import Unix

/// Somebody who submits a message and waits for what becomes of it.
protocol Submitter: AnyObject {
    /// The queue takes so many octets of content more.
    func creditGiven(_ octetCount: UInt64)
    /// The end of the submission.
    func submissionEnded(_ end: SubmissionEnd)
    /// The link takes content again.
    func linkBecameWritable()
}

/// The three ends of a submission.
enum SubmissionEnd {
    case answered(SubmitAnswer)
    /// The link was lost: nothing was accepted.
    case lost
}

/// One message on its way into the queue.
struct Submission {
    let link: Link
    let channel: UInt32
    /// Octets of content that may be sent now.
    var credit = FrameLimits.creditOctetCount
    /// Octets of content that were sent.
    var octetCount: UInt64 = 0
}

/// The link to apus-queue, with the messages that are under way on it.
///
/// When the queue is restarted, apusd hands over a new link. New messages use the newest; those that are under way
/// end with the link they began on.
final class QueueClient: LinkReceiver {
    private struct Entry {
        let link: Link
        let submitter: any Submitter
        /// Only a submission that has asked for acceptance can get it.
        var isCommitted = false
    }

    private let eventLoop: any EventLoop
    private var links: [Link] = []
    private var entries: [UInt32: Entry] = [:]
    /// Channels are numbered on and on: an answer that was under way when its channel was given up
    /// must not meet another message on the same number.
    private var nextChannel: UInt32 = 1
    /// Called when the last link is gone.
    var linksGone: (() -> Void)?

    init(eventLoop: any EventLoop) { self.eventLoop = eventLoop }

    var isAvailable: Bool { !self.links.isEmpty }

    /// Uses a new link for all messages from now on. An older one is closed when nothing is under way on it.
    func use(_ ends: LinkEnds) {
        self.links.append(Link(ends, program: "apus-smtpd", receiver: self, on: self.eventLoop))
        for link in self.links.dropLast() { self.closeIfUnused(link) }
    }

    private func closeIfUnused(_ link: Link) {
        guard link !== self.links.last, !self.entries.values.contains(where: { $0.link === link }) else { return }
        link.close()
    }

    /// Opens a submission; nil if the queue is away.
    func begin(_ mail: MailRequest, for submitter: any Submitter) -> Submission? {
        guard let link = self.links.last else { return nil }
        var channel = self.nextChannel
        while channel == 0 || self.entries[channel] != nil { channel &+= 1 }
        self.nextChannel = channel &+ 1
        self.entries[channel] = Entry(link: link, submitter: submitter)
        link.send { SubmitRequest.mail(mail).append(to: &$0, channel: channel) }
        return Submission(link: link, channel: channel)
    }

    func send(_ request: SubmitRequest, for submission: Submission) {
        if case .commit = request { self.entries[submission.channel]?.isCommitted = true }
        submission.link.send { request.append(to: &$0, channel: submission.channel) }
    }

    /// Sends content. The caller has looked at the credit.
    func send(_ content: Span<UInt8>, for submission: inout Submission) {
        let channel = submission.channel
        var start = 0
        while start < content.count {
            let end = min(content.count, start + FrameLimits.dataOctetCountMax)
            let part = content.extracting(start..<end)
            submission.link.send { octets in
                let frame = octets.beginFrame(.data, channel)
                octets.append(field: part)
                octets.endFrame(frame)
            }
            start = end
        }
        submission.credit -= content.count
        submission.octetCount += UInt64(content.count)
    }

    /// Gives a submission up. Nothing is heard of it any more.
    func abort(_ submission: Submission) {
        guard self.entries.removeValue(forKey: submission.channel) != nil else { return }
        submission.link.send { SubmitRequest.abort.append(to: &$0, channel: submission.channel) }
        self.closeIfUnused(submission.link)
    }

    // MARK: LinkReceiver

    func linkOpened(_ link: Link, hello: Hello) {}

    func linkReceived(_ frame: Frame, from link: Link) {
        do throws(FrameFault) {
            try self.receive(try SubmitAnswer(frame), frame, link)
        } catch {
            link.close(because: error)
        }
    }

    private func receive(_ answer: SubmitAnswer, _ frame: Frame, _ link: Link) throws(FrameFault) {
        guard let entry = self.entries[frame.channel] else {
            // An answer to what we have just given up. A number that was never used is a mistake.
            guard frame.channel < self.nextChannel else { throw FrameFault(.badChannel, frame.verb) }
            return
        }
        guard entry.link === link else { throw FrameFault(.badChannel, frame.verb) }
        switch answer {
        case .more(let octetCount):
            entry.submitter.creditGiven(octetCount)
            return
        case .queued:
            guard entry.isCommitted else { throw FrameFault(.outOfPlace, frame.verb) }
        case .refused:
            break
        }
        self.entries[frame.channel] = nil
        entry.submitter.submissionEnded(.answered(answer))
        if self.links.count > 1 { self.closeIfUnused(link) }
    }

    func linkBecameWritable(_ link: Link) {
        let waiting = self.entries.values.filter { $0.link === link }
        for entry in waiting { entry.submitter.linkBecameWritable() }
    }

    func linkClosed(_ link: Link) {
        self.links.removeAll { $0 === link }
        let lost = self.entries.filter { $0.value.link === link }
        for channel in lost.keys { self.entries[channel] = nil }
        for entry in lost.values { entry.submitter.submissionEnded(.lost) }
        if self.links.isEmpty { self.linksGone?() }
    }
}

extension Array where Element == UInt8 {
    /// Appends octets as one field of the frame that was begun.
    fileprivate mutating func append(field octets: Span<UInt8>) {
        self.append(decimal: octets.count)
        self.append(0x3A)
        // Safety: the pointer is used inside the closure only; Array has no append for a span yet.
        octets.withUnsafeBufferPointer { self.append(contentsOf: $0) }
        self.append(0x2C)
    }
}
