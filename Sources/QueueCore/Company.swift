// SPDX-License-Identifier: Apache-2.0

/// Whether a message that waits a moment is likely to be joined by others.
///
/// Judged by what became of the last ones: who comes alone time after time, such as a client that sends its next message
/// when the last is answered, does not wait, but for a try now and then.
package struct Company: Sendable {
    /// More than zero while waiting pays. A third of the transactions have to be shared for it to stay so.
    private var credit = 0
    /// Transactions since the last one that was waited for.
    private var hastyCount = 0

    private static let creditMax = 8
    /// One transaction in so many is waited for, to see whether things have changed.
    package static let tryInterval = 16

    package init() {}

    /// Whether the next message should wait for others.
    package var isWorthWaiting: Bool { self.credit > 0 || self.hastyCount >= Self.tryInterval }

    /// A transaction begins with so many new messages.
    package mutating func note(messageCount: Int) {
        guard messageCount > 0 else { return }
        self.hastyCount = self.isWorthWaiting ? 0 : self.hastyCount + 1
        if messageCount > 1 {
            self.credit = min(self.credit + 2, Self.creditMax)
        } else {
            self.credit = max(self.credit - 1, 0)
        }
    }
}
