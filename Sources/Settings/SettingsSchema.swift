// SPDX-License-Identifier: Apache-2.0

/// The programs that are handed settings.
package enum ProgramName: String, CaseIterable, Sendable {
    case smtpd = "apus-smtpd"
    case lookup = "apus-lookup"
    case queue = "apus-queue"
    case remote = "apus-remote"
    case local = "apus-local"
    case bounce = "apus-bounce"
}

/// One key of apus.toml: what it can hold, who is handed it, and what the manual says.
///
/// Checking, the settings of each program and the reference are all made from `SettingsSchema.keys`.
package struct SettingKey: Sendable {
    /// How often it may stand in the file.
    package enum Count: Sendable {
        case optional
        case required
        /// A list of values.
        case list
        /// A list in which the same value may stand twice: a command line.
        case words
    }

    /// Who is handed it, and by which name.
    package struct Use: Sendable {
        package let program: ProgramName
        package let name: String
    }

    /// `smtp.size-max`; keys of a `[[listen]]` are `listen.address`.
    package let path: String
    package let kind: SettingKind
    package let count: Count
    package let uses: [Use]
    /// In the words of the manual; empty for what must be set.
    package let defaultText: String
    /// One or two sentences.
    package let about: String

    init(
        _ path: String, _ kind: SettingKind, _ count: Count = .optional, for uses: [(ProgramName, String)] = [],
        default defaultText: String = "", _ about: String
    ) {
        self.path = path
        self.kind = kind
        self.count = count
        self.uses = uses.map { Use(program: $0.0, name: $0.1) }
        self.defaultText = defaultText
        self.about = about
    }

    /// `smtp`, or empty for a key of the top.
    package var table: String { self.path.split(separator: ".").dropLast().joined(separator: ".") }
    /// `size-max`.
    package var name: String { String(self.path.split(separator: ".").last ?? "") }
    /// Whether it is known but does not work yet.
    var isLater: Bool { if case .later = self.kind { true } else { false } }
}

/// All keys of apus.toml, in the order of the manual.
package enum SettingsSchema {
    /// Written `[[listen]]`, once for each address.
    static let repeatedTables = ["listen"]

    private static let everywhere: [(ProgramName, String)] = [
        (.smtpd, "hostname"), (.remote, "hostname"), (.local, "hostname"), (.bounce, "hostname"),
    ]
    private static let year = 31_536_000

    package static let keys: [SettingKey] = [
        SettingKey(
            "hostname", .hostname, .required, for: Self.everywhere,
            "The name by which other servers know this one: in greetings, `Received:` fields and reports."),
        SettingKey(
            "state", .path, default: "/var/lib/apus",
            "The directory of all that Apus keeps. The queue is in `queue` below it, the operator's socket is `control`. "
                + "A change needs a restart."),
        SettingKey(
            "stop-timeout", .duration(1...3_600), default: "30 s",
            "How long the programs may take to finish what is in flight when Apus is stopped. What is not finished then "
                + "stays in the queue."),

        SettingKey(
            "listen.address", .socketAddress, .required, "Where to listen: `127.0.0.1:2525`, `[::]:25` for the world."),
        SettingKey(
            "listen.role", .word(["mx", "submission"]), .required,
            "`mx` takes mail for the domains of this server from everybody. `submission` is for the mail programs of "
                + "the clients in `relay-from`."),
        SettingKey("listen.tls", .later("TLS is not in this version yet"), .optional, "For a later version."),

        SettingKey(
            "domains.local", .domain, .list, for: [(.lookup, "local-domain")], default: "none",
            "Domains whose recipients are the users of this machine and the aliases."),
        SettingKey(
            "domains.relay-from", .network, .list, for: [(.smtpd, "relay-from")], default: "none",
            "Clients that may send mail to anywhere."),

        SettingKey(
            "smtp.size-max", .size(65_536...(1 << 40)), for: [(.smtpd, "size-max")], default: "50 MB",
            "The largest message that is taken."),
        SettingKey(
            "smtp.recipients-max", .integer(100...100_000), for: [(.smtpd, "recipients-max")], default: "1000",
            "Recipients of one message; those above it are asked to come again."),
        SettingKey(
            "smtp.line-length-max", .integer(1_000...1_000_000), for: [(.smtpd, "line-length-max")], default: "2048",
            "Octets of a line of content."),
        SettingKey(
            "smtp.errors-max", .integer(1...10_000), for: [(.smtpd, "errors-max")], default: "20",
            "After so many mistakes in one session the client is sent away."),
        SettingKey(
            "smtp.sessions-max", .integer(1...1_000_000), for: [(.smtpd, "sessions-max")], default: "10000",
            "Sessions of one process of apus-smtpd at once."),
        SettingKey(
            "smtp.sessions-per-client-max", .integer(1...1_000_000), for: [(.smtpd, "sessions-per-client-max")],
            default: "100", "Sessions of one client address at once, in one process of apus-smtpd."),
        SettingKey(
            "smtp.command-timeout", .duration(1...86_400), for: [(.smtpd, "command-timeout")], default: "5 min",
            "How long a session may be silent between commands (RFC 5321 §4.5.3.2.7)."),
        SettingKey(
            "smtp.data-timeout", .duration(1...86_400), for: [(.smtpd, "data-timeout")], default: "5 min",
            "How long a session may be silent within a message."),
        SettingKey(
            "smtpd.workers", .integer(1...64), default: "1",
            "Processes of apus-smtpd that share the listeners."),

        SettingKey(
            "local.mailbox", .mailbox, for: [(.local, "mailbox")], default: "maildir:~/Maildir",
            "Where a user's mail is put. `~/` is the user's home."),
        SettingKey(
            "local.aliases", .file, for: [(.lookup, "aliases")], default: "none",
            "The aliases, in the form of aliases(5)."),
        SettingKey(
            "local.recipient-delimiter", .text, for: [(.lookup, "recipient-delimiter")], default: "+",
            "What parts a user's name from what the user put behind it: `user+tag`."),

        SettingKey(
            "remote.smarthost", .nextHop, for: [(.lookup, "smarthost")], default: "none: MX look-up",
            "The host that all mail to other servers is handed to."),
        SettingKey(
            "remote.port", .integer(1...65_535), for: [(.remote, "port")], default: "25",
            "The port of the hosts that MX look-up finds."),
        SettingKey(
            "remote.connect-timeout", .duration(1...86_400), for: [(.remote, "connect-timeout")], default: "30 s",
            "How long a host may take to answer a connection."),
        SettingKey(
            "dns.resolvers", .resolver, .list, for: [(.remote, "resolver")], default: "those of /etc/resolv.conf",
            "The DNS resolvers to ask."),

        SettingKey(
            "queue.paused", .boolean, for: [(.queue, "paused")], default: "false",
            "Accept and keep, deliver nothing."),
        SettingKey(
            "queue.retry-min", .duration(1...Self.year), for: [(.queue, "retry-min")], default: "5 min",
            "The time from the first failed attempt to the second."),
        SettingKey(
            "queue.retry-max", .duration(1...Self.year), for: [(.queue, "retry-max")], default: "4 h",
            "The longest time between two attempts."),
        SettingKey(
            "queue.lifetime", .duration(1...Self.year), for: [(.queue, "lifetime")], default: "5 d",
            "After that time a message that cannot be delivered goes back to its sender."),
        SettingKey(
            "queue.destination-deliveries-max", .integer(1...10_000), for: [(.queue, "destination-deliveries-max")],
            default: "20", "Deliveries to one destination at once."),

        SettingKey(
            "programs.local", .text, .words, default: "apus-local",
            "Another program in the place of apus-local, with its arguments: the path first. It speaks the dialect "
                + "`deliver` on descriptors 0 and 1 (pipes.md)."),
        SettingKey(
            "programs.remote", .text, .words, default: "apus-remote", "Likewise in the place of apus-remote."),
        SettingKey(
            "programs.bounce", .text, .words, default: "apus-bounce", "Likewise in the place of apus-bounce."),

        SettingKey(
            "bounce.postmaster", .recipient, for: [(.bounce, "postmaster"), (.lookup, "postmaster")],
            default: "none", "Who is told of reports that cannot be sent."),

        SettingKey("tls", .later("TLS is not in this version yet"), .optional, "For a later version."),
        SettingKey("dkim", .later("DKIM is not in this version yet"), .optional, "For a later version."),
    ]

    /// The key of that path.
    static func key(_ path: String) -> SettingKey? { Self.keys.first { $0.path == path } }

    /// The tables that the keys stand in.
    static let tables: Set<String> = Set(Self.keys.map(\.table).filter { !$0.isEmpty })
}
