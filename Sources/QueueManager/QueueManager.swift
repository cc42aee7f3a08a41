// SPDX-License-Identifier: Apache-2.0
//
// The program apus-queue: carries out what the scheduler decides, and nothing else. One event loop for all links and
// for short reads, one thread that commits.

import LMDBQueueStore
import MailTypes
import NIOCore
import NIOPosix
import PipeCore
import PipeDrivers
import QueueCore
import Unix

/// The queue manager. Everything is called on its event loop.
package final class QueueManager {
    let program: Program
    let eventLoop: any EventLoop
    private(set) var settings: QueueSettings
    /// Outcomes find no room on the disk, or it is not known yet whether they would.
    var isStandingStill = false
    private var hasProbed = false
    let store: LMDBQueueStore
    let committer: Committer
    let lookup: LookupClient
    /// What was found when the queue was opened.
    let recovery: RecoveryReport
    var scheduler: Scheduler
    var numbering: MessageNumbering
    var cache: ContentCache
    let memory = ContentMemory()
    var counters = Counters()

    // Links.
    var submitters: [ObjectIdentifier: SubmitConnection] = [:]
    var agents: [AgentLinkID: AgentConnection] = [:]
    private var operators: [ObjectIdentifier: OperatorConnection] = [:]
    private var lastAgentLink: UInt64 = 0
    /// Reports that are complete, until the scheduler says with what they are committed.
    var reports: [DeliveryID: (Submission, NewMessage)] = [:]
    /// Forwards that are complete, likewise.
    var forwardings: [DeliveryID: Forwarding] = [:]
    /// Ids that were given out and whose messages are not in the queue yet.
    var arriving: Set<MessageID> = []
    /// Messages that are being imported, by the ids that they will have.
    var imports: [MessageID: NewMessage] = [:]
    /// Operator's orders that are being committed, in order for each message.
    var orders: [MessageID: [([UInt32]) -> Void]] = [:]

    // What the scheduler wants, in order.
    var actions: [Scheduler.Action] = []
    var isPerforming = false
    private var wakeTask: Scheduled<Void>?
    var isStopping = false
    /// Whether the disk or the environment has failed: nothing is accepted any more, and the program is about to end.
    var isBroken = false
    /// Whether the disk had more than the reserve, as of `roomDeadline` less a second.
    private var hasRoom = true
    /// Whether half of the reserve is untouched.
    private var hasRoomForForwards = true
    private var roomDeadline = NIODeadline.uptimeNanoseconds(0)
    /// What has come in since then, by estimate.
    private var unseenOctetCount = 0

    /// The disk is looked at again after so many octets, however soon: a reserve must not be gone within the second.
    private static let unseenOctetCountMax = 524_288
    /// What a small message takes at least: its content, its records and their places in the trees.
    static let messageOctetCountMin = 16_384

    /// A message is handed to the store in parts above this many octets, as long as memory is not crowded.
    static let spillOctetCount = 131_072
    /// The clock is looked at at least so often, whatever it said before.
    private static let wakeDelayMax: Int64 = 60_000_000

    /// Starts the program, serves, and exits.
    package static func main() -> Never {
        let description = Program.Description(
            name: "apus-queue", purpose: "Keeps the mail queue of Apus: accepts, schedules, dispatches and settles.",
            mainLink: (dialect: .submit, peer: "submitter"))
        Program.start(description).run { program, eventLoop in QueueManager(program, eventLoop) }
    }

    private init(_ program: Program, _ eventLoop: any EventLoop) {
        self.program = program
        self.eventLoop = eventLoop
        do throws(SettingsFault) { self.settings = try QueueSettings(program.settings) } catch {
            QueueLog.exit("settings", error.description, .configuration)
        }
        let report: RecoveryReport
        let suspended: [(route: Route, record: DestinationRecord)]
        do throws(LMDBQueueStore.OpenFault) {
            self.store = try LMDBQueueStore(
                directory: self.settings.directory, sizeMax: self.settings.sizeMax,
                sizeReserve: Int(self.settings.reserve))
        } catch {
            QueueLog.exit("open", error.text, error.isInUse ? .temporary : .configuration)
        }
        do throws(StoreFault) {
            report = try self.store.recover()
            suspended = try self.store.destinations(limit: Self.suspendedCountMax)
        } catch {
            QueueLog.exit("recover", QueueLog.text(error), .system)
        }
        self.recovery = report
        self.numbering = MessageNumbering(last: report.lastMessageID)
        self.scheduler = Scheduler(
            limits: self.settings.scheduler, isPaused: self.settings.isPaused,
            seed: SystemRandomNumberGenerator().makeSeed(), suspended: suspended)
        self.cache = ContentCache(octetCountMax: self.settings.cacheOctetCountMax)
        self.committer = Committer(self.store, on: eventLoop)
        self.lookup = LookupClient(on: eventLoop)
        self.committer.owner = self
        QueueLog.opened(report, try? self.store.counts())
    }

    /// Destinations that are remembered as being down across a restart.
    private static let suspendedCountMax = 100_000

    func begin() {
        for link in self.program.links { self.connect(link) }
        self.tell(.timePassed)
    }

    func handle(_ event: ControlEvent) {
        switch event {
        case .settings(let table): self.reload(table)
        case .link(let ends): self.connect(ends)
        case .listen(let listener): listener.descriptor.close()
        case .unlisten, .certificates, .tickets, .start: break
        case .status(let channel): self.program.answerStatus(channel, self.statusRows)
        case .stop: self.stop()
        }
    }

    private func reload(_ table: SettingsTable) {
        do throws(SettingsFault) {
            let settings = try QueueSettings(table)
            guard settings != self.settings else { return self.lookup.forget() }
            if settings.directory != self.settings.directory { QueueLog.note("restart-needed", "directory") }
            self.settings = settings
            self.cache.octetCountMax = settings.cacheOctetCountMax
            self.lookup.forget()
            self.tell(.limitsSet(settings.scheduler))
            self.tell(.pauseSet(settings.isPaused || self.isStandingStill))
        } catch {
            QueueLog.note("settings-kept", error.description)
        }
    }

    // MARK: - Links

    private func connect(_ ends: LinkEnds) {
        switch ends.dialect {
        case .submit:
            let connection = SubmitConnection(ends, self)
            self.submitters[ObjectIdentifier(connection)] = connection
        case .deliver:
            guard let kind = Self.agentKind(ends.peer) else { return self.refuse(ends) }
            self.probe()
            self.lastAgentLink += 1
            let id = AgentLinkID(self.lastAgentLink)
            self.agents[id] = AgentConnection(ends, id, kind, self)
        case .ask: self.lookup.connect(ends)
        case .vault: self.refuse(ends)
        case .operate:
            let connection = OperatorConnection(ends, self)
            self.operators[ObjectIdentifier(connection)] = connection
        }
    }

    /// Nothing is delivered before a transaction has found room: on a full disk, every start would deliver again what could not
    /// be noted before.
    private func probe() {
        guard !self.hasProbed else { return }
        self.hasProbed = true
        self.committer.standStillUntilProbed()
        let id = self.numbering.next(now: WallClock.now())
        self.committer.add(
            .probe(id),
            .told(CommitListener { [unowned self] in self.committer.add(.discard(id), .nothing) }))
    }

    /// Which routes the program at the other end serves.
    private static func agentKind(_ peer: String) -> AgentKind? {
        switch peer {
        case "apus-remote": .remote
        case "apus-local": .local
        case "apus-bounce": .bounce
        default: nil
        }
    }

    private func refuse(_ ends: LinkEnds) {
        QueueLog.note("link-refused", "no agent is called \(ends.peer)")
        ends.input.close()
        if ends.output != ends.input { ends.output.close() }
    }

    func closed(_ connection: SubmitConnection) {
        self.submitters[ObjectIdentifier(connection)] = nil
        // By hand: the end of the input means to finish what can be finished, and to exit.
        if !self.program.isSupervised, self.submitters.isEmpty, self.operators.isEmpty {
            self.finishByHand(wasIdle: false)
        }
    }

    func closed(_ connection: AgentConnection) {
        self.agents[connection.id] = nil
        self.tell(.agentLost(connection.id))
    }

    func closed(_ connection: OperatorConnection) {
        self.operators[ObjectIdentifier(connection)] = nil
        if !self.program.isSupervised, self.submitters.isEmpty, self.operators.isEmpty {
            self.finishByHand(wasIdle: false)
        }
    }

    // MARK: - The scheduler

    /// Tells the scheduler something and does what it wants.
    func tell(_ event: Scheduler.Event) {
        self.scheduler.receive(event, at: WallClock.now(), into: &self.actions)
        self.perform()
    }

    func perform() {
        guard !self.isPerforming else { return }
        self.isPerforming = true
        var index = 0
        while index < self.actions.count {
            // What is done may tell the scheduler more, and so make more actions.
            self.perform(self.actions[index])
            index += 1
        }
        self.actions.removeAll(keepingCapacity: true)
        self.isPerforming = false
    }

    private func perform(_ action: Scheduler.Action) {
        switch action {
        case .deliver(let order):
            self.counters.started += 1
            self.agents[order.link]?.deliver(order)
        case .settle(let settlement):
            if let forwarding = self.forwardings.removeValue(forKey: settlement.delivery) {
                self.committer.add(
                    .exchange(forwarding.messages, for: settlement.message, settlement.changes),
                    .forwarded(forwarding.copies, settlement))
            } else {
                self.committer.add(.settle(settlement.message, settlement.changes), .settled(settlement))
            }
        case .exchange(let settlement): self.exchange(settlement)
        case .loadDue(let after, let through, let limit):
            self.read { () throws(StoreFault) in
                .dueLoaded(try self.store.due(after: after, through: through, limit: limit))
            }
        case .loadWork(let keys):
            self.read { () throws(StoreFault) in .workLoaded(try self.store.load(keys)) }
        case .move(let moves): self.committer.add(moves)
        case .quarantine(let key):
            QueueLog.quarantined(key)
            self.committer.add(.quarantine(key), .nothing)
        case .saveDestination(let route, let record):
            QueueLog.destination(route, record)
            self.committer.add(.destination(route, record), .nothing)
        case .operate(let order):
            self.committer.add(.operate(order, now: WallClock.now()), .operated(order.message))
        case .wake(let time): self.setWake(time)
        case .disconnect(let link): self.agents[link]?.close(because: FrameFault(.outOfPlace, .outcome))
        }
    }

    private func read(_ body: () throws(StoreFault) -> Scheduler.Event) {
        do throws(StoreFault) { self.tell(try body()) } catch { self.broke(QueueLog.text(error)) }
    }

    private func setWake(_ time: Timestamp) {
        self.wakeTask?.cancel()
        let now = WallClock.now()
        let wait = time > now ? Int64(clamping: time.microseconds - now.microseconds) : 0
        self.wakeTask = self.eventLoop.assumeIsolated().scheduleTask(
            in: .microseconds(min(wait, Self.wakeDelayMax))
        ) { self.tell(.timePassed) }
    }

    // MARK: - Room

    /// Whether the reserve is untouched; looked at once a second, and whenever much has come.
    ///
    /// - Parameter isForward: mail of the queue's that goes on to others may have half of the reserve. The rest is for what
    ///   makes the queue emptier.
    func checkRoom(for octetCount: Int, isForward: Bool = false) -> Bool {
        guard !self.isBroken else { return false }
        self.unseenOctetCount += octetCount
        let now = NIODeadline.now()
        guard now >= self.roomDeadline || self.unseenOctetCount >= Self.unseenOctetCountMax else {
            return isForward ? self.hasRoomForForwards : self.hasRoom
        }
        self.roomDeadline = now + .seconds(1)
        self.unseenOctetCount = 0
        let hadRoom = self.hasRoom
        do throws(StoreFault) {
            let room = try self.store.roomOctetCount() ?? .max
            self.hasRoom = room >= self.settings.reserve
            self.hasRoomForForwards = room >= self.settings.reserve / 2
        } catch {
            self.broke(QueueLog.text(error))
            return false
        }
        if hadRoom != self.hasRoom { QueueLog.note(self.hasRoom ? "room-again" : "no-room", self.settings.directory) }
        return isForward ? self.hasRoomForForwards : self.hasRoom
    }

    // MARK: - Content

    /// A part of a message for an agent; nil if there is no such message.
    func content(_ message: MessageID, offset: UInt64, octetCount: Int) -> ArraySlice<UInt8>? {
        if let whole = self.cache[message] {
            guard offset < UInt64(whole.count) else { return [] }
            return whole[Int(offset)...].prefix(octetCount)
        }
        do throws(StoreFault) {
            return try self.store.content(message, offset: offset, count: octetCount)?[...]
        } catch {
            self.broke(QueueLog.text(error))
            return nil
        }
    }

    /// How much of a message is there without a hole from its beginning on; nil if the queue is broken.
    func wholeOctetCount(of message: MessageRecord) -> UInt64? {
        if let whole = self.cache[message.id] { return UInt64(whole.count) }
        do throws(StoreFault) { return try self.store.wholeOctetCount(of: message) } catch {
            self.broke(QueueLog.text(error))
            return nil
        }
    }

    // MARK: - The operator

    /// Has an order done to a message as it was just read; tells the numbers of the recipients that changed when it is committed.
    func order(_ order: OperatorOrder, _ message: StoredMessage, _ done: @escaping ([UInt32]) -> Void) {
        self.orders[order.message, default: []].append(done)
        let meant = message.recipients.lazy.filter { order.means($0.number) }
        self.tell(.ordered(order, destinations: order.verb.wantedDestinations(meant)))
    }

    /// The highest message id there can be now.
    var lastMessageID: MessageID { self.numbering.last }

    // MARK: - The end

    private func stop() {
        guard !self.isStopping else { return }
        self.isStopping = true
        QueueLog.note("stopping", "\(self.scheduler.deliveryCount) deliveries under way")
        self.tell(.stopRequested)
        self.eventLoop.assumeIsolated().scheduleTask(in: TimeAmount(self.settings.stopTimeout)) {
            QueueLog.note("stop-timeout", "\(self.scheduler.deliveryCount) deliveries under way")
            ExitStatus.ok.exit()
        }
        self.exitWhenIdle(wasIdle: false)
    }

    /// Looks now and then whether all is done; a quick way to the end is not worth a call in every path. Idle twice means
    /// that the last answers have left.
    private func exitWhenIdle(wasIdle: Bool) {
        let isIdle =
            self.committer.isIdle && self.scheduler.deliveryCount == 0
            && !self.submitters.values.contains(where: \.isBusy)
        if isIdle, wasIdle { ExitStatus.ok.exit() }
        self.eventLoop.assumeIsolated().scheduleTask(in: .milliseconds(20)) { self.exitWhenIdle(wasIdle: isIdle) }
    }

    /// Run by hand, without more input: deliver what agents take now, then exit.
    private func finishByHand(wasIdle: Bool) {
        // An agent that has not said hello may be about to. Mail for which there is none waits for another start.
        let isAwaited = self.agents.count > self.scheduler.agentCount && self.scheduler.recipientCount > 0
        let isWorking = isAwaited || self.scheduler.servedRecipientCount > 0
        let isIdle = self.committer.isIdle && !isWorking && self.scheduler.deliveryCount == 0
        if isIdle, wasIdle { ExitStatus.ok.exit() }
        self.eventLoop.assumeIsolated().scheduleTask(in: .milliseconds(20)) { self.finishByHand(wasIdle: isIdle) }
    }
}

extension SystemRandomNumberGenerator {
    fileprivate func makeSeed() -> UInt64 {
        var generator = self
        return generator.next()
    }
}

extension QueueManager: LoopProgram {}
