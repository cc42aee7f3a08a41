// SPDX-License-Identifier: Apache-2.0
//
// Orders: a transaction for each message.

import MailTypes
import PipeCore
import QueueCore
import Unix

extension OperatorConnection {
    /// `flush TARGET [dry-run]`, and so on; `reroute TARGET ROUTE [dry-run]`.
    func order(_ frame: Frame, _ question: Question) throws(FrameFault) {
        let fieldCount = frame.verb == .reroute ? 2 : 1
        let isDry = frame.fieldCount == fieldCount + 1
        try frame.expectFields(isDry ? fieldCount + 1 : fieldCount)
        if isDry, !frame[fieldCount].elementsEqual("dry-run".utf8) { throw FrameFault(.badField, frame.verb) }
        let verb: OperatorVerb
        switch frame.verb {
        case .flush: verb = .flush
        case .hold: verb = .hold
        case .release: verb = .release
        case .remove: verb = .remove
        case .bounce: verb = .bounce
        case .reroute:
            guard let route = Route(octets: frame[1]), route != .bounce else {
                return question.fail(
                    "\"\(frame[1].printableText)\" is no route: write remote:example.org, remote:[192.0.2.1]:25 or local:USER"
                )
            }
            verb = .reroute(route)
        default: throw FrameFault(.outOfPlace, frame.verb)
        }
        if frame[0].elementsEqual("all".utf8) {
            self.start(OrderAnswer(question, verb, isDry: isDry, nil), question.channel)
        } else if let message = self.message(frame[0], question.channel) {
            self.start(OrderAnswer(question, verb, isDry: isDry, message), question.channel)
        }
    }
}

/// The answer to an order: what has changed, or with `dry-run` what would.
final class OrderAnswer: LongAnswer {
    private let question: Question
    private let verb: OperatorVerb
    private let isDry: Bool
    /// The one message that is meant; nil: all that match.
    private let only: StoredMessage?
    private var walk: QueueWalk
    private var messageCount = 0
    private var changedCount = 0
    private var underWayCount = 0
    /// Orders that are not committed.
    private var pendingCount = 0
    private var isEnded = false

    init(_ question: Question, _ verb: OperatorVerb, isDry: Bool, _ only: StoredMessage?) {
        self.question = question
        self.verb = verb
        self.isDry = isDry
        self.only = only
        self.walk = QueueWalk(question.filter, through: question.manager.lastMessageID)
    }

    func step() {
        guard self.pendingCount == 0, !self.isEnded, self.question.connection.isWritable else { return }
        let manager = self.question.manager
        let found: [FilteredMessage]
        let isLast: Bool
        if let only {
            found = [FilteredMessage(only, self.question.filter, manager.scheduler, now: WallClock.now())].compactMap {
                $0
            }
            isLast = true
        } else {
            do throws(StoreFault) { found = try self.walk.next(manager) } catch {
                return self.question.fail("the queue cannot be read: \(QueueLog.text(error))")
            }
            isLast = self.walk.isAtEnd
        }
        self.isEnded = isLast
        // Held until all of the page are under way: none of them may end the answer.
        self.pendingCount = 1
        for message in found { self.isDry ? self.tell(message) : self.give(message) }
        self.ended()
    }

    private func isUnderWay(_ recipient: RecipientRecord, _ found: FilteredMessage) -> Bool {
        self.question.manager.scheduler.isUnderWay(recipient, of: found.message.record.id)
    }

    /// Says what would change.
    private func tell(_ found: FilteredMessage) {
        let id = found.message.record.id
        let now = WallClock.now()
        var isAny = false
        for recipient in found.matching {
            if self.isUnderWay(recipient, found) {
                self.underWayCount += 1
            } else if self.verb.change(recipient, now: now) != nil {
                self.changedCount += 1
            } else {
                continue
            }
            isAny = true
            self.question.row(
                [
                    ("recipient", id.octets + [0x2F] + .init(decimal: recipient.number)), ("id", id.octets),
                    ("to", recipient.forwardPath.octets), ("route", recipient.route.octets),
                    ("status", self.question.connection.status(recipient, id)),
                ])
        }
        if isAny { self.messageCount += 1 }
    }

    private func give(_ found: FilteredMessage) {
        let message = found.message
        let isWhole = found.matching.count == message.recipients.count
        let order = OperatorOrder(
            self.verb, message.record.id, only: isWhole ? nil : Set(found.matching.map(\.number)))
        self.underWayCount += found.matching.count { self.isUnderWay($0, found) }
        self.messageCount += 1
        self.pendingCount += 1
        self.question.manager.order(order, message) { numbers in
            // Why not what was to be expected: outcomes that were on their way to the store stand in front of the order.
            let changed = Set(numbers)
            for recipient in message.recipients where changed.contains(recipient.number) {
                QueueLog.operated(self.verb, message.record.id, recipient)
            }
            self.changedCount += numbers.count
            self.ended()
        }
    }

    /// One of what the page waits for has ended.
    private func ended() {
        self.pendingCount -= 1
        guard self.pendingCount == 0 else { return }
        if self.isEnded { self.conclude() } else { self.question.stepSoon() }
    }

    private func conclude() {
        let subject = self.only.map { ("id", $0.record.id.octets) } ?? ("messages", [UInt8](decimal: self.messageCount))
        var pairs = [
            subject, ("changed", [UInt8](decimal: self.changedCount)),
            ("under-way", [UInt8](decimal: self.underWayCount)),
        ]
        if self.isDry { pairs.append(("dry-run", Array("true".utf8))) }
        self.question.row(pairs)
        self.question.end(1)
    }
}
