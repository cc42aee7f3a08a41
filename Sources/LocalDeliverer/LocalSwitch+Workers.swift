// SPDX-License-Identifier: Apache-2.0
//
// The care of workers: who gets a delivery, who is let go, who is killed, and who is given up.

import MailTypes
import PipeCore
import Unix

extension LocalSwitch {
    /// A worker that was told to end, or ought to have, is killed after this time; one that was killed and is still
    /// there after the same time hangs in the system (a dead mount), and counts as stuck.
    private static let leavingTime = Duration.seconds(20)
    /// At most so many times `workers-max` processes are there, with those that are stuck.
    private static let stuckFactor = 4

    /// Finds a worker for a delivery, starts one, or lets the delivery wait for one that leaves.
    mutating func assign(_ channel: UInt32) {
        guard let job = self.jobs[channel], job.phase == .waiting else { return }
        let mine = self.workers.first { $0.value.user == job.user }
        if let (pid, worker) = mine, !worker.isLeaving, !worker.isOutdated {
            self.give(channel, to: pid)
        } else if let mine {
            // Why no second worker beside one that is stuck: both would be at the same files.
            if mine.value.isStuck { self.end(channel, Self.stuck) } else { self.waiting.append(channel) }
        } else if self.workers.count >= self.settings.workersMax * Self.stuckFactor {
            self.end(channel, Self.stuck)
        } else if self.workers.values.count(where: { !$0.isStuck }) < self.settings.workersMax {
            switch SwitchWorker.start(user: job.user, settings: self.settings) {
            case .success(let worker):
                self.workers[worker.pid] = worker
                self.give(channel, to: worker.pid)
            case .failure(let fault):
                // Why: the recipient is there, whatever is wrong with the user that the settings name.
                let isForEver = fault.outcome.kind == .failed
                self.end(channel, isForEver ? job.wrongUser ?? fault.outcome : fault.outcome)
            }
        } else {
            self.waiting.append(channel)
            self.makeRoom()
        }
    }

    /// Releases the worker that has been idle for longest, unless one is on its way out already.
    mutating func makeRoom() {
        guard !self.workers.values.contains(where: { $0.isLeaving && !$0.isStuck }) else { return }
        let idle = self.workers.filter { $0.value.channels.isEmpty && !$0.value.isLeaving }
        if let longest = idle.min(by: { $0.value.lastWord < $1.value.lastWord }) { self.release(longest.key) }
    }

    /// The outcome of mail whose mailbox cannot be reached.
    private static let stuck = LocalFate.outcome(
        .deferred, EnhancedStatus(.transient, 3, 0),
        "the mailbox does not answer: an earlier process of this user hangs in the system")

    private mutating func give(_ channel: UInt32, to pid: Int32) {
        guard var job = self.jobs[channel], var worker = self.workers[pid] else { return }
        self.workers[pid] = nil
        let envelope = job.envelope
        job.envelope = []
        job.phase = .assigned(pid)
        self.jobs[channel] = job
        worker.pipe.send { $0 += envelope }
        // Only now does it begin to owe a word: what is given to one that is silent does not excuse it.
        if worker.channels.isEmpty { worker.lastWord = ThisProcess.uptime }
        worker.channels.insert(channel)
        self.workers[pid] = worker
    }

    private mutating func assignWaiting() {
        let channels = self.waiting
        self.waiting = []
        for channel in channels { self.assign(channel) }
    }

    mutating func serveWorker(_ pid: Int32, isReadable: Bool) {
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
        // It goes on to the next program of a message; that it says so is enough.
        if frame.verb == .more, self.jobs[frame.channel]?.phase == .assigned(worker.pid) { return }
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
        case .forward(let number, let forward):
            let sender = SwitchJob.Sender(reversePath: forward.reversePath, isVERP: forward.isVERP)
            // Why here as well: what the queue would close the link for must not come from one user's process.
            guard job.recipients.contains(number), job.forwardCount < LocalAgent.forwardCountMax,
                job.senders[number, default: sender] == sender
            else { throw FrameFault(.badField, frame.verb) }
            job.senders[number] = sender
            job.forwardCount += 1
        case .done:
            job.phase = .ended(worker.pid)
        case .exchange: throw FrameFault(.outOfPlace, frame.verb)
        }
        self.jobs[channel] = job
        self.queue?.pipe.send { answer.append(to: &$0, channel: channel) }
    }

    /// Tells a worker that there is nothing more for it.
    mutating func release(_ pid: Int32) {
        guard var worker = self.workers[pid], !worker.isLeaving else { return }
        self.workers[pid] = nil
        // Frames that it has not taken yet are of no use without the queue; none are there if it was idle.
        try? worker.pipe.flush()
        worker.leave(ThisProcess.uptime)
        self.workers[pid] = worker
    }

    /// Ends a worker that has broken a rule, or has ended itself; what it had is tried again.
    mutating func dismiss(_ pid: Int32, because reason: String) {
        guard var worker = self.workers[pid], !worker.isLeaving else { return }
        self.log("worker-dismissed", reason, worker)
        ChildProcess.kill(pid)
        let channels = worker.channels
        worker.channels = []
        worker.leave(ThisProcess.uptime)
        worker.wasKilled(ThisProcess.uptime)
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
    mutating func bury(_ pid: Int32) {
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

    /// What time brings: idle workers are released, those that hang are killed, and nobody waits for those that even
    /// that does not end.
    mutating func look(after now: Duration) {
        var isSomebodyStuck = false
        for (pid, worker) in self.workers where !worker.isStuck {
            if let since = worker.leavingSince {
                guard now - since > Self.leavingTime else { continue }
                if worker.isKilled {
                    self.log("worker-stuck", "it does not end although it was killed", worker)
                    self.workers[pid]?.isStuck = true
                    isSomebodyStuck = true
                } else {
                    ChildProcess.kill(pid)
                    self.workers[pid]?.wasKilled(now)
                }
            } else if worker.channels.isEmpty {
                if now - worker.lastWord > self.settings.workerIdle { self.release(pid) }
            } else if now - worker.lastWord > self.settings.workerSilence, self.owesWord(worker) {
                self.dismiss(pid, because: "it has been silent for too long")
            }
        }
        if isSomebodyStuck { self.assignWaiting() }
    }

    /// Whether the next step is the worker's: it has all that it has asked for of some delivery.
    private func owesWord(_ worker: SwitchWorker) -> Bool {
        worker.channels.contains { channel in
            guard let job = self.jobs[channel] else { return false }
            return job.phase == .assigned(worker.pid) && job.wantedCount == 0
        }
    }
}
