// SPDX-License-Identifier: Apache-2.0

import MailTypes
import SMTPCore

/// A server that says what it likes, against the reply parser and the client's session.
struct ReplyBody {
    private static let limits = ReplyParser.Limits(lineOctetCountMax: 120, lineCountMax: 8, textOctetCountMax: 300)

    private var script: FuzzScript
    private var session: ClientSession
    private var isUnderWay = false
    private var hasSentContent = false
    private var recipientCount = 0
    private var isClosed = false

    static func run(_ script: inout FuzzScript) throws(Breach) {
        let whole = Self.parse([script.stream[...]])
        let pieces = script.pieces()
        let cut = Self.parse(pieces)
        try hold(
            whole.replies == cut.replies && whole.fault == cut.fault && whole.broken == cut.broken,
            "other replies at other cuts")
        for reply in whole.replies + (whole.broken.map { [$0] } ?? []) {
            try hold((200...599).contains(reply.code), "a reply with \(reply.code)")
            try hold(reply.text.count <= 300, "a reply text of \(reply.text.count)")
            try hold(reply.text.allSatisfy { $0.isPrintable || $0 == 10 }, "a reply that is not printable")
        }
        var body = ReplyBody(script: script)
        try body.converse(whole)
    }

    private init(script: FuzzScript) {
        self.script = script
        self.session = ClientSession(
            helloName: Array("us.example".utf8), peerName: Array("mx.example".utf8), encryption: .opportunistic,
            isAuthenticating: script.stream.count % 2 == 1)
    }

    /// What a parser has made of what the server sent.
    private struct Parsed {
        var replies: [PeerReply]
        var fault: ReplyFault?
        var broken: PeerReply?
    }

    private static func parse(_ pieces: [ArraySlice<UInt8>]) -> Parsed {
        var parser = ReplyParser(limits: Self.limits)
        var replies: [PeerReply] = []
        for piece in pieces {
            let octets = Array(piece)
            var index = 0
            do throws(ReplyFault) {
                while let reply = try parser.next(octets.span, from: &index) { replies.append(reply) }
            } catch {
                return Parsed(replies: replies, fault: error, broken: parser.broken)
            }
        }
        return Parsed(replies: replies)
    }

    private mutating func converse(_ parsed: Parsed) throws(Breach) {
        try self.feed(.connected)
        for reply in parsed.replies {
            try self.feed(.replied(reply))
            switch self.script.next(40) {
            case 1: try self.feed(.timedOut)
            case 2 where !self.isUnderWay: try self.feed(.quit)
            case 3:
                // Late, or at a time when no content is wanted, which must change nothing.
                if self.session.stage == .content { self.hasSentContent = true }
                try self.feed(.contentSent)
            case 4: try self.begin()
            default: break
            }
            if self.session.isReady, !self.isUnderWay { try self.begin() }
        }
        if let fault = parsed.fault { try self.feed(.replyFaulted(fault, parsed.broken)) }
        try self.feed(.disconnected)
        try self.feed(.quit)
        try hold(!self.isUnderWay, "a transaction has no conclusion")
        try hold(self.session.receive(.timedOut) == .wait, "an action after the end")
    }

    private mutating func begin() throws(Breach) {
        guard !self.isUnderWay, !self.isClosed else { return }
        let recipients = (0...self.script.next(3)).compactMap { number in
            let name = self.script.next(3) == 0 ? "r\(number)é" : "r\(number)"
            return ForwardPath(octets: Array("\(name)@example.org".utf8), alphabet: .unicodeLocalPart)
        }
        self.recipientCount = recipients.count
        self.isUnderWay = true
        self.hasSentContent = false
        try self.feed(
            .begin(
                ClientSession.Transaction(
                    reversePath: .null, recipients: recipients, octetCount: 1_000,
                    bodyType: self.script.next(2) == 0 ? .sevenBit : .eightBitMIME,
                    unicode: UnicodeDemand.allCases[self.script.next(3)])))
    }

    private mutating func feed(_ event: ClientSession.Event) throws(Breach) {
        switch self.session.receive(event) {
        case .wait, .announceReady: break
        case .send(let octets):
            try hold(octets.suffix(2).elementsEqual([13, 10]), "a command without its end")
            try hold(octets.isASCII || self.session.capabilities.hasUnicode, "UTF-8 for a server without SMTPUTF8")
        case .startTLS:
            try hold(!self.isUnderWay && !self.session.isSecured, "TLS where it cannot begin")
            try self.feed(self.script.next(4) == 1 ? .handshakeFailed("no") : .secured)
            if self.session.isSecured { try hold(self.session.capabilities == Capabilities(), "capabilities are kept") }
        case .seekProof, .passChallenge:
            try hold(!self.isUnderWay, "an exchange of credentials within a message")
            let isLast = self.script.next(2) == 0
            try self.feed(
                .proved(
                    self.script.next(5) == 4
                        ? .none("no") : .response(.plain, self.script.next(3) == 0 ? nil : [0, 1, 2], isLast: isLast)))
        case .sendContent:
            try hold(self.isUnderWay && !self.hasSentContent, "content without a transaction")
            if self.script.next(5) != 4 {
                self.hasSentContent = true
                try self.feed(.contentSent)
            }
        case .conclude(let conclusion):
            try self.check(conclusion)
            self.isUnderWay = false
        case .close: self.isClosed = true
        }
    }

    private func check(_ conclusion: ClientSession.Conclusion) throws(Breach) {
        guard self.isUnderWay else {
            try hold(conclusion.verdicts.isEmpty, "verdicts without a transaction")
            return
        }
        let count = conclusion.verdicts.count
        try hold(count == self.recipientCount, "\(count) verdicts for \(self.recipientCount) recipients")
        try hold(conclusion.failure != nil || !conclusion.verdicts.contains(nil), "a recipient without a word")
        for case let verdict? in conclusion.verdicts where verdict.kind == .delivered {
            try hold(self.hasSentContent, "delivered before the content was sent")
        }
        for outcome in conclusion.verdicts + [conclusion.failure] {
            try hold(outcome?.text.count ?? 0 <= DeliveryOutcome.textOctetCountMax, "an outcome that is too long")
        }
    }
}
