// SPDX-License-Identifier: Apache-2.0

import SMTPCore
import Testing

/// What became of content.
private struct Decoded: Equatable {
    var content: [UInt8] = []
    var fault: DataFault?
    /// What is behind the end; nil if the end did not come.
    var rest: [UInt8]?
}

/// The same in the plainest way: all octets at once, one line after the other. The decoder is held against it.
private func decodePlainly(_ octets: [UInt8], repairing: Bool = false) -> Decoded {
    var decoded = Decoded()
    var line: [UInt8] = []
    var isRepaired = false
    var index = 0
    while index < octets.count {
        let octet = octets[index]
        if octet == 13, index + 1 < octets.count, octets[index + 1] == 10 {
            if line == [0x2E], !isRepaired {
                decoded.rest = Array(octets[(index + 2)...])
                break
            }
            decoded.content += line.first == 0x2E ? line.dropFirst() : line[...]
            decoded.content += [13, 10]
            line = []
            isRepaired = false
            index += 2
            continue
        }
        if octet == 10, repairing, decoded.fault == nil {
            decoded.content += (line.first == 0x2E ? line.dropFirst() : line[...]) + [13, 10]
            line = []
            isRepaired = true
            index += 1
            continue
        }
        if octet == 13, index + 1 < octets.count { decoded.fault = decoded.fault ?? .bareCarriageReturn }
        if octet == 10 { decoded.fault = decoded.fault ?? .bareLineFeed }
        line.append(octet)
        index += 1
    }
    return decoded
}

@Suite("DataDecoder")
struct DataDecoderTests {
    /// Feeds the pieces that end at the cuts, as a driver does.
    private func decode(
        _ octets: [UInt8], cuts: [Int] = [], countMax: Int = .max, repairing: Bool = false
    ) -> Decoded {
        var decoder = DataDecoder(
            mailOctetCountMax: 1_000, lineOctetCountMax: 100, repairsBareLineFeeds: repairing)
        var decoded = Decoded()
        var pending: [UInt8] = []
        var start = 0
        for end in cuts + [octets.count] where decoded.rest == nil {
            pending += octets[start..<end]
            start = end
            var index = 0
            reading: while true {
                switch decoder.next(pending.span, at: &index, countMax: countMax) {
                case .run(let range):
                    #expect(range.count <= countMax)
                    if range.isEmpty { break reading }
                    decoded.content += pending[range]
                case .repairedLineEnd:
                    #expect(repairing)
                    decoded.content += [13, 10]
                case .hungry: break reading
                case .end:
                    decoded.rest = Array(pending[index...]) + octets[start...]
                    break reading
                }
            }
            if decoded.rest != nil { break }
            pending.removeFirst(index)
            #expect(countMax < .max || pending.count <= 2)
        }
        decoded.fault = decoder.fault
        if decoder.fault == nil, decoded.rest != nil { #expect(decoder.octetCount == UInt64(decoded.content.count)) }
        return decoded
    }

    private func agree(_ found: Decoded, _ expected: Decoded, _ how: String) -> Bool {
        // Of a faulty message it does not matter how much was given before the fault was seen.
        let isSame =
            found.fault == expected.fault && found.rest == expected.rest
            && (expected.fault != nil || expected.rest == nil || found.content == expected.content)
        if !isSame { Issue.record("\(how): \(found) is not \(expected)") }
        return isSame
    }

    @Test("agrees with the plain reading for every short sequence of CR, LF, dot and letter, whole and octet by octet")
    func everySequence() {
        let alphabet: [UInt8] = [13, 10, 0x2E, 0x61]
        let ends = [Array("\r\n.\r\nNEXT".utf8), Array("\r\n.\r\n\r\n.\r\n".utf8)]
        for repairing in [false, true] {
            for length in 0...5 {
                for number in 0..<(1 << (2 * length)) {
                    let middle = (0..<length).map { alphabet[number >> (2 * $0) & 3] }
                    let octets = middle + ends[number & 1]
                    let expected = decodePlainly(octets, repairing: repairing)
                    let cuts = Array(0..<octets.count)
                    guard
                        self.agree(self.decode(octets, repairing: repairing), expected, "whole \(octets)"),
                        self.agree(
                            self.decode(octets, cuts: cuts, repairing: repairing), expected, "octets \(octets)"),
                        self.agree(
                            self.decode(octets, countMax: 2, repairing: repairing), expected, "limited \(octets)")
                    else { return }
                }
            }
        }
    }

    @Test("a repaired line feed ends a line and never the message, and counts as the two octets that it becomes")
    func repairs() {
        let smuggled = Array("a\n.\nMAIL FROM:<x@y>\n.\r\nb\r\n..\nc\r\n.\r\nQUIT\r\n".utf8)
        let decoded = self.decode(smuggled, repairing: true)
        #expect(decoded.content == Array("a\r\n\r\nMAIL FROM:<x@y>\r\n\r\nb\r\n.\r\nc\r\n".utf8))
        #expect(decoded.rest == Array("QUIT\r\n".utf8) && decoded.fault == nil)
        let feeds = [UInt8](repeating: 10, count: 501)
        #expect(self.decode(feeds.dropLast() + Array(".\r\n.\r\n".utf8), repairing: true).fault == .tooLarge)
        #expect(self.decode(Array("x\n\ry\r\n.\r\n".utf8), repairing: true).fault == .bareCarriageReturn)
        let long = [UInt8](repeating: 0x61, count: 101)
        #expect(self.decode(long + Array("\n\r\n.\r\n".utf8), repairing: true).fault == .lineTooLong)
    }

    private let messages = [
        ".\r\n", "\r\n.\r\n", "Subject: x\r\n\r\nbody\r\n.\r\nQUIT\r\n", "..\r\n...x\r\n.x\r\n.\r\n",
        "a\r\n.\n.\r\nMAIL FROM:<evil@example>\r\n\r\n.\r\n", "a\n.\nMAIL\r\n.\r\nNOOP\r\n", "a\r.\rb\r\n.\r\n",
        "a\r\r\n.\r\n.\r\n", "a\r\n.\r\r\n.\r\n", "\0\u{1}\u{ff}\r\n.\r\n",
    ]

    @Test("gives the same at every cut")
    func everyCut() {
        for message in self.messages {
            let octets = Array(message.utf8)
            let expected = decodePlainly(octets)
            for cut in 0...octets.count {
                _ = self.agree(self.decode(octets, cuts: [cut]), expected, "\(message.debugDescription) cut at \(cut)")
            }
        }
    }

    @Test(
        "nothing but CR LF . CR LF ends a message (SMTP smuggling)",
        arguments: [
            "\n.\n", "\n.\r\n", "\r.\r", "\r.\r\n", "\r\n.\n", "\r\n.\r", "\r\n\0.\r\n", "\r\n. \r\n", "\n\n.\r\n",
        ])
    func smuggling(end: String) {
        let octets = Array("text\(end)MAIL FROM:<a@b>\r\n.\r\nNOOP\r\n".utf8)
        #expect(self.decode(octets).rest == Array("NOOP\r\n".utf8))
    }

    @Test("lines up to the limit pass, longer ones refuse the message and are read to its end")
    func lineLength() {
        let exact = String(repeating: "x", count: 100)
        #expect(self.decode(Array("\(exact)\r\n.\r\n".utf8)).fault == nil)
        #expect(self.decode(Array(".\(exact)\r\n.\r\n".utf8)).fault == nil)
        for cut in [0, 50, 100, 101, 102] {
            let long = self.decode(Array("\(exact)x\r\n.\r\nRSET\r\n".utf8), cuts: [cut])
            #expect(long.fault == .lineTooLong)
            #expect(long.rest == Array("RSET\r\n".utf8))
        }
    }

    @Test("octets are counted past the limit, and the end is still found")
    func size() {
        let line = String(repeating: "x", count: 98) + "\r\n"
        let exact = Array((String(repeating: line, count: 10) + ".\r\n").utf8)
        #expect(self.decode(exact).fault == nil)
        #expect(self.decode(exact, cuts: Array(0..<exact.count)).content.count == 1_000)
        let large = Array((String(repeating: line, count: 10) + "y\r\n.\r\nRSET\r\n").utf8)
        let decoded = self.decode(large, cuts: Array(stride(from: 0, to: large.count, by: 7)))
        #expect(decoded.fault == .tooLarge)
        #expect(decoded.rest == Array("RSET\r\n".utf8))
    }

    @Test("stuffed dots and the end do not count as content")
    func dotsAreNotCounted() {
        let stuffed = Array((String(repeating: "..2345\r\n", count: 142) + ".\r\n").utf8)
        let decoded = self.decode(stuffed)
        #expect(decoded.fault == nil)
        #expect(decoded.content.count == 142 * 7)
    }
}
