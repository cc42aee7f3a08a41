// SPDX-License-Identifier: Apache-2.0

import Cryptography
import MailTypes
import NIOCore
import PipeCore
import PipeDrivers
import SASLCore
import Unix

/// The exchanges of all links, on one event loop. Whatever is slow on purpose is done by `Workers`.
final class VaultServer: LoopProgram, LinkReceiver {
    private struct Key: Hashable {
        let link: ObjectIdentifier
        let channel: UInt32
    }

    private struct OpenExchange {
        let exchange: any Exchange
        /// Whose failure it would be; nil if we are the client.
        let client: IPAddress?
    }

    /// Who may ask what. Which of them a link leads to is apusd's word, not that of the program at its end: one that was
    /// taken over gets neither the passwords of our accounts elsewhere nor a place to try those of users.
    private enum Asker: String {
        case receiver = "apus-smtpd"
        case sender = "apus-remote"
    }

    private let program: Program
    private let eventLoop: any EventLoop
    private let cryptography = Cryptography()
    private var settings: VaultSettings
    private var source: any CredentialSource
    private var accounts: Accounts?
    private var links: [ObjectIdentifier: Link] = [:]
    private var exchanges: [Key: OpenExchange] = [:]
    /// Of all who ask: there may be several processes of apus-smtpd.
    private var failures: AuthenticationFailures
    private var announced: [SASLMechanism]?
    private var grantedCount = 0
    private var deniedCount = 0

    /// More exchanges at once are told to come again.
    private static let exchangeCountMax = 10_000

    init(_ program: Program, _ settings: VaultSettings, _ eventLoop: any EventLoop) {
        self.program = program
        self.settings = settings
        self.eventLoop = eventLoop
        self.failures = AuthenticationFailures(
            clientCountMax: settings.failureCountPerClientMax, userCountMax: settings.failureCountPerUserMax,
            span: settings.failureSpan)
        self.source = NoSource()
        self.source = self.makeSource()
        self.accounts = settings.accounts.map { Accounts(path: $0) }
    }

    private func makeSource() -> any CredentialSource {
        let workers = Workers(eventLoop: self.eventLoop)
        switch self.settings.source {
        case .passwordFile(let path, let key): return FileSource(path: path, decoyKey: key, workers: workers)
        case .system: return SystemSource(workers: workers)
        case .checkpassword(let words): return CheckpasswordSource(words: words, workers: workers)
        case .dovecot(let path):
            return DovecotSource(path: path, on: self.eventLoop) { [weak self] in self?.announce() }
        case .none: return NoSource()
        }
    }

    func begin() {
        for ends in self.program.links where ends.dialect == .vault { self.open(ends) }
    }

    private func open(_ ends: LinkEnds) {
        let link = Link(
            ends, program: "apus-vault", unreadOctetCountMax: Link.unreadAnswerOctetCountMax, receiver: self,
            on: self.eventLoop)
        self.links[ObjectIdentifier(link)] = link
    }

    func handle(_ event: ControlEvent) {
        switch event {
        case .settings(let table): self.reload(table)
        case .link(let ends): self.open(ends)
        case .status(let channel):
            self.program.answerStatus(
                channel,
                [
                    ("exchanges", "\(self.exchanges.count)"), ("granted", "\(self.grantedCount)"),
                    ("denied", "\(self.deniedCount)"), ("links", "\(self.links.count)"),
                ])
        // Whoever is in the middle of an exchange is told to come again, as with every loss of the link.
        case .stop: ExitStatus.ok.exit()
        case .listen, .unlisten, .certificates, .tickets, .start: break
        }
    }

    private func reload(_ table: SettingsTable) {
        do throws(SettingsFault) {
            let settings = try VaultSettings(table)
            let isOther = settings.source != self.settings.source
            if settings.accounts != self.settings.accounts {
                self.accounts = settings.accounts.map { Accounts(path: $0) }
            }
            self.settings = settings
            // What was counted under other settings counts on.
            self.failures.clientCountMax = settings.failureCountPerClientMax
            self.failures.userCountMax = settings.failureCountPerUserMax
            self.failures.span = settings.failureSpan
            if isOther {
                self.source.close()
                self.source = self.makeSource()
            }
            self.announce()
        } catch {
            var line = LogLine("settings-wrong")
            line.add("reason", error.description)
            line.write()
        }
    }

    // MARK: Mechanisms

    /// What the settings allow of what the source can do; without settings, what works for everybody.
    private var mechanisms: [SASLMechanism] {
        guard let wanted = self.settings.mechanisms else { return self.source.suitableMechanisms }
        return SASLMechanism.allCases.filter { wanted.contains($0) && self.source.possibleMechanisms.contains($0) }
    }

    /// Tells all links what can be offered, if that is not what they know.
    private func announce() {
        let mechanisms = self.mechanisms
        guard mechanisms != self.announced else { return }
        self.announced = mechanisms
        for link in self.links.values where link.hello != nil { self.tell(link, mechanisms) }
    }

    private func tell(_ link: Link, _ mechanisms: [SASLMechanism]) {
        link.send { VaultAnswer.mechanisms(mechanisms).append(to: &$0, channel: 0) }
    }

    // MARK: Links

    func linkOpened(_ link: Link, hello: Hello) {
        self.announced = self.mechanisms
        self.tell(link, self.mechanisms)
    }

    func linkReceived(_ frame: Frame, from link: Link) {
        do throws(FrameFault) {
            let key = Key(link: ObjectIdentifier(link), channel: frame.channel)
            switch try VaultRequest(frame) {
            case .begin(let beginning):
                try Self.check(link, is: .receiver, frame)
                try self.checkFree(key, frame)
                self.begin(beginning, key, link)
            case .login(let login):
                try Self.check(link, is: .sender, frame)
                try self.checkFree(key, frame)
                self.begin(login, key, link)
            case .answer(let response):
                // An exchange that has ended while the answer was under way is not a mistake.
                guard let exchange = self.exchanges[key]?.exchange else { return }
                guard !exchange.isBusy else { throw FrameFault(.outOfPlace, frame.verb) }
                exchange.respond(response)
            case .cancel(let isOverdue): self.abandon(key, isOverdue: isOverdue)
            case .spent(let expense):
                try Self.check(link, is: .receiver, frame)
                self.passOn(expense, from: link)
            }
        } catch {
            link.close(because: error)
        }
    }

    private static func check(_ link: Link, is asker: Asker, _ frame: Frame) throws(FrameFault) {
        guard link.ends.peer == asker.rawValue else { throw FrameFault(.outOfPlace, frame.verb) }
    }

    private func checkFree(_ key: Key, _ frame: Frame) throws(FrameFault) {
        guard key.channel != 0, self.exchanges[key] == nil else { throw FrameFault(.badChannel, frame.verb) }
    }

    /// Tells all others. Who does not read misses it: that costs a limit some sharpness, and this process no memory.
    private func passOn(_ expense: UserExpense, from link: Link) {
        for other in self.links.values where other !== link && other.hello != nil && other.isWritable {
            other.send { VaultAnswer.spent(expense).append(to: &$0, channel: 0) }
        }
    }

    private func begin(_ beginning: ExchangeBeginning, _ key: Key, _ link: Link) {
        self.source.refresh()
        self.announce()
        guard self.hasRoom(for: key, link) else { return }
        let client = beginning.client
        guard !self.failures.isBlocked(client, now: ThisProcess.uptime) else {
            return self.answer(.denied(reason: VaultAnswer.blocked, user: []), key, link)
        }
        guard self.mechanisms.contains(beginning.mechanism) else {
            // It was offered a moment ago, or nobody would have asked: the source has changed, or is in trouble, and that
            // is not the client's failure.
            let text = "\(beginning.mechanism.rawValue) is not offered any more"
            return self.answer(.later(text: Array(text.utf8)), key, link)
        }
        guard self.failures.hasRoom(client, now: ThisProcess.uptime) else {
            return self.answer(.later(text: Array("too many exchanges of one client at once".utf8)), key, link)
        }
        self.start(self.source.makeExchange(beginning, self.mechanisms, self.answering(key, link)), key, client)
    }

    private func begin(_ login: AccountLogin, _ key: Key, _ link: Link) {
        guard self.hasRoom(for: key, link) else { return }
        self.start(AccountExchange(login, self.accounts, self.answering(key, link)), key, nil)
    }

    private func hasRoom(for key: Key, _ link: Link) -> Bool {
        if self.exchanges.count < Self.exchangeCountMax { return true }
        self.answer(.later(text: Array("too many exchanges at once".utf8)), key, link)
        return false
    }

    private func answering(_ key: Key, _ link: Link) -> (VaultAnswer) -> Void {
        { [weak self, weak link] answer in
            guard let self, let link, let open = self.exchanges[key] else { return }
            self.answer(open.client.map { self.judged(answer, $0) } ?? answer, key, link)
        }
    }

    /// The end of a client's exchange, in the light of how often it, or others as this user, have failed.
    private func judged(_ answer: VaultAnswer, _ client: IPAddress) -> VaultAnswer {
        let now = ThisProcess.uptime
        switch answer {
        case .granted(let user):
            // Somebody guesses as this user from everywhere: whether he has guessed right is not told.
            guard !self.failures.isBlocked(client, user: user, now: now) else {
                return .denied(reason: VaultAnswer.blocked, user: user)
            }
            self.failures.noteSuccess(client, user: user, now: now)
            return answer
        case .denied(_, let user):
            let isBlocked = !user.isEmpty && self.failures.isBlocked(client, user: user, now: now)
            self.failures.noteFailure(client, user: user.isEmpty ? nil : user, now: now)
            return isBlocked ? .denied(reason: VaultAnswer.blocked, user: user) : answer
        case .challenge, .proof, .mechanisms, .spent, .later: return answer
        }
    }

    private func start(_ exchange: any Exchange, _ key: Key, _ client: IPAddress?) {
        self.exchanges[key] = OpenExchange(exchange: exchange, client: client)
        if let client { self.failures.noteBegin(client) }
        exchange.begin()
    }

    @discardableResult
    private func remove(_ key: Key) -> OpenExchange? {
        guard let open = self.exchanges.removeValue(forKey: key) else { return nil }
        if let client = open.client { self.failures.noteEnd(client) }
        return open
    }

    /// Nobody wants the answer any more. If credentials were being checked, that counts as a failure of the client's,
    /// who has tried them and does not wait to be told so; unless it was the check that took too long.
    private func abandon(_ key: Key, isOverdue: Bool) {
        guard let open = self.remove(key) else { return }
        let isFailure = open.exchange.isBusy && !isOverdue
        open.exchange.cancel()
        guard let client = open.client, isFailure else { return }
        self.failures.noteFailure(client, user: nil, now: ThisProcess.uptime)
        self.deniedCount += 1
    }

    private func answer(_ answer: VaultAnswer, _ key: Key, _ link: Link) {
        switch answer {
        case .challenge, .proof, .mechanisms, .spent: break
        case .granted: self.grantedCount += 1
        case .denied: self.deniedCount += 1
        case .later(let text):
            var line = LogLine("later")
            line.add("reason", text)
            line.write()
        }
        switch answer {
        case .challenge, .proof, .spent: break
        case .mechanisms, .granted, .denied, .later: self.remove(key)
        }
        link.send { answer.append(to: &$0, channel: key.channel) }
    }

    func linkClosed(_ link: Link) {
        let identifier = ObjectIdentifier(link)
        self.links[identifier] = nil
        for key in self.exchanges.keys where key.link == identifier {
            self.abandon(key, isOverdue: false)
        }
        // By hand there will be no other link.
        if self.links.isEmpty, !self.program.isSupervised { ExitStatus.ok.exit() }
    }
}
