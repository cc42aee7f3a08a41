// SPDX-License-Identifier: Apache-2.0

import CUnix
import Glibc
import PipeCore
import Unix

/// The socket at `state/control` that the operator's command connects to.
///
/// Only root and the user that apusd runs as get in: by the mode of the socket, and again by the credentials of the
/// process at the other end.
struct OperatorSocket {
    let descriptor: Descriptor
    let path: String

    /// More than so many operators at once are let go.
    static let clientCountMax = 16

    /// Makes the socket; the lock of the state directory is held, so one that is there is left over.
    init(path: String) throws(SystemError) {
        self.descriptor = try UnixSocket.listen(path, mode: 0o600)
        self.path = path
    }

    /// The next operator; nil if there is none. Strangers are closed.
    func accept() -> Descriptor? {
        while true {
            let number = Glibc.accept(self.descriptor.number, nil, nil)
            if number < 0 {
                if errno == EINTR || errno == ECONNABORTED { continue }
                return nil
            }
            var uid: uid_t = 0
            if apus_peer_uid(number, &uid) == 0, uid == 0 || uid == geteuid(),
                apus_fcntl(number, F_SETFD, FD_CLOEXEC) == 0, apus_fcntl(number, F_SETFL, O_NONBLOCK) == 0
            {
                return Descriptor(number)
            }
            Glibc.close(number)
        }
    }

    func close() {
        self.descriptor.close()
        unlink(self.path)
    }
}

/// One operator who has connected: asks for `status`, or to be handed on to apus-queue by `operate`.
struct OperatorClient {
    let descriptor: Descriptor
    /// When he is let go if he has not said what he wants.
    let deadline: Duration
    private var decoder = FrameDecoder()

    init(_ descriptor: Descriptor, deadline: Duration) {
        self.descriptor = descriptor
        self.deadline = deadline
    }

    enum Wish {
        case status(channel: UInt32)
        case operate(channel: UInt32)
        /// Not yet known.
        case none
        /// He has gone, or speaks nonsense.
        case gone
    }

    mutating func hear() -> Wish {
        do {
            let octets = try self.descriptor.read(upTo: 1_024)
            guard !octets.isEmpty else { return .gone }
            self.decoder.append(octets)
            guard let frame = try self.decoder.next() else { return .none }
            // One wish a connection; what follows `operate` is for the queue, and must wait for `granted`.
            guard frame.fieldCount == 0, !self.decoder.isInsideFrame else { return .gone }
            switch frame.verb {
            case .status: return .status(channel: frame.channel)
            case .operate: return .operate(channel: frame.channel)
            default: return .gone
            }
        } catch let error as SystemError where error.code == EAGAIN {
            return .none
        } catch {
            return .gone
        }
    }

    /// Sends an answer that fits into the socket; false if it does not.
    func answer(_ octets: [UInt8]) -> Bool {
        let count = octets.withUnsafeBytes {
            send(self.descriptor.number, $0.baseAddress, $0.count, CInt(MSG_NOSIGNAL))
        }
        return count == octets.count
    }
}

/// The rows of an answer to `status`, gathered from all programs.
struct StatusGathering {
    let client: Descriptor
    let channel: UInt32
    /// Programs that have not answered in time are left out.
    let deadline: Duration
    var waiting: Set<Part>
    /// What each program has said.
    var rows: [Part: [(name: String, value: String)]] = [:]

    /// A program has few figures to tell.
    static let rowCountMax = 200
}
