// SPDX-License-Identifier: Apache-2.0

import LMDB
import MailTypes
import QueueCore
import Simulation
import Testing

@testable import LMDBQueueStore

extension WriteTransaction {
    fileprivate func put(_ database: Database, _ key: [UInt8], _ value: [UInt8]) throws(LMDBError) {
        try self.put(database, key: key.span, value: value.span)
    }

    fileprivate func delete(_ database: Database, _ key: [UInt8]) throws(LMDBError) {
        try self.delete(database, key: key.span)
    }
}

private func key(_ id: MessageID) -> [UInt8] {
    let key = messageKey(id)
    return Array(copying: key.span)
}

private func key(_ id: MessageID, _ number: UInt32) -> [UInt8] {
    let key = numberedKey(id, number)
    return Array(copying: key.span)
}

private func key(_ place: DueKey) -> [UInt8] {
    let key = dueKey(place)
    return Array(copying: key.span)
}

/// A way to damage a queue, what a check says of it, and what is still wrong after a repair.
struct Damage: Sendable, CustomTestStringConvertible {
    let testDescription: String
    let found: [QueueFault.Kind]
    var left: [QueueFault.Kind] = []
    let harm: @Sendable (LMDBQueueStore, borrowing WriteTransaction) throws(LMDBError) -> Void

    static let id = MessageID(rawValue: 2)
    static let due = DueKey(
        time: Timestamp(microseconds: 100), recipient: RecipientKey(message: Self.id, number: 1))

    static let all: [Damage] = [
        Damage(testDescription: "nothing", found: []) { _, _ in },
        Damage(testDescription: "a missing due entry", found: [.dueMissing]) { store, transaction throws(LMDBError) in
            try transaction.delete(store.dues, key(Self.due))
        },
        Damage(testDescription: "a due entry with another destination", found: [.dueDestination]) {
            store, transaction throws(LMDBError) in
            var value: [UInt8] = []
            value.append(dueTo: Samples.route("elsewhere.example"), Samples.flow)
            try transaction.put(store.dues, key(Self.due), value)
        },
        Damage(testDescription: "a due entry that cannot be read", found: [.dueDestination]) {
            store, transaction throws(LMDBError) in
            try transaction.put(store.dues, key(Self.due), [9, 9])
        },
        Damage(testDescription: "a due entry of nobody", found: [.dueStray]) { store, transaction throws(LMDBError) in
            let place = DueKey(time: Self.due.time, recipient: RecipientKey(message: Self.id, number: 9))
            try transaction.put(store.dues, key(place), [1])
        },
        Damage(testDescription: "a due entry with another time", found: [.dueStray]) {
            store, transaction throws(LMDBError) in
            let place = DueKey(time: Timestamp(microseconds: 5), recipient: Self.due.recipient)
            try transaction.put(store.dues, key(place), [1])
        },
        Damage(testDescription: "a due entry with a key that is none", found: [.dueStray]) {
            store, transaction throws(LMDBError) in
            try transaction.put(store.dues, [1, 2, 3], [1])
        },
        Damage(testDescription: "content of nobody", found: [.contentStray]) { store, transaction throws(LMDBError) in
            for number: UInt32 in 0..<3 {
                try transaction.put(store.contents, key(MessageID(rawValue: 1), number), [1, 2])
            }
        },
        Damage(testDescription: "a mark of an accepted message", found: [.unfinishedStray]) {
            store, transaction throws(LMDBError) in
            try transaction.put(store.main, MainKey.unfinished(Self.id), [1])
        },
        Damage(testDescription: "a last id that is too low", found: [.lastIDBehind]) {
            store, transaction throws(LMDBError) in
            try transaction.put(store.main, MainKey.lastMessageID, key(MessageID(rawValue: 1)))
        },
        Damage(testDescription: "no last id", found: [.lastIDBehind]) { store, transaction throws(LMDBError) in
            try transaction.delete(store.main, MainKey.lastMessageID)
        },
        Damage(testDescription: "a destination that cannot be read", found: [.destinationUnreadable]) {
            store, transaction throws(LMDBError) in
            try transaction.put(store.suspensions, Samples.route("x.example").octets, [7])
        },
        Damage(
            testDescription: "an envelope that cannot be read", found: [.messageUnreadable], left: [.messageUnreadable]
        ) { store, transaction throws(LMDBError) in
            try transaction.put(store.messages, key(Self.id), [1, 7])
        },
        Damage(
            testDescription: "no envelope", found: [.recipientWithoutMessage, .recipientWithoutMessage],
            left: [.recipientWithoutMessage, .recipientWithoutMessage]
        ) { store, transaction throws(LMDBError) in
            try transaction.delete(store.messages, key(Self.id))
        },
        Damage(
            testDescription: "no recipients", found: [.messageWithoutRecipients, .dueStray, .dueStray],
            left: [.messageWithoutRecipients]
        ) { store, transaction throws(LMDBError) in
            for number: UInt32 in [0, 1] {
                try transaction.delete(store.recipients, key(Self.id, number))
            }
        },
        Damage(
            testDescription: "a recipient that cannot be read", found: [.recipientUnreadable],
            left: [.recipientUnreadable]
        ) { store, transaction throws(LMDBError) in
            try transaction.put(store.recipients, key(Self.id, 1), [1, 1])
        },
        Damage(testDescription: "missing content", found: [.contentIncomplete], left: [.contentIncomplete]) {
            store, transaction throws(LMDBError) in
            try transaction.delete(store.contents, key(Self.id, 1))
        },
        Damage(testDescription: "content that ends early", found: [.contentIncomplete], left: [.contentIncomplete]) {
            store, transaction throws(LMDBError) in
            try transaction.delete(store.contents, key(Self.id, 2))
        },
        Damage(testDescription: "content that is too long", found: [.contentIncomplete], left: [.contentIncomplete]) {
            store, transaction throws(LMDBError) in
            try transaction.put(store.contents, key(Self.id, 3), [1])
        },
        Damage(testDescription: "a short part of content", found: [.contentIncomplete], left: [.contentIncomplete]) {
            store, transaction throws(LMDBError) in
            try transaction.put(store.contents, key(Self.id, 0), [1])
        },
        Damage(testDescription: "content without a key", found: [.contentUnreadable], left: [.contentUnreadable]) {
            store, transaction throws(LMDBError) in
            try transaction.put(store.contents, [0], [1])
        },
    ]
}

@Suite struct CheckTests {
    private static func faults(_ store: LMDBQueueStore, limit: Int) throws -> [QueueFault] {
        var faults: [QueueFault] = []
        var place: CheckPlace? = CheckPlace()
        var sliceCount = 0
        while let current = place {
            sliceCount += 1
            try #require(sliceCount < 1_000, "the check does not end")
            let slice = try store.check(current, limit: limit)
            faults += slice.faults
            place = slice.next
        }
        return faults
    }

    @Test("each damage is found in slices of any size, and repaired if that loses nothing", arguments: Damage.all)
    func damage(_ damage: Damage) throws {
        let scratch = try Scratch()
        let store = try LMDBQueueStore(directory: scratch.path, sizeMax: 1 << 30, sizeReserve: 1 << 24)
        let size = store.contentChunkOctetCount
        // A message beside it, one that is held, one that has failed, and one that is arriving.
        let failed = Samples.message(4, recipientCount: 1, at: 100)
        _ = try store.commit([
            .accept(Samples.message(2, recipientCount: 2, at: 100, contentOctetCount: 2 * size + 7)),
            .accept(Samples.message(3, recipientCount: 3, at: 100, contentOctetCount: 0)),
            .operate(OperatorOrder(.hold, MessageID(rawValue: 3)), now: Timestamp(microseconds: 200)),
            .accept(failed), .settle(failed.record.id, [Samples.failing(failed, 0, at: 300)]),
            .spill(MessageID(rawValue: 5), offset: 0, octets: [UInt8](repeating: 1, count: size)),
            .destination(
                Samples.route("down.example"),
                DestinationRecord(suspendedUntil: Timestamp(microseconds: 9), suspensionCount: 1)),
        ])
        try store.environment.write { transaction throws(LMDBError) in try damage.harm(store, transaction) }
        let found = try Self.faults(store, limit: 1_000)
        #expect(found.map(\.kind) == damage.found)
        for limit in [1, 2, 3] { #expect(try Self.faults(store, limit: limit) == found) }
        #expect(found.filter { !$0.kind.isRepairable }.map(\.kind) == damage.left)
        _ = try store.commit(found.map { .repair($0) })
        #expect(try Self.faults(store, limit: 1_000).map(\.kind) == damage.left)
        // Nobody's mail was lost by it.
        if damage.left.isEmpty {
            #expect(try store.message(Damage.id)?.recipients.count == 2)
            #expect(try store.content(Damage.id, offset: 0, count: .max)?.count == 2 * size + 7 + 19)
            #expect(try store.due(after: nil, through: Timestamp(microseconds: 300), limit: 99).entries.count == 3)
        }
        #expect(try store.recover().discardedCount == 1, "what was arriving")
    }

    @Test("a repair that is no longer needed changes nothing")
    func stale() throws {
        let scratch = try Scratch()
        let store = try LMDBQueueStore(directory: scratch.path, sizeMax: 1 << 30, sizeReserve: 1 << 24)
        let message = Samples.message(2, recipientCount: 2, at: 100)
        _ = try store.commit([.accept(message)])
        let id = Damage.id
        let other = DueKey(time: Timestamp(microseconds: 50), recipient: Damage.due.recipient)
        let stale = [
            QueueFault(.dueStray, key: key(Damage.due), message: id, number: 1, ""),
            QueueFault(.dueMissing, key: key(other), message: id, number: 1, ""),
            QueueFault(.contentStray, key: [], message: id, ""),
            QueueFault(.unfinishedStray, key: [], message: MessageID(rawValue: 9), ""),
            QueueFault(.lastIDBehind, key: [], message: MessageID(rawValue: 1), ""),
            QueueFault(.messageUnreadable, key: [], message: id, ""),
        ]
        _ = try store.commit(stale.map { .repair($0) })
        #expect(try Self.faults(store, limit: 100) == [])
        #expect(try store.message(id)?.recipients == message.recipients)
        #expect(try store.content(id, offset: 0, count: .max) == message.record.prefix + message.content)
    }

    @Test("recovery takes a mark off an accepted message and leaves its content")
    func markOfAnAcceptedMessage() throws {
        let scratch = try Scratch()
        let message = Samples.message(2, recipientCount: 1, at: 100)
        do {
            let store = try LMDBQueueStore(directory: scratch.path, sizeMax: 1 << 30, sizeReserve: 1 << 24)
            _ = try store.commit([.accept(message)])
            try store.environment.write { transaction throws(LMDBError) in
                try transaction.put(store.main, MainKey.unfinished(Damage.id), [1])
            }
        }
        let store = try LMDBQueueStore(directory: scratch.path, sizeMax: 1 << 30, sizeReserve: 1 << 24)
        #expect(try store.recover().discardedCount == 0)
        #expect(try store.content(Damage.id, offset: 0, count: .max) == message.record.prefix + message.content)
        #expect(try Self.faults(store, limit: 100) == [])
    }
}
