// SPDX-License-Identifier: Apache-2.0

import LMDBQueueStore
import MailTypes
import PipeCore
import QueueCore
import Unix

/// The answer to `import`: takes the messages that follow, and tells of each what became of it once that is on stable
/// storage (pipes.md §5).
final class ImportAnswer: LongAnswer {
    private let question: Question
    private var assembler = ImportAssembler(recipientCountMax: ImportAnswer.recipientCountMax)
    /// Where the content of the message that is being read goes.
    private var current: Arrival?
    /// Messages that were read and are not told.
    private var pending: [Arrival] = []
    private var credit = FrameLimits.creditOctetCount
    /// Data of the message that is being read that was taken out of the credit and is not given back.
    private var owedCount = 0
    private var count = 0
    private var isEnding = false
    private var isEnded = false

    /// As many as the settings may allow.
    private static let recipientCountMax = 100_000
    /// Messages that a tool may have sent and that are not told.
    private static let pendingCountMax = 256

    /// A message that is coming in.
    private final class Arrival {
        enum Fate {
            case imported(MessageID)
            /// It is in the queue already, or is being imported.
            case skipped
        }

        let given: MessageID
        let fate: Fate
        let record: MessageRecord
        let recipients: [RecipientRecord]
        var content: [UInt8] = []
        var spilledCount: UInt64 = 0
        /// Data that is given back to the tool's credit when the message is told.
        var owedCount = 0
        /// Parts of the content that are on their way to the store.
        var spillingCount = 0
        /// Whether all of it has come.
        var isRead = false
        var isCommitted = false
        /// Nothing comes of it.
        var isDropped = false

        init(_ given: MessageID, _ fate: Fate, _ record: MessageRecord, _ recipients: [RecipientRecord]) {
            self.given = given
            self.fate = fate
            self.record = record
            self.recipients = recipients
        }
    }

    init(_ question: Question) { self.question = question }

    private var manager: QueueManager { self.question.manager }

    func step() {}

    func receive(_ frame: Frame) throws(FrameFault) {
        if frame.verb == .commit {
            try frame.expectFields(0)
            guard !self.isEnding else { throw FrameFault(.outOfPlace, .commit) }
            self.isEnding = true
            self.dropCurrent()
            return self.isEnded ? self.question.forget() : self.tell()
        }
        let part = try ExportPart(frame)
        // After a failure what is under way is passed over.
        guard !self.isEnded else { return }
        guard !self.isEnding, self.pending.count < Self.pendingCountMax else {
            throw FrameFault(.outOfPlace, frame.verb)
        }
        if case .data(let octets) = part {
            self.credit -= octets.count
            guard self.credit >= 0 else { throw FrameFault(.creditExceeded, .data) }
            self.owedCount += octets.count
        }
        do throws(ImportFault) {
            switch part {
            case .message(let id, let fields): try self.assembler.message(id, fields)
            case .recipient(let number, let fields): try self.assembler.recipient(number, fields)
            case .data(let octets):
                for step in try self.assembler.data(octets) { try self.take(step) }
                self.spill()
            case .whole(let octetCount): for step in try self.assembler.whole(octetCount) { try self.take(step) }
            case .gone:
                self.dropCurrent()
                self.assembler.forget()
                self.giveBack()
            case .header, .end: throw ImportFault("a frame of a file's beginning or end among the messages")
            }
        } catch {
            self.fail("\(self.assembler.id.map { "message \($0.text): " } ?? "")\(error.text)")
        }
    }

    func abandon() {
        self.isEnded = true
        self.dropCurrent()
    }

    private func take(_ step: ImportAssembler.Step) throws(ImportFault) {
        switch step {
        case .message(let record, let recipients): self.current = try self.begin(record, recipients)
        case .content(let octets):
            if case .imported? = self.current?.fate { self.current?.content += octets }
        case .complete: self.complete()
        }
    }

    // MARK: - The id

    /// Ids that are tried for a message whose own id is another's.
    private static let candidateCount: UInt64 = 1_000

    /// Chooses the id: its own if it is free, otherwise the next free one; so a second import finds what the first did.
    ///
    /// The same message with other recipients is another part of it, of another export, and gets an id of its own.
    private func begin(_ record: MessageRecord, _ recipients: [RecipientRecord]) throws(ImportFault) -> Arrival {
        let manager = self.manager
        guard manager.checkRoom(for: Int(clamping: record.octetCount)) else {
            throw ImportFault("there is no room for it")
        }
        // An id is a time; one far in the future would be the last that can ever be given out.
        let latest = min(
            WallClock.now().advanced(by: .seconds(86_400)).microseconds,
            .max - Self.candidateCount - Self.neighbourCount)
        let isSane = record.id.rawValue > 0 && record.id.rawValue <= latest
        let first = isSane ? record.id.rawValue : min(record.arrival.microseconds, latest)
        for raw in first..<(first + Self.candidateCount) {
            let id = MessageID(rawValue: raw)
            let renamed = record.with(id)
            if try self.isHere(renamed, recipients) { return Arrival(record.id, .skipped, renamed, []) }
            guard try self.holder(of: id) == nil, !manager.arriving.contains(id), !manager.store.hasTraces(of: id)
            else { continue }
            for next in (raw + 1)...(raw + Self.neighbourCount) {
                let other = record.with(MessageID(rawValue: next))
                if try self.isHere(other, recipients) { return Arrival(record.id, .skipped, other, []) }
            }
            manager.imports[id] = NewMessage(record: renamed, recipients: recipients, content: [])
            manager.numbering.note(id)
            return Arrival(record.id, .imported(id), renamed, recipients)
        }
        throw ImportFault("its id and the next thousand are taken")
    }

    /// Parts of a message have ids side by side. That of one which has been delivered is free again, and a later one must be found
    /// all the same.
    private static let neighbourCount: UInt64 = 8

    /// The message that has an id.
    private func holder(
        of id: MessageID
    ) throws(ImportFault) -> (record: MessageRecord, recipients: [RecipientRecord])? {
        if let imported = self.manager.imports[id] { return (imported.record, imported.recipients) }
        do throws(StoreFault) {
            return try self.manager.store.message(id).map { ($0.record, $0.recipients) }
        } catch { throw ImportFault(QueueLog.text(error)) }
    }

    /// Whether this very message is here with any of these recipients.
    private func isHere(_ record: MessageRecord, _ recipients: [RecipientRecord]) throws(ImportFault) -> Bool {
        guard let known = try self.holder(of: record.id), known.record == record else { return false }
        return Self.areOfOnePart(known.recipients, recipients)
    }

    /// Whether any recipient is in both. Numbers are those of the acceptance, and an address may stand there more than once.
    private static func areOfOnePart(_ known: [RecipientRecord], _ given: [RecipientRecord]) -> Bool {
        let numbers = Set(known.map(\.number))
        return known.isEmpty || given.contains { numbers.contains($0.number) }
    }

    // MARK: - Content

    /// Hands a large message on to the store.
    private func spill() {
        guard let arrival = self.current else { return }
        guard case .imported(let id) = arrival.fate else { return self.giveBack() }
        guard arrival.content.count >= QueueManager.spillOctetCount else { return }
        let size = self.manager.store.contentChunkOctetCount
        let count = arrival.content.count / size * size
        let octets = Array(arrival.content[..<count])
        arrival.content.removeFirst(count)
        let operation = StoreOperation.spill(id, offset: arrival.spilledCount, octets: octets)
        arrival.spilledCount += UInt64(count)
        arrival.spillingCount += 1
        let owed = self.owedCount
        self.owedCount = 0
        self.manager.committer.add(
            operation,
            .told(
                CommitListener(
                    committed: {
                        arrival.spillingCount -= 1
                        self.grant(owed)
                        self.restore(arrival)
                    },
                    refused: { self.refuse(arrival, id, $0) })))
    }

    private func refuse(_ arrival: Arrival, _ id: MessageID, _ reason: String) {
        self.drop(arrival)
        self.fail("message \(id.text): there is no room for it: \(reason)")
    }

    /// Gives back the credit of data that is not kept.
    private func giveBack() {
        self.grant(self.owedCount)
        self.owedCount = 0
    }

    private func grant(_ octetCount: Int) {
        guard octetCount > 0, !self.isEnded else { return }
        self.credit += octetCount
        self.question.connection.send {
            $0.appendFrame(.more, self.question.channel, [[UInt8](decimal: octetCount)])
        }
    }

    // MARK: - The end of a message

    private func complete() {
        guard let arrival = self.current else { return }
        self.current = nil
        arrival.owedCount = self.owedCount
        self.owedCount = 0
        self.pending.append(arrival)
        arrival.isRead = true
        guard case .imported = arrival.fate else {
            arrival.isCommitted = true
            return self.tell()
        }
        self.restore(arrival)
    }

    /// Has a message accepted that is there as a whole.
    ///
    /// Why not while a part of it is on its way: there may be no room for that part, and room again for the rest; the
    /// message would be in the queue without its beginning.
    private func restore(_ arrival: Arrival) {
        guard arrival.isRead, arrival.spillingCount == 0, !arrival.isDropped, case .imported(let id) = arrival.fate
        else { return }
        let message = NewMessage(
            record: arrival.record, recipients: arrival.recipients, content: arrival.content,
            contentOffset: arrival.spilledCount)
        arrival.content = []
        self.manager.committer.add(
            .restore(message),
            .told(
                CommitListener(
                    committed: {
                        self.manager.imports[id] = nil
                        QueueLog.imported(message)
                        if let due = message.recipients.compactMap(\.due).min() { self.manager.tell(.dueAdded(due)) }
                        arrival.isCommitted = true
                        self.tell()
                    },
                    refused: { self.refuse(arrival, id, $0) })))
    }

    /// Tells of all that is committed, in order.
    private func tell() {
        guard !self.isEnded else { return }
        while let arrival = self.pending.first, arrival.isCommitted {
            self.pending.removeFirst()
            self.grant(arrival.owedCount)
            self.count += 1
            switch arrival.fate {
            case .skipped:
                self.question.row([("id", arrival.given.octets), ("result", Array("skipped".utf8))])
            case .imported(let id):
                self.question.row(
                    [("id", arrival.given.octets), ("result", Array("imported".utf8)), ("as", id.octets)])
            }
        }
        guard self.isEnding, self.pending.isEmpty else { return }
        self.isEnded = true
        self.question.end(self.count)
    }

    private func fail(_ text: String) {
        guard !self.isEnded else { return }
        self.isEnded = true
        self.dropCurrent()
        // The answer stays, to pass over what is under way.
        self.question.connection.sendFailure(text, self.question.channel)
    }

    /// Nothing comes of the message that is being read.
    private func dropCurrent() {
        guard let arrival = self.current else { return }
        self.current = nil
        self.drop(arrival)
    }

    /// Nothing comes of a message: what has been written of it goes, behind all that is on its way.
    private func drop(_ arrival: Arrival) {
        guard !arrival.isDropped, case .imported(let id) = arrival.fate else { return }
        arrival.isDropped = true
        arrival.content = []
        self.manager.imports[id] = nil
        if arrival.spilledCount > 0 { self.manager.committer.add(.discard(id), .nothing) }
    }
}

extension MessageRecord {
    /// The same envelope with another id.
    fileprivate func with(_ id: MessageID) -> MessageRecord {
        MessageRecord(
            id: id, reversePath: self.reversePath, bodyType: self.bodyType, arrival: self.arrival,
            expiry: self.expiry, prefix: self.prefix, contentOctetCount: self.contentOctetCount, trace: self.trace,
            dsn: self.dsn, unicode: self.unicode, verp: self.verp)
    }
}
