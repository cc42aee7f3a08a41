// SPDX-License-Identifier: Apache-2.0

package import MailTypes

/// A queue without a disk: the same rules as the durable one, for the simulation and the conformance tests.
///
/// It is stricter than a disk: a change that does not start from the state that is there is refused as `broken`, so that
/// a scheduler that has lost track is found.
package final class MemoryQueueStore: QueueStore {
    private struct Contents {
        var messages: [MessageID: MessageRecord] = [:]
        var recipients: [MessageID: [UInt32: RecipientRecord]] = [:]
        var content: [MessageID: [UInt8]] = [:]
        /// Ids whose content is there without a message.
        var unfinished: Set<MessageID> = []
        var due: [DueKey: (destination: Route, flow: MailFlow)] = [:]
        var destinations: [Route: DestinationRecord] = [:]
        var lastMessageID = MessageID(rawValue: 0)
    }

    private var contents = Contents()
    /// Due keys in order; rebuilt when it is asked for after a change.
    private var sortedDue: [DueKey]?
    /// Octets of content that fit; `accept` and `spill` beyond are `full`.
    package var contentOctetCountMax: Int = .max

    package let contentChunkOctetCount = 4080

    package init() {}

    package func commit(_ operations: [StoreOperation]) throws(StoreFault) -> CommitReport {
        var draft = self.contents
        var report = CommitReport()
        for operation in operations { try Self.apply(operation, to: &draft, &report) }
        if self.contentOctetCountMax < .max {
            let octetCount = draft.content.values.reduce(0) { $0 + $1.count }
            let octetCountBefore = self.contents.content.values.reduce(0) { $0 + $1.count }
            guard octetCount <= max(self.contentOctetCountMax, octetCountBefore) else { throw .full("content") }
        }
        self.contents = draft
        self.sortedDue = nil
        return report
    }

    private static func apply(
        _ operation: StoreOperation, to draft: inout Contents, _ report: inout CommitReport
    ) throws(StoreFault) {
        switch operation {
        case .accept(let message):
            guard message.recipients.allSatisfy({ $0.due != nil }) else { throw .broken("a new recipient is held") }
            try Self.accept(message, &draft)
        case .restore(let message): try Self.accept(message, &draft)
        case .spill(let id, let offset, let octets):
            guard draft.messages[id] == nil else { throw .broken("spill to an accepted message") }
            var content = draft.content[id] ?? []
            guard UInt64(content.count) == offset else { throw .broken("spill with a gap") }
            content += octets
            draft.content[id] = content
            draft.unfinished.insert(id)
            draft.lastMessageID = max(draft.lastMessageID, id)
        case .probe(let id):
            guard draft.messages[id] == nil, draft.content[id] == nil else {
                throw .broken("a probe with another's id")
            }
            draft.content[id] = []
            draft.unfinished.insert(id)
            draft.lastMessageID = max(draft.lastMessageID, id)
        case .discard(let id):
            guard draft.messages[id] == nil else { throw .broken("discard of an accepted message") }
            draft.content[id] = nil
            draft.unfinished.remove(id)
        case .settle(let id, let changes): try Self.settle(id, changes, &draft)
        case .exchange(let messages, let id, let changes):
            for message in messages { try Self.accept(message, &draft) }
            try Self.settle(id, changes, &draft)
        case .move(let moves):
            for move in moves { Self.move(move, &draft) }
        case .quarantine(let key): draft.due[key] = nil
        case .destination(let route, let record): draft.destinations[route] = record
        // Nothing damages what is not on a disk.
        case .repair: break
        case .operate(let order, let now):
            var numbers: [UInt32] = []
            for record in draft.recipients[order.message]?.values.sorted(by: { $0.number < $1.number }) ?? [] {
                guard order.concerns(record.number), let change = order.verb.change(record, now: now) else { continue }
                try Self.settle(order.message, [change], &draft)
                numbers.append(record.number)
            }
            report.operated.append(numbers)
        }
    }

    private static func accept(_ message: NewMessage, _ draft: inout Contents) throws(StoreFault) {
        let id = message.record.id
        guard draft.messages[id] == nil, !message.recipients.isEmpty else { throw .broken("accepted twice or empty") }
        let spilled = draft.content[id] ?? []
        guard UInt64(spilled.count) == message.contentOffset,
            message.record.contentOctetCount == message.contentOffset + UInt64(message.content.count)
        else { throw .broken("content does not add up") }
        draft.messages[id] = message.record
        draft.content[id] = spilled + message.content
        draft.unfinished.remove(id)
        draft.lastMessageID = max(draft.lastMessageID, id)
        for recipient in message.recipients {
            guard draft.recipients[id]?[recipient.number] == nil else {
                throw .broken("a new recipient has another's number")
            }
            Self.put(recipient, id, &draft)
        }
    }

    private static func settle(_ id: MessageID, _ changes: [RecipientChange], _ draft: inout Contents)
        throws(StoreFault)
    {
        for change in changes {
            guard let before = draft.recipients[id]?[change.number], before.due == change.dueBefore else {
                let due = draft.recipients[id]?[change.number].map { $0.due?.microseconds ?? 0 }
                throw .broken(
                    "\(id.text)/\(change.number) is due at \(due.map(String.init) ?? "-"), and the change says "
                        + "\(change.dueBefore?.microseconds ?? 0)")
            }
            if let due = before.due { draft.due[Self.key(id, change.number, due)] = nil }
            draft.recipients[id]?[change.number] = nil
            if let after = change.after {
                guard after.number == change.number, !(before.isEnded && !after.isEnded) else {
                    throw .broken("an ended recipient cannot be queued again")
                }
                Self.put(after, id, &draft)
            }
        }
        if draft.recipients[id]?.isEmpty ?? false {
            draft.recipients[id] = nil
            draft.messages[id] = nil
            draft.content[id] = nil
        }
    }

    private static func move(_ move: DueMove, _ draft: inout Contents) {
        let key = move.from.recipient
        guard draft.due[move.from] != nil, var record = draft.recipients[key.message]?[key.number] else { return }
        draft.due[move.from] = nil
        record.due = move.to
        Self.put(record, key.message, &draft)
    }

    private static func put(_ record: RecipientRecord, _ id: MessageID, _ draft: inout Contents) {
        draft.recipients[id, default: [:]][record.number] = record
        if let due = record.due { draft.due[Self.key(id, record.number, due)] = (record.destination, record.flow) }
    }

    private static func key(_ id: MessageID, _ number: UInt32, _ due: Timestamp) -> DueKey {
        DueKey(time: due, recipient: RecipientKey(message: id, number: number))
    }

    // MARK: - Reading

    package func due(after: DueKey?, through: Timestamp, limit: Int) throws(StoreFault) -> DuePage {
        let keys = self.sortedDue ?? self.contents.due.keys.sorted()
        self.sortedDue = keys
        var entries: [DueEntry] = []
        for key in keys {
            if let after, key <= after { continue }
            guard key.time <= through else { return DuePage(entries: entries, hasMore: false, next: key.time) }
            guard entries.count < limit else { return DuePage(entries: entries, hasMore: true, next: nil) }
            guard let entry = self.contents.due[key] else { continue }
            entries.append(DueEntry(key: key, destination: entry.destination, flow: entry.flow))
        }
        return DuePage(entries: entries, hasMore: false, next: nil)
    }

    package func load(_ keys: [DueKey]) throws(StoreFault) -> LoadedWork {
        var work = LoadedWork()
        for key in keys {
            guard let message = self.contents.messages[key.recipient.message],
                let recipient = self.contents.recipients[key.recipient.message]?[key.recipient.number],
                recipient.due == key.time
            else { continue }
            work.add(recipient, of: message)
        }
        return work
    }

    package func content(_ message: MessageID, offset: UInt64, count: Int) throws(StoreFault) -> [UInt8]? {
        guard let record = self.contents.messages[message], let content = self.contents.content[message] else {
            return nil
        }
        let whole = record.prefix + content
        guard offset < UInt64(whole.count) else { return [] }
        return Array(whole[Int(offset)...].prefix(count))
    }

    package func page(
        after: MessageID?, messageLimit: Int, recipientLimit: Int
    ) throws(StoreFault) -> MessagePage {
        let ids = self.contents.messages.keys.sorted().filter { id in after.map { id > $0 } ?? true }
        var page = MessagePage()
        var recipientCount = 0
        for id in ids.prefix(messageLimit) where recipientCount < recipientLimit {
            guard let message = try self.message(id) else { continue }
            page.last = id
            page.messages.append(message)
            recipientCount += message.recipients.count
        }
        return page
    }

    package func message(_ id: MessageID) throws(StoreFault) -> StoredMessage? {
        guard let record = self.contents.messages[id] else { return nil }
        let recipients = self.contents.recipients[id]?.values.sorted { $0.number < $1.number } ?? []
        return StoredMessage(record: record, recipients: recipients)
    }

    package func counts() throws(StoreFault) -> QueueCounts {
        QueueCounts(
            messages: self.contents.messages.count,
            recipients: self.contents.recipients.values.reduce(0) { $0 + $1.count },
            scheduled: self.contents.due.count)
    }

    package func destinations(limit: Int) throws(StoreFault) -> [(route: Route, record: DestinationRecord)] {
        let sorted = self.contents.destinations.sorted { $0.key.octets.lexicographicallyPrecedes($1.key.octets) }
        return sorted.prefix(limit).map { (route: $0.key, record: $0.value) }
    }

    package func recover() throws(StoreFault) -> RecoveryReport {
        let count = self.contents.unfinished.count
        for id in self.contents.unfinished { self.contents.content[id] = nil }
        self.contents.unfinished = []
        return RecoveryReport(
            lastMessageID: self.contents.lastMessageID, discardedCount: count, repairedDueCount: 0)
    }

    /// Whether content is there without its message: true only while a large message is arriving.
    package var hasLeftovers: Bool { !self.contents.unfinished.isEmpty }
}

extension LoadedWork {
    /// Adds a recipient to its message, which is the last one if entries of one message follow each other.
    package mutating func add(_ recipient: RecipientRecord, of message: MessageRecord) {
        if self.messages.last?.record.id == message.id {
            self.messages[self.messages.count - 1].recipients.append(recipient)
        } else {
            self.messages.append(StoredMessage(record: message, recipients: [recipient]))
        }
    }
}
