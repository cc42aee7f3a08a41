// SPDX-License-Identifier: Apache-2.0

import CUnix
import Glibc
import MailTypes
import PipeCore
import Settings
import Unix

/// One process that apusd has started, with its control socket.
///
/// What is sent waits at most `sendTimeout` for a process that does not read; then the send fails, and the process is
/// killed by the supervision. So a stuck program can hold apusd up, but not for long and only once.
struct PartProcess {
    let part: Part
    let pid: Int32
    let startedAt: Timestamp
    /// Nil for the programs of others, which have none.
    private var control: ControlSocket?
    private var decoder = FrameDecoder()
    /// Whether note has been taken of its end: from then on its number may be another process's.
    private var hasEnded = false

    private static let sendTimeout = timeval(tv_sec: 3, tv_usec: 0)

    /// For poll; nil for the programs of others.
    var controlDescriptor: Descriptor? { self.control?.descriptor }

    private init(part: Part, pid: Int32, control: ControlSocket?) {
        self.part = part
        self.pid = pid
        self.startedAt = WallClock.now()
        self.control = control
    }

    /// The environment of every program: nothing of ours but the time zone.
    private static var environment: [String] {
        var environment = [
            "PATH=/usr/local/bin:/usr/bin:/bin", "LANG=C",
            // A trace of a crash would put pieces of mail into the log.
            "SWIFT_BACKTRACE=enable=no",
            // One event loop a process: more heaps only cost memory.
            "MALLOC_ARENA_MAX=2",
        ]
        if let zone = getenv("TZ") { environment.append("TZ=\(String(cString: zone))") }
        return environment
    }

    /// Starts one of our programs.
    static func start(_ part: Part, _ installation: Installation) throws(SystemError) -> PartProcess {
        let (ours, theirs) = try Descriptor.socketPair()
        defer { theirs.close() }
        do throws(SystemError) {
            var timeout = Self.sendTimeout
            guard
                setsockopt(
                    ours.number, SOL_SOCKET, SO_SNDTIMEO, &timeout, socklen_t(MemoryLayout<timeval>.size)) == 0
            else { throw SystemError("setsockopt") }
            let path = installation.executable(part.program)
            var spawn = Spawn(path: path, arguments: [path, "--supervised"])
            if installation.hasOwnUsers, part.program != .local {
                spawn.arguments += ["--user", part.program.rawValue]
            }
            if installation.hasOwnUsers, part.program == .smtpd {
                spawn.arguments += ["--chroot", installation.emptyDirectory]
            }
            spawn.environment = Self.environment
            spawn.directory = "/"
            spawn.descriptors = [nil, nil, .error, theirs]
            return PartProcess(part: part, pid: try spawn.start(), control: ControlSocket(ours))
        } catch {
            ours.close()
            throw error
        }
    }

    /// Starts somebody else's program in the place of ours: its link is descriptors 0 and 1.
    static func startForeign(
        _ part: Part, _ words: [String], input: Descriptor, output: Descriptor, _ installation: Installation
    ) throws(SystemError) -> PartProcess {
        var spawn = Spawn(path: words.first ?? "", arguments: words)
        if installation.hasOwnUsers {
            guard let account = try UserAccount.named(part.program.rawValue) else {
                throw SystemError("no such user", part.program.rawValue, code: ENOENT)
            }
            spawn.account = account
        }
        spawn.environment = Self.environment
        spawn.directory = "/"
        spawn.descriptors = [input, output, .error]
        return PartProcess(part: part, pid: try spawn.start(), control: nil)
    }

    // MARK: Telling it

    func send(settings: SettingsTable) throws(SystemError) {
        var octets: [UInt8] = []
        for pair in settings.pairs {
            octets.appendFrame(.setting, 0, [Array(pair.name.utf8), Array(pair.value.utf8)])
        }
        octets.appendFrame(.settingsEnd, 0)
        try self.control?.send(octets)
    }

    func send(_ listener: Listener) throws(SystemError) {
        var octets: [UInt8] = []
        octets.appendFrame(.listen, 0, [listener.role, listener.address, listener.tls.rawValue].map { Array($0.utf8) })
        try self.control?.send(octets, [listener.descriptor])
    }

    func send(_ certificates: [CertificateFile]) throws(SystemError) {
        for certificate in certificates {
            var octets: [UInt8] = []
            octets.appendFrame(.certificate, 0, [Array(certificate.listener.utf8), Array(certificate.name.utf8)])
            try self.control?.send(octets, [certificate.descriptor])
        }
        try self.send(.certificates)
    }

    func send(ticketKeys: [[UInt8]]) throws(SystemError) {
        var octets: [UInt8] = []
        octets.appendFrame(.tickets, 0, ticketKeys)
        try self.control?.send(octets)
    }

    /// - Parameter number: by which it tells us of the link's end; 0 for a link whose end does not concern us.
    func send(
        link dialect: Dialect, peer: String, input: Descriptor, output: Descriptor, number: UInt32 = 0
    ) throws(SystemError) {
        var octets: [UInt8] = []
        octets.appendFrame(.link, number, [Array(dialect.rawValue.utf8), Array(peer.utf8)])
        try self.control?.send(octets, [input, output])
    }

    func sendUnlisten(_ address: String) throws(SystemError) {
        var octets: [UInt8] = []
        octets.appendFrame(.unlisten, 0, [Array(address.utf8)])
        try self.control?.send(octets)
    }

    /// `start`, `stop`, `status`: verbs without fields.
    func send(_ verb: Verb, channel: UInt32 = 0) throws(SystemError) {
        var octets: [UInt8] = []
        octets.appendFrame(verb, channel)
        try self.control?.send(octets)
    }

    func stop() throws(SystemError) {
        if self.control == nil { self.signal(SIGTERM) } else { try self.send(.stop) }
    }

    func kill() { self.signal(SIGKILL) }

    private func signal(_ number: CInt) {
        if !self.hasEnded { _ = Glibc.kill(self.pid, number) }
    }

    /// waitpid(2) has told of its end: it is never signalled again.
    mutating func end() { self.hasEnded = true }

    // MARK: Hearing it

    /// What it has said since the last time. Reads once, so it is called when there is something to read.
    ///
    /// - Returns: the frames, and whether it can still say more.
    mutating func hear() throws(FramePipe.Fault) -> (frames: [Frame], isOpen: Bool) {
        guard let control = self.control else { return ([], false) }
        let octets: [UInt8]
        // Why: programs hand no descriptors up, and a plain read drops those that a hostile one sends.
        do throws(SystemError) { octets = try control.descriptor.read(upTo: 16_384) } catch { throw .system(error) }
        self.decoder.append(octets)
        var frames: [Frame] = []
        do throws(FrameFault) {
            while let frame = try self.decoder.next() { frames.append(frame) }
        } catch { throw .frame(error) }
        return (frames, !octets.isEmpty)
    }

    /// Ends a process that has closed its control socket.
    mutating func abandon() {
        self.close()
        self.kill()
    }

    /// Closes the control socket, once; the process learns by it that nobody needs it.
    mutating func close() {
        self.control?.descriptor.close()
        self.control = nil
    }
}
