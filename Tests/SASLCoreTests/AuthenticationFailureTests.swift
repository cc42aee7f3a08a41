// SPDX-License-Identifier: Apache-2.0

import MailTypes
import SASLCore
import Testing

private let client = IPAddress.v4(0xC000_0201)
private let other = IPAddress.v4(0xC000_0202)
private let alice = Array("alice".utf8)

@Suite struct AuthenticationFailureTests {
    @Test("A client that has failed too often waits until the time is over, whoever it wants to be")
    func client() {
        var failures = AuthenticationFailures(clientCountMax: 3, userCountMax: 100, span: .seconds(600))
        for second in 0..<3 {
            #expect(!failures.isBlocked(SASLCoreTests.client, now: .seconds(second)))
            failures.noteFailure(SASLCoreTests.client, user: nil, now: .seconds(second))
        }
        #expect(failures.isBlocked(SASLCoreTests.client, now: .seconds(3)))
        #expect(!failures.isBlocked(other, now: .seconds(3)))
        #expect(failures.isBlocked(SASLCoreTests.client, now: .seconds(599)))
        #expect(!failures.isBlocked(SASLCoreTests.client, now: .seconds(600)))
    }

    @Test("The /64 of an IPv6 client counts as one")
    func network() {
        var failures = AuthenticationFailures(clientCountMax: 2, userCountMax: 100, span: .seconds(600))
        failures.noteFailure(IPAddress(high: 0x2001_0db8_0000_0001, low: 1), user: nil, now: .zero)
        failures.noteFailure(IPAddress(high: 0x2001_0db8_0000_0001, low: 2), user: nil, now: .zero)
        #expect(failures.isBlocked(IPAddress(high: 0x2001_0db8_0000_0001, low: 3), now: .zero))
        #expect(!failures.isBlocked(IPAddress(high: 0x2001_0db8_0000_0002, low: 1), now: .zero))
    }

    @Test("Many clients that guess at one user are kept from him, and he himself is not")
    func user() {
        var failures = AuthenticationFailures(clientCountMax: 100, userCountMax: 5, span: .seconds(600))
        failures.noteSuccess(other, user: alice, now: .zero)
        for host in UInt32(0)..<5 { failures.noteFailure(.v4(0x0A00_0000 + host), user: alice, now: .seconds(1)) }
        #expect(failures.isBlocked(SASLCoreTests.client, user: alice, now: .seconds(2)))
        #expect(!failures.isBlocked(other, user: alice, now: .seconds(2)))
        #expect(!failures.isBlocked(SASLCoreTests.client, user: Array("bob".utf8), now: .seconds(2)))
        #expect(!failures.isBlocked(SASLCoreTests.client, user: alice, now: .seconds(602)))
    }

    @Test("A client has no more exchanges open at once than it has failures left")
    func openExchanges() {
        var failures = AuthenticationFailures(clientCountMax: 3, userCountMax: 100, span: .seconds(600))
        failures.noteFailure(SASLCoreTests.client, user: nil, now: .zero)
        failures.noteBegin(SASLCoreTests.client)
        #expect(failures.hasRoom(SASLCoreTests.client, now: .zero))
        failures.noteBegin(SASLCoreTests.client)
        #expect(!failures.hasRoom(SASLCoreTests.client, now: .zero))
        #expect(failures.hasRoom(other, now: .zero))
        // It is not blocked: what it has open may still be right.
        #expect(!failures.isBlocked(SASLCoreTests.client, now: .zero))
        failures.noteEnd(SASLCoreTests.client)
        #expect(failures.hasRoom(SASLCoreTests.client, now: .zero))
        failures.noteEnd(SASLCoreTests.client)
        failures.noteEnd(SASLCoreTests.client)
        failures.noteBegin(SASLCoreTests.client)
        failures.noteBegin(SASLCoreTests.client)
        #expect(!failures.hasRoom(SASLCoreTests.client, now: .zero))
        #expect(failures.hasRoom(SASLCoreTests.client, now: .seconds(600)), "the failure is over")
    }

    @Test("The exchanges of an IPv6 /64 count together")
    func openExchangesOfNetwork() {
        var failures = AuthenticationFailures(clientCountMax: 2, userCountMax: 100, span: .seconds(600))
        failures.noteBegin(IPAddress(high: 0x2001_0db8_0000_0001, low: 1))
        failures.noteBegin(IPAddress(high: 0x2001_0db8_0000_0001, low: 2))
        #expect(!failures.hasRoom(IPAddress(high: 0x2001_0db8_0000_0001, low: 3), now: .zero))
        #expect(failures.hasRoom(IPAddress(high: 0x2001_0db8_0000_0002, low: 1), now: .zero))
    }

    @Test("Memory does not grow with the number of those who fail")
    func bounded() {
        var counts = RecentCounts<UInt32>(span: .seconds(10), keyCountMax: 100)
        for key in UInt32(0)..<10_000 {
            counts.add(to: key, now: .milliseconds(Int(key) * 10))
            #expect(counts.keyCount <= 100)
        }
        #expect(counts.count(of: 9_999, now: .seconds(100)) == 1)
        var atOnce = RecentCounts<UInt32>(span: .seconds(10), keyCountMax: 100)
        for key in UInt32(0)..<10_000 { atOnce.add(to: key, now: .zero) }
        #expect(atOnce.keyCount <= 100)
    }
}
