// SPDX-License-Identifier: Apache-2.0

import NIOCore

/// Buffers for what clients send: large while somebody sends a lot, and next to none for a connection that waits.
///
/// The channel keeps the first buffer that it was given for as long as it lives, so that one is small. By
/// saying each time that the next may be larger we make it take a new one for every read, which is
/// gone when its octets are used. This relies on the channel keeping one buffer only, that is on one
/// read per event.
struct ServerReceiveAllocator: RecvByteBufferAllocator {
    /// Enough for EHLO.
    private static let firstCapacity = 256
    private static let ordinaryCapacity = 16_384
    private static let bulkCapacity = 65_536

    private let shared: NIOLoopBound<SpareBuffer>
    private var capacity = Self.firstCapacity

    init(_ shared: NIOLoopBound<SpareBuffer>) { self.shared = shared }

    func buffer(allocator: ByteBufferAllocator) -> ByteBuffer {
        if self.capacity == Self.firstCapacity { return allocator.buffer(capacity: self.capacity) }
        return self.shared.value.take(capacity: self.capacity, allocator)
    }

    func nextBufferSize() -> Int? { nil }

    mutating func record(actualReadBytes: Int) -> Bool {
        self.capacity = actualReadBytes >= Self.ordinaryCapacity ? Self.bulkCapacity : Self.ordinaryCapacity
        return true
    }
}
