// SPDX-License-Identifier: Apache-2.0

import CUnix
import Glibc

/// A process that we have started.
package enum ChildProcess {
    /// How a process ended.
    package enum End: Equatable, Sendable {
        case exited(CInt)
        case killed(signal: CInt)
        /// Somebody else has taken note of its end: how it was is not known.
        case unknown
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
                return .unknown
            }
            let signal = status & 0x7F
            return signal == 0 ? .exited((status >> 8) & 0xFF) : .killed(signal: signal)
        }
    }

    /// A descriptor that becomes readable when the process ends.
    package static func watch(_ pid: Int32) throws(SystemError) -> Descriptor {
        Descriptor(try SystemError.check(apus_pidfd_open(pid), "pidfd_open"))
    }

    package static func kill(_ pid: Int32) { _ = Glibc.kill(pid, SIGKILL) }

    /// Kills every process of the group that a child with `Spawn.isOwnSession` leads.
    package static func killGroup(_ pid: Int32) { if pid > 1 { _ = Glibc.kill(-pid, SIGKILL) } }
}

/// This process, as its parent and the user database see it.
package enum ThisProcess {
    package static var pid: Int32 { getpid() }

    /// Opens /dev/null where standard input, output or error is closed, or ends the process if it cannot. The first thing
    /// that every program does: the next file or socket would be one of them, and a log line or a child's messages would go
    /// into it.
    package static func openStandardDescriptors() {
        if apus_open_standard_descriptors() < 0 { ExitStatus.system.exit() }
    }

    /// A path by which this executable can be started again, whatever has become of its file meanwhile, and also by
    /// a user who may not look into its directory.
    package static let executablePath = "/proc/self/exe"

    /// The directory in which this executable lies, without a slash at its end: our other programs lie there too.
    package static func directoryOfExecutable() throws(SystemError) -> String {
        var buffer = [CChar](repeating: 0, count: 4_096)
        let count = readlink(Self.executablePath, &buffer, buffer.count)
        guard count > 0, count < buffer.count else { throw SystemError("readlink", Self.executablePath) }
        let path = String(decoding: buffer[..<count].map { UInt8(bitPattern: $0) }, as: UTF8.self)
        return "/" + path.split(separator: "/").dropLast().joined(separator: "/")
    }

    /// The time since some instant in the past, for measuring spans; it never goes back.
    package static var uptime: Duration {
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC, &time)
        return .seconds(time.tv_sec) + .nanoseconds(time.tv_nsec)
    }

    /// Keeps other processes of the same user from looking into this one and changing it.
    package static func forbidTracing() { apus_forbid_tracing() }

    /// From now on this process is killed when `parent` ends; false if that has ended already.
    package static func endWithParent(_ parent: Int32) -> Bool { apus_die_with_parent(parent, SIGKILL) >= 0 }

    /// Like every program of Apus: writing to a pipe that nobody reads is an error, not a signal.
    package static func ignoreBrokenPipes() { signal(SIGPIPE, SIG_IGN) }

    /// A file that grows too large is an error (EFBIG), not a signal.
    package static func ignoreFileSizeSignal() { apus_ignore_size_signal() }

    package static func setUmask(_ bits: UInt32) { _ = umask(bits) }

    /// The user of this process, and the home directory; nil if the user has no entry.
    package static func user() -> (name: String, home: String)? {
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
            guard code == 0, found != nil, let name = entry.pw_name, let home = entry.pw_dir else { return nil }
            return (String(cString: name), String(cString: home))
        }
        return nil
    }
}
