// SPDX-License-Identifier: Apache-2.0
//
// A queue in a file: Documentation/queue-export.md. The same frames travel between apus and apus-queue (pipes.md §5).

package import MailTypes

/// The name and the version of the format.
package enum ExportFormat {
    package static let name = Array("apus-queue".utf8)
    /// Another one cannot be read.
    package static let major: UInt64 = 1
    /// A higher one has fields that are not known here.
    package static let minor: UInt64 = 2
}

/// What is wrong with an export, in words for the operator.
package struct ExportFault: Error, Equatable, Sendable {
    package let text: String

    package init(_ text: String) { self.text = text }
}

/// One frame of an export.
package enum ExportPart: Equatable, Sendable {
    /// The first: what the file is, who wrote it, and when.
    case header(major: UInt64, minor: UInt64, program: [UInt8], time: Timestamp)
    /// Fields of a message's envelope; several with the same id follow each other if it has many.
    case message(MessageID, [NamedOctets])
    /// Fields of a recipient; several with the same number follow each other if it has many.
    case recipient(UInt32, [NamedOctets])
    /// Prefix and content of the message, in order.
    case data(ArraySlice<UInt8>)
    /// The message is complete: the count of all its data.
    case whole(UInt64)
    /// The message left the queue while it was written: forget it.
    case gone
    /// The last: the counts of complete messages, of their recipients and of their data.
    case end(ExportCounts)

    package init(_ frame: Frame) throws(FrameFault) {
        switch frame.verb {
        case .export:
            guard frame.fieldCount >= 3, frame[0].elementsEqual(ExportFormat.name) else {
                throw FrameFault(.badField, .export)
            }
            let major = try frame.number(1)
            let minor = try frame.number(2)
            // What a later version has behind this is for the caller to refuse by the number.
            let isKnown = frame.fieldCount == 5
            let time = isKnown ? try frame.number(4) : 0
            self = .header(
                major: major, minor: minor, program: isKnown ? Array(frame[3].prefix(64)) : [],
                time: Timestamp(microseconds: time))
        case .message:
            guard frame.fieldCount > 0 else { throw FrameFault(.wrongFieldCount, .message) }
            self = .message(try frame.value(MessageID(octets: frame[0])), try Self.fields(frame))
        case .recipient:
            guard frame.fieldCount > 0 else { throw FrameFault(.wrongFieldCount, .recipient) }
            let number = try frame.number(0, limit: UInt64(UInt32.max))
            self = .recipient(UInt32(truncatingIfNeeded: number), try Self.fields(frame))
        case .data:
            try frame.expectFields(1)
            self = .data(frame[0])
        case .whole:
            try frame.expectFields(1)
            self = .whole(try frame.number(0))
        case .gone:
            try frame.expectFields(0)
            self = .gone
        case .end:
            try frame.expectFields(3)
            self = .end(
                ExportCounts(
                    messages: try frame.number(0), recipients: try frame.number(1), octets: try frame.number(2)))
        default: throw FrameFault(.outOfPlace, frame.verb)
        }
    }

    private static func fields(_ frame: Frame) throws(FrameFault) -> [NamedOctets] {
        guard !frame.fieldCount.isMultiple(of: 2) else { throw FrameFault(.wrongFieldCount, frame.verb) }
        return stride(from: 1, to: frame.fieldCount, by: 2).map { index in
            NamedOctets(name: frame[index], value: frame[index + 1])
        }
    }

    /// Writes the part; fields that do not fit into one frame in several, data of more than 64 KiB too.
    ///
    /// - Precondition: no value is longer than a field may be.
    package func append(to octets: inout [UInt8], channel: UInt32) {
        switch self {
        case .header(let major, let minor, let program, let time):
            let start = octets.beginFrame(.export, channel)
            octets.appendField(ExportFormat.name)
            octets.appendField(number: major)
            octets.appendField(number: minor)
            octets.appendField(program)
            octets.appendField(number: time.microseconds)
            octets.endFrame(start)
        case .message(let id, let fields): Self.append(.message, id.octets, fields, to: &octets, channel)
        case .recipient(let number, let fields):
            var subject: [UInt8] = []
            subject.append(decimal: number)
            Self.append(.recipient, subject, fields, to: &octets, channel)
        case .data(let data): octets.appendData(channel, data)
        case .whole(let count):
            let start = octets.beginFrame(.whole, channel)
            octets.appendField(number: count)
            octets.endFrame(start)
        case .gone: octets.appendFrame(.gone, channel)
        case .end(let counts):
            let start = octets.beginFrame(.end, channel)
            octets.appendField(number: counts.messages)
            octets.appendField(number: counts.recipients)
            octets.appendField(number: counts.octets)
            octets.endFrame(start)
        }
    }

    private static func append(
        _ verb: Verb, _ subject: [UInt8], _ fields: [NamedOctets], to octets: inout [UInt8], _ channel: UInt32
    ) {
        var rest = fields[...]
        repeat {
            let start = octets.beginFrame(verb, channel)
            octets.appendField(subject)
            for field in rest.prefix(Self.pairCountMax) {
                octets.appendField(field.name)
                octets.appendField(field.value)
            }
            octets.endFrame(start)
            rest = rest.dropFirst(Self.pairCountMax)
        } while !rest.isEmpty
    }

    private static let pairCountMax = (FrameLimits.fieldCountMax - 1) / 2
}

/// How much an export holds.
package struct ExportCounts: Hashable, Sendable {
    package var messages: UInt64
    package var recipients: UInt64
    /// Prefixes and content.
    package var octets: UInt64

    package init(messages: UInt64 = 0, recipients: UInt64 = 0, octets: UInt64 = 0) {
        self.messages = messages
        self.recipients = recipients
        self.octets = octets
    }
}

/// Holds a file against the order of its frames: it begins with its version, each message is whole or gone, and the
/// counts at its end are right. A file without an end was cut.
package struct ExportReader: Equatable {
    private enum State: Equatable {
        /// → `between`
        case start
        /// → `envelope`, `end`
        case between
        /// → `recipients`
        case envelope(MessageID)
        /// → `content`, `between`
        case recipients(last: UInt32, count: UInt64)
        /// → `between`
        case content(octetCount: UInt64, recipientCount: UInt64)
        case end
    }

    private var state = State.start
    /// What has come whole.
    package private(set) var counts = ExportCounts()

    package init() {}

    package var isAtEnd: Bool { self.state == .end }

    /// Takes the next frame in.
    package mutating func receive(_ frame: Frame) throws(ExportFault) -> ExportPart {
        let part: ExportPart
        do throws(FrameFault) { part = try ExportPart(frame) } catch {
            throw ExportFault(
                self.state == .start ? "this is no export of a queue" : "a frame that no export has: \(error.text)")
        }
        guard frame.channel == 0 else { throw ExportFault("a frame that no export has: a channel other than 0") }
        switch (self.state, part) {
        case (.start, .header(let major, let minor, _, _)):
            guard major == ExportFormat.major, minor <= ExportFormat.minor else {
                throw ExportFault(
                    "this export has the format \(major).\(minor), and here \(ExportFormat.major).\(ExportFormat.minor) "
                        + "is the latest that can be read: import it with a later version of Apus")
            }
            self.state = .between
        case (.start, _): throw ExportFault("this is no export of a queue")
        case (.between, .message(let id, _)): self.state = .envelope(id)
        case (.envelope(let id), .message(let same, _)) where id == same: break
        case (.envelope, .recipient(let number, _)): self.state = .recipients(last: number, count: 1)
        case (.recipients(let last, let count), .recipient(let number, _)) where number >= last:
            if number > last { self.state = .recipients(last: number, count: count + 1) }
        case (.recipients(_, let count), .data(let data)):
            self.state = .content(octetCount: UInt64(data.count), recipientCount: count)
        case (.recipients(_, let count), .whole(let told)): try self.complete(told, 0, count)
        case (.content(let octetCount, let count), .data(let data)):
            self.state = .content(octetCount: octetCount + UInt64(data.count), recipientCount: count)
        case (.content(let octetCount, let count), .whole(let told)): try self.complete(told, octetCount, count)
        case (.envelope, .gone), (.recipients, .gone), (.content, .gone): self.state = .between
        case (.between, .end(let told)):
            guard told == self.counts else {
                throw ExportFault(
                    "the end speaks of \(told.messages) messages with \(told.octets) octets, and there are "
                        + "\(self.counts.messages) with \(self.counts.octets)")
            }
            self.state = .end
        default: throw ExportFault("\(frame.verb.rawValue) stands where it makes no sense")
        }
        return part
    }

    private mutating func complete(
        _ told: UInt64, _ octetCount: UInt64, _ recipientCount: UInt64
    ) throws(ExportFault) {
        guard told == octetCount else {
            throw ExportFault("a message of \(told) octets has \(octetCount) in the file")
        }
        self.counts.messages += 1
        self.counts.recipients += recipientCount
        self.counts.octets = self.counts.octets &+ octetCount
        self.state = .between
    }
}
