// SPDX-License-Identifier: Apache-2.0

import NIOCore

/// Buffers for what clients send: large while somebody sends a lot, and none at all for a connection that waits.
///
/// Not naming a size in advance keeps the channel from holding on to the last buffer, which is what an idle
/// connection would otherwise cost most.
struct ServerReceiveAllocator: RecvByteBufferAllocator {
    private static let ordinaryCapacity = 16_384
    private static let bulkCapacity = 65_536

    private var capacity = Self.ordinaryCapacity

    func buffer(allocator: ByteBufferAllocator) -> ByteBuffer { allocator.buffer(capacity: self.capacity) }

    func nextBufferSize() -> Int? { nil }

    mutating func record(actualReadBytes: Int) -> Bool {
        let wasFull = actualReadBytes >= self.capacity
        self.capacity = wasFull || actualReadBytes > Self.ordinaryCapacity ? Self.bulkCapacity : Self.ordinaryCapacity
        return wasFull
    }
}
