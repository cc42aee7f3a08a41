// SPDX-License-Identifier: Apache-2.0

package import MailTypes

extension RecipientResolver {
    /// Whether a user who has authenticated himself may send as an address: what the table says, and without a line for
    /// him, as his name at the local domains, with or without a tag, or as his name if that is an address.
    ///
    /// An address belongs to the longest name in it that exists, as mail for it does: where `-` is a delimiter and there is
    /// a `joe-smith`, `joe` may not send as `joe-smith@…`.
    ///
    /// - Parameter user: in lower case.
    /// - Returns: nil if it cannot be told now.
    package func maySend(
        _ user: [UInt8], as path: ForwardPath, _ table: SenderTable, in directory: inout some RecipientDirectory
    ) -> Bool? {
        guard case .address(let address) = path else { return false }
        if let isAllowed = table.allows(user, address) { return isAllowed }
        // He may have his domain in his name as it is read.
        let own = MailAddress(octets: user, domains: self.domains).map {
            TableKey.address(localPart: $0.unquotedLocalPart, domain: $0.domain)
        }
        let owner = Owner(name: user, key: own ?? user)
        let place = self.place(of: path)
        for name in self.names(of: address.unquotedLocalPart.lowercasedOctets) {
            if case .local = place, name == user { return true }
            let key = TableKey.address(localPart: name, domain: address.domain)
            if key == owner.key { return true }
            guard let isOthers = self.isOthers(name, key, address, place, owner, in: &directory) else { return nil }
            if isOthers { return false }
        }
        return false
    }

    /// Who wants to send.
    private struct Owner {
        /// As he authenticates himself.
        let name: [UInt8]
        /// The same as tables write it, if it is an address.
        let key: [UInt8]

        /// Whether an alias that leads to these leads to him alone: it is then another name of his.
        func isAlone(_ targets: [AliasFile.Target]) -> Bool {
            guard targets.count == 1, let target = targets.first else { return false }
            switch target {
            case .name(let name), .user(let name): return name.lowercasedOctets == self.name
            case .address(let address):
                return TableKey.address(localPart: address.unquotedLocalPart, domain: address.domain) == self.key
            case .list, .program, .file: return false
            }
        }
    }

    /// Whether somebody else has a name, or the address that it makes; nil if it cannot be told now.
    private func isOthers(
        _ name: [UInt8], _ key: [UInt8], _ address: MailAddress, _ place: Place, _ owner: Owner,
        in directory: inout some RecipientDirectory
    ) -> Bool? {
        if case .local = place {
            switch self.findExactly(name, in: &directory) {
            case nil, .absent: return false
            case .alias(_, let entry): return !owner.isAlone(entry.targets)
            case .user, .superuser: return true
            case .unknownNow: return nil
            }
        }
        switch directory.finding(of: key, in: .virtualAliases) {
        case .found(let value, _):
            guard case .success(let targets) = AliasFile.virtualTargets(value, of: address, self.domains) else {
                return true
            }
            return !owner.isAlone(targets)
        case .absent: break
        case .unknownNow: return nil
        }
        switch directory.finding(of: key, in: .virtualMailboxes) {
        case .found: return true
        case .absent: return false
        case .unknownNow: return nil
        }
    }

    /// The names that an address may be the own one of, the longest first: its local part, and that without its tag.
    /// Empty if it is not one of here.
    package func ownerNames(of path: ForwardPath) -> [[UInt8]] {
        guard case .local(let name) = self.place(of: path) else { return [] }
        return self.names(of: name)
    }

    /// Whether an alias has a name, in lower case.
    package func isAlias(_ name: [UInt8]) -> Bool { self.aliases.entries[name] != nil }
}
