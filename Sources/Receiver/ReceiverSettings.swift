// SPDX-License-Identifier: Apache-2.0

import MailTypes
import NIOCore
import PipeCore
import SMTPCore
import SMTPDrivers
import TLSEngine
import Unix

/// What the administrator has decided, read and checked once; a session keeps the settings that it began with.
///
/// The names are those of `Documentation/settings-smtpd.md`.
final class ReceiverSettings: Sendable {
    let terms: ServerTerms
    /// For the programs of this machine.
    let localTerms: ServerTerms
    /// Of listeners for submission.
    let submissionTerms: ServerTerms
    /// Whether these may only send as the user that they run as.
    let localSendersAreOwn: Bool
    /// Whether From: and Sender: of a message for submission must have addresses of its user alone.
    let authorsAreOwn: Bool
    let relayNetworks: [Network]
    let sessionCountMax: Int
    let sessionCountPerClientMax: Int
    let stopTimeout: TimeAmount
    let minimumVersion: TLSVersion
    /// Clients with one of these may relay: SHA-256, in hexadecimal digits, small letters.
    let relayCertificates: Set<String>
    /// Only for a program that is run by hand; apusd hands certificates over.
    let certificates: [String]
    let authentication: AuthenticationDesk.Terms
    /// Only for a program that is run by hand; apusd hands listening sockets over.
    let listen: [ListenAddress]

    private static let names: Set<String> = [
        "hostname", "relay-from", "size-max", "recipients-max", "line-length-max", "command-length-max", "errors-max",
        "sessions-max", "sessions-per-client-max", "command-timeout", "data-timeout", "data-rate-min", "answer-timeout",
        "stop-timeout", "greeting-delay", "listen", "origin", "local-senders", "tls-minimum-version",
        "handshake-timeout", "relay-certificate", "certificate", "auth-loopback-without-tls",
        "auth-client-certificates", "auth-failure-delay", "auth-failures-per-session-max",
        "auth-failures-per-client-max", "auth-failures-per-user-max", "auth-failure-time",
        "client-address-in-received", "messages-per-hour-max", "recipients-per-hour-max",
        "bare-line-feed", "submission-from", "smtputf8",
    ]

    /// - Parameter isByHand: a name that we do not know is a slip then, and refused.
    init(_ table: SettingsTable, isByHand: Bool) throws(SettingsFault) {
        if isByHand, let name = table.unknownName(known: Self.names) {
            throw SettingsFault(name, "is not a setting of apus-smtpd")
        }
        let hostname = Array(try table.required("hostname").utf8)
        guard MailAddress.isDomain(hostname) else { throw SettingsFault("hostname", "must be a domain name") }
        let limits = ServerLimits(
            mailOctetCountMax: UInt64(
                try table.integer("size-max", in: 65_536...1_099_511_627_776, default: 104_857_600)),
            recipientCountMax: try table.integer("recipients-max", in: 1...100_000, default: 1_000),
            faultCountMax: try table.integer("errors-max", in: 1...100_000, default: 20),
            commandLineOctetCountMax: try table.integer("command-length-max", in: 512...65_536, default: 4_096),
            dataLineOctetCountMax: try table.integer("line-length-max", in: 998...1_073_741_824, default: 65_536))
        let offersUnicode = try table.boolean("smtputf8", default: true)
        self.terms = ServerTerms(
            rules: ServerRules(hostname: hostname, limits: limits, offersUnicode: offersUnicode),
            commandTimeout: try Self.time(table, "command-timeout", in: 1...86_400, default: 300),
            dataTimeout: try Self.time(table, "data-timeout", in: 1...86_400, default: 300),
            contentRateMin: try table.integer("data-rate-min", in: 0...1_000_000, default: 500),
            answerTimeout: try Self.time(table, "answer-timeout", in: 1...3_600, default: 120),
            greetingDelay: try Self.time(table, "greeting-delay", in: 0...60, default: 0),
            handshakeTimeout: try Self.time(table, "handshake-timeout", in: 1...3_600, default: 60))
        guard let version = TLSVersion(rawValue: table.text("tls-minimum-version", default: "1.2")) else {
            throw SettingsFault("tls-minimum-version", "must be 1.2 or 1.3")
        }
        self.minimumVersion = version
        self.relayCertificates = Set(table.texts("relay-certificate"))
        self.certificates = table.texts("certificate")
        let origin = Array(table.text("origin", default: table.text("hostname", default: "")).utf8)
        guard MailAddress.isDomain(origin) else { throw SettingsFault("origin", "must be a domain name") }
        var localLimits = limits
        localLimits.recipientCountMax = max(limits.recipientCountMax, ServerLimits.localRecipientCountMax)
        self.localTerms = self.terms.with(
            ServerRules(hostname: hostname, limits: localLimits, origin: origin, offersUnicode: offersUnicode),
            greetingDelay: .zero)
        let bareLineFeed = table.text("bare-line-feed", default: "refuse")
        guard ["refuse", "repair"].contains(bareLineFeed) else {
            throw SettingsFault("bare-line-feed", "must be refuse or repair")
        }
        self.submissionTerms = self.terms.with(
            ServerRules(
                hostname: hostname, limits: limits, repairsBareLineFeeds: bareLineFeed == "repair",
                offersUnicode: offersUnicode))
        let senders = table.text("local-senders", default: "any")
        guard ["any", "own"].contains(senders) else { throw SettingsFault("local-senders", "must be any or own") }
        self.localSendersAreOwn = senders == "own"
        let authors = table.text("submission-from", default: "any")
        guard ["any", "own"].contains(authors) else { throw SettingsFault("submission-from", "must be any or own") }
        self.authorsAreOwn = authors == "own"
        self.authentication = try Self.authentication(table)
        self.stopTimeout = try Self.time(table, "stop-timeout", in: 0...3_600, default: 30)
        self.relayNetworks = try table.values("relay-from", "a network such as 192.0.2.0/24") { Network(text: $0) }
        self.sessionCountMax = try table.integer("sessions-max", in: 1...1_000_000, default: 10_000)
        self.sessionCountPerClientMax = try table.integer("sessions-per-client-max", in: 1...1_000_000, default: 50)
        self.listen = try table.values("listen", "ADDRESS:PORT ROLE TLS") { ListenAddress($0) }
    }

    /// What sessions of a listener with this role are held to.
    func terms(role: String) -> ServerTerms {
        switch role {
        case "local": self.localTerms
        case "submission": self.submissionTerms
        default: self.terms
        }
    }

    private static func authentication(_ table: SettingsTable) throws(SettingsFault) -> AuthenticationDesk.Terms {
        var terms = AuthenticationDesk.Terms()
        terms.loopbackWithoutTLS = try table.boolean("auth-loopback-without-tls", default: false)
        terms.failureDelay = try Self.time(table, "auth-failure-delay", in: 0...60, default: 2)
        terms.failureCountPerSessionMax = try table.integer("auth-failures-per-session-max", in: 1...100, default: 3)
        terms.failureCountPerClientMax = try table.integer("auth-failures-per-client-max", in: 1...100_000, default: 10)
        terms.failureCountPerUserMax = try table.integer("auth-failures-per-user-max", in: 1...100_000, default: 50)
        terms.failureSpan = try table.duration("auth-failure-time", in: 1...604_800, default: .seconds(600))
        terms.asksForCertificate = try table.boolean("auth-client-certificates", default: false)
        terms.tellsClientAddress = try table.boolean("client-address-in-received", default: true)
        if table.text("messages-per-hour-max") != nil {
            terms.messageCountPerHourMax = try table.integer("messages-per-hour-max", in: 1...1_000_000, default: 1)
        }
        if table.text("recipients-per-hour-max") != nil {
            terms.recipientCountPerHourMax = try table.integer(
                "recipients-per-hour-max", in: 1...10_000_000, default: 1)
        }
        return terms
    }

    private static func time(
        _ table: SettingsTable, _ name: String, in range: ClosedRange<Int>, default value: Int
    ) throws(SettingsFault) -> TimeAmount {
        .seconds(Int64(try table.integer(name, in: range, default: value)))
    }

    func mayRelay(_ client: IPAddress) -> Bool { self.relayNetworks.contains { $0.contains(client) } }
}

/// `127.0.0.1:2525 mx` or `[::1]:2465 submission implicit`; the role may be left out and is mx then, and what it does
/// about TLS, which is offer then.
struct ListenAddress: Sendable {
    let address: SocketAddress
    /// As it was written, for the log.
    let text: String
    let role: String
    let tls: ListenerTLS

    init?(_ text: String) {
        let words = text.split(separator: " ")
        guard (1...3).contains(words.count), let colon = words[0].lastIndex(of: ":"),
            let port = UInt16(words[0][words[0].index(after: colon)...])
        else { return nil }
        var host = words[0][..<colon]
        if host.first == "[", host.last == "]" { host = host.dropFirst().dropLast() }
        let role = words.count > 1 ? String(words[1]) : "mx"
        guard let tls = ListenerTLS(rawValue: words.count > 2 ? String(words[2]) : "offer"),
            ["mx", "submission"].contains(role), IPAddress(text: String(host)) != nil,
            let address = try? SocketAddress(ipAddress: String(host), port: Int(port))
        else { return nil }
        self.address = address
        self.text = String(words[0])
        self.role = role
        self.tls = tls
    }
}
