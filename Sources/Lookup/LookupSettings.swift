// SPDX-License-Identifier: Apache-2.0

import Cryptography
package import LookupCore
package import MailTypes
package import NIOCore
package import PipeCore

/// The settings of apus-lookup.
///
/// | name | value |
/// |---|---|
/// | `hostname` | required |
/// | `local-domain` | a domain or an address literal in brackets; any number |
/// | `aliases` | the path of a file; none without it |
/// | `alias-includes`, `alias-programs`, `alias-files` | whether an alias may include files, name programs, files: `true`, `false` |
/// | `smarthost` | a next hop |
/// | `lmtp` | a socket or a host in brackets: who takes the mail of users, instead of apus-local |
/// | `recipient-delimiter` | characters, each of which is one; nothing: no sub-addressing; `+` without it |
/// | `postmaster` | an address or a local name |
/// | `user` | a recipient who exists; any number; without any, the users of the system exist |
/// | `trusted-user` | a user of this machine who may send as anybody; any number |
/// | `senders` | the path of the file that says which addresses users may send as; without it, their own |
/// | `virtual-domain` | a domain; any number |
/// | `virtual-domain-table`, `virtual-aliases`, `virtual-mailboxes` | a table; any number, asked in this order |
/// | `virtual-owner` | the system user who owns the mailboxes of virtual users |
/// | `virtual-lmtp` | who takes the mail of virtual users, instead of apus-local |
/// | `table-timeout` | seconds: how long a server of tables may take to answer |
/// | `srs-domain`, `srs-secret` | the domain of rewritten senders, and the secret of their addresses |
/// | `single-user` | the user as whom everything runs, if not as root |
package struct LookupSettings: Sendable {
    package let rules: RecipientResolver.Rules
    package let aliasesPath: String?
    package let aliasTerms: AliasFile.Terms
    /// In lower case; nil: the users of the system.
    package let users: Set<[UInt8]>?
    package let trustedUsers: [String]
    package let sendersPath: String?
    /// What leads mail back to senders whose address we have rewritten; nil: we do not.
    package let rewriting: SenderRewriting?
    package let tables: [TableRole: [TablePlace]]
    package let tableTimeLimit: Duration

    package init(_ table: SettingsTable) throws(SettingsFault) {
        let hostname = Array(try table.required("hostname").utf8)
        guard MailAddress.isDomainName(hostname) else { throw SettingsFault("hostname", "is no domain name") }
        let domains = try table.values("local-domain", "a domain") { text in
            let octets = Array(text.utf8)
            return MailAddress.isDomain(octets) ? octets.lowercasedOctets : nil
        }
        var rules = RecipientResolver.Rules(localDomains: Set(domains), hostname: hostname.lowercasedOctets)
        rules.smarthost = try table.values("smarthost", "a host, or an address in brackets") {
            NextHop(octets: Array($0.utf8))
        }.last
        rules.mailboxServer = try Self.mailboxServer("lmtp", table)
        if let text = table.text("recipient-delimiter") {
            let octets = Array(text.utf8)
            guard octets.allSatisfy({ MailAddress.isAtomText($0) && !$0.isLetterOrDigit }), octets.count <= 5 else {
                throw SettingsFault("recipient-delimiter", "must be up to 5 characters like + and -")
            }
            rules.delimiters = octets
        }
        rules.postmaster = try table.values("postmaster", "an address or the name of a user", Self.target).last
        rules.singleUser = try table.values("single-user", "the name of a user", Self.user).last
        self.rewriting = try SenderRewriting(table)
        self.tables = try Self.tables(table)
        self.tableTimeLimit = try table.duration("table-timeout", in: 1...20, default: .seconds(10))
        rules.virtual = try Self.virtualRules(table, hasDomainTables: self.tables[.virtualDomains] != nil)
        self.rules = rules
        self.aliasesPath = table.text("aliases")
        self.aliasTerms = try Self.aliasTerms(table)
        let users = try table.values("user", "the name of a user", Self.user)
        self.users = users.isEmpty ? nil : Set(users)
        self.sendersPath = table.text("senders")
        self.trustedUsers = table.texts("trusted-user")
    }

    private static func aliasTerms(_ table: SettingsTable) throws(SettingsFault) -> AliasFile.Terms {
        AliasFile.Terms(
            includes: try table.boolean("alias-includes", default: false),
            programs: try table.boolean("alias-programs", default: false),
            files: try table.boolean("alias-files", default: false))
    }

    private static func mailboxServer(_ name: String, _ table: SettingsTable) throws(SettingsFault) -> NextHop? {
        try table.values(name, "/PATH or [HOST]:PORT") {
            NextHop(octets: Array("lmtp:\($0)".utf8)).flatMap { $0.isLMTP ? $0 : nil }
        }.last
    }

    private static func tables(_ table: SettingsTable) throws(SettingsFault) -> [TableRole: [TablePlace]] {
        var tables: [TableRole: [TablePlace]] = [:]
        for (name, role) in [
            ("virtual-domain-table", TableRole.virtualDomains), ("virtual-aliases", .virtualAliases),
            ("virtual-mailboxes", .virtualMailboxes),
        ] {
            let places = try table.values(name, "a table") { TablePlace($0) }
            if !places.isEmpty { tables[role] = places }
        }
        return tables
    }

    private static func virtualRules(
        _ table: SettingsTable, hasDomainTables: Bool
    ) throws(SettingsFault) -> VirtualRules {
        let domains = try table.values("virtual-domain", "a domain") { text in
            let octets = Array(text.utf8)
            return MailAddress.isDomain(octets) ? octets.lowercasedOctets : nil
        }
        return VirtualRules(
            domains: Set(domains), hasDomainTables: hasDomainTables,
            owner: try table.values("virtual-owner", "the name of a user") {
                Route.isUserName(Array($0.utf8)) ? Array($0.utf8) : nil
            }.last, server: try Self.mailboxServer("virtual-lmtp", table))
    }

    private static func user(_ text: String) -> [UInt8]? {
        let octets = Array(text.utf8).lowercasedOctets
        return Route.isUserName(octets) ? octets : nil
    }

    private static func target(_ text: String) -> AliasFile.Target? {
        if let address = MailAddress(octets: Array(text.utf8), alphabet: .unicodeLocalPart) {
            return .address(address)
        }
        let octets = Array(text.utf8).lowercasedOctets
        // `postmaster` alone would be the question itself.
        guard octets.elementsEqual("postmaster".utf8) == false else { return nil }
        return Self.user(text).map { .name($0) }
    }

    /// The tables, opened.
    package func openTables(on eventLoop: any EventLoop) -> TableShelf {
        TableShelf(self.tables, timeLimit: TimeAmount(self.tableTimeLimit), eventLoop: eventLoop)
    }

    /// Whether these tables can stay as they are.
    package func areTables(_ shelf: TableShelf) -> Bool {
        shelf.isMade(of: self.tables, timeLimit: TimeAmount(self.tableTimeLimit))
    }
}
