// SPDX-License-Identifier: Apache-2.0

package import MailTypes
package import NIOCore

/// All connections of a process: how many there are, how many of each client, and which of them are late.
///
/// One coarse clock serves the timeouts of all: a connection notes the tick of its last octets, and each tick
/// looks at every connection once. That costs nothing per read, and less per second than a timer each
/// would, and no memory. A limit is exceeded by less than one tick.
package final class ServerRegister {
    /// How often timeouts are looked at.
    package static let tickLength = TimeAmount.seconds(1)

    /// Counts since the start, for `apus status`.
    package struct Totals: Sendable {
        package var connectionCount: UInt64 = 0
        package var turnedAwayCount: UInt64 = 0
    }

    package private(set) var totals = Totals()
    private let eventLoop: any EventLoop
    private var connections: [ServerConnection] = []
    private var openCounts = OpenCounts<IPAddress>()
    private(set) var tick: UInt32 = 0
    private var isTicking = false
    private var emptied: (() -> Void)?
    /// What clients send comes in here; the first buffer of a connection is one of its own.
    let receiveBuffer = SpareBuffer()
    /// Replies go out of here.
    let replyBuffer = SpareBuffer()

    package init(eventLoop: any EventLoop) { self.eventLoop = eventLoop }

    package var count: Int { self.connections.count }

    /// How many connections come from where this address is.
    package func count(of client: IPAddress) -> Int { self.openCounts[Self.origin(client)] }

    /// A client of IPv6 commonly has a whole /64 to itself and could come from a new address each time.
    private static func origin(_ client: IPAddress) -> IPAddress {
        switch client {
        case .v4: client
        case .v6(let high, _): IPAddress(high: high, low: 0)
        }
    }

    /// - Returns: the connection's place, which it keeps and gives back to `remove`.
    func add(_ connection: ServerConnection) -> Int {
        self.totals.connectionCount += 1
        self.openCounts.open(Self.origin(connection.client))
        self.connections.append(connection)
        if !self.isTicking { self.scheduleTick() }
        return self.connections.count - 1
    }

    func noteTurnedAway() { self.totals.turnedAwayCount += 1 }

    /// The last connection takes the place that becomes free.
    func remove(at place: Int) {
        self.openCounts.close(Self.origin(self.connections[place].client))
        let last = self.connections.removeLast()
        if place < self.connections.count {
            self.connections[place] = last
            last.place = place
        }
        if self.connections.isEmpty { self.emptied?() }
    }

    private func scheduleTick() {
        self.isTicking = true
        self.eventLoop.assumeIsolated().scheduleTask(in: Self.tickLength) { [weak self] in self?.nextTick() }
    }

    private func nextTick() {
        self.tick &+= 1
        // From the back: a connection that closes takes itself out, and the one that takes its place was seen.
        for place in self.connections.indices.reversed() where place < self.connections.count {
            self.connections[place].checkTime(self.tick)
        }
        // A process without connections sleeps.
        self.isTicking = false
        if !self.connections.isEmpty { self.scheduleTick() }
    }

    /// Asks every session to end as soon as it has no mail under way.
    ///
    /// - Parameter emptied: called when the last one has gone; at once if there is none.
    package func stop(emptied: @escaping () -> Void) {
        if self.connections.isEmpty { return emptied() }
        self.emptied = emptied
        for place in self.connections.indices.reversed() where place < self.connections.count {
            self.connections[place].stop()
        }
    }
}
