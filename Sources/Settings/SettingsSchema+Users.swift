// SPDX-License-Identifier: Apache-2.0

import MailTypes

/// The keys about users: who they are, and what they may do.
extension SettingsSchema {
    static let auth: [SettingKey] = [
        SettingKey(
            "auth.passwords", .file, for: [(.vault, "passwords")], default: "none",
            "The file of users and what is kept of their passwords; `apus passwd` makes and changes it. One of this and the "
                + "next three can be set; without any, nobody can authenticate."),
        SettingKey(
            "auth.system", .boolean, for: [(.vault, "system")], default: "false",
            "Users are the accounts of this machine. apus-vault must be able to read /etc/shadow: put its user into the "
                + "group `shadow` (authentication.md). root never gets in."),
        SettingKey(
            "auth.checkpassword", .text, .words, for: [(.vault, "checkpassword")], default: "none",
            "A program in the manner of checkpassword and its arguments: it is asked about each password. It runs as "
                + "apus-vault, without a network and without set-uid."),
        SettingKey(
            "auth.dovecot", .socket, for: [(.vault, "dovecot")], default: "none",
            "The socket of Dovecot's authentication: `/run/dovecot/auth-client`."),
        SettingKey(
            "auth.mechanisms", .word(SASLMechanism.allCases.map(\.rawValue)), .list, for: [(.vault, "mechanism")],
            default: "what works for every user",
            "What is offered to clients, as far as it can be done. By default the SCRAM mechanisms are offered if every "
                + "password in the file is kept as `{SCRAM-SHA-256}`, since clients prefer them and do not fall back."),
        SettingKey(
            "auth.client-certificates", .boolean, for: [(.smtpd, "auth-client-certificates")], default: "false",
            "Whether clients are asked for certificates under TLS, so that they can use EXTERNAL. The password file has "
                + "their fingerprints."),
        SettingKey(
            "auth.loopback-without-tls", .boolean, for: [(.smtpd, "auth-loopback-without-tls")], default: "false",
            "Whether clients on this machine (127.0.0.0/8, ::1) may show their passwords without TLS."),
        SettingKey(
            "auth.failure-delay", .duration(0...60), for: [(.smtpd, "auth-failure-delay")], default: "2 s",
            "How long after they have come wrong credentials are answered at the earliest."),
        SettingKey(
            "auth.failures-per-session-max", .integer(1...100), for: [(.smtpd, "auth-failures-per-session-max")],
            default: "3", "After so many failures, or refusals to check at all, the session is closed."),
        SettingKey(
            "auth.failures-per-client-max", .integer(1...100_000),
            for: [(.smtpd, "auth-failures-per-client-max"), (.vault, "failures-per-client-max")],
            default: "10",
            "So many failures of an IPv4 address or an IPv6 /64 within `failure-time`; then it is told 454 4.7.0 at once."
        ),
        SettingKey(
            "auth.failures-per-user-max", .integer(1...100_000),
            for: [(.smtpd, "auth-failures-per-user-max"), (.vault, "failures-per-user-max")],
            default: "50",
            "So many failures as one user within `failure-time`, from wherever; then clients that have not got in as him "
                + "before are told 454 4.7.0."),
        SettingKey(
            "auth.failure-time", .duration(1...604_800),
            for: [(.smtpd, "auth-failure-time"), (.vault, "failure-time")], default: "10 min",
            "How long failures are counted."),
    ]

    static let submission: [SettingKey] = [
        SettingKey(
            "submission.senders", .file, for: [(.lookup, "senders")], default: "none",
            "Which addresses a user may send as: lines `user: address, @domain`, where `*` stands for every address. A "
                + "user without a line has his own: his name at the local domains, or his name if it is an address."),
        SettingKey(
            "submission.from", .word(["any", "own"]), for: [(.smtpd, "submission-from")], default: "any",
            "What `From:` and `Sender:` of a user's message may have: `any` address, or his `own` alone, as `senders` says them. "
                + "Otherwise 550 5.7.1, and 550 5.6.0 if it cannot be read."),
        SettingKey(
            "submission.client-address-in-received", .boolean, for: [(.smtpd, "client-address-in-received")],
            default: "true", "Whether `Received:` tells the address and the name of an authenticated client."),
        SettingKey(
            "submission.bare-line-feed", .word(["refuse", "repair"]), for: [(.smtpd, "bare-line-feed")],
            default: "refuse",
            "What becomes of a message with a bare LF in it at `submission` listeners: 550 5.5.2, or the LF becomes CR LF. "
                + "The end of a message has to be CR LF . CR LF in any case."),
        SettingKey(
            "submission.messages-per-hour-max", .integer(1...1_000_000), for: [(.smtpd, "messages-per-hour-max")],
            default: "no limit", "Messages of one user in an hour; above: 450 4.7.1."),
        SettingKey(
            "submission.recipients-per-hour-max", .integer(1...10_000_000), for: [(.smtpd, "recipients-per-hour-max")],
            default: "no limit", "Recipients of one user in an hour; above: 450 4.7.1."),
    ]
}
