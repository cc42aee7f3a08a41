// SPDX-License-Identifier: Apache-2.0

import CUnix
import Glibc

/// A file descriptor. A plain number: whoever holds it last closes it.
package struct Descriptor: Hashable, Sendable {
    package let number: CInt

    package init(_ number: CInt) { self.number = number }

    package static let input = Descriptor(0)
    package static let output = Descriptor(1)
    package static let error = Descriptor(2)

    /// Opens a file, close-on-exec.
    package static func open(
        _ path: String, _ flags: CInt, mode: UInt32 = 0
    ) throws(SystemError) -> Descriptor {
        Descriptor(try SystemError.check(apus_open(path, flags, mode), "open", path))
    }

    /// Opens a file relative to this directory, close-on-exec.
    package func open(_ path: String, _ flags: CInt, mode: UInt32 = 0) throws(SystemError) -> Descriptor {
        Descriptor(try SystemError.check(apus_openat(self.number, path, flags, mode), "open", path))
    }

    package func close() { _ = Glibc.close(self.number) }

    /// The two ends of a new pipe, close-on-exec.
    package static func pipe() throws(SystemError) -> (reading: Descriptor, writing: Descriptor) {
        var ends: [CInt] = [0, 0]
        try SystemError.check(apus_pipe(&ends), "pipe")
        return (Descriptor(ends[0]), Descriptor(ends[1]))
    }

    /// Two connected Unix stream sockets, close-on-exec.
    package static func socketPair() throws(SystemError) -> (Descriptor, Descriptor) {
        var ends: [CInt] = [0, 0]
        let kind = CInt(SOCK_STREAM.rawValue) | CInt(SOCK_CLOEXEC.rawValue)
        guard socketpair(AF_UNIX, kind, 0, &ends) == 0 else { throw SystemError("socketpair") }
        return (Descriptor(ends[0]), Descriptor(ends[1]))
    }

    /// A second number for the same open file, close-on-exec.
    package func duplicate() throws(SystemError) -> Descriptor {
        Descriptor(try SystemError.check(apus_fcntl(self.number, F_DUPFD_CLOEXEC, 3), "dup"))
    }

    package func setNonBlocking(_ isNonBlocking: Bool) throws(SystemError) {
        let flags = try SystemError.check(apus_fcntl(self.number, F_GETFL, 0), "fcntl")
        let wanted = isNonBlocking ? flags | O_NONBLOCK : flags & ~O_NONBLOCK
        try SystemError.check(apus_fcntl(self.number, F_SETFL, wanted), "fcntl")
    }

    /// Reads once, at most `octetCountMax`; empty at the end of input.
    package func read(upTo octetCountMax: Int) throws(SystemError) -> [UInt8] {
        var result = 0
        var code: CInt = 0
        let octets = [UInt8](unsafeUninitializedCapacity: octetCountMax) { buffer, count in
            repeat {
                result = Glibc.read(self.number, buffer.baseAddress, octetCountMax)
            } while result < 0 && errno == EINTR
            code = errno
            count = max(result, 0)
        }
        guard result >= 0 else { throw SystemError("read", code: code) }
        return octets
    }

    /// Reads to the end; throws EFBIG above `octetCountMax`.
    package func readAll(octetCountMax: Int) throws(SystemError) -> [UInt8] {
        var octets: [UInt8] = []
        while true {
            let part = try self.read(upTo: 65_536)
            if part.isEmpty { return octets }
            octets += part
            guard octets.count <= octetCountMax else { throw SystemError("read", code: EFBIG) }
        }
    }

    /// Writes all of it, waiting as long as it takes.
    package func write(_ octets: some Collection<UInt8>) throws(SystemError) {
        var code: CInt = 0
        let number = self.number
        let done: Void? = octets.withContiguousStorageIfAvailable { code = Self.write($0, to: number) }
        if done == nil { Array(octets).withUnsafeBufferPointer { code = Self.write($0, to: number) } }
        guard code == 0 else { throw SystemError("write", code: code) }
    }

    private static func write(_ octets: UnsafeBufferPointer<UInt8>, to number: CInt) -> CInt {
        var rest = UnsafeRawBufferPointer(octets)
        while !rest.isEmpty {
            let count = Glibc.write(number, rest.baseAddress, rest.count)
            if count < 0 {
                if errno == EINTR { continue }
                return errno
            }
            rest = UnsafeRawBufferPointer(rebasing: rest[count...])
        }
        return 0
    }

    /// Reads a whole file; throws EFBIG above `octetCountMax`.
    package static func readFile(_ path: String, octetCountMax: Int) throws(SystemError) -> [UInt8] {
        let file = try Descriptor.open(path, O_RDONLY)
        defer { file.close() }
        do throws(SystemError) {
            return try file.readAll(octetCountMax: octetCountMax)
        } catch {
            throw SystemError("read", path, code: error.code)
        }
    }
}
