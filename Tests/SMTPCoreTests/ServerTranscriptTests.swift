// SPDX-License-Identifier: Apache-2.0
//
// Conversations with the pure server, read from Transcripts/*.smtp:
//
//     # a comment
//     cuts: no                        run whole only: the transcript is about what comes in one piece
//     auth: clear                     every mechanism is known, and may be used in clear text; tls: only under TLS
//     limits: recipients=2            others: errors, size, line
//     C: what the client says         consecutive lines come in one piece; \n \r \0 \t \\ \xHH are octets
//     c: the same without CR LF       for what is not a line
//     S: what the server replies, in full
//     W: what the world was told      mail, rcpt, content N, commit N, abandon
//     E: idle                         an event: idle, stop, gone
//     S: (closed)
//
// The world knows recipients by their local part: `unknown`, `elsewhere`, `later`; everybody else is local. It takes
// each message, but those from `full@…`.

import Foundation
import MailTypes
import SMTPCore
import Testing

/// The driver's duties without a socket: feeds octets, answers questions, gathers replies.
private struct Peer {
    private var session: ServerSession
    private var input: ServerInput
    private var pending: [UInt8] = []
    private var from: [UInt8] = []
    private var contentCount = 0
    var replies: [String] = []
    var told: [String] = []

    init(limits: ServerLimits, authentication: String) {
        let rules = ServerRules(hostname: Array("mx.example.org".utf8), limits: limits)
        self.session = ServerSession(rules: rules)
        if authentication != "none" {
            self.session.authentication = AuthenticationOffer(
                mechanisms: SASLMechanism.allCases, allowsClearText: authentication == "clear")
        }
        self.input = ServerInput(limits: limits)
        self.perform(self.session.receive(.connected))
    }

    mutating func receive(_ octets: ArraySlice<UInt8>) {
        self.pending += octets
        let pending = self.pending
        var index = 0
        reading: while !self.session.isClosed {
            switch self.input.next(pending.span, at: &index, contentCountMax: .max) {
            case .command(let command):
                let isFollowed = index < pending.count
                self.perform(self.session.receive(.commandReceived(command, isFollowed: isFollowed)))
            case .commandFault(let fault): self.perform(self.session.receive(.commandFaulted(fault)))
            case .response(let range):
                let isFollowed = index < pending.count
                self.perform(self.session.receive(.responseReceived(Array(pending[range]), isFollowed: isFollowed)))
            case .responseFault(let fault): self.perform(self.session.receive(.responseFaulted(fault)))
            case .content(let range): self.contentCount += range.count
            case .contentLineEnd: self.contentCount += 2
            case .contentEnd(let count):
                #expect(count == UInt64(self.contentCount), "the count is that of what was given")
                self.told.append("content \(count)")
                self.perform(self.session.receive(.contentEnded(octetCount: count)))
            case .contentFault(let fault): self.perform(self.session.receive(.contentFaulted(fault)))
            case .hungry: break reading
            }
        }
        self.pending.removeFirst(index)
    }

    mutating func happen(_ event: String) {
        switch event {
        case "idle": self.perform(self.session.receive(.idleLimitReached))
        case "stop": self.perform(self.session.receive(.stopRequested))
        case "gone": self.perform(self.session.receive(.disconnected))
        default: Issue.record("unknown event \(event)")
        }
    }

    private mutating func perform(_ first: ServerSession.Action) {
        var action = first
        while true {
            let verdict: ServerSession.Verdict
            switch action {
            case .wait: return
            case .reply(let reply): return self.say(reply)
            case .abandonThenReply(let reply):
                self.told.append("abandon")
                return self.say(reply)
            case .replyThenClose(let reply):
                self.say(reply)
                return self.replies.append("(closed)")
            case .close: return self.replies.append("(closed)")
            case .receiveResponse(let reply):
                self.input.beginResponse()
                return self.say(reply)
            case .giveUpCredentialsThenReply(let reply):
                self.told.append("give up")
                return self.say(reply)
            case .authenticate(let mechanism, let response):
                self.told.append("auth \(mechanism.rawValue) \(response.map { "[\($0.printableText)]" } ?? "none")")
                guard let response else {
                    action = self.session.receive(.challenged(Array("who?".utf8)))
                    continue
                }
                verdict = Self.judge(response)
            case .respond(let response):
                self.told.append("respond [\(response.printableText)]")
                verdict = Self.judge(response)
            case .startTLS(let reply):
                return self.say(reply)
            case .receiveContent(let reply):
                self.contentCount = 0
                self.input.beginContent()
                return self.say(reply)
            case .checkSender(let path, let parameters):
                self.from = path.octets
                let size = parameters.declaredOctetCount
                self.told.append("mail <\(path.octets.printableText)> \(size) \(parameters.bodyType.rawValue)")
                verdict = .accepted(.senderAccepted)
            case .checkRecipient(let path, let dsn):
                let notify = dsn.notify.map { " notify=\($0.octets.printableText)" } ?? ""
                let original = dsn.originalRecipient.isEmpty ? "" : " orcpt=\(dsn.originalRecipient.printableText)"
                self.told.append("rcpt <\(path.octets.printableText)>\(notify)\(original)")
                verdict = self.judge(path)
            case .verify(let path):
                self.told.append("verify <\(path.octets.printableText)>")
                verdict = .accepted(.cannotVerify)
            case .commit(let octetCount):
                self.told.append("commit \(octetCount)")
                verdict =
                    self.from.starts(with: "full@".utf8)
                    ? .refused(Reply(452, EnhancedStatus(.transient, 3, 1), "Disk full"))
                    : .accepted(.queued(MessageID(rawValue: 7)))
            }
            action = self.session.receive(.verdict(verdict))
        }
    }

    /// `right`, `later`; all else is wrong.
    private static func judge(_ response: [UInt8]) -> ServerSession.Verdict {
        switch response.printableText {
        case "right": .accepted(.authenticated)
        case "later": .refused(.authenticationUnavailable)
        case "often": .refused(.authenticationFailedTooOften)
        default: .refused(.authenticationFailed)
        }
    }

    private func judge(_ path: ForwardPath) -> ServerSession.Verdict {
        guard case .address(let address) = path else { return .accepted(.recipientAccepted) }
        switch address.localPart.printableText {
        case "unknown": return .refused(.recipientUnknown)
        case "elsewhere": return .refused(.relayingDenied(client: .v4(0xC000_0201), domain: address.domain))
        case "later": return .refused(.lookupUnavailable)
        default: return .accepted(.recipientAccepted)
        }
    }

    private mutating func say(_ reply: Reply) {
        let text = String(decoding: reply.octets, as: UTF8.self)
        self.replies += text.components(separatedBy: "\r\n").dropLast()
    }
}

/// One file.
private struct Transcript {
    enum Step {
        case client([UInt8])
        case event(String)
        case server([String])
        case world([String])
    }

    var steps: [Step] = []
    var isCut = true
    var authentication = "none"
    var limits: [String: Int] = ["recipients": 100, "errors": 20, "size": 10_000, "line": 998]

    init(_ text: String) {
        for line in text.components(separatedBy: "\n") where !line.isEmpty && !line.hasPrefix("#") {
            let parts = line.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
            guard parts.count == 2 else {
                Issue.record("not a line of a transcript: \(line)")
                continue
            }
            let value = String(parts[1].drop { $0 == " " })
            switch parts[0] {
            case "auth": self.authentication = value
            case "cuts": self.isCut = value != "no"
            case "limits":
                for word in value.split(separator: " ") {
                    let pair = word.split(separator: "=").map(String.init)
                    self.limits[pair[0]] = Int(pair[1])
                }
            case "C", "c":
                let octets = Self.octets(value) + (parts[0] == "C" ? [13, 10] : [])
                if case .client(let earlier)? = self.steps.last {
                    self.steps[self.steps.count - 1] = .client(earlier + octets)
                } else {
                    self.steps.append(.client(octets))
                }
            case "E": self.steps.append(.event(value))
            case "S":
                if case .server(let earlier)? = self.steps.last {
                    self.steps[self.steps.count - 1] = .server(earlier + [value])
                } else {
                    self.steps.append(.server([value]))
                }
            case "W":
                if case .world(let earlier)? = self.steps.last {
                    self.steps[self.steps.count - 1] = .world(earlier + [value])
                } else {
                    self.steps.append(.world([value]))
                }
            default: Issue.record("not a line of a transcript: \(line)")
            }
        }
    }

    private static func octets(_ text: String) -> [UInt8] {
        var octets: [UInt8] = []
        var rest = Array(text.utf8)[...]
        while let octet = rest.popFirst() {
            guard octet == 0x5C, let letter = rest.popFirst() else {
                octets.append(octet)
                continue
            }
            switch letter {
            case UInt8(ascii: "n"): octets.append(10)
            case UInt8(ascii: "r"): octets.append(13)
            case UInt8(ascii: "t"): octets.append(9)
            case UInt8(ascii: "0"): octets.append(0)
            case UInt8(ascii: "x"):
                octets.append(UInt8(String(decoding: rest.prefix(2), as: UTF8.self), radix: 16) ?? 0x3F)
                rest = rest.dropFirst(2)
            default: octets.append(letter)
            }
        }
        return octets
    }

    /// Runs it with each piece of the client given in pieces of that length.
    func run(_ name: String, pieceLength: Int) {
        var peer = Peer(
            limits: ServerLimits(
                mailOctetCountMax: UInt64(self.limits["size"] ?? 0), recipientCountMax: self.limits["recipients"] ?? 0,
                faultCountMax: self.limits["errors"] ?? 0, commandLineOctetCountMax: 1_024,
                dataLineOctetCountMax: self.limits["line"] ?? 0), authentication: self.authentication)
        for (number, step) in self.steps.enumerated() {
            switch step {
            case .client(let octets):
                var start = 0
                while start < octets.count {
                    let end = min(octets.count, start + pieceLength)
                    peer.receive(octets[start..<end])
                    start = end
                }
            case .event(let event): peer.happen(event)
            case .server(let lines):
                #expect(peer.replies == lines, "\(name), step \(number), pieces of \(pieceLength)")
                peer.replies = []
            case .world(let lines):
                #expect(peer.told == lines, "\(name), step \(number), pieces of \(pieceLength)")
                peer.told = []
            }
        }
        #expect(peer.replies.isEmpty, "\(name): replies that the transcript does not have")
    }
}

@Suite("Transcripts of the server")
struct ServerTranscriptTests {
    private static let directory = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
        .appendingPathComponent("Transcripts")

    static let names =
        (try? FileManager.default.contentsOfDirectory(atPath: directory.path))?
        .filter { $0.hasPrefix("server-") && $0.hasSuffix(".smtp") }.sorted() ?? []

    @Test("the transcripts are there")
    func present() { #expect(Self.names.count >= 10) }

    @Test("the server says what the transcript says, however the octets are cut", arguments: names)
    func transcript(name: String) throws {
        let text = try String(contentsOf: Self.directory.appendingPathComponent(name), encoding: .utf8)
        let transcript = Transcript(text)
        #expect(!transcript.steps.isEmpty)
        transcript.run(name, pieceLength: .max)
        guard transcript.isCut else { return }
        for length in 1...17 { transcript.run(name, pieceLength: length) }
    }
}
