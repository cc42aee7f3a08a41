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

    package init(
        id: MessageID, reversePath: ReversePath, octetCount: UInt64, bodyType: BodyType, route: Route,
        arrival: Timestamp
    ) {
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

    package init(number: UInt32, forwardPath: ForwardPath, originalForwardPath: ForwardPath?) {
        self.number = number
        self.forwardPath = forwardPath
        self.originalForwardPath = originalForwardPath
    }
}

/// What is to be reported of a recipient (route `bounce:` only).
package struct RecipientFate: Equatable, Sendable {
    package let number: UInt32
    /// Of kind `failed`.
    package let outcome: DeliveryOutcome
    package let lastAttempt: Timestamp

    package init(number: UInt32, outcome: DeliveryOutcome, lastAttempt: Timestamp) {
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
    case noted
    /// The answers to an exchange.
    case queued(MessageID)
    case refused(Refusal)

    package init(_ frame: Frame) throws(FrameFault) {
        switch frame.verb {
        case .deliver: self = .deliver(try Self.delivery(frame))
        case .rcpt:
            try frame.expectFields(3)
            let original: ForwardPath? = frame[2].isEmpty ? nil : try frame.value(ForwardPath(octets: frame[2]))
            self = .rcpt(
                DeliveryRecipient(
                    number: UInt32(truncatingIfNeeded: try frame.number(0, limit: UInt64(UInt32.max))),
                    forwardPath: try frame.value(ForwardPath(octets: frame[1])),
                    originalForwardPath: original))
        case .fate:
            try frame.expectFields(6)
            self = .fate(
                RecipientFate(
                    number: UInt32(truncatingIfNeeded: try frame.number(0, limit: UInt64(UInt32.max))),
                    outcome: try frame.outcome(.failed, from: 1),
                    lastAttempt: Timestamp(microseconds: try frame.number(5))))
        case .go:
            try frame.expectFields(0)
            self = .go
        case .data:
            try frame.expectFields(1)
            self = .data(frame[0])
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

    private static func delivery(_ frame: Frame) throws(FrameFault) -> Delivery {
        try frame.expectFields(6)
        return Delivery(
            id: try frame.value(MessageID(octets: frame[0])),
            reversePath: try frame.value(ReversePath(octets: frame[1])),
            octetCount: try frame.number(2, limit: 1 << 50),
            bodyType: try frame.value(BodyType(octets: frame[3])),
            route: try frame.value(Route(octets: frame[4])),
            arrival: Timestamp(microseconds: try frame.number(5)))
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
            octets.endFrame(start)
        case .rcpt(let recipient):
            let start = octets.beginFrame(.rcpt, channel)
            octets.appendField(number: recipient.number)
            octets.appendField(recipient.forwardPath.octets)
            octets.appendField(recipient.originalForwardPath?.octets ?? [])
            octets.endFrame(start)
        case .fate(let fate):
            let start = octets.beginFrame(.fate, channel)
            octets.appendField(number: fate.number)
            octets.append(outcomeFields: fate.outcome)
            octets.appendField(number: fate.lastAttempt.microseconds)
            octets.endFrame(start)
        case .go: octets.appendFrame(.go, channel)
        case .data(let content): octets.appendData(channel, content)
        case .noted: octets.appendFrame(.noted, channel)
        case .queued(let id): SubmitAnswer.queued(id).append(to: &octets, channel: channel)
        case .refused(let refusal): SubmitAnswer.refused(refusal).append(to: &octets, channel: channel)
        }
    }
}

/// A frame from an agent to the queue.
package enum DeliverAnswer: Equatable, Sendable {
    case want(offset: UInt64, octetCount: Int)
    case outcome(number: UInt32, DeliveryOutcome)
    case done
    /// A report that is to take the place of the recipients of this delivery (pipes.md §3, "The exchange").
    case exchange(SubmitRequest)

    package init(_ frame: Frame) throws(FrameFault) {
        switch frame.verb {
        case .want:
            try frame.expectFields(2)
            self = .want(
                offset: try frame.number(0, limit: 1 << 50),
                octetCount: Int(try frame.number(1, limit: UInt64(FrameLimits.wantOctetCountMax))))
        case .outcome:
            try frame.expectFields(6)
            let kind = DeliveryOutcome.Kind.allCases.first { $0.rawValue.utf8.elementsEqual(frame[1]) }
            self = .outcome(
                number: UInt32(truncatingIfNeeded: try frame.number(0, limit: UInt64(UInt32.max))),
                try frame.outcome(try frame.value(kind), from: 2))
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
