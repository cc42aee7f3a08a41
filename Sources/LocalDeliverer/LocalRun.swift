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
        let now: Duration
        let clock: Timestamp
        /// How many programs may still be started.
        var programRoom: Int
    }

    private let delivery: Delivery
    private let content: ContentFile
    private var recipients: ArraySlice<DeliveryRecipient>
    private let instructions: [LocalInstruction]
    /// How many instructions are done for the first recipient.
    private var doneCount = 0
    private var activity = Activity.none

    private static let lockRetryTime = Duration.milliseconds(200)
    private static let lockTime = Duration.seconds(30)

    init(
        _ delivery: Delivery, _ content: ContentFile, for recipients: [DeliveryRecipient],
        _ instructions: [LocalInstruction]
    ) {
        self.delivery = delivery
        self.content = content
        self.recipients = recipients[...]
        self.instructions = instructions
    }

    var isDone: Bool { self.recipients.isEmpty }

    var program: ProgramRun? {
        if case .program(let run) = self.activity { return run }
        return nil
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
    mutating func advance(_ surroundings: inout Surroundings) -> [(DeliveryRecipient, DeliveryOutcome)] {
        var outcomes: [(DeliveryRecipient, DeliveryOutcome)] = []
        while let recipient = self.recipients.first {
            guard let outcome = self.step(recipient, &surroundings) else { break }
            self.activity = .none
            self.doneCount += 1
            guard outcome.kind != .delivered || self.doneCount == self.instructions.count else { continue }
            outcomes.append((recipient, outcome))
            self.recipients = self.recipients.dropFirst()
            self.doneCount = 0
        }
        return outcomes
    }

    /// The outcome of the instruction that is the next for a recipient; nil if it is still under way.
    private mutating func step(_ recipient: DeliveryRecipient, _ surroundings: inout Surroundings) -> DeliveryOutcome? {
        guard self.doneCount < self.instructions.count else { return LocalFate.discarded }
        do throws(SystemError) {
            switch self.instructions[self.doneCount] {
            case .mbox(let place): return try self.append(recipient, to: place, surroundings)
            case .program(let command): return try self.run(command, recipient, &surroundings)
            case .maildir(let place):
                // A mailbox alone is delivered to in batches, by the agent.
                preconditionFailure("a Maildir in a run: \(place.path)")
            case .discard: return LocalFate.discarded
            }
        } catch {
            var line = LogLine("delivery-fault")
            line.add("id", self.delivery.id)
            line.add("reason", error.text)
            line.write()
            return LocalFate.outcome(of: error)
        }
    }

    // MARK: mbox

    private mutating func append(
        _ recipient: DeliveryRecipient, to place: MailboxPlace, _ surroundings: Surroundings
    ) throws(SystemError) -> DeliveryOutcome? {
        if case .locking(let retry, _) = self.activity, surroundings.now < retry { return nil }
        guard let mailbox = try MboxFile.open(place, now: surroundings.clock) else {
            var limit = surroundings.now + Self.lockTime
            if case .locking(_, let first) = self.activity { limit = first }
            guard surroundings.now < limit else {
                return LocalFate.outcome(
                    .deferred, EnhancedStatus(.transient, 2, 0), "the mailbox is locked by another program")
            }
            self.activity = .locking(retry: surroundings.now + Self.lockRetryTime, limit: limit)
            return nil
        }
        defer { mailbox.close() }
        let heading =
            MboxFile.fromLine(self.delivery.reversePath, surroundings.clock) + self.delivery.lines(for: recipient)
        do throws(SystemError) {
            try mailbox.append(heading, self.content)
        } catch {
            guard error.code == Errno.fileTooBig else { throw error }
            // It is the mailbox that is too large, not the message.
            return LocalFate.outcome(
                .deferred, EnhancedStatus(.transient, 2, 2), "the mailbox is as large as a file may be")
        }
        return LocalFate.delivered.outcome
    }

    // MARK: Programs

    private mutating func run(
        _ command: ProgramCommand, _ recipient: DeliveryRecipient, _ surroundings: inout Surroundings
    ) throws(SystemError) -> DeliveryOutcome? {
        if case .program(var run) = self.activity {
            let outcome = run.advance(surroundings.now)
            self.activity = .program(run)
            return outcome
        }
        guard surroundings.programRoom > 0 else { return nil }
        let rules = surroundings.rules
        let words = DeliveryWords(self.delivery, recipient, user: rules.userName(for: self.delivery), home: rules.home)
        let message = try self.content.copy(behind: self.delivery.lines(for: recipient))
        defer { message.close() }
        self.activity = .program(
            try ProgramRun.start(
                command, message, words, home: rules.home, terms: rules.programs, now: surroundings.now))
        surroundings.programRoom -= 1
        return nil
    }

    /// The link is gone.
    mutating func abandon() {
        if case .program(var run) = self.activity { run.abandon() }
        self.activity = .none
    }
}
