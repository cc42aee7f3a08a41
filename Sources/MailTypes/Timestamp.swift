// SPDX-License-Identifier: Apache-2.0

/// An instant of the wall clock: microseconds since 1970-01-01 00:00 UTC.
///
/// Cores are given instants as arguments; they never ask a clock.
package struct Timestamp: Hashable, Comparable, Sendable {
    package let microseconds: UInt64

    package init(microseconds: UInt64) { self.microseconds = microseconds }

    /// Whole seconds since 1970.
    package var seconds: UInt64 { self.microseconds / 1_000_000 }

    /// The instant `duration` later (or earlier, if negative), held within what can be represented.
    package func advanced(by duration: Duration) -> Timestamp {
        let (seconds, attoseconds) = duration.components
        let (whole, overflow) = seconds.multipliedReportingOverflow(by: 1_000_000)
        guard !overflow else { return Timestamp(microseconds: seconds < 0 ? 0 : .max) }
        let (delta, carry) = whole.addingReportingOverflow(attoseconds / 1_000_000_000_000)
        guard !carry else { return Timestamp(microseconds: seconds < 0 ? 0 : .max) }
        if delta < 0 {
            let (value, borrow) = self.microseconds.subtractingReportingOverflow(delta.magnitude)
            return Timestamp(microseconds: borrow ? 0 : value)
        }
        let (value, over) = self.microseconds.addingReportingOverflow(delta.magnitude)
        return Timestamp(microseconds: over ? .max : value)
    }

    /// The time from `earlier` to this instant; zero if the clock was set back meanwhile.
    package func elapsed(since earlier: Timestamp) -> Duration {
        guard self > earlier else { return .zero }
        let difference = self.microseconds - earlier.microseconds
        return .microseconds(Int64(clamping: difference))
    }

    package static func < (left: Timestamp, right: Timestamp) -> Bool { left.microseconds < right.microseconds }
}
