// SPDX-License-Identifier: Apache-2.0

import MailTypes
import SMTPCore

/// A client that sends what it likes, against the command parser and the session, as the driver joins them.
struct ServerBody {
    private static let limits = ServerLimits(
        mailOctetCountMax: 400, recipientCountMax: 3, faultCountMax: 20, commandLineOctetCountMax: 512,
        dataLineOctetCountMax: 100)
    private static let rules = ServerRules(hostname: Array("mx.example.org".utf8), limits: Self.limits)

    private var script: FuzzScript
    private var input = ServerInput(limits: Self.limits)
    private var session = ServerSession(rules: Self.rules, tls: .offered)
    private var isSecured = false
    /// What the outside knows of the mail under way.
    private var hasSender = false
    private var isUnicode = false
    private var acceptedCount = 0
    private var contentOctetCount = 0
    /// Commands, so that each gets one reply.
    private var replyCount = 0
    private var commandCount = 0

    static func run(_ script: inout FuzzScript) throws(Breach) {
        var body = ServerBody(script: script)
        body.session.authentication = AuthenticationOffer(
            mechanisms: SASLMechanism.allCases, allowsClearText: true, hasBinding: true, hasCertificate: true)
        try body.perform(body.session.receive(.connected))
        body.commandCount += 1
        var buffer: [UInt8] = []
        var index = 0
        for piece in body.script.pieces() {
            guard !body.session.isClosed else { break }
            buffer.removeFirst(index)
            index = 0
            buffer += piece
            try body.advance(buffer, &index)
            guard body.input.isInContent || buffer.count - index < SASLLimits.lineOctetCountMax + 600 else {
                throw Breach(text: "a line is hoarded")
            }
            switch body.script.next(64) {
            case 1: try body.perform(body.session.receive(.stopRequested))
            case 2: try body.perform(body.session.receive(.idleLimitReached))
            default: break
            }
        }
        if !body.session.isClosed {
            // DATA has its reply after the final dot.
            let owed = body.input.isInContent ? 1 : 0
            try hold(
                body.replyCount + owed == body.commandCount,
                "\(body.commandCount) commands, \(body.replyCount) replies")
            try body.perform(body.session.receive(.disconnected))
        }
        try hold(body.session.receive(.stopRequested) == .wait, "an action after the close")
    }

    private init(script: FuzzScript) { self.script = script }

    private mutating func advance(_ buffer: [UInt8], _ index: inout Int) throws(Breach) {
        while !self.session.isClosed {
            let before = index
            let token = self.input.next(buffer.span, at: &index, contentCountMax: 2 + self.script.next(40))
            try hold(index >= before && index <= buffer.count, "the index went astray")
            switch token {
            case .hungry: return
            case .command(let command):
                self.commandCount += 1
                try Self.check(command)
                let isFollowed = index < buffer.count
                try self.perform(self.session.receive(.commandReceived(command, isFollowed: isFollowed)))
            case .commandFault(let fault):
                self.commandCount += 1
                try self.perform(self.session.receive(.commandFaulted(fault)))
            case .response(let range):
                self.commandCount += 1
                let isFollowed = index < buffer.count
                try self.perform(
                    self.session.receive(.responseReceived(Array(buffer[range]), isFollowed: isFollowed)))
            case .responseFault(let fault):
                self.commandCount += 1
                try self.perform(self.session.receive(.responseFaulted(fault)))
            case .content(let range):
                try hold(!range.isEmpty && range.upperBound <= buffer.count, "no progress in content")
                self.contentOctetCount += range.count
                try hold(self.contentOctetCount <= 400 + 42, "content above the limit was given")
            case .contentLineEnd:
                self.contentOctetCount += 2
            case .contentEnd(let octetCount):
                try hold(octetCount == UInt64(self.contentOctetCount), "content was lost")
                try self.perform(self.session.receive(.contentEnded(octetCount: octetCount)))
            case .contentFault(let fault):
                try self.perform(self.session.receive(.contentFaulted(fault)))
            }
        }
    }

    /// What the parser accepts, it accepts again.
    private static func check(_ command: Command) throws(Breach) {
        switch command {
        case .mail(let path, _):
            try hold(ReversePath(octets: path.octets, alphabet: .unicode) == path, "a reverse-path does not survive")
            try Self.checkText(path.octets)
        case .recipient(let path, let dsn):
            try hold(ForwardPath(octets: path.octets, alphabet: .unicode) == path, "a forward-path does not survive")
            try Self.checkText(path.octets)
            if let notify = dsn.notify {
                try hold(NotifyConditions(octets: notify.octets) == notify, "NOTIFY does not survive")
            }
            if !dsn.originalRecipient.isEmpty {
                try hold(
                    RecipientDSN.isOriginalRecipient(dsn.originalRecipient, allowsUnicode: true),
                    "ORCPT does not survive")
                if let ascii = RecipientDSN.asciiOriginalRecipient(dsn.originalRecipient) {
                    try hold(RecipientDSN.isOriginalRecipient(ascii), "ORCPT does not become ASCII")
                    let kept = RecipientDSN(originalRecipient: ascii)
                    try hold(kept.reportedOriginal(isCoded: true)?.allSatisfy(\.isPrintable) == true, "ORCPT is lost")
                    if let told = kept.reportedOriginal(isCoded: false) { try Self.checkText(told) }
                }
            }
        case .verify(.some(let path)):
            try hold(ForwardPath(octets: path.octets, alphabet: .unicode) == path, "a forward-path does not survive")
            try Self.checkText(path.octets)
        case .hello(let name), .extendedHello(let name):
            try hold(!name.isEmpty && name.count <= 255, "a name has \(name.count) octets")
        case .authenticate(let name, _): try hold(!name.isEmpty && name.count <= 20, "a mechanism without limit")
        case .data, .reset, .noOperation, .quit, .verify, .expand, .help, .startTLS: break
        }
    }

    /// Nothing in an address steers a terminal, or is no text.
    private static func checkText(_ octets: [UInt8]) throws(Breach) {
        try hold(octets.isASCII || octets.isAddressText, "an address is no text")
        try hold(octets.allSatisfy { $0.isPrintable || $0 >= 0x80 }, "an address has control characters")
    }

    private mutating func perform(_ action: ServerSession.Action) throws(Breach) {
        switch action {
        case .reply(let reply): try self.send(reply)
        case .abandonThenReply(let reply):
            self.forget()
            try self.send(reply)
        case .replyThenClose(let reply):
            try self.send(reply)
            try hold(self.session.isClosed, "open after the close")
        case .checkSender(let path, let parameters):
            try hold(!path.isInternational || parameters.isUnicode, "an address in UTF-8 without SMTPUTF8")
            self.isUnicode = parameters.isUnicode
            let verdict = self.verdict()
            if case .accepted = verdict { self.hasSender = true }
            try self.perform(self.session.receive(.verdict(verdict)))
        case .checkRecipient(let path, let dsn):
            try hold(self.hasSender, "RCPT without MAIL")
            try hold(!path.isInternational || self.isUnicode, "an address in UTF-8 without SMTPUTF8")
            try hold(dsn.originalRecipient.isASCII, "ORCPT is passed on in UTF-8")
            let verdict = self.verdict()
            if case .accepted = verdict { self.acceptedCount += 1 }
            try hold(self.acceptedCount <= 3, "too many recipients")
            try self.perform(self.session.receive(.verdict(verdict)))
        case .verify: try self.perform(self.session.receive(.verdict(self.verdict())))
        case .authenticate, .respond:
            try hold(!self.hasSender, "AUTH within a mail")
            try self.perform(
                self.session.receive(
                    self.script.next(3) == 1 ? .challenged(Array("who?".utf8)) : .verdict(self.verdict())))
        case .receiveResponse(let reply):
            try hold(reply.code == 334, "a response was asked for with \(reply.code)")
            try self.send(reply)
            self.input.beginResponse()
        case .giveUpCredentialsThenReply(let reply): try self.send(reply)
        case .startTLS(let reply):
            try hold(!self.isSecured && !self.hasSender, "TLS where it cannot begin")
            try self.send(reply)
            try hold(!self.session.isOpenToInput, "input in the middle of a handshake")
            self.isSecured = self.script.next(4) != 1
            try self.perform(self.session.receive(self.isSecured ? .secured : .handshakeFailed))
            try hold(self.session.isClosed || !self.session.isExtended, "EHLO is remembered over TLS")
        case .receiveContent(let reply):
            try hold(self.hasSender && self.acceptedCount > 0, "DATA without recipients")
            try hold(reply.code == 354, "content was asked for with \(reply.code)")
            // 354 is no reply yet: the one to the final dot is.
            self.input.beginContent()
            self.contentOctetCount = 0
        case .commit:
            try hold(self.hasSender && self.acceptedCount > 0, "a commit of nothing")
            self.forget()
            try self.perform(self.session.receive(.verdict(self.verdict())))
        case .close, .wait: break
        }
    }

    private mutating func forget() {
        self.hasSender = false
        self.acceptedCount = 0
    }

    private mutating func verdict() -> ServerSession.Verdict {
        switch self.script.next(8) {
        case 1: .refused(Reply(550, EnhancedStatus(.permanent, 1, 1), "no such user"))
        case 2: .refused(Reply(451, EnhancedStatus(.transient, 3, 0), "later"))
        case 3: .refused(Reply(421, EnhancedStatus(.transient, 3, 2), "closing"))
        default: .accepted(Reply(250, EnhancedStatus(.success, 0, 0), "ok"))
        }
    }

    private mutating func send(_ reply: Reply) throws(Breach) {
        self.replyCount += 1
        let octets = reply.octets
        try hold(octets.suffix(2).elementsEqual([13, 10]), "a reply without its end")
        try hold(octets.count { $0 == 10 } == reply.lines.count, "a reply with a line too many")
    }
}
