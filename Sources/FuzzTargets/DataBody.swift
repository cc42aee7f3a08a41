// SPDX-License-Identifier: Apache-2.0

import MailTypes
import SMTPCore

/// The decoder of mail data against a plain one that looks at one octet after the other, and against itself at other cuts.
enum DataBody {
    static func run(_ script: inout FuzzScript) throws(Breach) {
        let mailMax = UInt64(1 + script.next(256) * 4)
        let lineMax = 1 + script.next(64)
        let repairs = script.next(2) == 1
        // Every stream ends, and something comes behind the end.
        let stream = script.stream + Array("\r\n.\r\nQUIT\r\n".utf8)
        let plain = PlainDecoding(stream, mailMax, lineMax, repairs)
        let whole = try Self.decode([stream[...]], mailMax, lineMax, repairs, &script)
        try Self.compare(plain, whole, "whole")
        var pieces: [ArraySlice<UInt8>] = []
        var rest = stream[...]
        while !rest.isEmpty {
            let count = 1 + script.next(9)
            pieces.append(rest.prefix(count))
            rest = rest.dropFirst(count)
        }
        try Self.compare(plain, try Self.decode(pieces, mailMax, lineMax, repairs, &script), "in pieces")
        let content = plain.content
        if plain.faults.isEmpty { try Self.encodeAgain(content, pieces: &script) }
    }

    private struct Decoding {
        var content: [UInt8] = []
        var usedCount = 0
        var octetCount: UInt64 = 0
        var fault: DataFault?
        var hasEnded = false
    }

    private static func decode(
        _ pieces: [ArraySlice<UInt8>], _ mailMax: UInt64, _ lineMax: Int, _ repairs: Bool,
        _ script: inout FuzzScript
    ) throws(Breach) -> Decoding {
        var decoder = DataDecoder(
            mailOctetCountMax: mailMax, lineOctetCountMax: lineMax, repairsBareLineFeeds: repairs)
        var decoding = Decoding()
        var buffer: [UInt8] = []
        for piece in pieces {
            buffer += piece
            var index = 0
            feeding: while true {
                let countMax = 2 + script.next(60)
                switch decoder.next(buffer.span, at: &index, countMax: countMax) {
                case .run(let range):
                    try hold(!range.isEmpty && range.count <= countMax, "a run of \(range.count)")
                    decoding.content += buffer[range]
                case .repairedLineEnd:
                    try hold(repairs && countMax >= 2, "a line feed is repaired")
                    decoding.content += [13, 10]
                case .hungry: break feeding
                case .end:
                    decoding.hasEnded = true
                    break feeding
                }
            }
            decoding.usedCount += index
            if decoding.hasEnded { break }
            buffer.removeFirst(index)
            try hold(buffer.count <= 2, "\(buffer.count) octets are held back")
        }
        decoding.fault = decoder.fault
        decoding.octetCount = decoder.octetCount
        return decoding
    }

    private static func compare(_ plain: PlainDecoding, _ decoding: Decoding, _ how: String) throws(Breach) {
        try hold(decoding.hasEnded, "\(how): the end was missed")
        try hold(
            decoding.usedCount == plain.usedCount, "\(how): it ends at \(decoding.usedCount), not \(plain.usedCount)")
        if let fault = decoding.fault {
            try hold(plain.faults.contains(fault), "\(how): \(fault) is not there")
        } else {
            try hold(plain.faults.isEmpty, "\(how): \(plain.faults) was missed")
            try hold(decoding.content == plain.content, "\(how): other content")
            try hold(decoding.octetCount == UInt64(plain.content.count), "\(how): counted \(decoding.octetCount)")
        }
    }

    /// What was received can be sent on, and arrives as it was.
    private static func encodeAgain(_ content: [UInt8], pieces script: inout FuzzScript) throws(Breach) {
        var encoder = DataEncoder()
        var octets: [UInt8] = []
        var rest = content[...]
        while !rest.isEmpty {
            let piece = Array(rest.prefix(1 + script.next(30)))
            encoder.encode(piece[...], into: &octets)
            rest = rest.dropFirst(piece.count)
        }
        encoder.finish(into: &octets)
        let again = PlainDecoding(octets, .max, .max, false)
        try hold(again.faults.isEmpty && again.content == content, "encoded, it is other content")
        try hold(again.usedCount == octets.count, "encoded, it ends early")
    }
}

/// RFC 5321 §4.5.2 in its plainest form: lines end in CR LF, a dot alone ends the data, a leading dot is dropped.
struct PlainDecoding {
    var content: [UInt8] = []
    var usedCount = 0
    var faults: Set<DataFault> = []

    init(_ octets: [UInt8], _ mailMax: UInt64, _ lineMax: Int, _ repairs: Bool) {
        var line: [UInt8] = []
        var isRepaired = false
        var index = 0
        while index < octets.count {
            let isEnd = octets[index] == 13 && index + 1 < octets.count && octets[index + 1] == 10
            let isRepair = octets[index] == 10 && repairs
            guard isEnd || isRepair else {
                line.append(octets[index])
                index += 1
                continue
            }
            index += isEnd ? 2 : 1
            self.usedCount = index
            if isEnd, !isRepaired, line == [0x2E] { break }
            isRepaired = isRepair
            if line.first == 0x2E { line.removeFirst() }
            if line.contains(13) { self.faults.insert(.bareCarriageReturn) }
            if line.contains(10) { self.faults.insert(.bareLineFeed) }
            if line.count > lineMax { self.faults.insert(.lineTooLong) }
            self.content += line + [13, 10]
            line = []
        }
        if UInt64(self.content.count) > mailMax { self.faults.insert(.tooLarge) }
    }
}
