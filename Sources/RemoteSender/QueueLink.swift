// SPDX-License-Identifier: Apache-2.0
//
// The link to the queue (pipes.md §3). What does not keep to the dialect closes the link: the queue tries again
// everything that was not settled, so that nothing is lost by it.

import MailTypes
import NIOCore
import PipeCore
import PipeDrivers
import Unix

/// One link over which deliveries come.
final class QueueLink: LinkReceiver {
    private unowned let sender: Sender
    private let capacity: Int
    private var link: Link?
    /// By the queue's channel, from `deliver` to `noted`.
    private(set) var attempts: [UInt32: Attempt] = [:]

    var isClosed: Bool { self.link == nil }
    /// Whether the queue has still to note something that was told.
    var hasUnnoted: Bool { self.attempts.values.contains { $0.isDone } }

    init(_ ends: LinkEnds, capacity: Int, sender: Sender, eventLoop: any EventLoop) {
        self.sender = sender
        self.capacity = capacity
        self.link = Link(
            ends, program: "apus-remote", capacity: UInt32(clamping: capacity),
            unaskedOctetCountMax: UInt32(Attempt.unaskedOctetCountMax), receiver: self, on: eventLoop)
    }

    func send(_ answer: DeliverAnswer, channel: UInt32) {
        self.link?.send { answer.append(to: &$0, channel: channel) }
    }

    /// Tells what became of a delivery.
    func finish(_ attempt: Attempt) {
        guard !attempt.isDone else { return }
        attempt.isDone = true
        self.link?.send { octets in
            for (recipient, outcome) in zip(attempt.recipients, attempt.outcomes) {
                guard let outcome else { continue }
                DeliverAnswer.outcome(number: recipient.number, outcome).append(to: &octets, channel: attempt.channel)
            }
            DeliverAnswer.done.append(to: &octets, channel: attempt.channel)
        }
    }

    func linkOpened(_ link: Link, hello: Hello) {}

    func linkReceived(_ frame: Frame, from link: Link) {
        do throws(FrameFault) {
            try self.take(try DeliverRequest(frame), frame)
        } catch {
            link.close(because: error)
        }
    }

    private func take(_ request: DeliverRequest, _ frame: Frame) throws(FrameFault) {
        if case .deliver(let delivery) = request {
            guard self.attempts[frame.channel] == nil, self.attempts.count < self.capacity else {
                throw FrameFault(.outOfPlace, .deliver)
            }
            guard case .remote(let nextHop) = delivery.route else { throw FrameFault(.badField, .deliver) }
            self.attempts[frame.channel] = Attempt(
                number: self.sender.nextNumber(), channel: frame.channel, delivery: delivery, nextHop: nextHop,
                queueLink: self)
            return
        }
        guard let attempt = self.attempts[frame.channel] else { throw FrameFault(.outOfPlace, frame.verb) }
        switch request {
        case .rcpt(let recipient):
            guard !attempt.isComplete, attempt.recipients.count < RemoteSettings.recipientCountMax else {
                throw FrameFault(.outOfPlace, .rcpt)
            }
            attempt.append(recipient)
        case .go:
            guard !attempt.isComplete, attempt.hasRecipients else { throw FrameFault(.outOfPlace, .go) }
            attempt.isComplete = true
            self.sender.start(attempt)
        case .data(let octets):
            guard attempt.take(octets) else { throw FrameFault(.creditExceeded, .data) }
        case .noted:
            guard attempt.isDone else { throw FrameFault(.outOfPlace, .noted) }
            self.attempts[frame.channel] = nil
            self.sender.attemptEnded()
        case .deliver, .fate, .owed, .queued, .refused:
            throw FrameFault(.outOfPlace, frame.verb)
        }
    }

    func linkClosed(_ link: Link) {
        self.link = nil
        let attempts = self.attempts.values.sorted { $0.number < $1.number }
        self.attempts = [:]
        self.sender.linkClosed(self, attempts)
    }
}
