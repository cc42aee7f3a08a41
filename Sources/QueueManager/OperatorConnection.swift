// SPDX-License-Identifier: Apache-2.0

import LMDBQueueStore
import MailTypes
import NIOCore
import PipeCore
import PipeDrivers
import QueueCore
import Unix

/// An operator's tool with its questions (pipes.md §5). Answers of any length go out page by page, as the tool takes
/// them.
final class OperatorConnection: LinkReceiver {
    private unowned let manager: QueueManager
    private var link: Link?
    /// Walks through the whole queue that are not at their end; they wait for the link or for a commit.
    private var walks: [UInt32: Walk] = [:]

    /// Messages read at once.
    private static let pageMessageCount = 50
    private static let walkCountMax = 16

    private struct Walk {
        enum Purpose {
            case list(left: Int?)
            case order(OperatorVerb)
        }

        var purpose: Purpose
        var last: MessageID?
        var messageCount = 0
        var changedCount = 0
        var underWayCount = 0
        /// Orders of the present page that are not committed.
        var pendingCount = 0
    }

    init(_ ends: LinkEnds, _ manager: QueueManager) {
        self.manager = manager
        self.link = Link(ends, program: "apus-queue", receiver: self, on: manager.eventLoop)
    }

    func linkOpened(_ link: Link, hello: Hello) {}

    func linkReceived(_ frame: Frame, from link: Link) {
        do throws(FrameFault) {
            guard self.walks[frame.channel] == nil else { throw FrameFault(.outOfPlace, frame.verb) }
            try self.answer(frame)
        } catch {
            link.close(because: error)
        }
    }

    private func answer(_ frame: Frame) throws(FrameFault) {
        let channel = frame.channel
        switch frame.verb {
        case .count:
            try frame.expectFields(0)
            self.count(channel)
        case .list:
            try frame.expectFields(1)
            let limit = Int(try frame.number(0, limit: 1 << 40))
            self.start(Walk(purpose: .list(left: limit == 0 ? nil : limit)), channel)
        case .show:
            try frame.expectFields(1)
            if let message = self.message(frame[0], channel) { self.show(message, channel) }
        case .flush, .hold, .release, .remove, .bounce:
            try frame.expectFields(1)
            let verb = try frame.value(OperatorVerb(rawValue: frame.verb.rawValue))
            if frame[0].elementsEqual("all".utf8) {
                self.start(Walk(purpose: .order(verb)), channel)
            } else if let message = self.message(frame[0], channel) {
                self.order(verb, message, channel)
            }
        default: throw FrameFault(.outOfPlace, frame.verb)
        }
    }

    /// The message that a field names; if there is none, that is the answer.
    private func message(_ field: ArraySlice<UInt8>, _ channel: UInt32) -> StoredMessage? {
        guard let id = MessageID(octets: field) else {
            self.fail("this is not a message id", channel)
            return nil
        }
        guard let found = try? self.manager.store.message(id) else {
            self.fail("no such message in the queue", channel)
            return nil
        }
        return found
    }

    func linkBecameWritable(_ link: Link) {
        for channel in self.walks.keys.sorted() { self.step(channel) }
    }

    func linkClosed(_ link: Link) {
        self.link = nil
        self.walks = [:]
        self.manager.closed(self)
    }

    // MARK: - Answers

    private func row(_ channel: UInt32, _ pairs: [(String, [UInt8])]) {
        self.link?.send { octets in
            let start = octets.beginFrame(.row, channel)
            for (name, value) in pairs {
                octets.appendField(Array(name.utf8))
                octets.appendField(value)
            }
            octets.endFrame(start)
        }
    }

    private func end(_ count: Int, _ channel: UInt32) {
        self.link?.send { $0.appendFrame(.end, channel, [.init(decimal: count)]) }
    }

    private func fail(_ text: String, _ channel: UInt32) {
        self.link?.send { $0.appendFrame(.failed, channel, [Array(text.utf8)]) }
    }

    private func count(_ channel: UInt32) {
        guard let counts = try? self.manager.store.counts() else {
            return self.fail("the queue cannot be read", channel)
        }
        self.row(
            channel,
            [
                ("messages", .init(decimal: counts.messages)), ("recipients", .init(decimal: counts.recipients)),
                ("held", .init(decimal: max(0, counts.recipients - counts.scheduled))),
                ("deliveries", .init(decimal: self.manager.scheduler.deliveryCount)),
                ("destinations-down", .init(decimal: self.manager.scheduler.suspendedCount)),
            ])
        self.end(1, channel)
    }

    /// One word for a recipient.
    private func status(_ recipient: RecipientRecord, _ message: MessageID) -> String {
        if recipient.due == nil { return "held" }
        if recipient.hasFailed { return "failed" }
        let key = RecipientKey(message: message, number: recipient.number)
        return self.manager.scheduler.isUnderWay(key) ? "delivering" : "queued"
    }

    /// One object, in two frames.
    private func summary(_ message: StoredMessage, _ channel: UInt32) {
        let record = message.record
        let next = message.recipients.compactMap(\.due).min()
        self.row(
            channel,
            [
                ("id", record.id.octets), ("from", record.reversePath.octets),
                ("size", .init(decimal: record.octetCount)), ("arrival", .init(decimal: record.arrival.microseconds)),
                ("recipients", .init(decimal: message.recipients.count)),
                ("next", next.map { .init(decimal: $0.microseconds) } ?? []),
            ])
        guard let first = message.recipients.first else { return }
        self.row(
            channel,
            [
                ("id", record.id.octets), ("to", first.forwardPath.octets),
                ("status", Array(self.status(first, record.id).utf8)),
                ("reason", first.lastOutcome?.text ?? []),
            ])
    }

    /// The message as one object, then one object for each recipient.
    private func show(_ message: StoredMessage, _ channel: UInt32) {
        let record = message.record
        self.row(
            channel,
            [
                ("id", record.id.octets), ("from", record.reversePath.octets),
                ("size", .init(decimal: record.octetCount)), ("body", Array(record.bodyType.rawValue.utf8)),
                ("arrival", .init(decimal: record.arrival.microseconds)),
                ("expiry", .init(decimal: record.expiry.microseconds)),
            ])
        self.row(
            channel,
            [
                ("id", record.id.octets), ("recipients", .init(decimal: message.recipients.count)),
                ("client", record.trace),
            ])
        for recipient in message.recipients {
            let number = [UInt8](decimal: recipient.number)
            self.row(
                channel,
                [
                    ("recipient", number), ("to", recipient.forwardPath.octets),
                    ("original", recipient.originalPath?.octets ?? []), ("route", recipient.route.octets),
                    ("status", Array(self.status(recipient, record.id).utf8)),
                    ("next", recipient.due.map { .init(decimal: $0.microseconds) } ?? []),
                ])
            self.row(
                channel,
                [
                    ("recipient", number), ("attempts", .init(decimal: recipient.attemptCount)),
                    (
                        "last",
                        recipient.lastAttempt.microseconds == 0
                            ? [] : .init(decimal: recipient.lastAttempt.microseconds)
                    ),
                    ("dsn", recipient.lastOutcome?.status.octets ?? []),
                    ("reporter", recipient.lastOutcome?.reporter ?? []),
                    ("reason", recipient.lastOutcome?.text ?? []),
                ])
        }
        self.end(1 + message.recipients.count, channel)
    }

    private func order(_ verb: OperatorVerb, _ message: StoredMessage, _ channel: UInt32) {
        let underWay = self.underWay(message)
        self.manager.order(verb, message) { [weak self] count in
            self?.log(verb, message, underWay)
            self?.row(
                channel,
                [
                    ("id", message.record.id.octets), ("changed", .init(decimal: count)),
                    ("under-way", .init(decimal: underWay.count)),
                ])
            self?.end(1, channel)
        }
    }

    private func underWay(_ message: StoredMessage) -> Set<UInt32> {
        let numbers = message.recipients.lazy.map(\.number).filter { number in
            self.manager.scheduler.isUnderWay(RecipientKey(message: message.record.id, number: number))
        }
        return Set(numbers)
    }

    private func log(_ verb: OperatorVerb, _ message: StoredMessage, _ underWay: Set<UInt32>) {
        for recipient in message.recipients where !underWay.contains(recipient.number) {
            QueueLog.operated(verb, message.record.id, recipient)
        }
    }

    // MARK: - Walks through the whole queue

    private func start(_ walk: Walk, _ channel: UInt32) {
        guard self.walks.count < Self.walkCountMax else { return self.fail("too many questions at once", channel) }
        self.walks[channel] = walk
        self.step(channel)
    }

    /// Does a page, and arranges for the next: a page a turn, so that the mail goes on meanwhile.
    private func step(_ channel: UInt32) {
        guard var walk = self.walks[channel], walk.pendingCount == 0, let link = self.link, link.isWritable else {
            return
        }
        var limit = Self.pageMessageCount
        if case .list(let left?) = walk.purpose { limit = min(limit, left) }
        let page = limit > 0 ? (try? self.manager.store.messages(after: walk.last, limit: limit)) ?? [] : []
        guard let last = page.last else {
            self.walks[channel] = nil
            return self.conclude(walk, channel)
        }
        walk.last = last.record.id
        walk.messageCount += page.count
        switch walk.purpose {
        case .list(let left):
            if let left { walk.purpose = .list(left: left - page.count) }
            self.walks[channel] = walk
            for message in page { self.summary(message, channel) }
            self.manager.eventLoop.assumeIsolated().execute { self.step(channel) }
        case .order(let verb):
            walk.pendingCount = page.count
            self.walks[channel] = walk
            for message in page { self.orderInWalk(verb, message, channel) }
        }
    }

    private func orderInWalk(_ verb: OperatorVerb, _ message: StoredMessage, _ channel: UInt32) {
        let underWay = self.underWay(message)
        self.walks[channel]?.underWayCount += underWay.count
        self.manager.order(verb, message) { [weak self] count in
            guard let self else { return }
            self.log(verb, message, underWay)
            self.walks[channel]?.changedCount += count
            self.walks[channel]?.pendingCount -= 1
            self.manager.eventLoop.assumeIsolated().execute { self.step(channel) }
        }
    }

    private func conclude(_ walk: Walk, _ channel: UInt32) {
        switch walk.purpose {
        case .list: self.end(walk.messageCount, channel)
        case .order:
            self.row(
                channel,
                [
                    ("messages", .init(decimal: walk.messageCount)), ("changed", .init(decimal: walk.changedCount)),
                    ("under-way", .init(decimal: walk.underWayCount)),
                ])
            self.end(1, channel)
        }
    }
}

extension Array where Element == UInt8 {
    fileprivate init(decimal number: some BinaryInteger) {
        self = []
        self.append(decimal: number)
    }
}
