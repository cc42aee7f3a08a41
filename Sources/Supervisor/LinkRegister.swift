// SPDX-License-Identifier: Apache-2.0

import Settings

/// The links between living processes, so that two that have lost theirs get a new one.
///
/// A link ends with one of its programs, and a new one comes with its successor. But it also ends when one of them
/// finds a frame in it that breaks the rules, and then both live. Whoever sees the end of a link tells (`unlinked`); if
/// both processes are still there after a moment, the one that matters less is to be started anew.
///
/// Who is started anew depends on the kind of the link alone, not on who told what: a program that was taken over must
/// not be able to have the queue killed.
package struct LinkRegister: Sendable {
    private struct Record {
        let plan: LinkPlan
        /// The processes.
        let from: Int32
        let to: Int32
        let patience: Duration
        /// When it is to be seen whether both still live; nil while the link is there.
        var deadline: Duration?
    }

    private var records: [UInt32: Record] = [:]
    private var lastNumber: UInt32 = 0

    package init() {}

    /// The number of a link to be made; never 0.
    package mutating func nextNumber() -> UInt32 {
        self.lastNumber = self.lastNumber == .max ? 1 : self.lastNumber + 1
        return self.lastNumber
    }

    /// Takes note of a link between two processes.
    ///
    /// - Parameter patience: how long both may live on without it.
    package mutating func add(_ plan: LinkPlan, _ number: UInt32, from: Int32, to: Int32, patience: Duration) {
        self.records[number] = Record(plan: plan, from: from, to: to, patience: patience)
    }

    /// A part has told that one of its links has ended. What is told of others' links is nothing.
    package mutating func ended(_ number: UInt32, toldBy part: Part, now: Duration) {
        guard let record = self.records[number], record.plan.from == part || record.plan.to == part,
            record.deadline == nil
        else { return }
        self.records[number]?.deadline = now + record.patience
    }

    /// A process is gone, and its links with it.
    package mutating func remove(_ pid: Int32) {
        self.records = self.records.filter { $0.value.from != pid && $0.value.to != pid }
    }

    package var nextDeadline: Duration? { self.records.values.compactMap(\.deadline).min() }

    /// The parts that have to be started anew, each with the one it has no link with any more. Each link is told once.
    package mutating func takeCut(now: Duration) -> [(part: Part, other: Part)] {
        var cut: [(part: Part, other: Part)] = []
        for (number, record) in self.records.sorted(by: { $0.key < $1.key }) {
            guard let deadline = record.deadline, deadline <= now else { continue }
            self.records[number] = nil
            let isFromLesser = record.plan.from.program == .smtpd
            cut.append(
                isFromLesser ? (record.plan.from, record.plan.to) : (record.plan.to, record.plan.from))
        }
        return cut
    }
}
