// SPDX-License-Identifier: Apache-2.0
//
// Group commit. One thread writes; while it syncs a transaction, everything that arrives is gathered for the next.
// Nothing is answered before its transaction is on stable storage, and a failed sync is never tried again as if nothing
// had happened.

import LMDBQueueStore
import MailTypes
import NIOCore
import NIOPosix
import QueueCore
import Unix

/// What is to be done when an operation is committed.
enum Completion {
    case nothing
    case accepted(Submission, NewMessage)
    case spilled(Submission, octetCount: Int)
    case settled(Settlement)
    case exchanged(Submission, NewMessage, Settlement)
    case forwarded([(Submission, NewMessage)], Settlement)
    case moved([DueMove])
    case operated(MessageID)
    /// Of an import or a repair.
    case told(CommitListener)
}

/// Who waits for one operation that concerns no mail in transit.
final class CommitListener {
    let committed: () -> Void
    /// There was no room for it.
    let refused: (_ reason: String) -> Void

    init(committed: @escaping () -> Void, refused: @escaping (String) -> Void = { _ in }) {
        self.committed = committed
        self.refused = refused
    }
}

/// Who is told of commits. All on the event loop.
protocol CommitterOwner: AnyObject {
    /// The transaction is on stable storage; in the order in which the operations were added.
    func committed(_ completions: [Completion], _ report: CommitReport)
    /// There was no room for these: nothing of them happened, and they are not tried again.
    func refused(_ completions: [Completion], _ reason: String)
    /// What is the queue's duty finds no room, or does again.
    func stoodStill(_ stands: Bool)
    /// The disk or the environment failed.
    func broke(_ reason: String)
}

/// Gathers operations and commits them in groups. To be used on the event loop.
final class Committer {
    private let store: LMDBQueueStore
    private let eventLoop: any EventLoop
    private let writer: NIOThreadPool
    weak var owner: (any CommitterOwner)?

    private var operations: [StoreOperation] = []
    private var completions: [Completion] = []
    /// New messages since the last transaction began.
    private var waitingMessageCount = 0
    /// Moves that wait. They go in small parts into transactions that are made anyway, or alone: nobody waits for them,
    /// and each touches pages of its own. A move that comes late does nothing wrong: it applies only to where it was from.
    private var moves: [DueMove] = []
    /// When the next transaction begins, unless one is being written then; nil if nothing waits.
    private var deadline: NIODeadline?
    /// Begins it; nil if it was begun or will be when the present one has been written.
    private var beginTask: Scheduled<Void>?
    private var isWriting = false
    private var isBroken = false
    /// Whether nothing is begun before the deadline, because there was no room.
    private var isFull = false
    /// At most so many operations are in the next transaction: fewer when more have found no room.
    private var countMax = Committer.operationCountMax
    private var isStandingStill = false
    /// Whether a probe has to find room before anything is delivered.
    private var isProbing = false
    /// Operations that one after the other have found no room alone, since one has.
    private var vainCount = 0
    private var company = Company()
    private(set) var commitCount: UInt64 = 0

    /// A transaction has at most so many operations, and takes no further one beyond so many octets of content: it must
    /// not keep the next one waiting for long.
    private static let operationCountMax = 4_000
    private static let octetCountMax = 8 << 20
    /// Moves of one transaction.
    private static let moveCountMax = 1_000
    /// So long outcomes wait for mail to share a transaction with: a sync saved for each message of a quiet relay, and
    /// far less than what a peer takes to answer.
    private static let outcomePatience = TimeAmount.milliseconds(3)
    /// So long a message waits for others, while waiting brings some: a transaction costs much the same for ten messages
    /// as for two.
    private static let messagePatience = TimeAmount.milliseconds(2)
    /// So many messages wait for no others: to hold more sessions up would cost more than it saves.
    private static let crowdCount = 8
    /// So many operations wait for nothing.
    private static let patientCountMax = 100
    /// How long to wait when there is no room even for outcomes.
    private static let fullDelay = TimeAmount.seconds(1)
    /// How long, if others have not been tried yet.
    private static let turnDelay = TimeAmount.milliseconds(10)

    init(_ store: LMDBQueueStore, on eventLoop: any EventLoop) {
        self.store = store
        self.eventLoop = eventLoop
        self.writer = NIOThreadPool(numberOfThreads: 1)
        self.writer.start()
    }

    private var isEmpty: Bool { self.operations.isEmpty && self.moves.isEmpty }

    var isIdle: Bool { self.isEmpty && !self.isWriting }

    /// Moves recipients in the due index; the owner is told of them by `.moved`, in other portions than they come in.
    func add(_ moves: [DueMove]) {
        self.moves += moves
        self.schedule(in: Self.outcomePatience)
    }

    func add(_ operation: StoreOperation, _ completion: Completion) {
        self.operations.append(operation)
        self.completions.append(completion)
        if case .accept = operation { self.waitingMessageCount += 1 }
        let isCrowd = self.waitingMessageCount >= Self.crowdCount || self.operations.count >= Self.patientCountMax
        self.schedule(in: isCrowd ? .zero : self.patience(operation))
    }

    /// How long an operation may wait for others to share its transaction with.
    private func patience(_ operation: StoreOperation) -> TimeAmount {
        switch operation {
        case .restore, .spill, .probe, .exchange, .operate, .repair: .zero
        case .accept: self.company.isWorthWaiting ? Self.messagePatience : .zero
        case .discard, .settle, .move, .quarantine, .destination: Self.outcomePatience
        }
    }

    /// Takes back what waits of a submission. False if its acceptance is being written, and so cannot be taken back.
    func withdraw(_ submission: Submission) -> Bool {
        var isOurs = !submission.isCommitting
        for index in self.completions.indices.reversed() {
            switch self.completions[index] {
            case .accepted(let other, _) where other === submission: isOurs = true
            case .spilled(let other, _) where other === submission: break
            case .nothing, .accepted, .spilled, .settled, .exchanged, .forwarded, .moved, .operated, .told: continue
            }
            self.completions.remove(at: index)
            self.operations.remove(at: index)
        }
        return isOurs
    }

    /// Begins the next transaction after this time at the latest; with zero at the end of this turn of the event loop, so
    /// that all that arrived in it is shared.
    private func schedule(in patience: TimeAmount) {
        let wanted = NIODeadline.now() + patience
        guard !self.isFull, wanted < self.deadline ?? .distantFuture else { return }
        self.deadline = wanted
        if !self.isWriting { self.startTimer() }
    }

    private func startTimer() {
        guard let deadline = self.deadline else { return }
        self.beginTask?.cancel()
        self.beginTask = self.eventLoop.assumeIsolated().scheduleTask(deadline: deadline) { self.begin() }
    }

    private func begin() {
        guard !self.isWriting else { return }
        self.beginTask?.cancel()
        self.beginTask = nil
        self.deadline = nil
        self.waitingMessageCount = 0
        self.isFull = false
        guard !self.isBroken, !self.isEmpty else { return }
        var messageCount = 0
        var count = 0
        var octetCount = 0
        for operation in self.operations {
            guard count < self.countMax, octetCount < Self.octetCountMax else { break }
            count += 1
            messageCount += operation.messageCount
            octetCount += operation.contentOctetCount
        }
        var operations: [StoreOperation]
        var completions: [Completion]
        if count == self.operations.count {
            operations = self.operations
            completions = self.completions
            self.operations = []
            self.completions = []
        } else {
            operations = Array(self.operations[..<count])
            completions = Array(self.completions[..<count])
            self.operations.removeFirst(count)
            self.completions.removeFirst(count)
            self.deadline = .now()
        }
        if !self.moves.isEmpty {
            let moves = Array(self.moves.prefix(min(Self.moveCountMax, self.countMax)))
            self.moves.removeFirst(moves.count)
            operations.append(.move(moves))
            completions.append(.moved(moves))
            if !self.moves.isEmpty, self.deadline == nil { self.deadline = .now() + Self.outcomePatience }
        }
        self.company.note(messageCount: messageCount)
        self.write(operations, completions)
    }

    private func write(_ operations: [StoreOperation], _ completions: [Completion]) {
        self.isWriting = true
        let store = self.store
        let eventLoop = self.eventLoop
        let bound = NIOLoopBound((self, operations, completions), eventLoop: eventLoop)
        self.writer.submit { _ in
            let result: Result<CommitReport, StoreFault>
            do throws(StoreFault) { result = .success(try store.commit(operations)) } catch { result = .failure(error) }
            eventLoop.execute {
                let (committer, operations, completions) = bound.value
                committer.ended(result, operations, completions)
            }
        }
    }

    private func ended(
        _ result: Result<CommitReport, StoreFault>, _ operations: [StoreOperation], _ completions: [Completion]
    ) {
        self.isWriting = false
        self.commitCount += 1
        switch result {
        case .success(let report):
            self.countMax = min(2 * self.countMax, Self.operationCountMax)
            self.vainCount = 0
            if self.isProbing { self.isProbing = !operations.contains(where: \.isProbe) }
            // What is small may have found room where a probe does not.
            if !self.isProbing { self.setStandstill(false) }
            // The next transaction begins before this one's answers are made, if it is due.
            if let deadline = self.deadline, deadline <= .now() { self.begin() } else { self.startTimer() }
            self.owner?.committed(completions, report)
        case .failure(.full(let reason)): self.split(operations, completions, reason)
        case .failure(.broken(let reason)):
            self.isBroken = true
            self.owner?.broke(reason)
        }
    }

    /// Stands still until the probe has found room that is added next.
    func standStillUntilProbed() {
        self.isProbing = true
        self.setStandstill(true)
    }

    private func setStandstill(_ stands: Bool) {
        guard stands != self.isStandingStill else { return }
        self.isStandingStill = stands
        self.owner?.stoodStill(stands)
    }

    /// Refuses the new mail that waits.
    private func refuseWaitingMail(_ reason: String) {
        let waiting = Array(zip(self.operations, self.completions))
        let refused = waiting.filter { $0.0.isNewMail }
        guard !refused.isEmpty else { return }
        let kept = waiting.filter { !$0.0.isNewMail }
        self.operations = kept.map(\.0)
        self.completions = kept.map(\.1)
        self.owner?.refused(refused.map(\.1), reason)
    }

    /// No room: new mail is refused, and what is the queue's duty already is tried again without it.
    private func split(_ operations: [StoreOperation], _ completions: [Completion], _ reason: String) {
        var refused: [Completion] = []
        var kept: [(StoreOperation, Completion)] = []
        for (operation, completion) in zip(operations, completions) {
            if operation.isProbe {
                self.putOff(operation, completion, reason)
            } else if operation.isNewMail {
                refused.append(completion)
            } else {
                kept.append((operation, completion))
            }
        }
        if kept.count == 1, operations.count == 1, let (operation, completion) = kept.first {
            self.putBehindOthers(operation, completion)
        } else {
            self.operations.insert(contentsOf: kept.map(\.0), at: 0)
            self.completions.insert(contentsOf: kept.map(\.1), at: 0)
        }
        guard refused.isEmpty, kept.count == operations.count else {
            if !refused.isEmpty { self.owner?.refused(refused, reason) }
            return self.begin()
        }
        // Why: behind what stands still it would wait for as long, and its clients with it.
        self.refuseWaitingMail(reason)
        self.standStill(reason, wasAlone: operations.count == 1)
        // A smaller transaction needs fewer pages, and what it deletes gives pages to the next.
        self.countMax = max(1, operations.count / 2)
    }

    /// Waits before it is tried again; where one has found no room alone, the others are tried first, as one of them may make some.
    private func standStill(_ reason: String, wasAlone: Bool) {
        self.setStandstill(true)
        self.isFull = true
        self.vainCount = wasAlone ? self.vainCount + 1 : 0
        let isInTurn = wasAlone && self.vainCount < self.operations.count
        self.deadline = .now() + (isInTurn ? Self.turnDelay : Self.fullDelay)
        self.startTimer()
        guard !isInTurn else { return }
        self.vainCount = 0
        self.log(reason)
    }

    private func log(_ reason: String) {
        var line = LogLine("queue-full")
        line.add("reason", reason)
        line.add("waiting", self.operations.count)
        line.write()
    }

    /// Puts what has found no room alone behind what is about other messages: an order that removes some must not wait for it.
    private func putBehindOthers(_ operation: StoreOperation, _ completion: Completion) {
        let waiting = Array(zip(self.operations, self.completions))
        let message = operation.message
        let later = message == nil ? [] : waiting.filter { $0.0.message == message }
        let others = message == nil ? waiting : waiting.filter { $0.0.message != message }
        let order = others + [(operation, completion)] + later
        self.operations = order.map(\.0)
        self.completions = order.map(\.1)
    }

    /// Makes a probe again in a while. Nobody waits for it: operators may make room meanwhile, and a stop need not wait.
    private func putOff(_ operation: StoreOperation, _ completion: Completion, _ reason: String) {
        self.log(reason)
        self.eventLoop.assumeIsolated().scheduleTask(in: Self.fullDelay) { self.add(operation, completion) }
    }
}
