// SPDX-License-Identifier: Apache-2.0

import MailTypes
import PipeCore
import Testing

/// Feeds octets to a fresh decoder in the given parts and returns what came out, the fault included.
private func decode(_ parts: [ArraySlice<UInt8>]) -> (frames: [Frame], fault: FrameFault?, isCut: Bool) {
    var decoder = FrameDecoder()
    var frames: [Frame] = []
    for part in parts {
        decoder.append(Array(part))
        do throws(FrameFault) {
            while let frame = try decoder.next() { frames.append(frame) }
        } catch { return (frames, error, false) }
    }
    return (frames, nil, decoder.isInsideFrame)
}

/// One of every frame that any dialect has.
private func everyFrame() throws -> [UInt8] {
    var octets: [UInt8] = []
    let id = MessageID(rawValue: 1_795_446_231_123_456)
    let from = try #require(ReversePath(octets: Array("a@example.org".utf8)))
    let jörg = try #require(ReversePath(octets: Array("jörg@a.example".utf8), alphabet: .unicodeLocalPart))
    let to = try #require(ForwardPath(octets: Array("\"b c\"@example.net".utf8)))
    let route = try #require(Route(octets: Array("remote:example.net".utf8)))
    let outcome = DeliveryOutcome(
        .failed, code: 550, status: EnhancedStatus(.permanent, 1, 1), reporter: "mx.example.net",
        text: "no such user, really: 3:abc,")
    Hello(.submit, program: "test", capacity: 7).append(to: &octets)
    for request: SubmitRequest in [
        .mail(MailRequest(reversePath: from, bodyType: .eightBitMIME, declaredSize: 12, trace: Array("client=x".utf8))),
        .mail(
            MailRequest(
                reversePath: from, bodyType: .sevenBit, declaredSize: 0, trace: [],
                dsn: MessageDSN(returned: .full, envelopeID: Array("id+2B".utf8)))),
        .mail(MailRequest(reversePath: from, bodyType: .sevenBit, declaredSize: 0, trace: [], isVERP: true)),
        .mail(MailRequest(reversePath: jörg, bodyType: .sevenBit, declaredSize: 0, trace: [], unicode: .asked)),
        .mail(
            MailRequest(
                reversePath: jörg, bodyType: .sevenBit, declaredSize: 0, trace: [], unicode: .inHeader, isVERP: true)),
        .commit(CommitRequest(octetCount: 11, prefix: [], suffix: [], hasUnicodeHeader: true)),
        .rcpt(to, RecipientDSN(notify: .never)),
        .rcpt(to, RecipientDSN(originalRecipient: Array("rfc822;a@b".utf8))),
        .rcpt(to), .data(Array("one,two:3\r\n".utf8)[...]), .abort,
        .commit(CommitRequest(octetCount: 11, prefix: Array("Received: id ".utf8), suffix: Array("; date\r\n".utf8))),
    ] { request.append(to: &octets, channel: 4_000_000_000) }
    for answer: SubmitAnswer in [
        .more(65_536), .queued(id), .refused(Refusal(452, EnhancedStatus(.transient, 3, 1), "full")),
    ] {
        answer.append(to: &octets, channel: 3)
    }
    for request: DeliverRequest in [
        .deliver(
            Delivery(
                id: id, reversePath: .null, octetCount: 99, bodyType: .sevenBit, route: route,
                arrival: Timestamp(microseconds: 5))),
        .deliver(
            Delivery(
                id: id, reversePath: .null, octetCount: 99, bodyType: .sevenBit, route: .bounce,
                arrival: Timestamp(microseconds: 5), dsn: MessageDSN(returned: .headers),
                trace: Array("client=x".utf8))),
        .deliver(
            Delivery(
                id: id, reversePath: jörg, octetCount: 99, bodyType: .sevenBit, route: route,
                arrival: Timestamp(microseconds: 5), unicode: .inHeader)),
        .rcpt(
            DeliveryRecipient(
                number: 2, forwardPath: to, originalForwardPath: nil,
                dsn: RecipientDSN(notify: [.success, .delay], originalRecipient: Array("rfc822;a@b".utf8)))),
        .fate(
            RecipientFate(
                number: 2, action: .delayed,
                outcome: DeliveryOutcome(
                    .deferred, code: 0, status: EnhancedStatus(.transient, 4, 1), reporter: "mx", text: "later"),
                lastAttempt: Timestamp(microseconds: 77), retryLimit: Timestamp(microseconds: 99))),
        .rcpt(DeliveryRecipient(number: 0, forwardPath: to, originalForwardPath: .postmaster)),
        .rcpt(DeliveryRecipient(number: 1, forwardPath: .postmaster, originalForwardPath: nil)),
        .fate(RecipientFate(number: 0, outcome: outcome, lastAttempt: Timestamp(microseconds: 77))), .go,
        .owed(number: 7), .noted,
    ] { request.append(to: &octets, channel: 12) }
    var passedOn = DeliveryOutcome(
        .delivered, code: 250, status: EnhancedStatus(.success, 0, 0), reporter: "mx", text: "ok")
    passedOn.hasPassedOnDSN = true
    var answered = DeliveryOutcome(
        .deferred, code: 451, status: EnhancedStatus(.transient, 3, 0), reporter: "mx", text: "later")
    answered.hasAnswered = true
    for answer: DeliverAnswer in [
        .want(offset: 1 << 40, octetCount: 65_536), .outcome(number: 1, outcome), .outcome(number: 2, passedOn),
        .outcome(number: 6, answered),
        .forward(number: 3, Forward(.null, .postmaster)), .forward(number: 4, Forward(.null, .postmaster, .name)),
        .forward(number: 5, Forward(.null, .postmaster, .address, isVERP: true)), .done,
    ] {
        answer.append(to: &octets, channel: 12)
    }
    for question: AskQuestion in [.check(to), .resolve(.postmaster, .address), .resolve(to, .user)] {
        question.append(to: &octets, channel: 1)
    }
    for answer: AskAnswer in [
        .local, .remote, .unknown(EnhancedStatus(.permanent, 1, 1), text: Array("no".utf8)),
        .later(text: Array("busy".utf8)),
        .target(to, route), .resolved(count: 1),
    ] { answer.append(to: &octets, channel: 1) }
    return octets
}

@Suite struct FrameTests {
    @Test("the same frames come out however the octets were cut")
    func everyCut() throws {
        let octets = try everyFrame()
        let whole = decode([octets[...]])
        #expect(whole.fault == nil && !whole.isCut && whole.frames.count == 44)
        let singly = decode(octets.indices.map { octets[$0...$0] })
        #expect(singly.frames == whole.frames)
        for cut in octets.indices {
            let halves = decode([octets[..<cut], octets[cut...]])
            #expect(halves.frames == whole.frames, "cut at \(cut)")
        }
    }

    @Test("a report to the postmaster is known by how its trace begins, not by words of a client in it")
    func postmastersReports() {
        for (trace, isOne) in [
            ("report to postmaster of 001k", true), ("forwarded 001k report to postmaster", true),
            ("client=192.0.2.1 helo=report to postmaster session=1", false), ("uid=0 report to postmaster", false),
            ("forwarded 001k", false), ("forwarded 001k client=192.0.2.1 helo=report to postmaster", false),
            ("", false),
        ] { #expect(MailRequest.isPostmastersReport(Array(trace.utf8)) == isOne, "\(trace)") }
    }

    @Test("a stream that ends inside a frame is known to be cut, at every octet")
    func truncation() throws {
        var octets: [UInt8] = []
        SubmitRequest.rcpt(.postmaster).append(to: &octets, channel: 1)
        for end in 1..<octets.count {
            let result = decode([octets[..<end]])
            #expect(result.frames.isEmpty && (result.isCut || result.fault != nil))
        }
        #expect(!decode([octets[...]]).isCut)
    }

    @Test("what every dialect writes it reads back")
    func roundTrips() throws {
        let octets = try everyFrame()
        var again: [UInt8] = []
        for frame in decode([octets[...]]).frames {
            switch frame.verb {
            case .hello: try Hello(frame).append(to: &again)
            case .mail, .rcpt, .data, .commit, .abort:
                if frame.verb == .rcpt, frame.channel == 12 { fallthrough }
                try SubmitRequest(frame).append(to: &again, channel: frame.channel)
            case .deliver, .fate, .go, .owed, .noted:
                try DeliverRequest(frame).append(to: &again, channel: frame.channel)
            case .more, .queued, .refused: try SubmitAnswer(frame).append(to: &again, channel: frame.channel)
            case .want, .outcome, .forward, .done: try DeliverAnswer(frame).append(to: &again, channel: frame.channel)
            case .check, .resolve: try AskQuestion(frame).append(to: &again, channel: frame.channel)
            default: try AskAnswer(frame).append(to: &again, channel: frame.channel)
            }
        }
        #expect(again == octets)
    }

    @Test(
        "octets that are no frame end the stream with a fault",
        arguments: [
            ("x", FrameFault.Kind.badLength), (":", .badLength), ("007:3:abc,,", .badLength), ("70001:", .badLength),
            ("99999999999999999999:", .badLength), ("6:2:go,1:1,;", .missingComma), ("9:2:go,1:1,;", .missingComma),
            ("9:2:go,1:1;,", .missingComma), ("9:2:xx,1:1,,", .unknownVerb), ("9:2:go,1:x,,", .badChannel),
            ("5:2:go,,", .badChannel),
            ("0:,", .badChannel), ("19:2:go,10:4294967296,,", .badChannel), ("12:2:go,1:1,1:a,", .badLength),
            ("48:2:go,1:1,0:,0:,0:,0:,0:,0:,0:,0:,0:,0:,0:,0:,0:,,", .tooManyFields),
        ])
    func faults(_ text: String, _ kind: FrameFault.Kind) {
        #expect(decode([Array(text.utf8)[...]]).fault?.kind == kind)
    }

    @Test("only a data field may be longer than 2,048 octets, and none longer than 65,536")
    func fieldLimits() {
        func frame(_ verb: Verb, _ count: Int) -> [UInt8] {
            var octets: [UInt8] = []
            octets.appendFrame(verb, 1, [[UInt8](repeating: 0x61, count: count)])
            return octets
        }
        #expect(decode([frame(.row, 2_048)[...]]).fault == nil)
        #expect(decode([frame(.row, 2_049)[...]]).fault?.kind == .fieldTooLong)
        #expect(decode([frame(.data, 65_536)[...]]).fault == nil)
        #expect(decode([frame(.data, 65_537)[...]]).fault?.kind == .fieldTooLong)
    }

    @Test(
        "content of any length is cut into data frames and comes back whole",
        arguments: [0, 1, 65_536, 65_537, 200_000])
    func dataFrames(_ count: Int) throws {
        let content = (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 31) }
        var octets: [UInt8] = []
        octets.appendData(9, content[...])
        var joined: [UInt8] = []
        for frame in decode([octets[...]]).frames {
            guard case .data(let part) = try SubmitRequest(frame) else { continue }
            joined += part
        }
        #expect(joined == content)
    }

    @Test(
        "a frame with wrong fields, or of another dialect, is a fault and not a guess",
        arguments: [
            ["mail", "a@b", "7bit", "0"], ["mail", "not an address", "7bit", "0", ""],
            ["mail", "a@b", "binary", "0", ""],
            ["mail", "a@b", "7bit", "-1", ""], ["rcpt"], ["rcpt", ""], ["rcpt", "a@b\r\n"], ["commit", "x", "", ""],
            ["abort", "x"],
            ["want", "0", "1"], ["deliver"], ["go"], ["local"],
        ])
    func badSubmitRequests(_ words: [String]) throws {
        let verb = try #require(Verb(rawValue: words[0]))
        var octets: [UInt8] = []
        octets.appendFrame(verb, 1, words.dropFirst().map { Array($0.utf8) })
        let frame = try #require(decode([octets[...]]).frames.first)
        #expect(throws: FrameFault.self) { try SubmitRequest(frame) }
    }

    @Test(
        "a refusal must be a refusal",
        arguments: [["250", "2.0.0", "x"], ["450", "5.0.0", "x"], ["600", "5.0.0", "x"], ["550", "5", "x"]])
    func badRefusals(_ fields: [String]) throws {
        var octets: [UInt8] = []
        octets.appendFrame(.refused, 1, fields.map { Array($0.utf8) })
        let frame = try #require(decode([octets[...]]).frames.first)
        #expect(throws: FrameFault.self) { try SubmitAnswer(frame) }
    }
}

@Suite struct SettingsTableTests {
    @Test("a settings file is names and values, blanks and comments aside")
    func file() throws {
        let table = try SettingsTable(
            fileOctets: Array("# c\nhostname  mx.example.org \r\n\n relay-from 127.0.0.0/8\nrelay-from\t::1\n".utf8))
        #expect(table.text("hostname") == "mx.example.org")
        #expect(table.texts("relay-from") == ["127.0.0.0/8", "::1"])
        #expect(throws: SettingsFault("line 2", "expected a name and a value")) {
            try SettingsTable(fileOctets: Array("a b\nlonely\n".utf8))
        }
    }

    @Test("a value out of its range is a fault that names the setting")
    func ranges() throws {
        let table = SettingsTable([("n", "5"), ("bad", "x"), ("yes", "true")])
        #expect(try table.integer("n", in: 1...5, default: 1) == 5)
        #expect(try table.duration("n", in: 1...5, default: .zero) == .seconds(5))
        #expect(try table.integer("absent", in: 1...5, default: 3) == 3)
        #expect(throws: SettingsFault.self) { try table.integer("n", in: 1...4, default: 1) }
        #expect(throws: SettingsFault.self) { try table.integer("bad", in: 1...4, default: 1) }
        #expect(try table.boolean("yes", default: false))
        #expect(throws: SettingsFault.self) { try table.boolean("bad", default: false) }
        #expect(table.unknownName(known: ["n", "bad"]) == "yes")
    }
}
