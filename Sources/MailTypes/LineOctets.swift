// SPDX-License-Identifier: Apache-2.0

extension Span where Element == UInt8 {
    /// The place of the first CR or LF from `start` on; `limit` if there is none before it.
    ///
    /// Content is hardly anything but runs without either, and this is where its octets are looked at.
    ///
    /// - Precondition: `start` and `limit` are places in the span, or its end.
    package func lineOctetIndex(from start: Int, to limit: Int) -> Int {
        precondition(start >= 0 && limit <= self.count)
        var index = start
        // Safety: the bytes are those of the span, and are read below `limit` only.
        let bytes = unsafe self.bytes
        while index < limit {
            // Four words at once are a third of the work for each octet.
            while index + 32 <= limit {
                let found =
                    bytes.lowOctets(at: index) | bytes.lowOctets(at: index + 8) | bytes.lowOctets(at: index + 16)
                    | bytes.lowOctets(at: index + 24)
                if found != 0 { break }
                index += 32
            }
            while index + 8 <= limit {
                let found = bytes.lowOctets(at: index)
                index += found == 0 ? 8 : found.trailingZeroBitCount / 8
                if found != 0 { break }
            }
            guard index < limit else { return limit }
            if self[index] == ASCII.carriageReturn || self[index] == ASCII.lineFeed { return index }
            index += 1
        }
        return limit
    }
}

extension RawSpan {
    /// The upper bits of those of eight octets that may be below 14; the lowest that is set is right.
    @inline(__always) fileprivate func lowOctets(at index: Int) -> UInt64 {
        // Safety: the caller has looked at the bounds, and any eight octets are a number.
        let word = UInt64(
            littleEndian: unsafe self.unsafeLoadUnaligned(fromUncheckedByteOffset: index, as: UInt64.self))
        return (word &- 0x0E0E_0E0E_0E0E_0E0E) & ~word & 0x8080_8080_8080_8080
    }
}
