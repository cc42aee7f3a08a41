// SPDX-License-Identifier: Apache-2.0
//
// The agent of the dialect `deliver` for routes `local:`, `mailbox:` and `alias:` (pipes.md §3), in the process that writes the mailbox.
// Frames go in, files are written, octets for the other side come out. What it must never do: say `delivered` before
// the file and its name are on stable storage.

package import MailTypes
import MessageCore
package import PipeCore
import Unix

/// All deliveries of one link into mailboxes of one owner.
///
/// Messages that have come whole wait for `commit`: so several deliveries share what it costs to make them durable.
package struct LocalAgent {
    /// How many deliveries an agent bears at once.
    package static let capacity = 64
    /// More recipients in one delivery than any queue of ours sends to one user.
    package static let recipientCountMax = 20_000
    /// More addresses to which one delivery goes on than the queue takes (pipes.md §3, "Forwarding").
    static let forwardCountMax = 1_000
    /// So much is asked for first: the header must be in it in which a loop shows.
    package static let headOctetCountMax = 65_536
    /// So much is asked for at once after that.
    package static let wantOctetCountMax = 262_144
    /// So long messages wait for others whose content is on its way. One that comes alone does not wait.
    package static let patience = Duration.milliseconds(2)

    package var rules: Rules
    /// What is to be sent to the other side; the caller takes it.
    package var answers: [UInt8] = []
    private var jobs: [UInt32: LocalJob] = [:]
    /// Channels whose message has come whole, in order.
    private var complete: [UInt32] = []
    /// When they are made durable at the latest, if they wait for others.
    private var commitDeadline: Duration?
    /// What is done with messages that have come whole, apart from Maildirs.
    private var runs: [UInt32: LocalRun] = [:]
    /// The mailboxes that were opened since the last `commit`.
    private var mailboxes: [MailboxPlace: OpenMaildir] = [:]
    private let shelf = MaildirShelf()
    private let aliases = AliasShelf()
    /// Programs that were killed and had not ended when they were last looked at.
    private var unended: [Int32] = []

    package init(rules: Rules) { self.rules = rules }

    /// Whether nothing is under way.
    package var isIdle: Bool { self.jobs.isEmpty }

    // MARK: Frames

    /// Takes a frame from the other side.
    package mutating func receive(_ frame: Frame) throws(FrameFault) {
        let request = try DeliverRequest(frame)
        let channel = frame.channel
        if case .deliver(let delivery) = request {
            guard self.jobs[channel] == nil, self.jobs.count < Self.capacity,
                self.rules.takes(delivery.route)
            else { throw FrameFault(.outOfPlace, frame.verb) }
            self.jobs[channel] = LocalJob(delivery, self.rules.instruction(for: delivery.route))
            return
        }
        guard var job = self.jobs.removeValue(forKey: channel) else { throw FrameFault(.outOfPlace, frame.verb) }
        switch (job.phase, request) {
        case (.envelope, .rcpt(let recipient)):
            guard job.recipients.count < Self.recipientCountMax else { throw FrameFault(.outOfPlace, frame.verb) }
            job.recipients.append(recipient)
        case (.envelope, .go):
            guard !job.recipients.isEmpty else { throw FrameFault(.outOfPlace, frame.verb) }
            self.plan(&job, channel)
            guard !job.recipients.isEmpty else {
                self.finish(&job, channel)
                break
            }
            if job.instruction == .discard, job.plans == nil {
                for recipient in job.recipients { self.answer(channel, recipient, LocalFate.discarded) }
                self.finish(&job, channel)
                break
            }
            job.phase = .head
            self.want(&job, channel, upTo: Self.headOctetCountMax)
        case (.head, .data(let octets)):
            job.head += octets
            try self.count(octets, in: &job)
        case (.body, .data(let octets)):
            try self.count(octets, in: &job)
            self.write(octets, in: &job, channel)
        case (.ended, .data):
            // The rest of what was asked for before the delivery had to be given up.
            break
        case (.ended, .owed(let number)):
            guard job.recipients.contains(where: { $0.number == number }) else {
                throw FrameFault(.badField, frame.verb)
            }
            job.owed.insert(number)
        case (.ended, .noted):
            job.removeWitnesses()
            return
        default:
            throw FrameFault(.outOfPlace, frame.verb)
        }
        if job.receivedCount == job.wantedEnd { self.proceed(&job, channel) }
        self.jobs[channel] = job
    }

    private func count(_ octets: ArraySlice<UInt8>, in job: inout LocalJob) throws(FrameFault) {
        job.receivedCount += UInt64(octets.count)
        guard job.receivedCount <= job.wantedEnd else { throw FrameFault(.creditExceeded, .data) }
    }

    private mutating func want(_ job: inout LocalJob, _ channel: UInt32, upTo octetCount: Int) {
        let count = min(job.delivery.octetCount - job.receivedCount, UInt64(octetCount))
        job.wantedEnd = job.receivedCount + count
        guard count > 0 else { return }
        DeliverAnswer.want(offset: job.receivedCount, octetCount: Int(count)).append(
            to: &self.answers, channel: channel)
    }

    /// All that was asked for is there: what is next?
    private mutating func proceed(_ job: inout LocalJob, _ channel: UInt32) {
        if job.phase == .head {
            self.begin(&job, channel)
            guard job.phase == .body else { return }
        }
        guard job.phase == .body else { return }
        if job.receivedCount < job.delivery.octetCount {
            self.want(&job, channel, upTo: Self.wantOctetCountMax)
        } else {
            self.end(&job, channel)
        }
    }

    // MARK: Plans

    /// Looks for users' own files. Recipients whose mail goes nowhere now are answered for; only if there is a file are
    /// there plans.
    private mutating func plan(_ job: inout LocalJob, _ channel: UInt32) {
        if case .alias = job.delivery.route {} else if self.rules.dotFiles == .none { return }
        var plans: [LocalPlan] = []
        var hasFile = false
        var forwardCount = 0
        for recipient in job.recipients {
            switch self.finding(job.delivery, recipient) {
            case .mailbox: plans.append(self.standardPlan(job, recipient))
            case .plan(let plan):
                forwardCount += plan.forwards.count
                guard forwardCount <= Self.forwardCountMax else {
                    // Before anything is done for this one; in the next attempt the others are gone.
                    forwardCount -= plan.forwards.count
                    self.answer(channel, recipient, LocalFate.tooManyForwards)
                    continue
                }
                plans.append(plan)
                hasFile = true
            case .outcome(let outcome): self.answer(channel, recipient, outcome)
            }
        }
        job.recipients = plans.map(\.recipient)
        if hasFile { job.plans = plans }
    }

    private func finding(_ delivery: Delivery, _ recipient: DeliveryRecipient) -> LocalPlan.Finding {
        guard case .alias(let name) = delivery.route else { return LocalPlan.find(delivery, recipient, self.rules) }
        return LocalPlan.find(alias: name, delivery, recipient, self.rules, self.aliases)
    }

    private func standardPlan(_ job: LocalJob, _ recipient: DeliveryRecipient) -> LocalPlan {
        LocalPlan(
            recipient: recipient, instructions: job.instruction.map { [$0] } ?? [], forwardCounts: [0],
            sender: job.delivery.reversePath)
    }

    // MARK: Writing

    /// The beginning is there: recipients in a loop fail, for the others the file is begun.
    private mutating func begin(_ job: inout LocalJob, _ channel: UInt32) {
        let isWhole = UInt64(job.head.count) == job.delivery.octetCount
        let header = HeaderFields(job.head, isWholeMessage: isWhole)
        job.copies = job.recipients
        let seen = header.filter { $0.isNamed(Self.deliveredTo) }.map(\.value)
        if !seen.isEmpty {
            job.copies.removeAll { recipient in
                let address = recipient.forwardPath.octets
                guard seen.contains(where: { $0.equalsIgnoringCase(address) }) else { return false }
                self.answer(channel, recipient, .loop)
                return true
            }
        }
        job.phase = .body
        guard !job.copies.isEmpty else { return self.finish(&job, channel) }
        do throws(SystemError) {
            guard case .maildir(let place)? = job.instruction, job.plans == nil else {
                let content = try ContentFile()
                job.content = content
                try content.append(content: job.head[...])
                job.head = []
                return
            }
            let mailbox = try self.openMailbox(place)
            job.mailbox = mailbox
            // Recipients to whom an earlier attempt has delivered need nothing but the sync of `commit`.
            while let recipient = job.copies.first {
                switch try self.file(job, recipient, in: mailbox) {
                case .earlier:
                    job.published.append(LocalJob.Published(recipient: recipient, isEarlier: true))
                    job.copies.removeFirst()
                    continue
                case .file(let file): job.file = file
                }
                break
            }
            if !job.copies.isEmpty, try !self.hasRoom(for: job, in: mailbox) {
                for recipient in job.copies { self.answer(channel, recipient, self.rules.overQuota) }
                job.dropFile()
                job.copies = []
            }
            guard let first = job.copies.first else {
                job.phase = .complete
                self.complete.append(channel)
                return
            }
            let lines = job.delivery.lines(for: first)
            job.contentOffset = UInt64(lines.count)
            job.file?.append(lines: lines)
            try job.file?.append(content: job.head[...])
            job.head = []
        } catch {
            self.giveUp(&job, channel, error)
        }
    }

    private func hasRoom(for job: LocalJob, in mailbox: OpenMaildir) throws(SystemError) -> Bool {
        try mailbox.reserve(job.delivery.octetCount, job.copies.count, self.rules.quota, now: WallClock.now())
    }

    private static let deliveredTo: [UInt8] = Array("Delivered-To".utf8)

    private func file(
        _ job: LocalJob, _ recipient: DeliveryRecipient, in mailbox: OpenMaildir
    ) throws(SystemError) -> MaildirFile.Beginning {
        try MaildirFile.begin(self.name(job, recipient), in: mailbox.maildir)
    }

    private func name(_ job: LocalJob, _ recipient: DeliveryRecipient) -> String {
        MaildirName.name(job.delivery.id, recipient: recipient.number, hostname: self.rules.hostname)
    }

    private mutating func openMailbox(_ place: MailboxPlace) throws(SystemError) -> OpenMaildir {
        if let mailbox = self.mailboxes[place] { return mailbox }
        let mailbox = try self.shelf.open(place)
        self.mailboxes[place] = mailbox
        return mailbox
    }

    private mutating func write(_ octets: ArraySlice<UInt8>, in job: inout LocalJob, _ channel: UInt32) {
        do throws(SystemError) {
            try job.file?.append(content: octets)
            try job.content?.append(content: octets)
        } catch {
            self.giveUp(&job, channel, error)
        }
    }

    private mutating func end(_ job: inout LocalJob, _ channel: UInt32) {
        do throws(SystemError) {
            if let content = job.content {
                try content.end()
                job.content = nil
                job.phase = .running
                let numbers = Set(job.copies.map(\.number))
                let plans = job.plans?.filter { numbers.contains($0.recipient.number) }
                self.runs[channel] = LocalRun(
                    job.delivery, content, plans ?? job.copies.map { self.standardPlan(job, $0) })
                return
            }
            try job.file?.end()
            job.phase = .complete
            self.complete.append(channel)
        } catch {
            self.giveUp(&job, channel, error)
        }
    }

    // MARK: The end of deliveries

    /// `commit`, unless it is worth while to wait a moment. To be called when nothing more is there to be read.
    package mutating func commitIfDue(_ now: Duration) {
        guard !self.complete.isEmpty else { return }
        if self.jobs.values.contains(where: \.phase.isReceiving) {
            let deadline = self.commitDeadline ?? now + Self.patience
            self.commitDeadline = deadline
            guard now >= deadline else { return }
        }
        self.commit()
    }

    /// Makes every message durable that has come whole, and says so.
    ///
    /// One step for all of them, then the next: a sync that follows changes of names has these to write as well, on a
    /// file system with a journal in a transaction of its own. So the first sync of a batch pays for the names of all.
    package mutating func commit() {
        let channels = self.complete
        self.complete = []
        self.commitDeadline = nil
        for channel in channels { self.jobs[channel]?.syncFile() }
        for channel in channels {
            guard var job = self.jobs.removeValue(forKey: channel) else { continue }
            self.publishAll(&job, channel)
            self.jobs[channel] = job
        }
        var synced: [ObjectIdentifier: SystemError?] = [:]
        for channel in channels {
            guard var job = self.jobs.removeValue(forKey: channel) else { continue }
            if !job.published.isEmpty, let mailbox = job.mailbox {
                let fault = synced[ObjectIdentifier(mailbox)] ?? mailbox.syncFault()
                synced[ObjectIdentifier(mailbox)] = .some(fault)
                self.settle(&job, channel, fault)
            }
            self.finish(&job, channel)
            self.jobs[channel] = job
        }
        self.mailboxes = [:]
    }

    /// Gives the files of a message their names in `new`; those of further recipients are made and synced first.
    private mutating func publishAll(_ job: inout LocalJob, _ channel: UInt32) {
        guard let mailbox = job.mailbox, var first = job.file else { return }
        defer { first.close() }
        for (place, recipient) in job.copies.enumerated() {
            do throws(SystemError) {
                var isEarlier = false
                if place == 0 {
                    try mailbox.publish(&first, job.syncFault)
                } else {
                    isEarlier = try !self.publishCopy(of: first, job, recipient, in: mailbox)
                }
                job.published.append(LocalJob.Published(recipient: recipient, isEarlier: isEarlier))
            } catch {
                self.answer(channel, recipient, .world(error, job))
            }
        }
        job.copies = []
        job.file = nil
    }

    /// The same message for a further recipient of the same mailbox; false if he had it already.
    private func publishCopy(
        of first: MaildirFile, _ job: LocalJob, _ recipient: DeliveryRecipient, in mailbox: OpenMaildir
    ) throws(SystemError) -> Bool {
        guard case .file(var file) = try self.file(job, recipient, in: mailbox) else { return false }
        defer { file.close() }
        try mailbox.put(&file, behind: job.delivery.lines(for: recipient)) { file throws(SystemError) in
            var offset = job.contentOffset
            while true {
                let octets = try first.written(from: offset, upTo: 65_536)
                if octets.isEmpty { break }
                offset += UInt64(octets.count)
                try file.append(converted: octets)
            }
        }
        return true
    }

    /// Tells what became of those whose mail is in `new`.
    private mutating func settle(_ job: inout LocalJob, _ channel: UInt32, _ fault: SystemError?) {
        for published in job.published {
            guard let fault else {
                job.witnesses.append(self.name(job, published.recipient))
                self.answer(channel, published.recipient, published.isEarlier ? .deliveredEarlier : .delivered)
                continue
            }
            // Why: a failed sync is told once; the next one may claim success for what never reached the disk. So the
            // next attempt is to deliver anew, to the same name.
            if let mailbox = job.mailbox {
                MaildirFile.removeWitness(self.name(job, published.recipient), in: mailbox.maildir)
            }
            self.answer(channel, published.recipient, .world(fault, job))
        }
        job.published = []
    }

    /// Nothing can be delivered of this message now.
    private mutating func giveUp(_ job: inout LocalJob, _ channel: UInt32, _ error: SystemError) {
        job.dropFile()
        let rest = job.published.map(\.recipient) + job.copies
        for recipient in rest { self.answer(channel, recipient, .world(error, job)) }
        job.copies = []
        job.published = []
        self.finish(&job, channel)
    }

    private mutating func answer(_ channel: UInt32, _ recipient: DeliveryRecipient, _ fate: LocalFate) {
        var outcome = fate.outcome
        if case .world(let error, _) = fate { outcome = self.rules.outcome(of: error) }
        self.answer(channel, recipient, outcome)
    }

    /// Whatever is told here is about this mail: who delivers is there. A file of one address must not keep the mail for
    /// others of the same user waiting.
    private mutating func answer(_ channel: UInt32, _ recipient: DeliveryRecipient, _ told: DeliveryOutcome) {
        var outcome = told
        outcome.hasAnswered = outcome.kind == .deferred
        DeliverAnswer.outcome(number: recipient.number, outcome).append(to: &self.answers, channel: channel)
    }

    // MARK: Runs

    /// Goes on with what does not end at once, as far as that is possible without waiting.
    package mutating func advance(_ now: Duration, clock: Timestamp) {
        self.unended.removeAll { ChildProcess.end(of: $0, isWaiting: false) != nil }
        guard !self.runs.isEmpty else { return }
        let runningCount = self.runs.values.count { $0.program != nil }
        var surroundings = LocalRun.Surroundings(
            rules: self.rules, shelf: self.shelf, now: now, clock: clock,
            programRoom: max(self.rules.programs.countMax - runningCount - self.unended.count, 0))
        defer { self.unended += surroundings.unended }
        self.advance(self.runs.keys.sorted(), &surroundings)
        // Room that programs have left which ended only now: nothing else would wake those who wait for it.
        while surroundings.programRoom > 0 {
            let waiting = self.runs.filter(\.value.isWaitingForRoom).keys.sorted()
            if waiting.isEmpty { return }
            self.advance(waiting, &surroundings)
        }
    }

    private mutating func advance(_ channels: [UInt32], _ surroundings: inout LocalRun.Surroundings) {
        for channel in channels {
            guard var run = self.runs.removeValue(forKey: channel), var job = self.jobs[channel] else { continue }
            let endCount = run.endCount
            let settledRecipients = run.advance(&surroundings)
            // The switch takes a worker that says nothing for one that hangs. Each program may have its whole time.
            if self.rules.user != nil, run.endCount > endCount, !run.isDone { self.answers.appendFrame(.more, channel) }
            for settled in settledRecipients {
                for forward in settled.forwards {
                    DeliverAnswer.forward(number: settled.recipient.number, forward).append(
                        to: &self.answers, channel: channel)
                }
                self.answer(channel, settled.recipient, settled.outcome)
                job.planWitnesses += settled.witnesses
            }
            self.jobs[channel] = job
            if run.isDone {
                job.copies = []
                self.finish(&job, channel)
                self.jobs[channel] = job
            } else {
                self.runs[channel] = run
            }
        }
    }

    /// Has `poll` watch what tells that there is something to go on with, and tells the time at which there is in any case.
    func watch(in poll: inout Poll) -> Duration? {
        for run in self.runs.values {
            guard let program = run.program else { continue }
            _ = poll.add(program.watch, reading: true)
            if program.hasOutput { _ = poll.add(program.output, reading: true) }
        }
        return (self.runs.values.compactMap(\.deadline) + [self.commitDeadline].compactMap(\.self)).min()
    }

    private mutating func finish(_ job: inout LocalJob, _ channel: UInt32) {
        DeliverAnswer.done.append(to: &self.answers, channel: channel)
        job.phase = .ended
        job.head = []
    }

    /// The link is gone: what has not been delivered is taken back, and will be asked for again.
    package mutating func abandon() {
        self.commit()
        for channel in self.runs.keys { self.runs[channel]?.abandon() }
        self.runs = [:]
        for channel in self.jobs.keys { self.jobs[channel]?.dropFile() }
        self.jobs = [:]
        self.answers = []
    }
}
