// SPDX-License-Identifier: Apache-2.0
//
// sendmail(8): takes a message from any program of this machine and hands it to apus-smtpd over the local socket. It has
// no privileges: who calls is known to apus-smtpd by the credentials of the socket.

import Glibc
import MailTypes
import MessageCore
import SMTPCore
import Unix

/// The program.
package struct SendmailProgram {
    private let arguments: SendmailArguments
    private var input = Input()
    private var dots = DotEnd()

    /// A header is no longer than this.
    private static let headerOctetCountMax = 1 << 20

    package static func main() -> Never {
        ThisProcess.openStandardDescriptors()
        signal(SIGPIPE, SIG_IGN)
        let words = CommandLine.arguments
        let name = words.first.map { $0.split(separator: "/").last.map(String.init) ?? $0 } ?? "sendmail"
        if words.dropFirst() == ["--help"] { Self.help() }
        do throws(SendmailArguments.Fault) {
            let arguments = try SendmailArguments(name: name, Array(words.dropFirst()))
            var program = SendmailProgram(arguments: arguments)
            program.run()
        } catch { Self.end("\(error.text); sendmail(8) has what there is", .usage) }
    }

    private static func help() -> Never {
        let text = """
            usage: sendmail [-Gitv] [-F name] [-f sender] [recipient ...]
                   sendmail -bs | -bp | -bi | -q | -bv address

            Hands in mail from the programs of this machine; sendmail(8) has all options.

            """
        try? Descriptor.output.write(Array(text.utf8))
        ExitStatus.ok.exit()
    }

    private init(arguments: SendmailArguments) { self.arguments = arguments }

    private static func end(_ text: String, _ status: ExitStatus) -> Never {
        try? Descriptor.error.write(Array("sendmail: \(text)\n".utf8))
        status.exit()
    }

    private mutating func run() -> Never {
        switch self.arguments.mode {
        case .send:
            do throws(SubmissionSocket.Fault) { try self.send() } catch { Self.end(error.text, error.status) }
        case .smtp: Pump.run(SubmissionPath.find())
        case .queue: OperatorCommand.become(["queue", "list"])
        case .flush: OperatorCommand.become(["queue", "flush", "--all"])
        case .verify:
            guard self.arguments.recipients.count == 1 else { Self.end("-bv takes one address", .usage) }
            // No address is an option of `apus`, whatever it begins with.
            OperatorCommand.become(["explain", "--"] + self.arguments.recipients)
        case .aliases:
            // Apus looks whether the file has changed with each question; there is nothing to build.
            ExitStatus.ok.exit()
        }
    }

    // MARK: - A message

    private mutating func send() throws(SubmissionSocket.Fault) -> Never {
        guard self.arguments.takesRecipients || !self.arguments.recipients.isEmpty else {
            Self.end("no recipients: name them, or give -t to take them from the message", .usage)
        }
        let start = try self.readHeader()
        let body = try self.readBody(start)
        var socket = try SubmissionSocket(path: SubmissionPath.find(), isVerbose: self.arguments.isVerbose)
        try Self.expect(try socket.reply(), "the greeting")
        let hello = try socket.ask(Array("EHLO localhost".utf8))
        try Self.expect(hello, "EHLO")
        let server = LocalServer(hello)
        let account = Account(origin: server.origin)
        let sender = try self.sender(account)
        let header = OutgoingHeader(
            HeaderFields(start.octets, isWholeMessage: start.isWhole),
            author: self.arguments.isRelayed ? nil : account.author(sender, fullName: self.arguments.fullName),
            lineEnd: start.lineEnd)
        var recipients: [[UInt8]] = []
        for given in self.arguments.recipients { recipients += AddressList(Array(given.utf8)).addresses }
        if self.arguments.takesRecipients { recipients += header.recipients }
        guard !recipients.isEmpty else { Self.end("the message names no recipients", .usage) }
        guard recipients.count <= ServerLimits.localRecipientCountMax else {
            Self.end("too many recipients", .badInput)
        }
        try self.sendEnvelope(sender, recipients.map { account.qualified($0) }, server, &socket)
        try self.sendContent(header, start, body, &socket)
        let reply = try socket.reply()
        try Self.expect(reply, "the message")
        _ = try? socket.ask(Array("QUIT".utf8))
        ExitStatus.ok.exit()
    }

    private func sender(_ account: Account) throws(SubmissionSocket.Fault) -> [UInt8] {
        guard let given = self.arguments.sender else { return account.address }
        let octets = Array(given.utf8)
        if octets.isEmpty || given == "<>" { return [] }
        guard let address = AddressList(octets).addresses.first else {
            throw SubmissionSocket.Fault(text: "-f \(octets.printableText): no address", status: .usage)
        }
        return account.qualified(address)
    }

    private func sendEnvelope(
        _ sender: [UInt8], _ recipients: [[UInt8]], _ server: LocalServer, _ socket: inout SubmissionSocket
    ) throws(SubmissionSocket.Fault) {
        var mail = Array("MAIL FROM:<".utf8) + sender + [ASCII.greater]
        if server.hasEightBitMIME { mail += Array(" BODY=8BITMIME".utf8) }
        // A header in UTF-8 alone asks for nothing: programs that know nothing of SMTPUTF8 write it, and their mail would no
        // longer reach servers that do not offer it.
        if self.arguments.isUnicode ?? ([sender] + recipients).contains(where: { !$0.isASCII }) {
            guard server.hasUnicode else {
                throw SubmissionSocket.Fault(text: "the server does not know SMTPUTF8", status: .unavailable)
            }
            mail += Array(" SMTPUTF8".utf8)
        }
        if server.hasDSN, let returned = self.arguments.returned { mail += Array(" RET=\(returned)".utf8) }
        if server.hasDSN, let id = self.arguments.envelopeID {
            mail += Array(" ENVID=".utf8) + Xtext.encode(Array(id.utf8))
        }
        if self.arguments.isVERP {
            guard server.hasVERP else {
                throw SubmissionSocket.Fault(text: "-XV: the server does not know VERP", status: .unavailable)
            }
            mail += Array(" XVERP".utf8)
        }
        try Self.expect(try socket.ask(mail), "the sender <\(sender.printableText)>")
        var seen: Set<[UInt8]> = []
        for recipient in recipients where seen.insert(recipient).inserted {
            var line = Array("RCPT TO:<".utf8) + recipient + [ASCII.greater]
            if server.hasDSN, let notify = self.arguments.notify { line += Array(" NOTIFY=\(notify)".utf8) }
            try Self.expect(try socket.ask(line), "the recipient <\(recipient.printableText)>")
        }
        let reply = try socket.ask(Array("DATA".utf8))
        guard reply.code == 354 else { return try Self.expect(reply, "DATA") }
    }

    private func sendContent(
        _ header: OutgoingHeader, _ start: Start, _ body: KeptBody, _ socket: inout SubmissionSocket
    ) throws(SubmissionSocket.Fault) {
        var encoder = DataEncoder()
        var octets: [UInt8] = []
        encoder.encode(header.octets[...], into: &octets)
        // A body that begins without an empty line gets one, or its first line would be a field.
        encoder.encode(start.lineEnd[...], into: &octets)
        try body.forEachPart { part throws(SubmissionSocket.Fault) in
            encoder.encode(part[...], into: &octets)
            if octets.count >= 65_536 {
                try socket.send(octets)
                octets = []
            }
        } failure: {
            Self.unkept($0)
        }
        encoder.finish(into: &octets)
        try socket.send(octets)
    }

    /// A refusal ends the program; its text is shown.
    private static func expect(_ reply: PeerReply, _ what: String) throws(SubmissionSocket.Fault) {
        guard reply.code / 100 != 2 else { return }
        let text = "\(what) is refused: \(reply.code) \(reply.line.printableText)"
        // Too many recipients are too many the next time, too: all of them go with one message.
        if reply.status == EnhancedStatus(.transient, 5, 3) {
            throw SubmissionSocket.Fault(text: text, status: .badInput)
        }
        guard reply.code / 100 == 5 else { throw SubmissionSocket.Fault(text: text, status: .temporary) }
        let status: ExitStatus =
            switch (reply.status?.subject, reply.status?.detail) {
            case (1, 1): .noUser
            case (1, 2): .noHost
            case (7, _): .noPermission
            case (1, _), (5, _): .badInput
            default: .unavailable
            }
        throw SubmissionSocket.Fault(text: text, status: status)
    }

    // MARK: - Standard input

    /// The beginning of the message: its header, and what was read behind it.
    private struct Start {
        var octets: [UInt8]
        /// Behind the empty line.
        var body: [UInt8]
        var lineEnd: [UInt8]
        /// Whether the header's last field is complete.
        var isWhole: Bool
    }

    private mutating func readHeader() throws(SubmissionSocket.Fault) -> Start {
        var octets: [UInt8] = []
        while true {
            let part = try self.read()
            octets += part ?? []
            let header = HeaderFields(octets, isWholeMessage: part == nil)
            if let bodyOffset = header.bodyOffset {
                let firstEnd = octets.firstIndex(of: ASCII.lineFeed) ?? 0
                let isCRLF = firstEnd > 0 && octets[firstEnd - 1] == ASCII.carriageReturn
                return Start(
                    octets: Array(octets[..<header.endOffset]), body: Array(octets[bodyOffset...]),
                    lineEnd: isCRLF ? [ASCII.carriageReturn, ASCII.lineFeed] : [ASCII.lineFeed], isWhole: true)
            }
            guard octets.count <= Self.headerOctetCountMax else {
                throw SubmissionSocket.Fault(text: "the header is longer than 1 MiB", status: .badInput)
            }
        }
    }

    /// Reads the message to its end, so that the server never waits for whoever writes it.
    private mutating func readBody(_ start: Start) throws(SubmissionSocket.Fault) -> KeptBody {
        var body = KeptBody()
        var part: [UInt8]? = start.body
        while let octets = part {
            do throws(SystemError) { try body.append(octets) } catch { throw Self.unkept(error) }
            part = try self.read()
        }
        return body
    }

    private static func unkept(_ error: SystemError) -> SubmissionSocket.Fault {
        SubmissionSocket.Fault(
            text: "cannot keep the message until all of it is there: \(error.text)", status: .temporary)
    }

    /// The next part of the message; nil at its end.
    private mutating func read() throws(SubmissionSocket.Fault) -> [UInt8]? {
        while true {
            guard !self.dots.isEnded else { return nil }
            let octets: [UInt8]
            do throws(SystemError) { octets = try self.input.read() } catch {
                throw SubmissionSocket.Fault(text: "cannot read the message: \(error.text)", status: .inputError)
            }
            guard !octets.isEmpty else {
                self.dots.finish()
                return nil
            }
            if self.arguments.ignoresDots { return octets }
            let content = self.dots.receive(octets)
            if !content.isEmpty { return content }
        }
    }
}

/// Standard input, in parts.
private struct Input {
    func read() throws(SystemError) -> [UInt8] { try Descriptor.input.read(upTo: 65_536) }
}
