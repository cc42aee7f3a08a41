// SPDX-License-Identifier: Apache-2.0
//
// How every program of Apus starts: privileges first, then settings and links, from apusd or by hand.

import CUnix
import Glibc
import MailTypes
package import PipeCore

/// A started program: its settings, its listeners, its links, and the line to apusd if there is one.
///
///     apus-lookup [--settings FILE] [--setting NAME=VALUE] [--link DIALECT:PEER:IN:OUT] [--user NAME [--chroot DIR]]
///         [--help]
///
/// Under apusd (`--supervised`) all comes through descriptor 3. By hand, settings come from the file, then from the
/// command line, and the program's main link is descriptors 0 and 1 unless another link has one of them.
package struct Program: Sendable {
    package let name: String
    package private(set) var settings = SettingsTable()
    package private(set) var listeners: [Listener] = []
    package private(set) var links: [LinkEnds] = []
    /// What apusd gave; by hand there are none.
    package private(set) var certificates: [CertificateFile] = []
    package private(set) var ticketKeys: [[UInt8]] = []
    /// Whether apusd started us.
    package let isSupervised: Bool
    /// Arguments that are not of the common ones, for programs with modes of their own.
    package let arguments: [String]
    private var control: ControlSocket?
    private var reader = ControlReader()
    private let signals: Descriptor

    /// What the program is, for its start and its `--help`.
    package struct Description: Sendable {
        /// `apus-lookup`.
        package var name: String
        /// One sentence.
        package var purpose: String
        /// The dialect of descriptors 0 and 1 when run by hand, and who is at the other end.
        package var mainLink: (dialect: Dialect, peer: String)?
        /// Whether it may go on as root: only apus-local, which needs it to become each recipient's user.
        package var mayBeRoot = false
        /// Whether it may make sockets that reach beyond this machine.
        package var mayUseNetwork = true
        /// Whether it keeps all groups of its user, so that the administrator can let it read files by them.
        package var keepsGroups = false

        package init(
            name: String, purpose: String, mainLink: (dialect: Dialect, peer: String)?, mayBeRoot: Bool = false,
            mayUseNetwork: Bool = true, keepsGroups: Bool = false
        ) {
            self.name = name
            self.purpose = purpose
            self.mainLink = mainLink
            self.mayBeRoot = mayBeRoot
            self.mayUseNetwork = mayUseNetwork
            self.keepsGroups = keepsGroups
        }
    }

    /// Starts, or says on standard error why it cannot and exits.
    package static func start(_ description: Description) -> Program {
        ThisProcess.openStandardDescriptors()
        Log.setProgram(description.name)
        do throws(StartFault) {
            return try Program(description)
        } catch {
            var line = LogLine("start-failed")
            line.add("reason", error.text)
            line.write()
            error.status.exit()
        }
    }

    private struct StartFault: Error {
        let text: String
        let status: ExitStatus

        init(_ text: String, _ status: ExitStatus = .configuration) {
            self.text = text
            self.status = status
        }
    }

    private init(_ description: Description) throws(StartFault) {
        var options = Options()
        try options.read(Array(CommandLine.arguments.dropFirst()), description)
        self.name = description.name
        self.isSupervised = options.isSupervised
        self.arguments = options.rest

        // Privileges before anything else.
        do throws(SystemError) {
            if Privileges.isRoot, let user = options.user {
                try Privileges.drop(
                    to: user, rootDirectory: options.rootDirectory, keepsGroups: description.keepsGroups)
            }
        } catch { throw StartFault(error.text, .noPermission) }
        guard !Privileges.isRoot || description.mayBeRoot else {
            throw StartFault("will not run as root; give --user NAME or start it through apusd", .noPermission)
        }

        if !description.mayUseNetwork {
            do throws(SystemError) {
                try SystemError.check(apus_forbid_network(), "seccomp")
            } catch { throw StartFault(error.text, .system) }
            // What is in the memory of a program without a network may be more than what is in its files.
            ThisProcess.forbidTracing()
        }

        self.signals = try Self.prepareProcess()
        if options.isSupervised {
            self.control = ControlSocket(.control)
            // Our children must not inherit the line to apusd.
            _ = apus_fcntl(3, F_SETFD, FD_CLOEXEC)
            try self.receiveStart()
        } else {
            try self.startByHand(options, description)
        }
    }

    /// Signals are blocked and read from a descriptor; SIGPIPE is an error of write; all descriptors that may be
    /// had are had.
    private static func prepareProcess() throws(StartFault) -> Descriptor {
        signal(SIGPIPE, SIG_IGN)
        _ = apus_raise_descriptor_limit()
        apus_keep_freed_memory()
        do throws(SystemError) {
            let numbers = [SIGTERM, SIGINT, SIGHUP]
            return Descriptor(
                try SystemError.check(apus_signal_descriptor(numbers, numbers.count), "signalfd"))
        } catch { throw StartFault(error.text, .system) }
    }

    private mutating func startByHand(_ options: Options, _ description: Description) throws(StartFault) {
        if let path = options.settingsPath {
            do throws(SystemError) {
                let octets = try Descriptor.readFile(path, octetCountMax: 1 << 20)
                self.settings = try Self.table(octets, path)
            } catch { throw StartFault(error.text) }
        }
        for (name, value) in options.settings { self.settings.append(name, value) }
        self.links = options.links
        if let link = description.mainLink, !options.hasMainLink {
            self.links.insert(
                LinkEnds(dialect: link.dialect, peer: link.peer, input: .input, output: .output), at: 0)
        }
    }

    private static func table(_ octets: [UInt8], _ path: String) throws(SystemError) -> SettingsTable {
        do throws(SettingsFault) {
            return try SettingsTable(fileOctets: octets)
        } catch { throw SystemError("\(path): \(error.description)", code: EINVAL) }
    }

    private mutating func receiveStart() throws(StartFault) {
        while true {
            switch self.nextEvent() {
            case .settings(let table): self.settings = table
            case .listen(let listener): self.listeners.append(listener)
            case .link(let link): self.links.append(link)
            case .certificates(let certificates): self.certificates = certificates
            case .tickets(let keys): self.ticketKeys = keys
            case .start: return
            case .stop: ExitStatus.ok.exit()
            case .unlisten, .status: throw StartFault("apusd sent something out of place before start", .software)
            }
        }
    }

    /// Says to apusd that we serve.
    package func ready() {
        var octets: [UInt8] = []
        octets.appendFrame(.ready, 0)
        try? self.control?.send(octets)
    }

    /// Answers `status`. Safe to call from another thread: the rows go out in one send.
    package func answerStatus(_ channel: UInt32, _ rows: [(name: String, value: String)]) {
        var octets: [UInt8] = []
        for row in rows { octets.appendFrame(.row, channel, [Array(row.name.utf8), Array(row.value.utf8)]) }
        octets.appendFrame(.end, channel)
        try? self.control?.send(octets)
    }

    /// Hands control events to `handle` for as long as the process lives; `handle` ends it after `.stop`.
    ///
    /// This is the main thread's whole work in programs with an event loop. After `.stop` nothing more comes.
    package mutating func run(_ handle: (ControlEvent) -> Void) -> Never {
        while true {
            let event = self.nextEvent()
            handle(event)
            if case .stop = event { break }
        }
        // The event loop's thread ends the process when it has finished. A second signal ends it at once.
        while !self.signalArrived() {
            var watched = pollfd(fd: self.signals.number, events: Int16(POLLIN), revents: 0)
            _ = poll(&watched, 1, -1)
        }
        ExitStatus.temporary.exit()
    }

    /// Waits for the next event: from apusd, or SIGTERM and (by hand) SIGINT as `.stop`.
    private mutating func nextEvent() -> ControlEvent {
        while true {
            do throws(FramePipe.Fault) {
                if let event = try self.bufferedEvent() { return event }
                var watched = [pollfd(fd: self.signals.number, events: Int16(POLLIN), revents: 0)]
                if let control = self.control {
                    watched.append(pollfd(fd: control.descriptor.number, events: Int16(POLLIN), revents: 0))
                }
                guard poll(&watched, nfds_t(watched.count), -1) > 0 else { continue }
                if watched[0].revents != 0, self.signalArrived() { return .stop }
                if watched.count > 1, watched[1].revents != 0, try self.control?.read() == false { return .stop }
            } catch {
                var line = LogLine("control-broken")
                line.add("reason", error.text)
                line.write()
                ExitStatus.software.exit()
            }
        }
    }

    private mutating func bufferedEvent() throws(FramePipe.Fault) -> ControlEvent? {
        while let arrival = try self.control?.next() {
            do throws(FrameFault) {
                if let event = try self.reader.event(arrival) { return event }
            } catch { throw .frame(error) }
        }
        return nil
    }

    /// Takes one signal; whether it means stop. Ctrl-C in a terminal reaches us too, but apusd decides then.
    private func signalArrived() -> Bool {
        switch apus_next_signal(self.signals.number) {
        case SIGTERM: return true
        case SIGINT: return !self.isSupervised
        default: return false
        }
    }

    /// The command line.
    private struct Options {
        var settingsPath: String?
        var settings: [(name: String, value: String)] = []
        var user: String?
        var rootDirectory: String?
        var isSupervised = false
        var links: [LinkEnds] = []
        var hasMainLink = false
        var rest: [String] = []

        mutating func read(_ arguments: [String], _ description: Description) throws(StartFault) {
            var rest = arguments[...]
            while let word = rest.popFirst() {
                switch word {
                case "--settings": self.settingsPath = try Self.value(of: word, &rest)
                case "--setting":
                    let words = try Self.value(of: word, &rest).split(
                        separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
                    guard words.count == 2 else { throw StartFault("--setting: expected NAME=VALUE", .usage) }
                    self.settings.append((String(words[0]), String(words[1])))
                case "--user": self.user = try Self.value(of: word, &rest)
                case "--chroot": self.rootDirectory = try Self.value(of: word, &rest)
                case "--supervised": self.isSupervised = true
                case "--link":
                    let link = try Self.link(try Self.value(of: word, &rest))
                    self.links.append(link)
                    self.hasMainLink =
                        self.hasMainLink || link.dialect == description.mainLink?.dialect
                        || [link.input, link.output].contains { $0 == .input || $0 == .output }
                case "--help": Self.help(description)
                default: self.rest.append(word)
                }
            }
        }

        private static func value(of option: String, _ rest: inout ArraySlice<String>) throws(StartFault) -> String {
            guard let value = rest.popFirst() else { throw StartFault("\(option) needs a value", .usage) }
            return value
        }

        /// `ask:apus-lookup:5:6`.
        private static func link(_ text: String) throws(StartFault) -> LinkEnds {
            let parts = text.split(separator: ":", omittingEmptySubsequences: false).map(String.init)
            guard parts.count == 4, let dialect = Dialect(rawValue: parts[0]),
                let input = CInt(parts[2]), let output = CInt(parts[3]), input >= 0, output >= 0
            else { throw StartFault("--link \(text): expected DIALECT:PEER:IN:OUT", .usage) }
            return LinkEnds(dialect: dialect, peer: parts[1], input: Descriptor(input), output: Descriptor(output))
        }

        private static func help(_ description: Description) -> Never {
            var text = """
                usage: \(description.name) [--settings FILE] [--setting NAME=VALUE] [--link DIALECT:PEER:IN:OUT]
                           [--user NAME [--chroot DIR]]

                \(description.purpose)

                """
            if let link = description.mainLink {
                text +=
                    "By hand it speaks the dialect \(link.dialect.rawValue) with \(link.peer) on descriptors 0 (read) and 1 (write);\n"
                text += "frames and dialects are described in Documentation/pipes.md.\n"
            }
            try? Descriptor.output.write(Array(text.utf8))
            ExitStatus.ok.exit()
        }
    }
}
