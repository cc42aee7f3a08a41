// SPDX-License-Identifier: Apache-2.0

import QueueCore
import Testing

@Suite("Whether a message waits for others") struct CompanyTests {
    @Test("who comes alone waits once in so many times, to see whether that has changed")
    func alone() {
        var company = Company()
        var waitCount = 0
        for _ in 0..<(10 * (Company.tryInterval + 1)) {
            if company.isWorthWaiting { waitCount += 1 }
            company.note(messageCount: 1)
        }
        #expect(waitCount == 10)
    }

    @Test("transactions without new mail say nothing of it")
    func withoutMail() {
        var company = Company()
        for _ in 0..<100 { company.note(messageCount: 0) }
        #expect(!company.isWorthWaiting)
    }

    @Test("while half of the transactions are shared, all messages wait")
    func busy() {
        var company = Company()
        company.note(messageCount: 2)
        for _ in 0..<100 {
            #expect(company.isWorthWaiting)
            company.note(messageCount: 1)
            #expect(company.isWorthWaiting)
            company.note(messageCount: 5)
        }
    }

    @Test("when the others have gone, it stops after a few messages")
    func over() {
        var company = Company()
        for _ in 0..<100 { company.note(messageCount: 9) }
        var waitCount = 0
        while company.isWorthWaiting, waitCount < 100 {
            company.note(messageCount: 1)
            waitCount += 1
        }
        #expect(waitCount == 8)
    }
}
