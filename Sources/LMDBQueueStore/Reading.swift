// SPDX-License-Identifier: Apache-2.0

import LMDB
package import MailTypes
package import QueueCore

extension LMDBQueueStore {
    package func due(after: DueKey?, through: Timestamp, limit: Int) throws(StoreFault) -> DuePage {
        try self.read { transaction throws(LMDBError) in
            var entries: [DueEntry] = []
            var undecodable: [DueKey] = []
            var hasMore = false
            var next: Timestamp?
            let cursor = try transaction.cursor(self.dues)
            /// Takes one entry in; false at the end of the page.
            func take(_ key: Span<UInt8>, _ value: Span<UInt8>) -> Bool {
                // A key of another length cannot be ours; it is passed over.
                guard let place = dueKey(key) else { return true }
                if let after, place <= after { return true }
                guard place.time <= through else {
                    next = place.time
                    return false
                }
                guard entries.count + undecodable.count < limit else {
                    hasMore = true
                    return false
                }
                do throws(RecordFault) {
                    entries.append(try DueEntry(key: place, value: value))
                } catch {
                    undecodable.append(place)
                }
                return true
            }
            let start =
                after
                ?? DueKey(
                    time: Timestamp(microseconds: 0),
                    recipient: RecipientKey(message: MessageID(rawValue: 0), number: 0))
            var isFound = try cursor.seek(dueKey(start).span) { take($0, $1) }
            while isFound == true { isFound = try cursor.next { take($0, $1) } }
            return DuePage(entries: entries, hasMore: hasMore, next: next, undecodable: undecodable)
        }
    }

    package func load(_ keys: [DueKey]) throws(StoreFault) -> LoadedWork {
        defer { self.environment.noteTouched(keys.count * 8_192) }
        return try self.read { transaction throws(LMDBError) in
            var work = LoadedWork()
            for key in keys {
                do throws(RecordFault) {
                    guard let recipient = try self.recipient(key.recipient, transaction) else {
                        // An entry without a record is left-over; nothing is owed for it.
                        work.undecodable.append(key)
                        continue
                    }
                    guard recipient.due == key.time else { continue }
                    if let last = work.messages.last?.record, last.id == key.recipient.message {
                        work.add(recipient, of: last)
                    } else if let record = try self.record(key.recipient.message, transaction) {
                        work.add(recipient, of: record)
                    } else {
                        work.undecodable.append(key)
                    }
                } catch {
                    work.undecodable.append(key)
                }
            }
            return work
        }
    }

    /// A lookup that failed in LMDB is a record that cannot be read, too.
    private func recipient(
        _ key: RecipientKey, _ transaction: borrowing ReadTransaction
    ) throws(RecordFault) -> RecipientRecord? {
        let octets: [UInt8]?
        do throws(LMDBError) {
            octets = try transaction.value(self.recipients, key: numberedKey(key.message, key.number).span) {
                Array(copying: $0)
            }
        } catch { throw RecordFault() }
        guard let octets else { return nil }
        return try RecipientRecord(number: key.number, octets: octets)
    }

    private func record(
        _ id: MessageID, _ transaction: borrowing ReadTransaction
    ) throws(RecordFault) -> MessageRecord? {
        let octets: [UInt8]?
        do throws(LMDBError) {
            octets = try transaction.value(self.messages, key: messageKey(id).span) { Array(copying: $0) }
        } catch { throw RecordFault() }
        guard let octets else { return nil }
        return try MessageRecord(id: id, octets: octets)
    }

    package func content(_ message: MessageID, offset: UInt64, count: Int) throws(StoreFault) -> [UInt8]? {
        defer { self.environment.noteTouched(min(max(count, 65_536), 1 << 30)) }
        return try self.read { transaction throws(LMDBError) in
            let record: MessageRecord
            do throws(RecordFault) {
                guard let found = try self.record(message, transaction) else { return nil }
                record = found
            } catch { return nil }
            var octets: [UInt8] = []
            guard count > 0, offset < record.octetCount else { return octets }
            let count = min(count, Int(clamping: record.octetCount - offset))
            octets.reserveCapacity(count)
            let prefixCount = UInt64(record.prefix.count)
            if offset < prefixCount { octets += record.prefix[Int(offset)...].prefix(count) }
            let start = offset > prefixCount ? offset - prefixCount : 0
            try self.appendContent(message, from: start, upTo: count, to: &octets, transaction)
            return octets
        }
    }

    /// Appends content from `start` on until `octets` has `count`, or to the first hole: what stands behind it is
    /// never handed out as if it were what should stand there.
    private func appendContent(
        _ message: MessageID, from start: UInt64, upTo count: Int, to octets: inout [UInt8],
        _ transaction: borrowing ReadTransaction
    ) throws(LMDBError) {
        guard octets.count < count else { return }
        let size = self.contentChunkOctetCount
        var skip = Int(start % UInt64(size))
        var number = UInt32(truncatingIfNeeded: start / UInt64(size))
        let cursor = try transaction.cursor(self.contents)
        var part: [UInt8] = []
        /// Whether the chunk can have one behind it.
        var isFull = false
        func take(_ key: Span<UInt8>, _ value: Span<UInt8>) -> Bool {
            guard recipientKey(key) == RecipientKey(message: message, number: number), value.count <= size else {
                return false
            }
            isFull = value.count == size
            let end = min(value.count, skip + (count - octets.count))
            if skip < end { part = Array(copying: value.extracting(skip..<end)) } else { part = [] }
            skip = 0
            number &+= 1
            return true
        }
        var isFound = try cursor.seek(numberedKey(message, number).span) { take($0, $1) }
        while isFound == true {
            octets += part
            guard octets.count < count, isFull else { return }
            isFound = try cursor.next { take($0, $1) }
        }
    }

    /// How many octets of a message, prefix and content, are there without a hole from its beginning on. Looks at the
    /// keys and the lengths of the content alone, so that it can be asked before a large message is read.
    package func wholeOctetCount(of record: MessageRecord) throws(StoreFault) -> UInt64 {
        let size = UInt64(self.contentChunkOctetCount)
        var octetCount: UInt64 = 0
        // The keys are on pages of their own; one takes less than an eighth of a KiB.
        defer { self.environment.noteTouched(Int(clamping: 8_192 + octetCount / size * 128)) }
        try self.read { transaction throws(LMDBError) in
            let cursor = try transaction.cursor(self.contents)
            var number: UInt32 = 0
            func take(_ key: Span<UInt8>, _ value: Span<UInt8>) -> Bool {
                let wanted = min(size, record.contentOctetCount - octetCount)
                guard wanted > 0, recipientKey(key) == RecipientKey(message: record.id, number: number) else {
                    return false
                }
                octetCount += min(wanted, UInt64(value.count))
                number &+= 1
                return UInt64(value.count) == wanted
            }
            var isFound = try cursor.seek(numberedKey(record.id, number).span) { take($0, $1) }
            while isFound == true { isFound = try cursor.next { take($0, $1) } }
        }
        return UInt64(record.prefix.count) + octetCount
    }

    package func page(
        after: MessageID?, messageLimit: Int, recipientLimit: Int
    ) throws(StoreFault) -> MessagePage {
        guard after?.rawValue != .max else { return MessagePage() }
        var touchedCount = 0
        defer { self.environment.noteTouched(touchedCount) }
        return try self.read { transaction throws(LMDBError) in
            let start = after.map { $0.rawValue &+ 1 } ?? 0
            var ids: [MessageID] = []
            let cursor = try transaction.cursor(self.messages)
            func take(_ key: Span<UInt8>) -> Bool {
                guard ids.count < messageLimit else { return false }
                if let id = messageID(key) { ids.append(id) }
                return true
            }
            var isFound = try cursor.seek(messageKey(MessageID(rawValue: start)).span) { key, _ in take(key) }
            while isFound == true { isFound = try cursor.next { key, _ in take(key) } }
            var page = MessagePage()
            var recipientCount = 0
            for id in ids where recipientCount < recipientLimit {
                page.last = id
                guard let message = try self.stored(id, transaction) else {
                    page.unreadable.append(id)
                    continue
                }
                recipientCount += message.recipients.count + message.unreadableCount
                page.messages.append(message)
            }
            // A page or two for each message, and for a few recipients.
            touchedCount = ids.count * 8_192 + recipientCount * 256
            return page
        }
    }

    package func message(_ id: MessageID) throws(StoreFault) -> StoredMessage? {
        defer { self.environment.noteTouched(8_192) }
        return try self.read { transaction throws(LMDBError) in try self.stored(id, transaction) }
    }

    private func stored(
        _ id: MessageID, _ transaction: borrowing ReadTransaction
    ) throws(LMDBError) -> StoredMessage? {
        let record: MessageRecord
        do throws(RecordFault) {
            guard let found = try self.record(id, transaction) else { return nil }
            record = found
        } catch { return nil }
        var message = StoredMessage(record: record, recipients: [])
        let cursor = try transaction.cursor(self.recipients)
        func take(_ key: Span<UInt8>, _ value: Span<UInt8>) -> Bool {
            guard let place = recipientKey(key), place.message == id else { return false }
            if let recipient = try? RecipientRecord(number: place.number, octets: Array(copying: value)) {
                message.recipients.append(recipient)
            } else {
                message.unreadableCount += 1
            }
            return true
        }
        var isFound = try cursor.seek(numberedKey(id, 0).span) { take($0, $1) }
        while isFound == true { isFound = try cursor.next { take($0, $1) } }
        return message
    }

    /// Whether anything is kept under an id: also what has no envelope that could be read. True if it cannot be told.
    package func hasTraces(of id: MessageID) -> Bool {
        defer { self.environment.noteTouched(8_192) }
        do throws(LMDBError) {
            return try self.environment.read { transaction throws(LMDBError) in
                for database in [self.messages, self.recipients, self.contents] {
                    let cursor = try transaction.cursor(database)
                    if try cursor.seek(messageKey(id).span, { key, _ in messageID(key) == id }) == true { return true }
                }
                return try transaction.value(self.main, key: MainKey.unfinished(id).span) { _ in true } ?? false
            }
        } catch { return true }
    }

    package func counts() throws(StoreFault) -> QueueCounts {
        try self.read { transaction throws(LMDBError) in
            QueueCounts(
                messages: try transaction.count(self.messages), recipients: try transaction.count(self.recipients),
                scheduled: try transaction.count(self.dues))
        }
    }

    package func destinations(limit: Int) throws(StoreFault) -> [(route: Route, record: DestinationRecord)] {
        try self.read { transaction throws(LMDBError) in
            var found: [(route: Route, record: DestinationRecord)] = []
            let cursor = try transaction.cursor(self.suspensions)
            var isFound: Bool? = true
            while isFound == true, found.count < limit {
                isFound = try cursor.next { key, value in
                    // What cannot be read is only a hint lost: the destination is tried.
                    if let route = Route(octets: Array(copying: key)),
                        let record = try? DestinationRecord(octets: Array(copying: value))
                    {
                        found.append((route: route, record: record))
                    }
                    return true
                }
            }
            return found
        }
    }
}
