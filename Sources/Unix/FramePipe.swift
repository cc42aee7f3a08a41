// SPDX-License-Identifier: Apache-2.0

package import PipeCore

/// Frames over two descriptors with blocking reads and writes, for programs that need no event loop.
package struct FramePipe {
    package let input: Descriptor
    package let output: Descriptor
    private var decoder = FrameDecoder()
    private var pending: [UInt8] = []

    package init(input: Descriptor, output: Descriptor) {
        self.input = input
        self.output = output
    }

    /// What can go wrong on a pipe.
    package enum Fault: Error {
        case system(SystemError)
        case frame(FrameFault)
        /// The input ended inside a frame.
        case cut

        package var text: String {
            switch self {
            case .system(let error): error.text
            case .frame(let fault): fault.text
            case .cut: "the input ended inside a frame"
            }
        }
    }

    /// Puts octets of frames where the next `flush` or `receive` sends them.
    package mutating func send(_ encode: (inout [UInt8]) -> Void) { encode(&self.pending) }

    /// Sends what waits.
    package mutating func flush() throws(Fault) {
        guard !self.pending.isEmpty else { return }
        defer { self.pending.removeAll(keepingCapacity: true) }
        do throws(SystemError) { try self.output.write(self.pending) } catch { throw .system(error) }
    }

    /// The next frame if it has come already, without reading.
    package mutating func buffered() throws(Fault) -> Frame? {
        do throws(FrameFault) { return try self.decoder.next() } catch { throw .frame(error) }
    }

    /// Sends what waits, then waits for the next frame; nil at the end of input.
    package mutating func receive() throws(Fault) -> Frame? {
        while true {
            if let frame = try self.buffered() { return frame }
            try self.flush()
            let octets: [UInt8]
            do throws(SystemError) { octets = try self.input.read(upTo: 65_536) } catch { throw .system(error) }
            if octets.isEmpty {
                guard !self.decoder.isInsideFrame else { throw .cut }
                return nil
            }
            self.decoder.append(octets)
        }
    }
}
