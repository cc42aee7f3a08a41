// SPDX-License-Identifier: Apache-2.0

import PipeCore
import TLSEngine
import Unix

/// The table of all keys. A key stands here once, and nowhere else is said what it can hold.
extension SettingsSchema {
    private static let year = 31_536_000

    package static let keys: [SettingKey] =
        top + listen + tls + certificate + domains + smtp + sendmail + local + localPrograms + virtual + forwarding
        + remote
        + destination + dns + queue
        + bounce + auth + submission + programs + later

    private static let top: [SettingKey] = [
        SettingKey(
            "hostname", .hostname, .required,
            for: [
                (.smtpd, "hostname"), (.lookup, "hostname"), (.remote, "hostname"), (.local, "hostname"),
                (.bounce, "hostname"),
            ],
            "The name by which other servers know this one: in greetings, `Received:` fields and reports."),
        SettingKey(
            "state", .path, default: "/var/lib/apus",
            "The directory of all that Apus keeps. The queue is in `queue` below it, the operator's socket is "
                + "`control`. It is made if its parent exists. A change needs a restart."),
        SettingKey(
            "stop-timeout", .duration(1...3_600), default: "30 s",
            "How long the programs may take to finish what is in flight when Apus is stopped. What is not finished "
                + "then stays in the queue."),
    ]

    private static let listen: [SettingKey] = [
        SettingKey(
            "listen.address", .socketAddress, .required,
            "An address and a port: `127.0.0.1:2525`, `[::1]:25`; `[::]:25` is the world, IPv4 too."),
        SettingKey(
            "listen.role", .word(["mx", "submission"]), .required,
            "What the listener is for. `mx`: mail for the local domains from everybody, for anywhere from `relay-from`. "
                + "`submission`: mail for anywhere, from users who have authenticated themselves ([auth]) and from "
                + "`relay-from`; nobody else."),
        SettingKey(
            "listen.tls", .word(ListenerTLS.allCases.map(\.rawValue)),
            default: "`offer` if there is a certificate, else `off`",
            "`offer`: STARTTLS, for who wants it. `require`: no mail without it; for submission, as other servers may not know "
                + "it. `implicit`: TLS from the first octet, as port 465 has it. `off`: none."),
        SettingKey(
            "listen.certificate", .file, default: "`tls.certificate`",
            "A certificate for this listener alone, in front of those of all."),
        SettingKey("listen.private-key", .file, default: "in the file of the certificate", "Its private key."),
    ]

    private static let tls: [SettingKey] = [
        SettingKey(
            "tls.certificate", .file, default: "none: no TLS",
            "The certificate, with those of its issuers behind it, in PEM: `fullchain.pem` of certbot. Apus notices by itself when "
                + "it changes. [tls.md](tls.md) says who reads it."),
        SettingKey(
            "tls.private-key", .file, default: "in the file of the certificate", "Its private key, without a password."),
        SettingKey(
            "tls.minimum-version", .word(TLSVersion.allCases.map(\.rawValue)), for: [(.smtpd, "tls-minimum-version")],
            default: "1.2", "The oldest version that clients may speak."),
        SettingKey(
            "tls.handshake-timeout", .duration(1...3_600), for: [(.smtpd, "handshake-timeout")], default: "1 min",
            "How long a client may take for its handshake; then the connection is closed."),
    ]

    private static let certificate: [SettingKey] = [
        SettingKey(
            "certificate.certificate", .file, .required,
            "One more certificate, as `tls.certificate`: for the names in it if a client asks for one of them, and beside the "
                + "others of these names if its key is of another kind (RSA, ECDSA)."),
        SettingKey("certificate.private-key", .file, default: "in the file of the certificate", "Its private key."),
    ]

    private static let domains: [SettingKey] = [
        SettingKey(
            "domains.local", .domain, .list, for: [(.lookup, "local-domain"), (.queue, "local-domain")],
            default: "none",
            "Domains whose recipients are the users of this machine and the aliases."),
        SettingKey(
            "domains.relay-from", .network, .list, for: [(.smtpd, "relay-from")], default: "none",
            "Clients that may send mail to anywhere: `127.0.0.0/8`, `2001:db8::/32`, or one address."),
        SettingKey(
            "domains.relay-certificates", .fingerprint, .list, for: [(.smtpd, "relay-certificate")], default: "none",
            "Clients that may send mail to anywhere because they show one of these certificates: the SHA-256 of each, as "
                + "`openssl x509 -noout -fingerprint -sha256` prints it. With any, clients are asked for a certificate."
        ),
    ]

    private static let smtp: [SettingKey] = [
        SettingKey(
            "smtp.workers", .integer(1...64), default: "1",
            "Processes of apus-smtpd that share the listeners. The limits of sessions are for each of them; those of "
                + "[submission] and failures to authenticate are counted for all together."),
        SettingKey(
            "smtp.size-max", .size(65_536...(1 << 40)), default: "50 MiB", "The largest message, announced by SIZE."),
        SettingKey(
            "smtp.recipients-max", .integer(100...100_000), for: [(.smtpd, "recipients-max")], default: "1000",
            "Recipients of one message; those above get 452 4.5.3 and may come again. Programs of this machine may name 10,000."
        ),
        SettingKey(
            "smtp.line-length-max", .integer(998...(1 << 30)), for: [(.smtpd, "line-length-max")], default: "65536",
            "Octets of a line in a message, without CR LF; longer: 554 5.6.0."),
        SettingKey(
            "smtp.command-length-max", .integer(512...65_536), for: [(.smtpd, "command-length-max")], default: "4096",
            "Octets of a command, with CR LF; longer: 500 5.5.2."),
        SettingKey(
            "smtp.smtputf8", .boolean, for: [(.smtpd, "smtputf8")], default: "true",
            "Whether SMTPUTF8 is offered (RFC 6531): addresses and headers in UTF-8. Without it no mail for or from such an "
                + "address is taken."),
        SettingKey(
            "smtp.errors-max", .integer(1...100_000), for: [(.smtpd, "errors-max")], default: "20",
            "Refused commands since the last message taken, and all but the first hundred that bring none further (NOOP, RSET, "
                + "VRFY, HELP, EHLO); the next one is 421 4.7.0 and the end."),
        SettingKey(
            "smtp.sessions-max", .integer(1...1_000_000), for: [(.smtpd, "sessions-max")], default: "10000",
            "Sessions at once; above: 421 4.3.2."),
        SettingKey(
            "smtp.sessions-per-client-max", .integer(1...1_000_000), for: [(.smtpd, "sessions-per-client-max")],
            default: "50",
            "Sessions at once of an IPv4 address or an IPv6 /64; above: 421 4.7.0. Clients in `relay-from` are free of it."
        ),
        SettingKey(
            "smtp.command-timeout", .duration(1...86_400), for: [(.smtpd, "command-timeout")], default: "5 min",
            "Silence between commands (RFC 5321 §4.5.3.2.7); then 421 4.4.2."),
        SettingKey(
            "smtp.data-timeout", .duration(1...86_400), for: [(.smtpd, "data-timeout")], default: "5 min",
            "Silence within a message; then 421 4.4.2."),
        SettingKey(
            "smtp.data-rate-min", .integer(0...1_000_000), for: [(.smtpd, "data-rate-min")], default: "500",
            "Octets of a message in a second, on an average over `data-timeout`; slower: 421 4.4.2. Only the time counts in "
                + "which the client is waited for. 0: any number."),
        SettingKey(
            "smtp.answer-timeout", .duration(1...3_600), for: [(.smtpd, "answer-timeout")], default: "2 min",
            "How long apus-queue and apus-lookup may take to answer; then 451."),
        SettingKey(
            "smtp.greeting-delay", .duration(0...60), for: [(.smtpd, "greeting-delay")], default: "0",
            "How long the greeting is held back; who speaks before it gets 554 5.5.0."),
    ]

    private static let sendmail: [SettingKey] = [
        SettingKey(
            "sendmail.origin", .domain, for: [(.smtpd, "origin")],
            default: "the first of `domains.local`, or `hostname`",
            "What `sendmail` completes addresses without a domain with."),
        SettingKey(
            "sendmail.senders", .word(["any", "own"]), for: [(.smtpd, "local-senders")], default: "any",
            "As whom the programs of a user of this machine may send: `any` address, as is the custom, or his `own` alone: "
                + "his name at one of the local domains, with or without a tag."),
        SettingKey(
            "sendmail.trusted-users", .user, .list, for: [(.lookup, "trusted-user")], default: "none",
            "Users of this machine who may send as anybody all the same: that of a web server, for instance. root may always."
        ),
    ]

    private static let remote: [SettingKey] =
        [
            SettingKey(
                "remote.tls", .word(TLSDemand.allCases.map(\.rawValue)),
                for: [(.remote, "tls"), (.queue, "remote-tls")],
                default: "may",
                "What is asked of other servers. `may`: STARTTLS if it is offered, whatever the certificate, and plain text "
                    + "otherwise. `require`: STARTTLS, whatever the certificate. `verify`: STARTTLS, with a certificate for the "
                    + "name of the host. `implicit`: the same before the greeting, as port 465 has it. `off`: plain text."
            ),
            SettingKey(
                "remote.ca-file", .file, for: [(.remote, "ca-file")], default: "/etc/ssl/certs/ca-certificates.crt",
                "The authorities whose certificates `verify` and `implicit` believe, in PEM."),
            SettingKey(
                "remote.passwords", .file, for: [(.vault, "remote-passwords")], default: "none",
                "The file of our own accounts at other servers, for apus-vault alone: lines of a host (as in "
                    + "`destination.match`, without a star), a user and a password. `destination.user` says where they are used."
            ),
            SettingKey(
                "remote.smarthost", .nextHop, for: [(.lookup, "smarthost")], default: "none: MX look-up",
                "The host that all mail to other servers is handed to: `example.org` (its MX), `[mail.example.org]:587` "
                    + "(that host) or `192.0.2.1:25`."),
            SettingKey(
                "remote.port", .integer(1...65_535), for: [(.remote, "port")], default: "25",
                "The port of hosts that are named without one."),
            SettingKey(
                "remote.address-family", .word(["ipv6-first", "ipv4-first", "ipv6-only", "ipv4-only"]),
                for: [(.remote, "address-family")], default: "ipv6-first",
                "Which addresses of a host are tried, in which order."),
            SettingKey(
                "remote.own-addresses", .address, .list, for: [(.remote, "own-address")], default: "none",
                "Addresses at which the world reaches this server, for instance behind a router that translates addresses. "
                    + "An MX host with one of them is this server itself."),
            SettingKey(
                "remote.hosts-max", .integer(1...100), for: [(.remote, "hosts-max")], default: "10",
                "MX hosts of a domain that are looked at."),
            SettingKey(
                "remote.addresses-max", .integer(1...100), for: [(.remote, "addresses-max")], default: "10",
                "Addresses that one delivery tries."),
            SettingKey(
                "remote.deliveries-max", .integer(1...100_000), for: [(.remote, "deliveries-max")], default: "5000",
                "Deliveries at once."),
            SettingKey(
                "remote.connections-max", .integer(1...100_000), for: [(.remote, "connections-max")], default: "4000",
                "Connections at once."),
            SettingKey(
                "remote.idle-connections-max", .integer(0...100_000), for: [(.remote, "idle-connections-max")],
                default: "500", "Connections that are kept for the next message to the same host."),
            SettingKey(
                "remote.messages-per-connection-max", .integer(1...1_000_000),
                for: [(.remote, "messages-per-connection-max")], default: "200", "Messages on one connection."),
        ]
        + [
            ("connect-timeout", 3_600, "30 s", "How long a host may take to take the connection."),
            ("greeting-timeout", 3_600, "5 min", "How long it may take to greet (RFC 5321 §4.5.3.2)."),
            ("hello-timeout", 3_600, "5 min", "How long it may take to answer EHLO or HELO."),
            ("mail-timeout", 3_600, "5 min", "How long it may take to answer MAIL."),
            ("recipient-timeout", 3_600, "5 min", "How long it may take to answer RCPT."),
            ("data-timeout", 3_600, "2 min", "How long it may take to answer DATA."),
            ("content-timeout", 3_600, "3 min", "How long it may take no octet of the message."),
            ("final-reply-timeout", 3_600, "10 min", "How long it may take to answer the final dot."),
            ("quit-timeout", 60, "5 s", "How long it may take to answer QUIT."),
        ].map { name, most, value, about in
            SettingKey("remote.\(name)", .duration(1...most), for: [(.remote, name)], default: value, about)
        } + [
            SettingKey(
                "remote.idle-connection-timeout", .duration(0...600), for: [(.remote, "idle-connection-timeout")],
                default: "5 s", "How long a connection is kept for the next message.")
        ]

    private static let destination: [SettingKey] = [
        SettingKey(
            "destination.match", .domainPattern, .required,
            "For which next hops the rest of this table is: `example.org`, `*.example.org` (all below it), `192.0.2.1`, or "
                + "`*`. Each of them has these limits for itself. The first `[[destination]]` that matches counts."),
        SettingKey(
            "destination.connections-max", .integer(destinationRange("connections-max")),
            default: "`queue.destination-deliveries-max`", "Deliveries, and so connections, at once."),
        SettingKey(
            "destination.messages-per-connection-max", .integer(destinationRange("messages-per-connection-max")),
            default: "`remote.messages-per-connection-max`", "Messages on one connection."),
        SettingKey(
            "destination.messages-per-minute-max", .integer(destinationRange("messages-per-minute-max")),
            default: "no limit",
            "Deliveries begun in a minute, spread evenly over it: with 60, one a second. Attempts that fail count too."),
        SettingKey(
            "destination.tls", .word(TLSDemand.allCases.map(\.rawValue)), default: "`remote.tls`",
            "What is asked of these hosts, as with `remote.tls`."),
        SettingKey(
            "destination.user", .accountName, default: "none",
            "As whom Apus authenticates itself to these hosts, by SCRAM-SHA-256, PLAIN or LOGIN, with a password of "
                + "`remote.passwords`. Only under TLS with a verified certificate, or to this machine itself."),
    ]

    private static func destinationRange(_ name: String) -> ClosedRange<Int> {
        DestinationSetting.ranges.first { $0.name == name }?.range ?? 1...1
    }

    private static let dns: [SettingKey] = [
        SettingKey(
            "dns.resolvers", .resolver, .list, for: [(.remote, "resolver")], default: "those of `resolver-file`",
            "The DNS resolvers to ask, at most 16: `127.0.0.1`, `127.0.0.1:5353`, `[::1]:53`."),
        SettingKey(
            "dns.resolver-file", .file, for: [(.remote, "resolver-file")], default: "/etc/resolv.conf",
            "Where the resolvers are named if `resolvers` does not."),
        SettingKey(
            "dns.timeout", .duration(1...60), for: [(.remote, "dns-timeout")], default: "2 s",
            "How long a resolver may take to answer."),
        SettingKey(
            "dns.attempts", .integer(1...10), for: [(.remote, "dns-attempts")], default: "3",
            "How often all resolvers are asked."),
        SettingKey(
            "dns.questions-max", .integer(1...100_000), for: [(.remote, "dns-questions-max")], default: "10000",
            "Questions at once."),
        SettingKey(
            "dns.cache-entries", .integer(0...1_000_000), for: [(.remote, "dns-cache-entries")], default: "20000",
            "Answers that are remembered."),
        SettingKey(
            "dns.cache-time-max", .duration(0...604_800), for: [(.remote, "dns-cache-time-max")], default: "1 d",
            "How long an answer is remembered at most, whatever its TTL."),
    ]

    private static let queue: [SettingKey] = [
        SettingKey(
            "queue.paused", .boolean, for: [(.queue, "paused")], default: "false", "Accept and keep, deliver nothing."),
        SettingKey(
            "queue.retry-min", .duration(1...Self.year), for: [(.queue, "retry-min")], default: "5 min",
            "The time from the first failed attempt to the second; it grows from attempt to attempt."),
        SettingKey(
            "queue.retry-max", .duration(1...Self.year), for: [(.queue, "retry-max")], default: "4 h",
            "The longest time between two attempts."),
        SettingKey(
            "queue.lifetime", .duration(1...Self.year), for: [(.queue, "lifetime")], default: "5 d",
            "After that time a message that could not be delivered goes back to its sender."),
        SettingKey(
            "queue.recipients-max", .integer(1...100_000), for: [(.queue, "recipients-max")], default: "10000",
            "Recipients of one message, aliases followed."),
        SettingKey(
            "queue.reserve", .size(0...(1 << 46)), for: [(.queue, "reserve")], default: "128 MiB",
            "What stays free, on the disk and in the queue's file together, for the mail that is in the queue "
                + "already; below it new mail gets 452 4.3.1."),
        SettingKey(
            "queue.size-max", .size((16 << 20)...(1 << 46)), for: [(.queue, "size-max")], default: "1 TiB",
            "How large the queue's file may grow."),
        SettingKey(
            "queue.cache-size", .size(0...(1 << 30)), for: [(.queue, "cache-size")], default: "8 MiB",
            "Content of new messages that is kept in memory for their first delivery."),
        SettingKey(
            "queue.deliveries-max", .integer(1...100_000), for: [(.queue, "deliveries-max")], default: "2000",
            "Deliveries at once."),
        SettingKey(
            "queue.destination-deliveries-max", .integer(1...10_000), for: [(.queue, "destination-deliveries-max")],
            default: "20", "Deliveries at once to one destination."),
        SettingKey(
            "queue.delivery-recipients-max", .integer(1...1_000), for: [(.queue, "delivery-recipients-max")],
            default: "100", "Recipients of one delivery."),
        SettingKey(
            "queue.window-recipients-max", .integer(100...1_000_000), for: [(.queue, "window-recipients-max")],
            default: "20000", "Recipients that the scheduler holds in memory; the others wait on disk."),
        SettingKey(
            "queue.high-priority-senders", .sender, .list, for: [(.queue, "high-priority-sender")], default: "none",
            "Senders whose mail goes before others' at the same place: `user@example.org`, `@example.org`, "
                + "`@*.example.org`, or `<>` (reports)."),
        SettingKey(
            "queue.low-priority-senders", .sender, .list, for: [(.queue, "low-priority-sender")], default: "none",
            "Senders whose mail lets others' go first. It still goes: of 21 deliveries that could be anybody's, one."),
    ]

    private static let bounce: [SettingKey] = [
        SettingKey(
            "bounce.verp-senders", .sender, .list, for: [(.queue, "verp-sender")], default: "none",
            "Senders whose mail goes out with a reverse-path for each recipient (VERP): `list+joe=example.net@example.org`, so that "
                + "what comes back tells whom it is about. Each recipient's copy then is a delivery of its own."),
        SettingKey(
            "bounce.delay-report-after", .duration(0...year), for: [(.queue, "delay-report-after")], default: "4 h",
            "After how long a sender is told, once, that a recipient's mail is still tried. `0`: never."),
        SettingKey(
            "bounce.postmaster", .recipient, for: [(.bounce, "postmaster"), (.lookup, "postmaster")], default: "none",
            "Who is told of reports that cannot be delivered, and who reads the mail for `postmaster` if no alias says it."
        ),
        SettingKey(
            "bounce.double-bounces", .word(["postmaster", "discard"]), for: [(.bounce, "double-bounces")],
            default: "postmaster",
            "What becomes of a report that cannot be delivered: the `postmaster` above is told, or it is discarded. The log has "
                + "it in any case."),
        SettingKey(
            "bounce.returned-size-max", .size(0...524_288), for: [(.bounce, "returned-size-max")], default: "50 KiB",
            "A message of at most this size is returned whole to a sender who wishes it (RET=FULL); of others the header is."
        ),
        SettingKey(
            "bounce.templates", .file, .list, default: "none: English",
            "The words of reports in other languages, or in other English: a file for each ([reports.md](reports.md))."),
        SettingKey(
            "bounce.language", .language, for: [(.bounce, "language")], default: "en",
            "The language of reports to those of whom nothing is known."),
        SettingKey(
            "bounce.languages", .languageRule, .list, for: [(.bounce, "language-of")], default: "none",
            "In which language senders of a domain are written to: `\"*.example.org pl\"`. The first that matches counts; without "
                + "one, the language of the message does, as its header says it."),
        SettingKey(
            "bounce.reports-per-sender-max", .integer(0...1_000_000), for: [(.bounce, "reports-per-sender-max")],
            default: "1000",
            "Reports to one address within an hour; those above are not sent, as somebody misuses the address. `0`: no limit."
        ),
        SettingKey(
            "bounce.reports-per-minute-max", .integer(0...1_000_000), for: [(.bounce, "reports-per-minute-max")],
            default: "0", "Reports within a minute; those above are put off. `0`: no limit."),
    ]

    private static let programs: [SettingKey] = [
        SettingKey(
            "programs.local", .text, .words, default: "apus-local",
            "Another program in the place of apus-local: its path and its arguments. It speaks the dialect `deliver` on "
                + "descriptors 0 and 1 ([pipes.md](pipes.md)). Apus started as root runs it as the user apus-local."),
        SettingKey(
            "programs.remote", .text, .words, default: "apus-remote", "Likewise in the place of apus-remote."),
        SettingKey(
            "programs.bounce", .text, .words, default: "apus-bounce", "Likewise in the place of apus-bounce."),
    ]

    private static let later: [SettingKey] = [
        SettingKey("dkim", .later("DKIM is not in this version yet"), .optional, "For a later version.")
    ]
}
