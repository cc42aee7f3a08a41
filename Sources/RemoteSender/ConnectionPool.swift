// SPDX-License-Identifier: Apache-2.0

import MailTypes
import NIOCore
import SMTPDrivers

/// The connections that are open, and those among them that wait for a next message to the same next hop.
struct ConnectionPool {
    private struct Entry {
        let connection: ClientConnection
        let nextHop: NextHop
        /// Under which settings it was opened, counted.
        let settingsNumber: UInt64
        /// Since which turn it waits, counted; nil while a message uses it, or while it is being opened or closed.
        var idleTurn: UInt64?
    }

    private var entries: [UInt64: Entry] = [:]
    /// Waiting connections of a next hop; the one that was used last is used next.
    private var idle: [NextHop: [UInt64]] = [:]
    private(set) var idleCount = 0
    private var turn: UInt64 = 0
    private var settingsNumber: UInt64 = 0

    var count: Int { self.entries.count }

    /// All of them, in the order in which they were opened.
    var connections: [ClientConnection] {
        self.entries.sorted { $0.key < $1.key }.map(\.value.connection)
    }

    func nextHop(of connection: ClientConnection) -> NextHop? { self.entries[connection.number]?.nextHop }

    mutating func insert(_ connection: ClientConnection, nextHop: NextHop) {
        self.entries[connection.number] = Entry(
            connection: connection, nextHop: nextHop, settingsNumber: self.settingsNumber)
    }

    /// There are other settings from now on.
    mutating func outdate() { self.settingsNumber += 1 }

    /// Whether a connection was opened under earlier settings.
    func isOutdated(_ connection: ClientConnection) -> Bool {
        self.entries[connection.number]?.settingsNumber != self.settingsNumber
    }

    /// The connection is gone.
    mutating func remove(_ connection: ClientConnection) {
        self.leaveIdle(connection.number)
        self.entries[connection.number] = nil
    }

    /// Keeps a connection that is ready for another message.
    mutating func keep(_ connection: ClientConnection) {
        guard let entry = self.entries[connection.number], entry.idleTurn == nil else { return }
        self.turn += 1
        self.entries[connection.number]?.idleTurn = self.turn
        self.idle[entry.nextHop, default: []].append(connection.number)
        self.idleCount += 1
    }

    /// A waiting connection to this next hop, which then does not wait any more.
    mutating func take(_ nextHop: NextHop) -> ClientConnection? {
        while let number = self.idle[nextHop]?.last {
            let connection = self.entries[number]?.connection
            self.leaveIdle(number)
            if let connection, connection.isReady { return connection }
        }
        return nil
    }

    /// The connection that has waited longest, which then does not wait any more.
    mutating func takeOldest() -> ClientConnection? {
        var oldest: (number: UInt64, turn: UInt64)?
        for (number, entry) in self.entries {
            if let turn = entry.idleTurn, turn < oldest?.turn ?? .max { oldest = (number, turn) }
        }
        guard let oldest else { return nil }
        self.leaveIdle(oldest.number)
        return self.entries[oldest.number]?.connection
    }

    private mutating func leaveIdle(_ number: UInt64) {
        guard let entry = self.entries[number], entry.idleTurn != nil else { return }
        self.entries[number]?.idleTurn = nil
        self.idleCount -= 1
        self.idle[entry.nextHop]?.removeAll { $0 == number }
        if self.idle[entry.nextHop]?.isEmpty == true { self.idle[entry.nextHop] = nil }
    }
}
