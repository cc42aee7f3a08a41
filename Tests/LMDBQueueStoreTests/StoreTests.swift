// SPDX-License-Identifier: Apache-2.0

import Foundation
import LMDB
import MailTypes
import QueueCore
import Simulation
import Testing

@testable import LMDBQueueStore

@Suite struct LMDBQueueStoreTests {
    private func open(_ scratch: Scratch, sizeMax: Int = 1 << 30, reserve: Int = 8 << 20) throws -> LMDBQueueStore {
        try LMDBQueueStore(directory: scratch.path, sizeMax: sizeMax, sizeReserve: reserve, sizeStart: 1 << 20)
    }

    @Test("what was committed is there after the process has ended, and ids go on above the last")
    func restart() throws {
        let scratch = try Scratch()
        let message = Samples.message(5_000, recipientCount: 2, at: 100, contentOctetCount: 10_000)
        do {
            let store = try self.open(scratch)
            _ = try store.commit([.accept(message)])
            _ = try store.commit([
                .spill(MessageID(rawValue: 6_000), offset: 0, octets: [UInt8](repeating: 7, count: 4_080))
            ])
        }
        let store = try self.open(scratch)
        let report = try store.recover()
        #expect(
            report == RecoveryReport(lastMessageID: MessageID(rawValue: 6_000), discardedCount: 1, repairedDueCount: 0))
        #expect(try store.message(message.record.id)?.recipients == message.recipients)
        #expect(try store.content(message.record.id, offset: 0, count: .max) == message.record.prefix + message.content)
    }

    @Test("a second process cannot open the queue, and a directory of another format is left alone")
    func marker() throws {
        let scratch = try Scratch()
        do {
            let store = try self.open(scratch)
            #expect(throws: LMDBQueueStore.OpenFault.self) { try self.open(scratch) }
            _ = store.fileOctetCount
        }
        try "something else\n".write(toFile: scratch.path + "/format", atomically: true, encoding: .utf8)
        let fault = #expect(throws: LMDBQueueStore.OpenFault.self) { try self.open(scratch) }
        #expect(fault?.text.contains("something else") == true)
    }

    @Test("a probe leaves nothing behind, whether it is discarded or the process ends before")
    func probe() throws {
        let scratch = try Scratch()
        let id = MessageID(rawValue: 7_000)
        do {
            let store = try self.open(scratch)
            _ = try store.commit([.probe(id)])
            #expect(store.hasTraces(of: id))
            _ = try store.commit([.discard(id)])
            #expect(!store.hasTraces(of: id))
            _ = try store.commit([.probe(MessageID(rawValue: 7_001))])
        }
        let store = try self.open(scratch)
        let report = try store.recover()
        #expect(
            report == RecoveryReport(lastMessageID: MessageID(rawValue: 7_001), discardedCount: 1, repairedDueCount: 0))
        #expect(!store.hasTraces(of: MessageID(rawValue: 7_001)))
    }

    @Test("the map grows by itself; at its limit new mail is refused and what is queued can still be settled")
    func growth() throws {
        let scratch = try Scratch()
        let store = try self.open(scratch, sizeMax: 4 << 20, reserve: 2 << 20)
        var accepted: [NewMessage] = []
        var isFull = false
        while !isFull, accepted.count < 1_000 {
            let message = Samples.message(
                UInt64(accepted.count + 1), recipientCount: 1, at: 100, contentOctetCount: 40_000)
            do {
                _ = try store.commit([.accept(message)])
                accepted.append(message)
            } catch StoreFault.full {
                isFull = true
            }
        }
        #expect(isFull)
        // More than fits into the first size, and nothing of the refused one.
        #expect(accepted.count > 30)
        #expect(try store.counts().messages == accepted.count)
        for message in accepted { _ = try store.commit([.settle(message.record.id, [Samples.removal(message, 0)])]) }
        #expect(try store.counts() == QueueCounts(messages: 0, recipients: 0, scheduled: 0))
        // Its space is given back to new mail.
        _ = try store.commit([.accept(Samples.message(5_000, recipientCount: 1, at: 100, contentOctetCount: 40_000))])
    }

    @Test("new mail does not take the reserve, however often what is queued is settled")
    func reserve() throws {
        let scratch = try Scratch()
        let store = try self.open(scratch, sizeMax: 4 << 20, reserve: 1 << 20)
        var waiting: [NewMessage] = []
        var id: UInt64 = 0
        // Whenever something is settled, as much is offered as fits.
        for round in 0..<100 {
            while true {
                id += 1
                let message = Samples.message(id, recipientCount: 1, at: 100, contentOctetCount: 4_000)
                do { _ = try store.commit([.accept(message)]) } catch StoreFault.full { break }
                waiting.append(message)
            }
            #expect(store.fileOctetCount < UInt64(4 << 20) + UInt64(1 << 19), "\(round)")
            for _ in 0..<3 {
                let message = waiting.removeFirst()
                _ = try store.commit([.settle(message.record.id, [Samples.removal(message, 0)])])
            }
        }
        for message in waiting { _ = try store.commit([.settle(message.record.id, [Samples.removal(message, 0)])]) }
        #expect(try store.counts().messages == 0)
    }

    @Test("a record that cannot be read is named, and the others go on")
    func damage() throws {
        let scratch = try Scratch()
        let store = try self.open(scratch)
        for id in 1...3 { _ = try store.commit([.accept(Samples.message(UInt64(id), recipientCount: 1, at: 100))]) }
        let damaged = numberedKey(MessageID(rawValue: 2), 0)
        try store.environment.write { transaction throws(LMDBError) in
            let value: [UInt8] = [1, 1, 0]
            try transaction.put(store.recipients, key: damaged.span, value: value.span)
        }
        let page = try store.due(after: nil, through: Timestamp(microseconds: 100), limit: 10)
        let work = try store.load(page.entries.map(\.key))
        #expect(work.messages.map(\.record.id.rawValue) == [1, 3])
        #expect(work.undecodable.map(\.recipient.message.rawValue) == [2])
        _ = try store.commit([.quarantine(work.undecodable[0])])
        #expect(try store.due(after: nil, through: Timestamp(microseconds: 100), limit: 10).entries.count == 2)
        let report = try store.commit([
            .operate(OperatorOrder(.hold, MessageID(rawValue: 2)), now: Timestamp(microseconds: 9))
        ])
        #expect(report.undecodable.map(\.database) == ["recipient"])
    }

    @Test("content is handed out up to the first hole and no further, and how much that is can be asked")
    func holes() throws {
        let scratch = try Scratch()
        let store = try self.open(scratch)
        let size = store.contentChunkOctetCount
        for (number, replacement) in [(UInt32(0), nil), (2, nil), (3, nil), (1, [UInt8](repeating: 1, count: 5))] {
            let message = Samples.message(
                UInt64(number) + 1, recipientCount: 1, at: 100, contentOctetCount: 3 * size + 7)
            let id = message.record.id
            _ = try store.commit([.accept(message)])
            let whole = message.record.prefix + message.content
            #expect(try store.wholeOctetCount(of: message.record) == UInt64(whole.count))
            try store.environment.write { transaction throws(LMDBError) in
                let key = numberedKey(id, number)
                if let replacement {
                    try transaction.put(store.contents, key: key.span, value: replacement.span)
                } else {
                    try transaction.delete(store.contents, key: key.span)
                }
            }
            let there = message.record.prefix.count + Int(number) * size + (replacement?.count ?? 0)
            #expect(try store.wholeOctetCount(of: message.record) == UInt64(there))
            let found = try store.content(id, offset: 0, count: .max)
            #expect(found?.count == there)
            #expect(found?.prefix(there - (replacement?.count ?? 0)) == whole.prefix(there - (replacement?.count ?? 0)))
            // Behind the hole there is still what stood there, for who asks for that alone.
            #expect(try store.content(id, offset: UInt64(there + size), count: 1)?.isEmpty == (number == 3))
        }
    }

    @Test("a due index that does not agree with the recipients is put right at the start")
    func repair() throws {
        let scratch = try Scratch()
        let message = Samples.message(1, recipientCount: 2, at: 100)
        do {
            let store = try self.open(scratch)
            _ = try store.commit([.accept(message)])
            let missing = DueKey(
                time: Timestamp(microseconds: 100), recipient: RecipientKey(message: message.record.id, number: 0))
            let stray = DueKey(
                time: Timestamp(microseconds: 50), recipient: RecipientKey(message: message.record.id, number: 7))
            try store.environment.write { transaction throws(LMDBError) in
                try transaction.delete(store.dues, key: dueKey(missing).span)
                var value: [UInt8] = []
                value.append(dueTo: Samples.route("a.example"), Samples.flow)
                try transaction.put(store.dues, key: dueKey(stray).span, value: value.span)
            }
        }
        let store = try self.open(scratch)
        #expect(try store.recover().repairedDueCount == 2)
        let page = try store.due(after: nil, through: Timestamp(microseconds: 100), limit: 10)
        #expect(page.entries.map(\.key.recipient.number) == [0, 1])
    }
}

@Suite struct RecordTests {
    private static let recipient = RecipientRecord(
        number: 3, forwardPath: Samples.path("a@example.org"), originalPath: Samples.path("b@example.org"),
        route: Samples.route("example.org"), flow: MailFlow(sender: 0xDEAD_BEEF, priority: .high),
        state: .failed(Samples.failure), due: Timestamp(microseconds: 77),
        attemptCount: 9, lastAttempt: Timestamp(microseconds: 66),
        dsn: RecipientDSN(notify: [.success, .delay], originalRecipient: Array("rfc822;c+2Bd@example.org".utf8)),
        isDelayTold: true)

    @Test("records are read as they were written")
    func roundTrips() throws {
        var held = Self.recipient
        held.due = nil
        held.state = .queued(last: nil)
        let states: [RecipientRecord.State] = [
            .reporting(.delayed, Samples.deferral),
            .reporting(
                .relayed,
                DeliveryOutcome(
                    .delivered, code: 250, status: EnhancedStatus(.success, 6, 0), reporter: "mx", text: "ok")),
        ]
        let told = states.map { state in
            var record = Self.recipient
            record.state = state
            return record
        }
        let never = RecipientRecord(
            number: 3, forwardPath: .postmaster, originalPath: nil, route: Self.recipient.route,
            flow: Self.recipient.flow, state: .queued(last: nil), due: nil, dsn: RecipientDSN(notify: .never))
        for record in [Self.recipient, held, never] + told {
            var octets: [UInt8] = []
            octets.append(record)
            #expect(try RecipientRecord(number: 3, octets: octets) == record)
        }
        let plain = Samples.message(9, recipientCount: 1, at: 100).record
        let message = MessageRecord(
            id: plain.id, reversePath: plain.reversePath, bodyType: plain.bodyType, arrival: plain.arrival,
            expiry: plain.expiry, prefix: plain.prefix, contentOctetCount: plain.contentOctetCount, trace: plain.trace,
            dsn: MessageDSN(returned: .headers, envelopeID: Array("a+2Bb".utf8)), verp: .hyphen)
        let others = try UnicodeDemand.allCases.map { demand in
            MessageRecord(
                id: plain.id,
                reversePath: try #require(
                    ReversePath(octets: Array("jörg@a.example".utf8), alphabet: .unicodeLocalPart)),
                bodyType: plain.bodyType, arrival: plain.arrival, expiry: plain.expiry, prefix: plain.prefix,
                contentOctetCount: plain.contentOctetCount, trace: plain.trace, unicode: demand,
                verp: demand == .asked ? .hyphen : nil)
        }
        for record in [plain, message] + others {
            var octets: [UInt8] = []
            octets.append(record)
            #expect(try MessageRecord(id: record.id, octets: octets) == record)
        }
    }

    @Test("records of the version before are read: their senders have wished nothing")
    func before() throws {
        let flow = Samples.flow
        var octets: [UInt8] = [2, 2]
        for number in [(77, 8), (9, 4), (66, 8)] as [(UInt64, Int)] {
            octets.append(number: number.0, octetCount: number.1)
        }
        octets.append(field: Array("a@example.org".utf8))
        octets.append(field: [])
        octets.append(field: Samples.route("example.org").octets)
        octets.append(flow.priority.rawValue)
        octets.append(number: UInt64(flow.sender), octetCount: 4)
        octets.append(1)
        for number in [550, 1, 1] as [UInt64] { octets.append(number: number, octetCount: 2) }
        octets.append(field: Array("mx".utf8))
        octets.append(field: Array("gone".utf8))
        let record = try RecipientRecord(number: 3, octets: octets)
        #expect(record.hasFailed && record.dsn == RecipientDSN() && !record.isDelayTold)
        #expect(record.lastOutcome?.text == Array("gone".utf8) && record.attemptCount == 9)
        // There were two states.
        octets[1] = 4
        #expect(throws: RecordFault.self) { try RecipientRecord(number: 3, octets: octets) }

        var envelope: [UInt8] = [2, 1]
        for number in [5, 6, 7] as [UInt64] { envelope.append(number: number, octetCount: 8) }
        for field in ["b@example.org", "client=x", "Received: x"] { envelope.append(field: Array(field.utf8)) }
        let message = try MessageRecord(id: MessageID(rawValue: 9), octets: envelope)
        #expect(message.dsn == MessageDSN() && message.prefix == Array("Received: x".utf8))
    }

    @Test("a queue of the format before is taken over, and then is of this one")
    func formatBefore() throws {
        let scratch = try Scratch()
        let path = scratch.path + "/format"
        let text = Array("apus queue, format 2, LMDB 0.9\n".utf8)
        try Data(text).write(to: URL(fileURLWithPath: path))
        _ = try LMDBQueueStore(directory: scratch.path, sizeMax: 64 << 20, sizeReserve: 1 << 20)
        #expect(try String(contentsOfFile: path, encoding: .utf8) == "apus queue, format 3, LMDB 0.9\n")
    }

    @Test(
        "a record cut at any place, lengthened, or with any octet changed is a fault or another legal record, never a trap"
    )
    func damage() {
        var octets: [UInt8] = []
        octets.append(Self.recipient)
        for count in 0..<octets.count {
            #expect(throws: RecordFault.self) { try RecipientRecord(number: 3, octets: Array(octets[..<count])) }
        }
        #expect(throws: RecordFault.self) { try RecipientRecord(number: 3, octets: octets + [0]) }
        for place in octets.indices {
            for value: UInt8 in [0, 1, 2, 0x7F, 0x80, 0xFF] {
                var changed = octets
                changed[place] = value
                if let record = try? RecipientRecord(number: 3, octets: changed) {
                    #expect(record.route != .bounce)
                }
            }
        }
        var message: [UInt8] = []
        message.append(Samples.message(9, recipientCount: 1, at: 100).record)
        for count in 0..<message.count {
            #expect(throws: RecordFault.self) {
                try MessageRecord(id: MessageID(rawValue: 9), octets: Array(message[..<count]))
            }
        }
    }

    @Test("a later version of a record is a fault")
    func version() {
        var octets: [UInt8] = []
        octets.append(Self.recipient)
        octets[0] += 1
        #expect(throws: RecordFault.self) { try RecipientRecord(number: 3, octets: octets) }
    }
}
