// SPDX-License-Identifier: Apache-2.0

import SMTPCore
import Testing

private func encode(_ parts: [ArraySlice<UInt8>]) -> String {
    var encoder = DataEncoder()
    var output: [UInt8] = []
    for part in parts { encoder.encode(part, into: &output) }
    encoder.finish(into: &output)
    return String(decoding: output, as: UTF8.self)
}

@Suite("The encoder of mail data")
struct ClientDataEncoderTests {
    @Test(
        "content leaves with dots doubled and the end after CR LF, however it is cut",
        arguments: [
            ("", ".\r\n"),
            ("a\r\n", "a\r\n.\r\n"),
            ("a", "a\r\n.\r\n"),
            (".", "..\r\n.\r\n"),
            (".\r\n", "..\r\n.\r\n"),
            ("..\r\n", "...\r\n.\r\n"),
            ("a\r\n.b\r\n", "a\r\n..b\r\n.\r\n"),
            ("a\r\n.\r\nMAIL\r\n", "a\r\n..\r\nMAIL\r\n.\r\n"),
            ("\r\n\r\n.\r\n\r\n", "\r\n\r\n..\r\n\r\n.\r\n"),
            ("a.b\r\nc.\r\n", "a.b\r\nc.\r\n.\r\n"),
        ])
    func encodes(_ content: String, _ expected: String) {
        let octets = Array(content.utf8)
        #expect(encode([octets[...]]) == expected)
        #expect(encode(octets.indices.map { octets[$0...$0] }) == expected)
        for cut in octets.indices { #expect(encode([octets[..<cut], octets[cut...]]) == expected) }
    }

    @Test(
        "a stray CR or LF becomes a line end before dots are looked at, so that no other end of data is ever sent",
        arguments: [
            ("a\n.\nb", "a\r\n..\r\nb\r\n.\r\n"),
            ("a\r.\rb", "a\r\n..\r\nb\r\n.\r\n"),
            ("a\r\n.\rb", "a\r\n..\r\nb\r\n.\r\n"),
            ("a\n.\r\nb", "a\r\n..\r\nb\r\n.\r\n"),
            ("a\r", "a\r\n.\r\n"),
            ("a\r\r\n.\r\n", "a\r\n\r\n..\r\n.\r\n"),
            ("\n\r.", "\r\n\r\n..\r\n.\r\n"),
        ])
    func repairsStrayLineEnds(_ content: String, _ expected: String) {
        let octets = Array(content.utf8)
        #expect(encode([octets[...]]) == expected)
        #expect(encode(octets.indices.map { octets[$0...$0] }) == expected)
        for cut in octets.indices { #expect(encode([octets[..<cut], octets[cut...]]) == expected) }
    }

    @Test("whatever the content, the only CR LF . CR LF is at the end")
    func onlyOneEnd() {
        // All words of six letters over the alphabet that matters.
        let alphabet: [UInt8] = [0x0D, 0x0A, 0x2E, 0x61]
        let end = Array("\r\n.\r\n".utf8)
        for number in 0..<4096 {
            let content = (0..<6).map { alphabet[(number >> (2 * $0)) & 3] }
            var encoder = DataEncoder()
            var output = Array("\r\n".utf8)
            encoder.encode(content[...], into: &output)
            encoder.finish(into: &output)
            let places = output.indices.filter { output[$0...].starts(with: end) }
            #expect(places == [output.count - end.count])
            // And no CR or LF stands alone.
            for (index, octet) in output.enumerated() {
                if octet == 0x0A { #expect(index > 0 && output[index - 1] == 0x0D) }
                if octet == 0x0D { #expect(index + 1 < output.count && output[index + 1] == 0x0A) }
            }
        }
    }

    @Test("long lines with every octet in every place come out as a slow encoder would make them")
    func longLines() {
        // What RFC 5321 §4.5.2 says, one octet after the other.
        func slow(_ content: [UInt8]) -> [UInt8] {
            var lines: [[UInt8]] = [[]]
            var index = 0
            while index < content.count {
                switch content[index] {
                case 0x0D:
                    if index + 1 < content.count, content[index + 1] == 0x0A { index += 1 }
                    lines.append([])
                case 0x0A: lines.append([])
                case let octet: lines[lines.count - 1].append(octet)
                }
                index += 1
            }
            if lines.last == [] { lines.removeLast() }
            return Array(
                (lines.map { ($0.first == 0x2E ? [0x2E] : []) + $0 } + [[0x2E]]).map { $0 + [0x0D, 0x0A] }.joined())
        }
        for octet in UInt8.min...UInt8.max {
            for place in 0..<20 {
                var content = [UInt8](repeating: 0x80, count: 20)
                content[place] = octet
                var encoder = DataEncoder()
                var output: [UInt8] = []
                encoder.encode(content[...], into: &output)
                encoder.finish(into: &output)
                #expect(output == slow(content))
            }
        }
    }
}
