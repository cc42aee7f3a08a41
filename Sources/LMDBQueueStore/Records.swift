// SPDX-License-Identifier: Apache-2.0
//
// The values of the databases. Documentation/queue.md has the layouts. Decoding checks every length and every value,
// although only we write here: a record that a disk, a bug or a hand has changed is a fault with a name, never a trap.

import LMDB
package import MailTypes
package import QueueCore

/// The record does not have the layout.
package struct RecordFault: Error {}

/// The first octet of every record that is written.
let recordVersion: UInt8 = 3

/// Records of this version are read too: they have no wishes about reports.
private let recordVersionBefore: UInt8 = 2

/// Where a recipient record has its due time, so that a move changes only these octets.
let recipientDueOffset = 2

/// What NOTIFY has set if it was given: `NEVER` has no other bit.
private let notifyMark: UInt8 = 8

// MARK: - Writing

extension Array where Element == UInt8 {
    mutating func append(number: UInt64, octetCount: Int) {
        var shift = UInt64(8 * octetCount)
        while shift > 0 {
            shift -= 8
            self.append(UInt8(truncatingIfNeeded: number >> shift))
        }
    }

    /// Two octets of length, then the octets.
    ///
    /// - Precondition: at most 65,535 of them.
    mutating func append(field octets: some Collection<UInt8>) {
        precondition(octets.count <= 65_535)
        self.append(number: UInt64(octets.count), octetCount: 2)
        self.append(contentsOf: octets)
    }

    package mutating func append(_ record: MessageRecord) {
        self.append(recordVersion)
        self.append(record.bodyType == .eightBitMIME ? 1 : 0)
        self.append(number: record.arrival.microseconds, octetCount: 8)
        self.append(number: record.expiry.microseconds, octetCount: 8)
        self.append(number: record.contentOctetCount, octetCount: 8)
        self.append(field: record.reversePath.octets)
        self.append(field: record.trace)
        self.append(field: record.prefix)
        self.append(record.dsn.returned?.rawValue ?? 0)
        self.append(field: record.dsn.envelopeID)
        self.append((record.verp?.rawValue ?? 0) | record.unicode.rawValue << 2)
    }

    package mutating func append(_ record: RecipientRecord) {
        self.append(recordVersion)
        self.append(record.owedReport?.rawValue ?? 1)
        self.append(number: record.due?.microseconds ?? 0, octetCount: 8)
        self.append(number: UInt64(record.attemptCount), octetCount: 4)
        self.append(number: record.lastAttempt.microseconds, octetCount: 8)
        self.append(field: record.forwardPath.octets)
        self.append(field: record.originalPath?.octets ?? [])
        self.append(field: record.route.octets)
        self.append(record.flow)
        self.append(record.dsn.notify.map { $0.rawValue | notifyMark } ?? 0)
        self.append(field: record.dsn.originalRecipient)
        self.append(record.isDelayTold ? 1 : 0)
        guard let outcome = record.lastOutcome else {
            self.append(0)
            return
        }
        self.append(1)
        self.append(number: UInt64(outcome.code), octetCount: 2)
        self.append(number: UInt64(outcome.status.subject), octetCount: 2)
        self.append(number: UInt64(outcome.status.detail), octetCount: 2)
        self.append(field: outcome.reporter)
        self.append(field: outcome.text)
    }

    package mutating func append(_ record: DestinationRecord) {
        self.append(recordVersion)
        self.append(number: record.suspendedUntil.microseconds, octetCount: 8)
        self.append(number: UInt64(record.suspensionCount), octetCount: 4)
    }

    /// The value of a due entry.
    package mutating func append(dueTo route: Route, _ flow: MailFlow) {
        self.append(recordVersion)
        self.append(flow)
        self.append(contentsOf: route.octets)
    }

    private mutating func append(_ flow: MailFlow) {
        self.append(flow.priority.rawValue)
        self.append(number: UInt64(flow.sender), octetCount: 4)
    }
}

// MARK: - Reading

/// Reads a record from the front to the back; whatever is not there is a fault.
struct RecordReader {
    private let octets: [UInt8]
    private var index = 0
    /// Whether it was written before there were wishes about reports.
    private(set) var isOld = false

    /// Checks the version.
    init(_ octets: [UInt8]) throws(RecordFault) {
        self.octets = octets
        switch try self.number(1) {
        case UInt64(recordVersion): break
        case UInt64(recordVersionBefore): self.isOld = true
        default: throw RecordFault()
        }
    }

    mutating func number(_ octetCount: Int) throws(RecordFault) -> UInt64 {
        guard self.octets.count - self.index >= octetCount else { throw RecordFault() }
        var value: UInt64 = 0
        for place in self.index..<(self.index + octetCount) { value = value << 8 | UInt64(self.octets[place]) }
        self.index += octetCount
        return value
    }

    mutating func field() throws(RecordFault) -> ArraySlice<UInt8> {
        let count = Int(try self.number(2))
        guard self.octets.count - self.index >= count else { throw RecordFault() }
        defer { self.index += count }
        return self.octets[self.index..<(self.index + count)]
    }

    mutating func flow() throws(RecordFault) -> MailFlow {
        guard let priority = MailPriority(rawValue: UInt8(truncatingIfNeeded: try self.number(1))) else {
            throw RecordFault()
        }
        return MailFlow(sender: UInt32(truncatingIfNeeded: try self.number(4)), priority: priority)
    }

    mutating func rest() -> ArraySlice<UInt8> {
        defer { self.index = self.octets.count }
        return self.octets[self.index...]
    }

    func end() throws(RecordFault) {
        guard self.index == self.octets.count else { throw RecordFault() }
    }
}

extension MessageRecord {
    package init(id: MessageID, octets: [UInt8]) throws(RecordFault) {
        var reader = try RecordReader(octets)
        let body = try reader.number(1)
        let arrival = Timestamp(microseconds: try reader.number(8))
        let expiry = Timestamp(microseconds: try reader.number(8))
        let count = try reader.number(8)
        guard body <= 1, count <= 1 << 50,
            let reversePath = ReversePath(octets: try reader.field(), alphabet: .unicodeLocalPart)
        else { throw RecordFault() }
        let trace = Array(try reader.field())
        let prefix = Array(try reader.field())
        let dsn = reader.isOld ? MessageDSN() : try Self.dsn(&reader)
        let mark = reader.isOld ? 0 : try reader.number(1)
        let verp = VERPDelimiter(rawValue: UInt8(truncatingIfNeeded: mark & 3))
        guard mark & 3 == 0 || verp != nil, let unicode = UnicodeDemand(rawValue: UInt8(truncatingIfNeeded: mark >> 2))
        else { throw RecordFault() }
        try reader.end()
        self.init(
            id: id, reversePath: reversePath, bodyType: body == 1 ? .eightBitMIME : .sevenBit, arrival: arrival,
            expiry: expiry, prefix: prefix, contentOctetCount: count, trace: trace, dsn: dsn,
            unicode: unicode, verp: verp)
    }

    private static func dsn(_ reader: inout RecordReader) throws(RecordFault) -> MessageDSN {
        let returned = UInt8(truncatingIfNeeded: try reader.number(1))
        let envelopeID = try reader.field()
        guard returned == 0 || ReturnedContent(rawValue: returned) != nil,
            envelopeID.isEmpty || MessageDSN.isEnvelopeID(envelopeID)
        else { throw RecordFault() }
        return MessageDSN(returned: ReturnedContent(rawValue: returned), envelopeID: Array(envelopeID))
    }
}

extension RecipientRecord {
    package init(number: UInt32, octets: [UInt8]) throws(RecordFault) {
        var reader = try RecordReader(octets)
        let state = try reader.number(1)
        let due = try reader.number(8)
        let attemptCount = UInt32(truncatingIfNeeded: try reader.number(4))
        let lastAttempt = Timestamp(microseconds: try reader.number(8))
        guard let forwardPath = ForwardPath(octets: try reader.field(), alphabet: .unicodeLocalPart) else {
            throw RecordFault()
        }
        let original = try reader.field()
        let originalPath = ForwardPath(octets: original, alphabet: .unicodeLocalPart)
        guard original.isEmpty || originalPath != nil, let route = Route(octets: try reader.field()), route != .bounce
        else { throw RecordFault() }
        let flow = try reader.flow()
        let (dsn, isDelayTold) = reader.isOld ? (RecipientDSN(), false) : try Self.dsn(&reader)
        let action = ReportAction(rawValue: UInt8(truncatingIfNeeded: state))
        guard state == 1 || action != nil, !reader.isOld || state <= 2 else { throw RecordFault() }
        var outcome: DeliveryOutcome?
        switch try reader.number(1) {
        case 0: break
        case 1: outcome = try Self.outcome(action?.outcomeKind ?? .deferred, &reader)
        default: throw RecordFault()
        }
        try reader.end()
        let legal: State
        switch (action, outcome) {
        case (nil, let last): legal = .queued(last: last)
        case (let action?, let told?): legal = .reporting(action, told)
        case (_?, nil): throw RecordFault()
        }
        self.init(
            number: number, forwardPath: forwardPath, originalPath: originalPath, route: route, flow: flow,
            state: legal, due: due == 0 ? nil : Timestamp(microseconds: due), attemptCount: attemptCount,
            lastAttempt: lastAttempt, dsn: dsn, isDelayTold: isDelayTold)
    }

    private static func dsn(_ reader: inout RecordReader) throws(RecordFault) -> (RecipientDSN, isDelayTold: Bool) {
        let notify = UInt8(truncatingIfNeeded: try reader.number(1))
        let original = try reader.field()
        let mark = try reader.number(1)
        guard notify == 0 || (notifyMark..<2 * notifyMark).contains(notify), mark <= 1,
            original.isEmpty || RecipientDSN.isOriginalRecipient(original)
        else { throw RecordFault() }
        let conditions = notify == 0 ? nil : NotifyConditions(rawValue: notify)
        return (RecipientDSN(notify: conditions, originalRecipient: Array(original)), mark == 1)
    }

    private static func outcome(
        _ kind: DeliveryOutcome.Kind, _ reader: inout RecordReader
    ) throws(RecordFault) -> DeliveryOutcome {
        let code = UInt16(truncatingIfNeeded: try reader.number(2))
        let subject = UInt16(truncatingIfNeeded: try reader.number(2))
        let detail = UInt16(truncatingIfNeeded: try reader.number(2))
        guard subject <= 999, detail <= 999 else { throw RecordFault() }
        let statusClass: EnhancedStatus.Class =
            switch kind {
            case .delivered: .success
            case .deferred: .transient
            case .failed: .permanent
            }
        let status = EnhancedStatus(statusClass, subject, detail)
        let reporter = try reader.field()
        return DeliveryOutcome(kind, code: code, status: status, reporter: reporter, text: try reader.field())
    }
}

extension DestinationRecord {
    package init(octets: [UInt8]) throws(RecordFault) {
        var reader = try RecordReader(octets)
        let until = Timestamp(microseconds: try reader.number(8))
        let count = UInt32(truncatingIfNeeded: try reader.number(4))
        try reader.end()
        self.init(suspendedUntil: until, suspensionCount: max(count, 1))
    }
}

extension DueEntry {
    /// From the value of a due entry.
    package init(key: DueKey, value octets: Span<UInt8>) throws(RecordFault) {
        var reader = try RecordReader(Array(copying: octets))
        let flow = try reader.flow()
        guard let route = Route(octets: reader.rest()) else { throw RecordFault() }
        self.init(key: key, destination: route, flow: flow)
    }
}
