// SPDX-License-Identifier: Apache-2.0

/// A queue, first in, first out, that reuses its storage.
struct Ring<Element: Sendable>: Sendable {
    private var storage: [Element?] = []
    private var head = 0
    private(set) var count = 0

    var isEmpty: Bool { self.count == 0 }

    var first: Element? { self.count > 0 ? self.storage[self.head] : nil }

    mutating func append(_ element: Element) {
        if self.count == self.storage.count { self.grow() }
        self.storage[(self.head + self.count) & (self.storage.count - 1)] = element
        self.count += 1
    }

    mutating func popFirst() -> Element? {
        guard self.count > 0 else { return nil }
        let element = self.storage[self.head]
        self.storage[self.head] = nil
        self.head = (self.head + 1) & (self.storage.count - 1)
        self.count -= 1
        return element
    }

    /// Puts an element back in front.
    mutating func prepend(_ element: Element) {
        if self.count == self.storage.count { self.grow() }
        self.head = (self.head + self.storage.count - 1) & (self.storage.count - 1)
        self.storage[self.head] = element
        self.count += 1
    }

    /// The last element, to be changed in place; nil and no change if there is none.
    mutating func updateLast<Result>(_ body: (inout Element) -> Result) -> Result? {
        guard self.count > 0 else { return nil }
        let index = (self.head + self.count - 1) & (self.storage.count - 1)
        guard var element = self.storage[index] else { return nil }
        self.storage[index] = nil
        let result = body(&element)
        self.storage[index] = element
        return result
    }

    // The capacity is a power of two, so that a place wraps by a mask.
    private mutating func grow() {
        var larger: [Element?] = []
        larger.reserveCapacity(max(4, self.storage.count * 2))
        for place in 0..<self.count { larger.append(self.storage[(self.head + place) & (self.storage.count - 1)]) }
        while larger.count < max(4, self.storage.count * 2) { larger.append(nil) }
        self.storage = larger
        self.head = 0
    }
}
