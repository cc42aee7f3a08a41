// SPDX-License-Identifier: Apache-2.0

/// How many of something each has open at present: connections of a client, exchanges, sessions of a user. Who has none takes
/// no memory.
package struct OpenCounts<Key: Hashable & Sendable>: Sendable {
    private var counts: [Key: Int] = [:]

    package init() {}

    /// How many it has open.
    package subscript(key: Key) -> Int { self.counts[key, default: 0] }

    package mutating func open(_ key: Key) { self.counts[key, default: 0] += 1 }

    /// One that was not opened is passed over.
    package mutating func close(_ key: Key) {
        guard let count = self.counts[key] else { return }
        self.counts[key] = count > 1 ? count - 1 : nil
    }
}
