// SPDX-License-Identifier: Apache-2.0

import MailTypes
import SMTPCore
import Testing

private func octets(_ text: String) -> [UInt8] { Array(text.utf8) }

/// A session that has said EHLO and is ready for a message.
private struct Talk {
    private var session: ClientSession

    init(_ keywords: [String], isLMTP: Bool = false) {
        self.session = ClientSession(helloName: octets("c"), peerName: octets("mx"), isLMTP: isLMTP)
        _ = self.session.receive(.connected)
        _ = self.hear(220, "mx")
        #expect(self.hear(250, (["mx"] + keywords).joined(separator: "\n")) == .announceReady)
    }

    mutating func hear(_ code: UInt16, _ text: String = "ok") -> ClientSession.Action {
        self.session.receive(.replied(PeerReply(code: code, status: nil, text: octets(text))))
    }

    mutating func begin(_ from: String, _ to: [String], _ unicode: UnicodeDemand = .none) throws -> ClientSession.Action
    {
        self.session.receive(
            .begin(
                ClientSession.Transaction(
                    reversePath: try #require(ReversePath(octets: octets(from), alphabet: .unicodeLocalPart)),
                    recipients: try to.map {
                        try #require(ForwardPath(octets: octets($0), alphabet: .unicodeLocalPart))
                    }, octetCount: 9, bodyType: .sevenBit, unicode: unicode)))
    }

    mutating func sent() -> ClientSession.Action { self.session.receive(.contentSent) }
}

/// The statuses of a conclusion, "-" for a recipient without a verdict; nil if it is none.
private func statuses(_ action: ClientSession.Action) -> [String]? {
    guard case .conclude(let conclusion) = action else { return nil }
    return conclusion.verdicts.map { $0.map { "\($0.kind.rawValue) \($0.status.octets.printableText)" } ?? "-" }
}

@Suite("A client and internationalised mail (RFC 6531)")
struct ClientUnicodeTests {
    @Test(
        "MAIL says SMTPUTF8 where it is offered, if it was asked for or an address needs it",
        arguments: [
            ("a@b.example", "c@d.example", UnicodeDemand.none, false), ("a@b.example", "c@d.example", .asked, true),
            ("a@b.example", "c@d.example", .inHeader, true), ("ä@b.example", "c@d.example", .none, true),
            ("a@b.example", "ç@d.example", .none, true), ("", "ç@d.example", .asked, true),
        ])
    func parameter(from: String, to: String, unicode: UnicodeDemand, isSaid: Bool) throws {
        var talk = Talk(["SMTPUTF8"])
        let word = isSaid ? " SMTPUTF8" : ""
        #expect(try talk.begin(from, [to], unicode) == .send(octets("MAIL FROM:<\(from)>\(word)\r\n")))
        #expect(talk.hear(250) == .send(octets("RCPT TO:<\(to)>\r\n")))
    }

    @Test(
        "a server without it is told ASCII alone: who needs more fails, and the others get their mail",
        arguments: [true, false])
    func skipped(isPipelined: Bool) throws {
        var talk = Talk(isPipelined ? ["PIPELINING"] : [])
        let all = ["ä@b.example", "c@d.example", "é@b.example", "e@f.example", "ü@b.example"]
        let first = try talk.begin("a@b.example", all)
        let lines = ["MAIL FROM:<a@b.example>", "RCPT TO:<c@d.example>", "RCPT TO:<e@f.example>", "DATA"]
        if isPipelined {
            #expect(first == .send(octets(lines.map { $0 + "\r\n" }.joined())))
            for _ in 0..<3 { #expect(talk.hear(250) == .wait) }
        } else {
            #expect(first == .send(octets(lines[0] + "\r\n")))
            for line in lines[1...] { #expect(talk.hear(250) == .send(octets(line + "\r\n"))) }
        }
        #expect(talk.hear(354) == .sendContent)
        #expect(talk.sent() == .wait)
        let failed = "failed 5.6.7"
        #expect(statuses(talk.hear(250)) == [failed, "delivered 2.0.0", failed, "delivered 2.0.0", failed])
        // Nothing is left of it for the next message.
        #expect(try talk.begin("a@b.example", ["c@d.example"]) != .wait)
    }

    @Test("a refusal of MAIL behind recipients that are not told has the replies it waits for")
    func refused() throws {
        var talk = Talk(["PIPELINING"])
        _ = try talk.begin("a@b.example", ["ä@b.example", "c@d.example", "e@f.example"])
        #expect(talk.hear(550, "no") == .wait)
        #expect(talk.hear(503) == .wait)
        #expect(talk.hear(503) == .wait)
        #expect(statuses(talk.hear(503)) == ["failed 5.6.7", "failed 5.0.0", "failed 5.0.0"])
    }

    @Test(
        "what concerns all recipients is told of all, and nothing is sent",
        arguments: [
            ("ä@b.example", UnicodeDemand.none, "failed 5.6.7"), ("ä@b.example", .inHeader, "failed 5.6.7"),
            ("a@b.example", .inHeader, "failed 5.6.9"),
        ])
    func nothing(from: String, unicode: UnicodeDemand, verdict: String) throws {
        var talk = Talk(["PIPELINING"])
        #expect(statuses(try talk.begin(from, ["c@d.example", "e@f.example"], unicode)) == [verdict, verdict])
        // The connection is as good as before.
        #expect(statuses(try talk.begin("a@b.example", ["c@d.example"], .asked)) == nil)
    }

    @Test("a header beyond ASCII goes to a mailbox by LMTP all the same, an address does not")
    func lmtp() throws {
        var talk = Talk([], isLMTP: true)
        #expect(
            try talk.begin("a@b.example", ["c@d.example"], .inHeader) == .send(octets("MAIL FROM:<a@b.example>\r\n")))
        var other = Talk([], isLMTP: true)
        #expect(statuses(try other.begin("a@b.example", ["ç@d.example"], .inHeader)) == ["failed 5.6.7"])
    }
}
