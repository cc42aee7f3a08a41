// SPDX-License-Identifier: Apache-2.0

import MailTypes
import PipeCore
import Testing

@testable import LocalDeliverer

@Suite("A message in an mbox")
struct MboxTests {
    @Test(
        "has > in front of every line that would begin a message, wherever the parts are cut",
        arguments: [
            ("", "\n"), ("a\n", "a\n\n"), ("a", "a\n\n"), ("\n", "\n\n"),
            ("From a\n", ">From a\n\n"), (">From a\n>>From b\n", ">>From a\n>>>From b\n\n"),
            ("Fromage\nFrom\nFrom: x\n", "Fromage\nFrom\nFrom: x\n\n"),
            ("x From a\n From b\n", "x From a\n From b\n\n"),
            ("From", "From\n\n"), ("From ", ">From \n\n"), (">F", ">F\n\n"), ("> From a\n", "> From a\n\n"),
            ("FFrom a\n>FFrom a\n", "FFrom a\n>FFrom a\n\n"), ("\nFrom \nFrom x", "\n>From \n>From x\n\n"),
        ])
    func quoting(content: String, expected: String) {
        let octets = Array(content.utf8)
        for first in 0...octets.count {
            for second in first...octets.count {
                var quoting = MboxQuoting()
                var written: [UInt8] = []
                for part in [octets[..<first], octets[first..<second], octets[second...]] {
                    // Parts are written one by one: nothing may be changed in what was written before.
                    var more: [UInt8] = []
                    quoting.quote(part, into: &more)
                    written += more
                }
                quoting.end(into: &written)
                #expect(String(decoding: written, as: UTF8.self) == expected, "cut at \(first) and \(second)")
            }
        }
    }

    @Test("begins with a line that has the sender without blanks and the date of asctime")
    func fromLine() throws {
        let time = Timestamp(microseconds: 1_763_910_231_000_000)
        func line(_ sender: String) throws -> String {
            let path = try #require(ReversePath(octets: Array(sender.utf8)))
            return String(decoding: MboxFile.fromLine(path, time), as: UTF8.self)
        }
        #expect(try line("a@b.example") == "From a@b.example Sun Nov 23 15:03:51 2025\n")
        #expect(try line("") == "From MAILER-DAEMON Sun Nov 23 15:03:51 2025\n")
        #expect(try line("\"a b\"@c.example") == "From \"a-b\"@c.example Sun Nov 23 15:03:51 2025\n")
    }
}

@Suite("The words of a delivery for a program")
struct DeliveryWordsTests {
    @Test(
        "know the tag behind the user's name",
        arguments: [
            ("joe+tag", "tag"), ("JOE-a-b", "a-b"), ("joe", ""), ("joey", ""), ("sales", ""), ("joe+", ""),
            ("jo+e", ""),
        ])
    func tag(localPart: String, tag: String) {
        #expect(DeliveryWords.tag(of: Array(localPart.utf8), user: "joe") == Array(tag.utf8))
    }
}
