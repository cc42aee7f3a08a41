// SPDX-License-Identifier: Apache-2.0

import Glibc
import LookupCore
import MailTypes
package import PipeCore
import Unix

/// apus-local: puts mail into mailboxes of this system.
///
/// As root it never touches a mailbox: it starts a worker for each user, as that user, and hands the deliveries on.
/// Otherwise it delivers all mail itself, as the one user it runs as.
package enum LocalDelivererProgram {
    /// What the settings say.
    package struct Settings: Sendable {
        /// As they came, for workers.
        package let table: SettingsTable
        package let mailbox: MailboxTemplate
        package let virtualMailbox: VirtualMailboxTemplate
        package let program: ProgramCommand?
        package let programs: ProgramTerms
        package let dotFiles: DotFileKind
        package let hasDotPrograms: Bool
        /// Who does what aliases say.
        package let aliasUser: [UInt8]
        package let aliases: LocalAgent.AliasRules
        package let quota: MailboxLimit?
        package let isOverQuotaFailure: Bool
        package let hostname: String
        /// A worker without work ends after this time.
        package let workerIdle: Duration
        package let workersMax: Int
        /// A worker that says nothing of its deliveries for so long is killed.
        package let workerSilence: Duration

        package init(_ table: SettingsTable) throws(SettingsFault) {
            self.table = table
            self.mailbox = try MailboxTemplate(table.text("mailbox", default: MailboxTemplate.defaultText))
            self.virtualMailbox = try VirtualMailboxTemplate(
                table.text("virtual-mailbox", default: VirtualMailboxTemplate.defaultText))
            let arguments = table.texts("program")
            self.program = ProgramCommand(arguments)
            guard arguments.isEmpty || self.program != nil else {
                throw SettingsFault("program", "must begin with an absolute path")
            }
            self.programs = try Self.programs(table)
            let kind = table.text("dot-files", default: DotFileKind.forward.rawValue)
            guard let dotFiles = DotFileKind(rawValue: kind) else {
                throw SettingsFault("dot-files", "must be none, forward or qmail")
            }
            self.dotFiles = dotFiles
            self.hasDotPrograms = try table.boolean("dot-programs", default: false)
            let aliasUser = table.text("alias-user", default: "nobody")
            guard Route.isUserName(Array(aliasUser.utf8)) else {
                throw SettingsFault("alias-user", "must be the name of a user")
            }
            self.aliasUser = Array(aliasUser.utf8)
            self.aliases = try Self.aliases(table)
            self.quota = try Self.quota(table)
            let overQuota = table.text("over-quota", default: "defer")
            guard ["defer", "fail"].contains(overQuota) else {
                throw SettingsFault("over-quota", "must be defer or fail")
            }
            self.isOverQuotaFailure = overQuota == "fail"
            self.hostname = try table.required("hostname")
            guard MailAddress.isDomainName(Array(self.hostname.utf8)) else {
                throw SettingsFault("hostname", "is no domain name")
            }
            self.workerIdle = try table.duration("worker-idle", in: 1...3_600, default: .seconds(10))
            self.workersMax = try table.integer("workers-max", in: 1...1_000, default: 20)
            let silence = try table.duration("worker-silence", in: 5...3_600, default: .seconds(300))
            // A worker that waits for a program is silent with reason.
            let hasPrograms = self.program != nil || self.hasDotPrograms || self.aliases.terms.programs
            self.workerSilence = hasPrograms ? max(silence, self.programs.time + .seconds(30)) : silence
        }

        private static func aliases(_ table: SettingsTable) throws(SettingsFault) -> LocalAgent.AliasRules {
            var rules = LocalAgent.AliasRules()
            rules.path = table.text("aliases")
            rules.terms.includes = try table.boolean("alias-includes", default: false)
            rules.terms.programs = try table.boolean("alias-programs", default: false)
            rules.terms.files = try table.boolean("alias-files", default: false)
            return rules
        }

        private static func quota(_ table: SettingsTable) throws(SettingsFault) -> MailboxLimit? {
            let octetCount = try table.integer("quota", in: 0...(1 << 50), default: 0)
            let messageCount = try table.integer("quota-messages", in: 0...(1 << 40), default: 0)
            guard octetCount > 0 || messageCount > 0 else { return nil }
            return MailboxLimit(octetCount: UInt64(octetCount), messageCount: UInt64(messageCount))
        }

        private static func programs(_ table: SettingsTable) throws(SettingsFault) -> ProgramTerms {
            var terms = ProgramTerms()
            terms.time = try table.duration("program-time", in: 1...86_400, default: terms.time)
            terms.countMax = try table.integer("programs-max", in: 1...50, default: terms.countMax)
            terms.limits.processorSeconds = try Self.limit(table, "program-processor-time", default: 600)
            terms.limits.memoryOctetCount = try Self.limit(table, "program-memory", default: 1 << 30)
            terms.limits.processCount = try Self.limit(table, "program-processes", default: 200)
            terms.limits.fileOctetCount = try Self.limit(table, "program-file-size", default: 0)
            return terms
        }

        /// A limit of resources; 0 is none.
        private static func limit(
            _ table: SettingsTable, _ name: String, default value: Int
        ) throws(SettingsFault) -> UInt64? {
            let limit = try table.integer(name, in: 0...(1 << 50), default: value)
            return limit == 0 ? nil : UInt64(limit)
        }

        /// - Parameter user: the only one whose mail is taken, or nil.
        func rules(user: [UInt8]?, home: String) -> LocalAgent.Rules {
            var rules = LocalAgent.Rules(
                mailbox: self.mailbox, virtualMailbox: self.virtualMailbox, program: self.program,
                programs: self.programs, hostname: Array(self.hostname.utf8), user: user, home: home)
            // Without root, all mail is one user's: his file would be everybody's.
            rules.dotFiles = user == nil ? .none : self.dotFiles
            rules.hasDotPrograms = self.hasDotPrograms
            if user == nil || user == self.aliasUser { rules.aliases = self.aliases }
            // Who started everything without root is the administrator.
            if user == nil { rules.aliases?.owners.insert(geteuid()) }
            rules.quota = self.quota
            rules.isOverQuotaFailure = self.isOverQuotaFailure
            return rules
        }
    }

    package static func main(_ arguments: [String]) -> Never {
        if arguments.dropFirst().first == LocalWorker.option { LocalWorker.main(Array(arguments.dropFirst(2))) }
        let program = Program.start(
            Program.Description(
                name: "apus-local",
                purpose: "Puts mail into mailboxes: as root each into its user's, as that user; otherwise as one user.",
                mainLink: (.deliver, "apus-queue"), mayBeRoot: true))
        program.runThread { program, inbox in
            do throws(SettingsFault) {
                let settings = try Settings(program.settings)
                if Privileges.isRoot {
                    var deliverer = LocalSwitch(program: program, inbox: inbox, settings: settings)
                    deliverer.run()
                } else {
                    var deliverer = SingleUserDeliverer(program: program, inbox: inbox, settings: settings)
                    deliverer.run()
                }
            } catch {
                var line = LogLine("settings-wrong")
                line.add("reason", error.description)
                line.write()
                ExitStatus.configuration.exit()
            }
        }
    }

    /// New settings after a reload; nil, and a line in the log, if they are wrong.
    static func reread(_ table: SettingsTable) -> Settings? {
        do throws(SettingsFault) {
            return try Settings(table)
        } catch {
            var line = LogLine("settings-wrong")
            line.add("reason", error.description)
            line.write()
            return nil
        }
    }
}

/// Delivers without root: everything as the user of this process, in this process.
private struct SingleUserDeliverer {
    private let program: Program
    private let inbox: ControlInbox
    private var rules: LocalAgent.Rules
    private var server: MailboxServer?
    private var isStopping = false

    init(program: Program, inbox: ControlInbox, settings: LocalDelivererProgram.Settings) {
        self.program = program
        self.inbox = inbox
        self.rules = Self.rules(settings)
    }

    private static func rules(_ settings: LocalDelivererProgram.Settings) -> LocalAgent.Rules {
        settings.rules(user: nil, home: ThisProcess.user()?.home ?? "/nonexistent")
    }

    mutating func run() -> Never {
        ThisProcess.setUmask(0o077)
        ThisProcess.ignoreFileSizeSignal()
        for ends in self.program.links where ends.dialect == .deliver { self.open(ends) }
        self.program.ready()
        while true {
            if self.isStopping, self.server?.agent.isIdle ?? true { ExitStatus.ok.exit() }
            var poll = Poll()
            let control = poll.add(self.inbox.descriptor, reading: true)
            let watch = self.server?.watch(in: &poll)
            poll.wait(watch?.limit)
            if let watch, self.server?.serve(isReadable: watch.link.isReadable(poll)) == false {
                self.server = nil
                // By hand there will be no other link.
                if !self.program.isSupervised { ExitStatus.ok.exit() }
            }
            if poll.isReadable(control) { for event in self.inbox.take() { self.handle(event) } }
        }
    }

    private mutating func open(_ ends: LinkEnds) {
        if self.server != nil {
            // The queue was started anew; what the old link had under way is asked for again.
            self.server?.agent.abandon()
            self.server?.pipe.close()
        }
        do throws(SystemError) {
            self.server = try MailboxServer(ends.input, ends.output, rules: self.rules)
        } catch {
            var line = LogLine("link-fault")
            line.add("peer", ends.peer)
            line.add("reason", error.text)
            line.write()
        }
    }

    private mutating func handle(_ event: ControlEvent) {
        switch event {
        case .settings(let table):
            guard let settings = LocalDelivererProgram.reread(table) else { return }
            self.rules = Self.rules(settings)
            self.server?.agent.rules = self.rules
        case .link(let ends): self.open(ends)
        case .status(let channel):
            self.program.answerStatus(channel, [("linked", self.server == nil ? "false" : "true")])
        case .stop: self.isStopping = true
        case .listen, .unlisten, .certificates, .tickets, .start: break
        }
    }
}
