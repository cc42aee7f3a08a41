// SPDX-License-Identifier: Apache-2.0

import MailTypes
import PipeCore
import Unix

/// A message that has come whole, and what is still to be done with it: recipient by recipient, one instruction after the
/// other, up to one that does not succeed.
struct LocalRun {
    private enum Activity {
        /// The next instruction is to be begun.
        case none
        /// The mailbox is locked by somebody else.
        case locking(retry: Duration, limit: Duration)
        case program(ProgramRun)
    }

    /// What an instruction needs to know.
    struct Surroundings {
        let rules: LocalAgent.Rules
        let shelf: MaildirShelf
        let now: Duration
        let clock: Timestamp
        /// How many programs may still be started.
        var programRoom: Int
        /// Programs that were killed and have not ended.
        var unended: [Int32] = []
    }

    private let delivery: Delivery
    private let content: ContentFile
    private var plans: ArraySlice<LocalPlan>
    /// How many instructions of the first plan are done.
    private var doneCount = 0
    /// How many instructions have ended, of all plans.
    private(set) var endCount = 0
    private var activity = Activity.none
    /// Maildirs that the first recipient's mail is in.
    private var witnesses: [Witness] = []

    /// What proves to a later attempt that this one has delivered.
    struct Witness {
        /// The recipient's.
        let number: UInt32
        let mailbox: OpenMaildir
        let name: String
    }

    /// What became of a recipient.
    struct Settled {
        let plan: LocalPlan
        let outcome: DeliveryOutcome
        /// Where the mail goes on to.
        var forwards: [Forward] = []
        /// To be removed when that is noted.
        var witnesses: [Witness] = []

        var recipient: DeliveryRecipient { self.plan.recipient }
    }

    private static let lockRetryTime = Duration.milliseconds(200)
    private static let lockTime = Duration.seconds(30)

    init(_ delivery: Delivery, _ content: ContentFile, _ plans: [LocalPlan]) {
        self.delivery = delivery
        self.content = content
        self.plans = plans[...]
    }

    var isDone: Bool { self.plans.isEmpty }

    var program: ProgramRun? {
        if case .program(let run) = self.activity { return run }
        return nil
    }

    /// Whether it waits for others' programs to end.
    var isWaitingForRoom: Bool {
        guard case .none = self.activity, let plan = self.plans.first, self.doneCount < plan.instructions.count,
            case .program = plan.instructions[self.doneCount]
        else { return false }
        return true
    }

    /// When it is to be looked after at the latest.
    var deadline: Duration? {
        switch self.activity {
        case .none: nil
        case .locking(let retry, _): retry
        case .program(let run): run.deadline
        }
    }

    /// Goes on as far as it can without waiting; tells what became of recipients.
    mutating func advance(_ surroundings: inout Surroundings) -> [Settled] {
        var settled: [Settled] = []
        while let plan = self.plans.first {
            var forwards = plan.forwards
            var outcome = LocalFate.discarded
            if self.doneCount < plan.instructions.count {
                guard let verdict = self.step(plan, &surroundings) else { break }
                self.activity = .none
                self.endCount += 1
                outcome = verdict.outcome
                if verdict.isLast { forwards = Array(forwards.prefix(plan.forwardCounts[self.doneCount])) }
                self.doneCount += 1
                guard outcome.kind != .delivered || verdict.isLast || self.doneCount == plan.instructions.count else {
                    continue
                }
            }
            settled.append(self.settle(plan, outcome, forwards))
        }
        return settled
    }

    private mutating func settle(
        _ plan: LocalPlan, _ outcome: DeliveryOutcome, _ forwards: [Forward]
    ) -> Settled {
        var result = Settled(plan: plan, outcome: outcome)
        if outcome.kind == .delivered, !forwards.isEmpty {
            let text = forwards.count == 1 ? "sent on to another address" : "sent on to \(forwards.count) addresses"
            result = Settled(
                plan: plan, outcome: LocalFate.outcome(.delivered, EnhancedStatus(.success, 0, 0), text),
                forwards: forwards)
        }
        // Of mail that is tried again, they must tell where it is already.
        if outcome.kind != .deferred { result.witnesses = self.witnesses }
        self.witnesses = []
        self.plans = self.plans.dropFirst()
        self.doneCount = 0
        return result
    }

    /// What came of the next instruction; nil if it is still under way.
    private mutating func step(_ plan: LocalPlan, _ surroundings: inout Surroundings) -> ProgramRun.Verdict? {
        do throws(SystemError) {
            switch plan.instructions[self.doneCount] {
            case .mbox(let place): return try self.append(plan, to: place, surroundings)
            case .program(let command): return try self.run(command, plan, &surroundings)
            case .maildir(let place): return try self.put(plan, into: place, surroundings)
            case .discard: return ProgramRun.Verdict(outcome: LocalFate.discarded)
            }
        } catch {
            var line = LogLine("delivery-fault")
            line.add("id", self.delivery.id)
            line.add("reason", error.text)
            line.write()
            return ProgramRun.Verdict(outcome: surroundings.rules.outcome(of: error))
        }
    }

    // MARK: Maildir

    /// One message alone, with all its steps; the agent's batches are for users without a file of their own.
    private mutating func put(
        _ plan: LocalPlan, into place: MailboxPlace, _ surroundings: Surroundings
    ) throws(SystemError) -> ProgramRun.Verdict {
        let mailbox = try surroundings.shelf.open(place)
        let name = MaildirName.name(
            self.delivery.id, recipient: plan.recipient.number, step: self.doneCount,
            hostname: surroundings.rules.hostname)
        var isEarlier = true
        if case .file(var file) = try MaildirFile.begin(name, in: mailbox.maildir) {
            isEarlier = false
            defer { file.close() }
            let rules = surroundings.rules
            guard try mailbox.reserve(self.content.octetCount, 1, rules.quota, now: surroundings.clock) else {
                file.discard()
                return ProgramRun.Verdict(outcome: rules.overQuota)
            }
            let lines = self.delivery.lines(for: plan.recipient, from: plan.sender)
            try mailbox.put(&file, behind: lines) { file throws(SystemError) in
                try self.content.forEachPart { part throws(SystemError) in try file.append(converted: Array(part)) }
            }
        }
        if let fault = mailbox.syncFault() {
            MaildirFile.removeWitness(name, in: mailbox.maildir)
            throw fault
        }
        self.witnesses.append(Witness(number: plan.recipient.number, mailbox: mailbox, name: name))
        return ProgramRun.Verdict(outcome: (isEarlier ? LocalFate.deliveredEarlier : .delivered).outcome)
    }

    // MARK: mbox

    private mutating func append(
        _ plan: LocalPlan, to place: MailboxPlace, _ surroundings: Surroundings
    ) throws(SystemError) -> ProgramRun.Verdict? {
        if case .locking(let retry, _) = self.activity, surroundings.now < retry { return nil }
        guard let mailbox = try MboxFile.open(place, now: surroundings.clock) else {
            var limit = surroundings.now + Self.lockTime
            if case .locking(_, let first) = self.activity { limit = first }
            guard surroundings.now < limit else {
                return ProgramRun.Verdict(
                    outcome: LocalFate.outcome(
                        .deferred, EnhancedStatus(.transient, 2, 0), "the mailbox is locked by another program"))
            }
            self.activity = .locking(retry: surroundings.now + Self.lockRetryTime, limit: limit)
            return nil
        }
        defer { mailbox.close() }
        let heading =
            MboxFile.fromLine(plan.sender, surroundings.clock)
            + self.delivery.lines(for: plan.recipient, from: plan.sender)
        do throws(SystemError) {
            try mailbox.append(heading, self.content)
        } catch {
            guard error.code == Errno.fileTooBig else { throw error }
            // It is the mailbox that is too large, not the message.
            return ProgramRun.Verdict(
                outcome: LocalFate.outcome(
                    .deferred, EnhancedStatus(.transient, 2, 2), "the mailbox is as large as a file may be"))
        }
        return ProgramRun.Verdict(outcome: LocalFate.delivered.outcome)
    }

    // MARK: Programs

    private mutating func run(
        _ command: ProgramCommand, _ plan: LocalPlan, _ surroundings: inout Surroundings
    ) throws(SystemError) -> ProgramRun.Verdict? {
        if case .program(var run) = self.activity {
            let verdict = run.advance(surroundings.now)
            self.activity = .program(run)
            if verdict != nil { surroundings.programRoom += 1 }
            if let pid = verdict?.unended { surroundings.unended.append(pid) }
            return verdict
        }
        guard surroundings.programRoom > 0 else { return nil }
        let rules = surroundings.rules
        let words = DeliveryWords(
            plan.recipient, from: plan.sender, route: self.delivery.route, user: rules.userName(for: self.delivery),
            home: rules.home)
        let lines = command.dialect == .qmail ? [] : self.delivery.lines(for: plan.recipient, from: plan.sender)
        let message = try self.content.copy(behind: lines)
        defer { message.close() }
        self.activity = .program(
            try ProgramRun.start(
                command, message, words, directory: rules.programDirectory(for: self.delivery),
                terms: rules.programs, now: surroundings.now))
        surroundings.programRoom -= 1
        return nil
    }

    /// The link is gone.
    mutating func abandon() {
        if case .program(var run) = self.activity { run.abandon() }
        self.activity = .none
    }
}
