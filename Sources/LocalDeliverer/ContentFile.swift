// SPDX-License-Identifier: Apache-2.0

import MailTypes
import Unix

/// A message on its way to somewhere that takes it only when it is whole: a file without a name, with LF line ends.
///
/// It need not outlive a crash: the queue still has the message.
final class ContentFile {
    private let file: Descriptor
    private var conversion = LineEndConversion()
    /// Octets that have not been written.
    private var pending: [UInt8] = []
    private(set) var octetCount: UInt64 = 0

    private static let pendingOctetCountMax = 65_536
    /// Where the file is, as long as it is there.
    static let directory = "/tmp"

    init() throws(SystemError) { self.file = try Descriptor.temporaryFile(in: Self.directory) }

    deinit { self.file.close() }

    /// Appends octets as they are.
    func append(converted octets: [UInt8]) throws(SystemError) {
        self.pending += octets
        if self.pending.count >= Self.pendingOctetCountMax { try self.write() }
    }

    func append(content: ArraySlice<UInt8>) throws(SystemError) {
        self.conversion.convert(content, into: &self.pending)
        if self.pending.count >= Self.pendingOctetCountMax { try self.write() }
    }

    /// The end of the content.
    func end() throws(SystemError) {
        self.conversion.end(into: &self.pending)
        try self.write()
        self.pending = []
    }

    private func write() throws(SystemError) {
        defer { self.pending.removeAll(keepingCapacity: true) }
        try self.file.write(self.pending)
        self.octetCount += UInt64(self.pending.count)
    }

    /// Hands out all that was written, in parts of at most 64 KiB.
    func forEachPart(_ body: (ArraySlice<UInt8>) throws(SystemError) -> Void) throws(SystemError) {
        var offset: UInt64 = 0
        while true {
            let octets = try self.file.read(at: offset, upTo: 65_536)
            if octets.isEmpty { return }
            offset += UInt64(octets.count)
            try body(octets[...])
        }
    }

    /// The same message with lines in front, for a program: a descriptor at the beginning of a file of its own, which
    /// the caller closes.
    func copy(behind lines: [UInt8]) throws(SystemError) -> Descriptor {
        let copy = try Descriptor.temporaryFile(in: Self.directory)
        do throws(SystemError) {
            try copy.write(lines)
            try self.forEachPart { part throws(SystemError) in try copy.write(part) }
            try copy.seek(to: 0)
        } catch {
            copy.close()
            throw error
        }
        return copy
    }
}
