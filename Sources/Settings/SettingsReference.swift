// SPDX-License-Identifier: Apache-2.0

/// The reference of all keys, made from the schema: Documentation/settings.md holds it, `apus settings` prints it.
package enum SettingsReference {
    /// One key for a person.
    package struct Row: Equatable, Sendable {
        package let table: String
        package let name: String
        package let value: String
        package let defaultText: String
        package let about: String
    }

    package static var rows: [Row] {
        SettingsSchema.keys.filter { !$0.isLater }.map { key in
            let isRequired = if case .required = key.count { true } else { false }
            return Row(
                table: key.table, name: key.name, value: Self.value(key),
                defaultText: isRequired ? "must be set" : key.defaultText, about: key.about)
        }
    }

    /// The tables in Markdown.
    package static var markdown: String {
        var text = ""
        var table: String?
        for row in self.rows {
            if row.table != table {
                let title = Self.title(row.table)
                text += "\(table == nil ? "" : "\n")### \(title)\n\n| key | value | default | |\n|---|---|---|---|\n"
                table = row.table
            }
            text += "| `\(row.name)` | \(row.value) | \(row.defaultText) | \(row.about) |\n"
        }
        return text
    }

    private static func title(_ table: String) -> String {
        if table.isEmpty { return "the top" }
        return SettingsSchema.repeatedTables.contains(table) ? "`[[\(table)]]`" : "`[\(table)]`"
    }

    private static func value(_ key: SettingKey) -> String {
        switch key.count {
        case .optional, .required: Self.value(key.kind)
        case .list: "list of \(Self.value(key.kind, isMany: true))"
        case .words: "list of words"
        }
    }

    private static func value(_ kind: SettingKind, isMany: Bool = false) -> String {
        switch kind {
        case .text: isMany ? "texts" : "text"
        case .hostname: "host name"
        case .domain: isMany ? "domains" : "domain"
        case .path: "absolute path"
        case .socket: "absolute path of a socket"
        case .file: "absolute path of a file"
        case .integer(let range): "\(range.lowerBound) … \(range.upperBound)"
        case .duration(let range): "time, \(Self.time(range.lowerBound)) … \(Self.time(range.upperBound))"
        case .size(let range): "size, \(Self.size(range.lowerBound)) … \(Self.size(range.upperBound))"
        case .boolean: "true, false"
        case .network: isMany ? "networks" : "network"
        case .socketAddress: "address with port"
        case .resolver, .address: isMany ? "addresses" : "address"
        case .domainPattern: "pattern of domains"
        case .sender: isMany ? "senders" : "sender"
        case .language: "language tag"
        case .languageRule: isMany ? "pairs of domain pattern and language tag" : "domain pattern and language tag"
        case .user: isMany ? "user names" : "user name"
        case .accountName: "name of an account"
        case .mailboxServer: "path of a socket, or host in brackets with port"
        case .nextHop: "next hop"
        case .recipient: "mail address or user name"
        case .delimiter: "up to 5 characters, or none"
        case .mailbox: "mailbox"
        case .virtualMailbox: "mailbox with `%{domain}` and `%{local}`"
        case .table: isMany ? "tables" : "table"
        case .fingerprint: isMany ? "fingerprints" : "fingerprint"
        case .word(let words): words.map { "`\"\($0)\"`" }.joined(separator: ", ")
        case .later: ""
        }
    }

    private static func time(_ seconds: Int) -> String {
        for (unit, factor) in [("d", 86_400), ("h", 3_600), ("min", 60)]
        where seconds >= factor && seconds % factor == 0 {
            return "\(seconds / factor) \(unit)"
        }
        return seconds == 0 ? "0" : "\(seconds) s"
    }

    private static func size(_ octets: Int) -> String {
        for (unit, shift) in [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)] where octets >= 1 << shift {
            return "\(octets >> shift) \(unit)"
        }
        return String(octets)
    }
}
