// SPDX-License-Identifier: Apache-2.0

import Glibc
import MailTypes
import SMTPCore
import Unix

/// The conversation with apus-smtpd over its local socket: a command, its reply, and the next.
struct SubmissionSocket {
    /// Why mail could not be handed in.
    struct Fault: Error {
        let text: String
        let status: ExitStatus
    }

    let descriptor: Descriptor
    private let isVerbose: Bool
    private var parser = ReplyParser(
        limits: ReplyParser.Limits(lineOctetCountMax: 4_096, lineCountMax: 200, textOctetCountMax: 16_384))
    private var buffer: [UInt8] = []
    private var index = 0

    /// Longer than apus-smtpd takes to answer anything.
    private static let patience = 330

    init(path: String, isVerbose: Bool) throws(Fault) {
        self.isVerbose = isVerbose
        do throws(SystemError) {
            self.descriptor = try UnixSocket.connect(path, patience: Self.patience)
        } catch {
            switch error.code {
            case ENAMETOOLONG:
                throw Fault(text: "the path \(path) is too long for a socket", status: .configuration)
            case ENOENT, ECONNREFUSED:
                throw Fault(
                    text:
                        "the mail system does not run (nobody answers at \(path)): the message was not sent, try again later",
                    status: .temporary)
            default: throw Fault(text: "\(error.text): the message was not sent", status: .temporary)
            }
        }
    }

    /// Sends a line and waits for its reply.
    ///
    /// Whoever calls sendmail writes part of the line: with a line end in it, that part would be more than one command.
    mutating func ask(_ line: [UInt8]) throws(Fault) -> PeerReply {
        guard line.allSatisfy({ $0 >= ASCII.space && $0 != 0x7F }) else {
            throw Fault(
                text: "a control character in \(line.printableText): the message was not sent", status: .badInput)
        }
        self.show("-> ", line)
        try self.send(line + [ASCII.carriageReturn, ASCII.lineFeed])
        return try self.reply()
    }

    func send(_ octets: [UInt8]) throws(Fault) {
        do throws(SystemError) { try self.descriptor.write(octets) } catch {
            throw Fault(text: "the mail system has gone away: \(error.text)", status: .temporary)
        }
    }

    mutating func reply() throws(Fault) -> PeerReply {
        while true {
            let buffer = self.buffer
            var index = self.index
            do throws(ReplyFault) {
                if let reply = try self.parser.next(buffer.span, from: &index) {
                    self.index = index
                    self.show("<- \(reply.code) ", reply.text)
                    return reply
                }
            } catch { throw Fault(text: "the mail system answers what is no SMTP", status: .temporary) }
            self.index = 0
            do throws(SystemError) { self.buffer = try self.descriptor.read(upTo: 65_536) } catch {
                throw Fault(text: "the mail system does not answer: \(error.text)", status: .temporary)
            }
            guard !self.buffer.isEmpty else {
                throw Fault(text: "the mail system has closed the connection", status: .temporary)
            }
        }
    }

    private func show(_ sign: String, _ text: [UInt8]) {
        guard self.isVerbose else { return }
        try? Descriptor.error.write(Array((sign + text.printableText + "\n").utf8))
    }
}
