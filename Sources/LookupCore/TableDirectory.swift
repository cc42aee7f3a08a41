// SPDX-License-Identifier: Apache-2.0

/// What a table says, or several that are asked one after the other.
package enum TableRole: String, Hashable, Sendable, CaseIterable {
    /// Whether a domain has virtual users; the value is not looked at.
    case virtualDomains = "virtual.domain-tables"
    /// Where the mail of a virtual address goes instead.
    case virtualAliases = "virtual.aliases"
    /// Whether an address has a mailbox; the value is not looked at.
    case virtualMailboxes = "virtual.mailboxes"
}

/// What is known of a key.
package enum TableFinding: Hashable, Sendable {
    /// With the place of the entry, for a person: `text:/etc/apus/virtual:12`.
    case found([UInt8], place: String)
    case absent
    /// It cannot be told now. That is never taken for absent.
    case unknownNow(reason: String)
}

/// Tables: what a resolver asks, and somebody else answers.
///
/// Who has to ask elsewhere first answers `unknownNow`, and lets the resolver begin anew when he knows.
package protocol TableDirectory {
    /// - Parameter key: as `TableKey` writes it.
    mutating func finding(of key: [UInt8], in role: TableRole) -> TableFinding
}

/// All that a resolver asks.
package typealias RecipientDirectory = UserDirectory & TableDirectory & AliasListDirectory

extension TableDirectory {
    /// Nothing, where there are no tables.
    package mutating func finding(of key: [UInt8], in role: TableRole) -> TableFinding { .absent }
}
