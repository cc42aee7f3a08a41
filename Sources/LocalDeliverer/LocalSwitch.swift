// SPDX-License-Identifier: Apache-2.0
//
// What apus-local does as root: it hands each delivery to a process of the recipient's user, and that process's
// answers to the queue. It opens no file of any user, looks into no message, and believes no worker more than that
// what it says concerns the mail it was given.

import MailTypes
import PipeCore
import Unix

/// The deliverer as root.
struct LocalSwitch {
    private let program: Program
    private let inbox: ControlInbox
    private(set) var settings: LocalDelivererProgram.Settings
    var queue: (pipe: PolledPipe, hasHello: Bool)?
    var jobs: [UInt32: SwitchJob] = [:]
    var workers: [Int32: SwitchWorker] = [:]
    /// Channels that wait for a worker, in order.
    var waiting: [UInt32] = []
    private var isStopping = false

    init(program: Program, inbox: ControlInbox, settings: LocalDelivererProgram.Settings) {
        self.program = program
        self.inbox = inbox
        self.settings = settings
    }

    mutating func run() -> Never {
        for ends in self.program.links where ends.dialect == .deliver { self.open(ends) }
        self.program.ready()
        while true {
            self.look(after: ThisProcess.uptime)
            if self.isStopping, self.jobs.isEmpty {
                for pid in self.workers.keys { self.release(pid) }
                // Whoever is stuck ends with this process, when he can.
                if self.workers.values.allSatisfy(\.isStuck) { ExitStatus.ok.exit() }
            }
            self.wait()
        }
    }

    // MARK: Waiting

    private mutating func wait() {
        var poll = Poll()
        let control = poll.add(self.inbox.descriptor, reading: true)
        let queueWatch = self.queue.map { LinkWatch($0.pipe, in: &poll) }
        var watches: [(pid: Int32, end: Int, link: LinkWatch?)] = []
        for (pid, worker) in self.workers {
            let end = poll.add(worker.watch, reading: true)
            let link = worker.isLeaving ? nil : LinkWatch(worker.pipe, in: &poll)
            watches.append((pid, end, link))
        }
        // Workers are looked after once a second; nothing else is a matter of time.
        poll.wait(self.workers.isEmpty ? nil : .seconds(1))

        if let queueWatch, queueWatch.isReady(poll) { self.serveQueue(isReadable: queueWatch.isReadable(poll)) }
        for (pid, end, link) in watches {
            if let link, link.isReady(poll) { self.serveWorker(pid, isReadable: link.isReadable(poll)) }
            if poll.isReadable(end) { self.bury(pid) }
        }
        if poll.isReadable(control) { for event in self.inbox.take() { self.handle(event) } }
        self.flush()
    }

    private mutating func flush() {
        do throws(FramePipe.Fault) { try self.queue?.pipe.flush() } catch { self.queueEnded(error.text) }
        for pid in self.workers.keys where self.workers[pid]?.isLeaving == false {
            do throws(FramePipe.Fault) {
                try self.workers[pid]?.pipe.flush()
            } catch { self.dismiss(pid, because: error.text) }
        }
    }

    private mutating func handle(_ event: ControlEvent) {
        switch event {
        case .settings(let table):
            // For workers from now on; the others end what they have, and then themselves.
            if let settings = LocalDelivererProgram.reread(table) {
                self.settings = settings
                for (pid, worker) in self.workers {
                    self.workers[pid]?.isOutdated = true
                    if worker.channels.isEmpty { self.release(pid) }
                }
            }
        case .link(let ends): self.open(ends)
        case .status(let channel):
            self.program.answerStatus(
                channel,
                [
                    ("deliveries", "\(self.jobs.count)"), ("workers", "\(self.workers.count)"),
                    ("stuck", "\(self.workers.values.count(where: \.isStuck))"),
                ])
        case .stop: self.isStopping = true
        case .listen, .unlisten, .certificates, .tickets, .start: break
        }
    }

    // MARK: The queue

    private mutating func open(_ ends: LinkEnds) {
        if self.queue != nil { self.queueEnded(nil) }
        do throws(SystemError) {
            var pipe = try PolledPipe(input: ends.input, output: ends.output)
            pipe.send { Hello(.deliver, program: "apus-local", capacity: UInt32(LocalAgent.capacity)).append(to: &$0) }
            self.queue = (pipe, false)
        } catch { self.log("link-fault", error.text) }
    }

    private mutating func serveQueue(isReadable: Bool) {
        guard isReadable else { return }
        do throws(FramePipe.Fault) {
            guard let progress = try self.queue?.pipe.read() else { return }
            while let frame = try self.queue?.pipe.next() {
                do throws(FrameFault) { try self.take(frame) } catch { throw .frame(error) }
            }
            if progress == .ended { self.queueEnded(nil) }
        } catch { self.queueEnded(error.text) }
    }

    /// All that was under way will be asked for again; the workers end what they are at, and then themselves.
    private mutating func queueEnded(_ reason: String?) {
        if let reason { self.log("link-fault", reason) }
        self.queue?.pipe.close()
        self.queue = nil
        self.jobs = [:]
        self.waiting = []
        for pid in self.workers.keys { self.release(pid) }
        if !self.program.isSupervised { self.isStopping = true }
    }

    private mutating func take(_ frame: Frame) throws(FrameFault) {
        guard self.queue?.hasHello == true else {
            guard try Hello(frame).dialect == .deliver else { throw FrameFault(.badField, .hello) }
            self.queue?.hasHello = true
            return
        }
        let request = try DeliverRequest(frame)
        let channel = frame.channel
        if case .deliver(let delivery) = request {
            guard self.jobs[channel] == nil, self.jobs.count < LocalAgent.capacity,
                let user = self.user(for: delivery.route)
            else { throw FrameFault(.outOfPlace, frame.verb) }
            var job = SwitchJob(delivery, user: user)
            request.append(to: &job.envelope, channel: channel)
            self.jobs[channel] = job
            return
        }
        guard var job = self.jobs[channel] else { throw FrameFault(.outOfPlace, frame.verb) }
        self.jobs[channel] = nil
        switch (job.phase, request) {
        case (.envelope, .rcpt(let recipient)):
            guard job.recipients.count < LocalAgent.recipientCountMax else {
                throw FrameFault(.outOfPlace, frame.verb)
            }
            job.recipients.insert(recipient.number)
            request.append(to: &job.envelope, channel: channel)
        case (.envelope, .go):
            guard !job.recipients.isEmpty else { throw FrameFault(.outOfPlace, frame.verb) }
            request.append(to: &job.envelope, channel: channel)
            job.phase = .waiting
            self.jobs[channel] = job
            self.assign(channel)
            return
        case (.assigned(let pid), .data(let octets)):
            guard octets.count <= job.wantedCount else { throw FrameFault(.creditExceeded, frame.verb) }
            job.wantedCount -= octets.count
            // From now on it is the worker who owes a word.
            if job.wantedCount == 0 { self.workers[pid]?.lastWord = ThisProcess.uptime }
            self.workers[pid]?.pipe.send { request.append(to: &$0, channel: channel) }
        case (.ended(_), .data): break
        case (.ended(let pid), .owed):
            if let pid { self.workers[pid]?.pipe.send { request.append(to: &$0, channel: channel) } }
        case (.ended(let pid), .noted):
            if let pid, var worker = self.workers[pid] {
                self.workers[pid] = nil
                worker.pipe.send { request.append(to: &$0, channel: channel) }
                worker.channels.remove(channel)
                if worker.channels.isEmpty { worker.lastWord = ThisProcess.uptime }
                self.workers[pid] = worker
                if worker.isOutdated, worker.channels.isEmpty { self.release(pid) }
                // Another user's mail waits for a process.
                if worker.channels.isEmpty, !self.waiting.isEmpty { self.makeRoom() }
            }
            return
        default: throw FrameFault(.outOfPlace, frame.verb)
        }
        self.jobs[channel] = job
    }

    /// As whom a delivery of that route is done; nil if it is none of ours.
    private func user(for route: Route) -> [UInt8]? {
        if case .alias = route { self.settings.aliasUser } else { route.owner }
    }

    /// Ends a delivery without a worker: every recipient who has no outcome gets this one.
    mutating func end(_ channel: UInt32, _ outcome: DeliveryOutcome) {
        guard var job = self.jobs[channel] else { return }
        let numbers = job.recipients.sorted()
        job.recipients = []
        job.envelope = []
        job.phase = .ended(nil)
        self.jobs[channel] = job
        self.queue?.pipe.send { octets in
            for number in numbers {
                DeliverAnswer.outcome(number: number, outcome).append(to: &octets, channel: channel)
            }
            DeliverAnswer.done.append(to: &octets, channel: channel)
        }
    }

    func log(_ event: StaticString, _ reason: String, _ worker: SwitchWorker? = nil) {
        var line = LogLine(event)
        if let worker {
            line.add("user", worker.user)
            line.add("pid", worker.pid)
        }
        line.add("reason", reason)
        line.write()
    }
}
