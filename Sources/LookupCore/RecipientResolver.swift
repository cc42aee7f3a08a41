// SPDX-License-Identifier: Apache-2.0

package import MailTypes

/// Answers "is this recipient ours, and where does it go" from the settings, the aliases and the users.
///
/// A name is looked for in this order: an alias of the whole local part, a user of that name; then, if a delimiter
/// is in it, the same with what stands before it (`joe+news` is `joe`). Local parts are compared
/// without regard to case and without their quotes. A mistake of the administrator never makes a recipient unknown:
/// the mail waits.
package struct RecipientResolver: Sendable {
    /// What the settings say.
    package struct Rules: Hashable, Sendable {
        /// In lower case; address literals such as `[192.0.2.1]` may be among them.
        package var localDomains: Set<[UInt8]>
        /// In lower case. Role addresses are local here too, even if no other address is.
        package var hostname: [UInt8]
        /// Where mail for other domains goes; nil: to the domain itself, by its MX records.
        package var smarthost: NextHop?
        /// The server that takes the mail of users by LMTP; nil: apus-local does.
        package var mailboxServer: NextHop?
        /// What may separate a user from a tag; a few, as a name is looked for once for each.
        package var delimiters: [UInt8]
        /// Domains whose recipients are no users of this system.
        package var virtual = VirtualRules()
        /// Who reads what comes for the postmaster, if no alias says it.
        package var postmaster: AliasFile.Target?
        /// The user as whom everything runs, if not as root: the last resort for the postmaster's mail.
        package var singleUser: [UInt8]?

        /// - Precondition: the names are in lower case.
        package init(
            localDomains: Set<[UInt8]>, hostname: [UInt8], smarthost: NextHop? = nil,
            delimiters: [UInt8] = Array("+".utf8), postmaster: AliasFile.Target? = nil, singleUser: [UInt8]? = nil
        ) {
            self.localDomains = localDomains
            self.hostname = hostname
            self.smarthost = smarthost
            self.delimiters = delimiters
            self.postmaster = postmaster
            self.singleUser = singleUser
        }
    }

    /// One place where a recipient goes.
    package struct Target: Hashable, Sendable {
        package let forwardPath: ForwardPath
        package let route: Route

        package init(_ forwardPath: ForwardPath, _ route: Route) {
            self.forwardPath = forwardPath
            self.route = route
        }
    }

    /// The answer to `check`.
    package enum Verdict: Hashable, Sendable {
        case local
        case remote
        case unknown(EnhancedStatus, text: String)
        case later(text: String)
    }

    /// The answer to `resolve`.
    package enum Resolution: Hashable, Sendable {
        /// At least one, distinct.
        case targets([Target])
        case unknown(EnhancedStatus, text: String)
        case later(text: String)
    }

    package let rules: Rules
    package let aliases: AliasFile
    /// How domains beyond ASCII that stand in tables are written.
    let domains: DomainMapping

    /// An alias may lead to at most so many targets, and through so many aliases.
    package static let expansionCountMax = 1_000

    package init(rules: Rules, aliases: AliasFile, domains: DomainMapping = .none) {
        self.domains = domains
        self.rules = rules
        self.aliases = aliases
    }

    static let noSuchUser = "no such user here"
    /// RFC 5321 §4.5.1 demands the first; the second is who signs our reports.
    static let roles: [[UInt8]] = [Array("postmaster".utf8), Array("mailer-daemon".utf8)]
    static let postmaster: [UInt8] = Array("postmaster".utf8)
    static let superuser: [UInt8] = Array("root".utf8)

    // MARK: check

    /// Is it ours, and does it exist?
    package func check(_ path: ForwardPath, in users: inout some RecipientDirectory) -> Verdict {
        let local: [UInt8]
        switch self.place(of: path) {
        case .remote(let address): return self.checkVirtual(address, in: &users)
        case .local(let name): local = name
        }
        guard !Self.roles.contains(local) else { return .local }
        switch self.find(local, in: &users) {
        case .alias, .superuser:
            // Why: `resolve` follows them when the client has sent the message, and a single recipient that leads
            // nowhere would then cost all others of the message their mail.
            if case .later(let text) = self.resolve(path, in: &users) { return .later(text: text) }
            return .local
        case .user: return .local
        case .absent: return self.absentVerdict
        case .unknownNow: return .later(text: "the users cannot be looked up now")
        }
    }

    /// The same for an address whose domain is not local.
    private func checkVirtual(_ address: MailAddress, in directory: inout some RecipientDirectory) -> Verdict {
        switch self.virtualDomain(address, in: &directory) {
        case .elsewhere: return .remote
        case .unknownNow(let reason): return .later(text: reason)
        case .virtual: break
        }
        if case .mailbox = self.findVirtual(address, in: &directory) { return .local }
        return switch self.resolve(.address(address), in: &directory) {
        case .targets: .local
        case .unknown(let status, let text): .unknown(status, text: text)
        case .later(let text): .later(text: text)
        }
    }

    private var absentVerdict: Verdict {
        // Why: a line that could not be read may be the very alias.
        self.aliases.hasUnreadableLine
            ? .later(text: "the file of aliases is not in order")
            : .unknown(EnhancedStatus(.permanent, 1, 1), text: Self.noSuchUser)
    }

    // MARK: Places

    enum Place {
        /// The meaning of the local part, in lower case.
        case local([UInt8])
        case remote(MailAddress)
    }

    func place(of path: ForwardPath) -> Place {
        switch path {
        case .postmaster: return .local(Self.postmaster)
        case .address(let address):
            let local = address.unquotedLocalPart.lowercasedOctets
            let domain = address.domain.lowercasedOctets
            // Owners of lists send from there, if the mail for the list came by another domain.
            let isOurs =
                self.rules.localDomains.contains(domain)
                || domain == self.rules.hostname && (Self.roles.contains(local) || self.aliases.isOwner(local))
            return isOurs ? .local(local) : .remote(address)
        }
    }

    /// What a name in lower case is looked for as: itself, and then without its tag. With several delimiters in it, the
    /// tag begins at the first `+` or at the first `-`, say, and the longer name goes first: `joe-smith+news` is that of
    /// `joe-smith` before it is that of `joe`.
    func names(of name: [UInt8]) -> [[UInt8]] {
        let ends = Set(self.rules.delimiters.compactMap { name.firstIndex(of: $0) }).subtracting([0])
        return [name] + ends.sorted(by: >).map { Array(name[..<$0]) }
    }

    /// Whether mail for this address stays here.
    func localName(of address: MailAddress) -> [UInt8]? {
        if case .local(let name) = self.place(of: .address(address)) { name } else { nil }
    }

    // MARK: Names

    enum Found {
        /// With the alias's name.
        case alias([UInt8], AliasFile.Entry)
        case user([UInt8])
        case superuser
        case absent
        case unknownNow
    }

    /// Looks for a name in lower case: itself, then without its tag.
    func find(_ name: [UInt8], in users: inout some RecipientDirectory) -> Found {
        for name in self.names(of: name) {
            if let found = self.findExactly(name, in: &users) { return found }
        }
        return .absent
    }

    func findExactly(_ name: [UInt8], in users: inout some RecipientDirectory) -> Found? {
        if let entry = self.aliases.entries[name] { return .alias(name, entry) }
        return Self.findUser(name, in: &users)
    }

    static func findUser(_ name: [UInt8], in users: inout some RecipientDirectory) -> Found? {
        guard Route.isUserName(name) else { return nil }
        switch users.finding(of: name) {
        case .exists: return .user(name)
        case .superuser: return .superuser
        case .absent: return nil
        case .unknownNow: return .unknownNow
        }
    }
}
