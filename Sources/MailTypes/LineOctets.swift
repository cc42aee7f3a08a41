// SPDX-License-Identifier: Apache-2.0

extension Span where Element == UInt8 {
    /// The place of the first CR or LF from `start` on; `limit` if there is none before it.
    ///
    /// Content is hardly anything but runs without either, and this is where its octets are looked at.
    ///
    /// - Precondition: `start` and `limit` are places in the span, or its end.
    package func lineOctetIndex(from start: Int, to limit: Int) -> Int {
        var index = start
        let carriageReturn = ASCII.carriageReturn
        let lineFeed = ASCII.lineFeed
        // Safety: the bytes are those of the span, read below within its bounds.
        let bytes = unsafe self.bytes
        while index + 8 <= limit {
            // Safety: the load checks its bounds, and any eight octets are a number.
            let word = UInt64(littleEndian: unsafe bytes.unsafeLoadUnaligned(fromByteOffset: index, as: UInt64.self))
            // Eight octets at once: the lowest upper bit that comes out is that of the first octet below 14.
            let found = (word &- 0x0E0E_0E0E_0E0E_0E0E) & ~word & 0x8080_8080_8080_8080
            guard found != 0 else {
                index += 8
                continue
            }
            index += found.trailingZeroBitCount / 8
            if self[index] == carriageReturn || self[index] == lineFeed { return index }
            index += 1
        }
        while index < limit, self[index] != carriageReturn, self[index] != lineFeed { index += 1 }
        return index
    }
}
