// SPDX-License-Identifier: Apache-2.0

/// The keys about the mail of this machine's users.
extension SettingsSchema {
    static let local: [SettingKey] = [
        SettingKey(
            "local.mailbox", .mailbox, for: [(.local, "mailbox")], default: "maildir:~/Maildir",
            "Where a user's mail is put: `maildir:` and the path of a directory, `mbox:` and that of a file, or `discard:`. `~/` "
                + "is the user's home, `%{user}` the user's name."),
        SettingKey(
            "local.quota", .size(0...(1 << 50)), for: [(.local, "quota")], default: "0",
            "How much may be in a Maildir, in the way of Maildir++ (its file `maildirsize`). 0: what that file says, if there is "
                + "one."),
        SettingKey(
            "local.quota-messages", .integer(0...(1 << 40)), for: [(.local, "quota-messages")], default: "0",
            "How many messages may be in a Maildir, likewise."),
        SettingKey(
            "local.over-quota", .word(["defer", "fail"]), for: [(.local, "over-quota")], default: "defer",
            "What becomes of mail for a full mailbox: it waits (4.2.2), or it is returned (5.2.2)."),
        SettingKey(
            "local.lmtp", .mailboxServer, for: [(.lookup, "lmtp")], default: "none: apus-local",
            "The server that takes the mail of users instead of apus-local, by LMTP: `/run/dovecot/lmtp` or "
                + "`[127.0.0.1]:24`. It is told the recipient's address, and says for each whether it has it."),
        SettingKey(
            "local.aliases", .file, for: [(.lookup, "aliases"), (.local, "aliases")], default: "none",
            "The aliases, in the form of aliases(5). Apus notices by itself when the file changes."),
        SettingKey(
            "local.alias-includes", .boolean, for: [(.lookup, "alias-includes"), (.local, "alias-includes")],
            default: "false",
            "Whether an alias may include a file of targets, `:include:/path`. Whoever can change such a file decides where the "
                + "mail for the alias goes."),
        SettingKey(
            "local.alias-programs", .boolean, for: [(.lookup, "alias-programs"), (.local, "alias-programs")],
            default: "false",
            "Whether an alias may name programs. They run as `alias-user`, within the limits below, by `/bin/sh`."),
        SettingKey(
            "local.alias-files", .boolean, for: [(.lookup, "alias-files"), (.local, "alias-files")], default: "false",
            "Whether an alias may name files, `/path` (an mbox) and `/path/` (a Maildir). They are written as "
                + "`alias-user`."),
        SettingKey(
            "local.alias-user", .user, for: [(.local, "alias-user")], default: "`nobody`",
            "The user who does what aliases say that is more than addresses: programs, files, lists with an owner. As root only, "
                + "and never root."),
        SettingKey(
            "local.users", .user, .list, for: [(.lookup, "user")], default: "the users of the system",
            "The users who get mail. With it, the users of the system are not looked at."),
        SettingKey(
            "local.recipient-delimiter", .delimiter, for: [(.lookup, "recipient-delimiter")], default: "`+`",
            "What parts a user's name from what the user put behind it: `user+tag`. With several characters each does, and the "
                + "longest name that exists counts. Empty: nothing does."),
        SettingKey(
            "local.workers-max", .integer(1...1_000), for: [(.local, "workers-max")], default: "20",
            "Users whose mail is written at the same time, each by a process of its own. As root only."),
        SettingKey(
            "local.worker-idle", .duration(1...3_600), for: [(.local, "worker-idle")], default: "10 s",
            "How long such a process waits for more mail of its user. As root only."),
        SettingKey(
            "local.worker-silence", .duration(5...3_600), for: [(.local, "worker-silence")], default: "5 min",
            "How long such a process may say nothing of mail that it has. Then it is killed, and its mail waits; if even "
                + "that does not end it (a dead mount), the mail of this user alone waits. As root only."),
    ]

    static let localPrograms: [SettingKey] = [
        SettingKey(
            "local.dot-files", .word(["none", "forward", "qmail"]), for: [(.local, "dot-files")], default: "forward",
            "The file in a user's home in which the user says what becomes of the mail: `.forward`, or `.qmail` as of "
                + "dot-qmail(5). As root only."),
        SettingKey(
            "local.dot-programs", .boolean, for: [(.local, "dot-programs")], default: "false",
            "Whether such a file may name programs. They run as the user, within the limits below, by `/bin/sh`."),
        SettingKey(
            "local.program", .text, .words, for: [(.local, "program")], default: "none",
            "A program that takes users' mail instead of the mailbox: its path and its arguments. It is run as the user, in "
                + "the user's home, with the message on its standard input; no shell is between. `%{user}`, `%{sender}`, "
                + "`%{recipient}` and others stand for words of the delivery ([settings-local.md](settings-local.md))."),
        SettingKey(
            "local.program-time", .duration(1...86_400), for: [(.local, "program-time")], default: "10 min",
            "A program that takes longer is killed with all that it has started, and the mail waits."),
        SettingKey(
            "local.programs-max", .integer(1...50), for: [(.local, "programs-max")], default: "2",
            "Programs of one user at the same time."),
        SettingKey(
            "local.program-processor-time", .duration(0...86_400), for: [(.local, "program-processor-time")],
            default: "10 min", "How long a process of a program may use the processor; 0: as long as it likes."),
        SettingKey(
            "local.program-memory", .size(0...(1 << 46)), for: [(.local, "program-memory")], default: "1 GiB",
            "How much memory a process of a program may have; 0: no limit."),
        SettingKey(
            "local.program-processes", .integer(0...100_000), for: [(.local, "program-processes")], default: "200",
            "How many processes the user may have, whatever started them, for a program to start one more; 0: no limit."
        ),
        SettingKey(
            "local.program-file-size", .size(0...(1 << 46)), for: [(.local, "program-file-size")], default: "0",
            "The largest file that a program may write; 0: no limit."),
    ]
}
