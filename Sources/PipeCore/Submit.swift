// SPDX-License-Identifier: Apache-2.0
//
// The dialect `submit` (pipes.md §2): a message into the queue.

package import MailTypes

/// What opens a submission.
package struct MailRequest: Equatable, Sendable {
    package let reversePath: ReversePath
    package let bodyType: BodyType
    /// The SIZE that the client declared (RFC 1870), 0 if none.
    package let declaredSize: UInt64
    /// Where the message came from, one line for the log and for `apus queue show`.
    package let trace: [UInt8]
    /// What the submitter wishes; the queue's settings may say otherwise.
    package let priority: MailPriority
    /// What the sender wishes about reports.
    package let dsn: MessageDSN
    /// What the message has to do with SMTPUTF8, as far as its sender said it.
    package let unicode: UnicodeDemand
    /// Whether each recipient's copy is to have a reverse-path of its own (`ReversePath.variable`).
    package let isVERP: Bool

    /// In the trace of a report to the postmaster, and of what it is sent on as: if one of these cannot be delivered, the next
    /// report would have the same fate.
    package static let postmastersReport = Array("report to postmaster".utf8)

    /// How the trace of a message begins that a delivery is sent on as; the ID of the message that it was follows.
    package static let forwarded = Array("forwarded ".utf8)

    /// Whether a trace is of a report to the postmaster, or of what one is sent on as. Only its beginning counts: what follows
    /// may be a client's words.
    package static func isPostmastersReport(_ trace: [UInt8]) -> Bool {
        var rest = trace[...]
        if rest.starts(with: Self.forwarded) {
            rest = rest.dropFirst(Self.forwarded.count).drop { $0 != ASCII.space }.dropFirst()
        }
        return rest.starts(with: Self.postmastersReport)
    }

    package init(
        reversePath: ReversePath, bodyType: BodyType, declaredSize: UInt64, trace: [UInt8],
        priority: MailPriority = .normal, dsn: MessageDSN = MessageDSN(), unicode: UnicodeDemand = .none,
        isVERP: Bool = false
    ) {
        self.unicode = unicode
        self.isVERP = isVERP
        self.dsn = dsn
        self.priority = priority
        self.reversePath = reversePath
        self.bodyType = bodyType
        self.declaredSize = declaredSize
        self.trace = Array(trace.prefix(FrameLimits.fieldOctetCountMax))
    }
}

/// What ends a submission and asks for acceptance.
package struct CommitRequest: Equatable, Sendable {
    /// Of all `data` frames together; the queue refuses if it counted otherwise.
    package let octetCount: UInt64
    /// What goes in front of the message id, which goes in front of `suffix`, which goes in front of the content.
    package let prefix: [UInt8]
    package let suffix: [UInt8]
    /// Whether the header has octets beyond ASCII. It counts if SMTPUTF8 was asked for.
    package let hasUnicodeHeader: Bool

    /// - Precondition: `prefix` and `suffix` are at most 2,048 octets each.
    package init(octetCount: UInt64, prefix: [UInt8], suffix: [UInt8], hasUnicodeHeader: Bool = false) {
        self.hasUnicodeHeader = hasUnicodeHeader
        precondition(prefix.count <= FrameLimits.fieldOctetCountMax && suffix.count <= FrameLimits.fieldOctetCountMax)
        self.octetCount = octetCount
        self.prefix = prefix
        self.suffix = suffix
    }
}

/// A frame from a submitter to the queue.
package enum SubmitRequest: Equatable, Sendable {
    case mail(MailRequest)
    case rcpt(ForwardPath, RecipientDSN = RecipientDSN())
    case data(ArraySlice<UInt8>)
    case commit(CommitRequest)
    case abort

    private static let verp = Array("verp".utf8)
    private static let unicodeHeader = Array("utf8-header".utf8)

    /// Reads a frame; its channel is `frame.channel`.
    package init(_ frame: Frame) throws(FrameFault) {
        switch frame.verb {
        case .mail:
            try frame.expectFields(4...9)
            let hasUnicode = frame.fieldCount > 8
            let isVERP = frame.fieldCount > 7 && !(hasUnicode && frame[7].isEmpty)
            guard !isVERP || frame[7].elementsEqual(Self.verp) else { throw FrameFault(.badField, .mail) }
            self = .mail(
                MailRequest(
                    reversePath: try frame.value(ReversePath(octets: frame[0], alphabet: .unicodeLocalPart)),
                    bodyType: try frame.value(BodyType(octets: frame[1])),
                    declaredSize: try frame.number(2),
                    trace: Array(frame[3]),
                    priority: frame.fieldCount > 4 ? try frame.value(MailPriority(octets: frame[4])) : .normal,
                    dsn: try frame.messageDSN(from: 5),
                    unicode: hasUnicode ? try frame.value(UnicodeDemand(octets: frame[8])) : .none, isVERP: isVERP))
        case .rcpt:
            try frame.expectFields(1...3)
            self = .rcpt(
                try frame.value(ForwardPath(octets: frame[0], alphabet: .unicodeLocalPart)),
                try frame.recipientDSN(from: 1))
        case .data:
            try frame.expectFields(1)
            self = .data(frame[0])
        case .commit:
            try frame.expectFields(3...4)
            let hasUnicodeHeader = frame.fieldCount > 3
            guard !hasUnicodeHeader || frame[3].elementsEqual(Self.unicodeHeader) else {
                throw FrameFault(.badField, .commit)
            }
            self = .commit(
                CommitRequest(
                    octetCount: try frame.number(0), prefix: Array(frame[1]), suffix: Array(frame[2]),
                    hasUnicodeHeader: hasUnicodeHeader))
        case .abort:
            try frame.expectFields(0)
            self = .abort
        default:
            throw FrameFault(.outOfPlace, frame.verb)
        }
    }

    package func append(to octets: inout [UInt8], channel: UInt32) {
        switch self {
        case .mail(let mail):
            let start = octets.beginFrame(.mail, channel)
            octets.appendField(mail.reversePath.octets)
            octets.appendField(mail.bodyType.octets)
            octets.appendField(number: mail.declaredSize)
            octets.appendField(mail.trace)
            let isLong = mail.isVERP || mail.unicode != .none
            if mail.priority != .normal || !mail.dsn.isEmpty || isLong { octets.appendField(mail.priority.octets) }
            octets.appendFields(mail.dsn, isFilled: isLong)
            if isLong { octets.appendField(mail.isVERP ? Self.verp : []) }
            if mail.unicode != .none { octets.appendField(mail.unicode.octets) }
            octets.endFrame(start)
        case .rcpt(let path, let dsn):
            let start = octets.beginFrame(.rcpt, channel)
            octets.appendField(path.octets)
            octets.appendFields(dsn)
            octets.endFrame(start)
        case .data(let content):
            octets.appendData(channel, content)
        case .commit(let commit):
            let start = octets.beginFrame(.commit, channel)
            octets.appendField(number: commit.octetCount)
            octets.appendField(commit.prefix)
            octets.appendField(commit.suffix)
            if commit.hasUnicodeHeader { octets.appendField(Self.unicodeHeader) }
            octets.endFrame(start)
        case .abort:
            octets.appendFrame(.abort, channel)
        }
    }
}

/// Why the queue does not take a message, in the words that the client is told.
package struct Refusal: Equatable, Sendable {
    /// 400…599.
    package let code: UInt16
    package let status: EnhancedStatus
    package let text: [UInt8]

    /// - Precondition: the code is 4xx or 5xx and agrees with the status.
    package init(_ code: UInt16, _ status: EnhancedStatus, _ text: String) {
        precondition((400...599).contains(code) && code / 100 == UInt16(status.statusClass.rawValue))
        self.code = code
        self.status = status
        self.text = Array(text.utf8.prefix(DeliveryOutcome.textOctetCountMax))
    }

    package init(_ frame: Frame) throws(FrameFault) {
        try frame.expectFields(3)
        let code = UInt16(truncatingIfNeeded: try frame.number(0, limit: 599))
        let status = try frame.value(EnhancedStatus(octets: frame[1]))
        guard code >= 400, code / 100 == UInt16(status.statusClass.rawValue) else {
            throw FrameFault(.badField, frame.verb)
        }
        self.code = code
        self.status = status
        self.text = Array(frame[2].prefix(DeliveryOutcome.textOctetCountMax))
    }

    /// The reply that says so to an SMTP client.
    package var reply: Reply { Reply(self.code, self.status, lines: [self.text]) }
}

/// A frame from the queue to a submitter.
package enum SubmitAnswer: Equatable, Sendable {
    /// So many octets of `data` more.
    case more(UInt64)
    case queued(MessageID)
    case refused(Refusal)

    package init(_ frame: Frame) throws(FrameFault) {
        switch frame.verb {
        case .more:
            try frame.expectFields(1)
            self = .more(try frame.number(0, limit: 1 << 40))
        case .queued:
            try frame.expectFields(1)
            self = .queued(try frame.value(MessageID(octets: frame[0])))
        case .refused:
            self = .refused(try Refusal(frame))
        default:
            throw FrameFault(.outOfPlace, frame.verb)
        }
    }

    package func append(to octets: inout [UInt8], channel: UInt32) {
        switch self {
        case .more(let count):
            let start = octets.beginFrame(.more, channel)
            octets.appendField(number: count)
            octets.endFrame(start)
        case .queued(let id):
            let start = octets.beginFrame(.queued, channel)
            octets.appendField(id.octets)
            octets.endFrame(start)
        case .refused(let refusal):
            let start = octets.beginFrame(.refused, channel)
            octets.appendField(number: refusal.code)
            octets.appendField(refusal.status.octets)
            octets.appendField(refusal.text)
            octets.endFrame(start)
        }
    }
}
