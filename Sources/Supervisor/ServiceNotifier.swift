// SPDX-License-Identifier: Apache-2.0

import Glibc

/// Tells systemd how the service is (sd_notify(3)): datagrams to the socket that `$NOTIFY_SOCKET` names.
///
/// Without that variable nothing is told.
struct ServiceNotifier {
    private let socketPath: [UInt8]
    /// How often the watchdog wants to hear from us; nil if it does not.
    let watchdogInterval: Duration?

    /// From the environment that systemd gives.
    init() {
        self.socketPath = Self.variable("NOTIFY_SOCKET").map { Array($0.utf8) } ?? []
        self.watchdogInterval = Self.watchdogInterval()
    }

    private static func variable(_ name: String) -> String? {
        guard let value = getenv(name) else { return nil }
        return String(cString: value)
    }

    /// Half of what systemd asks for, if it asks this process.
    private static func watchdogInterval() -> Duration? {
        if let pid = Self.variable("WATCHDOG_PID"), pid != String(getpid()) { return nil }
        guard let text = Self.variable("WATCHDOG_USEC"), let microseconds = Int64(text), microseconds > 1 else {
            return nil
        }
        return .microseconds(microseconds / 2)
    }

    func ready(_ status: String) { self.send("READY=1\nSTATUS=\(status)") }

    func stopping() { self.send("STOPPING=1\nSTATUS=finishing what is in flight") }

    func reloading(now: Duration) {
        let (seconds, attoseconds) = now.components
        self.send("RELOADING=1\nMONOTONIC_USEC=\(seconds * 1_000_000 + attoseconds / 1_000_000_000_000)")
    }

    func status(_ status: String) { self.send("STATUS=\(status)") }

    func alive() { self.send("WATCHDOG=1") }

    private func send(_ text: String) {
        var name = sockaddr_un()
        let capacity = MemoryLayout.size(ofValue: name.sun_path)
        guard !self.socketPath.isEmpty, self.socketPath.count < capacity else { return }
        name.sun_family = sa_family_t(AF_UNIX)
        withUnsafeMutableBytes(of: &name.sun_path) { $0.copyBytes(from: self.socketPath) }
        // An abstract socket is written with @ and named with NUL.
        if self.socketPath.first == 0x40 { name.sun_path.0 = 0 }
        let length = MemoryLayout<sockaddr_un>.size - capacity + self.socketPath.count
        let kind = CInt(SOCK_DGRAM.rawValue) | CInt(SOCK_CLOEXEC.rawValue)
        let number = socket(AF_UNIX, kind, 0)
        guard number >= 0 else { return }
        defer { close(number) }
        let octets = Array(text.utf8)
        // Whoever does not listen does not want to know; the mail goes on.
        withUnsafePointer(to: &name) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { address in
                _ = sendto(
                    number, octets, octets.count, CInt(MSG_NOSIGNAL) | CInt(MSG_DONTWAIT), address,
                    socklen_t(length))
            }
        }
    }
}
