// SPDX-License-Identifier: Apache-2.0

import SMTPCore
import Testing

@Suite("LineFramer")
struct LineFramerTests {
    /// What a framer makes of octets that come in pieces which end at the cuts: lines in brackets, faults by name.
    private func steps(_ text: String, max: Int, cuts: [Int] = []) -> [String] {
        let octets = Array(text.utf8)
        var framer = LineFramer(lineOctetCountMax: max)
        var pending: [UInt8] = []
        var steps: [String] = []
        var start = 0
        for end in cuts + [octets.count] {
            pending += octets[start..<end]
            start = end
            var index = 0
            reading: while true {
                switch framer.next(pending.span, at: &index) {
                case .line(let range): steps.append("[\(String(decoding: pending[range], as: UTF8.self))]")
                case .fault(let fault): steps.append("\(fault)")
                case .hungry: break reading
                }
            }
            pending.removeFirst(index)
            #expect(pending.count <= max, "more is kept than a line")
        }
        return steps
    }

    private let cases: [(text: String, steps: [String])] = [
        ("EHLO a\r\nQUIT\r\n", ["[EHLO a]", "[QUIT]"]),
        ("\r\n\r\n", ["[]", "[]"]),
        ("no end", []),
        ("a\nb\r\nc\r\n", ["bareLineFeed", "[c]"]),
        ("a\n\r\nc\r\n", ["bareLineFeed", "[c]"]),
        ("a\rb\r\nc\r\n", ["bareCarriageReturn", "[c]"]),
        ("a\r\r\nc\r\n", ["bareCarriageReturn", "[c]"]),
        ("\n\r\n\nx\r\n", ["bareLineFeed", "bareLineFeed"]),
        ("a\0b\nc\rd\r\nc\r\n", ["nul", "[c]"]),
        ("123456789012\r\n", ["[123456789012]"]),
        ("1234567890123\r\nok\r\n", ["tooLong", "[ok]"]),
        ("12345678901234567890\n\rQUIT\r\nok\r\n", ["tooLong", "[ok]"]),
        ("tab\tis\r\n", ["[tab\tis]"]),
    ]

    @Test("cuts lines at CR LF only and reports each faulty line once, at every cut")
    func everyCut() {
        for (text, expected) in self.cases {
            let count = text.utf8.count
            #expect(self.steps(text, max: 14) == expected, "whole: \(text.debugDescription)")
            #expect(
                self.steps(text, max: 14, cuts: Array(0..<count)) == expected, "octets: \(text.debugDescription)")
            for cut in 0...count {
                #expect(self.steps(text, max: 14, cuts: [cut]) == expected, "cut \(cut): \(text.debugDescription)")
            }
        }
    }

    @Test("an endless line is dropped as it comes")
    func endless() {
        var framer = LineFramer(lineOctetCountMax: 512)
        let piece = [UInt8](repeating: 0x61, count: 1_000)
        var faultCount = 0
        for _ in 0..<100 {
            var index = 0
            if case .fault(.tooLong) = framer.next(piece.span, at: &index) { faultCount += 1 }
            #expect(index == piece.count)
        }
        #expect(faultCount == 1)
    }
}
