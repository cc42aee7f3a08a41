// SPDX-License-Identifier: Apache-2.0

package import LookupCore
import MailTypes
import PipeCore
import Unix

extension LocalAgent {
    /// What the settings say of the file of aliases.
    package struct AliasRules: Hashable, Sendable {
        /// Nil: there is none.
        package var path: String?
        package var terms = AliasFile.Terms()
        /// Users whose file is believed.
        package var owners: Set<UInt32> = [0]

        package init() {}
    }

    /// What the settings say, and for whom the agent works.
    package struct Rules: Hashable, Sendable {
        package var mailbox: MailboxTemplate
        /// Where the mail of virtual users goes; nil: none is taken.
        package var virtualMailbox: VirtualMailboxTemplate?
        /// Takes the mail instead of the mailbox.
        package var program: ProgramCommand?
        package var programs: ProgramTerms
        /// Which files in a user's home say what becomes of the mail, and whether they may name programs.
        package var dotFiles = DotFileKind.none
        package var hasDotPrograms = false
        /// How much may be in a Maildir; nil: what its own `maildirsize` says, if there is one.
        package var quota: MailboxLimit?
        /// Whether mail for a full mailbox is returned, and not kept.
        package var isOverQuotaFailure = false
        /// What is done for routes `alias:`; nil: another process does it.
        package var aliases: AliasRules?
        /// For the names of files.
        package var hostname: [UInt8]
        /// The only user whose mail is taken; nil: all mail is delivered as the user of this process.
        package var user: [UInt8]?
        /// The home directory that `~/` stands for.
        package var home: String

        package init(
            mailbox: MailboxTemplate, virtualMailbox: VirtualMailboxTemplate? = nil, program: ProgramCommand? = nil,
            programs: ProgramTerms = ProgramTerms(), hostname: [UInt8], user: [UInt8]?, home: String
        ) {
            self.mailbox = mailbox
            self.virtualMailbox = virtualMailbox
            self.program = program
            self.programs = programs
            self.hostname = hostname
            self.user = user
            self.home = home
        }

        /// What is done with the mail of a user.
        func instruction(for user: [UInt8]) -> LocalInstruction {
            if let program = self.program { return .program(program) }
            return self.mailbox.instruction(user: user.printableText, home: self.home)
        }

        /// Whether mail for a route is taken.
        func takes(_ route: Route) -> Bool {
            if case .alias = route { self.aliases != nil } else { self.instruction(for: route) != nil }
        }

        /// What is done with the mail for a route; nil if it is none of this agent's, or what it says is not the same for all.
        func instruction(for route: Route) -> LocalInstruction? {
            guard let owner = route.owner, self.user == nil || self.user == owner else { return nil }
            switch route {
            case .local(let user): return self.instruction(for: user)
            case .mailbox(_, let name):
                return self.virtualMailbox.map { .maildir($0.place(of: name, home: self.home)) }
            case .alias, .remote, .bounce: return nil
            }
        }

        /// Of mail for a mailbox that is full, by its own quota or by that of the file system.
        var overQuota: DeliveryOutcome {
            self.isOverQuotaFailure
                ? LocalFate.outcome(.failed, EnhancedStatus(.permanent, 2, 2), "the mailbox is full")
                : LocalFate.outcome(.deferred, EnhancedStatus(.transient, 2, 2), "the mailbox is full")
        }

        /// What a fault of the system means for the mail.
        func outcome(of error: SystemError) -> DeliveryOutcome {
            self.isOverQuotaFailure && error.code == Errno.overQuota ? self.overQuota : LocalFate.outcome(of: error)
        }

        func userName(for delivery: Delivery) -> String {
            switch delivery.route {
            case .local(let user): user.printableText
            case .alias: self.user?.printableText ?? ThisProcess.user()?.name ?? ""
            case .mailbox, .remote, .bounce: ""
            }
        }

        /// Where programs are run. Who does aliases need not have a home.
        func programDirectory(for delivery: Delivery) -> String {
            if case .alias = delivery.route { "/" } else { self.home }
        }
    }
}
