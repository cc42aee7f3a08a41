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
    private var settings: LocalDelivererProgram.Settings
    private var queue: (pipe: PolledPipe, hasHello: Bool)?
    private var jobs: [UInt32: SwitchJob] = [:]
    private var workers: [Int32: SwitchWorker] = [:]
    /// Channels that wait for a worker, in order.
    private var waiting: [UInt32] = []
    private var isStopping = false

    /// A worker that was told to end, or ought to have, is killed after this time.
    private static let leavingTime = Duration.seconds(20)
    /// A worker that says nothing of its deliveries for so long is killed.
    private static let silenceTime = Duration.seconds(900)

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
                if self.workers.isEmpty { ExitStatus.ok.exit() }
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
        // Idle and leaving workers are looked after once a second; nothing else is a matter of time.
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
            // For workers from now on; the old ones leave when they are idle.
            if let settings = LocalDelivererProgram.reread(table) { self.settings = settings }
        case .link(let ends): self.open(ends)
        case .status(let channel):
            self.program.answerStatus(
                channel, [("deliveries", "\(self.jobs.count)"), ("workers", "\(self.workers.count)")])
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
                case .local(let user) = delivery.route
            else { throw FrameFault(.outOfPlace, frame.verb) }
            var job = SwitchJob(user: user, octetCount: delivery.octetCount)
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
            self.workers[pid]?.pipe.send { request.append(to: &$0, channel: channel) }
        case (.ended(_), .data): break
        case (.ended(let pid), .noted):
            if let pid, var worker = self.workers[pid] {
                self.workers[pid] = nil
                worker.pipe.send { request.append(to: &$0, channel: channel) }
                worker.channels.remove(channel)
                worker.lastWord = ThisProcess.uptime
                self.workers[pid] = worker
            }
            return
        default: throw FrameFault(.outOfPlace, frame.verb)
        }
        self.jobs[channel] = job
    }

    /// Ends a delivery without a worker: every recipient who has no outcome gets this one.
    private mutating func end(_ channel: UInt32, _ outcome: DeliveryOutcome) {
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

    // MARK: Workers

    /// Finds a worker for a delivery, starts one, or lets the delivery wait for one that leaves.
    private mutating func assign(_ channel: UInt32) {
        guard let job = self.jobs[channel], job.phase == .waiting else { return }
        let mine = self.workers.first { $0.value.user == job.user }
        if let (pid, worker) = mine, !worker.isLeaving {
            self.give(channel, to: pid)
        } else if mine == nil, self.workers.count < self.settings.workersMax {
            switch SwitchWorker.start(user: job.user, settings: self.settings) {
            case .success(let worker):
                self.workers[worker.pid] = worker
                self.give(channel, to: worker.pid)
            case .failure(let fault): self.end(channel, fault.outcome)
            }
        } else {
            self.waiting.append(channel)
            if mine == nil, !self.workers.contains(where: { $0.value.isLeaving }),
                let idle = self.workers.filter({ $0.value.channels.isEmpty }).min(by: {
                    $0.value.lastWord < $1.value.lastWord
                })
            {
                self.release(idle.key)
            }
        }
    }

    private mutating func give(_ channel: UInt32, to pid: Int32) {
        guard var job = self.jobs[channel], var worker = self.workers[pid] else { return }
        self.workers[pid] = nil
        let envelope = job.envelope
        job.envelope = []
        job.phase = .assigned(pid)
        self.jobs[channel] = job
        worker.pipe.send { $0 += envelope }
        worker.channels.insert(channel)
        worker.lastWord = ThisProcess.uptime
        self.workers[pid] = worker
    }

    private mutating func assignWaiting() {
        let channels = self.waiting
        self.waiting = []
        for channel in channels { self.assign(channel) }
    }

    private mutating func serveWorker(_ pid: Int32, isReadable: Bool) {
        guard isReadable, var worker = self.workers[pid], !worker.isLeaving else { return }
        self.workers[pid] = nil
        do throws(FramePipe.Fault) {
            let progress = try worker.pipe.read()
            worker.lastWord = ThisProcess.uptime
            while let frame = try worker.pipe.next() {
                do throws(FrameFault) { try self.take(frame, from: &worker) } catch { throw .frame(error) }
            }
            self.workers[pid] = worker
            if progress == .ended { self.dismiss(pid, because: "its output ended") }
        } catch {
            self.workers[pid] = worker
            self.dismiss(pid, because: error.text)
        }
    }

    /// What a worker says must concern a delivery that it has, and must be in its place.
    private mutating func take(_ frame: Frame, from worker: inout SwitchWorker) throws(FrameFault) {
        guard worker.hasHello else {
            guard try Hello(frame).dialect == .deliver else { throw FrameFault(.badField, .hello) }
            worker.hasHello = true
            return
        }
        let answer = try DeliverAnswer(frame)
        let channel = frame.channel
        guard var job = self.jobs[channel], job.phase == .assigned(worker.pid) else {
            throw FrameFault(.outOfPlace, frame.verb)
        }
        switch answer {
        case .want(let offset, let octetCount):
            guard job.wantedCount == 0, octetCount > 0, octetCount <= LocalAgent.wantOctetCountMax,
                offset <= job.octetCount, UInt64(octetCount) <= job.octetCount - offset
            else { throw FrameFault(.creditExceeded, frame.verb) }
            job.wantedCount = octetCount
        case .outcome(let number, _):
            guard job.recipients.remove(number) != nil else { throw FrameFault(.badField, frame.verb) }
        case .done:
            job.phase = .ended(worker.pid)
        case .exchange: throw FrameFault(.outOfPlace, frame.verb)
        }
        self.jobs[channel] = job
        self.queue?.pipe.send { answer.append(to: &$0, channel: channel) }
    }

    /// Tells a worker that there is nothing more for it.
    private mutating func release(_ pid: Int32) {
        guard var worker = self.workers[pid], !worker.isLeaving else { return }
        self.workers[pid] = nil
        // Frames that it has not taken yet are of no use without the queue; none are there if it was idle.
        try? worker.pipe.flush()
        worker.leave(ThisProcess.uptime)
        self.workers[pid] = worker
    }

    /// Ends a worker that has broken a rule, or has ended itself; what it had is tried again.
    private mutating func dismiss(_ pid: Int32, because reason: String) {
        guard var worker = self.workers[pid], !worker.isLeaving else { return }
        self.log("worker-dismissed", reason, worker)
        ChildProcess.kill(pid)
        let channels = worker.channels
        worker.channels = []
        worker.leave(ThisProcess.uptime)
        self.workers[pid] = worker
        for channel in channels.sorted() {
            switch self.jobs[channel]?.phase {
            case .assigned?:
                self.end(
                    channel,
                    LocalFate.outcome(
                        .deferred, EnhancedStatus(.transient, 3, 0), "the process that wrote the mailbox has ended"))
            case .ended?: self.jobs[channel]?.phase = .ended(nil)
            case .envelope?, .waiting?, nil: break
            }
        }
    }

    /// The process has ended.
    private mutating func bury(_ pid: Int32) {
        guard let end = ChildProcess.end(of: pid, isWaiting: false) else { return }
        // What it said last is still in the pipe.
        if self.workers[pid]?.isLeaving == false {
            self.serveWorker(pid, isReadable: true)
            self.dismiss(pid, because: "it has ended: \(end)")
        }
        self.workers[pid]?.watch.close()
        self.workers[pid] = nil
        self.assignWaiting()
    }

    /// What time brings: idle workers are released, those that hang are killed.
    private mutating func look(after now: Duration) {
        for (pid, worker) in self.workers {
            if let since = worker.leavingSince {
                if now - since > Self.leavingTime { ChildProcess.kill(pid) }
            } else if worker.channels.isEmpty {
                if now - worker.lastWord > self.settings.workerIdle { self.release(pid) }
            } else if now - worker.lastWord > Self.silenceTime {
                self.dismiss(pid, because: "it has been silent for too long")
            }
        }
    }

    private func log(_ event: StaticString, _ reason: String, _ worker: SwitchWorker? = nil) {
        var line = LogLine(event)
        if let worker {
            line.add("user", worker.user)
            line.add("pid", worker.pid)
        }
        line.add("reason", reason)
        line.write()
    }
}
