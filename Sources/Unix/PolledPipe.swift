// SPDX-License-Identifier: Apache-2.0

import Glibc
package import PipeCore

/// Frames over two descriptors that never make the caller wait, for programs that watch several pipes with `Poll`.
package struct PolledPipe {
    package let input: Descriptor
    package let output: Descriptor
    private var decoder = FrameDecoder()
    private var pending: [UInt8] = []
    /// How much of `pending` has been written.
    private var writtenCount = 0

    /// Makes both descriptors non-blocking.
    package init(input: Descriptor, output: Descriptor) throws(SystemError) {
        self.input = input
        self.output = output
        try input.setNonBlocking(true)
        try output.setNonBlocking(true)
    }

    /// Octets that wait for the other side to read.
    package var unwrittenOctetCount: Int { self.pending.count - self.writtenCount }

    /// Puts octets of frames where the next `flush` sends them.
    package mutating func send(_ encode: (inout [UInt8]) -> Void) { encode(&self.pending) }

    /// Writes as much as the pipe takes.
    package mutating func flush() throws(FramePipe.Fault) {
        while self.writtenCount < self.pending.count {
            var code: CInt = 0
            let count = self.pending.withUnsafeBytes { buffer in
                let rest = UnsafeRawBufferPointer(rebasing: buffer[self.writtenCount...])
                let count = Glibc.write(self.output.number, rest.baseAddress, rest.count)
                code = errno
                return count
            }
            if count < 0 {
                if code == EINTR { continue }
                if code == EAGAIN { break }
                throw .system(SystemError("write", code: code))
            }
            self.writtenCount += count
        }
        if self.writtenCount == self.pending.count {
            self.pending.removeAll(keepingCapacity: self.pending.capacity <= 262_144)
            self.writtenCount = 0
        } else if self.writtenCount > 262_144 {
            self.pending.removeFirst(self.writtenCount)
            self.writtenCount = 0
        }
    }

    /// What one reading has brought.
    package enum Progress: Equatable, Sendable {
        case some
        /// Nothing is there now.
        case none
        /// The other side has ended its output.
        case ended
    }

    /// Reads once, at most 64 KiB.
    package mutating func read() throws(FramePipe.Fault) -> Progress {
        let octets: [UInt8]
        do throws(SystemError) {
            octets = try self.input.read(upTo: 65_536)
        } catch {
            if error.code == EAGAIN { return .none }
            throw .system(error)
        }
        if octets.isEmpty {
            guard !self.decoder.isInsideFrame else { throw .cut }
            return .ended
        }
        self.decoder.append(octets)
        return .some
    }

    /// The next frame that has been read whole.
    package mutating func next() throws(FramePipe.Fault) -> Frame? {
        do throws(FrameFault) { return try self.decoder.next() } catch { throw .frame(error) }
    }

    package func close() {
        self.input.close()
        if self.output != self.input { self.output.close() }
    }
}

/// Waiting for one of several descriptors (poll(2)).
package struct Poll {
    private var entries: [pollfd] = []

    package init() {}

    /// Adds a descriptor; its place is told to `isReadable` and `isWritable` after the waiting.
    ///
    /// - Returns: the place.
    package mutating func add(_ descriptor: Descriptor, reading: Bool, writing: Bool = false) -> Int {
        let events = (reading ? POLLIN : 0) | (writing ? POLLOUT : 0)
        self.entries.append(pollfd(fd: descriptor.number, events: Int16(events), revents: 0))
        return self.entries.count - 1
    }

    /// Waits until one is ready, but not longer than `limit`; nil is for as long as it takes, zero not at all.
    package mutating func wait(_ limit: Duration?) {
        var milliseconds: CInt = -1
        if let limit {
            let (seconds, attoseconds) = limit.components
            let whole = max(0, min(seconds, 86_400)) * 1_000
            milliseconds = CInt(whole + max(0, attoseconds) / 1_000_000_000_000_000)
            if milliseconds == 0, limit > .zero { milliseconds = 1 }
        }
        if poll(&self.entries, nfds_t(self.entries.count), milliseconds) < 0 {
            for place in self.entries.indices { self.entries[place].revents = 0 }
        }
    }

    /// Octets are there, or the end, or a fault that reading will tell.
    package func isReadable(_ place: Int) -> Bool {
        self.entries[place].events & Int16(POLLIN) != 0 && self.entries[place].revents & ~Int16(POLLOUT) != 0
    }

    /// Octets are taken, or writing will tell the fault.
    package func isWritable(_ place: Int) -> Bool {
        self.entries[place].events & Int16(POLLOUT) != 0 && self.entries[place].revents & ~Int16(POLLIN) != 0
    }
}
