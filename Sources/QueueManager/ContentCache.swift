// SPDX-License-Identifier: Apache-2.0

import MailTypes

/// Content of messages just accepted, so that the usual relay reads nothing from the disk. Bounded; the oldest goes
/// first. Everything here is on stable storage as well.
struct ContentCache {
    private var contents: [MessageID: [UInt8]] = [:]
    /// Ids in the order in which they came; those before `head`, and those no longer in `contents`, are gone.
    private var order: [MessageID] = []
    private var head = 0
    private(set) var octetCount = 0
    var octetCountMax: Int

    init(octetCountMax: Int) { self.octetCountMax = octetCountMax }

    /// Keeps prefix and content of a message, unless it is large.
    mutating func insert(_ id: MessageID, prefix: [UInt8], content: [UInt8]) {
        let count = prefix.count + content.count
        guard count <= self.octetCountMax / 16 else { return }
        while self.octetCount + count > self.octetCountMax, self.head < self.order.count {
            let oldest = self.order[self.head]
            self.head += 1
            if let content = self.contents.removeValue(forKey: oldest) { self.octetCount -= content.count }
        }
        var whole: [UInt8] = []
        whole.reserveCapacity(count)
        whole += prefix
        whole += content
        self.contents[id] = whole
        self.octetCount += count
        self.order.append(id)
        // One message that stays for long keeps the head where it is, and what has gone behind it in the list.
        if self.order.count > 2 * self.contents.count + Self.goneCountMax {
            self.order = self.order[self.head...].filter { self.contents[$0] != nil }
            self.head = 0
        }
    }

    /// So many ids of what has gone are in the list at most, besides as many as there are of what is there.
    private static let goneCountMax = 1_024

    mutating func remove(_ id: MessageID) {
        if let content = self.contents.removeValue(forKey: id) { self.octetCount -= content.count }
        // Usually the oldest go first; then the list stays short by itself.
        while self.head < self.order.count, self.contents[self.order[self.head]] == nil { self.head += 1 }
        if self.head == self.order.count {
            self.order.removeAll(keepingCapacity: true)
            self.head = 0
        }
    }

    subscript(id: MessageID) -> [UInt8]? { self.contents[id] }
}
