// SPDX-License-Identifier: Apache-2.0
//
// Questions that change nothing.

import LMDBQueueStore
import MailTypes
import PipeCore
import QueueCore

extension OperatorConnection {
    func count(_ channel: UInt32) {
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

    func list(_ frame: Frame, _ question: Question) throws(FrameFault) {
        try frame.expectFields(1)
        let limit = Int(try frame.number(0, limit: 1 << 40))
        self.start(ListAnswer(question, limit: limit == 0 ? nil : limit), question.channel)
    }

    func status(_ recipient: RecipientRecord, _ message: MessageID) -> [UInt8] {
        let status = RecipientStatus(
            recipient, isUnderWay: self.manager.scheduler.isUnderWay(recipient, of: message))
        return Array(status.rawValue.utf8)
    }

    /// The message as one object, then one object for each recipient.
    func show(_ message: StoredMessage, _ channel: UInt32) {
        self.showEnvelope(message, channel)
        for recipient in message.recipients { self.show(recipient, message.record.id, channel) }
        self.end(1 + message.recipients.count, channel)
    }

    func showEnvelope(_ message: StoredMessage, _ channel: UInt32) {
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
                ("priority", message.recipients.first?.flow.priority.octets ?? []), ("client", record.trace),
                ("ret", record.dsn.returned?.octets ?? []), ("envid", record.dsn.envelopeID),
            ])
        guard record.unicode != .none else { return }
        self.row(channel, [("id", record.id.octets), ("utf8", record.unicode.octets)])
    }

    func show(_ recipient: RecipientRecord, _ message: MessageID, _ channel: UInt32) {
        let number = [UInt8](decimal: recipient.number)
        self.row(
            channel,
            [
                ("recipient", number), ("to", recipient.forwardPath.octets),
                ("original", recipient.originalPath?.octets ?? []), ("route", recipient.route.octets),
                ("status", self.status(recipient, message)),
                ("next", recipient.due.map { .init(decimal: $0.microseconds) } ?? []),
            ])
        let last = recipient.lastAttempt.microseconds
        self.row(
            channel,
            [
                ("recipient", number), ("attempts", .init(decimal: recipient.attemptCount)),
                ("last", last == 0 ? [] : .init(decimal: last)),
                ("dsn", recipient.lastOutcome?.status.octets ?? []),
                ("reporter", recipient.lastOutcome?.reporter ?? []),
                ("reason", recipient.lastOutcome?.text ?? []),
            ])
        guard !recipient.dsn.isEmpty || recipient.owedReport != nil else { return }
        self.row(
            channel,
            [
                ("recipient", number), ("notify", recipient.dsn.notify?.octets ?? []),
                ("orcpt", recipient.dsn.originalRecipient), ("report", recipient.owedReport?.octets ?? []),
            ])
    }
}

/// The answer to `list`: the matching messages, an object each.
final class ListAnswer: LongAnswer {
    private let question: Question
    private var walk: QueueWalk
    /// How many messages may still come; nil: any number.
    private var left: Int?
    private var count = 0

    init(_ question: Question, limit: Int?) {
        self.question = question
        self.walk = QueueWalk(question.filter, through: question.manager.lastMessageID)
        self.left = limit
    }

    func step() {
        guard self.question.connection.isWritable else { return }
        do throws(StoreFault) {
            for found in try self.walk.next(self.question.manager).prefix(self.left ?? .max) {
                self.summary(found)
                self.count += 1
                self.left = self.left.map { $0 - 1 }
            }
        } catch { return self.question.fail("the queue cannot be read: \(QueueLog.text(error))") }
        guard !self.walk.isAtEnd, self.left != 0 else { return self.question.end(self.count) }
        self.question.stepSoon()
    }

    /// One object, in two frames.
    private func summary(_ found: FilteredMessage) {
        let record = found.message.record
        let next = found.matching.compactMap(\.due).min()
        self.question.row(
            [
                ("id", record.id.octets), ("from", record.reversePath.octets),
                ("size", .init(decimal: record.octetCount)), ("arrival", .init(decimal: record.arrival.microseconds)),
                ("recipients", .init(decimal: found.message.recipients.count)),
                ("next", next.map { .init(decimal: $0.microseconds) } ?? []),
            ])
        guard let first = found.matching.first else { return }
        self.question.row(
            [
                ("id", record.id.octets), ("to", first.forwardPath.octets), ("route", first.route.octets),
                ("status", self.question.connection.status(first, record.id)),
                ("reason", first.lastOutcome?.text ?? []), ("matching", .init(decimal: found.matching.count)),
            ])
    }
}
