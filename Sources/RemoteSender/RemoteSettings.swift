// SPDX-License-Identifier: Apache-2.0

import DNSCore
import Glibc
import MailTypes
import PipeCore
import SMTPCore
import SMTPDrivers
import Unix

/// The settings of apus-remote, read and checked (`Documentation/settings-remote.md`).
struct RemoteSettings: Sendable {
    let helloName: [UInt8]
    let port: UInt16
    let families: MailExchangers.FamilyChoice
    let ourselves: MailExchangers.Ourselves
    let exchangerLimits: MailExchangers.Limits
    let resolvers: [ResolverAddress]
    let resolverLimits: StubResolver.Limits
    let timeLimits: ClientTimeLimits
    let deliveryCountMax: Int
    let connectionCountMax: Int
    let idleConnectionCountMax: Int
    private let messagesPerConnectionMax: Int
    /// The file of the authorities that are believed.
    let authorities: String
    private let destinations: DestinationTable

    /// The largest number of recipients of one delivery; the queue sends far fewer.
    static let recipientCountMax = 10_000
    /// What one reply of a server may take.
    static let replyLimits = ReplyParser.Limits(lineOctetCountMax: 4_096, lineCountMax: 200, textOctetCountMax: 8_192)

    private static let names: Set<String> = [
        "hostname", "port", "address-family", "own-address", "hosts-max", "addresses-max", "resolver", "resolver-file",
        "dns-timeout", "dns-attempts", "dns-questions-max", "dns-cache-entries", "dns-cache-time-max",
        "deliveries-max", "connections-max", "idle-connections-max", "messages-per-connection-max", "connect-timeout",
        "greeting-timeout", "hello-timeout", "mail-timeout", "recipient-timeout", "data-timeout", "content-timeout",
        "final-reply-timeout", "idle-connection-timeout", "quit-timeout", "destination", "tls", "ca-file",
    ]

    /// Reads the settings, and the resolver file if they name no resolvers.
    init(_ table: SettingsTable) throws(SettingsFault) {
        if let name = table.unknownName(known: Self.names) {
            throw SettingsFault(name, "is not a setting of apus-remote")
        }
        let name = Array(try table.required("hostname").utf8)
        guard MailAddress.isDomain(name) else {
            throw SettingsFault("hostname", "must be a domain name or an address literal such as [192.0.2.1]")
        }
        self.helloName = name
        self.port = UInt16(truncatingIfNeeded: try table.integer("port", in: 1...65_535, default: 25))
        let family = table.text("address-family", default: MailExchangers.FamilyChoice.ipv6First.rawValue)
        guard let families = MailExchangers.FamilyChoice(rawValue: family) else {
            throw SettingsFault("address-family", "must be ipv6-first, ipv4-first, ipv6-only or ipv4-only")
        }
        self.families = families
        self.ourselves = MailExchangers.Ourselves(
            name: DNSName(octets: name),
            addresses: Set(try table.values("own-address", "an IP address") { IPAddress(text: $0) }))
        self.exchangerLimits = MailExchangers.Limits(
            hostCountMax: try table.integer("hosts-max", in: 1...100, default: 10),
            candidateCountMax: try table.integer("addresses-max", in: 1...100, default: 10))
        self.resolvers = try Self.resolvers(table)
        self.resolverLimits = StubResolver.Limits(
            roundCountMax: try table.integer("dns-attempts", in: 1...10, default: 3),
            attemptTime: try table.duration("dns-timeout", in: 1...60, default: .seconds(2)),
            questionCountMax: try table.integer("dns-questions-max", in: 1...100_000, default: 10_000),
            aliasCountMax: 8, recordCountMax: 500, portCount: 32,
            cacheEntryCountMax: try table.integer("dns-cache-entries", in: 0...1_000_000, default: 20_000),
            cacheLifetimeMax: try table.duration("dns-cache-time-max", in: 0...604_800, default: .seconds(86_400)))
        self.timeLimits = try Self.timeLimits(table)
        self.deliveryCountMax = try table.integer("deliveries-max", in: 1...100_000, default: 5_000)
        self.connectionCountMax = try table.integer("connections-max", in: 1...100_000, default: 4_000)
        self.idleConnectionCountMax = try table.integer("idle-connections-max", in: 0...100_000, default: 500)
        self.messagesPerConnectionMax = try table.integer(
            "messages-per-connection-max", in: 1...1_000_000, default: 200)
        self.destinations = try DestinationTable(table, tlsName: "tls")
        self.authorities = table.text("ca-file", default: "/etc/ssl/certs/ca-certificates.crt")
    }

    /// What is asked of the hosts of this next hop.
    func tls(_ nextHop: NextHop) -> TLSDemand { self.destinations.tls(nextHop) }

    /// As whom we authenticate ourselves to the hosts of this next hop; nil: we do not.
    func user(_ nextHop: NextHop) -> [UInt8]? { self.destinations.setting(nextHop)?.user }

    /// Messages on one connection to this next hop.
    func messagesPerConnectionMax(_ nextHop: NextHop) -> Int {
        self.destinations.setting(nextHop)?.numbers["messages-per-connection-max"] ?? self.messagesPerConnectionMax
    }

    private static func resolvers(_ table: SettingsTable) throws(SettingsFault) -> [ResolverAddress] {
        let named = try table.values("resolver", "an address such as 127.0.0.1 or 127.0.0.1:5353") {
            ResolverAddress(octets: Array($0.utf8))
        }
        guard named.isEmpty else {
            guard named.count <= 16 else { throw SettingsFault("resolver", "must be at most 16") }
            return named
        }
        let path = table.text("resolver-file", default: "/etc/resolv.conf")
        do throws(SystemError) {
            return ResolverAddress.list(
                resolverFile: try Descriptor.readFile(path, octetCountMax: 65_536), countMax: 16)
        } catch {
            // Without the file there is one on this machine, as resolv.conf(5) has it.
            guard error.code == ENOENT else { throw SettingsFault("resolver-file", error.text) }
            return ResolverAddress.list(resolverFile: [], countMax: 16)
        }
    }

    private static func timeLimits(_ table: SettingsTable) throws(SettingsFault) -> ClientTimeLimits {
        let range = 1...86_400
        return ClientTimeLimits(
            connection: try table.duration("connect-timeout", in: range, default: .seconds(30)),
            greeting: try table.duration("greeting-timeout", in: range, default: .seconds(300)),
            hello: try table.duration("hello-timeout", in: range, default: .seconds(300)),
            mail: try table.duration("mail-timeout", in: range, default: .seconds(300)),
            recipient: try table.duration("recipient-timeout", in: range, default: .seconds(300)),
            data: try table.duration("data-timeout", in: range, default: .seconds(120)),
            content: try table.duration("content-timeout", in: range, default: .seconds(180)),
            finalReply: try table.duration("final-reply-timeout", in: range, default: .seconds(600)),
            idle: try table.duration("idle-connection-timeout", in: 0...600, default: .seconds(5)),
            quit: try table.duration("quit-timeout", in: 1...60, default: .seconds(5)))
    }
}
