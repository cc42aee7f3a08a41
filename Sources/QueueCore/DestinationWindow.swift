// SPDX-License-Identifier: Apache-2.0

/// How many deliveries a destination is given at once: more as it takes them, fewer as it fails.
///
/// After Postfix's feedback: a window's worth of successes widens the window by one; a window's worth of failures of the
/// *host* narrows it by one; a window narrowed to nothing means that the destination is down. While it is down, one
/// delivery at a time probes it.
package struct DestinationWindow: Hashable, Sendable {
    /// What a delivery told about the destination's host.
    package enum Feedback: Hashable, Sendable {
        /// The host answered, whatever it said about the recipients.
        case answered
        /// The host could not be reached or is not in service.
        case failed
    }

    private static let start = 5
    /// A new destination is down after so many failures in a row without one answer.
    private static let failureCountMax = 3

    private var maximum: Int
    /// Deliveries allowed at once; 1 while probing.
    package private(set) var size: Int
    package private(set) var inFlightCount = 0
    private var answerCount = 0
    package private(set) var failureCount = 0

    /// - Parameters:
    ///   - maximum: the window never grows beyond; at least 1.
    ///   - isProbing: whether the destination was down when last seen.
    package init(maximum: Int, isProbing: Bool = false) {
        self.maximum = max(maximum, 1)
        self.size = isProbing ? 1 : min(Self.start, self.maximum)
        self.failureCount = isProbing ? Self.failureCountMax - 1 : 0
    }

    /// A window that is wider now narrows as its deliveries end.
    package mutating func setMaximum(_ maximum: Int) {
        self.maximum = max(maximum, 1)
        self.size = min(self.size, self.maximum)
    }

    package var hasRoom: Bool { self.inFlightCount < self.size }

    package mutating func started() { self.inFlightCount += 1 }

    /// A delivery ended without telling anything about the host: its agent was lost.
    package mutating func ended() { self.inFlightCount = max(0, self.inFlightCount - 1) }

    /// A delivery ended. Returns true if the destination is now to be taken as down.
    package mutating func ended(_ feedback: Feedback) -> Bool {
        self.ended()
        switch feedback {
        case .answered:
            // The first answer after failures shows that the host is back.
            if self.failureCount > 0, self.size == 1 { self.size = min(Self.start, self.maximum) }
            self.failureCount = 0
            self.answerCount += 1
            if self.answerCount >= self.size {
                self.answerCount = 0
                self.size = min(self.size + 1, self.maximum)
            }
            return false
        case .failed:
            self.answerCount = 0
            self.failureCount += 1
            if self.failureCount >= Self.failureCountMax {
                // Why: failures of deliveries that were started before the destination was found down must not count
                // again; the caller makes a probing window anew.
                self.size = 1
                return true
            }
            self.size = max(1, self.size - 1)
            return false
        }
    }
}
