// SPDX-License-Identifier: Apache-2.0

import Glibc
import MailTypes
import Unix

/// `-bs`: standard input and output are the session.
///
/// Neither side waits for the other: what one of them does not take now is kept, and the other is read on meanwhile. Otherwise a
/// program that sends much before it reads and a server that answers much before it reads on would wait for each other.
struct Pump {
    /// Is the session until the server ends it.
    static func run(_ path: String) -> Never {
        let socket: SubmissionSocket
        do throws(SubmissionSocket.Fault) {
            socket = try SubmissionSocket(path: path, isVerbose: false)
        } catch {
            // Whoever speaks SMTP to us is told in SMTP.
            try? Descriptor.output.write(Array("421 4.3.2 \(error.text)\r\n".utf8))
            error.status.exit()
        }
        var pump = Pump(socket.descriptor)
        do throws(SystemError) { try pump.run() } catch { ExitStatus.temporary.exit() }
        ExitStatus.ok.exit()
    }

    private let socket: Descriptor
    private var toServer = Way()
    private var fromServer = Way()

    private init(_ socket: Descriptor) { self.socket = socket }

    /// Ends when the server has said its last and that is out.
    private mutating func run() throws(SystemError) {
        while !self.fromServer.isOver {
            let toServer = self.toServer
            let fromServer = self.fromServer
            // A descriptor that nothing is wanted of is left out: one whose other side is gone would be ready all the time.
            var watched = [
                Self.watched(.input, toServer.wantsInput, 0),
                Self.watched(self.socket, fromServer.wantsInput, toServer.hasOutput ? POLLOUT : 0),
                Self.watched(.output, false, fromServer.hasOutput ? POLLOUT : 0),
            ]
            guard poll(&watched, nfds_t(watched.count), -1) >= 0 || errno == EINTR else { throw SystemError("poll") }
            if toServer.wantsInput, watched[0].revents != 0 { try self.toServer.read(.input) }
            if fromServer.wantsInput, watched[1].revents & ~Int16(POLLOUT) != 0 {
                try self.fromServer.read(self.socket)
            }
            if toServer.hasOutput, watched[1].revents & ~Int16(POLLIN) != 0 {
                // A server that has closed may have said why.
                do throws(SystemError) { try self.toServer.write(self.socket) } catch { self.toServer.stop() }
            }
            if fromServer.hasOutput, watched[2].revents != 0 { try self.fromServer.write(.output) }
            if self.toServer.isOver { self.endInput() }
        }
    }

    private var hasEndedInput = false

    /// The program has said its last: tells the server, once.
    private mutating func endInput() {
        guard !self.hasEndedInput else { return }
        self.hasEndedInput = true
        shutdown(self.socket.number, CInt(SHUT_WR))
    }

    /// A descriptor for poll(2).
    private static func watched(_ descriptor: Descriptor, _ reading: Bool, _ writing: CInt) -> pollfd {
        let events = Int16((reading ? POLLIN : 0) | writing)
        return pollfd(fd: events == 0 ? -1 : descriptor.number, events: events, revents: 0)
    }

    /// One direction. It reads when all that it has read is out, so that it holds one part at most.
    private struct Way {
        private var waiting: ArraySlice<UInt8> = []
        private var isInputOver = false

        private static let partOctetCount = 65_536
        /// What a pipe that is ready takes without waiting (pipe(7)).
        private static let writeOctetCount = 4_096

        var wantsInput: Bool { self.waiting.isEmpty && !self.isInputOver }
        var hasOutput: Bool { !self.waiting.isEmpty }
        var isOver: Bool { self.waiting.isEmpty && self.isInputOver }

        /// Nobody takes what comes this way any more.
        mutating func stop() {
            self.waiting = []
            self.isInputOver = true
        }

        /// Reads what is there, or the end.
        mutating func read(_ source: Descriptor) throws(SystemError) {
            let octets = try source.read(upTo: Self.partOctetCount)
            self.waiting = octets[...]
            self.isInputOver = octets.isEmpty
        }

        /// To a descriptor that is ready. It may be shared with other programs, and is left as it is: not non-blocking.
        mutating func write(_ target: Descriptor) throws(SystemError) {
            let count = self.waiting.prefix(Self.writeOctetCount).withUnsafeBytes { octets in
                let sent = send(target.number, octets.baseAddress, octets.count, CInt(MSG_DONTWAIT))
                guard sent < 0, errno == ENOTSOCK else { return sent }
                return Glibc.write(target.number, octets.baseAddress, octets.count)
            }
            guard count >= 0 else {
                if errno == EAGAIN || errno == EINTR { return }
                throw SystemError("write")
            }
            self.waiting.removeFirst(count)
        }
    }
}
