// SPDX-License-Identifier: Apache-2.0

package import CUnix
import Glibc
import PipeCore

/// Stream sockets in the file system.
package enum UnixSocket {
    /// A longer path is not that of a socket.
    package static var pathOctetCountMax: Int { MemoryLayout.size(ofValue: sockaddr_un().sun_path) - 1 }

    /// Connects to who listens at the path.
    ///
    /// - Parameter patience: how long a read or a write may wait, in seconds; then it fails with EAGAIN.
    /// - Throws: ENAMETOOLONG for a path that is too long for a socket; ENOENT or ECONNREFUSED if nobody listens.
    package static func connect(_ path: String, patience: Int) throws(SystemError) -> Descriptor {
        let socket = try Self.make(path, flags: 0)
        guard Self.withAddress(path, { Glibc.connect(socket.number, $0, $1) }) == 0 else {
            let error = SystemError("connect", path)
            socket.close()
            throw error
        }
        var timeout = timeval(tv_sec: patience, tv_usec: 0)
        let length = socklen_t(MemoryLayout<timeval>.size)
        setsockopt(socket.number, SOL_SOCKET, SO_RCVTIMEO, &timeout, length)
        setsockopt(socket.number, SOL_SOCKET, SO_SNDTIMEO, &timeout, length)
        return socket
    }

    /// Makes a listening socket in the place of what is there; it does not block.
    ///
    /// - Parameter mode: who may connect; it is never wider, not even for a moment.
    package static func listen(_ path: String, mode: mode_t) throws(SystemError) -> Descriptor {
        let socket = try Self.make(path, flags: CInt(SOCK_NONBLOCK.rawValue))
        unlink(path)
        let before = umask(0o777 & ~mode)
        let result = Self.withAddress(path) { bind(socket.number, $0, $1) }
        let error = SystemError("bind", path)
        umask(before)
        guard result == 0 else {
            socket.close()
            throw error
        }
        guard Glibc.listen(socket.number, 16) == 0 else {
            let error = SystemError("listen", path)
            socket.close()
            throw error
        }
        return socket
    }

    private static func make(_ path: String, flags: CInt) throws(SystemError) -> Descriptor {
        guard path.utf8.count <= Self.pathOctetCountMax else {
            throw SystemError("socket", path, code: ENAMETOOLONG)
        }
        let number = socket(AF_UNIX, CInt(SOCK_STREAM.rawValue) | CInt(SOCK_CLOEXEC.rawValue) | flags, 0)
        guard number >= 0 else { throw SystemError("socket", path) }
        return Descriptor(number)
    }

    /// - Parameter path: fits; `make` has looked.
    private static func withAddress(
        _ path: String, _ body: (UnsafePointer<sockaddr>, socklen_t) -> CInt
    ) -> CInt {
        var name = sockaddr_un()
        name.sun_family = sa_family_t(AF_UNIX)
        // Safety: the path is shorter than the field, so a NUL stays behind it; the address lives during the call.
        withUnsafeMutableBytes(of: &name.sun_path) { $0.copyBytes(from: path.utf8) }
        return withUnsafePointer(to: &name) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                body($0, socklen_t(MemoryLayout<sockaddr_un>.size))
            }
        }
    }
}
