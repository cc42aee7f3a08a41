// SPDX-License-Identifier: Apache-2.0

import MailTypes

/// What is wrong with octets that should have been frames, or with a frame that should have had a meaning.
///
/// The link it came through is closed; there is nothing to repair.
package struct FrameFault: Error, Equatable, Sendable {
    package enum Kind: String, Sendable {
        /// A netstring's length is not a number, has a leading zero, or is above the limit.
        case badLength = "bad length"
        /// A netstring does not end in a comma.
        case missingComma = "missing comma"
        case unknownVerb = "unknown verb"
        case badChannel = "bad channel"
        case tooManyFields = "too many fields"
        case fieldTooLong = "field too long"
        /// The verb has other fields than the dialect says.
        case wrongFieldCount = "wrong number of fields"
        /// A field does not hold what the dialect says.
        case badField = "bad field"
        /// A verb of another dialect, or at a point where it makes no sense.
        case outOfPlace = "out of place"
        /// More octets of content than the receiver gave credit for.
        case creditExceeded = "credit exceeded"
    }

    package let kind: Kind
    /// The frame's verb, once it was known.
    package let verb: Verb?

    package init(_ kind: Kind, _ verb: Verb? = nil) {
        self.kind = kind
        self.verb = verb
    }

    /// For a log line.
    package var text: String {
        if let verb = self.verb { "\(self.kind.rawValue) in \(verb.rawValue)" } else { self.kind.rawValue }
    }
}

/// The limits of `Documentation/pipes.md` §1.
package enum FrameLimits {
    package static let contentOctetCountMax = 70_000
    package static let fieldOctetCountMax = 2_048
    package static let dataOctetCountMax = 65_536
    /// A field of the verbs that carry credentials.
    package static let credentialOctetCountMax = SASLLimits.messageOctetCountMax
    package static let fieldCountMax = 12
    /// What a submitter may send of a message before the first `more`.
    package static let creditOctetCount = 262_144
    /// The largest `want`.
    package static let wantOctetCountMax = 1_048_576
    /// The largest report that a bounce agent may exchange.
    package static let exchangeOctetCountMax = 1_048_576
}

/// One frame: a verb, a channel and fields of plain octets.
package struct Frame: Sendable {
    package let verb: Verb
    package let channel: UInt32
    package let fieldCount: Int
    private let octets: [UInt8]
    /// The start and the end of each field in `octets`, in turn.
    private let bounds: InlineArray<24, UInt32>

    /// Reads the content of a frame's netstring.
    package init(content octets: [UInt8]) throws(FrameFault) {
        var bounds = InlineArray<24, UInt32>(repeating: 0)
        var count = 0
        var verb: Verb?
        var channel: UInt32 = 0
        var index = 0
        var place = 0
        while index < octets.count {
            let (start, end) = try Self.netstring(octets, at: index)
            index = end + 1
            defer { place += 1 }
            if place == 0 {
                guard let known = Verb(octets: octets[start..<end]) else { throw FrameFault(.unknownVerb) }
                verb = known
            } else if place == 1 {
                guard let number = Self.channelNumber(octets, start, end) else {
                    throw FrameFault(.badChannel, verb)
                }
                channel = number
            } else {
                guard count < FrameLimits.fieldCountMax else { throw FrameFault(.tooManyFields, verb) }
                guard end - start <= Self.fieldOctetCountMax(verb) else { throw FrameFault(.fieldTooLong, verb) }
                bounds[2 * count] = UInt32(truncatingIfNeeded: start)
                bounds[2 * count + 1] = UInt32(truncatingIfNeeded: end)
                count += 1
            }
        }
        guard let verb, place >= 2 else { throw FrameFault(.badChannel, verb) }
        self.verb = verb
        self.channel = channel
        self.fieldCount = count
        self.octets = octets
        self.bounds = bounds
    }

    private static func fieldOctetCountMax(_ verb: Verb?) -> Int {
        switch verb {
        case .data: FrameLimits.dataOctetCountMax
        case .begin, .answer, .challenge, .proof: FrameLimits.credentialOctetCountMax
        default: FrameLimits.fieldOctetCountMax
        }
    }

    /// A field; the caller has looked at `fieldCount`.
    package subscript(index: Int) -> ArraySlice<UInt8> {
        precondition(index >= 0 && index < self.fieldCount)
        return self.octets[Int(self.bounds[2 * index])..<Int(self.bounds[2 * index + 1])]
    }

    /// Throws unless the frame has that many fields.
    package func expectFields(_ count: Int) throws(FrameFault) {
        guard self.fieldCount == count else { throw FrameFault(.wrongFieldCount, self.verb) }
    }

    package func expectFields(_ counts: ClosedRange<Int>) throws(FrameFault) {
        guard counts.contains(self.fieldCount) else { throw FrameFault(.wrongFieldCount, self.verb) }
    }

    /// The number that a field spells.
    package func number(_ index: Int, limit: UInt64 = .max) throws(FrameFault) -> UInt64 {
        guard let number = self[index].decimal(limit: limit) else { throw FrameFault(.badField, self.verb) }
        return number
    }

    /// Something that can be read from a field, or the fault that it cannot.
    package func value<Value>(_ value: Value?) throws(FrameFault) -> Value {
        guard let value else { throw FrameFault(.badField, self.verb) }
        return value
    }

    /// Where the netstring at `index` starts and ends, its comma checked.
    private static func netstring(_ octets: [UInt8], at index: Int) throws(FrameFault) -> (Int, Int) {
        var length = 0
        var cursor = index
        while cursor < octets.count, octets[cursor].isDigit {
            // A leading zero is only the number zero itself.
            guard !(cursor > index && length == 0) else { throw FrameFault(.badLength) }
            length = length * 10 + Int(octets[cursor] - 0x30)
            guard length <= FrameLimits.contentOctetCountMax else { throw FrameFault(.badLength) }
            cursor += 1
        }
        guard cursor > index, cursor < octets.count, octets[cursor] == ASCII.colon else {
            throw FrameFault(.badLength)
        }
        let start = cursor + 1
        let end = start + length
        guard end < octets.count else { throw FrameFault(.badLength) }
        guard octets[end] == 0x2C else { throw FrameFault(.missingComma) }
        return (start, end)
    }

    private static func channelNumber(_ octets: [UInt8], _ start: Int, _ end: Int) -> UInt32? {
        guard let number = octets[start..<end].decimal(limit: UInt64(UInt32.max)) else { return nil }
        return UInt32(truncatingIfNeeded: number)
    }
}

extension Frame: Equatable {
    package static func == (left: Frame, right: Frame) -> Bool {
        left.verb == right.verb && left.channel == right.channel && left.octets == right.octets
    }
}
