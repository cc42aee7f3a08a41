// SPDX-License-Identifier: Apache-2.0

import LMDBQueueStore
import MailTypes
import PipeCore
import QueueCore

extension OperatorConnection {
    func export(_ frame: Frame, _ question: Question) throws(FrameFault) {
        try frame.expectFields(0)
        self.start(ExportAnswer(question), question.channel)
    }
}

/// The answer to `export`: the frames of the matching messages, with the recipients that match (queue-export.md).
final class ExportAnswer: LongAnswer {
    private let question: Question
    private var walk: QueueWalk
    /// What is to be written of the present page; the next one is the last.
    private var page: [FilteredMessage] = []
    /// A message of which not all data is written, and how much is.
    private var open: (record: MessageRecord, offset: UInt64)?
    private var count = 0

    /// A turn reads no more content than this, and no more than a page of messages.
    private static let turnOctetCount = 262_144

    init(_ question: Question) {
        self.question = question
        self.walk = QueueWalk(question.filter, through: question.manager.lastMessageID)
    }

    func step() {
        var octetCount = 0
        while self.question.connection.isWritable, octetCount < Self.turnOctetCount {
            if let open = self.open {
                octetCount += self.writeData(open.record, open.offset)
            } else if let next = self.page.popLast() {
                self.begin(next)
                octetCount += 1_000
            } else {
                guard !self.walk.isAtEnd else { return self.question.end(self.count) }
                do throws(StoreFault) { self.page = try self.walk.next(self.question.manager).reversed() } catch {
                    return self.question.fail("the queue cannot be read: \(QueueLog.text(error))")
                }
                for id in self.walk.unreadable { self.tellUnreadable(id) }
                // A page is a turn's worth of reading.
                break
            }
        }
        if self.question.connection.isWritable { self.question.stepSoon() }
    }

    private func send(_ part: ExportPart) {
        self.question.connection.send { part.append(to: &$0, channel: self.question.channel) }
    }

    private func begin(_ found: FilteredMessage) {
        let record = found.message.record
        let fields = record.exportFields
        let recipients = found.matching.map { (number: $0.number, fields: $0.exportFields) }
        // A record that says more than can ever have come is damaged.
        let isSendable = (recipients.flatMap(\.fields) + fields).allSatisfy {
            $0.value.count <= FrameLimits.fieldOctetCountMax
        }
        guard isSendable, !recipients.isEmpty else { return self.tellUnreadable(record.id) }
        if found.message.unreadableCount > 0 { self.tellUnreadable(record.id) }
        self.send(.message(record.id, fields))
        for recipient in recipients { self.send(.recipient(recipient.number, recipient.fields)) }
        self.open = (record, 0)
    }

    /// Answers how many octets it has read.
    private func writeData(_ record: MessageRecord, _ offset: UInt64) -> Int {
        let manager = self.question.manager
        guard offset < record.octetCount else {
            self.open = nil
            self.count += 1
            self.send(.whole(record.octetCount))
            return 0
        }
        let data = manager.content(record.id, offset: offset, octetCount: FrameLimits.dataOctetCountMax)
        guard let data, !data.isEmpty else {
            self.open = nil
            // Delivered or removed meanwhile; or there, and its content is not all there.
            if data != nil { self.tellUnreadable(record.id) }
            self.send(.gone)
            return 0
        }
        self.open = (record, offset + UInt64(data.count))
        self.send(.data(data))
        return data.count
    }

    private func tellUnreadable(_ id: MessageID) { self.question.row([("unreadable", id.octets)]) }
}
