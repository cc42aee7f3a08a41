// SPDX-License-Identifier: Apache-2.0

/// How long to wait before the next attempt: doubling from `minimum` to `maximum`, with jitter (RFC 5321 §4.5.4.1).
package struct RetrySchedule: Hashable, Sendable {
    package let minimum: Duration
    package let maximum: Duration

    /// A maximum below the minimum is taken as the minimum; a minimum below one millisecond as one millisecond.
    package init(minimum: Duration, maximum: Duration) {
        self.minimum = max(minimum, .milliseconds(1))
        self.maximum = max(maximum, self.minimum)
    }

    /// The wait after the `attemptCount`-th attempt.
    ///
    /// - Parameter random: decides where in the eighth above or below the plain value it falls, so that mail that was
    ///   deferred together does not come back together.
    package func delay(attemptCount: UInt32, random: UInt64) -> Duration {
        var delay = self.minimum
        var count = attemptCount
        while count > 1, delay < self.maximum {
            delay = delay * 2
            count -= 1
        }
        delay = min(delay, self.maximum)
        // 0…1023 of 1024 parts of a quarter, less an eighth.
        return delay - delay / 8 + (delay / 4) * Int(random & 1023) / 1024
    }
}

/// A small generator of random numbers that a seed determines (SplitMix64): jitter needs no secrets.
package struct SeededGenerator: RandomNumberGenerator, Sendable {
    private var state: UInt64

    package init(seed: UInt64) { self.state = seed }

    package mutating func next() -> UInt64 {
        self.state &+= 0x9E37_79B9_7F4A_7C15
        var mixed = self.state
        mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
        return mixed ^ (mixed >> 31)
    }
}
