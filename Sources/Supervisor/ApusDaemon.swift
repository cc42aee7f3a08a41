// SPDX-License-Identifier: Apache-2.0

import CUnix
import Glibc
import MailTypes
import PipeCore
import Settings
import TLSEngine
import Unix

/// apusd: carries out what `Supervision` decides, in one thread and one poll loop.
package final class ApusDaemon {
    let configuration: String
    var settings: Settings
    let installation: Installation
    private let signals: Descriptor
    private let operatorSocket: OperatorSocket
    /// For the programs of this machine.
    let localListener: Listener
    let notifier: ServiceNotifier

    var supervision: Supervision
    /// What happened while other things were carried out.
    var events: [Supervision.Event] = []
    var processes: [Part: PartProcess] = [:]
    private var links = LinkRegister()
    var listeners: [Listener]
    var certificates: CertificateShelf

    private var clients: [OperatorClient] = []
    var gatherings: [UInt32: StatusGathering] = [:]
    var nextGathering: UInt32 = 1
    private var nextWatchdog: Duration?
    let startedAt = WallClock.now()
    private var isFinished = false
    private var stopSignalCount = 0

    /// Never returns: the process is apusd.
    package static func main() -> Never {
        ThisProcess.openStandardDescriptors()
        Log.setProgram("apusd")
        let options = DaemonOptions.read(Array(CommandLine.arguments.dropFirst()))
        signal(SIGPIPE, SIG_IGN)
        _ = apus_raise_descriptor_limit()
        umask(0o022)
        do throws(Installation.Fault) {
            let daemon = try ApusDaemon(configuration: options.configuration)
            daemon.run()
        } catch {
            var line = LogLine("start-failed")
            line.add("reason", error.text)
            line.write()
            error.status.exit()
        }
    }

    private init(configuration: String) throws(Installation.Fault) {
        self.configuration = configuration
        let (settings, remarks) = Settings.read(file: configuration)
        Self.log(remarks)
        guard let settings else { throw Installation.Fault("the settings are wrong, see above") }
        self.settings = settings
        self.installation = try Installation(settings)

        let found = Surroundings(isStarting: true).remarks(on: settings)
        Self.log(found)
        let mistakes = found.filter { $0.weight == .mistake }
        guard mistakes.isEmpty else {
            throw Installation.Fault(
                "the settings do not fit this machine, see above",
                mistakes.allSatisfy(\.isPassing) ? .temporary : .configuration)
        }
        do throws(SystemError) {
            let numbers = [SIGTERM, SIGINT, SIGHUP, SIGCHLD]
            self.signals = Descriptor(
                try SystemError.check(apus_signal_descriptor(numbers, numbers.count), "signalfd"))
            self.operatorSocket = try OperatorSocket(path: self.installation.controlSocketPath)
            self.localListener = Listener(
                role: "local", address: "unix:\(self.installation.submitSocketPath)", tls: .off,
                descriptor: try UnixSocket.listen(self.installation.submitSocketPath, mode: 0o666))
        } catch { throw Installation.Fault(error.text, .system) }
        let all = settings.listenAddresses.map(\.address)
        var listeners: [Listener] = []
        for address in settings.listenAddresses {
            do throws(SystemError) {
                let descriptor = try ListeningSocket.open(address.address, among: all)
                listeners.append(
                    Listener(role: address.role, address: address.text, tls: address.tls, descriptor: descriptor))
            } catch {
                let remark = Surroundings.remark(error, address, file: configuration)
                Self.log([remark])
                throw Installation.Fault("cannot listen, see above", remark.isPassing ? .temporary : .configuration)
            }
        }
        self.listeners = listeners + [self.localListener]
        do throws(TLSError) {
            self.certificates = try CertificateShelf(settings.certificates)
        } catch { throw Installation.Fault(error.text) }
        self.notifier = ServiceNotifier()
        var limits = Supervision.Limits()
        limits.stopTimeout = settings.stopTimeout
        self.supervision = Supervision(
            workerCount: settings.workerCount, foreign: Set(settings.replacements.keys), limits: limits)
    }

    static func log(_ remarks: [Remark]) {
        for remark in remarks {
            var line = remark.weight == .mistake ? LogLine("settings-mistake") : LogLine("settings-advice")
            line.add("file", remark.file)
            if remark.line > 0 { line.add("line", remark.line) }
            line.add("text", remark.text)
            if !remark.hint.isEmpty { line.add("hint", remark.hint) }
            line.write()
        }
    }

    /// The clock of the supervision: never set, and running since the machine started.
    var now: Duration {
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC, &time)
        return .seconds(time.tv_sec) + .nanoseconds(time.tv_nsec)
    }

    // MARK: The loop

    private func run() -> Never {
        var line = LogLine("started")
        line.add("config", self.configuration)
        line.add("hostname", self.settings.hostname)
        line.add("state", self.settings.stateDirectory)
        line.add("pid", getpid())
        if !self.installation.hasOwnUsers {
            line.add("mode", "single-user")
            line.add("user", self.installation.singleUser ?? String(geteuid()))
            line.add("note", "not started as root: all programs run as this user")
        }
        line.write()
        self.nextWatchdog = self.notifier.watchdogInterval.map { self.now + $0 }
        self.events.append(.timePassed)
        while true {
            self.carryOutEvents()
            if self.isFinished { self.exit() }
            self.wait()
        }
    }

    private func exit() -> Never {
        self.operatorSocket.close()
        unlink(self.installation.submitSocketPath)
        let isKilled = self.stopSignalCount > 1
        var line = LogLine("stopped")
        line.add("reason", isKilled ? "second signal" : "signal")
        line.write()
        (isKilled ? ExitStatus.temporary : ExitStatus.ok).exit()
    }

    private func carryOutEvents() {
        while !self.events.isEmpty {
            let event = self.events.removeFirst()
            for action in self.supervision.receive(event, now: self.now) { self.carryOut(action) }
        }
    }

    /// The time until something is due, in milliseconds; -1 for ever.
    private var timeout: CInt {
        var deadlines = self.clients.map(\.deadline) + self.gatherings.values.map(\.deadline)
        for deadline in [
            self.supervision.nextDeadline, self.links.nextDeadline, self.nextWatchdog, self.certificates.nextDeadline,
        ] {
            if let deadline { deadlines.append(deadline) }
        }
        guard let first = deadlines.min() else { return -1 }
        let (seconds, attoseconds) = (first - self.now).components
        guard seconds >= 0 else { return 0 }
        // Rounded up, for a moment too early would spin.
        return CInt(clamping: min(seconds, 86_400) * 1_000 + attoseconds / 1_000_000_000_000_000 + 1)
    }

    private func wait() {
        let parts = self.processes.keys.filter { self.processes[$0]?.controlDescriptor != nil }.sorted {
            $0.name < $1.name
        }
        let watchedClients = self.clients.map(\.descriptor)
        var watched = [self.signals, self.operatorSocket.descriptor] + watchedClients
        watched += parts.compactMap { self.processes[$0]?.controlDescriptor }
        var polled = watched.map { pollfd(fd: $0.number, events: Int16(POLLIN), revents: 0) }
        let count = poll(&polled, nfds_t(polled.count), self.timeout)
        if count > 0 {
            // Signals last: a program that ended may have said something before.
            for (index, part) in parts.enumerated() where polled[2 + watchedClients.count + index].revents != 0 {
                self.hear(part)
            }
            for (index, client) in watchedClients.enumerated() where polled[2 + index].revents != 0 {
                self.hear(client)
            }
            if polled[1].revents != 0 { self.acceptOperators() }
            if polled[0].revents != 0 { self.takeSignals() }
        }
        self.timePassed()
    }

    private func timePassed() {
        let now = self.now
        if let deadline = self.supervision.nextDeadline, deadline <= now { self.events.append(.timePassed) }
        for (part, other) in self.links.takeCut(now: now) where !self.supervision.isStopping {
            self.misbehaved(part, "its link with \(other.name) has ended")
        }
        for client in self.clients where client.deadline <= now { self.letGo(client.descriptor) }
        for (number, gathering) in self.gatherings where gathering.deadline <= now { self.finishGathering(number) }
        self.lookAfterCertificates(now: now)
        if let next = self.nextWatchdog, next <= now, let interval = self.notifier.watchdogInterval {
            self.notifier.alive()
            self.nextWatchdog = now + interval
        }
    }

    // MARK: Signals

    private func takeSignals() {
        while true {
            switch apus_next_signal(self.signals.number) {
            case SIGTERM, SIGINT: self.stopSignalArrived()
            case SIGHUP: if !self.supervision.isStopping { self.reload() }
            case SIGCHLD: self.takeEnds()
            case let result where result < 0: return
            default: break
            }
        }
    }

    private func stopSignalArrived() {
        self.stopSignalCount += 1
        var line = LogLine("stopping")
        line.add("timeout", self.settings.stopTimeout)
        if self.stopSignalCount > 1 { line.add("reason", "second signal: now") }
        line.write()
        if self.stopSignalCount == 1 {
            // Nobody connects any more: the sockets are closed here and, by `stop`, in apus-smtpd.
            for listener in self.listeners { listener.descriptor.close() }
            self.listeners = []
            self.notifier.stopping()
        }
        self.events.append(self.stopSignalCount == 1 ? .stop : .kill)
    }

    /// Takes note of all processes that have ended.
    private func takeEnds() {
        while true {
            var status: CInt = 0
            let pid = waitpid(-1, &status, WNOHANG)
            if pid < 0, errno == EINTR { continue }
            guard pid > 0 else { return }
            guard let part = self.processes.first(where: { $0.value.pid == pid })?.key else { continue }
            self.processes[part]?.end()
            // What it said last.
            self.hear(part)
            self.processes[part]?.close()
            self.processes[part] = nil
            self.links.remove(pid)
            for number in self.gatherings.keys where self.gatherings[number]?.waiting.contains(part) == true {
                self.answered(number, part)
            }
            var line = LogLine("ended")
            line.add("part", part.name)
            line.add("pid", pid)
            let signal = status & 0x7F
            if signal == 0 { line.add("status", (status >> 8) & 0xFF) } else { line.add("signal", signal) }
            line.write()
            self.events.append(.exited(part))
        }
    }

    // MARK: Actions

    private func carryOut(_ action: Supervision.Action) {
        switch action {
        case .spawn(let part): self.spawn(part)
        case .link(let plan): self.link(plan)
        case .start(let part): self.tell(part) { process throws(SystemError) in try process.send(.start) }
        case .stop(let part): self.tell(part) { process throws(SystemError) in try process.stop() }
        case .kill(let part):
            var line = LogLine("killing")
            line.add("part", part.name)
            line.write()
            self.processes[part]?.kill()
        case .announceReady:
            LogLine("ready").write()
            self.notifier.ready(self.statusLine)
        case .finish:
            self.isFinished = true
        }
    }

    var statusLine: String {
        let listeners = self.settings.listenAddresses.map { "\($0.text) (\($0.role))" }.joined(separator: ", ")
        return "serving \(self.settings.hostname) on \(listeners)"
    }

    /// Tells a process something. One that cannot be told is killed and started again.
    func tell(_ part: Part, _ body: (PartProcess) throws(SystemError) -> Void) {
        guard let process = self.processes[part] else { return }
        do throws(SystemError) {
            try body(process)
        } catch {
            // It has ended, and its end will be seen in a moment; or it does not read.
            if error.code != EPIPE, error.code != ECONNRESET { self.misbehaved(part, error.text) }
        }
    }

    func misbehaved(_ part: Part, _ reason: String) {
        var line = LogLine("misbehaved")
        line.add("part", part.name)
        line.add("reason", reason)
        line.write()
        self.events.append(.misbehaved(part))
    }

    private func spawn(_ part: Part) {
        // Another's program is started with its link, by `link`.
        guard self.settings.replacements[part.program] == nil else { return }
        do throws(SystemError) {
            let process = try PartProcess.start(part, self.installation)
            self.started(process)
            let table = self.table(for: part)
            self.tell(part) { process throws(SystemError) in try process.send(settings: table) }
            guard part.program == .smtpd else { return }
            self.tellCertificates(part)
            for listener in self.listeners {
                self.tell(part) { process throws(SystemError) in try process.send(listener) }
            }
        } catch {
            self.startFailed(part, error)
        }
    }

    private func started(_ process: PartProcess) {
        self.processes[process.part] = process
        var line = LogLine("starting")
        line.add("part", process.part.name)
        line.add("pid", process.pid)
        line.write()
    }

    private func startFailed(_ part: Part, _ error: SystemError) {
        var line = LogLine("not-started")
        line.add("part", part.name)
        line.add("reason", error.text)
        line.write()
        self.events.append(.exited(part))
    }

    /// Pipes hold this many octets, so that a reader finds a batch and not a piece.
    private static let pipeOctetCount: CInt = 262_144
    /// F_SETPIPE_SZ of fcntl(2), which Swift does not see.
    private static let setPipeSize: CInt = 1_031

    private func link(_ plan: LinkPlan) {
        do throws(SystemError) {
            let (forthIn, forthOut) = try Descriptor.pipe()
            defer { [forthIn, forthOut].forEach { $0.close() } }
            let (backIn, backOut) = try Descriptor.pipe()
            defer { [backIn, backOut].forEach { $0.close() } }
            let number = self.links.nextNumber()
            for end in [forthOut, backOut] { _ = apus_fcntl(end.number, Self.setPipeSize, Self.pipeOctetCount) }
            if let words = self.settings.replacements[plan.to.program] {
                self.started(
                    try PartProcess.startForeign(plan.to, words, input: forthIn, output: backOut, self.installation))
            } else {
                self.tell(plan.to) { process throws(SystemError) in
                    try process.send(
                        link: plan.dialect, peer: plan.from.program.rawValue, input: forthIn, output: backOut,
                        number: number)
                }
            }
            self.tell(plan.from) { process throws(SystemError) in
                try process.send(
                    link: plan.dialect, peer: plan.to.program.rawValue, input: backIn, output: forthOut, number: number)
            }
            guard let from = self.processes[plan.from], let to = self.processes[plan.to] else { return }
            // A program of another's may take its time to finish without us, as if the queue had died.
            let isForeign = self.settings.replacements[plan.to.program] != nil
            self.links.add(
                plan, number, from: from.pid, to: to.pid,
                patience: isForeign ? self.supervision.limits.endTimeout : .seconds(1))
        } catch {
            if self.settings.replacements[plan.to.program] != nil { return self.startFailed(plan.to, error) }
            var line = LogLine("not-linked")
            line.add("from", plan.from.name)
            line.add("to", plan.to.name)
            line.add("reason", error.text)
            line.write()
            // Without the link one of the two is of no use; a new process gets a new one.
            self.events.append(.misbehaved(plan.to))
        }
    }

    // MARK: What programs say

    private func hear(_ part: Part) {
        do throws(FramePipe.Fault) {
            guard let (frames, isOpen) = try self.processes[part]?.hear() else { return }
            for frame in frames { self.take(frame, from: part) }
            // It is about to end, which SIGCHLD will tell; without its control socket it could not be led anyway.
            if !isOpen { self.processes[part]?.abandon() }
        } catch {
            self.misbehaved(part, error.text)
        }
    }

    private func take(_ frame: Frame, from part: Part) {
        switch (frame.verb, frame.fieldCount) {
        case (.ready, 0): self.events.append(.ready(part))
        case (.row, 2):
            let row = (frame[0].printableText, frame[1].printableText)
            guard let count = self.gatherings[frame.channel]?.rows[part, default: []].count else { return }
            if count < StatusGathering.rowCountMax {
                self.gatherings[frame.channel]?.rows[part, default: []].append(row)
            }
        case (.end, _): self.answered(frame.channel, part)
        case (.unlinked, 0): self.links.ended(frame.channel, toldBy: part, now: self.now)
        default: self.misbehaved(part, "\(frame.verb.rawValue) is out of place")
        }
    }

    // MARK: Operators

    private func acceptOperators() {
        while let descriptor = self.operatorSocket.accept() {
            guard self.clients.count < OperatorSocket.clientCountMax else {
                descriptor.close()
                continue
            }
            self.clients.append(OperatorClient(descriptor, deadline: self.now + .seconds(10)))
        }
    }

    private func letGo(_ descriptor: Descriptor) {
        self.clients.removeAll { $0.descriptor == descriptor }
        descriptor.close()
    }

    private func hear(_ descriptor: Descriptor) {
        guard let index = self.clients.firstIndex(where: { $0.descriptor == descriptor }) else { return }
        switch self.clients[index].hear() {
        case .none: return
        case .gone: self.letGo(descriptor)
        case .operate(let channel): self.handOn(self.clients[index], channel)
        case .status(let channel):
            self.clients.remove(at: index)
            self.gatherStatus(for: descriptor, channel: channel)
        }
    }

    /// Hands an operator's socket to apus-queue, which answers him from then on.
    private func handOn(_ client: OperatorClient, _ channel: UInt32) {
        defer { self.letGo(client.descriptor) }
        var octets: [UInt8] = []
        let queue = Part(.queue)
        guard self.supervision.state(of: queue).word == "running" else {
            octets.appendFrame(.failed, channel, [Array("apus-queue is not running".utf8)])
            _ = client.answer(octets)
            return
        }
        octets.appendFrame(.granted, channel)
        guard client.answer(octets) else { return }
        self.tell(queue) { process throws(SystemError) in
            try process.send(link: .operate, peer: "apus", input: client.descriptor, output: client.descriptor)
        }
    }
}
