// SPDX-License-Identifier: Apache-2.0

import LMDBQueueStore
import MailTypes
import PipeCore
import QueueCore
import Unix

extension OperatorConnection {
    /// `check`, or `check repair`.
    func check(_ frame: Frame, _ question: Question) throws(FrameFault) {
        if frame.fieldCount > 0 {
            try frame.expectFields(1)
            guard frame[0].elementsEqual("repair".utf8) else { throw FrameFault(.badField, .check) }
        }
        self.start(CheckAnswer(question, isRepairing: frame.fieldCount > 0), question.channel)
    }
}

/// The answer to `check`: each fault as an object, then what was looked at.
final class CheckAnswer: LongAnswer {
    private let question: Question
    private let isRepairing: Bool
    private var place: CheckPlace? = CheckPlace()
    private var counts = [Int](repeating: 0, count: CheckPlace.Database.allCases.count)
    private var faultCount = 0
    private var repairedCount = 0
    /// Repairs that are not committed.
    private var pendingCount = 0

    /// Records that a turn looks at.
    private static let sliceRecordCount = 1_000

    init(_ question: Question, isRepairing: Bool) {
        self.question = question
        self.isRepairing = isRepairing
        self.tellRecovery()
    }

    func step() {
        guard self.pendingCount == 0, self.question.connection.isWritable else { return }
        guard let place = self.place else { return self.conclude() }
        do throws(StoreFault) {
            let slice = try self.question.manager.store.check(place, limit: Self.sliceRecordCount)
            self.counts[place.database.rawValue] += slice.count
            self.place = slice.next
            self.pendingCount = 1
            for fault in slice.faults { self.take(fault) }
        } catch { return self.question.fail("the queue cannot be read: \(QueueLog.text(error))") }
        self.ended()
    }

    /// Run by hand, the queue has just been opened, and what that put right is part of the answer.
    private func tellRecovery() {
        let recovery = self.question.manager.recovery
        guard !self.question.manager.program.isSupervised, recovery.repairedDueCount > 0 else { return }
        self.repairedCount += recovery.repairedDueCount
        self.tell(
            QueueFault(
                .dueMissing, key: [],
                "\(recovery.repairedDueCount) entries of the due index were put right at the start"),
            "repaired")
    }

    private func take(_ fault: QueueFault) {
        QueueLog.fault(fault)
        guard fault.kind.isRepairable else { return self.tell(fault, "left") }
        guard self.isRepairing else { return self.tell(fault, "repairable") }
        self.pendingCount += 1
        self.question.manager.committer.add(
            .repair(fault),
            .told(
                CommitListener(committed: {
                    self.repairedCount += 1
                    // Memory may be behind: the index is read from there on again.
                    let manager = self.question.manager
                    if fault.kind == .dueMissing || fault.kind == .dueDestination {
                        manager.tell(.dueAdded(Timestamp(microseconds: 0)))
                    }
                    self.tell(fault, "repaired")
                    self.ended()
                })))
    }

    private func ended() {
        self.pendingCount -= 1
        if self.pendingCount == 0 { self.question.stepSoon() }
    }

    private func tell(_ fault: QueueFault, _ action: String) {
        self.faultCount += 1
        self.question.row(
            [
                ("fault", .init(decimal: self.faultCount)), ("kind", Array(fault.kind.rawValue.utf8)),
                ("id", fault.message?.octets ?? []), ("recipient", fault.number.map { .init(decimal: $0) } ?? []),
                ("text", Array(fault.text.utf8.prefix(500))), ("action", Array(action.utf8)),
            ])
    }

    private func conclude() {
        func count(_ database: CheckPlace.Database) -> [UInt8] { .init(decimal: self.counts[database.rawValue]) }
        self.question.row(
            [
                ("messages", count(.message)), ("recipients", count(.recipient)), ("due", count(.due)),
                ("contents", count(.content)), ("destinations", count(.destination)),
            ])
        self.question.row(
            [
                ("messages", count(.message)), ("found", .init(decimal: self.faultCount)),
                ("repaired", .init(decimal: self.repairedCount)),
            ])
        self.question.end(self.faultCount)
    }
}
