// SPDX-License-Identifier: Apache-2.0

import Glibc
import MailTypes
import PipeCore
import Unix

/// The operator's line to apusd, and through it to apus-queue (pipes.md §5 and §6); or to an apus-queue of his own.
struct ApusdConnection {
    /// Why there is no answer.
    struct Fault: Error {
        let text: String
        let status: ExitStatus
        /// Whether the socket is there but not for us.
        var isPermission = false
        /// Whether no apusd is running.
        var isAbsence = false
    }

    /// A row: its pairs, in order; the first one names the object.
    typealias Pairs = [(name: String, value: String)]

    private var pipe: FramePipe
    /// The process of an apus-queue that was started for us; nil: apusd is at the other end.
    private let child: Int32?

    private var peer: String { self.child == nil ? "apusd" : "apus-queue" }

    /// Starts an apus-queue that serves this connection alone.
    init(standaloneSettings file: String) throws(Fault) {
        let (pipe, pid) = try StandaloneQueue.start(settings: file)
        self.pipe = pipe
        self.child = pid
        do throws(Fault) {
            try self.greet()
        } catch {
            self.pipe.input.close()
            self.pipe.output.close()
            // Why it ended it has said on standard error.
            guard case .exited(let code) = ChildProcess.end(of: pid, isWaiting: true) else { throw error }
            let status = ExitStatus(rawValue: code) ?? .software
            throw Fault(
                text: status == .temporary
                    ? "apusd is not running, but the queue is open elsewhere: try again in a moment"
                    : "apusd is not running, and apus-queue cannot open the queue", status: status)
        }
    }

    /// Connects to the apusd of that state directory.
    init(stateDirectory: String) throws(Fault) {
        let path = "\(stateDirectory)/control"
        let descriptor: Descriptor
        do throws(SystemError) {
            // Nothing that is asked takes long; a program that hangs must not hang the operator's scripts.
            descriptor = try UnixSocket.connect(path, patience: 60)
        } catch {
            switch error.code {
            case ENAMETOOLONG:
                throw Fault(text: "the path \(path) is too long for a socket", status: .configuration)
            case ENOENT, ECONNREFUSED:
                throw Fault(
                    text: "apusd is not running: nobody answers at \(path)", status: .unavailable, isAbsence: true)
            case EACCES, EPERM:
                throw Fault(
                    text: "no permission to talk to apusd at \(path): only root and the user of apusd may",
                    status: .noPermission, isPermission: true)
            default: throw Fault(text: error.text, status: .unavailable)
            }
        }
        self.pipe = FramePipe(input: descriptor, output: descriptor)
        self.child = nil
    }

    /// Ends the connection; an apus-queue of our own has ended too when this returns.
    func close() {
        self.pipe.input.close()
        guard let child else { return }
        self.pipe.output.close()
        _ = ChildProcess.end(of: child, isWaiting: true)
    }

    /// What apusd and its programs tell of themselves.
    mutating func status(_ row: (Pairs) -> Void) throws(Fault) {
        self.pipe.send { $0.appendFrame(.status, 0) }
        _ = try self.rows(row)
    }

    /// Has apusd hand this connection on to apus-queue.
    mutating func enterQueue() throws(Fault) {
        self.pipe.send { $0.appendFrame(.operate, 0) }
        let frame = try self.frame()
        guard frame.verb == .granted else { throw self.refusal(frame) }
        try self.greet()
    }

    private mutating func greet() throws(Fault) {
        self.pipe.send { Hello(.operate, program: "apus").append(to: &$0) }
        let hello = try self.frame()
        guard hello.verb == .hello else { throw self.refusal(hello) }
    }

    /// Asks apus-queue; each row is handed over as it comes.
    ///
    /// - Returns: the number that ends the answer.
    mutating func ask(
        _ verb: Verb, _ fields: [[UInt8]], filter: FilterOptions? = nil, _ row: (Pairs) -> Void
    ) throws(Fault) -> Int {
        // No field of a question is longer than a path; a longer word is as wrong when it is cut.
        let fields = fields.map { Array($0.prefix(FrameLimits.fieldOctetCountMax)) }
        self.pipe.send { octets in
            filter?.append(to: &octets, channel: 1)
            octets.appendFrame(verb, 1, fields)
        }
        return try self.rows(row)
    }

    /// Asks for an export: each frame of a message is handed over as a part, each row as a row.
    mutating func export(
        filter: FilterOptions, _ part: (ExportPart) throws(Fault) -> Void, _ row: (Pairs) -> Void
    ) throws(Fault) {
        self.pipe.send { octets in
            filter.append(to: &octets, channel: 1)
            octets.appendFrame(.export, 1)
        }
        while true {
            let frame = try self.frame()
            switch frame.verb {
            case .end: return
            case .row: row(Self.pairs(frame))
            case .message, .recipient, .data, .whole, .gone:
                let next: ExportPart
                do throws(FrameFault) { next = try ExportPart(frame) } catch {
                    throw Fault(text: "\(self.peer) answers what is no export: \(error.text)", status: .software)
                }
                try part(next)
            default: throw self.refusal(frame)
            }
        }
    }

    /// Sends what belongs to a question that has been asked.
    mutating func send(_ encode: (inout [UInt8]) -> Void) throws(Fault) {
        self.pipe.send(encode)
        do throws(FramePipe.Fault) { try self.pipe.flush() } catch {
            throw Fault(text: "\(self.peer) does not listen: \(error.text)", status: .unavailable)
        }
    }

    /// The next frame of an answer; a `failed` is thrown.
    mutating func answer() throws(Fault) -> Frame {
        let frame = try self.frame()
        guard frame.verb != .failed else { throw self.refusal(frame) }
        return frame
    }

    static func pairs(_ frame: Frame) -> Pairs {
        var pairs: Pairs = []
        for index in stride(from: 0, to: frame.fieldCount - 1, by: 2) {
            pairs.append((frame[index].printableText, Self.text(frame[index + 1])))
        }
        return pairs
    }

    private mutating func rows(_ row: (Pairs) -> Void) throws(Fault) -> Int {
        while true {
            let frame = try self.frame()
            switch frame.verb {
            case .row: row(Self.pairs(frame))
            case .end:
                guard frame.fieldCount > 0 else { return 0 }
                return Int(frame[0].decimal(limit: 1 << 62) ?? 0)
            default: throw self.refusal(frame)
            }
        }
    }

    /// Text for a terminal: what is not printable might command it.
    private static func text(_ octets: ArraySlice<UInt8>) -> String {
        guard let text = String(validating: octets, as: UTF8.self) else { return octets.printableText }
        let isPlain = text.unicodeScalars.allSatisfy { $0.value >= 0x20 && !(0x7F...0x9F).contains($0.value) }
        return isPlain ? text : octets.printableText
    }

    private func refusal(_ frame: Frame) -> Fault {
        guard frame.verb == .failed, frame.fieldCount > 0 else {
            return Fault(text: "\(self.peer) answers what was not asked: \(frame.verb.rawValue)", status: .software)
        }
        return Fault(text: frame[0].printableText, status: .unavailable)
    }

    private mutating func frame() throws(Fault) -> Frame {
        do throws(FramePipe.Fault) {
            while let frame = try self.pipe.receive() {
                // A row of nothing only says that the answer takes its time.
                if frame.verb != .row || frame.fieldCount > 0 { return frame }
            }
        } catch {
            throw Fault(text: "\(self.peer) does not answer: \(error.text)", status: .unavailable)
        }
        throw Fault(text: "\(self.peer) has closed the connection without an answer", status: .unavailable)
    }
}
