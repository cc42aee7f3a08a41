// SPDX-License-Identifier: Apache-2.0

import MailTypes

/// One step on the way from a recipient to where its mail goes, for `apus explain`.
package struct ResolutionStep: Hashable, Sendable {
    package enum Kind: String, Hashable, Sendable {
        /// Whether a domain is ours.
        case domain
        /// An alias is followed.
        case alias
        /// What stands behind the delimiter is taken off.
        case tag
        /// A name is looked for among the users.
        case user
        /// Who reads the mail of the postmaster.
        case postmaster
        /// The next host on the way out.
        case route
        /// The mailbox of a virtual user.
        case mailbox
    }

    /// What the step follows from.
    package enum Place: Hashable, Sendable {
        case nothing
        /// A key of apus.toml.
        case setting(String)
        /// A line of the file of aliases.
        case aliasLine(Int)
        /// An entry of a table, as the table names it.
        case table(String)
    }

    package let kind: Kind
    /// What is looked at: a domain, a name.
    package let subject: [UInt8]
    /// What was found, in words.
    package let text: [UInt8]
    package let place: Place

    package init(_ kind: Kind, _ subject: [UInt8], _ text: [UInt8], _ place: Place = .nothing) {
        self.kind = kind
        self.subject = subject
        self.text = text
        self.place = place
    }

    package init(_ kind: Kind, _ subject: [UInt8], _ text: String, _ place: Place = .nothing) {
        self.init(kind, subject, Array(text.utf8), place)
    }
}

extension RecipientResolver {
    /// How a domain was found to be local.
    func domainStep(_ address: MailAddress) -> ResolutionStep {
        let domain = address.domain.lowercasedOctets
        if self.rules.localDomains.contains(domain) {
            return ResolutionStep(.domain, domain, "is one of our domains", .setting("domains.local"))
        }
        return ResolutionStep(
            .domain, domain, "is the name of this host, where role addresses are local", .setting("hostname"))
    }

    /// How a domain that is not local was found to be ours or not.
    func steps(_ address: MailAddress, _ domain: VirtualDomain) -> [ResolutionStep] {
        let name = address.domain.lowercasedOctets
        return switch domain {
        case .virtual(let place): [ResolutionStep(.domain, name, "is a virtual domain", place)]
        case .elsewhere: [ResolutionStep(.domain, name, "is not one of our domains")]
        case .unknownNow(let reason): [ResolutionStep(.domain, name, reason)]
        }
    }

    /// What a search for a virtual address has found.
    func steps(_ address: MailAddress, _ found: VirtualFound) -> [ResolutionStep] {
        let subject = address.octets.lowercasedOctets
        return switch found {
        case .alias(let key, let targets, let place):
            [ResolutionStep(.alias, key, Array("is an alias of ".utf8) + Self.listed(targets), .table(place))]
        case .mailbox(let name, let place):
            [ResolutionStep(.mailbox, subject, Array("has the mailbox ".utf8) + name.octets, .table(place))]
        case .absent:
            [ResolutionStep(.mailbox, subject, "has neither an alias nor a mailbox, and its domain no alias")]
        case .broken(let reason): [ResolutionStep(.alias, subject, "is an alias that is not in order: \(reason)")]
        case .unknownNow(let reason): [ResolutionStep(.mailbox, subject, reason)]
        }
    }

    /// What a file has that an alias includes.
    func steps(_ alias: [UInt8], list path: String, _ targets: [AliasFile.Target]) -> [ResolutionStep] {
        [ResolutionStep(.alias, alias, Array("includes ".utf8) + Self.listed(targets), .table(path))]
    }

    /// Why apus-local does what an alias says.
    func deliverySteps(_ alias: [UInt8]) -> [ResolutionStep] {
        if let owner = self.aliases.owner(of: alias), let entry = self.aliases.entries[owner] {
            let text = Array("is done by apus-local, and sends to others as ".utf8) + owner
            return [ResolutionStep(.alias, alias, text, .aliasLine(entry.line))]
        }
        return [ResolutionStep(.alias, alias, "is done by apus-local, as it names programs or files")]
    }

    private static func listed(_ targets: [AliasFile.Target]) -> [UInt8] {
        let more = targets.count > 20 ? Array(" and \(targets.count - 20) more".utf8) : []
        return Array(targets.prefix(20).map(\.octets).joined(separator: Array(", ".utf8))) + more
    }

    /// How mail leaves.
    func routeStep(_ nextHop: NextHop, _ address: MailAddress) -> ResolutionStep {
        let domain = address.domain.lowercasedOctets
        guard self.rules.smarthost == nil else {
            return ResolutionStep(
                .route, domain, Array("goes to the smarthost ".utf8) + nextHop.octets, .setting("remote.smarthost"))
        }
        return address.isLiteral
            ? ResolutionStep(.route, domain, "goes to that address")
            : ResolutionStep(.route, domain, "goes to the hosts of its MX records, or of its address if it has none")
    }

    /// What a search for a name has found: its alias or user, and what was taken off for it.
    func steps(_ name: [UInt8], _ found: Found) -> [ResolutionStep] {
        var steps: [ResolutionStep] = []
        func cut(_ rest: [UInt8]) {
            guard rest != name else { return }
            steps.append(
                ResolutionStep(
                    .tag, name, Array("is looked for as ".utf8) + rest, .setting("local.recipient-delimiter")))
        }
        switch found {
        case .alias(let alias, let entry):
            cut(alias)
            let text =
                entry.isBroken ? Array("is an alias that cannot be read whole".utf8) : Array("is an alias of ".utf8)
            let targets = entry.isBroken ? [] : Self.listed(entry.targets)
            steps.append(ResolutionStep(.alias, alias, text + targets, .aliasLine(entry.line)))
        case .user(let user):
            cut(user)
            steps.append(ResolutionStep(.user, user, "is a user"))
        case .superuser: steps.append(ResolutionStep(.user, name, "is root, whose mail the postmaster reads"))
        case .absent: steps.append(ResolutionStep(.user, name, "is neither an alias nor a user"))
        case .unknownNow: steps.append(ResolutionStep(.user, name, "cannot be looked up among the users now"))
        }
        return steps
    }
}

extension AliasFile.Target {
    /// As it would be written in the file.
    package var octets: [UInt8] {
        switch self {
        case .name(let name): name
        case .user(let user): [ASCII.backslash] + user
        case .address(let address): address.octets
        case .list(let path): Array(":include:\(path)".utf8)
        case .program(let command): Array("\"|\(command)\"".utf8)
        case .file(let path): Array(path.utf8)
        }
    }
}
