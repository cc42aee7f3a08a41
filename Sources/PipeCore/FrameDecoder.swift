// SPDX-License-Identifier: Apache-2.0

import MailTypes

/// Cuts a stream of octets into frames.
///
/// Holds at most one frame that is not yet complete, and what was appended behind it.
package struct FrameDecoder: Sendable {
    private var pending: [UInt8] = []
    /// Where in `pending` the next frame begins.
    private var start = 0

    package init() {}

    /// Whether octets of a frame that has not ended are waiting: at the end of input this means a cut frame.
    package var isInsideFrame: Bool { self.start < self.pending.count }

    /// Takes what was read.
    package mutating func append(_ octets: Span<UInt8>) {
        self.compact()
        // Safety: the pointer is used inside the closure only; Array has no append for a span yet.
        unsafe octets.withUnsafeBufferPointer { unsafe self.pending.append(contentsOf: $0) }
    }

    /// Takes what was read.
    package mutating func append(_ octets: [UInt8]) {
        self.compact()
        self.pending.append(contentsOf: octets)
    }

    private mutating func compact() {
        if self.start == self.pending.count {
            self.pending.removeAll(keepingCapacity: self.pending.capacity <= 2 * FrameLimits.contentOctetCountMax)
            self.start = 0
        } else if self.start > FrameLimits.contentOctetCountMax {
            self.pending.removeSubrange(..<self.start)
            self.start = 0
        }
    }

    /// The next complete frame, or nil if more octets are needed.
    ///
    /// After a fault the decoder is of no more use.
    package mutating func next() throws(FrameFault) -> Frame? {
        var length = 0
        var cursor = self.start
        while cursor < self.pending.count, self.pending[cursor].isDigit {
            guard !(cursor > self.start && length == 0) else { throw FrameFault(.badLength) }
            length = length * 10 + Int(self.pending[cursor] - 0x30)
            guard length <= FrameLimits.contentOctetCountMax else { throw FrameFault(.badLength) }
            cursor += 1
        }
        guard cursor < self.pending.count else { return nil }
        guard cursor > self.start, self.pending[cursor] == ASCII.colon else { throw FrameFault(.badLength) }
        let content = cursor + 1
        let end = content + length
        guard end < self.pending.count else { return nil }
        guard self.pending[end] == 0x2C else { throw FrameFault(.missingComma) }
        self.start = end + 1
        return try Frame(content: Array(self.pending[content..<end]))
    }
}

extension Array where Element == UInt8 {
    /// Begins a frame at the end of the octets; fields follow by `appendField`, and `endFrame` completes it.
    ///
    /// - Returns: what `endFrame` must be given.
    package mutating func beginFrame(_ verb: Verb, _ channel: UInt32) -> Int {
        let start = self.count
        // Room for five digits and the colon. What the length does not need is taken out by `endFrame`.
        for _ in 0..<6 { self.append(ASCII.colon) }
        let word = verb.rawValue.utf8
        self.append(digitsOf: UInt64(word.count))
        self.append(ASCII.colon)
        for octet in word { self.append(octet) }
        self.append(0x2C)
        self.appendField(unsigned: UInt64(channel))
        return start
    }

    /// Appends one field of the frame that was begun.
    package mutating func appendField(_ octets: ArraySlice<UInt8>) {
        self.append(digitsOf: UInt64(octets.count))
        self.append(ASCII.colon)
        self.append(contentsOf: octets)
        self.append(0x2C)
    }

    /// Appends one field of the frame that was begun.
    package mutating func appendField(_ octets: [UInt8]) {
        self.append(digitsOf: UInt64(octets.count))
        self.append(ASCII.colon)
        self.append(contentsOf: octets)
        self.append(0x2C)
    }

    /// Appends a number as a field.
    ///
    /// - Precondition: it is not negative.
    @inlinable package mutating func appendField(number: some BinaryInteger) {
        self.appendField(unsigned: UInt64(number))
    }

    /// Appends a number as a field: all that is not generic of it.
    @usableFromInline package mutating func appendField(unsigned number: UInt64) {
        self.append(digitsOf: UInt64(number.digitCount))
        self.append(ASCII.colon)
        self.append(digitsOf: number)
        self.append(0x2C)
    }

    /// Completes the frame that `beginFrame` began.
    package mutating func endFrame(_ start: Int) {
        let length = self.count - start - 6
        precondition(length <= FrameLimits.contentOctetCountMax, "a frame of ours is over the limit")
        self.append(0x2C)
        var digitCount = 1
        var rest = length / 10
        while rest > 0 {
            digitCount += 1
            rest /= 10
        }
        rest = length
        for place in stride(from: start + 4, to: start + 4 - digitCount, by: -1) {
            self[place] = 0x30 + UInt8(truncatingIfNeeded: rest % 10)
            rest /= 10
        }
        self.removeSubrange(start..<(start + 5 - digitCount))
    }

    /// Appends a whole frame.
    package mutating func appendFrame(_ verb: Verb, _ channel: UInt32, _ fields: [[UInt8]] = []) {
        let start = self.beginFrame(verb, channel)
        for field in fields { self.appendField(field) }
        self.endFrame(start)
    }

    /// Appends content as `data` frames, as many as its length needs.
    package mutating func appendData(_ channel: UInt32, _ octets: ArraySlice<UInt8>) {
        var rest = octets
        while !rest.isEmpty {
            let start = self.beginFrame(.data, channel)
            self.appendField(rest.prefix(FrameLimits.dataOctetCountMax))
            self.endFrame(start)
            rest = rest.dropFirst(FrameLimits.dataOctetCountMax)
        }
    }
}
