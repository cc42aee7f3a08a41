// SPDX-License-Identifier: Apache-2.0

import IDN
import LookupCore
import MailTypes
import NIOCore
import PipeCore
import PipeDrivers
import Unix

/// apus-lookup: answers which recipients are ours, and where they go.
package enum LookupProgram {
    package static func main() -> Never {
        let program = Program.start(
            Program.Description(
                name: "apus-lookup",
                purpose: "Answers whether a recipient is ours, and where it goes: domains, aliases, users, routes.",
                mainLink: (.ask, "apus-queue")))
        do throws(SettingsFault) {
            let settings = try LookupSettings(program.settings)
            program.run { program, eventLoop in LookupServer(program, settings, eventLoop) }
        } catch {
            var line = LogLine("settings-wrong")
            line.add("reason", error.description)
            line.write()
            ExitStatus.configuration.exit()
        }
    }
}

/// A question that cannot be answered at once, as a server of tables has to be asked first.
private final class Inquiry {
    let question: AskQuestion
    let channel: UInt32
    let link: Link
    /// What has been heard for it.
    var answers: [TableQuestion: TableFinding] = [:]
    /// How many questions to servers are under way for it.
    var waitingCount = 0
    /// After that nothing more is asked for it.
    let deadline: NIODeadline

    init(_ question: AskQuestion, _ channel: UInt32, _ link: Link, deadline: NIODeadline) {
        self.question = question
        self.channel = channel
        self.link = link
        self.deadline = deadline
    }
}

/// The answers to all links, on one event loop.
private final class LookupServer: LoopProgram, LinkReceiver {
    private let program: Program
    private let eventLoop: any EventLoop
    private var settings: LookupSettings
    private var aliases: AliasSource
    private var directory: LookupDirectory
    private var senders: SenderSource
    private var resolver: RecipientResolver
    private var links: [ObjectIdentifier: Link] = [:]
    private var questionCount = 0

    init(_ program: Program, _ settings: LookupSettings, _ eventLoop: any EventLoop) {
        self.program = program
        self.settings = settings
        self.eventLoop = eventLoop
        self.aliases = AliasSource(path: settings.aliasesPath, settings.aliasTerms)
        self.directory = LookupDirectory(
            users: SystemUsers(listed: settings.users), tables: settings.openTables(on: eventLoop))
        self.senders = SenderSource(path: settings.sendersPath)
        self.resolver = RecipientResolver(rules: settings.rules, aliases: AliasFile(), domains: .idna2008)
        self.renew()
        self.refresh()
    }

    func begin() {
        for ends in self.program.links where ends.dialect == .ask { self.open(ends) }
    }

    private func open(_ ends: LinkEnds) {
        let link = Link(
            ends, program: "apus-lookup", unreadOctetCountMax: Link.unreadAnswerOctetCountMax, receiver: self,
            on: self.eventLoop)
        self.links[ObjectIdentifier(link)] = link
    }

    func handle(_ event: ControlEvent) {
        switch event {
        case .settings(let table):
            do throws(SettingsFault) {
                let settings = try LookupSettings(table)
                if settings.aliasesPath != self.settings.aliasesPath
                    || settings.aliasTerms != self.settings.aliasTerms
                {
                    self.aliases = AliasSource(path: settings.aliasesPath, settings.aliasTerms)
                }
                if settings.sendersPath != self.settings.sendersPath {
                    self.senders = SenderSource(path: settings.sendersPath)
                }
                self.settings = settings
                self.directory.users = SystemUsers(listed: settings.users)
                if !settings.areTables(self.directory.tables) {
                    self.directory.tables.close()
                    self.directory.tables = settings.openTables(on: self.eventLoop)
                }
                self.renew()
                self.refresh()
            } catch {
                var line = LogLine("settings-wrong")
                line.add("reason", error.description)
                line.write()
            }
        case .link(let ends): self.open(ends)
        case .status(let channel):
            self.program.answerStatus(
                channel,
                [
                    ("questions", "\(self.questionCount)"), ("aliases", "\(self.aliases.file.entries.count)"),
                    ("links", "\(self.links.count)"),
                ])
        // Questions that wait for a server of tables are for whoever asks to ask again.
        case .stop: ExitStatus.ok.exit()
        case .listen, .unlisten, .certificates, .tickets, .start: break
        }
    }

    /// Takes the settings and the aliases as they are now.
    private func renew() {
        _ = self.aliases.refresh(uptime: ThisProcess.uptime, now: WallClock.now())
        self.resolver = RecipientResolver(
            rules: self.settings.rules, aliases: self.aliases.file, domains: .idna2008)
        for fault in self.resolver.circles() {
            var line = LogLine("alias-fault")
            line.add("line", fault.line)
            line.add("reason", fault.text)
            line.write()
        }
    }

    private func refresh() {
        self.senders.refresh(uptime: ThisProcess.uptime, now: WallClock.now())
        self.directory.tables.refresh(uptime: ThisProcess.uptime, now: WallClock.now())
        if self.aliases.refresh(uptime: ThisProcess.uptime, now: WallClock.now()) { self.renew() }
    }

    // MARK: Links

    func linkOpened(_ link: Link, hello: Hello) {}

    func linkReceived(_ frame: Frame, from link: Link) {
        do throws(FrameFault) {
            let question = try AskQuestion(frame)
            self.questionCount += 1
            self.refresh()
            let deadline = NIODeadline.now() + TimeAmount(self.settings.tableTimeLimit)
            self.proceed(Inquiry(question, frame.channel, link, deadline: deadline))
        } catch {
            link.close(because: error)
        }
    }

    /// Answers, or asks for what is missing, and proceeds when that is there.
    private func proceed(_ inquiry: Inquiry) {
        self.directory.begin(answers: inquiry.answers)
        var octets: [UInt8] = []
        self.answer(inquiry.question, inquiry.channel, &octets)
        let missing = self.directory.unanswered
        guard !missing.isEmpty else { return inquiry.link.send { $0 += octets } }
        guard NIODeadline.now() < inquiry.deadline else {
            for question in missing {
                inquiry.answers[question] = .unknownNow(reason: "the table \(question.place.text): no answer in time")
            }
            return self.proceed(inquiry)
        }
        inquiry.waitingCount = missing.count
        for question in missing {
            self.directory.tables.ask(question) { finding in
                inquiry.answers[question] = finding
                inquiry.waitingCount -= 1
                if inquiry.waitingCount == 0, !inquiry.link.isClosed { self.proceed(inquiry) }
            }
        }
    }

    private func answer(_ question: AskQuestion, _ channel: UInt32, _ octets: inout [UInt8]) {
        switch question {
        case .check(let path):
            if let rewritten = self.rewritten(path) {
                let answer: AskAnswer =
                    switch rewritten {
                    case .address: .local
                    case .unknown(let text): .unknown(EnhancedStatus(.permanent, 1, 1), text: Array(text.utf8))
                    }
                return answer.append(to: &octets, channel: channel)
            }
            let answer: AskAnswer =
                switch self.resolver.check(path, in: &self.directory) {
                case .local: .local
                case .remote: .remote
                case .unknown(let status, let text): .unknown(status, text: Array(text.utf8))
                case .later(let text): self.later(path, text)
                }
            answer.append(to: &octets, channel: channel)
        case .resolve(let path, let meaning):
            self.answer(self.resolution(of: path, meaning), path, channel, &octets)
        case .sender(let path, let user): self.sender(path, user).append(to: &octets, channel: channel)
        case .owner(let path, let uid): self.owner(path, uid).append(to: &octets, channel: channel)
        case .explain(let path):
            let (steps, resolution) = self.resolver.explain(path, in: &self.directory)
            for step in steps {
                AskAnswer.step(
                    kind: Array(step.kind.rawValue.utf8), subject: step.subject, text: step.text,
                    place: Array(self.text(step.place).utf8)
                ).append(to: &octets, channel: channel)
            }
            self.answer(resolution, path, channel, &octets)
        }
    }

    /// What a rewritten sender's address of ours leads to.
    private enum Rewritten {
        case address(ForwardPath)
        case unknown(String)
    }

    /// Nil: it is no such address.
    private func rewritten(_ path: ForwardPath) -> Rewritten? {
        guard let rewriting = self.settings.rewriting, case .address(let address) = path, rewriting.isOurs(address)
        else { return nil }
        guard let original = rewriting.original(address, at: WallClock.now()) else {
            return .unknown("no rewritten sender of ours, or one of weeks ago")
        }
        return .address(.address(original))
    }

    private func resolution(of path: ForwardPath, _ meaning: PathMeaning) -> RecipientResolver.Resolution {
        switch meaning == .address ? self.rewritten(path) : nil {
        case nil: self.resolver.resolve(path, meaning, in: &self.directory)
        case .address(let original): self.resolver.resolve(original, in: &self.directory)
        case .unknown(let text): .unknown(EnhancedStatus(.permanent, 1, 1), text: text)
        }
    }

    /// Whether a user of this machine may send as an address: his own, or any if he is trusted.
    private func owner(_ path: ForwardPath, _ uid: UInt32) -> AskAnswer {
        if uid == 0 { return .local }
        do throws(SystemError) {
            for name in self.settings.trustedUsers where try UserAccount.named(name)?.uid == uid { return .local }
            for name in self.resolver.ownerNames(of: path) {
                if Route.isUserName(name),
                    let account = try UserAccount.named(String(decoding: name, as: UTF8.self))
                {
                    return account.uid == uid ? .local : .remote
                }
                // Mail for the address goes there, and not to whoever has the rest of the name.
                if self.resolver.isAlias(name) { return .remote }
            }
        } catch { return self.later(path, error.text) }
        return .remote
    }

    private func sender(_ path: ForwardPath, _ user: [UInt8]) -> AskAnswer {
        guard let table = self.senders.table else { return self.later(path, "the table of senders cannot be read") }
        switch self.resolver.maySend(user.lowercasedOctets, as: path, table, in: &self.directory) {
        case true?: return .local
        case false?: return .remote
        case nil: return self.later(path, "whose address it is cannot be looked up now")
        }
    }

    private func answer(
        _ resolution: RecipientResolver.Resolution, _ path: ForwardPath, _ channel: UInt32, _ octets: inout [UInt8]
    ) {
        switch resolution {
        case .targets(let targets):
            for target in targets {
                AskAnswer.target(target.forwardPath, target.route).append(to: &octets, channel: channel)
            }
            AskAnswer.resolved(count: targets.count).append(to: &octets, channel: channel)
        case .unknown(let status, let text):
            AskAnswer.unknown(status, text: Array(text.utf8)).append(to: &octets, channel: channel)
        case .later(let text): self.later(path, text).append(to: &octets, channel: channel)
        }
    }

    private func text(_ place: ResolutionStep.Place) -> String {
        switch place {
        case .nothing: ""
        case .setting(let name): name
        case .aliasLine(let line): "\(self.settings.aliasesPath ?? "aliases"):\(line)"
        case .table(let text): text
        }
    }

    private func later(_ path: ForwardPath, _ text: String) -> AskAnswer {
        // Nothing has come of it yet.
        guard self.directory.unanswered.isEmpty else { return .later(text: []) }
        var line = LogLine("later")
        line.add(path: "to", path.octets)
        line.add("reason", text)
        line.write()
        return .later(text: Array(text.utf8))
    }

    func linkClosed(_ link: Link) {
        self.links[ObjectIdentifier(link)] = nil
        // By hand there will be no other link.
        if self.links.isEmpty, !self.program.isSupervised { ExitStatus.ok.exit() }
    }
}
