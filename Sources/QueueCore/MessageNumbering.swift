// SPDX-License-Identifier: Apache-2.0

package import MailTypes

/// Gives out message ids: the clock's microseconds, and one more than the last where the clock has not moved on.
///
/// Strictly ascending across restarts and steps of the clock, as long as it is made with the last id of the store.
package struct MessageNumbering: Sendable {
    package private(set) var last: MessageID

    package init(last: MessageID) { self.last = last }

    /// An id from elsewhere is in use: the next one is above it.
    package mutating func note(_ id: MessageID) { self.last = max(self.last, id) }

    package mutating func next(now: Timestamp) -> MessageID {
        // Why: saturating, so that a clock at the end of time cannot trap; ids of that time cannot be told apart, and
        // the store refuses the second one.
        let above = self.last.rawValue == .max ? .max : self.last.rawValue + 1
        self.last = MessageID(rawValue: max(above, now.microseconds))
        return self.last
    }
}
