// SPDX-License-Identifier: Apache-2.0

import MailTypes
import QueueCore
import Simulation
import Testing

@Suite struct ImportTests {
    private static let id = MessageID(rawValue: 77)

    private static func message() -> NewMessage {
        var message = Samples.message(77, recipientCount: 4, at: 100, contentOctetCount: 50)
        message.recipients[0].due = nil
        message.recipients[1].state = .queued(last: Samples.deferral)
        message.recipients[1].attemptCount = 3
        message.recipients[1].lastAttempt = Timestamp(microseconds: 90)
        message.recipients[2].state = .failed(Samples.failure)
        message.recipients.remove(at: 3)
        return message
    }

    /// Feeds a message in, with fields changed, and data in pieces of a size.
    private static func read(
        _ message: NewMessage, pieceOctetCount: Int = 7,
        envelope: ([NamedOctets]) -> [NamedOctets] = { $0 }, recipient: ([NamedOctets]) -> [NamedOctets] = { $0 }
    ) throws(ImportFault) -> [ImportAssembler.Step] {
        var assembler = ImportAssembler(recipientCountMax: 10)
        // One field at a time, as if each had a frame of its own.
        for field in envelope(message.record.exportFields) { try assembler.message(Self.id, [field]) }
        for record in message.recipients {
            for field in recipient(record.exportFields) { try assembler.recipient(record.number, [field]) }
        }
        var steps: [ImportAssembler.Step] = []
        let data = message.record.prefix + message.content
        var start = 0
        while start < data.count {
            let end = min(start + pieceOctetCount, data.count)
            steps += try assembler.data(data[start..<end])
            start = end
        }
        return try steps + assembler.whole(UInt64(data.count))
    }

    @Test("what is written of a message is read as it was, in pieces of any size", arguments: [1, 7, 18, 1_000])
    func roundTrip(_ size: Int) throws {
        let message = Self.message()
        let steps = try Self.read(message, pieceOctetCount: size)
        #expect(steps.first == .message(message.record, message.recipients))
        #expect(steps.last == .complete)
        var content: [UInt8] = []
        for case .content(let octets) in steps { content += octets }
        #expect(content == message.content)
    }

    @Test(
        "what need not be there is read as it was, too: RET, ENVID, VERP, SMTPUTF8, NOTIFY, ORCPT, and what was reported"
    )
    func options() throws {
        var message = Self.message()
        let plain = message.record
        message.record = MessageRecord(
            id: plain.id, reversePath: plain.reversePath, bodyType: .eightBitMIME, arrival: plain.arrival,
            expiry: plain.expiry, prefix: plain.prefix, contentOctetCount: plain.contentOctetCount, trace: plain.trace,
            dsn: MessageDSN(returned: .headers, envelopeID: Array("QQ314159".utf8)), unicode: .inHeader, verp: .hyphen)
        let relayed = DeliveryOutcome(
            .delivered, code: 250, status: EnhancedStatus(.success, 0, 0), reporter: "mx", text: "ok")
        let states: [RecipientRecord.State] = [
            .queued(last: nil), .queued(last: Samples.deferral), .reporting(.delayed, Samples.deferral),
            .reporting(.relayed, relayed), .reporting(.expanded, relayed), .reporting(.delivered, relayed),
            .failed(Samples.failure),
        ]
        let wishes: [NotifyConditions?] = [nil, .never, [.success], [.failure, .delay]]
        let template = message.recipients[0]
        message.recipients = states.enumerated().map { number, state in
            RecipientRecord(
                number: UInt32(number), forwardPath: template.forwardPath, originalPath: template.forwardPath,
                route: template.route, flow: template.flow, state: state, due: Timestamp(microseconds: 500),
                attemptCount: 2, lastAttempt: Timestamp(microseconds: 90),
                dsn: RecipientDSN(
                    notify: wishes[number % wishes.count],
                    originalRecipient: number % 2 == 0 ? [] : Array("rfc822;o+2Bx@b.example".utf8)),
                isDelayTold: number % 2 == 1)
        }
        #expect(try Self.read(message).first == .message(message.record, message.recipients))
    }

    @Test("each field that must be there is missed, and none may stand twice")
    func missing() {
        for name in ["from", "body", "arrival", "expiry", "prefix-size", "size", "client"] {
            #expect(throws: ImportFault.self, "without \(name)") {
                try Self.read(Self.message(), envelope: { $0.filter { $0.name != Array(name.utf8) } })
            }
            #expect(throws: ImportFault.self, "\(name) twice") {
                try Self.read(Self.message(), envelope: { $0 + $0.filter { $0.name == Array(name.utf8) } })
            }
        }
        for name in ["to", "route", "priority", "state", "attempts", "code", "dsn", "reporter", "reason"] {
            #expect(throws: ImportFault.self, "without \(name)") {
                try Self.read(Self.message(), recipient: { $0.filter { $0.name != Array(name.utf8) } })
            }
        }
    }

    @Test(
        "a value that cannot be is refused",
        arguments: [
            ("from", "nobody"), ("body", "binary"), ("arrival", "0"), ("expiry", "soon"), ("prefix-size", "65536"),
            ("size", "-1"), ("colour", "blue"), ("size", "49"), ("size", "51"), ("utf8", ""), ("utf8", "yes"),
            ("from", "joe@bücher.example"),
        ])
    func badEnvelope(_ name: String, _ value: String) {
        #expect(throws: ImportFault.self) {
            try Self.read(
                Self.message(),
                envelope: { $0.filter { $0.name != Array(name.utf8) } + [NamedOctets(name, Array(value.utf8))] })
        }
    }

    @Test(
        "a value of a recipient that cannot be is refused",
        arguments: [
            ("to", "nobody"), ("route", "bounce:"), ("route", "pipe:sh"), ("state", "delivered"),
            ("priority", "urgent"), ("due", "0"),
            ("attempts", "4294967296"), ("code", "600"), ("dsn", "2.0.0"), ("colour", "blue"),
        ])
    func badRecipient(_ name: String, _ value: String) {
        #expect(throws: ImportFault.self) {
            try Self.read(
                Self.message(),
                recipient: { $0.filter { $0.name != Array(name.utf8) } + [NamedOctets(name, Array(value.utf8))] })
        }
    }

    @Test("parts out of order are refused, and after what is gone the next message is read")
    func order() throws {
        var assembler = ImportAssembler(recipientCountMax: 1)
        #expect(throws: ImportFault.self) { try assembler.recipient(0, []) }
        #expect(throws: ImportFault.self) { try assembler.data([1]) }
        #expect(throws: ImportFault.self) { try assembler.whole(0) }
        let message = Self.message()
        try assembler.message(Self.id, message.record.exportFields)
        #expect(throws: ImportFault.self) { try assembler.message(MessageID(rawValue: 78), []) }
        #expect(throws: ImportFault.self) { try assembler.data(message.record.prefix[...]) }
        assembler.forget()
        try assembler.message(Self.id, message.record.exportFields)
        try assembler.recipient(1, message.recipients[1].exportFields)
        #expect(throws: ImportFault.self) { try assembler.recipient(0, message.recipients[0].exportFields) }
        // More recipients than are taken.
        #expect(throws: ImportFault.self) {
            try assembler.recipient(2, message.recipients[2].exportFields)
            try assembler.recipient(3, message.recipients[2].exportFields)
        }
    }
}
