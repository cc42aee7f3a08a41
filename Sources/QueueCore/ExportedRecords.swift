// SPDX-License-Identifier: Apache-2.0
//
// The records as names and values (Documentation/queue-export.md). A field that a record gets is added here twice: where
// it is written and where it is read.

package import MailTypes

/// Why a message of an export cannot be taken, in words for the operator.
package struct ImportFault: Error, Equatable, Sendable {
    package let text: String

    package init(_ text: String) { self.text = text }
}

// MARK: - The envelope

extension MessageRecord {
    /// The envelope's fields. The prefix itself is at the front of the data.
    package var exportFields: [NamedOctets] {
        var fields = [
            NamedOctets("from", self.reversePath.octets), NamedOctets("body", Array(self.bodyType.rawValue.utf8)),
            NamedOctets("arrival", self.arrival.microseconds), NamedOctets("expiry", self.expiry.microseconds),
            NamedOctets("prefix-size", UInt64(self.prefix.count)), NamedOctets("size", self.contentOctetCount),
            NamedOctets("client", self.trace),
        ]
        if let returned = self.dsn.returned { fields.append(NamedOctets("ret", returned.octets)) }
        if !self.dsn.envelopeID.isEmpty { fields.append(NamedOctets("envid", self.dsn.envelopeID)) }
        if self.unicode != .none { fields.append(NamedOctets("utf8", self.unicode.octets)) }
        if let verp = self.verp { fields.append(NamedOctets("verp", Self.exportWord(verp))) }
        return fields
    }

    /// The value of the field `verp`.
    fileprivate static func exportWord(_ verp: VERPDelimiter) -> [UInt8] {
        switch verp {
        case .plus: Array("true".utf8)
        case .hyphen: Array("hyphen".utf8)
        }
    }
}

/// An envelope that is being read.
struct ImportedEnvelope {
    let id: MessageID
    private(set) var reversePath: ReversePath?
    private var bodyType: BodyType?
    private var arrival: Timestamp?
    private var expiry: Timestamp?
    private(set) var prefixOctetCount: UInt64?
    private(set) var contentOctetCount: UInt64?
    private var trace: [UInt8]?
    private var returned: ReturnedContent?
    private var envelopeID: [UInt8]?
    private var unicode: UnicodeDemand?
    private var verp: VERPDelimiter?

    /// The prefix is a header field or two.
    private static let prefixOctetCountMax: UInt64 = 65_535

    init(id: MessageID) { self.id = id }

    mutating func take(_ fields: [NamedOctets]) throws(ImportFault) {
        for field in fields {
            let name = String(decoding: field.name, as: UTF8.self)
            let isNew: Bool
            let isGood: Bool
            switch name {
            case "from":
                (isNew, isGood) = Self.set(
                    &self.reversePath, ReversePath(octets: field.value, alphabet: .unicodeLocalPart))
            case "body": (isNew, isGood) = Self.set(&self.bodyType, BodyType(octets: field.value))
            case "arrival": (isNew, isGood) = Self.set(&self.arrival, field.instant)
            case "expiry": (isNew, isGood) = Self.set(&self.expiry, field.instant)
            case "prefix-size":
                let count = field.value.decimal(limit: Self.prefixOctetCountMax)
                (isNew, isGood) = Self.set(&self.prefixOctetCount, count)
            case "size": (isNew, isGood) = Self.set(&self.contentOctetCount, field.value.decimal(limit: 1 << 46))
            case "client": (isNew, isGood) = Self.set(&self.trace, field.value)
            case "ret": (isNew, isGood) = Self.set(&self.returned, ReturnedContent(octets: field.value))
            case "envid":
                let id = MessageDSN.isEnvelopeID(field.value) ? field.value : nil
                (isNew, isGood) = Self.set(&self.envelopeID, id)
            case "utf8":
                let demand = field.value.isEmpty ? nil : UnicodeDemand(octets: field.value)
                (isNew, isGood) = Self.set(&self.unicode, demand)
            case "verp":
                let verp = VERPDelimiter.allCases.first { MessageRecord.exportWord($0) == field.value }
                (isNew, isGood) = Self.set(&self.verp, verp)
            default: throw ImportFault("the envelope has a field \"\(field.name.printableText)\", which is not known")
            }
            try field.check(isNew, isGood)
        }
    }

    /// Sets what is not set: whether it was not, and whether the value is one.
    static func set<Value>(_ place: inout Value?, _ value: Value?) -> (isNew: Bool, isGood: Bool) {
        guard place == nil else { return (false, true) }
        place = value
        return (true, value != nil)
    }

    func record(prefix: [UInt8]) throws(ImportFault) -> MessageRecord {
        guard let reversePath, let bodyType, let arrival, let expiry, let contentOctetCount, let trace else {
            throw ImportFault("the envelope is not complete: from, body, arrival, expiry, prefix-size, size, client")
        }
        return MessageRecord(
            id: self.id, reversePath: reversePath, bodyType: bodyType, arrival: arrival, expiry: expiry,
            prefix: prefix, contentOctetCount: contentOctetCount, trace: trace,
            dsn: MessageDSN(returned: self.returned, envelopeID: self.envelopeID ?? []),
            unicode: self.unicode ?? .none, verp: self.verp)
    }
}

extension NamedOctets {
    /// A time that is not the beginning of time.
    fileprivate var instant: Timestamp? {
        guard let microseconds = self.value.decimal(), microseconds > 0 else { return nil }
        return Timestamp(microseconds: microseconds)
    }

    fileprivate func check(_ isNew: Bool, _ isGood: Bool) throws(ImportFault) {
        let name = self.name.printableText
        guard isNew else { throw ImportFault("the field \(name) stands twice") }
        guard isGood else {
            throw ImportFault("the field \(name) cannot be \"\(self.value.prefix(80).printableText)\"")
        }
    }
}

// MARK: - Recipients

extension RecipientRecord {
    /// The recipient's fields. `due` is not there if it is held, `last` not before the first attempt, the outcome's not
    /// without one.
    package var exportFields: [NamedOctets] {
        var fields = [NamedOctets("to", self.forwardPath.octets)]
        if let original = self.originalPath { fields.append(NamedOctets("original", original.octets)) }
        fields.append(NamedOctets("route", self.route.octets))
        fields.append(NamedOctets("priority", self.flow.priority.octets))
        fields.append(NamedOctets("state", self.owedReport?.octets ?? Array("queued".utf8)))
        if let due = self.due { fields.append(NamedOctets("due", due.microseconds)) }
        fields.append(NamedOctets("attempts", UInt64(self.attemptCount)))
        if self.lastAttempt.microseconds > 0 { fields.append(NamedOctets("last", self.lastAttempt.microseconds)) }
        if let notify = self.dsn.notify { fields.append(NamedOctets("notify", notify.octets)) }
        if !self.dsn.originalRecipient.isEmpty { fields.append(NamedOctets("orcpt", self.dsn.originalRecipient)) }
        if self.isDelayTold { fields.append(NamedOctets("delay-told", Array("true".utf8))) }
        guard let outcome = self.lastOutcome else { return fields }
        return fields + [
            NamedOctets("code", UInt64(outcome.code)), NamedOctets("dsn", outcome.status.octets),
            NamedOctets("reporter", outcome.reporter), NamedOctets("reason", outcome.text),
        ]
    }
}

/// A recipient that is being read.
struct ImportedRecipient {
    let number: UInt32
    private var forwardPath: ForwardPath?
    private var originalPath: ForwardPath?
    private var route: Route?
    private var priority: MailPriority?
    /// Nil inside: queued.
    private var owedReport: ReportAction??
    private var notify: NotifyConditions?
    private var originalRecipient: [UInt8]?
    private var isDelayTold: Bool?
    private var due: Timestamp?
    private var attemptCount: UInt64?
    private var lastAttempt: Timestamp?
    private var code: UInt64?
    private var status: EnhancedStatus?
    private var reporter: [UInt8]?
    private var reason: [UInt8]?

    init(number: UInt32) { self.number = number }

    mutating func take(_ fields: [NamedOctets]) throws(ImportFault) {
        for field in fields {
            let name = String(decoding: field.name, as: UTF8.self)
            let isNew: Bool
            let isGood: Bool
            switch name {
            case "to":
                (isNew, isGood) = ImportedEnvelope.set(
                    &self.forwardPath, ForwardPath(octets: field.value, alphabet: .unicodeLocalPart))
            case "original":
                (isNew, isGood) = ImportedEnvelope.set(
                    &self.originalPath, ForwardPath(octets: field.value, alphabet: .unicodeLocalPart))
            case "route":
                let route = Route(octets: field.value).flatMap { $0 == .bounce ? nil : $0 }
                (isNew, isGood) = ImportedEnvelope.set(&self.route, route)
            case "priority":
                (isNew, isGood) = ImportedEnvelope.set(&self.priority, MailPriority(octets: field.value[...]))
            case "state": (isNew, isGood) = ImportedEnvelope.set(&self.owedReport, Self.owedReport(field.value))
            case "notify":
                (isNew, isGood) = ImportedEnvelope.set(&self.notify, NotifyConditions(octets: field.value))
            case "orcpt":
                let original = RecipientDSN.isOriginalRecipient(field.value) ? field.value : nil
                (isNew, isGood) = ImportedEnvelope.set(&self.originalRecipient, original)
            case "delay-told":
                let isTrue = field.value.elementsEqual("true".utf8)
                (isNew, isGood) = ImportedEnvelope.set(&self.isDelayTold, isTrue ? true : nil)
            case "due": (isNew, isGood) = ImportedEnvelope.set(&self.due, field.instant)
            case "attempts":
                let count = field.value.decimal(limit: UInt64(UInt32.max))
                (isNew, isGood) = ImportedEnvelope.set(&self.attemptCount, count)
            case "last": (isNew, isGood) = ImportedEnvelope.set(&self.lastAttempt, field.instant)
            case "code": (isNew, isGood) = ImportedEnvelope.set(&self.code, field.value.decimal(limit: 599))
            case "dsn": (isNew, isGood) = ImportedEnvelope.set(&self.status, EnhancedStatus(octets: field.value))
            case "reporter": (isNew, isGood) = ImportedEnvelope.set(&self.reporter, field.value)
            case "reason": (isNew, isGood) = ImportedEnvelope.set(&self.reason, field.value)
            default: throw ImportFault("a recipient has a field \"\(field.name.printableText)\", which is not known")
            }
            try field.check(isNew, isGood)
        }
    }

    private static func owedReport(_ octets: [UInt8]) -> ReportAction?? {
        if octets.elementsEqual("queued".utf8) { return .some(nil) }
        return ReportAction(octets: octets).map { .some($0) }
    }

    /// - Parameter sender: the reverse-path of the message.
    func record(from sender: ReversePath) throws(ImportFault) -> RecipientRecord {
        guard let forwardPath, let route, let priority, let owedReport, let attemptCount else {
            throw ImportFault("recipient \(self.number) is not complete: to, route, priority, state, attempts")
        }
        return RecipientRecord(
            number: self.number, forwardPath: forwardPath, originalPath: self.originalPath, route: route,
            flow: MailFlow(sender, priority),
            state: try self.state(owedReport), due: self.due, attemptCount: UInt32(truncatingIfNeeded: attemptCount),
            lastAttempt: self.lastAttempt ?? Timestamp(microseconds: 0),
            dsn: RecipientDSN(notify: self.notify, originalRecipient: self.originalRecipient ?? []),
            isDelayTold: self.isDelayTold ?? false)
    }

    private func state(_ owedReport: ReportAction?) throws(ImportFault) -> RecipientRecord.State {
        let parts = [self.code != nil, self.status != nil, self.reporter != nil, self.reason != nil]
        guard parts.contains(true) else {
            guard owedReport == nil else {
                throw ImportFault("a report about recipient \(self.number) is due, and there is no outcome")
            }
            return .queued(last: nil)
        }
        guard let code, let status, let reporter, let reason else {
            throw ImportFault("the outcome of recipient \(self.number) is not complete: code, dsn, reporter, reason")
        }
        let kind = owedReport?.outcomeKind ?? .deferred
        let outcome = DeliveryOutcome(
            kind, code: UInt16(truncatingIfNeeded: code), status: status, reporter: reporter, text: reason)
        // An outcome takes only a status of its kind.
        guard outcome.status == status else {
            throw ImportFault("the dsn of recipient \(self.number) does not fit its state")
        }
        return owedReport.map { .reporting($0, outcome) } ?? .queued(last: outcome)
    }
}

// MARK: - A message

/// Puts a message of an export together from its parts, and checks all of it.
package struct ImportAssembler {
    /// What has come.
    package enum Step: Equatable, Sendable {
        /// All but content; the content follows.
        case message(MessageRecord, [RecipientRecord])
        case content(ArraySlice<UInt8>)
        /// All content has come.
        case complete
    }

    private var envelope: ImportedEnvelope?
    private var recipients: [RecipientRecord] = []
    private var recipient: ImportedRecipient?
    private var prefix: [UInt8] = []
    /// Octets of prefix and content.
    private var octetCount: UInt64 = 0
    private var isTold = false
    private let recipientCountMax: Int

    package init(recipientCountMax: Int) { self.recipientCountMax = recipientCountMax }

    /// Whether a message is half there.
    package var isInside: Bool { self.envelope != nil }

    /// The message that is being read.
    package var id: MessageID? { self.envelope?.id }

    package mutating func message(_ id: MessageID, _ fields: [NamedOctets]) throws(ImportFault) {
        if let envelope, envelope.id != id || self.recipient != nil { throw ImportFault("a message inside a message") }
        var envelope = self.envelope ?? ImportedEnvelope(id: id)
        try envelope.take(fields)
        self.envelope = envelope
    }

    package mutating func recipient(_ number: UInt32, _ fields: [NamedOctets]) throws(ImportFault) {
        guard self.envelope != nil, self.octetCount == 0, !self.isTold else {
            throw ImportFault("a recipient where none can be")
        }
        if let current = self.recipient, current.number != number {
            guard number > current.number else { throw ImportFault("the recipients are not in the order of numbers") }
            try self.finishRecipient()
        }
        var recipient = self.recipient ?? ImportedRecipient(number: number)
        try recipient.take(fields)
        self.recipient = recipient
    }

    private mutating func finishRecipient() throws(ImportFault) {
        guard let recipient = self.recipient else { return }
        guard self.recipients.count < self.recipientCountMax else {
            throw ImportFault("a message has more than \(self.recipientCountMax) recipients")
        }
        guard let sender = self.envelope?.reversePath else { throw ImportFault("the envelope is not complete") }
        self.recipients.append(try recipient.record(from: sender))
        self.recipient = nil
    }

    package mutating func data(_ octets: ArraySlice<UInt8>) throws(ImportFault) -> [Step] {
        guard let envelope, let prefixCount = envelope.prefixOctetCount, let count = envelope.contentOctetCount else {
            throw ImportFault(self.envelope == nil ? "data outside of a message" : "the envelope is not complete")
        }
        self.octetCount += UInt64(octets.count)
        guard self.octetCount <= prefixCount + count else { throw ImportFault("there is more content than announced") }
        let missing = Int(prefixCount) - self.prefix.count
        self.prefix += octets.prefix(missing)
        var steps: [Step] = []
        if self.prefix.count == Int(prefixCount) { try self.tell(&steps) }
        let content = octets.dropFirst(missing)
        if !content.isEmpty { steps.append(.content(content)) }
        return steps
    }

    /// The message with its recipients, once.
    private mutating func tell(_ steps: inout [Step]) throws(ImportFault) {
        guard !self.isTold, let envelope else { return }
        try self.finishRecipient()
        guard !self.recipients.isEmpty else { throw ImportFault("there are no recipients") }
        steps.append(.message(try envelope.record(prefix: self.prefix), self.recipients))
        self.isTold = true
        self.recipients = []
    }

    /// The end of the message, with the count of all its data.
    package mutating func whole(_ octetCount: UInt64) throws(ImportFault) -> [Step] {
        guard let envelope else { throw ImportFault("the end of no message") }
        let wanted = (envelope.prefixOctetCount ?? 0) + (envelope.contentOctetCount ?? 0)
        guard octetCount == self.octetCount, octetCount == wanted else {
            throw ImportFault("\(wanted) octets were announced, and \(self.octetCount) came")
        }
        var steps: [Step] = []
        try self.tell(&steps)
        steps.append(.complete)
        self.forget()
        return steps
    }

    /// Nothing comes of the message.
    package mutating func forget() { self = ImportAssembler(recipientCountMax: self.recipientCountMax) }
}
