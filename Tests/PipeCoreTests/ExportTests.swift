// SPDX-License-Identifier: Apache-2.0

import MailTypes
import PipeCore
import Testing

@Suite struct ExportTests {
    private static let id = MessageID(rawValue: 5)

    private static let header = ExportPart.header(
        major: ExportFormat.major, minor: ExportFormat.minor, program: Array("test".utf8),
        time: Timestamp(microseconds: 7))

    private static func frames(_ parts: [ExportPart], channel: UInt32 = 0) throws -> [Frame] {
        var octets: [UInt8] = []
        for part in parts { part.append(to: &octets, channel: channel) }
        var decoder = FrameDecoder()
        decoder.append(octets)
        var frames: [Frame] = []
        while let frame = try decoder.next() { frames.append(frame) }
        return frames
    }

    /// Reads a file of these parts; answers whether it was whole.
    private static func read(_ parts: [ExportPart]) throws -> (counts: ExportCounts, isAtEnd: Bool) {
        var reader = ExportReader()
        for frame in try Self.frames(parts) { _ = try reader.receive(frame) }
        return (reader.counts, reader.isAtEnd)
    }

    private static let fields = (0..<13).map { NamedOctets("name\($0)", [UInt8](repeating: 0x61, count: $0)) }

    private static let file: [ExportPart] = [
        Self.header, .message(Self.id, Self.fields), .recipient(0, Self.fields), .recipient(3, []),
        .data([UInt8](repeating: 1, count: 70_000)[...]), .whole(70_000),
        .message(MessageID(rawValue: 6), []), .recipient(0, []), .data([1]), .gone,
        .message(MessageID(rawValue: 7), []), .recipient(0, []), .whole(0),
        .end(ExportCounts(messages: 2, recipients: 3, octets: 70_000)),
    ]

    @Test("many fields go into several frames, much data too, and the counts are of what is whole")
    func whole() throws {
        let (counts, isAtEnd) = try Self.read(Self.file)
        #expect(isAtEnd)
        #expect(counts == ExportCounts(messages: 2, recipients: 3, octets: 70_000))
        #expect(try Self.frames([.message(Self.id, Self.fields)]).count == 3)
    }

    @Test("a file that is cut between any two frames is not at its end")
    func cut() throws {
        for count in 0..<Self.file.count {
            #expect(try !Self.read(Array(Self.file[..<count])).isAtEnd)
        }
    }

    @Test("a frame that is left out, stands twice or in another's place is found")
    func order() throws {
        for index in Self.file.indices where index != 3 {
            var without = Self.file
            without.remove(at: index)
            // A whole message less is found by the counts; here one part is.
            let isFound = (try? Self.read(without))?.isAtEnd != true
            #expect(isFound || index == 8, "without part \(index)")
        }
        for (index, part) in Self.file.enumerated() where index > 0 && index != 1 && index != 2 && index != 6 {
            var parts = Self.file
            parts.insert(part, at: index)
            if case .recipient = part { continue }
            if case .message = part { continue }
            if case .data = part, index == 8 { continue }
            #expect(throws: ExportFault.self, "part \(index) twice") { try Self.read(parts) }
        }
        #expect(throws: ExportFault.self) { try Self.read(Self.file + [Self.header]) }
        #expect(throws: ExportFault.self) { try Self.read([.gone]) }
    }

    @Test("another major or a higher minor version is told clearly", arguments: [(0, 0), (1, 3), (2, 0), (1, 99)])
    func version(_ major: UInt64, _ minor: UInt64) throws {
        let header = ExportPart.header(
            major: major, minor: minor, program: [], time: Timestamp(microseconds: 1))
        let fault = #expect(throws: ExportFault.self) { try Self.read([header]) }
        #expect(fault?.text.contains("\(major).\(minor)") == true)
    }
}
