// SPDX-License-Identifier: Apache-2.0

import Glibc

/// A file beside an environment that says in words what the environment holds, and whose lock says that it is in use.
///
/// It is outside LMDB so that a version of LMDB that cannot read the environment can still be told why.
package final class MarkerFile: Sendable {
    /// What stood in the way.
    package enum Fault: Error, Hashable, Sendable {
        /// Another process holds the lock.
        case inUse
        /// The file says something else: another format, or not ours.
        case differs(found: [UInt8])
        /// The named call failed with this errno.
        case failed(StaticString, Int32)

        package static func == (left: Fault, right: Fault) -> Bool {
            switch (left, right) {
            case (.inUse, .inUse): true
            case (.differs(let one), .differs(let other)): one == other
            case (.failed(let one, let code), .failed(let other, let second)):
                code == second && one.description == other.description
            case (.inUse, _), (.differs, _), (.failed, _): false
            }
        }

        package func hash(into hasher: inout Hasher) {
            if case .failed(_, let code) = self { hasher.combine(code) }
        }
    }

    private let descriptor: Int32

    /// Opens the marker, writing it if it is new, and locks it until this object goes.
    ///
    /// - Parameters:
    ///   - path: of the file, in an existing directory.
    ///   - text: what it must say; at most 1,000 octets.
    ///   - before: what it may say as well, and then says no longer; as long as `text`, so that the change is one write.
    package init(path: String, text: [UInt8], before: [UInt8]? = nil) throws(Fault) {
        precondition(before.map { $0.count == text.count } ?? true)
        let descriptor = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0o600)
        guard descriptor >= 0 else { throw .failed("open", errno) }
        do throws(Fault) {
            guard flock(descriptor, LOCK_EX | LOCK_NB) == 0 else {
                throw errno == EWOULDBLOCK ? .inUse : .failed("flock", errno)
            }
            var found = [UInt8](repeating: 0, count: 1024)
            let count = read(descriptor, &found, found.count)
            guard count >= 0 else { throw .failed("read", errno) }
            found.removeLast(found.count - count)
            if found.isEmpty {
                guard write(descriptor, text, text.count) == text.count else { throw .failed("write", errno) }
                guard fsync(descriptor) == 0 else { throw .failed("fsync", errno) }
            } else if found == before {
                guard pwrite(descriptor, text, text.count, 0) == text.count else { throw .failed("write", errno) }
                guard fsync(descriptor) == 0 else { throw .failed("fsync", errno) }
            } else {
                guard found == text else { throw .differs(found: found) }
            }
        } catch {
            close(descriptor)
            throw error
        }
        self.descriptor = descriptor
    }

    deinit { close(self.descriptor) }
}

/// Makes the names in a directory durable (a new file is there after a power cut only then).
package func syncDirectory(_ path: String) throws(MarkerFile.Fault) {
    let descriptor = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
    guard descriptor >= 0 else { throw .failed("open", errno) }
    defer { close(descriptor) }
    guard fsync(descriptor) == 0 else { throw .failed("fsync", errno) }
}
