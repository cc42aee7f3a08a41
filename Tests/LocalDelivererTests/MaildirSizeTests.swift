// SPDX-License-Identifier: Apache-2.0

import Testing

@testable import LocalDeliverer

@Suite("The file maildirsize")
struct MaildirSizeTests {
    private func read(_ text: String) -> MaildirSize? { MaildirSize(Array(text.utf8)) }

    @Test("adds up what its lines say, in whatever order and spacing")
    func sums() throws {
        let size = try #require(self.read("1000000S,1000C\n          100            1\n-40 -1\n7 1\n"))
        #expect(size.limit == MailboxLimit(octetCount: 1_000_000, messageCount: 1_000))
        #expect(size.octetCount == 67)
        #expect(size.messageCount == 1)
        #expect(size.lineCount == 3)
        #expect(try #require(self.read("5C,9S\n")).limit == MailboxLimit(octetCount: 9, messageCount: 5))
    }

    @Test(
        "is counted anew where it cannot be understood",
        arguments: [
            "", "\n", "S\n", "xS\n", "10S\n1\n", "10S\n1 2 3\n", "10S\n1 x\n", "10S\n--1 1\n", "10S", "10S\n1 1",
            "99999999999999999999999S\n", "10S\n" + String(repeating: "1 1\n", count: 2_000),
        ])
    func wrong(text: String) { #expect(self.read(text) == nil) }

    @Test("is exceeded by one octet or one message too many, and by none without a limit")
    func exceeded() throws {
        let size = try #require(self.read("100S,3C\n90 2\n"))
        #expect(!size.isExceeded(by: 10, 1))
        #expect(size.isExceeded(by: 11, 1))
        #expect(size.isExceeded(by: 1, 2))
        #expect(try !#require(self.read("0S\n90 2\n")).isExceeded(by: .max, .max))
        // Figures below zero are somebody's mistake, and no credit.
        #expect(try #require(self.read("100S\n-90 -2\n")).isExceeded(by: 101, 1))
    }

    @Test("takes sizes and the flag of the trash from names")
    func names() {
        #expect(MaildirSize.octetCount(inName: "1.A.h,S=123:2,S") == 123)
        #expect(MaildirSize.octetCount(inName: "1.A.h,W=9,S=123") == 123)
        #expect(MaildirSize.octetCount(inName: "1.A.h:2,S=5") == nil)
        #expect(MaildirSize.octetCount(inName: "1.A.h,S=x") == nil)
        #expect(MaildirSize.isTrashed("1.A.h,S=1:2,ST"))
        #expect(!MaildirSize.isTrashed("1.AT.h,S=1:2,S"))
        #expect(!MaildirSize.isTrashed("1.AT.h"))
    }
}
