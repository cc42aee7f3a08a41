// SPDX-License-Identifier: Apache-2.0
//
// Following aliases to the end. Every alias is opened at most once in an expansion, so that a circle ends by itself;
// a circle out of which nothing leads is a mistake of the administrator, and the mail waits.

package import MailTypes

extension RecipientResolver {
    /// Where does it go, aliases followed to the end?
    package func resolve(
        _ path: ForwardPath, _ meaning: PathMeaning = .address, in users: inout some RecipientDirectory
    ) -> Resolution {
        var expansion = Expansion(resolver: self, domain: self.domain(of: path, meaning))
        return expansion.run(path, meaning, in: &users)
    }

    /// The same, with every step of the way; the steps of a very large alias are cut.
    package func explain(
        _ path: ForwardPath, in users: inout some RecipientDirectory
    ) -> (steps: [ResolutionStep], resolution: Resolution) {
        var expansion = Expansion(resolver: self, domain: self.domain(of: path, .address))
        expansion.trace = []
        let resolution = expansion.run(path, .address, in: &users)
        return (expansion.trace ?? [], resolution)
    }

    /// The domain that local names get which an alias leads to.
    private func domain(of path: ForwardPath, _ meaning: PathMeaning) -> [UInt8] {
        switch path {
        case .postmaster: self.rules.hostname
        case .address(let address):
            meaning == .address && self.localName(of: address) == nil ? self.rules.hostname : Array(address.domain)
        }
    }

    /// The aliases of the file that only lead in a circle, for `apus check`; each with the line of its entry.
    ///
    /// An alias that leads to itself and to a user of the same name (`joe: joe, other`) is none of them.
    package func circles() -> [LineFault] {
        var users = EveryUser()
        return self.aliases.entries
            .filter { name, entry in
                guard !entry.isBroken else { return false }
                var expansion = Expansion(resolver: self, domain: self.rules.hostname)
                expansion.opensAll = true
                expansion.open(name, entry)
                while expansion.targets.isEmpty, let step = expansion.steps.popLast() {
                    if expansion.take(step, in: &users) != nil { return false }
                }
                return expansion.targets.isEmpty
            }
            .map { name, entry in
                LineFault(line: entry.line, text: "\(name.printableText) only leads in a circle")
            }
            .sorted { $0.line < $1.line }
    }
}

/// Answers that everybody exists.
private struct EveryUser: RecipientDirectory {
    mutating func finding(of name: [UInt8]) -> UserFinding { .exists }
}

/// The state of one expansion.
struct Expansion {
    /// A target with the alias whose target it is.
    struct Step {
        let target: AliasFile.Target
        let owner: [UInt8]
    }

    let resolver: RecipientResolver
    let domain: [UInt8]
    /// What is still to be followed; the next one is the last.
    var steps: [Step] = []
    private(set) var targets: [RecipientResolver.Target] = []
    private var known: Set<[UInt8]> = []
    private var opened: Set<[UInt8]> = []
    /// Whether the default for the postmaster has been used: it may lead back to the postmaster.
    private var isPostmasterDefaulted = false
    /// Whether aliases are followed that apus-local does.
    var opensAll = false
    /// Whether the recipient is the postmaster, whose mail is always accepted (RFC 5321 §4.5.1).
    private var isForPostmaster = false
    /// Whether what is followed is still the recipient, under nothing but other names of his domain (`@example.net
    /// @example.org`). Whoever is not there is then unknown; behind any other alias that is a mistake of the administrator.
    private var isRecipient = true
    /// Why an answer is not possible now. The rest is followed all the same: what it needs to know is asked for together.
    private var waiting: RecipientResolver.Resolution?

    /// The steps of the way, if somebody wants to know them.
    var trace: [ResolutionStep]?

    private static let traceCountMax = 1_000

    init(resolver: RecipientResolver, domain: [UInt8]) {
        self.resolver = resolver
        self.domain = domain
    }

    mutating func run(
        _ path: ForwardPath, _ meaning: PathMeaning, in users: inout some RecipientDirectory
    ) -> RecipientResolver.Resolution {
        if let failure = self.begin(path, meaning, in: &users) { return failure }
        while let step = self.steps.popLast() {
            if let failure = self.take(step, in: &users) { return failure }
        }
        if let waiting = self.waiting { return waiting }
        guard !self.targets.isEmpty else {
            return .later(text: "the alias leads nowhere: it only leads back to itself")
        }
        return .targets(self.targets)
    }

    private mutating func note(_ steps: (RecipientResolver) -> [ResolutionStep]) {
        guard let count = self.trace?.count, count < Self.traceCountMax else { return }
        self.trace?.append(contentsOf: steps(self.resolver))
    }

    /// Looks for a name, and notes what was found.
    private mutating func look(for name: [UInt8], in users: inout some RecipientDirectory) -> RecipientResolver.Found {
        let found = self.resolver.find(name, in: &users)
        self.note { $0.steps(name, found) }
        return found
    }

    /// The local name of an address; nil if it is not ours.
    private mutating func localName(of address: MailAddress) -> [UInt8]? {
        guard let name = self.resolver.localName(of: address) else { return nil }
        self.note { [$0.domainStep(address)] }
        return name
    }

    /// The recipient itself. Unlike a target of an alias it may turn out to be unknown.
    mutating func begin(
        _ path: ForwardPath, _ meaning: PathMeaning, in users: inout some RecipientDirectory
    ) -> RecipientResolver.Resolution? {
        guard case .address(let address) = path else {
            self.isForPostmaster = true
            return self.follow(RecipientResolver.postmaster, in: &users)
        }
        let name: [UInt8]
        switch meaning {
        case .address:
            guard let local = self.localName(of: address) else { return self.beginVirtual(address, in: &users) }
            name = local
        case .name: name = address.unquotedLocalPart.lowercasedOctets
        case .user: return self.beginUser(path, address.unquotedLocalPart.lowercasedOctets, in: &users)
        }
        if RecipientResolver.roles.contains(name) {
            self.isForPostmaster = true
            return self.follow(name, in: &users)
        }
        switch self.look(for: name, in: &users) {
        case .alias(let alias, let entry):
            guard !entry.isBroken else { return .later(text: "the alias is not in order") }
            return self.enter(alias, entry, path)
        case .user(let user):
            self.add(path, user: user)
            return nil
        case .superuser: return self.followPostmaster(in: &users)
        case .absent:
            return self.resolver.aliases.hasUnreadableLine
                ? .later(text: "the file of aliases is not in order")
                : .unknown(EnhancedStatus(.permanent, 1, 1), text: RecipientResolver.noSuchUser)
        case .unknownNow: return .later(text: "the users cannot be looked up now")
        }
    }

    /// The user of that name, whatever the aliases say.
    private mutating func beginUser(
        _ path: ForwardPath, _ name: [UInt8], in users: inout some RecipientDirectory
    ) -> RecipientResolver.Resolution? {
        switch RecipientResolver.findUser(name, in: &users) {
        case .user(let user):
            self.add(path, user: user)
            return nil
        case .superuser: return self.followPostmaster(in: &users)
        case .unknownNow: return .later(text: "the users cannot be looked up now")
        case .alias, .absent, nil: break
        }
        guard RecipientResolver.roles.contains(name) else {
            return .unknown(EnhancedStatus(.permanent, 1, 1), text: RecipientResolver.noSuchUser)
        }
        self.isForPostmaster = true
        self.opened.insert(RecipientResolver.postmaster)
        return self.followPostmaster(in: &users)
    }

    /// Follows an alias, or leaves it to apus-local, which does what it says. The user behind it, if it names itself, gets the
    /// mail from here: what apus-local sends on has been at this address, and would look like a loop.
    ///
    /// - Parameter path: as what it was asked for; nil if that cannot be written.
    private mutating func enter(
        _ alias: [UInt8], _ entry: AliasFile.Entry, _ path: ForwardPath?
    ) -> RecipientResolver.Resolution? {
        self.isRecipient = false
        guard !self.opensAll, self.resolver.aliases.isDelivered(alias, entry) else {
            self.open(alias, entry)
            return nil
        }
        guard let path else { return Self.unwritable(alias) }
        let domain = if case .address(let address) = path { Array(address.domain) } else { self.domain }
        func isSelf(_ target: AliasFile.Target) -> Bool { AliasFile.isSelf(target, of: alias, at: domain) }
        if self.opened.insert(alias).inserted {
            self.steps += entry.targets.filter(isSelf).map { Step(target: $0, owner: alias) }
        }
        guard !entry.targets.allSatisfy(isSelf) else { return nil }
        self.note { $0.deliverySteps(alias) }
        self.add(path, alias: alias)
        return nil
    }

    private mutating func add(_ path: ForwardPath, alias: [UInt8]) {
        // No name of a user begins with NUL.
        guard self.known.insert([0] + alias).inserted else { return }
        self.targets.append(RecipientResolver.Target(path, .alias(name: alias)))
    }

    private func path(_ name: [UInt8]) -> ForwardPath? {
        TableKey.address(of: name, at: self.domain).map { .address($0) }
    }

    private static func unwritable(_ name: [UInt8]) -> RecipientResolver.Resolution {
        .later(text: "the alias leads to \(name.printableText), which cannot be written as an address")
    }

    /// Puts the targets of an alias where they are followed in the order of the file.
    mutating func open(_ alias: [UInt8], _ entry: AliasFile.Entry) {
        guard self.opened.insert(alias).inserted else { return }
        self.steps += entry.targets.reversed().map { Step(target: $0, owner: alias) }
    }

    /// The recipient itself, if its domain is not local.
    private mutating func beginVirtual(
        _ address: MailAddress, in directory: inout some RecipientDirectory
    ) -> RecipientResolver.Resolution? {
        switch self.virtualDomain(address, in: &directory) {
        case .elsewhere: return self.add(remote: address)
        case .unknownNow(let reason): return .later(text: reason)
        case .virtual: break
        }
        let found = self.resolver.findVirtual(address, in: &directory)
        self.note { $0.steps(address, found) }
        guard case .absent = found else { return self.take(found, address) }
        return self.absent(address, in: &directory)
    }

    /// An address that an alias leads to, and whose domain is not local.
    private mutating func followVirtual(
        _ address: MailAddress, owner: [UInt8], in directory: inout some RecipientDirectory
    ) -> RecipientResolver.Resolution? {
        switch self.virtualDomain(address, in: &directory) {
        case .elsewhere: return self.add(remote: address)
        case .unknownNow(let reason): return self.wait(reason)
        case .virtual: break
        }
        let found = self.resolver.findVirtual(address, owner: owner, in: &directory)
        self.note { $0.steps(address, found) }
        guard case .absent = found else { return self.take(found, address) }
        guard self.isRecipient else { return .later(text: "the alias leads to \(address.text), which is nobody's") }
        return self.absent(address, in: &directory)
    }

    /// A virtual recipient who is nobody's.
    private mutating func absent(
        _ address: MailAddress, in directory: inout some RecipientDirectory
    ) -> RecipientResolver.Resolution? {
        // RFC 5321 §4.5.1: every domain has a postmaster.
        guard address.unquotedLocalPart.lowercasedOctets == RecipientResolver.postmaster else {
            return .unknown(EnhancedStatus(.permanent, 1, 1), text: RecipientResolver.noSuchUser)
        }
        self.isForPostmaster = true
        return self.follow(RecipientResolver.postmaster, in: &directory)
    }

    private mutating func wait(_ reason: String) -> RecipientResolver.Resolution? {
        if self.waiting == nil { self.waiting = .later(text: reason) }
        return nil
    }

    private mutating func virtualDomain(
        _ address: MailAddress, in directory: inout some RecipientDirectory
    ) -> RecipientResolver.VirtualDomain {
        let domain = self.resolver.virtualDomain(address, in: &directory)
        self.note { $0.steps(address, domain) }
        return domain
    }

    /// Goes on from what stands behind a virtual address.
    private mutating func take(
        _ found: RecipientResolver.VirtualFound, _ address: MailAddress
    ) -> RecipientResolver.Resolution? {
        switch found {
        case .alias(let key, let targets, _):
            // By the address and not by the key: a domain's alias leads each address elsewhere.
            let opened = TableKey.address(localPart: address.unquotedLocalPart, domain: address.domain)
            guard self.opened.insert(opened).inserted else { return nil }
            self.isRecipient = self.isRecipient && key.first == ASCII.at && Self.isOnlyRenamed(address, targets)
            self.steps += targets.reversed().map { Step(target: $0, owner: key) }
            return nil
        case .mailbox(let name, _): return self.add(address, name)
        case .absent: return .unknown(EnhancedStatus(.permanent, 1, 1), text: RecipientResolver.noSuchUser)
        case .broken(let reason): return .later(text: reason)
        case .unknownNow(let reason): return self.wait(reason)
        }
    }

    /// Whether an alias of a domain leads to the same name in another one.
    private static func isOnlyRenamed(_ address: MailAddress, _ targets: [AliasFile.Target]) -> Bool {
        guard targets.count == 1, case .address(let target)? = targets.first else { return false }
        return target.unquotedLocalPart.lowercasedOctets == address.unquotedLocalPart.lowercasedOctets
    }

    private mutating func add(_ address: MailAddress, _ mailbox: MailboxName) -> RecipientResolver.Resolution? {
        let virtual = self.resolver.rules.virtual
        let route: Route? =
            virtual.server.map { .remote($0) } ?? virtual.owner.map { .mailbox(owner: $0, mailbox) }
        guard let route else { return .later(text: "nobody is named who owns the mailboxes of virtual users") }
        if self.known.insert(mailbox.octets).inserted {
            self.targets.append(RecipientResolver.Target(.address(address), route))
        }
        return nil
    }

    /// Follows one target of an alias; an answer if the expansion cannot be completed.
    mutating func take(_ step: Step, in users: inout some RecipientDirectory) -> RecipientResolver.Resolution? {
        guard self.steps.count <= 2 * AliasFile.targetCountMax,
            self.targets.count <= RecipientResolver.expansionCountMax,
            self.opened.count <= RecipientResolver.expansionCountMax
        else { return .later(text: "the alias leads to more than \(RecipientResolver.expansionCountMax) targets") }
        switch step.target {
        case .user(let user):
            self.note { _ in [ResolutionStep(.user, user.lowercasedOctets, "is a user, as the alias says")] }
            return self.add(localName: user.lowercasedOctets, user: user.lowercasedOctets)
        case .address(let address):
            guard let name = self.localName(of: address) else {
                return self.followVirtual(address, owner: step.owner, in: &users)
            }
            return self.follow(name, owner: step.owner, in: &users)
        case .name(let name): return self.follow(name.lowercasedOctets, owner: step.owner, in: &users)
        case .list(let path): return self.open(list: path, owner: step.owner, in: &users)
        case .program, .file:
            guard let path = self.path(step.owner) else { return Self.unwritable(step.owner) }
            self.add(path, alias: step.owner)
            return nil
        }
    }

    /// Puts the targets of a file that an alias includes where they are followed next.
    private mutating func open(
        list path: String, owner: [UInt8], in directory: inout some RecipientDirectory
    ) -> RecipientResolver.Resolution? {
        // No name of an alias begins with NUL.
        guard self.opened.insert([0] + path.utf8).inserted else { return nil }
        switch directory.finding(ofList: path) {
        case .targets(let targets):
            self.note { $0.steps(owner, list: path, targets) }
            self.steps += targets.reversed().map { Step(target: $0, owner: owner) }
            return nil
        case .unknownNow(let reason): return .later(text: reason)
        }
    }

    /// Follows a local name that stands in an alias, or is a role.
    private mutating func follow(
        _ name: [UInt8], owner: [UInt8]? = nil, in users: inout some RecipientDirectory
    ) -> RecipientResolver.Resolution? {
        // An alias that names itself means the user behind it.
        if name == owner, case .user(let user)? = RecipientResolver.findUser(name, in: &users) {
            self.note { _ in [ResolutionStep(.user, user, "is the user behind the alias of that name")] }
            return self.add(localName: name, user: user)
        }
        switch self.look(for: name, in: &users) {
        case .alias(let alias, let entry):
            guard !entry.isBroken else { return .later(text: "the alias \(alias.printableText) is not in order") }
            return self.enter(alias, entry, self.path(name))
        case .user(let user): return self.add(localName: name, user: user)
        case .superuser: return self.followPostmaster(in: &users)
        case .unknownNow: return .later(text: "the users cannot be looked up now")
        case .absent:
            if RecipientResolver.roles.contains(name) {
                return name == RecipientResolver.postmaster
                    ? self.followPostmaster(in: &users) : self.follow(RecipientResolver.postmaster, in: &users)
            }
            // It may be an alias that nobody can read now.
            guard !self.resolver.aliases.hasUnreadableLine else {
                return .later(text: "the file of aliases is not in order")
            }
            guard !self.isRecipient else {
                return .unknown(EnhancedStatus(.permanent, 1, 1), text: RecipientResolver.noSuchUser)
            }
            // The sender is told by the deliverer that this one of the targets is not there.
            guard Route.isUserName(name) else {
                return .later(text: "the alias leads to \(name.printableText), which nobody can be called")
            }
            return self.add(localName: name, user: name)
        }
    }

    /// Somebody has to read what comes for the postmaster and for root, also if nobody has said who.
    private mutating func followPostmaster(in users: inout some RecipientDirectory) -> RecipientResolver.Resolution? {
        self.isRecipient = false
        if let entry = self.resolver.aliases.entries[RecipientResolver.postmaster], !entry.isBroken,
            !self.opened.contains(RecipientResolver.postmaster)
        {
            self.note { $0.steps(RecipientResolver.postmaster, .alias(RecipientResolver.postmaster, entry)) }
            return self.enter(RecipientResolver.postmaster, entry, self.path(RecipientResolver.postmaster))
        }
        // Others of the alias may still be followed, or have been.
        guard !self.isPostmasterDefaulted else { return self.nobodyReads() }
        self.isPostmasterDefaulted = true
        let rules = self.resolver.rules
        if let target = rules.postmaster {
            self.note { _ in Self.postmasterStep("has its mail read by ", target.octets, .setting("bounce.postmaster"))
            }
            return self.take(Step(target: target, owner: []), in: &users)
        }
        if let entry = self.resolver.aliases.entries[RecipientResolver.superuser], !entry.isBroken {
            self.note { $0.steps(RecipientResolver.superuser, .alias(RecipientResolver.superuser, entry)) }
            return self.enter(RecipientResolver.superuser, entry, self.path(RecipientResolver.superuser))
        }
        if let user = rules.singleUser {
            self.note { _ in Self.postmasterStep("has its mail read by the user of everything, ", user, .nothing) }
            return self.add(localName: user, user: user)
        }
        return self.nobodyReads()
    }

    private static func postmasterStep(
        _ text: String, _ reader: [UInt8], _ place: ResolutionStep.Place
    ) -> [ResolutionStep] {
        [ResolutionStep(.postmaster, RecipientResolver.postmaster, Array(text.utf8) + reader, place)]
    }

    /// What to do when nobody has been named who reads the postmaster's mail, and nobody else is left to follow.
    private mutating func nobodyReads() -> RecipientResolver.Resolution? {
        guard self.targets.isEmpty, self.steps.isEmpty else { return nil }
        // The queue keeps it: apus-local defers mail for a user postmaster who does not exist.
        self.note { _ in [ResolutionStep(.postmaster, RecipientResolver.postmaster, "has nobody who reads its mail")] }
        if self.isForPostmaster {
            return self.add(localName: RecipientResolver.postmaster, user: RecipientResolver.postmaster)
        }
        return .later(text: "nobody reads the mail of root: an alias or the setting postmaster must say who")
    }

    // MARK: Targets

    private mutating func add(localName: [UInt8], user: [UInt8]) -> RecipientResolver.Resolution? {
        guard let path = self.path(localName) else { return Self.unwritable(localName) }
        self.add(path, user: user)
        return nil
    }

    /// One mailbox gets one copy, by however many names an alias leads there.
    private mutating func add(_ path: ForwardPath, user: [UInt8]) {
        guard self.known.insert(user).inserted else { return }
        let server = self.resolver.rules.mailboxServer
        self.targets.append(RecipientResolver.Target(path, server.map { .remote($0) } ?? .local(user: user)))
    }

    private mutating func add(remote address: MailAddress) -> RecipientResolver.Resolution? {
        guard let nextHop = self.nextHop(for: address) else {
            return .unknown(EnhancedStatus(.permanent, 1, 2), text: "an address literal is written in brackets")
        }
        self.note { [$0.routeStep(nextHop, address)] }
        let key = Array(address.localPart) + [ASCII.at] + address.domain.lowercasedOctets
        if self.known.insert(key).inserted {
            self.targets.append(RecipientResolver.Target(.address(address), .remote(nextHop)))
        }
        return nil
    }

    private func nextHop(for address: MailAddress) -> NextHop? {
        if let smarthost = self.resolver.rules.smarthost { return smarthost }
        if let literal = MailAddress.literalAddress(address.domain) {
            return NextHop(target: .address(literal), port: nil)
        }
        // Why: written without brackets, a route would take the number for an address, but it is a name.
        guard IPAddress(octets: address.domain) == nil else { return nil }
        return NextHop(target: .domain(address.domain.lowercasedOctets), port: nil)
    }
}
