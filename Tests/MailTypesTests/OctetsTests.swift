// SPDX-License-Identifier: Apache-2.0

import MailTypes
import Testing

@Suite("Octets") struct OctetsTests {
    @Test("the first CR or LF is found from every place to every limit, whatever stands around it")
    func lineOctets() {
        // Octets that a word at a time could take for CR or LF: below 14, beyond ASCII, and these two with the upper bit.
        let others: [UInt8] = [0x41, 0x00, 0x09, 0x0B, 0x0E, 0x0C, 0x80, 0x8A, 0x8D, 0xFF, 0x7F, 0x0F]
        var random = SystemRandomNumberGenerator()
        for length in [0, 1, 7, 8, 9, 31, 32, 33, 40, 63, 64, 65, 100] {
            for round in 0..<40 {
                let octets = (0..<length).map { place -> UInt8 in
                    if round > 0, Int.random(in: 0..<30, using: &random) == 0 { return Bool.random() ? 13 : 10 }
                    return others[(place + round) % (round % 3 == 0 ? 1 : others.count)]
                }
                for start in 0...length {
                    for limit in start...length {
                        let plain = octets[start..<limit].firstIndex { $0 == 13 || $0 == 10 } ?? limit
                        let found = octets.span.lineOctetIndex(from: start, to: limit)
                        guard found != plain else { continue }
                        Issue.record("\(octets) from \(start) to \(limit): \(found)")
                    }
                }
            }
        }
    }

    @Test(
        "numbers are written as they are read",
        arguments: [0, 1, 9, 10, 11, 99, 100, 65_536, .max - 1, .max] as [UInt64])
    func digits(number: UInt64) {
        var octets: [UInt8] = [0x61]
        octets.append(decimal: number)
        #expect(String(decoding: octets, as: UTF8.self) == "a\(number)")
        #expect(octets.dropFirst().decimal() == number)
    }
}
