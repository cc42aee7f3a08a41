// SPDX-License-Identifier: Apache-2.0

/// Counts the content of messages on their way in that is in memory, of all links together: what has come and is not on
/// stable storage. Each message alone may have more than all could have at once.
final class ContentMemory {
    private(set) var octetCount = 0

    /// Above so many octets messages go on to the store in small parts. That costs more writing, and so it is not the rule;
    /// but who sends the beginning of many messages, and nothing more, must not fill our memory.
    static let crowdedOctetCount = 64 << 20
    /// Above so many octets content is refused. The store takes it more slowly than it comes, or there are more messages
    /// at once than their last pages have room.
    static let octetCountMax = 256 << 20

    var isCrowded: Bool { self.octetCount > Self.crowdedOctetCount }
    var isFull: Bool { self.octetCount > Self.octetCountMax }

    func add(_ octetCount: Int) { self.octetCount += octetCount }

    func remove(_ octetCount: Int) { self.octetCount -= octetCount }
}
