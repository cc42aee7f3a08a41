// SPDX-License-Identifier: Apache-2.0

import MailTypes
import SMTPCore
import Testing

private let limits = ReplyParser.Limits(lineOctetCountMax: 100, lineCountMax: 5, textOctetCountMax: 60)

/// What a parser makes of octets that come in these parts: the replies before the end or the fault.
private func parse(_ parts: [ArraySlice<UInt8>]) -> (replies: [PeerReply], fault: ReplyFault?) {
    var parser = ReplyParser(limits: limits)
    var replies: [PeerReply] = []
    do throws(ReplyFault) {
        for part in parts {
            var index = 0
            while let reply = try parser.next(part.span, from: &index) { replies.append(reply) }
        }
    } catch { return (replies, error) }
    return (replies, nil)
}

/// The same octets whole, octet by octet, and at every cut; all must agree.
private func parseEveryWay(
    _ text: String, sourceLocation: SourceLocation = #_sourceLocation
) -> (replies: [PeerReply], fault: ReplyFault?) {
    let octets = Array(text.utf8)
    let whole = parse([octets[...]])
    var ways = [octets.indices.map { octets[$0...$0] }]
    for cut in octets.indices { ways.append([octets[..<cut], octets[cut...]]) }
    for way in ways {
        let other = parse(way)
        #expect(other.replies == whole.replies && other.fault == whole.fault, sourceLocation: sourceLocation)
    }
    return whole
}

private func reply(_ code: UInt16, _ status: String?, _ text: String) -> PeerReply {
    PeerReply(
        code: code, status: status.flatMap { EnhancedStatus(octets: Array($0.utf8)) }, text: Array(text.utf8))
}

@Suite("Replies of servers")
struct ClientReplyTests {
    @Test(
        "a well-formed reply is read, however it is cut",
        arguments: [
            ("250 OK\r\n", reply(250, nil, "OK")),
            ("250\r\n", reply(250, nil, "")),
            ("250 \r\n", reply(250, nil, "")),
            ("250 OK\n", reply(250, nil, "OK")),
            ("250 2.1.0 Sender ok\r\n", reply(250, "2.1.0", "Sender ok")),
            ("550 5.1.1\r\n", reply(550, "5.1.1", "")),
            ("550 5.7.509 no\r\n", reply(550, "5.7.509", "no")),
            ("550-5.1.1 No such\r\n550 5.1.1 user\r\n", reply(550, "5.1.1", "No such\nuser")),
            ("250-a\r\n250-\r\n250 c\r\n", reply(250, nil, "a\n\nc")),
            ("250-a\r\n251 b\r\n", reply(251, nil, "a\nb")),
            ("250-2.0.0 a\r\n251-2.1.0 b\r\n252 c\r\n", reply(252, "2.0.0", "a\nb\nc")),
            ("450 5.1.1 class does not fit\r\n", reply(450, nil, "5.1.1 class does not fit")),
            ("250 2.0 short\r\n", reply(250, nil, "2.0 short")),
            ("250 2.0.0x glued\r\n", reply(250, nil, "2.0.0x glued")),
            ("250 2.0.1234 long\r\n", reply(250, nil, "2.0.1234 long")),
            ("220 gr\u{e9}\u{7}\t\rx\r\n", reply(220, nil, "gr?????x")),
        ])
    func wellFormed(_ text: String, _ expected: PeerReply) {
        let (replies, fault) = parseEveryWay(text)
        #expect(replies == [expected])
        #expect(fault == nil)
    }

    @Test("several replies in one read come out one after the other")
    func several() {
        let (replies, fault) = parseEveryWay("250 a\r\n354-b\r\n354 c\r\n421 d\r\n")
        #expect(replies.map(\.code) == [250, 354, 421])
        #expect(fault == nil)
    }

    @Test(
        "a malformed reply is a fault, however it is cut",
        arguments: [
            ("hello\r\n", ReplyFault.noReplyCode),
            ("\r\n", .noReplyCode),
            ("25\r\n", .noReplyCode),
            ("150 no\r\n", .noReplyCode),
            ("650 no\r\n", .noReplyCode),
            ("250x\r\n", .noReplyCode),
            ("2500 x\r\n", .noReplyCode),
            ("250-a\r\n450 b\r\n", .codesDiffer),
            ("250-1\r\n250-2\r\n250-3\r\n250-4\r\n250-5\r\n250 6\r\n", .tooManyLines),
            ("250 " + String(repeating: "x", count: 97) + "\r\n", .lineTooLong),
        ])
    func malformed(_ text: String, _ expected: ReplyFault) {
        let (replies, fault) = parseEveryWay(text)
        #expect(replies.isEmpty)
        #expect(fault == expected)
    }

    @Test(
        "a malformed reply has said what its first digits say, unless they contradict each other",
        arguments: [
            ("250-1\r\n250-2\r\n250-3\r\n250-4\r\n250-5\r\n250 6\r\n", 250),
            ("250 " + String(repeating: "x", count: 98) + "\r\n", 250),
            ("550-a\r\n551 " + String(repeating: "x", count: 200), 551),
            ("250-a\r\nqueued\r\n", 250),
            ("250-a\r\n550 " + String(repeating: "x", count: 200), nil),
            ("250-a\r\n550 b\r\n", nil), ("hello\r\n", nil), (String(repeating: "2", count: 200), nil),
        ] as [(String, UInt16?)])
    func broken(_ text: String, _ code: UInt16?) {
        let octets = Array(text.utf8)
        for size in [1, 50, octets.count] {
            var parser = ReplyParser(limits: limits)
            var rest = octets[...]
            #expect(throws: ReplyFault.self) {
                while !rest.isEmpty {
                    var index = 0
                    _ = try parser.next(Array(rest.prefix(size)).span, from: &index)
                    rest = rest.dropFirst(size)
                }
            }
            #expect(parser.broken?.code == code, "\(size) at once")
        }
    }

    @Test("a line that never ends is given up at the limit")
    func endlessLine() {
        let part = Array(repeating: UInt8(ascii: "2"), count: 60)[...]
        #expect(parse([part, part]).fault == .lineTooLong)
    }

    @Test("the longest line is taken, and text beyond the limit is cut")
    func longestLine() {
        let (replies, fault) = parseEveryWay("250 " + String(repeating: "x", count: 96) + "\r\n250 y\r\n")
        #expect(fault == nil)
        #expect(replies.map(\.text.count) == [60, 1])
    }

    @Test("EHLO keywords are read in any case, and what is malformed is passed over")
    func capabilities() {
        let answer = reply(250, nil, "mx greets\npipelining\n8bitMIME\nSIZE 1000\nX-UNKNOWN 1 2\n\n SIZE x")
        var expected = Capabilities()
        expected.hasPipelining = true
        expected.hasEightBitMIME = true
        expected.sizeMax = 0
        #expect(Capabilities(answer) == expected)
        #expect(Capabilities(reply(250, nil, "PIPELINING")) == Capabilities())
        #expect(Capabilities(reply(250, nil, "a\nSIZE 1000")).sizeMax == 1000)
        #expect(Capabilities(reply(250, nil, "a\nSIZE=1000")).sizeMax == 1000)
        #expect(Capabilities(reply(250, nil, "a\nSIZE")).sizeMax == 0)
        #expect(Capabilities(reply(250, nil, "a\nSIZE 99999999999999999999999")).sizeMax == 0)
    }
}
