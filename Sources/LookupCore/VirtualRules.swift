// SPDX-License-Identifier: Apache-2.0

package import MailTypes

/// What the settings say about domains whose recipients are no users of this system.
package struct VirtualRules: Hashable, Sendable {
    /// In lower case; further ones may be in tables.
    package var domains: Set<[UInt8]>
    /// Whether tables are asked for domains.
    package var hasDomainTables: Bool
    /// The system user who owns the mailboxes; nil: there are none, unless `server` has them.
    package var owner: [UInt8]?
    /// The server that takes the mail for mailboxes by LMTP; nil: apus-local does.
    package var server: NextHop?

    package init(
        domains: Set<[UInt8]> = [], hasDomainTables: Bool = false, owner: [UInt8]? = nil, server: NextHop? = nil
    ) {
        self.domains = domains
        self.hasDomainTables = hasDomainTables
        self.owner = owner
        self.server = server
    }
}

extension RecipientResolver {
    /// Whether a domain that is not local has virtual users.
    enum VirtualDomain {
        case virtual(place: ResolutionStep.Place)
        case elsewhere
        case unknownNow(reason: String)
    }

    func virtualDomain(_ address: MailAddress, in directory: inout some RecipientDirectory) -> VirtualDomain {
        let domain = address.domain.lowercasedOctets
        if self.rules.virtual.domains.contains(domain) { return .virtual(place: .setting("virtual.domains")) }
        guard self.rules.virtual.hasDomainTables else { return .elsewhere }
        return switch directory.finding(of: domain, in: .virtualDomains) {
        case .found(_, let place): .virtual(place: .table(place))
        case .absent: .elsewhere
        case .unknownNow(let reason): .unknownNow(reason: reason)
        }
    }

    /// What stands behind a virtual address.
    enum VirtualFound {
        /// With the key that was found, whose targets they are.
        case alias([UInt8], [AliasFile.Target], place: String)
        case mailbox(MailboxName, place: String)
        case absent
        /// The entry is not understood.
        case broken(reason: String)
        case unknownNow(reason: String)
    }

    /// Looks for an address: an alias of it, a mailbox, the same without its tag, and an alias of its domain.
    ///
    /// - Parameter owner: an alias that names itself means the mailbox behind it, so the alias of this key is passed over.
    func findVirtual(
        _ address: MailAddress, owner: [UInt8]? = nil, in directory: inout some RecipientDirectory
    ) -> VirtualFound {
        let name = address.unquotedLocalPart.lowercasedOctets
        for localPart in self.names(of: name) {
            let key = TableKey.address(localPart: localPart, domain: address.domain)
            if key != owner, let found = self.virtualAlias(key, address, in: &directory) { return found }
            switch directory.finding(of: key, in: .virtualMailboxes) {
            case .found(_, let place):
                guard let mailbox = MailboxName(domain: Array(address.domain), localPart: localPart) else {
                    return .broken(reason: "the name of the mailbox \(key.printableText) is too long")
                }
                return .mailbox(mailbox, place: place)
            case .absent: break
            case .unknownNow(let reason): return .unknownNow(reason: reason)
            }
        }
        let key = TableKey.catchAll(domain: address.domain)
        return self.virtualAlias(key, address, in: &directory) ?? .absent
    }

    private func virtualAlias(
        _ key: [UInt8], _ address: MailAddress, in directory: inout some RecipientDirectory
    ) -> VirtualFound? {
        switch directory.finding(of: key, in: .virtualAliases) {
        case .found(let value, let place):
            switch AliasFile.virtualTargets(value, of: address, self.domains) {
            case .success(let targets): .alias(key, targets, place: place)
            case .failure(let reason): .broken(reason: "\(place): \(key.printableText): \(reason.text)")
            }
        case .absent: nil
        case .unknownNow(let reason): .unknownNow(reason: reason)
        }
    }
}
