// SPDX-License-Identifier: Apache-2.0

/// The keys about domains whose recipients are no users of this machine, and about mail that goes on to others.
extension SettingsSchema {
    static let forwarding: [SettingKey] = [
        SettingKey(
            "forwarding.srs-domain", .hostname, for: [(.queue, "srs-domain"), (.lookup, "srs-domain")],
            default: "none: reverse-paths stay as they are",
            "The domain in which mail that goes on to another server gets its reverse-path (SRS), so that that server does not "
                + "take it for forged. Mail to that domain must come to this server. Needs `srs-secret`."),
        SettingKey(
            "forwarding.srs-secret", .file, default: "none",
            "A file whose first line is the secret of these addresses, of 16 characters or more. apusd reads it."),
    ]

    static let virtual: [SettingKey] = [
        SettingKey(
            "virtual.domains", .domain, .list, for: [(.lookup, "virtual-domain")], default: "none",
            "Domains whose recipients are no users of this machine: they are in `aliases` and `mailboxes`, and nobody else "
                + "is there."),
        SettingKey(
            "virtual.domain-tables", .table, .list, for: [(.lookup, "virtual-domain-table")], default: "none",
            "Tables of more such domains."),
        SettingKey(
            "virtual.aliases", .table, .list, for: [(.lookup, "virtual-aliases")], default: "none",
            "Tables of addresses, and where their mail goes instead; `@example.org` stands for all addresses of the domain "
                + "that are not found."),
        SettingKey(
            "virtual.mailboxes", .table, .list, for: [(.lookup, "virtual-mailboxes")], default: "none",
            "Tables of addresses that have a mailbox."),
        SettingKey(
            "virtual.table-timeout", .duration(1...20), for: [(.lookup, "table-timeout")], default: "10 s",
            "How long a server of tables (`socketmap:`) may take to answer; then the mail waits."),
        SettingKey(
            "virtual.owner", .user, for: [(.lookup, "virtual-owner")],
            default: "must be set for mailboxes without `lmtp`",
            "The user of this machine who owns the mailboxes, and as whom they are written."),
        SettingKey(
            "virtual.mailbox", .virtualMailbox, for: [(.local, "virtual-mailbox")],
            default: "maildir:~/%{domain}/%{local}",
            "Where the mail of a virtual user is put. `~/` is the home of `owner`."),
        SettingKey(
            "virtual.lmtp", .mailboxServer, for: [(.lookup, "virtual-lmtp")], default: "none: apus-local",
            "The server that takes the mail of virtual users instead of apus-local, by LMTP, as `local.lmtp`."),
    ]
}
