// SPDX-License-Identifier: Apache-2.0
//
// The socket between apusd and each of its programs (pipes.md §6). Frames with descriptors.

import CUnix
import Glibc
package import PipeCore

/// One end of a control socket.
///
/// A frame that carries descriptors is sent by one sendmsg, so they arrive with its first octet. The receiver
/// keeps descriptors in their order and hands them out with the frames whose verbs take them.
package struct ControlSocket: Sendable {
    package let descriptor: Descriptor
    private var decoder = FrameDecoder()
    private var arrived: [Descriptor] = []

    package init(_ descriptor: Descriptor) { self.descriptor = descriptor }

    /// How many descriptors come with a frame of that verb.
    package static func descriptorCount(_ verb: Verb) -> Int {
        switch verb {
        case .listen, .certificate: 1
        case .link: 2
        default: 0
        }
    }

    /// Sends frames, with descriptors for the first of them. Blocks while the socket is full.
    package func send(_ octets: [UInt8], _ descriptors: [Descriptor] = []) throws(SystemError) {
        var rest = octets[...]
        var passed = descriptors.map(\.number)
        while !rest.isEmpty {
            let sent = rest.withUnsafeBytes { part in
                apus_send_descriptors(self.descriptor.number, part.baseAddress, part.count, passed, passed.count)
            }
            rest = rest.dropFirst(try SystemError.check(sent, "sendmsg"))
            passed = []
        }
    }

    /// A frame and the descriptors that belong to it.
    package struct Arrival {
        package let frame: Frame
        package let descriptors: [Descriptor]
    }

    /// The next frame that has already been read, if its descriptors are there.
    package mutating func next() throws(FramePipe.Fault) -> Arrival? {
        let frame: Frame?
        do throws(FrameFault) { frame = try self.decoder.next() } catch { throw .frame(error) }
        guard let frame else { return nil }
        let count = Self.descriptorCount(frame.verb)
        guard self.arrived.count >= count else { throw .frame(FrameFault(.outOfPlace, frame.verb)) }
        let descriptors = Array(self.arrived.prefix(count))
        self.arrived.removeFirst(count)
        return Arrival(frame: frame, descriptors: descriptors)
    }

    /// Reads once. False at the end of input. With a non-blocking socket and nothing to read: true.
    package mutating func read() throws(FramePipe.Fault) -> Bool {
        var octets = [UInt8](repeating: 0, count: 16_384)
        var numbers = [CInt](repeating: -1, count: 8)
        var count = numbers.count
        let received = octets.withUnsafeMutableBytes { buffer in
            apus_receive_descriptors(self.descriptor.number, buffer.baseAddress, buffer.count, &numbers, &count)
        }
        if received == -Int(EAGAIN) { return true }
        guard received >= 0 else { throw .system(SystemError("recvmsg", code: CInt(-received))) }
        self.arrived += numbers.prefix(count).map { Descriptor($0) }
        guard received > 0 else { return false }
        self.decoder.append(Array(octets.prefix(received)))
        return true
    }
}

extension Descriptor {
    /// Where a supervised program finds its control socket.
    package static let control = Descriptor(3)
}

/// What a listener does about TLS, if there is a certificate.
package enum ListenerTLS: String, CaseIterable, Sendable {
    case off
    /// STARTTLS.
    case offer
    /// STARTTLS, and no mail without it.
    case require
    /// Before the greeting (RFC 8314 §3).
    case implicit
}

/// A certificate with its chain and its key, as a program is given it.
package struct CertificateFile: Hashable, Sendable {
    /// The address of the listener that it is for; empty for all of them.
    package let listener: String
    /// Where it came from, for the log.
    package let name: String
    /// A file in memory: all of it in PEM.
    package let descriptor: Descriptor

    /// More than a chain of certificates ever has.
    package static let octetCountMax = 1 << 20

    package init(listener: String, name: String, descriptor: Descriptor) {
        self.listener = listener
        self.name = name
        self.descriptor = descriptor
    }
}

/// A listening socket as a program is given it.
package struct Listener: Hashable, Sendable {
    /// `mx` or `submission`.
    package let role: String
    /// As in the settings: `127.0.0.1:2525`, `[::]:25`.
    package let address: String
    /// What clients of it get of TLS.
    package let tls: ListenerTLS
    package let descriptor: Descriptor

    package init(role: String, address: String, tls: ListenerTLS, descriptor: Descriptor) {
        self.role = role
        self.address = address
        self.tls = tls
        self.descriptor = descriptor
    }
}

/// The two ends of a pipe pair to another program.
package struct LinkEnds: Hashable, Sendable {
    package let dialect: Dialect
    /// The program at the other side: `apus-lookup`.
    package let peer: String
    package let input: Descriptor
    package let output: Descriptor
    /// By which apusd knows the link; 0 if it need not be told of its end.
    package let number: UInt32

    package init(dialect: Dialect, peer: String, input: Descriptor, output: Descriptor, number: UInt32 = 0) {
        self.dialect = dialect
        self.peer = peer
        self.input = input
        self.output = output
        self.number = number
    }

    /// Tells apusd that the link has ended. If both programs live on, nobody else could know that they need a new one.
    package func tellEnd() {
        guard self.number != 0 else { return }
        var octets: [UInt8] = []
        octets.appendFrame(.unlinked, self.number)
        try? ControlSocket(.control).send(octets)
    }
}

/// What apusd tells one of its programs.
package enum ControlEvent: Sendable {
    /// All settings, at the start and after a reload.
    case settings(SettingsTable)
    case listen(Listener)
    /// All certificates, at the start and whenever one of them has changed. Whoever takes them closes the descriptors.
    case certificates([CertificateFile])
    /// The keys of session tickets, the newest first.
    case tickets([[UInt8]])
    /// Stop accepting on this address.
    case unlisten(address: String)
    case link(LinkEnds)
    case start
    /// Answer with rows; the number is the channel of the question.
    case status(UInt32)
    /// Finish what is in flight, then exit with status 0. Also when apusd is gone.
    case stop
}

/// Gathers `setting` frames and turns the others into events.
struct ControlReader: Sendable {
    private var table = SettingsTable()
    private var certificates: [CertificateFile] = []

    mutating func event(_ arrival: ControlSocket.Arrival) throws(FrameFault) -> ControlEvent? {
        let frame = arrival.frame
        switch frame.verb {
        case .setting:
            try frame.expectFields(2)
            self.table.append(try Self.text(frame, 0), try Self.text(frame, 1))
            return nil
        case .settingsEnd:
            try frame.expectFields(0)
            defer { self.table = SettingsTable() }
            return .settings(self.table)
        case .listen:
            try frame.expectFields(3)
            return .listen(
                Listener(
                    role: try Self.text(frame, 0), address: try Self.text(frame, 1),
                    tls: try frame.value(ListenerTLS(rawValue: try Self.text(frame, 2))),
                    descriptor: arrival.descriptors[0]))
        case .certificate:
            try frame.expectFields(2)
            self.certificates.append(
                CertificateFile(
                    listener: try Self.text(frame, 0), name: try Self.text(frame, 1),
                    descriptor: arrival.descriptors[0]))
            return nil
        case .certificates:
            try frame.expectFields(0)
            defer { self.certificates = [] }
            return .certificates(self.certificates)
        case .tickets:
            return .tickets((0..<frame.fieldCount).map { Array(frame[$0]) })
        case .unlisten:
            try frame.expectFields(1)
            return .unlisten(address: try Self.text(frame, 0))
        case .link:
            try frame.expectFields(2)
            return .link(
                LinkEnds(
                    dialect: try frame.value(Dialect(octets: frame[0])), peer: try Self.text(frame, 1),
                    input: arrival.descriptors[0], output: arrival.descriptors[1], number: frame.channel))
        case .start:
            try frame.expectFields(0)
            return .start
        case .status:
            try frame.expectFields(0)
            return .status(frame.channel)
        case .stop:
            try frame.expectFields(0)
            return .stop
        default:
            throw FrameFault(.outOfPlace, frame.verb)
        }
    }

    private static func text(_ frame: Frame, _ index: Int) throws(FrameFault) -> String {
        try frame.value(String(validating: frame[index], as: UTF8.self))
    }
}
