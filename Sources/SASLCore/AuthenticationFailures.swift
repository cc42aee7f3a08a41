// SPDX-License-Identifier: Apache-2.0

package import MailTypes

/// How often something has happened lately, for each of many keys, in bounded memory.
///
/// The time of a key begins with its first count and ends all at once: nobody can keep a count alive by trying on.
package struct RecentCounts<Key: Hashable & Sendable>: Sendable {
    private struct Record {
        var count: Int
        let begin: Duration
    }

    private var records: [Key: Record] = [:]
    private let keyCountMax: Int
    /// How long is lately.
    package var span: Duration

    package init(span: Duration, keyCountMax: Int) {
        precondition(keyCountMax > 0)
        self.span = span
        self.keyCountMax = keyCountMax
    }

    package var keyCount: Int { self.records.count }

    package func count(of key: Key, now: Duration) -> Int {
        guard let record = self.records[key], now - record.begin < self.span else { return 0 }
        return record.count
    }

    package mutating func add(_ amount: Int = 1, to key: Key, now: Duration) {
        let count = self.count(of: key, now: now)
        guard count == 0 else {
            // Above what any limit can be, nothing need be told apart.
            self.records[key]?.count = min(count, 1 << 30) + amount
            return
        }
        if self.records[key] == nil, self.records.count >= self.keyCountMax { self.makeRoom(now: now) }
        self.records[key] = Record(count: amount, begin: now)
    }

    package mutating func forget(_ key: Key) { self.records[key] = nil }

    /// Drops what is over, and if that is little, the older half. So many keys do not come of mistyped passwords, and
    /// to be forgotten costs an attacker who has them as many attempts again.
    private mutating func makeRoom(now: Duration) {
        self.records = self.records.filter { now - $0.value.begin < self.span }
        guard self.records.count > self.keyCountMax * 3 / 4 else { return }
        let begins = self.records.values.map(\.begin).sorted()
        let middle = begins[begins.count / 2]
        self.records = self.records.filter { $0.value.begin > middle }
        if self.records.count >= self.keyCountMax { self.records.removeAll() }
    }
}

/// Counts failures to authenticate, and says who has to wait.
///
/// Per client, against guessing; per user, against many clients that guess together. The latter must not keep the user
/// himself out: who has got in as him before from where he is now is asked anew.
package struct AuthenticationFailures: Sendable {
    private struct Visit: Hashable {
        let user: [UInt8]
        let client: IPAddress
    }

    package var clientCountMax: Int
    package var userCountMax: Int
    private var clients: RecentCounts<IPAddress>
    private var users: RecentCounts<[UInt8]>
    private var visits: RecentCounts<Visit>
    /// Exchanges that have begun and not ended, by client. As many as whoever counts lets be open at once.
    private var openCounts = OpenCounts<IPAddress>()

    private static let visitSpan = Duration.seconds(30 * 86_400)

    package init(clientCountMax: Int, userCountMax: Int, span: Duration, keyCountMax: Int = 20_000) {
        self.clientCountMax = clientCountMax
        self.userCountMax = userCountMax
        self.clients = RecentCounts(span: span, keyCountMax: keyCountMax)
        self.users = RecentCounts(span: span, keyCountMax: keyCountMax)
        self.visits = RecentCounts(span: Self.visitSpan, keyCountMax: keyCountMax)
    }

    package var span: Duration {
        get { self.clients.span }
        set {
            self.clients.span = newValue
            self.users.span = newValue
        }
    }

    /// A client of IPv6 commonly has a whole /64 to itself.
    private static func origin(_ client: IPAddress) -> IPAddress {
        switch client {
        case .v4: client
        case .v6(let high, _): IPAddress(high: high, low: 0)
        }
    }

    /// Whether the client has to wait, whoever it wants to be.
    package func isBlocked(_ client: IPAddress, now: Duration) -> Bool {
        self.clients.count(of: Self.origin(client), now: now) >= self.clientCountMax
    }

    /// Whether the client cannot be this user now.
    package func isBlocked(_ client: IPAddress, user: [UInt8], now: Duration) -> Bool {
        self.users.count(of: user, now: now) >= self.userCountMax
            && self.visits.count(of: Visit(user: user, client: Self.origin(client)), now: now) == 0
    }

    /// Whether a client may begin another exchange: not if those that it has open could be all the failures that it has
    /// left. Else as many guesses as fit side by side would be made before the first of them counts.
    package func hasRoom(_ client: IPAddress, now: Duration) -> Bool {
        let origin = Self.origin(client)
        return self.clients.count(of: origin, now: now) + self.openCounts[origin] < self.clientCountMax
    }

    package mutating func noteBegin(_ client: IPAddress) { self.openCounts.open(Self.origin(client)) }

    /// However it has ended; a failure is to be noted as well.
    package mutating func noteEnd(_ client: IPAddress) { self.openCounts.close(Self.origin(client)) }

    /// - Parameter user: as far as it is known whom the client wanted to be.
    package mutating func noteFailure(_ client: IPAddress, user: [UInt8]?, now: Duration) {
        self.clients.add(to: Self.origin(client), now: now)
        if let user { self.users.add(to: user, now: now) }
    }

    package mutating func noteSuccess(_ client: IPAddress, user: [UInt8], now: Duration) {
        let visit = Visit(user: user, client: Self.origin(client))
        self.visits.forget(visit)
        self.visits.add(to: visit, now: now)
    }
}
