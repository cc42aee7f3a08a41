// SPDX-License-Identifier: Apache-2.0

package import PipeCore
package import Settings

/// One process that apusd keeps running: a program, or one of the workers of apus-smtpd.
package struct Part: Hashable, Sendable {
    package let program: ProgramName
    /// From 0; more than 0 for the further workers of apus-smtpd only.
    package let number: Int

    package init(_ program: ProgramName, _ number: Int = 0) {
        self.program = program
        self.number = number
    }

    /// `apus-queue`; the further workers are `apus-smtpd/2` and so on.
    package var name: String {
        self.number == 0 ? self.program.rawValue : "\(self.program.rawValue)/\(self.number + 1)"
    }
}

/// A pair of pipes between two processes. `from` asks, submits or dispatches; `to` answers, queues or delivers.
package struct LinkPlan: Hashable, Sendable {
    package let dialect: Dialect
    package let from: Part
    package let to: Part

    package init(_ dialect: Dialect, from: Part, to: Part) {
        self.dialect = dialect
        self.from = from
        self.to = to
    }
}

/// Decides when which process is started, linked, stopped and killed.
///
/// Pure: what happened comes in with the time it happened, what is to be done goes out. Processes, pipes and the
/// clock are `Supervisor`'s. Times count from any fixed instant, on a clock that is never set.
package struct Supervision: Sendable {
    package struct Limits: Sendable {
        /// A process must say that it is ready within this time.
        package var readyTimeout: Duration = .seconds(120)
        /// A process that has served so long dies anew, not again.
        package var stableTime: Duration = .seconds(60)
        package var backOffMax: Duration = .seconds(30)
        /// How long stopping may take, all in all.
        package var stopTimeout: Duration = .seconds(30)
        /// How long another's program may take to end after its link has ended.
        package var endTimeout: Duration = .seconds(10)

        package init() {}
    }

    package enum Event: Equatable, Sendable {
        /// It serves.
        case ready(Part)
        /// It has ended, or could not be started.
        case exited(Part)
        /// It broke the rules of its control socket.
        case misbehaved(Part)
        /// Something that waited for its time may be due.
        case timePassed
        /// So many processes of apus-smtpd are wanted from now on.
        case workerCount(Int)
        /// Other executables are to run for the first set of programs; those of the second are somebody else's.
        case replaced(Set<ProgramName>, foreign: Set<ProgramName>)
        /// Finish what is in flight, then end.
        case stop
        /// End at once.
        case kill
    }

    package enum Action: Equatable, Sendable {
        case spawn(Part)
        /// Make a pair of pipes and hand both their ends.
        case link(LinkPlan)
        /// Tell it that it has all it needs to begin.
        case start(Part)
        case stop(Part)
        case kill(Part)
        /// All serve for the first time.
        case announceReady
        /// No process is left: apusd can exit.
        case finish
    }

    /// Each phase names the phases it may become.
    private enum Phase: Equatable {
        /// Not running; to be started at that time. → `starting`, gone
        case waiting(until: Duration)
        /// → `serving`, `stopping`, `waiting`
        case starting(since: Duration)
        /// → `stopping`, `waiting`
        case serving(since: Duration)
        /// Told to end, killed at the deadline. → gone, or `waiting` if it is wanted again
        case stopping(deadline: Duration)
        /// Killed, not yet dead. → gone, `waiting`
        case killed
    }

    private struct Record {
        var phase: Phase
        /// Deaths in a row without a stable time between.
        var failureCount = 0
        /// How often it was started again.
        var restartCount = 0

        var isAlive: Bool {
            switch self.phase {
            case .starting, .serving: true
            case .waiting, .stopping, .killed: false
            }
        }
    }

    /// Who ends in which order: first nothing new comes in, then what is in flight is finished, then the agents go.
    private static let stopOrder: [[ProgramName]] = [[.smtpd], [.queue], [.lookup, .vault, .remote, .local, .bounce]]

    private static let linkTable: [(Dialect, from: ProgramName, to: ProgramName)] = [
        (.submit, .smtpd, .queue), (.ask, .smtpd, .lookup), (.vault, .smtpd, .vault), (.ask, .queue, .lookup),
        (.vault, .remote, .vault),
        (.deliver, .queue, .remote), (.deliver, .queue, .local), (.deliver, .queue, .bounce),
    ]

    /// The order in which they are started: who answers before who asks.
    private static let startOrder: [ProgramName] = [.lookup, .vault, .remote, .local, .bounce, .queue, .smtpd]

    package var limits: Limits
    private var workerCount: Int
    /// Programs of others that are started in the place of ours: they have no control socket, and their link is
    /// descriptors 0 and 1.
    private var foreign: Set<ProgramName>
    private var records: [Part: Record] = [:]
    private var isReadyAnnounced = false
    /// Where in `stopOrder` stopping is, and when it began; nil while Apus is to run.
    private var stopping: (stage: Int, since: Duration)?
    private var isFinished = false

    package init(workerCount: Int, foreign: Set<ProgramName> = [], limits: Limits = Limits()) {
        self.workerCount = workerCount
        self.foreign = foreign
        self.limits = limits
        for part in self.wantedParts { self.records[part] = Record(phase: .waiting(until: .zero)) }
    }

    /// All processes that are to run, in the order of their start.
    private var wantedParts: [Part] {
        Self.startOrder.flatMap { program in
            (0..<(program == .smtpd ? self.workerCount : 1)).map { Part(program, $0) }
        }
    }

    /// The known processes in the order of their start: dictionaries have none that is the same twice.
    private var parts: [Part] {
        let wanted = self.wantedParts
        let others = self.records.keys.filter { !wanted.contains($0) }.sorted { $0.number < $1.number }
        return wanted.filter { self.records[$0] != nil } + others
    }

    /// How it goes for one process, for `apus status`.
    package func state(of part: Part) -> (word: String, restartCount: Int) {
        guard let record = self.records[part] else { return ("stopped", 0) }
        let word =
            switch record.phase {
            case .waiting: "waiting"
            case .starting: "starting"
            case .serving: "running"
            case .stopping, .killed: "stopping"
            }
        return (word, record.restartCount)
    }

    /// The processes that exist or are to exist, for `apus status`.
    package var knownParts: [Part] { self.parts }

    package var isStopping: Bool { self.stopping != nil }

    /// When `timePassed` is to be told next; nil if nothing waits for its time.
    package var nextDeadline: Duration? {
        var deadlines: [Duration] = []
        for (part, record) in self.records {
            switch record.phase {
            case .waiting(let until) where self.canStart(part): deadlines.append(until)
            case .starting(let since): deadlines.append(since + self.limits.readyTimeout)
            case .stopping(let deadline): deadlines.append(deadline)
            case .waiting, .serving, .killed: break
            }
        }
        return deadlines.min()
    }

    /// A program of another's needs its link to be started at all. And at the first start apus-smtpd waits for those
    /// whom it asks, so that no client is told 451 only for being early; if one of them fails, 451 is the truth.
    private func canStart(_ part: Part) -> Bool {
        if part.program == .smtpd, !self.isReadyAnnounced {
            return [ProgramName.lookup, .vault, .queue].allSatisfy { program in
                guard let record = self.records[Part(program)] else { return true }
                if case .serving = record.phase { return true }
                return record.failureCount > 0
            }
        }
        return !self.foreign.contains(part.program) || self.records[Part(.queue)]?.isAlive == true
    }

    package mutating func receive(_ event: Event, now: Duration) -> [Action] {
        guard !self.isFinished else { return [] }
        var actions: [Action] = []
        switch event {
        case .ready(let part):
            if let record = self.records[part], case .starting = record.phase {
                self.records[part]?.phase = .serving(since: now)
            }
        case .exited(let part):
            self.exited(part, now: now, &actions)
        case .misbehaved(let part):
            self.kill(part, &actions)
        case .timePassed:
            self.killOverdue(now: now, &actions)
        case .workerCount where self.stopping != nil: break
        case .replaced where self.stopping != nil: break
        case .workerCount(let count):
            self.workerCount = max(count, 1)
            self.adjustWorkers(now: now, &actions)
        case .replaced(let changed, let foreign):
            self.foreign = foreign
            for part in self.parts where changed.contains(part.program) {
                self.stop(part, deadline: now + self.limits.endTimeout, &actions)
            }
        case .stop:
            if self.stopping == nil { self.beginStopping(now: now, &actions) }
        case .kill:
            if self.stopping == nil { self.stopping = (Self.stopOrder.count, now) }
            for part in self.parts { self.kill(part, &actions) }
        }
        if self.stopping == nil {
            self.startDue(now: now, &actions)
            self.announce(&actions)
        } else {
            self.advanceStopping(now: now, &actions)
        }
        return actions
    }

    // MARK: Starting

    private mutating func startDue(now: Duration, _ actions: inout [Action]) {
        var fresh: [Part] = []
        // The programs of others come last, for they need the queue.
        let parts =
            self.parts.filter { !self.foreign.contains($0.program) }
            + self.parts.filter { self.foreign.contains($0.program) }
        for part in parts {
            guard let record = self.records[part], case .waiting(let until) = record.phase, until <= now,
                self.canStart(part)
            else { continue }
            // Nobody says that another's program is ready; that it could be started must do.
            self.records[part]?.phase =
                self.foreign.contains(part.program) ? .serving(since: now) : .starting(since: now)
            actions.append(.spawn(part))
            fresh.append(part)
        }
        guard !fresh.isEmpty else { return }
        for link in self.links(of: fresh) { actions.append(.link(link)) }
        for part in fresh { actions.append(.start(part)) }
    }

    /// The links between the new processes, and between them and those that live.
    private func links(of fresh: [Part]) -> [LinkPlan] {
        var links: [LinkPlan] = []
        let living = self.parts.filter { self.records[$0]?.isAlive == true }
        // A program in the place of ours delivers, and knows of nobody but the queue.
        for (dialect, source, target) in Self.linkTable where !self.foreign.contains(source) {
            for from in living where from.program == source {
                for to in living where to.program == target && (fresh.contains(from) || fresh.contains(to)) {
                    // Another's program has the link it was started with and takes no second one.
                    guard !self.foreign.contains(target) || fresh.contains(to) else { continue }
                    links.append(LinkPlan(dialect, from: from, to: to))
                }
            }
        }
        return links
    }

    private mutating func announce(_ actions: inout [Action]) {
        guard !self.isReadyAnnounced else { return }
        for part in self.parts {
            guard case .serving? = self.records[part]?.phase else { return }
        }
        self.isReadyAnnounced = true
        actions.append(.announceReady)
    }

    // MARK: Dying

    private mutating func exited(_ part: Part, now: Duration, _ actions: inout [Action]) {
        guard var record = self.records[part] else { return }
        let phase = record.phase
        guard self.stopping == nil, self.wantedParts.contains(part) else {
            self.records[part] = nil
            return
        }
        switch phase {
        case .stopping:
            // It was asked to end and is wanted again: no failure.
            record.phase = .waiting(until: now)
        case .serving(let since) where now - since >= self.limits.stableTime:
            record.failureCount = 1
            record.phase = .waiting(until: now)
        case .serving, .starting, .waiting, .killed:
            record.failureCount += 1
            record.phase = .waiting(until: now + self.backOff(record.failureCount))
        }
        record.restartCount += 1
        self.records[part] = record
        if part.program == .queue {
            for other in self.parts where self.foreign.contains(other.program) {
                // The end of its link tells it to end; whoever does not is helped.
                guard case .serving? = self.records[other]?.phase else { continue }
                self.stop(other, deadline: now + self.limits.endTimeout, &actions)
            }
        }
    }

    /// At once, then 1 s, 2 s, 4 s … up to the limit.
    private func backOff(_ failureCount: Int) -> Duration {
        guard failureCount > 1 else { return .zero }
        return min(.seconds(1 << min(failureCount - 2, 20)), self.limits.backOffMax)
    }

    private mutating func kill(_ part: Part, _ actions: inout [Action]) {
        guard let record = self.records[part] else { return }
        switch record.phase {
        case .waiting:
            if self.stopping != nil { self.records[part] = nil }
        case .starting, .serving, .stopping:
            self.records[part]?.phase = .killed
            actions.append(.kill(part))
        case .killed: break
        }
    }

    private mutating func stop(_ part: Part, deadline: Duration, _ actions: inout [Action]) {
        guard let record = self.records[part] else { return }
        switch record.phase {
        case .waiting:
            if self.stopping != nil || !self.wantedParts.contains(part) { self.records[part] = nil }
        case .starting, .serving:
            self.records[part]?.phase = .stopping(deadline: deadline)
            actions.append(.stop(part))
        case .stopping, .killed: break
        }
    }

    private mutating func killOverdue(now: Duration, _ actions: inout [Action]) {
        for part in self.parts {
            switch self.records[part]?.phase {
            case .starting(let since)? where now - since >= self.limits.readyTimeout: self.kill(part, &actions)
            case .stopping(let deadline)? where now >= deadline: self.kill(part, &actions)
            case .waiting, .starting, .serving, .stopping, .killed, nil: break
            }
        }
    }

    private mutating func adjustWorkers(now: Duration, _ actions: inout [Action]) {
        let wanted = self.wantedParts
        for part in wanted where self.records[part] == nil {
            self.records[part] = Record(phase: .waiting(until: now))
        }
        for part in self.parts where !wanted.contains(part) {
            self.stop(part, deadline: now + self.limits.stopTimeout, &actions)
        }
    }

    // MARK: Stopping all

    private mutating func beginStopping(now: Duration, _ actions: inout [Action]) {
        self.stopping = (0, now)
        // What does not run need not be stopped.
        for part in self.parts { if case .waiting? = self.records[part]?.phase { self.records[part] = nil } }
        self.stopStage(0, since: now, &actions)
    }

    private mutating func stopStage(_ stage: Int, since: Duration, _ actions: inout [Action]) {
        // The first may take half of the time, the queue nearly all of the rest.
        let share = [50, 90, 100][min(stage, 2)]
        let deadline = since + self.limits.stopTimeout * share / 100
        for part in self.parts where Self.stopOrder[stage].contains(part.program) {
            self.stop(part, deadline: deadline, &actions)
        }
    }

    private mutating func advanceStopping(now: Duration, _ actions: inout [Action]) {
        guard let (stage, since) = self.stopping else { return }
        var next = stage
        while next < Self.stopOrder.count {
            let programs = Self.stopOrder[next]
            guard !self.records.keys.contains(where: { programs.contains($0.program) }) else { break }
            next += 1
            if next < Self.stopOrder.count { self.stopStage(next, since: since, &actions) }
        }
        self.stopping = (next, since)
        guard self.records.isEmpty else { return }
        self.isFinished = true
        actions.append(.finish)
    }
}
