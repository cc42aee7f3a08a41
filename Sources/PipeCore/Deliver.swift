// SPDX-License-Identifier: Apache-2.0
//
// The dialect `deliver` (pipes.md §3): messages out of the queue.

package import MailTypes

/// What opens a delivery: one message, to some recipients of one route.
package struct Delivery: Equatable, Sendable {
    package let id: MessageID
    package let reversePath: ReversePath
    /// Of the whole content, what the queue put in front included.
    package let octetCount: UInt64
    package let bodyType: BodyType
    package let route: Route
    package let arrival: Timestamp
    /// What the sender wishes about reports.
    package let dsn: MessageDSN
    /// What the message has to do with SMTPUTF8.
    package let unicode: UnicodeDemand
    /// One line about the client that the message came from; told with the route `bounce:` only.
    package let trace: [UInt8]

    package init(
        id: MessageID, reversePath: ReversePath, octetCount: UInt64, bodyType: BodyType, route: Route,
        arrival: Timestamp, dsn: MessageDSN = MessageDSN(), unicode: UnicodeDemand = .none, trace: [UInt8] = []
    ) {
        self.unicode = unicode
        self.dsn = dsn
        self.trace = Array(trace.prefix(FrameLimits.fieldOctetCountMax))
        self.id = id
        self.reversePath = reversePath
        self.octetCount = octetCount
        self.bodyType = bodyType
        self.route = route
        self.arrival = arrival
    }
}

/// One recipient of a delivery.
package struct DeliveryRecipient: Equatable, Sendable {
    /// Its number within the message; outcomes are told by it.
    package let number: UInt32
    package let forwardPath: ForwardPath
    /// What the client gave, if an alias led from there to `forwardPath`.
    package let originalForwardPath: ForwardPath?
    /// What the sender wishes about reports.
    package let dsn: RecipientDSN

    package init(
        number: UInt32, forwardPath: ForwardPath, originalForwardPath: ForwardPath?,
        dsn: RecipientDSN = RecipientDSN()
    ) {
        self.dsn = dsn
        self.number = number
        self.forwardPath = forwardPath
        self.originalForwardPath = originalForwardPath
    }
}

/// What is to be reported of a recipient (route `bounce:` only).
package struct RecipientFate: Equatable, Sendable {
    package let number: UInt32
    package let action: ReportAction
    /// Of the kind that the action has.
    package let outcome: DeliveryOutcome
    package let lastAttempt: Timestamp
    /// Of a delay: how long the queue goes on trying.
    package let retryLimit: Timestamp?

    package init(
        number: UInt32, action: ReportAction = .failed, outcome: DeliveryOutcome, lastAttempt: Timestamp,
        retryLimit: Timestamp? = nil
    ) {
        self.action = action
        self.retryLimit = retryLimit
        self.number = number
        self.outcome = outcome
        self.lastAttempt = lastAttempt
    }
}

/// A frame from the queue to an agent.
package enum DeliverRequest: Equatable, Sendable {
    case deliver(Delivery)
    case rcpt(DeliveryRecipient)
    case fate(RecipientFate)
    case go
    case data(ArraySlice<UInt8>)
    /// In front of `noted`: this recipient's mail was to go on to others and could not now, so that it is tried again although
    /// the agent has said `delivered`.
    case owed(number: UInt32)
    case noted
    /// The answers to an exchange.
    case queued(MessageID)
    case refused(Refusal)

    package init(_ frame: Frame) throws(FrameFault) {
        switch frame.verb {
        case .deliver: self = .deliver(try Self.delivery(frame))
        case .rcpt:
            try frame.expectFields(3...5)
            let original: ForwardPath? =
                frame[2].isEmpty
                ? nil : try frame.value(ForwardPath(octets: frame[2], alphabet: .unicodeLocalPart))
            self = .rcpt(
                DeliveryRecipient(
                    number: UInt32(truncatingIfNeeded: try frame.number(0, limit: UInt64(UInt32.max))),
                    forwardPath: try frame.value(ForwardPath(octets: frame[1], alphabet: .unicodeLocalPart)),
                    originalForwardPath: original, dsn: try frame.recipientDSN(from: 3)))
        case .fate:
            self = .fate(try Self.fate(frame))
        case .go:
            try frame.expectFields(0)
            self = .go
        case .data:
            try frame.expectFields(1)
            self = .data(frame[0])
        case .owed:
            try frame.expectFields(1)
            self = .owed(number: UInt32(truncatingIfNeeded: try frame.number(0, limit: UInt64(UInt32.max))))
        case .noted:
            try frame.expectFields(0)
            self = .noted
        case .queued:
            try frame.expectFields(1)
            self = .queued(try frame.value(MessageID(octets: frame[0])))
        case .refused: self = .refused(try Refusal(frame))
        default: throw FrameFault(.outOfPlace, frame.verb)
        }
    }

    private static func fate(_ frame: Frame) throws(FrameFault) -> RecipientFate {
        try frame.expectFields(6...8)
        let action = frame.fieldCount > 6 ? try frame.value(ReportAction(octets: frame[6])) : .failed
        let limit = frame.fieldCount > 7 ? try frame.number(7) : 0
        return RecipientFate(
            number: UInt32(truncatingIfNeeded: try frame.number(0, limit: UInt64(UInt32.max))), action: action,
            outcome: try frame.outcome(action.outcomeKind, from: 1),
            lastAttempt: Timestamp(microseconds: try frame.number(5)),
            retryLimit: limit == 0 ? nil : Timestamp(microseconds: limit))
    }

    private static func delivery(_ frame: Frame) throws(FrameFault) -> Delivery {
        try frame.expectFields(6...10)
        return Delivery(
            id: try frame.value(MessageID(octets: frame[0])),
            reversePath: try frame.value(ReversePath(octets: frame[1], alphabet: .unicodeLocalPart)),
            octetCount: try frame.number(2, limit: 1 << 50),
            bodyType: try frame.value(BodyType(octets: frame[3])),
            route: try frame.value(Route(octets: frame[4])),
            arrival: Timestamp(microseconds: try frame.number(5)),
            dsn: try frame.messageDSN(from: 6),
            unicode: frame.fieldCount > 9 ? try frame.value(UnicodeDemand(octets: frame[9])) : .none,
            trace: frame.fieldCount > 8 ? Array(frame[8]) : [])
    }

    package func append(to octets: inout [UInt8], channel: UInt32) {
        switch self {
        case .deliver(let delivery):
            let start = octets.beginFrame(.deliver, channel)
            octets.appendField(delivery.id.octets)
            octets.appendField(delivery.reversePath.octets)
            octets.appendField(number: delivery.octetCount)
            octets.appendField(delivery.bodyType.octets)
            octets.appendField(delivery.route.octets)
            octets.appendField(number: delivery.arrival.microseconds)
            let isLong = !delivery.trace.isEmpty || delivery.unicode != .none
            octets.appendFields(delivery.dsn, isFilled: isLong)
            if isLong { octets.appendField(delivery.trace) }
            if delivery.unicode != .none { octets.appendField(delivery.unicode.octets) }
            octets.endFrame(start)
        case .rcpt(let recipient):
            let start = octets.beginFrame(.rcpt, channel)
            octets.appendField(number: recipient.number)
            octets.appendField(recipient.forwardPath.octets)
            octets.appendField(recipient.originalForwardPath?.octets ?? [])
            octets.appendFields(recipient.dsn)
            octets.endFrame(start)
        case .fate(let fate):
            let start = octets.beginFrame(.fate, channel)
            octets.appendField(number: fate.number)
            octets.append(outcomeFields: fate.outcome)
            octets.appendField(number: fate.lastAttempt.microseconds)
            if fate.action != .failed || fate.retryLimit != nil { octets.appendField(fate.action.octets) }
            if let limit = fate.retryLimit { octets.appendField(number: limit.microseconds) }
            octets.endFrame(start)
        case .go: octets.appendFrame(.go, channel)
        case .data(let content): octets.appendData(channel, content)
        case .owed(let number):
            let start = octets.beginFrame(.owed, channel)
            octets.appendField(number: number)
            octets.endFrame(start)
        case .noted: octets.appendFrame(.noted, channel)
        case .queued(let id): SubmitAnswer.queued(id).append(to: &octets, channel: channel)
        case .refused(let refusal): SubmitAnswer.refused(refusal).append(to: &octets, channel: channel)
        }
    }
}

/// An address that a recipient's mail goes on to (pipes.md §3, "Forwarding").
package struct Forward: Equatable, Sendable {
    package let reversePath: ReversePath
    package let forwardPath: ForwardPath
    package let meaning: PathMeaning
    /// Whether each copy has a reverse-path of its own, `LOCAL-joe=example.net@…` (VERP).
    package let isVERP: Bool

    package init(
        _ reversePath: ReversePath, _ forwardPath: ForwardPath, _ meaning: PathMeaning = .address, isVERP: Bool = false
    ) {
        self.reversePath = reversePath
        self.forwardPath = forwardPath
        self.meaning = meaning
        self.isVERP = isVERP
    }
}

/// A frame from an agent to the queue.
package enum DeliverAnswer: Equatable, Sendable {
    case want(offset: UInt64, octetCount: Int)
    case outcome(number: UInt32, DeliveryOutcome)
    /// This recipient's mail goes on to that address; once for each address, before the outcome `delivered` of the
    /// recipient, with which it is done or not done (pipes.md §3, "Forwarding").
    case forward(number: UInt32, Forward)
    case done
    /// A report that is to take the place of the recipients of this delivery (pipes.md §3, "The exchange").
    case exchange(SubmitRequest)

    /// The field of an outcome that says that the next server has taken over the sender's wishes about reports.
    private static let passedOn = Array("dsn".utf8)
    /// The one that says that the host has answered.
    private static let answered = Array("answered".utf8)
    private static let verp = Array("verp".utf8)

    package init(_ frame: Frame) throws(FrameFault) {
        switch frame.verb {
        case .want:
            try frame.expectFields(2)
            self = .want(
                offset: try frame.number(0, limit: 1 << 50),
                octetCount: Int(try frame.number(1, limit: UInt64(FrameLimits.wantOctetCountMax))))
        case .outcome:
            try frame.expectFields(6...7)
            let kind = DeliveryOutcome.Kind.allCases.first { $0.rawValue.utf8.elementsEqual(frame[1]) }
            var outcome = try frame.outcome(try frame.value(kind), from: 2)
            if frame.fieldCount > 6 {
                outcome.hasPassedOnDSN = frame[6].elementsEqual(Self.passedOn)
                outcome.hasAnswered = frame[6].elementsEqual(Self.answered)
                guard outcome.hasPassedOnDSN || outcome.hasAnswered else { throw FrameFault(.badField, .outcome) }
            }
            self = .outcome(
                number: UInt32(truncatingIfNeeded: try frame.number(0, limit: UInt64(UInt32.max))), outcome)
        case .forward:
            try frame.expectFields(3...5)
            let meaning = frame.fieldCount > 3 ? try frame.value(PathMeaning(octets: frame[3])) : .address
            guard frame.fieldCount < 5 || frame[4].elementsEqual(Self.verp) else {
                throw FrameFault(.badField, .forward)
            }
            self = .forward(
                number: UInt32(truncatingIfNeeded: try frame.number(0, limit: UInt64(UInt32.max))),
                Forward(
                    try frame.value(ReversePath(octets: frame[1], alphabet: .unicodeLocalPart)),
                    try frame.value(ForwardPath(octets: frame[2], alphabet: .unicodeLocalPart)), meaning,
                    isVERP: frame.fieldCount > 4))
        case .done:
            try frame.expectFields(0)
            self = .done
        case .mail, .rcpt, .data, .commit, .abort: self = .exchange(try SubmitRequest(frame))
        default: throw FrameFault(.outOfPlace, frame.verb)
        }
    }

    package func append(to octets: inout [UInt8], channel: UInt32) {
        switch self {
        case .want(let offset, let octetCount):
            let start = octets.beginFrame(.want, channel)
            octets.appendField(number: offset)
            octets.appendField(number: octetCount)
            octets.endFrame(start)
        case .outcome(let number, let outcome):
            let start = octets.beginFrame(.outcome, channel)
            octets.appendField(number: number)
            octets.appendField(Array(outcome.kind.rawValue.utf8))
            octets.append(outcomeFields: outcome)
            if outcome.hasPassedOnDSN {
                octets.appendField(Self.passedOn)
            } else if outcome.hasAnswered {
                octets.appendField(Self.answered)
            }
            octets.endFrame(start)
        case .forward(let number, let forward):
            let start = octets.beginFrame(.forward, channel)
            octets.appendField(number: number)
            octets.appendField(forward.reversePath.octets)
            octets.appendField(forward.forwardPath.octets)
            if forward.meaning != .address || forward.isVERP { octets.appendField(forward.meaning.octets) }
            if forward.isVERP { octets.appendField(Self.verp) }
            octets.endFrame(start)
        case .done: octets.appendFrame(.done, channel)
        case .exchange(let request): request.append(to: &octets, channel: channel)
        }
    }
}

extension Frame {
    /// The four fields code, status, reporter, text.
    fileprivate func outcome(_ kind: DeliveryOutcome.Kind, from index: Int) throws(FrameFault) -> DeliveryOutcome {
        DeliveryOutcome(
            kind,
            code: UInt16(truncatingIfNeeded: try self.number(index, limit: 599)),
            status: try self.value(EnhancedStatus(octets: self[index + 1])),
            reporter: self[index + 2],
            text: self[index + 3])
    }
}

extension Array where Element == UInt8 {
    fileprivate mutating func append(outcomeFields outcome: DeliveryOutcome) {
        self.appendField(number: outcome.code)
        self.appendField(outcome.status.octets)
        self.appendField(outcome.reporter)
        self.appendField(outcome.text)
    }
}
