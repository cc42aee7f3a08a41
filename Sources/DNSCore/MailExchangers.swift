// SPDX-License-Identifier: Apache-2.0
//
// From the next hop of a message to the addresses to connect to, one after the other (RFC 5321 §5.1).

package import MailTypes

/// Finds the hosts that take the mail of one next hop, and offers their addresses in the order to be tried.
///
/// One value serves one delivery. After `.ask` the driver feeds each answer; after `.connect` it comes back with
/// `candidateFailed` if that server did not settle everything, and the next one is offered.
package struct MailExchangers: Sendable {
    /// Which addresses of a host are used, and which first.
    package enum FamilyChoice: String, Hashable, Sendable, CaseIterable {
        case ipv6First = "ipv6-first"
        case ipv4First = "ipv4-first"
        case ipv6Only = "ipv6-only"
        case ipv4Only = "ipv4-only"

        var types: [DNSType] {
            switch self {
            case .ipv6First: [.aaaa, .a]
            case .ipv4First: [.a, .aaaa]
            case .ipv6Only: [.aaaa]
            case .ipv4Only: [.a]
            }
        }
    }

    package struct Limits: Hashable, Sendable {
        /// Hosts of a domain that are considered; those of worse preference are left out.
        package var hostCountMax: Int
        /// Addresses that are tried in all before the delivery is put off.
        package var candidateCountMax: Int

        package init(hostCountMax: Int, candidateCountMax: Int) {
            self.hostCountMax = hostCountMax
            self.candidateCountMax = candidateCountMax
        }
    }

    /// Who we are, so that mail does not go in circles.
    package struct Ourselves: Hashable, Sendable {
        package var name: DNSName?
        package var addresses: Set<IPAddress>

        package init(name: DNSName?, addresses: Set<IPAddress>) {
            self.name = name
            self.addresses = addresses
        }
    }

    /// A server to connect to.
    package struct Candidate: Hashable, Sendable {
        /// Without a final dot; empty if the next hop is an address.
        package let name: [UInt8]
        package let address: IPAddress
        package let port: UInt16
        /// The path of a socket of this machine instead; the address is the loopback's then.
        package let socket: [UInt8]?

        package init(name: [UInt8], address: IPAddress, port: UInt16) {
            self.name = name
            self.address = address
            self.port = port
            self.socket = nil
        }

        package init(socket: [UInt8]) {
            self.name = []
            self.address = .v4(0x7F00_0001)
            self.port = 0
            self.socket = socket
        }

        /// `mx.example.org[192.0.2.1]`, with `:PORT` behind it unless that is 25: how logs and reports name it.
        package var octets: [UInt8] {
            if let socket { return socket }
            var octets = self.name
            octets.append(0x5B)
            octets += self.address.octets
            octets.append(0x5D)
            if self.port != 25 {
                octets.append(ASCII.colon)
                octets.append(decimal: self.port)
            }
            return octets
        }
    }

    package enum Event: Hashable, Sendable {
        case begun
        /// An answer that was asked for.
        case answered(DNSQuestion, DNSAnswer)
        /// The candidate settled not all; what is to be said if it was the last.
        case candidateFailed(DeliveryOutcome)
    }

    package enum Action: Hashable, Sendable {
        /// More answers are under way.
        case wait
        case ask([DNSQuestion])
        case connect(Candidate)
        /// There is nobody (else) to try; this is what becomes of the recipients.
        case end(DeliveryOutcome)
    }

    private enum Phase: Hashable, Sendable {
        case fresh
        case askingExchangers
        case askingAddresses
        case offering
        case ended
    }

    private let nextHop: NextHop
    private let port: UInt16
    private let families: FamilyChoice
    private let ourselves: Ourselves
    private let limits: Limits

    private var phase = Phase.fresh
    /// Those not looked at yet, the next one last.
    private var hosts: [DNSName] = []
    private var isByMX = false
    private var host: DNSName?
    private var answers: [DNSType: DNSAnswer] = [:]
    /// Those not tried yet, the next one last.
    private var candidates: [Candidate] = []
    private var candidateCount = 0
    /// What the hosts so far have come to. One that may do better later outweighs those that never will.
    private var failure: DeliveryOutcome?

    /// - Parameter port: where the next hop names none.
    package init(
        nextHop: NextHop, port: UInt16, families: FamilyChoice, ourselves: Ourselves, limits: Limits
    ) {
        self.nextHop = nextHop
        self.port = nextHop.port ?? (nextHop.isLMTP ? 24 : port)
        self.families = families
        self.ourselves = ourselves
        self.limits = limits
    }

    /// Whether an answer to a question is waited for.
    package var isAsking: Bool { self.phase == .askingExchangers || self.phase == .askingAddresses }

    /// - Parameter random: shuffles hosts of equal preference.
    package mutating func receive(_ event: Event, random: inout some RandomNumberGenerator) -> Action {
        switch event {
        case .begun:
            guard self.phase == .fresh else { return .wait }
            return self.begin()
        case .answered(let question, let answer):
            switch self.phase {
            case .askingExchangers:
                guard question.type == .mx else { return .wait }
                return self.takeExchangers(question.name, answer, random: &random)
            case .askingAddresses:
                guard question.name == self.host, self.families.types.contains(question.type) else { return .wait }
                self.answers[question.type] = answer
                guard self.answers.count == self.families.types.count else { return .wait }
                return self.takeAddresses(of: question.name)
            case .fresh, .offering, .ended:
                return .wait
            }
        case .candidateFailed(let outcome):
            guard self.phase == .offering else { return .wait }
            self.note(outcome)
            return self.offer()
        }
    }

    private mutating func begin() -> Action {
        switch self.nextHop.target {
        case .address(let address):
            guard !self.isUs([address]) else {
                return self.end(Self.loop("[\(String(decoding: address.octets, as: UTF8.self))]"))
            }
            self.candidates = [Candidate(name: [], address: address, port: self.port)]
            return self.offer()
        case .socket(let path):
            self.candidates = [Candidate(socket: path)]
            return self.offer()
        case .host(let octets):
            guard let name = DNSName(octets: octets) else { return self.end(Self.badName) }
            self.hosts = [name]
            return self.nextHost()
        case .domain(let octets):
            guard let name = DNSName(octets: octets) else { return self.end(Self.badName) }
            guard !name.isLocalhost else {
                self.hosts = [name]
                return self.nextHost()
            }
            self.phase = .askingExchangers
            return .ask([DNSQuestion(name, .mx)])
        }
    }

    private mutating func takeExchangers(
        _ domain: DNSName, _ answer: DNSAnswer, random: inout some RandomNumberGenerator
    ) -> Action {
        switch answer {
        case .noSuchName:
            return self.end(Self.failed(0, 1, 2, "The domain \(domain.text) does not exist"))
        case .later(let trouble):
            return self.end(
                Self.deferred("The mail exchangers of \(domain.text) cannot be told now: \(trouble.rawValue)"))
        case .none:
            // The implicit MX record: the domain itself.
            guard domain != self.ourselves.name else { return self.end(Self.loop(domain.text)) }
            self.hosts = [domain]
            return self.nextHost()
        case .values(let values, _):
            var records: [(preference: UInt16, exchange: DNSName)] = []
            for case .mx(let preference, let exchange) in values { records.append((preference, exchange)) }
            // A null MX stands alone (RFC 7505 §3); beside others it is noise.
            if !records.isEmpty, records.allSatisfy({ $0.exchange.isRoot }) {
                return self.end(Self.failed(556, 1, 10, "The domain \(domain.text) accepts no mail (null MX)"))
            }
            records.removeAll { !$0.exchange.isHostName }
            guard !records.isEmpty else {
                return self.end(Self.failed(0, 4, 4, "No mail exchanger of \(domain.text) has a usable name"))
            }
            // Ourselves, and those that would give it to us, are left out.
            if let own = records.filter({ $0.exchange == self.ourselves.name }).map(\.preference).min() {
                records.removeAll { $0.preference >= own }
            }
            guard !records.isEmpty else { return self.end(Self.loop(domain.text)) }
            records.shuffle(using: &random)
            // Why by offset: sort(by:) promises no stability, and equal preferences must stay shuffled.
            let sorted = records.enumerated().sorted {
                ($0.element.preference, $0.offset) < ($1.element.preference, $1.offset)
            }
            self.hosts = sorted.prefix(self.limits.hostCountMax).map(\.element.exchange).reversed()
            self.isByMX = true
            return self.nextHost()
        }
    }

    private mutating func nextHost() -> Action {
        guard self.candidateCount < self.limits.candidateCountMax, let host = self.hosts.popLast() else {
            return self.end(
                self.failure ?? Self.failed(0, 4, 4, "No host to deliver to was found"))
        }
        self.host = host
        self.answers = [:]
        if host.isLocalhost {
            self.answers[.a] = .values([.address(.v4(0x7F00_0001))], isAuthentic: true)
            self.answers[.aaaa] = .values([.address(.v6(0, 1))], isAuthentic: true)
            return self.takeAddresses(of: host)
        }
        self.phase = .askingAddresses
        return .ask(self.families.types.map { DNSQuestion(host, $0) })
    }

    private mutating func takeAddresses(of host: DNSName) -> Action {
        var addresses: [IPAddress] = []
        var trouble: DNSTrouble?
        for type in self.families.types {
            switch self.answers[type] {
            case .values(let values, _)?:
                for case .address(let address) in values where !address.isUnspecified { addresses.append(address) }
            case .later(let reason)?: trouble = reason
            case nil, .some(.none), .noSuchName?: break
            }
        }
        if self.isUs(addresses) {
            // This host and all behind it would only send the message back to us.
            self.hosts = []
            self.note(Self.loop(host.text))
            return self.nextHost()
        }
        guard !addresses.isEmpty else {
            if let trouble {
                self.note(Self.deferred("The address of \(host.text) cannot be told now: \(trouble.rawValue)"))
            } else if self.isByMX {
                self.note(Self.failed(0, 4, 4, "The mail exchanger \(host.text) has no address"))
            } else {
                self.note(Self.failed(0, 1, 2, "\(host.text) has neither a mail exchanger nor an address"))
            }
            return self.nextHost()
        }
        let name = host.octets
        self.candidates = addresses.reversed().map { Candidate(name: name, address: $0, port: self.port) }
        return self.offer()
    }

    /// Whether one of the addresses that a recipient's domain led to, by MX records, by its own name or as a literal, is ours.
    /// The port of SMTP on this machine is ours too, whoever publishes that it is his (`MX 0 localhost.`); another port
    /// there may be somebody else's. A next hop with a port is the administrator's, and so is a host in brackets.
    private func isUs(_ addresses: [IPAddress]) -> Bool {
        // LMTP is spoken with a server of mailboxes, which may well be here.
        guard self.nextHop.port == nil, !self.nextHop.isLMTP else { return false }
        if case .host = self.nextHop.target { return false }
        let isOurPort = self.port == Self.smtpPort
        // Nor is an address at which another port is asked for.
        if case .address = self.nextHop.target, !isOurPort { return false }
        return addresses.contains {
            // To connect to 0.0.0.0 or :: is to connect to this machine.
            self.ourselves.addresses.contains($0) || isOurPort && ($0.isLoopback || $0.isUnspecified)
        }
    }

    private static let smtpPort: UInt16 = 25

    private mutating func offer() -> Action {
        guard self.candidateCount < self.limits.candidateCountMax, let candidate = self.candidates.popLast() else {
            return self.nextHost()
        }
        self.candidateCount += 1
        self.phase = .offering
        return .connect(candidate)
    }

    private mutating func note(_ outcome: DeliveryOutcome) {
        if let failure = self.failure, failure.kind == .deferred, outcome.kind != .deferred { return }
        self.failure = outcome
    }

    private mutating func end(_ outcome: DeliveryOutcome) -> Action {
        self.phase = .ended
        return .end(outcome)
    }

    private static func failed(_ code: UInt16, _ subject: UInt16, _ detail: UInt16, _ text: String) -> DeliveryOutcome {
        DeliveryOutcome(
            .failed, code: code, status: EnhancedStatus(.permanent, subject, detail), reporter: "apus-remote",
            text: text)
    }

    private static func deferred(_ text: String) -> DeliveryOutcome {
        DeliveryOutcome(
            .deferred, code: 0, status: EnhancedStatus(.transient, 4, 3), reporter: "apus-remote", text: text)
    }

    private static func loop(_ name: String) -> DeliveryOutcome {
        Self.failed(0, 4, 6, "Mail for \(name) loops back to myself")
    }

    private static var badName: DeliveryOutcome { Self.failed(0, 1, 2, "The next hop is no domain name") }
}
