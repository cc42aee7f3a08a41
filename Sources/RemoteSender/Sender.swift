// SPDX-License-Identifier: Apache-2.0
//
// Carries deliveries to servers: finds the hosts, opens or reuses connections, goes to the next host when one cannot,
// and tells the queue what became of each recipient. Which host comes next is decided in DNSCore, what is said to it
// in SMTPCore; here is only who talks to whom.

import DNSCore
import MailTypes
import NIOCore
import PipeCore
import SMTPCore
import SMTPDrivers
import TLSEngine
import Unix

/// All deliveries of the process, on one event loop.
final class Sender {
    /// How often deadlines of connections are looked at.
    private static let tick = TimeAmount.milliseconds(500)

    private let eventLoop: any EventLoop
    private(set) var settings: RemoteSettings
    private var resolver: Resolver?
    private let encryption: SenderEncryption
    let authentication: SenderAuthentication
    private var pool = ConnectionPool()
    /// Whose message a connection carries.
    private var users: [UInt64: Attempt] = [:]
    /// From `go` to `done`.
    private var attempts: [UInt64: Attempt] = [:]
    /// Those for which `connections-max` leaves no connection, the first from `waitingStart` on.
    private var waiting: [(attempt: Attempt, candidate: MailExchangers.Candidate)] = []
    private var waitingStart = 0
    private var random = SystemRandomNumberGenerator()
    private var lastNumber: UInt64 = 0
    private var isTickScheduled = false
    /// Whether nothing new is to be begun.
    private(set) var isStopping = false
    /// Called when something has ended.
    var onEnd: (() -> Void)?

    init(_ settings: RemoteSettings, eventLoop: any EventLoop) {
        self.settings = settings
        self.eventLoop = eventLoop
        self.encryption = SenderEncryption(settings)
        self.authentication = SenderAuthentication(eventLoop: eventLoop)
        self.resolver = self.makeResolver()
    }

    private func makeResolver() -> Resolver {
        Resolver(
            servers: self.settings.resolvers, limits: self.settings.resolverLimits, user: self,
            eventLoop: self.eventLoop)
    }

    /// For deliveries and connections that begin from now on. What is under way goes on as it began.
    func reload(_ settings: RemoteSettings) {
        let old = self.settings
        self.settings = settings
        self.encryption.reload(settings)
        // What was opened on other terms (plain text, no user) must not carry what comes.
        self.pool.outdate()
        self.closeIdle()
        guard settings.resolvers != old.resolvers || settings.resolverLimits != old.resolverLimits else { return }
        self.resolver?.close()
        self.resolver = self.makeResolver()
        // Questions that the old one had under way are asked again.
        for attempt in self.attempts.values.sorted(by: { $0.number < $1.number })
        where attempt.connection == nil && attempt.exchangers?.isAsking == true {
            self.seekHosts(attempt)
        }
    }

    var connectionCount: Int { self.pool.count }
    var idleConnectionCount: Int { self.pool.idleCount }
    var attemptCount: Int { self.attempts.count }
    var waitingCount: Int { self.waiting.count - self.waitingStart }

    func nextNumber() -> UInt64 {
        self.lastNumber += 1
        return self.lastNumber
    }

    // MARK: Attempts

    /// The envelope of a delivery is complete.
    func start(_ attempt: Attempt) {
        // What is not begun before we go is tried again by our successor.
        guard !self.isStopping else { return }
        self.attempts[attempt.number] = attempt
        if let connection = self.pool.take(attempt.nextHop) {
            attempt.isReusing = true
            self.use(connection, for: attempt)
            connection.begin(attempt.transaction())
        } else {
            self.seekHosts(attempt)
        }
    }

    private func seekHosts(_ attempt: Attempt) {
        attempt.isReusing = false
        attempt.exchangers = MailExchangers(
            nextHop: attempt.nextHop, port: self.settings.port, families: self.settings.families,
            ourselves: self.settings.ourselves, limits: self.settings.exchangerLimits)
        self.feed(.begun, to: attempt)
    }

    private func feed(_ event: MailExchangers.Event, to attempt: Attempt) {
        guard let action = attempt.exchangers?.receive(event, random: &self.random) else { return }
        switch action {
        case .wait: break
        case .ask(let questions):
            for question in questions { self.resolver?.ask(question, asker: attempt.number) }
        case .connect(let candidate):
            attempt.isResumingTried = false
            attempt.isPlainTextTried = false
            self.connect(attempt, to: candidate)
        case .end(let outcome):
            attempt.settleRest(outcome)
            self.finish(attempt)
        }
    }

    private func connect(_ attempt: Attempt, to candidate: MailExchangers.Candidate) {
        guard self.pool.count < self.settings.connectionCountMax else {
            self.waiting.append((attempt, candidate))
            self.pool.takeOldest()?.quit()
            return
        }
        var encryption: ClientEncryption?
        do throws(TLSError) {
            encryption =
                attempt.isPlainTextTried || candidate.socket != nil
                ? nil : try self.encryption.terms(self.settings.tls(attempt.nextHop), attempt.nextHop, candidate)
        } catch {
            // Ours to mend, and not the host's: no other host would be better off.
            attempt.settleRest(
                DeliveryOutcome(
                    .deferred, code: 0, status: EnhancedStatus(.transient, 7, 5), reporter: candidate.octets,
                    text: Array(error.text.utf8)))
            self.finish(attempt)
            return
        }
        if attempt.isResumingTried { encryption?.session = nil }
        attempt.isResuming = encryption?.session != nil
        attempt.candidate = candidate
        let connection = ClientConnection(
            number: self.nextNumber(), peerName: candidate.octets, helloName: self.settings.helloName,
            timeLimits: self.settings.timeLimits, replyLimits: RemoteSettings.replyLimits, encryption: encryption,
            hasMissedTLS: attempt.isPlainTextTried, isAuthenticating: self.settings.user(attempt.nextHop) != nil,
            isLMTP: attempt.nextHop.isLMTP, user: self, eventLoop: self.eventLoop)
        self.pool.insert(connection, nextHop: attempt.nextHop)
        self.use(connection, for: attempt)
        self.scheduleTick()
        if let path = candidate.socket {
            connection.connect(toSocket: String(decoding: path, as: UTF8.self))
        } else {
            connection.connect(to: candidate.address, port: candidate.port)
        }
    }

    private func use(_ connection: ClientConnection, for attempt: Attempt) {
        self.users[connection.number] = attempt
        attempt.connection = connection
    }

    private func finish(_ attempt: Attempt) {
        self.attempts[attempt.number] = nil
        if let queueLink = attempt.queueLink {
            queueLink.finish(attempt)
        } else {
            self.logUntold(attempt)
        }
        self.onEnd?()
    }

    /// The queue has noted an attempt.
    func attemptEnded() { self.onEnd?() }

    /// The queue is gone. Only what has passed its final dot is waited for; nobody else can take it for lost.
    func linkClosed(_ link: QueueLink, _ attempts: [Attempt]) {
        for attempt in attempts {
            attempt.queueLink = nil
            if let connection = attempt.connection, connection.isAwaitingFinalReply { continue }
            self.attempts[attempt.number] = nil
            attempt.connection?.abandon()
        }
        self.onEnd?()
    }

    // MARK: Ending

    /// Begins nothing new. `onEnd` is called whenever something has ended; `isFinished` tells when all has.
    func stop() {
        self.isStopping = true
        self.closeIdle()
    }

    /// Says QUIT on every connection that waits.
    func closeIdle() {
        while let connection = self.pool.takeOldest() { connection.quit() }
    }

    var isFinished: Bool { self.attempts.isEmpty && self.pool.count == 0 }

    // MARK: Time

    private func scheduleTick() {
        guard !self.isTickScheduled else { return }
        self.isTickScheduled = true
        self.eventLoop.assumeIsolated().scheduleTask(in: Self.tick) {
            self.isTickScheduled = false
            let now = NIODeadline.now()
            for connection in self.pool.connections { connection.checkTime(now) }
            if self.pool.count > 0 { self.scheduleTick() }
        }
    }

    /// Connections that became free, or will become so, go to those who wait.
    private func serveWaiting() {
        while self.waitingStart < self.waiting.count, self.pool.count < self.settings.connectionCountMax {
            let (attempt, candidate) = self.waiting[self.waitingStart]
            self.waitingStart += 1
            if self.waitingStart > 1_000, self.waitingStart * 2 > self.waiting.count {
                self.waiting.removeSubrange(..<self.waitingStart)
                self.waitingStart = 0
            }
            // It may have been given up meanwhile.
            if self.attempts[attempt.number] != nil { self.connect(attempt, to: candidate) }
        }
        if self.waitingStart == self.waiting.count {
            self.waiting.removeAll(keepingCapacity: true)
            self.waitingStart = 0
        }
    }

    /// The one that has waited longest for a connection, if this one leads where it wants to go.
    private func takeWaiting(for connection: ClientConnection) -> Attempt? {
        while self.waitingCount > 0 {
            let attempt = self.waiting[self.waitingStart].attempt
            let isWanted = self.attempts[attempt.number] != nil
            guard !isWanted || attempt.nextHop == self.pool.nextHop(of: connection) else { return nil }
            self.waitingStart += 1
            if isWanted { return attempt }
        }
        return nil
    }

    // MARK: Log

    private func logFailure(_ attempt: Attempt, _ outcome: DeliveryOutcome) {
        var line = LogLine("host-failed")
        line.add("id", attempt.delivery.id)
        line.add("host", outcome.reporter)
        line.add("code", outcome.code)
        line.add("status", outcome.status.octets)
        line.add("reason", outcome.text)
        line.write()
    }

    private func logHandshake(_ attempt: Attempt, _ outcome: DeliveryOutcome, next: String) {
        var line = LogLine("tls-failed")
        line.add("id", attempt.delivery.id)
        line.add("host", outcome.reporter)
        line.add("reason", outcome.text)
        line.add("next", next)
        line.write()
    }

    /// The queue did not wait for this; the successor will send it again.
    private func logUntold(_ attempt: Attempt) {
        for (recipient, outcome) in zip(attempt.recipients, attempt.outcomes) {
            guard let outcome else { continue }
            var line = LogLine("outcome-untold")
            line.add("id", attempt.delivery.id)
            line.add(path: "to", recipient.forwardPath.octets)
            line.add("outcome", outcome.kind.rawValue)
            line.add("host", outcome.reporter)
            line.add("reason", outcome.text)
            line.write()
        }
    }
}

extension Sender: ResolverUser {
    func resolverAnswered(_ answer: DNSAnswer, to question: DNSQuestion, asker: UInt64) {
        guard let attempt = self.attempts[asker] else { return }
        self.feed(.answered(question, answer), to: attempt)
    }
}

extension Sender: ClientConnectionUser {
    func connectionBecameReady(_ connection: ClientConnection) {
        guard let attempt = self.users[connection.number], self.attempts[attempt.number] != nil else {
            connection.quit()
            return
        }
        var line = LogLine("connected")
        line.add("id", attempt.delivery.id)
        line.add("host", connection.peerName)
        line.add("tls", connection.tls?.version ?? "none")
        if let tls = connection.tls {
            line.add("cipher", tls.cipher)
            line.add("trust", tls.isVerified ? "verified" : "none")
            if tls.isResumed { line.add("resumed", "true") }
        }
        if let user = self.authentication.end(connection) { line.add("user", user) }
        line.write()
        connection.begin(attempt.transaction())
    }

    func connectionWantsProof(_ connection: ClientConnection) {
        guard let attempt = self.users[connection.number], let user = self.settings.user(attempt.nextHop) else {
            return connection.prove(.none("the settings have changed"))
        }
        self.authentication.begin(
            connection, user: user, nextHop: attempt.nextHop, isLocal: attempt.candidate?.address.isLoopback == true)
    }

    func connectionWasChallenged(_ connection: ClientConnection, _ challenge: [UInt8]) {
        self.authentication.challenged(connection, challenge)
    }

    func connectionWantsContent(_ connection: ClientConnection, offset: UInt64, octetCount: Int) {
        self.users[connection.number]?.want(offset: offset, octetCount: octetCount)
    }

    func connectionConcluded(_ connection: ClientConnection, _ conclusion: ClientSession.Conclusion) {
        guard let attempt = self.users.removeValue(forKey: connection.number) else {
            connection.quit()
            return
        }
        attempt.leaveConnection()
        attempt.take(conclusion.verdicts)
        if attempt.isSettled {
            self.finish(attempt)
            self.release(connection)
            return
        }
        self.release(connection)
        guard self.attempts[attempt.number] != nil else { return }
        let failure =
            conclusion.failure
            ?? DeliveryOutcome(
                .deferred, code: 0, status: EnhancedStatus(.transient, 0, 0), reporter: connection.peerName,
                text: Array("The server gave no verdict".utf8))
        if !attempt.isReusing, connection.hasHandshakeFailed, let candidate = attempt.candidate,
            self.tryOtherwise(attempt, candidate, failure)
        {
            return
        }
        self.tryElsewhere(attempt, failure)
    }

    /// After a handshake that failed, the same host once more: without the session of an earlier connection, which may be what
    /// it cannot bear, and then, where that will do, without TLS. False if there is no other way.
    private func tryOtherwise(
        _ attempt: Attempt, _ candidate: MailExchangers.Candidate, _ failure: DeliveryOutcome
    ) -> Bool {
        let demand = self.settings.tls(attempt.nextHop)
        self.encryption.forget(demand, attempt.nextHop, candidate)
        if attempt.isResuming {
            self.logHandshake(attempt, failure, next: "full handshake")
            attempt.isResumingTried = true
        } else if demand == .may {
            // Nothing is lost that plain text from the beginning would have kept.
            self.logHandshake(attempt, failure, next: "plain text")
            attempt.isPlainTextTried = true
        } else {
            return false
        }
        self.connect(attempt, to: candidate)
        return true
    }

    private func tryElsewhere(_ attempt: Attempt, _ failure: DeliveryOutcome) {
        // A connection that has waited may be dead or its server tired of it: that says nothing of the host.
        guard !attempt.isReusing else { return self.seekHosts(attempt) }
        self.logFailure(attempt, failure)
        self.feed(.candidateFailed(failure), to: attempt)
    }

    /// Keeps a connection for the next message, or ends it.
    private func release(_ connection: ClientConnection) {
        guard connection.isReady, !self.isStopping, !self.pool.isOutdated(connection),
            let nextHop = self.pool.nextHop(of: connection),
            connection.transactionCount < self.settings.messagesPerConnectionMax(nextHop)
        else {
            connection.quit()
            return
        }
        if let attempt = self.takeWaiting(for: connection) {
            attempt.isReusing = true
            self.use(connection, for: attempt)
            connection.begin(attempt.transaction())
            return
        }
        guard self.waitingCount == 0, self.settings.idleConnectionCountMax > 0, self.settings.timeLimits.idle > .zero
        else {
            connection.quit()
            return
        }
        self.pool.keep(connection)
        if self.pool.idleCount > self.settings.idleConnectionCountMax { self.pool.takeOldest()?.quit() }
    }

    func connectionClosed(_ connection: ClientConnection) {
        _ = self.authentication.end(connection)
        self.pool.remove(connection)
        if let attempt = self.users.removeValue(forKey: connection.number) {
            attempt.leaveConnection()
            // No session ends without a conclusion. If one did, its message must not wait for ever.
            if self.attempts[attempt.number] != nil {
                self.tryElsewhere(
                    attempt,
                    DeliveryOutcome(
                        .deferred, code: 0, status: EnhancedStatus(.transient, 4, 2), reporter: connection.peerName,
                        text: Array("The connection was lost".utf8)))
            }
        }
        self.serveWaiting()
        self.onEnd?()
    }
}
