// SPDX-License-Identifier: Apache-2.0

import CUnix
import Glibc

/// A process that we have started.
package enum ChildProcess {
    /// How a process ended.
    package enum End: Equatable, Sendable {
        case exited(CInt)
        case killed(signal: CInt)
    }

    /// Takes note of the end of a process, if it has ended; nil if it has not.
    ///
    /// - Parameter isWaiting: whether to wait until it has.
    package static func end(of pid: Int32, isWaiting: Bool) -> End? {
        var status: CInt = 0
        while true {
            let result = waitpid(pid, &status, isWaiting ? 0 : WNOHANG)
            if result == 0 { return nil }
            if result < 0 {
                if errno == EINTR { continue }
                // Somebody else has taken note.
                return .exited(0)
            }
            let signal = status & 0x7F
            return signal == 0 ? .exited((status >> 8) & 0xFF) : .killed(signal: signal)
        }
    }

    package static func kill(_ pid: Int32) { _ = Glibc.kill(pid, SIGKILL) }
}

/// This process, as its parent and the user database see it.
package enum ThisProcess {
    package static var pid: Int32 { getpid() }

    /// The path of the executable, for starting it again.
    package static func executablePath() throws(SystemError) -> String {
        var buffer = [CChar](repeating: 0, count: 4_096)
        let count = readlink("/proc/self/exe", &buffer, buffer.count - 1)
        guard count > 0 else { throw SystemError("readlink", "/proc/self/exe") }
        return String(decoding: buffer[..<count].map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    /// From now on this process is killed when `parent` ends; false if that has ended already.
    package static func endWithParent(_ parent: Int32) -> Bool { apus_die_with_parent(parent, SIGKILL) >= 0 }

    /// Like every program of Apus: writing to a pipe that nobody reads is an error, not a signal.
    package static func ignoreBrokenPipes() { signal(SIGPIPE, SIG_IGN) }

    package static func setUmask(_ bits: UInt32) { _ = umask(bits) }

    /// The home directory of the user of this process; nil if the user has no entry.
    package static func home() -> String? {
        var capacity = 4_096
        while capacity <= 1 << 20 {
            var entry = passwd()
            var found: UnsafeMutablePointer<passwd>?
            // Safety: the strings of the entry live in this buffer, which outlives their copying.
            let buffer = UnsafeMutablePointer<CChar>.allocate(capacity: capacity)
            defer { buffer.deallocate() }
            let code = getpwuid_r(geteuid(), &entry, buffer, capacity, &found)
            if code == ERANGE {
                capacity *= 4
                continue
            }
            guard code == 0, found != nil, let home = entry.pw_dir else { return nil }
            return String(cString: home)
        }
        return nil
    }
}
