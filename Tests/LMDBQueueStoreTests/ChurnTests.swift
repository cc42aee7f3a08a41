// SPDX-License-Identifier: Apache-2.0

import Foundation
import LMDB
import MailTypes
import QueueCore
import Simulation
import Testing

@testable import LMDBQueueStore

/// A day of a queue, hour by hour: what arrives, how long it stays, and how large the file is.
private struct Day {
    private let store: LMDBQueueStore
    private var random = SeededGenerator(seed: 24)
    private var lastID: UInt64 = 0
    /// What leaves in which hour.
    private var leaving: [Int: [NewMessage]] = [:]
    private var now = Timestamp(microseconds: 1_700_000_000_000_000)
    private(set) var liveOctetCount: UInt64 = 0
    private(set) var arrivedOctetCount: UInt64 = 0

    init(_ store: LMDBQueueStore) { self.store = store }

    /// Most mail is small; one message in forty is up to 2 MiB.
    private mutating func size() -> Int {
        switch Int.random(in: 0..<40, using: &self.random) {
        case 0: Int.random(in: 200_000...2_097_152, using: &self.random)
        case 1..<8: Int.random(in: 20_000...200_000, using: &self.random)
        default: Int.random(in: 500...20_000, using: &self.random)
        }
    }

    /// Most mail leaves in its hour, some within eight, and one in fifty stays for days.
    private mutating func stay() -> Int {
        switch Int.random(in: 0..<50, using: &self.random) {
        case 0: 100
        case 1..<8: Int.random(in: 1...8, using: &self.random)
        default: 0
        }
    }

    private mutating func arrive(in hour: Int) throws -> NewMessage {
        self.lastID += 1
        let size = self.size()
        let message = Samples.message(
            self.lastID, recipientCount: Int.random(in: 1...3, using: &self.random), at: self.now.microseconds,
            contentOctetCount: size)
        _ = try self.store.commit([.accept(message)])
        self.liveOctetCount += UInt64(size)
        self.arrivedOctetCount += UInt64(size)
        return message
    }

    private mutating func leave(_ message: NewMessage) throws {
        let removals = message.recipients.map { RecipientChange(number: $0.number, dueBefore: $0.due, after: nil) }
        _ = try self.store.commit([.settle(message.record.id, removals)])
        self.liveOctetCount -= message.record.contentOctetCount
    }

    /// Mail arrives and leaves, mixed, as it does.
    mutating func pass(hour: Int, messageCount: Int) throws {
        self.now = self.now.advanced(by: .seconds(3_600))
        var soon: [NewMessage] = []
        for message in self.leaving.removeValue(forKey: hour) ?? [] { try self.leave(message) }
        for _ in 0..<messageCount {
            let message = try self.arrive(in: hour)
            let stay = self.stay()
            if stay == 0 { soon.append(message) } else { self.leaving[hour + stay, default: []].append(message) }
            if soon.count > 20 { try self.leave(soon.remove(at: Int.random(in: 0..<20, using: &self.random))) }
        }
        for message in soon { try self.leave(message) }
    }
}

@Suite struct ChurnTests {
    @Test("a day of coming and going leaves the file no larger than a quarter above the most that was in it at once")
    func fileSize() throws {
        let scratch = try Scratch()
        let store = try LMDBQueueStore(directory: scratch.path, sizeMax: 1 << 36, sizeReserve: 8 << 20)
        // More of it, and with its figures, for people: APUS_CHURN_MESSAGES=3000.
        let wanted = ProcessInfo.processInfo.environment["APUS_CHURN_MESSAGES"].flatMap { Int($0) }
        var day = Day(store)
        var peak: UInt64 = 0
        var lines = ["hour   live MiB   arrived MiB   file MiB"]
        for hour in 0..<24 {
            try day.pass(hour: hour, messageCount: wanted ?? 300)
            peak = max(peak, day.liveOctetCount)
            let figures = [day.liveOctetCount, day.arrivedOctetCount, store.fileOctetCount].map { $0 >> 20 }
            lines.append("\(hour)   \(figures.map(String.init).joined(separator: "   "))")
        }
        if wanted != nil { print(lines.joined(separator: "\n")) }
        // What leaves within its hour is not counted at the end of it; there are twenty of these at a time.
        let bound = peak * 5 / 4 + (8 << 20)
        #expect(store.fileOctetCount <= bound, "\(lines.joined(separator: "\n"))")
        #expect(day.arrivedOctetCount > 2 * store.fileOctetCount, "\(lines.joined(separator: "\n"))")
    }
}
