// SPDX-License-Identifier: Apache-2.0

import MailTypes
import PipeCore
import QueueCore

/// A file that says that it is an export of a queue.
enum ExportBody {
    /// A message as it would be imported.
    private struct Message: Equatable {
        var record: MessageRecord
        var recipients: [RecipientRecord]
        var content: [UInt8] = []
    }

    static func run(_ script: inout FuzzScript) throws(Breach) {
        let whole = Self.read([script.stream[...]])
        let cut = Self.read(script.pieces())
        try hold(whole.messages == cut.messages, "other messages at other cuts")
        try hold(whole.isAtEnd == cut.isAtEnd, "another end at other cuts")
        for message in whole.messages {
            try hold(!message.recipients.isEmpty, "a message without recipients")
            try hold(message.recipients.allSatisfy { $0.route != .bounce }, "a recipient of the bounce agent")
            try hold(UInt64(message.content.count) == message.record.contentOctetCount, "content is missing")
        }
        // What was read is written, and read again as the same.
        let again = Self.read([Self.write(whole.messages)[...]])
        try hold(again.isAtEnd && again.messages == whole.messages, "another message than was written")
    }

    private static func read(_ pieces: [ArraySlice<UInt8>]) -> (messages: [Message], isAtEnd: Bool) {
        var decoder = FrameDecoder()
        var reader = ExportReader()
        var assembler = ImportAssembler(recipientCountMax: 100)
        var messages: [Message] = []
        var open: Message?
        do {
            for piece in pieces {
                decoder.append(Array(piece))
                while let frame = try decoder.next() {
                    var steps: [ImportAssembler.Step] = []
                    switch try reader.receive(frame) {
                    case .message(let id, let fields): try assembler.message(id, fields)
                    case .recipient(let number, let fields): try assembler.recipient(number, fields)
                    case .data(let octets): steps = try assembler.data(octets)
                    case .whole(let count): steps = try assembler.whole(count)
                    case .gone:
                        assembler.forget()
                        open = nil
                    case .header, .end: break
                    }
                    for step in steps {
                        switch step {
                        case .message(let record, let recipients):
                            open = Message(record: record, recipients: recipients)
                        case .content(let octets): open?.content += octets
                        case .complete:
                            if let message = open { messages.append(message) }
                            open = nil
                        }
                    }
                }
            }
        } catch { return (messages, false) }
        return (messages, reader.isAtEnd)
    }

    private static func write(_ messages: [Message]) -> [UInt8] {
        var octets: [UInt8] = []
        func append(_ part: ExportPart) { part.append(to: &octets, channel: 0) }
        append(
            .header(
                major: ExportFormat.major, minor: ExportFormat.minor, program: Array("fuzzer".utf8),
                time: Timestamp(microseconds: 1)))
        var counts = ExportCounts()
        for message in messages {
            append(.message(message.record.id, message.record.exportFields))
            for recipient in message.recipients { append(.recipient(recipient.number, recipient.exportFields)) }
            append(.data(message.record.prefix[...]))
            append(.data(message.content[...]))
            append(.whole(message.record.octetCount))
            counts.messages += 1
            counts.recipients += UInt64(message.recipients.count)
            counts.octets += message.record.octetCount
        }
        append(.end(counts))
        return octets
    }
}
