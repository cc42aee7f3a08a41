// SPDX-License-Identifier: Apache-2.0

package import MailTypes

/// What the administrator allows towards one destination; nil where nothing special was said.
package struct DestinationTerms: Hashable, Sendable {
    /// Deliveries at once, and so connections: the widest its window gets.
    package var deliveryCountMax: Int?
    /// Deliveries begun in a minute. They are begun evenly: one every sixty seconds divided by this.
    package var deliveriesPerMinuteMax: Int?

    package init(deliveryCountMax: Int? = nil, deliveriesPerMinuteMax: Int? = nil) {
        self.deliveryCountMax = deliveryCountMax
        self.deliveriesPerMinuteMax = deliveriesPerMinuteMax
    }

    /// The time between the beginnings of two deliveries; nil: none is kept.
    package var interval: Duration? {
        self.deliveriesPerMinuteMax.map { .microseconds(60_000_000 / Int64(min(max($0, 1), 1_000_000))) }
    }
}

/// Terms for all remote destinations that a pattern matches, each for itself.
package struct DestinationRule: Hashable, Sendable {
    package let pattern: DomainPattern
    package let terms: DestinationTerms

    package init(pattern: DomainPattern, terms: DestinationTerms) {
        self.pattern = pattern
        self.terms = terms
    }
}

extension SchedulerLimits {
    /// The terms of a route: those of the first rule that matches its next hop.
    package func terms(of route: Route) -> DestinationTerms {
        guard case .remote(let nextHop) = route, !self.rules.isEmpty else { return DestinationTerms() }
        return self.rules.first { $0.pattern.matches(nextHop) }?.terms ?? DestinationTerms()
    }
}

/// Places that wait for a time, the earliest first.
struct TimeHeap: Sendable {
    private var entries: [(time: Timestamp, place: Int)] = []

    /// When the first one is due.
    var first: Timestamp? { self.entries.first?.time }

    mutating func insert(_ place: Int, at time: Timestamp) {
        var index = self.entries.count
        self.entries.append((time, place))
        while index > 0, self.entries[index].time < self.entries[(index - 1) / 2].time {
            self.entries.swapAt(index, (index - 1) / 2)
            index = (index - 1) / 2
        }
    }

    /// A place whose time has come, the earliest first; nil if there is none.
    ///
    /// - Parameter span: nothing is ever inserted with a time later than this from now. What waits longer all the same
    ///   waits because the clock was set back, and its time has come.
    mutating func popFirst(at now: Timestamp, within span: Duration) -> Int? {
        guard let first = self.entries.first, first.time <= now || first.time > now.advanced(by: span),
            let last = self.entries.popLast()
        else { return nil }
        guard !self.entries.isEmpty else { return first.place }
        self.entries[0] = last
        var index = 0
        while true {
            var least = index
            for child in [2 * index + 1, 2 * index + 2] where child < self.entries.count {
                if self.entries[child].time < self.entries[least].time { least = child }
            }
            guard least != index else { return first.place }
            self.entries.swapAt(index, least)
            index = least
        }
    }
}
