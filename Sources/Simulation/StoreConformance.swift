// SPDX-License-Identifier: Apache-2.0

package import MailTypes
package import QueueCore

/// The rules that every queue store keeps; the tests run each of them on each store.
package enum StoreConformance: String, CaseIterable, Sendable {
    case acceptedMessageIsThereWhole
    case contentIsReadFromAnyPlace
    case spilledContentJoinsTheRest
    case discardedContentLeavesNothing
    case dueEntriesComeInOrderAndPages
    case settledRecipientTakesTheMessageAlongOnlyWhenLast
    case deferralMovesTheDueEntry
    case failureLeadsToTheBounceAgent
    case exchangeIsOneTransaction
    case moveChangesRecordAndIndexTogether
    case staleMoveDoesNothing
    case staleEntryIsNotLoaded
    case heldRecipientLeavesTheIndexAndReleaseBringsItBack
    case verbsSpareWhatIsUnderWay
    case verbsChangeOnlyWhomTheyMean
    case reroutedRecipientIsDueAtItsNewDestination
    case restoredMessageIsThereAsItWas
    case removedMessageLeavesNothing
    case suspensionsAreKeptAndForgotten
    case messagesAreListedInOrder
    case recoveryRemovesUnfinishedContentAndKnowsTheLastID

    /// Runs the rule on an empty store; answers what was wrong.
    package func faults(_ store: some QueueStore) throws(StoreFault) -> [String] {
        var check = Check()
        switch self {
        case .acceptedMessageIsThereWhole: try Self.whole(store, &check)
        case .contentIsReadFromAnyPlace: try Self.places(store, &check)
        case .spilledContentJoinsTheRest: try Self.spill(store, &check)
        case .discardedContentLeavesNothing: try Self.discard(store, &check)
        case .dueEntriesComeInOrderAndPages: try Self.pages(store, &check)
        case .settledRecipientTakesTheMessageAlongOnlyWhenLast: try Self.settle(store, &check)
        case .deferralMovesTheDueEntry: try Self.deferral(store, &check)
        case .failureLeadsToTheBounceAgent: try Self.failure(store, &check)
        case .exchangeIsOneTransaction: try Self.exchange(store, &check)
        case .moveChangesRecordAndIndexTogether: try Self.move(store, &check)
        case .staleMoveDoesNothing: try Self.staleMove(store, &check)
        case .staleEntryIsNotLoaded: try Self.staleEntry(store, &check)
        case .heldRecipientLeavesTheIndexAndReleaseBringsItBack: try Self.hold(store, &check)
        case .verbsSpareWhatIsUnderWay: try Self.spare(store, &check)
        case .verbsChangeOnlyWhomTheyMean: try Self.mean(store, &check)
        case .reroutedRecipientIsDueAtItsNewDestination: try Self.reroute(store, &check)
        case .restoredMessageIsThereAsItWas: try Self.restore(store, &check)
        case .removedMessageLeavesNothing: try Self.remove(store, &check)
        case .suspensionsAreKeptAndForgotten: try Self.suspensions(store, &check)
        case .messagesAreListedInOrder: try Self.list(store, &check)
        case .recoveryRemovesUnfinishedContentAndKnowsTheLastID: try Self.recovery(store, &check)
        }
        return check.faults
    }

    /// Collects what does not hold.
    struct Check {
        var faults: [String] = []

        mutating func expect(_ condition: Bool, _ text: String) {
            if !condition { self.faults.append(text) }
        }
    }

    // MARK: - The rules

    private static func whole(_ store: some QueueStore, _ check: inout Check) throws(StoreFault) {
        let message = Samples.message(7, recipientCount: 3, at: 100)
        _ = try store.commit([.accept(message)])
        let found = try store.message(message.record.id)
        check.expect(found?.record == message.record, "the envelope differs")
        check.expect(found?.recipients == message.recipients, "the recipients differ")
        let counts = try store.counts()
        check.expect(counts == QueueCounts(messages: 1, recipients: 3, scheduled: 3), "the counts differ")
        check.expect(try store.message(MessageID(rawValue: 8)) == nil, "a message came from nowhere")
    }

    private static func places(_ store: some QueueStore, _ check: inout Check) throws(StoreFault) {
        let size = store.contentChunkOctetCount
        for (index, count) in [0, 1, size - 1, size, size + 1, 3 * size + 17].enumerated() {
            let message = Samples.message(UInt64(10 + index), recipientCount: 1, at: 100, contentOctetCount: count)
            _ = try store.commit([.accept(message)])
            let whole = message.record.prefix + message.content
            for offset in Set([0, 1, message.record.prefix.count, size, size + 5, whole.count, whole.count + 9]) {
                for length in [0, 1, size, 2 * size + 3, whole.count] {
                    let found = try store.content(message.record.id, offset: UInt64(offset), count: length)
                    let wanted = Array(whole.dropFirst(offset).prefix(length))
                    check.expect(found == wanted, "content of \(count) at \(offset) for \(length) differs")
                }
            }
        }
        check.expect(try store.content(MessageID(rawValue: 1), offset: 0, count: 1) == nil, "content of nothing")
    }

    private static func spill(_ store: some QueueStore, _ check: inout Check) throws(StoreFault) {
        let size = store.contentChunkOctetCount
        var message = Samples.message(20, recipientCount: 1, at: 100, contentOctetCount: 5 * size + 9)
        let whole = message.content
        _ = try store.commit([.spill(message.record.id, offset: 0, octets: Array(whole[..<size]))])
        check.expect(try store.message(message.record.id) == nil, "a message is there before its acceptance")
        _ = try store.commit([
            .spill(message.record.id, offset: UInt64(size), octets: Array(whole[size..<(3 * size)]))
        ])
        message.contentOffset = UInt64(3 * size)
        message.content = Array(whole[(3 * size)...])
        _ = try store.commit([.accept(message)])
        let found = try store.content(message.record.id, offset: 0, count: .max)
        check.expect(found == message.record.prefix + whole, "the parts do not join")
        let report = try store.recover()
        check.expect(report.discardedCount == 0, "recovery took an accepted message for unfinished")
        check.expect(try store.content(message.record.id, offset: 0, count: .max) == found, "recovery ate content")
    }

    private static func discard(_ store: some QueueStore, _ check: inout Check) throws(StoreFault) {
        let size = store.contentChunkOctetCount
        let id = MessageID(rawValue: 30)
        let octets = [UInt8](repeating: 1, count: 2 * size)
        _ = try store.commit([.spill(id, offset: 0, octets: octets)])
        _ = try store.commit([.discard(id)])
        let report = try store.recover()
        check.expect(report.discardedCount == 0, "something was left")
        check.expect(report.lastMessageID == id, "the id could be given out again")
    }

    private static func pages(_ store: some QueueStore, _ check: inout Check) throws(StoreFault) {
        var operations: [StoreOperation] = []
        for index in 0..<10 {
            let message = Samples.message(UInt64(40 + index), recipientCount: 2, at: UInt64(1_000 - 50 * index))
            operations.append(.accept(message))
        }
        _ = try store.commit(operations)
        let through = Timestamp(microseconds: 900)
        var after: DueKey?
        var keys: [DueKey] = []
        var pageCount = 0
        while pageCount < 20 {
            let page = try store.due(after: after, through: through, limit: 3)
            keys += page.entries.map(\.key)
            pageCount += 1
            after = page.entries.last?.key ?? after
            guard page.hasMore else {
                check.expect(page.next == Timestamp(microseconds: 950), "the next due time is wrong")
                break
            }
            check.expect(page.entries.count == 3, "a page is short")
        }
        check.expect(keys.count == 16, "\(keys.count) of 16 entries are due")
        check.expect(keys == keys.sorted(), "entries are out of order")
        let work = try store.load(keys)
        check.expect(work.messages.count == 8 && work.undecodable.isEmpty, "not all can be loaded")
    }

    private static func settle(_ store: some QueueStore, _ check: inout Check) throws(StoreFault) {
        let message = Samples.message(60, recipientCount: 2, at: 100)
        let other = Samples.message(61, recipientCount: 1, at: 100)
        _ = try store.commit([.accept(message), .accept(other)])
        _ = try store.commit([.settle(message.record.id, [Samples.removal(message, 1)])])
        check.expect(try store.message(message.record.id)?.recipients.map(\.number) == [0], "the wrong one went")
        check.expect(try store.content(message.record.id, offset: 0, count: 9)?.count == 9, "content went too early")
        _ = try store.commit([.settle(message.record.id, [Samples.removal(message, 0)])])
        check.expect(try store.message(message.record.id) == nil, "the message stayed")
        check.expect(try store.content(message.record.id, offset: 0, count: 9) == nil, "content stayed")
        check.expect(
            try store.counts() == QueueCounts(messages: 1, recipients: 1, scheduled: 1), "the other message suffered")
    }

    private static func deferral(_ store: some QueueStore, _ check: inout Check) throws(StoreFault) {
        let message = Samples.message(70, recipientCount: 1, at: 100)
        _ = try store.commit([.accept(message)])
        var after = message.recipients[0]
        after.state = .queued(last: Samples.deferral)
        after.due = Timestamp(microseconds: 500)
        after.attemptCount = 1
        after.lastAttempt = Timestamp(microseconds: 200)
        _ = try store.commit([
            .settle(
                message.record.id,
                [RecipientChange(number: 0, dueBefore: Timestamp(microseconds: 100), after: after)])
        ])
        check.expect(try store.message(message.record.id)?.recipients == [after], "the record differs")
        let page = try store.due(after: nil, through: Timestamp(microseconds: 499), limit: 9)
        check.expect(page.entries.isEmpty, "the old entry is still there")
        check.expect(page.next == after.due, "the new entry is not there")
    }

    private static func failure(_ store: some QueueStore, _ check: inout Check) throws(StoreFault) {
        let message = Samples.message(80, recipientCount: 1, at: 100)
        _ = try store.commit([.accept(message)])
        _ = try store.commit([.settle(message.record.id, [Samples.failing(message, 0, at: 300)])])
        let page = try store.due(after: nil, through: Timestamp(microseconds: 300), limit: 9)
        check.expect(page.entries.map(\.destination) == [.bounce], "the entry does not lead to the bounce agent")
        let work = try store.load(page.entries.map(\.key))
        check.expect(work.messages.first?.recipients.first?.hasFailed == true, "the record has not failed")
    }

    private static func exchange(_ store: some QueueStore, _ check: inout Check) throws(StoreFault) {
        let message = Samples.message(90, recipientCount: 1, at: 100)
        _ = try store.commit([.accept(message)])
        _ = try store.commit([.settle(message.record.id, [Samples.failing(message, 0, at: 300)])])
        let report = Samples.message(91, recipientCount: 1, at: 400)
        let change = RecipientChange(number: 0, dueBefore: Timestamp(microseconds: 300), after: nil)
        _ = try store.commit([.exchange([report], for: message.record.id, [change])])
        check.expect(try store.message(message.record.id) == nil, "the failure is still there")
        check.expect(try store.message(report.record.id)?.record == report.record, "the report is not there")
        check.expect(
            try store.counts() == QueueCounts(messages: 1, recipients: 1, scheduled: 1), "something else is there")
    }

    private static func move(_ store: some QueueStore, _ check: inout Check) throws(StoreFault) {
        let message = Samples.message(100, recipientCount: 1, at: 100)
        _ = try store.commit([.accept(message)])
        let from = DueKey(
            time: Timestamp(microseconds: 100), recipient: RecipientKey(message: message.record.id, number: 0))
        _ = try store.commit([.move([DueMove(from: from, to: Timestamp(microseconds: 700))])])
        check.expect(
            try store.message(message.record.id)?.recipients.first?.due == Timestamp(microseconds: 700),
            "the record has another time")
        let page = try store.due(after: nil, through: Timestamp(microseconds: 700), limit: 9)
        check.expect(page.entries.map(\.key.time) == [Timestamp(microseconds: 700)], "the index has another time")
        check.expect(page.entries.first?.destination == message.recipients[0].route, "the destination was lost")
    }

    private static func staleMove(_ store: some QueueStore, _ check: inout Check) throws(StoreFault) {
        let message = Samples.message(110, recipientCount: 1, at: 100)
        _ = try store.commit([.accept(message)])
        let from = DueKey(
            time: Timestamp(microseconds: 99), recipient: RecipientKey(message: message.record.id, number: 0))
        _ = try store.commit([.move([DueMove(from: from, to: Timestamp(microseconds: 700))])])
        let page = try store.due(after: nil, through: Timestamp(microseconds: 700), limit: 9)
        check.expect(page.entries.map(\.key.time) == [Timestamp(microseconds: 100)], "it moved from where it was not")
    }

    private static func staleEntry(_ store: some QueueStore, _ check: inout Check) throws(StoreFault) {
        let message = Samples.message(120, recipientCount: 1, at: 100)
        _ = try store.commit([.accept(message)])
        let stale = DueKey(
            time: Timestamp(microseconds: 50), recipient: RecipientKey(message: message.record.id, number: 0))
        check.expect(try store.load([stale]).messages.isEmpty, "a recipient was loaded for another time")
    }

    private static func hold(_ store: some QueueStore, _ check: inout Check) throws(StoreFault) {
        let message = Samples.message(130, recipientCount: 2, at: 100)
        _ = try store.commit([.accept(message)])
        let now = Timestamp(microseconds: 900)
        let report = try store.commit([.operate(OperatorOrder(.hold, message.record.id), now: now)])
        check.expect(report.operated.map(\.count) == [2], "not both were held")
        check.expect(try store.counts().scheduled == 0, "a held recipient is due")
        check.expect(
            try store.commit([.operate(OperatorOrder(.flush, message.record.id), now: now)]).operated == [[]],
            "flush touched what is held")
        _ = try store.commit([.operate(OperatorOrder(.release, message.record.id), now: now)])
        let page = try store.due(after: nil, through: now, limit: 9)
        check.expect(page.entries.map(\.key.time) == [now, now], "they are not due after the release")
    }

    private static func spare(_ store: some QueueStore, _ check: inout Check) throws(StoreFault) {
        let message = Samples.message(140, recipientCount: 3, at: 100)
        _ = try store.commit([.accept(message)])
        let now = Timestamp(microseconds: 900)
        _ = try store.commit([.operate(OperatorOrder(.remove, message.record.id, except: [1]), now: now)])
        check.expect(try store.message(message.record.id)?.recipients.map(\.number) == [1], "the wrong ones went")
        _ = try store.commit([.operate(OperatorOrder(.bounce, message.record.id), now: now)])
        check.expect(try store.message(message.record.id)?.recipients.first?.hasFailed == true, "it was not returned")
    }

    private static func mean(_ store: some QueueStore, _ check: inout Check) throws(StoreFault) {
        let message = Samples.message(145, recipientCount: 4, at: 100)
        _ = try store.commit([.accept(message)])
        let order = OperatorOrder(.remove, message.record.id, only: [0, 2, 3, 9], except: [2])
        let report = try store.commit([.operate(order, now: Timestamp(microseconds: 900))])
        check.expect(report.operated.map(\.count) == [2], "\(report.operated) were changed")
        check.expect(try store.message(message.record.id)?.recipients.map(\.number) == [1, 2], "the wrong ones went")
    }

    private static func reroute(_ store: some QueueStore, _ check: inout Check) throws(StoreFault) {
        let message = Samples.message(147, recipientCount: 3, at: 100)
        let id = message.record.id
        let now = Timestamp(microseconds: 900)
        let route = Samples.route("elsewhere.example")
        _ = try store.commit([.accept(message), .settle(id, [Samples.failing(message, 2, at: 300)])])
        _ = try store.commit([.operate(OperatorOrder(.hold, id, only: [1]), now: now)])
        let report = try store.commit([.operate(OperatorOrder(.reroute(route), id), now: now)])
        check.expect(report.operated.map(\.count) == [2], "\(report.operated) were changed")
        let recipients = try store.message(id)?.recipients ?? []
        check.expect(recipients.map(\.due) == [now, nil, Timestamp(microseconds: 300)], "the wrong ones are due")
        check.expect(recipients.map(\.route) == [route, route, message.recipients[2].route], "the routes are wrong")
        let page = try store.due(after: nil, through: now, limit: 9)
        check.expect(page.entries.map(\.destination) == [.bounce, route], "the index leads elsewhere")
        check.expect(
            try store.commit([.operate(OperatorOrder(.reroute(route), id), now: now)]).operated == [[]],
            "the same route is a change")
    }

    private static func restore(_ store: some QueueStore, _ check: inout Check) throws(StoreFault) {
        let size = store.contentChunkOctetCount
        _ = try store.commit([.accept(Samples.message(149, recipientCount: 1, at: 100))])
        // An id below others, content that came in parts, and one recipient of each state.
        var message = Samples.message(148, recipientCount: 5, at: 100, contentOctetCount: size + 9)
        let whole = message.record.prefix + message.content
        message.recipients.remove(at: 3)
        message.recipients[0].due = nil
        message.recipients[1].state = .queued(last: Samples.deferral)
        message.recipients[1].due = Timestamp(microseconds: 700)
        message.recipients[2].state = .failed(Samples.failure)
        _ = try store.commit([.spill(message.record.id, offset: 0, octets: Array(message.content[..<size]))])
        message.contentOffset = UInt64(size)
        message.content = Array(message.content[size...])
        _ = try store.commit([.restore(message)])
        let found = try store.message(message.record.id)
        check.expect(found?.record == message.record, "the envelope differs")
        check.expect(found?.recipients == message.recipients, "the recipients differ")
        check.expect(try store.content(message.record.id, offset: 0, count: .max) == whole, "the content differs")
        let page = try store.due(after: nil, through: Timestamp(microseconds: 700), limit: 9)
        let entries = page.entries.filter { $0.key.recipient.message == message.record.id }
        check.expect(entries.map(\.key.recipient.number) == [2, 4, 1], "the wrong ones are due")
        check.expect(
            entries.map(\.destination) == [.bounce, Samples.route("example.org"), Samples.route("example.org")],
            "the index leads elsewhere")
        check.expect(try store.recover().discardedCount == 0, "recovery takes it for unfinished")
    }

    private static func remove(_ store: some QueueStore, _ check: inout Check) throws(StoreFault) {
        let message = Samples.message(150, recipientCount: 3, at: 100, contentOctetCount: 20_000)
        _ = try store.commit([.accept(message)])
        _ = try store.commit([.operate(OperatorOrder(.remove, message.record.id), now: Timestamp(microseconds: 1))])
        check.expect(try store.counts() == QueueCounts(messages: 0, recipients: 0, scheduled: 0), "something stayed")
        check.expect(try store.content(message.record.id, offset: 0, count: 1) == nil, "content stayed")
    }

    private static func suspensions(_ store: some QueueStore, _ check: inout Check) throws(StoreFault) {
        let route = Samples.route("down.example")
        let record = DestinationRecord(suspendedUntil: Timestamp(microseconds: 77), suspensionCount: 3)
        _ = try store.commit([.destination(route, record), .destination(Samples.route("up.example"), nil)])
        let found = try store.destinations(limit: 9)
        check.expect(found.map(\.route) == [route] && found.map(\.record) == [record], "not what was written")
        _ = try store.commit([.destination(route, nil)])
        check.expect(try store.destinations(limit: 9).isEmpty, "it was not forgotten")
    }

    private static func list(_ store: some QueueStore, _ check: inout Check) throws(StoreFault) {
        for number in [160, 161, 162, 163, 164] {
            _ = try store.commit([.accept(Samples.message(UInt64(number), recipientCount: 1, at: 100))])
        }
        let first = try store.messages(after: nil, limit: 3).map(\.record.id.rawValue)
        let second = try store.messages(after: MessageID(rawValue: 162), limit: 3).map(\.record.id.rawValue)
        check.expect(first == [160, 161, 162] && second == [163, 164], "listed \(first), then \(second)")
    }

    private static func recovery(_ store: some QueueStore, _ check: inout Check) throws(StoreFault) {
        let size = store.contentChunkOctetCount
        let kept = Samples.message(170, recipientCount: 1, at: 100, contentOctetCount: 3 * size)
        _ = try store.commit([.accept(kept)])
        let id = MessageID(rawValue: 180)
        _ = try store.commit([.spill(id, offset: 0, octets: [UInt8](repeating: 1, count: size))])
        let report = try store.recover()
        check.expect(report.discardedCount == 1, "the unfinished message was not found")
        check.expect(report.lastMessageID == id, "the last id is \(report.lastMessageID.rawValue)")
        check.expect(report.repairedDueCount == 0, "a sound index was repaired")
        check.expect(
            try store.content(kept.record.id, offset: 0, count: .max) == kept.record.prefix + kept.content,
            "recovery harmed a message")
        _ = try store.commit([.settle(kept.record.id, [Samples.removal(kept, 0)])])
        check.expect(try store.recover().lastMessageID == id, "an empty queue forgets the last id")
    }
}

/// Values for tests.
package enum Samples {
    package static let deferral = DeliveryOutcome(
        .deferred, code: 450, status: EnhancedStatus(.transient, 2, 0), reporter: "mx.example", text: "try later")
    package static let failure = DeliveryOutcome(
        .failed, code: 550, status: EnhancedStatus(.permanent, 1, 1), reporter: "mx.example", text: "no such user")

    package static let delivery = DeliveryOutcome(
        .delivered, code: 250, status: EnhancedStatus(.success, 0, 0), reporter: "mx", text: "ok")

    package static func route(_ domain: String) -> Route {
        .remote(NextHop(target: .domain(Array(domain.utf8)), port: nil))
    }

    package static func pattern(_ text: String) -> DomainPattern { DomainPattern(text: text) ?? .every }

    package static func path(_ text: String) -> ForwardPath {
        ForwardPath(octets: Array(text.utf8)) ?? .postmaster
    }

    /// Whose `message` is.
    package static let flow = MailFlow(
        ReversePath(octets: Array("sender@example.com".utf8)) ?? .null, .normal)

    /// A message whose recipients are due at its arrival.
    package static func message(
        _ id: UInt64, recipientCount: Int, at microseconds: UInt64, contentOctetCount: Int = 100
    ) -> NewMessage {
        let arrival = Timestamp(microseconds: microseconds)
        var content: [UInt8] = []
        for index in 0..<contentOctetCount { content.append(UInt8(truncatingIfNeeded: index &* 31 &+ index / 251)) }
        let recipients = (0..<recipientCount).map { number in
            RecipientRecord(
                number: UInt32(number), forwardPath: Self.path("user\(number)@example.org"),
                originalPath: number == 1 ? Self.path("alias@example.org") : nil,
                route: Self.route("example.org"), flow: Self.flow, state: .queued(last: nil), due: arrival)
        }
        return NewMessage(
            record: MessageRecord(
                id: MessageID(rawValue: id),
                reversePath: ReversePath(octets: Array("sender@example.com".utf8)) ?? .null, bodyType: .eightBitMIME,
                arrival: arrival, expiry: arrival.advanced(by: .seconds(3_600)),
                prefix: Array("Received: by test\r\n".utf8), contentOctetCount: UInt64(contentOctetCount),
                trace: Array("client=test".utf8), unicode: .inHeader),
            recipients: recipients, content: content)
    }

    /// The change that a delivery makes.
    package static func removal(_ message: NewMessage, _ number: Int) -> RecipientChange {
        RecipientChange(number: UInt32(number), dueBefore: message.recipients[number].due, after: nil)
    }

    /// The change that a permanent failure makes.
    package static func failing(_ message: NewMessage, _ number: Int, at microseconds: UInt64) -> RecipientChange {
        var after = message.recipients[number]
        after.state = .failed(Self.failure)
        after.due = Timestamp(microseconds: microseconds)
        return RecipientChange(number: UInt32(number), dueBefore: message.recipients[number].due, after: after)
    }
}
