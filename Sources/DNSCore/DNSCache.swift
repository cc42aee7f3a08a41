// SPDX-License-Identifier: Apache-2.0

package import MailTypes

/// What resolvers have answered, for as long as they said that it holds; bounded in entries.
///
/// When it is full, the oldest entry goes: the order in which entries came is the order in which most of them expire.
package struct DNSCache: Sendable {
    private struct Entry: Sendable {
        var answer: DNSAnswer
        var expiry: Timestamp
        /// Which of several insertions under one question this is; the ring may still hold earlier ones.
        var serial: UInt64
    }

    private let entryCountMax: Int
    private let lifetimeMax: Duration
    private var entries: [DNSQuestion: Entry] = [:]
    /// Questions in the order of insertion, as a ring of at most `entryCountMax`.
    private var ring: [(question: DNSQuestion, serial: UInt64)] = []
    private var ringStart = 0
    private var serial: UInt64 = 0

    /// - Parameter entryCountMax: 0 keeps nothing.
    /// - Parameter lifetimeMax: no answer is kept longer, whatever its time to live.
    package init(entryCountMax: Int, lifetimeMax: Duration) {
        self.entryCountMax = entryCountMax
        self.lifetimeMax = lifetimeMax
    }

    package var count: Int { self.entries.count }

    package func answer(to question: DNSQuestion, now: Timestamp) -> DNSAnswer? {
        guard let entry = self.entries[question], now < entry.expiry else { return nil }
        return entry.answer
    }

    /// - Parameter ttl: in seconds; an answer of 0 seconds is not kept.
    package mutating func insert(_ answer: DNSAnswer, for question: DNSQuestion, ttl: UInt32, now: Timestamp) {
        guard self.entryCountMax > 0, ttl > 0 else { return }
        self.serial += 1
        let expiry = now.advanced(by: min(.seconds(Int64(ttl)), self.lifetimeMax))
        if self.ring.count < self.entryCountMax {
            self.ring.append((question, self.serial))
        } else {
            let oldest = self.ring[self.ringStart]
            // An entry that was renewed since stays; its later place in the ring will come.
            if self.entries[oldest.question]?.serial == oldest.serial {
                self.entries[oldest.question] = nil
            }
            self.ring[self.ringStart] = (question, self.serial)
            self.ringStart = (self.ringStart + 1) % self.entryCountMax
        }
        self.entries[question] = Entry(answer: answer, expiry: expiry, serial: self.serial)
    }
}
