// SPDX-License-Identifier: Apache-2.0
//
// What people may know of a destination.

package import MailTypes

/// How it stands with a destination, as far as memory knows it: one without mail now is not known.
package struct DestinationState: Hashable, Sendable {
    /// Deliveries that it may have at once.
    package let windowSize: Int
    /// Deliveries that it has.
    package let deliveryCount: Int
    /// Recipients in memory that wait for it.
    package let waitingCount: Int
    /// Failures of the host in a row.
    package let failureCount: Int
    /// Set if it was down when last tried: nothing is tried before that time.
    package let suspension: DestinationRecord?
}

extension Scheduler {
    package func state(of route: Route) -> DestinationState? {
        guard let place = self.places[route], let destination = self.destinations[place] else { return nil }
        return DestinationState(
            windowSize: destination.window.size, deliveryCount: destination.window.inFlightCount,
            waitingCount: destination.waiting.recipientCount, failureCount: destination.window.failureCount,
            suspension: destination.suspension)
    }
}
