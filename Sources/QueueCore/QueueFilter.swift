// SPDX-License-Identifier: Apache-2.0
//
// Which messages and recipients an operator means.

package import MailTypes

/// A condition on messages and on each of their recipients.
///
/// Terms of one name are alternatives, terms of different names must all hold: `to` A, `to` B, `status` `held` is
/// what is held for A or for B. A filter without terms matches everything. `from` and `older` are about messages, the
/// others about recipients; a message matches if it does itself and at least one of its recipients does.
package struct QueueFilter: Hashable, Sendable {
    /// The recipients' addresses, as they are now or as the client gave them.
    package private(set) var to: [AddressPattern] = []
    package private(set) var from: [AddressPattern] = []
    package private(set) var destinations: [DestinationPattern] = []
    /// Messages that arrived longer ago than this.
    package private(set) var age: Duration?
    package private(set) var statuses: Set<StatusPattern> = []

    /// No filter has more terms.
    package static let termCountMax = 1_000

    /// What is wrong with a term.
    package struct Fault: Error, Equatable, Sendable {
        package let text: String

        package init(_ text: String) { self.text = text }
    }

    /// What `status` can be: a recipient's status, or `deferred` for what is queued and was tried.
    package enum StatusPattern: Hashable, Sendable {
        case status(RecipientStatus)
        case deferred
    }

    package init() {}

    package var isEmpty: Bool { self == QueueFilter() }

    /// Whether it looks at recipients, so that of one message some can match and others not.
    package var concernsRecipients: Bool {
        !self.to.isEmpty || !self.destinations.isEmpty || !self.statuses.isEmpty
    }

    private var termCount: Int {
        self.to.count + self.from.count + self.destinations.count + self.statuses.count + (self.age == nil ? 0 : 1)
    }

    /// Adds a term: `to`, `from`, `destination`, `older` (in seconds) or `status`.
    package mutating func add(_ name: ArraySlice<UInt8>, _ value: ArraySlice<UInt8>) throws(Fault) {
        guard self.termCount < Self.termCountMax else { throw Fault("a filter has at most \(Self.termCountMax) terms") }
        let shown = value.printableText
        if name.elementsEqual("to".utf8) {
            guard let pattern = AddressPattern(value), pattern != .null else { throw Fault(Self.address(shown)) }
            self.to.append(pattern)
        } else if name.elementsEqual("from".utf8) {
            guard let pattern = AddressPattern(value) else { throw Fault(Self.address(shown)) }
            self.from.append(pattern)
        } else if name.elementsEqual("destination".utf8) {
            guard let pattern = DestinationPattern(value) else {
                throw Fault("\"\(shown)\" is no destination: write a domain, or a route as the list shows it")
            }
            self.destinations.append(pattern)
        } else if name.elementsEqual("older".utf8) {
            guard let seconds = value.decimal(limit: 1 << 40) else {
                throw Fault("\"\(shown)\" is no number of seconds")
            }
            // Several: the oldest counts, as both must hold.
            self.age = max(self.age ?? .zero, .seconds(Int64(seconds)))
        } else if name.elementsEqual("status".utf8) {
            self.statuses.insert(try Self.status(value))
        } else {
            throw Fault("\"\(name.printableText)\" is nothing that can be filtered by")
        }
    }

    private static func address(_ shown: String) -> String {
        "\"\(shown)\" is no address: write user@example.org, @example.org or a pattern with *"
    }

    private static func status(_ value: ArraySlice<UInt8>) throws(Fault) -> StatusPattern {
        if value.elementsEqual("deferred".utf8) { return .deferred }
        guard let status = RecipientStatus.allCases.first(where: { $0.rawValue.utf8.elementsEqual(value) }) else {
            throw Fault(
                "\"\(value.printableText)\" is no status: queued, deferred, delivering, held, failed or reporting")
        }
        return .status(status)
    }

    // MARK: - Matching

    /// Whether a message matches, whatever its recipients are.
    package func matches(_ message: MessageRecord, now: Timestamp) -> Bool {
        if let age, now.elapsed(since: message.arrival) <= age { return false }
        return self.from.isEmpty || self.from.contains { $0.matches(message.reversePath) }
    }

    /// Whether a recipient matches, whatever its message is.
    package func matches(_ recipient: RecipientRecord, isUnderWay: @autoclosure () -> Bool) -> Bool {
        guard self.to.isEmpty || self.to.contains(where: { $0.matches(recipient) }),
            self.destinations.isEmpty || self.destinations.contains(where: { $0.matches(recipient) })
        else { return false }
        guard !self.statuses.isEmpty else { return true }
        let status = RecipientStatus(recipient, isUnderWay: isUnderWay())
        return self.statuses.contains(.status(status))
            || status == .queued && recipient.attemptCount > 0 && self.statuses.contains(.deferred)
    }
}

/// An address or many, without regard to case.
package enum AddressPattern: Hashable, Sendable {
    /// The null reverse-path, `<>`.
    case null
    /// In lower case.
    case exact([UInt8])
    /// Every address of a domain; in lower case.
    case domain([UInt8])
    /// `*` stands for any octets, or none; in lower case.
    case glob([UInt8])

    /// Reads `user@example.org`, `@example.org`, a pattern with `*`, `<>`, or `postmaster`; each may be in brackets.
    package init?(_ octets: ArraySlice<UInt8>) {
        var octets = octets
        if octets.first == ASCII.less, octets.last == ASCII.greater, octets.count >= 2 {
            octets = octets.dropFirst().dropLast()
            if octets.isEmpty {
                self = .null
                return
            }
        }
        guard let first = octets.first, octets.count <= 600,
            octets.allSatisfy({ $0.isPrintable || $0 >= 0x80 }), octets.isAddressText
        else { return nil }
        let lower = octets.lowercasedOctets
        if octets.contains(Self.star) {
            self = .glob(lower)
        } else if first == ASCII.at {
            guard MailAddress.isDomain(Array(lower.dropFirst())) else { return nil }
            self = .domain(Array(lower.dropFirst()))
        } else {
            guard ForwardPath(octets: lower, alphabet: .unicodeLocalPart) != nil else { return nil }
            self = .exact(lower)
        }
    }

    fileprivate static let star: UInt8 = 0x2A

    func matches(_ recipient: RecipientRecord) -> Bool {
        self.matches(recipient.forwardPath.octets) || recipient.originalPath.map { self.matches($0.octets) } ?? false
    }

    func matches(_ path: ReversePath) -> Bool { self.matches(path.octets) }

    private func matches(_ octets: [UInt8]) -> Bool {
        switch self {
        case .null: octets.isEmpty
        case .exact(let address): octets.equalsIgnoringCase(address)
        case .domain(let domain):
            octets.count > domain.count && octets[octets.count - domain.count - 1] == ASCII.at
                && octets.suffix(domain.count).equalsIgnoringCase(domain)
        case .glob(let pattern): Self.matches(octets.lowercasedOctets, pattern)
        }
    }

    /// Whether a text is what a pattern says: its time is at most the product of their lengths.
    static func matches(_ text: [UInt8], _ pattern: [UInt8]) -> Bool {
        var place = 0
        var index = 0
        /// Behind the last star, and where in the text what it stands for ends so far.
        var retry: (index: Int, place: Int)?
        while place < text.count {
            if index < pattern.count, pattern[index] == Self.star {
                index += 1
                retry = (index, place)
            } else if index < pattern.count, pattern[index] == text[place] {
                index += 1
                place += 1
            } else if let last = retry {
                index = last.index
                place = last.place + 1
                retry = (index, place)
            } else {
                return false
            }
        }
        return pattern[index...].allSatisfy { $0 == Self.star }
    }
}

/// Where recipients go: a route as lists show it, or a next hop by its name alone.
package enum DestinationPattern: Hashable, Sendable {
    case route(Route)
    /// Of any port unless one is given; `example.org` is also `[example.org]`.
    case nextHop(NextHop)
    /// `*.example.org`: all domains and hosts below.
    case domains(DomainPattern)

    package init?(_ octets: ArraySlice<UInt8>) {
        if let route = Route(octets: octets) {
            self = .route(route)
        } else if let nextHop = NextHop(octets: octets) {
            self = .nextHop(nextHop)
        } else if octets.first == AddressPattern.star, let domains = DomainPattern(octets: octets) {
            self = .domains(domains)
        } else {
            return nil
        }
    }

    func matches(_ recipient: RecipientRecord) -> Bool {
        switch self {
        // Of a failed recipient the route is what it was, and its destination the bounce agent.
        case .route(let route): return recipient.destination == route
        case .domains(let domains):
            guard case .remote(let found) = recipient.destination else { return false }
            return domains.matches(found)
        case .nextHop(let wanted):
            guard case .remote(let found) = recipient.destination else { return false }
            if let port = wanted.port, port != found.port { return false }
            switch (wanted.target, found.target) {
            case (.domain(let one), .host(let other)): return one == other
            case (let one, let other): return one == other
            }
        }
    }
}
