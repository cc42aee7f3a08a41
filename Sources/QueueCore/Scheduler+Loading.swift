// SPDX-License-Identifier: Apache-2.0
//
// How recipients come into memory and leave it.

import MailTypes

extension Scheduler {
    // MARK: - The cursor

    /// There is, or will be, an entry due at `time`: the cursor must not be behind it.
    mutating func noteDue(_ time: Timestamp) {
        self.nextDue = self.nextDue.map { min($0, time) } ?? time
        if self.isLoading { self.loweredWhileLoading = self.loweredWhileLoading.map { min($0, time) } ?? time }
        if let cursor = self.cursor, time <= cursor.time { self.cursor = DueKey.before(time) }
    }

    /// Asks for the next page if something is due and there is room, for recipients and for moves that wait for their
    /// commit: otherwise a destination that is down would bring its whole backlog into memory as moves.
    mutating func load(_ now: Timestamp, _ actions: inout [Action]) {
        guard !self.isPaused, !self.isStopping, !self.isLoading, let next = self.nextDue, next <= now,
            self.recipientCount < self.limits.recipientCountMax * 3 / 4,
            self.moving.count < self.limits.recipientCountMax
        else { return }
        self.isLoading = true
        self.nextDue = nil
        self.loweredWhileLoading = nil
        actions.append(.loadDue(after: self.cursor, through: now, limit: self.limits.pageEntryCount))
    }

    /// Goes through a page of the index: takes what there is room for, and gives the rest other times.
    mutating func take(_ page: DuePage, _ now: Timestamp, _ actions: inout [Action]) {
        guard self.isLoading else { return }
        var keys: [DueKey] = []
        var moves: [DueMove] = []
        for key in page.undecodable { actions.append(.quarantine(key)) }
        var passed = 0
        self.countActive(entryCount: page.entries.count)
        for entry in page.entries {
            // A full window ends the page; what is left is found again from the cursor.
            guard self.recipientCount + keys.count < self.limits.recipientCountMax * 7 / 8 else { break }
            passed += 1
            self.cursor = entry.key
            let message = entry.key.recipient.message
            if self.operating[message] != nil {
                self.passOver(message, entry.key.time)
                continue
            }
            if let move = self.moving[entry.key.recipient] {
                if entry.key.time != move.from {
                    let time = min(move.passed ?? entry.key.time, entry.key.time)
                    self.moving[entry.key.recipient]?.passed = time
                }
                continue
            }
            guard self.messages[message]?.recipients.index(of: entry.key.recipient.number) == nil else { continue }
            let place = self.place(entry.destination)
            if let time = self.postponement(place, entry.key, entry.flow.sender, now) {
                self.move(entry.key, to: time, &moves)
            } else {
                self.destinations[place]?.loadingCount += 1
                self.loadingPlaces.append(place)
                self.senders.add(entry.flow.sender, recipients: 1)
                self.loadingSenders.append(entry.flow.sender)
                keys.append(entry.key)
            }
        }
        // Why: an undecodable key at the end of a page must be passed too, or the next page starts before it.
        if passed == page.entries.count, let last = page.undecodable.max() {
            self.cursor = self.cursor.map { max($0, last) } ?? last
        }
        let next = page.hasMore || passed < page.entries.count ? now : page.next
        if let next { self.nextDue = self.nextDue.map { min($0, next) } ?? next }
        if let lowered = self.loweredWhileLoading, let cursor = self.cursor, lowered <= cursor.time {
            self.cursor = DueKey.before(lowered)
        }
        self.loweredWhileLoading = nil
        if !moves.isEmpty { actions.append(.move(moves)) }
        if keys.isEmpty {
            self.isLoading = false
        } else {
            actions.append(.loadWork(keys))
        }
    }

    /// The recipients that were asked for.
    mutating func take(_ work: LoadedWork, _ now: Timestamp, _ actions: inout [Action]) {
        guard self.isLoading else { return }
        self.isLoading = false
        for place in self.loadingPlaces { self.destinations[place]?.loadingCount = 0 }
        for sender in self.loadingSenders { self.senders.add(sender, recipients: -1) }
        self.loadingSenders.removeAll(keepingCapacity: true)
        for key in work.undecodable { actions.append(.quarantine(key)) }
        var moves: [DueMove] = []
        for message in work.messages {
            for recipient in message.recipients {
                guard let due = recipient.due else { continue }
                let key = RecipientKey(message: message.record.id, number: recipient.number)
                if self.operating[key.message] != nil {
                    self.passOver(key.message, due)
                    continue
                }
                let place = self.place(recipient.destination)
                if self.keep(recipient, of: message.record, at: place, now) { continue }
                if let until = self.destinations[place]?.suspendedUntil(at: now) {
                    guard !self.isExpiredInVain(recipient, message.record, now) else {
                        self.expire(recipient, of: message.record, now, &actions)
                        continue
                    }
                    guard !self.isDelayDue(recipient, message.record, now) else {
                        self.tellDelay(recipient, of: message.record, now, &actions)
                        continue
                    }
                    self.move(DueKey(time: due, recipient: key), to: self.spread(after: until), &moves)
                } else {
                    self.noteDue(due)
                }
            }
        }
        for place in self.loadingPlaces { self.listIdle(place, now) }
        self.loadingPlaces.removeAll(keepingCapacity: true)
        if !moves.isEmpty { actions.append(.move(moves)) }
    }

    /// Counts the destinations that have work, but not for each page: every destination is looked at, and thousands of them
    /// would be for a few hundred entries. So the count costs each entry one look.
    private mutating func countActive(entryCount: Int) {
        self.entryCountSinceActiveCount += entryCount
        guard self.entryCountSinceActiveCount >= self.destinations.count else { return }
        self.entryCountSinceActiveCount = 0
        self.activeCount = self.destinations.indices.count { place in
            self.destinations[place]?.isIdle == false && self.destinations[place]?.suspension == nil
        }
    }

    private mutating func passOver(_ message: MessageID, _ due: Timestamp) {
        guard let floor = self.operating[message]?.floor else { return }
        self.operating[message]?.floor = min(floor, due)
    }

    /// Mail just accepted goes straight into memory where there is room.
    mutating func accept(
        _ record: MessageRecord, _ recipients: [RecipientRecord], _ now: Timestamp, _ actions: inout [Action]
    ) {
        var moves: [DueMove] = []
        for recipient in recipients {
            guard let due = recipient.due else { continue }
            // What is not taken now is found by the cursor.
            guard !self.isPaused, !self.isStopping, self.operating[record.id] == nil else {
                self.noteDue(due)
                continue
            }
            let key = RecipientKey(message: record.id, number: recipient.number)
            // The cursor may have found it before its acceptance was told here.
            guard self.moving[key] == nil, self.messages[record.id]?.recipients.index(of: key.number) == nil else {
                continue
            }
            let place = self.place(recipient.destination)
            if let time = self.postponement(place, DueKey(time: due, recipient: key), recipient.flow.sender, now) {
                self.move(DueKey(time: due, recipient: key), to: time, &moves)
            } else if !self.keep(recipient, of: record, at: place, now) {
                self.noteDue(due)
                self.listIdle(place, now)
            }
        }
        if !moves.isEmpty { actions.append(.move(moves)) }
    }

    /// Puts a recipient into memory and into its destination's line; false if it does not fit.
    private mutating func keep(
        _ recipient: RecipientRecord, of record: MessageRecord, at place: Int, _ now: Timestamp
    ) -> Bool {
        guard self.messages[record.id]?.recipients.index(of: recipient.number) == nil else { return true }
        guard self.destinations[place]?.isSuspended(at: now) == false,
            self.recipientCount < self.limits.recipientCountMax
        else { return false }
        self.messages[record.id, default: MessageWork(record: record)].insert(RecipientWork(record: recipient))
        self.recipientCount += 1
        self.recipientCounts[recipient.destination.agentKind.rawValue] += 1
        self.senders.add(recipient.flow.sender, recipients: 1)
        self.destinations[place]?.waiting.add(recipient.number, of: record.id, recipient.flow)
        self.makeReady(place, now)
        return true
    }

    /// Takes a recipient out of memory.
    mutating func drop(_ number: UInt32, of message: MessageID) {
        guard let index = self.messages[message]?.recipients.index(of: number),
            let kind = self.messages[message]?.recipients[index].record.destination.agentKind,
            let sender = self.messages[message]?.recipients[index].record.flow.sender
        else { return }
        self.recipientCount -= 1
        self.recipientCounts[kind.rawValue] -= 1
        self.senders.add(sender, recipients: -1)
        if self.messages[message]?.recipients.count == 1 {
            self.messages[message] = nil
        } else {
            self.messages[message]?.remove(at: index)
        }
    }

    // MARK: - What does not fit

    /// Whether a destination may have one recipient more in memory, of this sender. One that is down may have none.
    private func hasShare(_ place: Int, _ sender: UInt32, _ now: Timestamp) -> Bool {
        guard let destination = self.destinations[place], !destination.isSuspended(at: now) else { return false }
        let count = destination.waiting.recipientCount + destination.loadingCount
        if destination.isProbing(at: now) {
            // One delivery's worth is the probe; the rest waits for what it tells.
            return destination.window.inFlightCount == 0 && count < self.limits.recipientCountPerDeliveryMax
        }
        let most = self.limits.recipientCountMax
        let kindCount = self.recipientCounts[destination.kind.rawValue] + destination.loadingCount
        // Why: what others have waiting must not keep out a sender who has little. But thousands of them who write to one slow
        // host must not keep out everybody else.
        if self.senders.isSmall(sender), count < most / 4, kindCount < most * 11 / 16 { return true }
        let share = min(2_000, max(most / (2 * max(self.activeCount, 1)), 100))
        return count < share && kindCount < most * 5 / 8
    }

    /// When to look again at mail for a destination that is down or has its share of memory; nil if it can be taken.
    private mutating func postponement(
        _ place: Int, _ key: DueKey, _ sender: UInt32, _ now: Timestamp
    ) -> Timestamp? {
        guard !self.hasShare(place, sender, now), let destination = self.destinations[place] else { return nil }
        if let suspension = destination.suspension {
            // Why: mail for a destination that is down must still be able to expire, and its sender must be told of the
            // delay; an id tells the age.
            let accepted = Timestamp(microseconds: key.recipient.message.rawValue)
            if destination.isSuspended(at: now) {
                // An id ahead of the clock, which went back, tells nothing; the message itself does.
                let isOld = accepted > now || now.elapsed(since: accepted) >= self.patience
                return isOld ? nil : self.spread(after: suspension.suspendedUntil)
            }
            return self.spread(after: now.advanced(by: min(self.limits.retry.minimum, .seconds(60))))
        }
        // Why: a destination that becomes faster must not wait long for what was put off when it was slow.
        return self.destinations[place]?.spread(now, limit: min(self.limits.retry.minimum, .seconds(30)))
    }

    /// A time shortly after `time`, by chance, so that not all of a destination's mail comes in one page.
    func jittered(_ time: Timestamp, _ random: UInt64, within span: Duration) -> Timestamp {
        time.advanced(by: span * Int(random & 1023) / 1024)
    }

    /// From this age on it has to be looked at what mail for a destination that is down is owed.
    private var patience: Duration { min(self.limits.lifetime, self.limits.delayReportAge ?? self.limits.lifetime) }

    private mutating func spread(after time: Timestamp) -> Timestamp {
        self.jittered(time, self.random.next(), within: self.limits.retry.minimum / 8)
    }

    /// Gives all mail that waits in memory for a destination that has gone down the time of its next probe.
    mutating func clear(_ place: Int, until: Timestamp, _ now: Timestamp, _ actions: inout [Action]) {
        var moves: [DueMove] = []
        while let job = self.destinations[place]?.waiting.take() {
            for number in job.numbers {
                guard self.operating[job.message] == nil, let work = self.messages[job.message],
                    let index = work.recipients.index(of: number), work.recipients[index].phase == .waiting,
                    // An operator may have led it elsewhere since.
                    work.recipients[index].record.destination == self.destinations[place]?.route
                else { continue }
                let recipient = work.recipients[index].record
                self.drop(number, of: job.message)
                guard let due = recipient.due else { continue }
                if self.isExpiredInVain(recipient, work.record, now) {
                    self.expire(recipient, of: work.record, now, &actions)
                    continue
                }
                let key = RecipientKey(message: job.message, number: number)
                self.move(DueKey(time: due, recipient: key), to: self.spread(after: until), &moves)
            }
        }
        if !moves.isEmpty { actions.append(.move(moves)) }
    }

    private mutating func move(_ key: DueKey, to time: Timestamp, _ moves: inout [DueMove]) {
        self.moving[key.recipient] = PendingMove(from: key.time)
        moves.append(DueMove(from: key, to: time))
    }

    mutating func conclude(_ moves: [DueMove]) {
        for move in moves {
            let pending = self.moving.removeValue(forKey: move.from.recipient)
            self.noteDue(min(pending?.passed ?? move.to, move.to))
        }
    }
}
