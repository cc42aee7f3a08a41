// SPDX-License-Identifier: Apache-2.0

import Glibc
import MailTypes
import PipeCore
package import Unix

/// What programs may use.
package struct ProgramTerms: Hashable, Sendable {
    /// A program that takes longer is killed, with all that it has started.
    package var time: Duration = .seconds(600)
    /// At so many programs of one user at once, the others wait.
    package var countMax = 2
    package var limits = ResourceLimits()

    package init() {}
}

/// A program that has been given a message.
struct ProgramRun {
    private let command: ProgramCommand
    private let pid: Int32
    /// Becomes readable when it has ended.
    let watch: Descriptor
    /// What it prints, on its standard output and its standard error.
    let output: Descriptor
    /// When it is killed, and after that when nobody waits for its end any more.
    private(set) var deadline: Duration
    private var isKilled = false
    /// The beginning of what it has printed.
    private var text: [UInt8] = []
    private var isOutputOpen = true

    private static let textOctetCountMax = 2_000
    /// One that was killed and does not end in this time cannot be killed: it has become another user's, or hangs in the system.
    private static let killTime = Duration.seconds(10)

    /// - Parameters:
    ///   - message: is at its beginning; the caller closes it.
    static func start(
        _ command: ProgramCommand, _ message: Descriptor, _ words: DeliveryWords, directory: String,
        terms: ProgramTerms, now: Duration
    ) throws(SystemError) -> ProgramRun {
        // Why: a home that is not there is told as such, and not as a program that cannot be started.
        try Descriptor.openDirectory(directory).close()
        let (output, theirs) = try Descriptor.pipe()
        defer { theirs.close() }
        var spawn = Spawn(path: command.arguments[0], arguments: command.arguments.map { words.filled($0) })
        spawn.arguments[0] = command.arguments[0]
        spawn.environment = words.environment + command.environment
        spawn.directory = directory
        spawn.descriptors = [message, theirs, theirs]
        spawn.isOwnSession = true
        spawn.diesWithParent = true
        spawn.limits = terms.limits
        do throws(SystemError) {
            try output.setNonBlocking(true)
            let pid = try spawn.start()
            do throws(SystemError) {
                return ProgramRun(
                    command: command, pid: pid, watch: try ChildProcess.watch(pid), output: output,
                    deadline: now + terms.time)
            } catch {
                ChildProcess.killGroup(pid)
                _ = ChildProcess.end(of: pid, isWaiting: true)
                throw error
            }
        } catch {
            output.close()
            throw error
        }
    }

    private init(command: ProgramCommand, pid: Int32, watch: Descriptor, output: Descriptor, deadline: Duration) {
        self.command = command
        self.pid = pid
        self.watch = watch
        self.output = output
        self.deadline = deadline
    }

    /// Whether its output is still to be read.
    var hasOutput: Bool { self.isOutputOpen }

    /// What it made of a message.
    struct Verdict {
        let outcome: DeliveryOutcome
        /// A process that has not ended although it was killed: to be waited for later, or it would stay as a zombie.
        var unended: Int32?
        /// Whether what stands behind it in the user's file is not to be done.
        var isLast = false
    }

    /// Looks after it; what became of the message when it has ended.
    mutating func advance(_ now: Duration) -> Verdict? {
        self.readOutput()
        if now >= self.deadline, !self.isKilled {
            self.isKilled = true
            self.deadline = now + Self.killTime
            ChildProcess.killGroup(self.pid)
        }
        guard let end = ChildProcess.end(of: self.pid, isWaiting: false) else {
            guard self.isKilled, now >= self.deadline else { return nil }
            self.watch.close()
            self.output.close()
            let said = "took too long, and cannot be ended"
            return Verdict(
                outcome: self.outcome(.deferred, EnhancedStatus(.transient, 3, 0), said), unended: self.pid)
        }
        // What it left behind in the background may hold the pipe for as long as it likes.
        self.readOutput()
        self.watch.close()
        self.output.close()
        if self.isKilled {
            return Verdict(outcome: self.outcome(.deferred, EnhancedStatus(.transient, 3, 0), "took too long"))
        }
        // qmail-command(8): taken, and nothing else is to be done.
        if end == .exited(99), self.command.dialect == .qmail {
            return Verdict(outcome: self.outcome(.exited(0)), isLast: true)
        }
        return Verdict(outcome: self.outcome(end))
    }

    /// Kills it: the delivery is given up. Its end is waited for, but not that of one that cannot be killed.
    mutating func abandon() {
        ChildProcess.killGroup(self.pid)
        var poll = Poll()
        _ = poll.add(self.watch, reading: true)
        poll.wait(Self.abandonTime)
        _ = ChildProcess.end(of: self.pid, isWaiting: false)
        self.watch.close()
        self.output.close()
    }

    private static let abandonTime = Duration.seconds(1)

    private mutating func readOutput() {
        // So much at most at once: others wait too.
        for _ in 0..<16 where self.isOutputOpen {
            guard let octets = try? self.output.read(upTo: 4_096) else { return }
            if octets.isEmpty { self.isOutputOpen = false }
            self.text += octets.prefix(Self.textOctetCountMax - min(self.text.count, Self.textOctetCountMax))
        }
    }

    // MARK: Outcomes

    private func outcome(_ end: ChildProcess.End) -> DeliveryOutcome {
        switch end {
        case .exited(0):
            return self.outcome(.delivered, EnhancedStatus(.success, 0, 0), "has taken it")
        case .exited(let code):
            let said = "ended with status \(code)"
            let failures = self.command.dialect == .qmail ? Self.qmailFailures : Self.failures
            if let status = failures[code] { return self.outcome(.failed, status, said) }
            return self.outcome(.deferred, EnhancedStatus(.transient, 3, 0), said)
        case .killed(let signal):
            return self.outcome(.deferred, EnhancedStatus(.transient, 3, 0), "was killed by signal \(signal)")
        case .unknown:
            return self.outcome(.deferred, EnhancedStatus(.transient, 3, 0), "has ended, and how is not known")
        }
    }

    /// Exit statuses of sysexits.h that mean that it will never be taken. Every other one, a program that cannot be found
    /// included, is somebody's mistake: the mail waits.
    private static let failures: [CInt: EnhancedStatus] = [
        64: EnhancedStatus(.permanent, 3, 0), 65: EnhancedStatus(.permanent, 6, 0),
        66: EnhancedStatus(.permanent, 3, 0), 67: EnhancedStatus(.permanent, 1, 1),
        68: EnhancedStatus(.permanent, 1, 2), 69: EnhancedStatus(.permanent, 3, 0),
        70: EnhancedStatus(.permanent, 3, 0), 72: EnhancedStatus(.permanent, 3, 0),
        73: EnhancedStatus(.permanent, 2, 0), 76: EnhancedStatus(.permanent, 5, 0),
        77: EnhancedStatus(.permanent, 7, 0), 78: EnhancedStatus(.permanent, 3, 5),
    ]

    private static let qmailFailures: [CInt: EnhancedStatus] = {
        let failed = EnhancedStatus(.permanent, 3, 0)
        return [64: failed, 65: failed, 70: failed, 76: failed, 77: failed, 78: failed, 100: failed, 112: failed]
    }()

    private func outcome(_ kind: DeliveryOutcome.Kind, _ status: EnhancedStatus, _ said: String) -> DeliveryOutcome {
        let name = self.command.arguments[0].split(separator: "/").last.map(String.init) ?? "the program"
        var text = Array("\(name) \(said)".utf8)
        let lines = self.text.split(whereSeparator: { $0 == 0x0A || $0 == 0x0D }).filter { line in
            line.contains { $0 > 0x20 }
        }
        if !lines.isEmpty, kind != .delivered {
            text.append(text: ": ")
            text += lines.joined(separator: Array("; ".utf8))
        }
        return DeliveryOutcome(kind, code: 0, status: status, reporter: Array(LocalFate.reporter.utf8), text: text)
    }
}
