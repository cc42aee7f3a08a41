// SPDX-License-Identifier: Apache-2.0

import NIOCore

/// A buffer that all connections of a process use in turn, as what is in it is nearly always used up before the next one's
/// turn. To be used on the event loop.
final class SpareBuffer {
    private var buffer = ByteBuffer()

    /// An empty buffer of at least this capacity. Bring it back when what is in it is used up.
    func take(capacity: Int, _ allocator: ByteBufferAllocator = ByteBufferAllocator()) -> ByteBuffer {
        guard self.buffer.storageCapacity >= capacity else { return allocator.buffer(capacity: capacity) }
        var buffer = self.buffer
        self.buffer = ByteBuffer()
        // Octets that somebody still looks at stay as they are: the buffer gets other storage then.
        buffer.clear()
        return buffer
    }

    /// Takes it back, unless there is a larger one.
    func bringBack(_ buffer: ByteBuffer) {
        if buffer.storageCapacity >= self.buffer.storageCapacity { self.buffer = buffer }
    }
}
