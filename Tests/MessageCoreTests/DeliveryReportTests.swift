// SPDX-License-Identifier: Apache-2.0

import MailTypes
import MessageCore
import Testing

private func octets(_ text: String) -> [UInt8] { Array(text.utf8) }

private func recipient(
    _ address: String, original: String? = nil, code: UInt16 = 550,
    status: EnhancedStatus = EnhancedStatus(.permanent, 1, 1),
    reporter: String = "mx.remote.example[192.0.2.1]", text: String = "no such user"
) throws -> DeliveryReport.Recipient {
    DeliveryReport.Recipient(
        address: try #require(ForwardPath(octets: octets(address), alphabet: .unicodeLocalPart)),
        original: try original.map { try #require(ForwardPath(octets: octets($0), alphabet: .unicodeLocalPart)) },
        code: code, status: status, reporter: octets(reporter), text: octets(text),
        lastAttempt: Timestamp(microseconds: 1_700_000_050_000_000))
}

private func report(
    _ recipients: [DeliveryReport.Recipient],
    header: [UInt8] = octets("Subject: hello\r\nMessage-ID: <1@a.example>\r\n\r\n"),
    salt: UInt64 = 1, isToPostmaster: Bool = false, template: ReportTemplate = .english,
    dsn: MessageDSN = MessageDSN(), unicode: UnicodeDemand = .none, sender name: String = "joe@a.example",
    trace: String = ""
) throws -> DeliveryReport {
    let sender = try #require(MailAddress(octets: octets(name), alphabet: .unicodeLocalPart))
    return DeliveryReport(
        audience: isToPostmaster ? .postmaster(sender) : .sender(sender), hostname: octets("mx.example.org"),
        template: template,
        original: DeliveryReport.Original(
            id: MessageID(rawValue: 1_700_000_000_000_000), reversePath: .address(sender),
            arrival: Timestamp(microseconds: 1_700_000_000_000_000), dsn: dsn, unicode: unicode,
            trace: octets(trace), header: HeaderFields(header, isWholeMessage: true), isWhole: true),
        recipients: recipients, now: Timestamp(microseconds: 1_700_000_100_000_000), salt: salt)
}

/// The message's lines, without their ends; nil if a line ends in other than CR LF or is too long, or is not ASCII.
private func wireLines(_ message: [UInt8]) -> [String]? {
    guard message.suffix(2).elementsEqual([13, 10]), message.allSatisfy({ $0 < 0x80 && $0 != 0 }) else { return nil }
    var lines: [String] = []
    for line in message.dropLast(2).split(separator: 10, omittingEmptySubsequences: false) {
        let isLast = line.endIndex == message.count - 2
        guard isLast || line.last == 13 else { return nil }
        let text = isLast ? line : line.dropLast()
        guard text.count <= 998, !text.contains(13) else { return nil }
        lines.append(text.printableText)
    }
    return lines
}

/// The parts between the boundaries, the preamble first.
private func partLines(_ lines: [String]) throws -> [[String]] {
    let field = try #require(lines.first { $0.hasPrefix(" boundary=") })
    let boundary = "--" + field.dropFirst(" boundary=\"".count).dropLast()
    return lines.split(omittingEmptySubsequences: false) { $0 == boundary || $0 == boundary + "--" }.map(Array.init)
}

@Suite("A report of failed delivery")
struct DeliveryReportTests {
    @Test("is a multipart/report from <> that no program answers, with the fields of RFC 3464")
    func wholeReport() throws {
        let failed = try [
            recipient("x@remote.example"),
            recipient(
                "y@remote.example", original: "team@example.org", code: 0, status: EnhancedStatus(.transient, 4, 1),
                reporter: "apus-remote", text: "connection refused"),
        ]
        let lines = try #require(wireLines(try report(failed).octets))
        for field in [
            "Date: Tue, 14 Nov 2023 22:15:00 +0000", "From: Mail Delivery System <MAILER-DAEMON@mx.example.org>",
            "To: <joe@a.example>", "In-Reply-To: <1@a.example>", "References: <1@a.example>",
            "Auto-Submitted: auto-replied", "MIME-Version: 1.0",
            "Content-Type: multipart/report; report-type=delivery-status;",
        ] { #expect(lines.contains(field), "\(field)") }
        #expect(lines.contains { $0.hasPrefix("Message-ID: <") && $0.hasSuffix(".report@mx.example.org>") })

        let parts = try partLines(lines)
        #expect(parts.count == 5)
        #expect(parts[1].first == "Content-Type: text/plain; charset=us-ascii")
        #expect(parts[1].contains("<x@remote.example>"))
        #expect(parts[1].contains("  (you wrote to <team@example.org>)"))
        #expect(parts[2].first == "Content-Type: message/delivery-status")
        #expect(
            Array(parts[2].dropFirst(3)) == [
                "Reporting-MTA: dns; mx.example.org",
                "X-Apus-Message-ID: \(MessageID(rawValue: 1_700_000_000_000_000).text)",
                "X-Apus-Sender: rfc822; joe@a.example", "Arrival-Date: Tue, 14 Nov 2023 22:13:20 +0000", "",
                "Final-Recipient: rfc822; x@remote.example", "Action: failed", "Status: 5.1.1",
                "Remote-MTA: dns; mx.remote.example", "Diagnostic-Code: smtp; 550 5.1.1 no such user",
                "Last-Attempt-Date: Tue, 14 Nov 2023 22:14:10 +0000", "",
                "Original-Recipient: rfc822; team@example.org", "Final-Recipient: rfc822; y@remote.example",
                "Action: failed", "Status: 4.4.1", "Diagnostic-Code: X-Apus; 4.4.1 connection refused",
                "Last-Attempt-Date: Tue, 14 Nov 2023 22:14:10 +0000", "",
            ])
        #expect(parts[3].first == "Content-Type: text/rfc822-headers")
        #expect(Array(parts[3].dropFirst(3)) == ["Subject: hello", "Message-ID: <1@a.example>", ""])
    }

    /// Code, status, reporter, text; the fields that follow from them.
    static let replies: [(UInt16, String, String, String?, String)] = [
        (550, "mx.a.example[192.0.2.1]", "5.1.1 gone", "mx.a.example", "smtp; 550 5.1.1 gone"),
        (550, "mx.a.example[192.0.2.1]:25", "550 gone", "mx.a.example", "smtp; 550 gone"),
        (550, "mx.a.example", "550 5.1.1 gone", "mx.a.example", "smtp; 550 5.1.1 gone"),
        (554, "[192.0.2.1]", "gone", "[192.0.2.1]", "smtp; 554 5.1.1 gone"),
        (0, "apus-local", "gone", nil, "X-Apus; 5.1.1 gone"),
        (550, "apus-smtpd", "gone", nil, "X-Apus; 550 5.1.1 gone"),
        (550, "we ird[", "gone", nil, "X-Apus; 550 5.1.1 gone"),
        (550, "[", "gone", nil, "X-Apus; 550 5.1.1 gone"),
        (550, "", "gone", nil, "X-Apus; 550 5.1.1 gone"),
        (550, "a.example", "x\r\nAction: delivered", "a.example", "smtp; 550 5.1.1 x??Action: delivered"),
    ]

    @Test("says which host said what, and takes no line from it", arguments: replies)
    func diagnostics(code: UInt16, reporter: String, text: String, host: String?, diagnostic: String) throws {
        let failed = try recipient("x@b.example", code: code, reporter: reporter, text: text)
        let lines = try #require(wireLines(try report([failed]).octets))
        #expect(lines.first { $0.hasPrefix("Remote-MTA: ") } == host.map { "Remote-MTA: dns; \($0)" })
        #expect(lines.contains("Diagnostic-Code: \(diagnostic)"))
        #expect(lines.filter { $0.hasPrefix("Action:") } == ["Action: failed"])
    }

    @Test("puts no status into the mouth of a server that gave none")
    func replyWithoutStatus() throws {
        let failed = try recipient("x@b.example", status: EnhancedStatus(.permanent, 0, 0), text: "no")
        let lines = try #require(wireLines(try report([failed]).octets))
        #expect(lines.contains("Status: 5.0.0"))
        #expect(lines.contains("Diagnostic-Code: smtp; 550 no"))
    }

    @Test("puts no words of ours into the mouth of a host that gave no reply", arguments: [UInt16(0), 451])
    func ownWords(code: UInt16) throws {
        let failed = try recipient("x@b.example", code: code, reporter: "mx.a.example[192.0.2.1]:25", text: "refused")
        let text = try #require(wireLines(try report([failed]).octets)).joined(separator: " ")
        #expect(text.contains("The server mx.a.example said: ") == (code > 0))
        #expect(text.contains("mx.a.example: 5.1.1 refused") == (code == 0))
    }

    @Test("folds long replies so that unfolding gives them back")
    func folding() throws {
        let text = (0..<80).map { "word\($0)" }.joined(separator: " ") + "  two"
        let lines = try #require(wireLines(try report([recipient("x@b.example", text: text)]).octets))
        let start = try #require(lines.firstIndex { $0.hasPrefix("Diagnostic-Code:") })
        let rest = lines[start...]
        let end = try #require(rest.dropFirst().firstIndex { !$0.hasPrefix(" ") })
        #expect(rest[start..<end].joined() == "Diagnostic-Code: smtp; 550 5.1.1 " + text.prefix(500))
        #expect(rest[start..<end].allSatisfy { $0.count <= 78 })
    }

    static let headers: [(String, [UInt8])] = [
        ("8-bit octets", octets("Subject: caf") + [0xE9] + octets(" = x \r\nTo: a\r\n\r\n")),
        ("overlong lines", octets("Subject: " + String(repeating: "x", count: 3_000) + "\r\nTo: a\r\n\r\n")),
        ("NUL and bare CR", octets("Subject: a\u{0}b\rc\r\nTo: a\r\n\r\n")),
        ("bare LF", octets("Subject: a\nTo: a\n\n")),
        ("nothing", []),
        ("no field", octets("hello\r\n")),
        ("a boundary", octets("Subject: --=_apus-0000000000001\r\nTo: a\r\n\r\n")),
        ("lines of dashes", octets("Subject: x\r\n --=_apus-0000000000001\r\nTo: a\r\n\r\n")),
        ("a foul Message-ID", octets("Message-ID: <a\u{E9}b>\r\nTo: a\r\n\r\n")),
    ]

    @Test("stays 7-bit, in short lines and in one piece, whatever the message began with", arguments: headers)
    func hostileHeaders(name: String, header: [UInt8]) throws {
        let message = try report([recipient("x@b.example")], header: header).octets
        let lines = try #require(wireLines(message), "\(name)")
        let parts = try partLines(lines)
        #expect(parts.count == 5, "\(name)")
        #expect(!lines.contains { $0.contains("In-Reply-To") })
        if !["nothing", "no field"].contains(name) { #expect(parts[3].contains("To: a")) }
    }

    @Test("takes a boundary that occurs in none of its parts")
    func boundary() throws {
        let taken = MessageID(rawValue: 9).text
        let header = octets("Subject: =_apus-\(taken)\r\n\r\n")
        let text = try report([recipient("x@b.example")], header: header, salt: 9).octets.printableText
        #expect(text.contains("boundary=\"=_apus-\(MessageID(rawValue: 10).text)\""))
    }

    @Test("quotes a long header up to a field's end")
    func longHeader() throws {
        let field = "X-Long: " + String(repeating: "y", count: 90) + "\r\n"
        let header = String(repeating: field, count: 1_000) + "\r\n"
        let lines = try #require(wireLines(try report([recipient("x@b.example")], header: octets(header)).octets))
        let quoted = lines.filter { $0.hasPrefix("X-Long: ") }
        #expect(quoted.count == DeliveryReport.headerOctetCountMax / field.utf8.count)
        #expect(quoted.allSatisfy { $0.count == field.utf8.count - 2 })
    }

    @Test("stays under 1 MiB and names all of 1,000 recipients, however long all is")
    func manyRecipients() throws {
        let local = String(repeating: "l", count: 250)
        let domain = (0..<4).map { _ in String(repeating: "d", count: 60) }.joined(separator: ".")
        let failed = try (0..<1_000).map { number in
            try recipient(
                "\(local)\(1_000 + number)@\(domain)", original: "\(local)\(number)@\(domain)",
                text: String(repeating: "long words ", count: 60))
        }
        var header = octets("Subject: ")
        header += [UInt8](repeating: 0xFF, count: 32_000) + octets("\r\n\r\n")
        let message = try report(failed, header: header).octets
        #expect(message.count < 1_048_576)
        let lines = try #require(wireLines(message))
        #expect(lines.filter { $0.hasPrefix("Final-Recipient: ") }.count == 1_000)
    }

    @Test("to the postmaster says what it is")
    func postmaster() throws {
        let lines = try #require(wireLines(try report([recipient("x@b.example")], isToPostmaster: true).octets))
        #expect(lines.contains("Subject: A report could not be delivered"))
        #expect(lines.contains { $0.contains("as the postmaster") })
    }

    @Test("tells of delay, success and failure what RFC 3464 has fields for")
    func actions() throws {
        let address = try #require(ForwardPath(octets: octets("x@b.example")))
        let told = ReportAction.allCases.map { action in
            let statusClass: EnhancedStatus.Class =
                action == .failed ? .permanent : action == .delayed ? .transient : .success
            return DeliveryReport.Recipient(
                address: address, original: nil, action: action,
                dsn: RecipientDSN(originalRecipient: octets("rfc822;who+2Bever@c.example")), code: 0,
                status: EnhancedStatus(statusClass, 0, 0), reporter: octets("apus-queue"), text: octets("so it is"),
                lastAttempt: nil, retryLimit: Timestamp(microseconds: 1_700_000_900_000_000))
        }
        let trace = "client=192.0.2.7 user=joe helo=client.example session=x"
        let dsn = MessageDSN(envelopeID: octets("id+2B1"))
        let lines = try #require(wireLines(try report(told, dsn: dsn, trace: trace).octets))
        #expect(
            lines.filter { $0.hasPrefix("Action: ") }
                == ["Action: failed", "Action: delayed", "Action: delivered", "Action: relayed", "Action: expanded"])
        #expect(lines.filter { $0 == "Original-Recipient: rfc822; who+ever@c.example" }.count == 5)
        #expect(
            lines.filter { $0.hasPrefix("Will-Retry-Until: ") } == ["Will-Retry-Until: Tue, 14 Nov 2023 22:28:20 +0000"]
        )
        #expect(lines.contains("Original-Envelope-Id: id+1"))
        #expect(lines.contains("Received-From-MTA: dns; client.example (192.0.2.7)"))
        #expect(lines.contains("Subject: Your mail could not be delivered"))
        #expect(lines.filter { $0 == "<x@b.example>" }.count == 5)

        let delayed = try #require(wireLines(try report([told[1], told[2]]).octets))
        #expect(delayed.contains("Subject: Your mail is delayed"))
        #expect(!delayed.contains { $0.hasPrefix("Received-From-MTA") || $0.hasPrefix("Original-Envelope-Id") })
        let delivered = try #require(wireLines(try report([told[2]]).octets))
        #expect(delivered.contains("Subject: Your mail was delivered"))
    }

    static let clients: [(String, String?)] = [
        ("client=192.0.2.7 helo=client.example session=x", "client.example (192.0.2.7)"),
        ("client=2001:db8::1 helo=[192.0.2.7]", "[192.0.2.7] (2001:db8::1)"),
        ("client=192.0.2.7 helo=my printer session=x", "my (192.0.2.7)"),
        ("client=192.0.2.7 helo=(a session=x", "[192.0.2.7] (192.0.2.7)"),
        ("uid=1000 helo=localhost", nil), ("client=nobody helo=a.example", nil), ("report of 0", nil),
    ]

    @Test("names the client that the message came from, if it was one", arguments: clients)
    func receivedFrom(trace: String, client: String?) throws {
        let lines = try #require(wireLines(try report([recipient("x@b.example")], trace: trace).octets))
        #expect(lines.first { $0.hasPrefix("Received-From-MTA") } == client.map { "Received-From-MTA: dns; \($0)" })
    }

    @Test("returns the message itself to who wants it, if something failed and a part can hold it")
    func returned() throws {
        let failed = try recipient("x@b.example")
        let full = MessageDSN(returned: .full)
        let text = octets("Subject: hello\r\n\r\n--=_apus-\(MessageID(rawValue: 1).text)\r\nbody\r\n")
        let lines = try #require(wireLines(try report([failed], header: text, dsn: full).octets))
        let parts = try partLines(lines)
        #expect(parts[3].first == "Content-Type: message/rfc822")
        #expect(parts[3].contains("body"))
        let eight = octets("Subject: hello\r\n\r\nbl") + [0xFC] + octets("he\r\n")
        let whole = try report([failed], header: eight, dsn: full)
        #expect(whole.bodyType == .eightBitMIME)
        #expect(whole.octets.printableText.contains("Content-Transfer-Encoding: 8bit"))
        for (header, dsn) in [
            (text, MessageDSN(returned: .headers)), (text, MessageDSN()),
            (octets("Subject: x\r\n\r\na\nb\r\n"), full), (octets("Subject: x\r\n\r\na\0\r\n"), full),
            (octets("Subject: x\r\n\r\n" + String(repeating: "y", count: 999) + "\r\n"), full),
        ] {
            let report = try report([failed], header: header, dsn: dsn)
            #expect(report.bodyType == .sevenBit)
            #expect(
                try partLines(try #require(wireLines(report.octets)))[3].first == "Content-Type: text/rfc822-headers")
        }
        let delivered = DeliveryReport.Recipient(
            address: failed.address, original: nil, action: .delivered, code: 250,
            status: EnhancedStatus(.success, 0, 0), reporter: [], text: [], lastAttempt: nil)
        let success = try #require(wireLines(try report([delivered], header: text, dsn: full).octets))
        #expect(try partLines(success)[3].first == "Content-Type: text/rfc822-headers")
    }

    /// The header of the message, who it is from, whether he asked for SMTPUTF8 and for the whole, and the types of the
    /// second and the third part.
    static let international: [(header: String, sender: String, unicode: UnicodeDemand, full: Bool, types: [String])] =
        [
            ("Subject: x", "joe@a.example", .inHeader, false, ["message/delivery-status", "text/rfc822-headers"]),
            ("Subject: ü", "joe@a.example", .none, false, ["message/delivery-status", "text/rfc822-headers"]),
            ("Subject: ü", "joe@a.example", .inHeader, false, ["message/delivery-status", "message/global-headers"]),
            ("Subject: ü", "joe@a.example", .inHeader, true, ["message/delivery-status", "message/global"]),
            ("Subject: x", "jörg@a.example", .asked, false, ["message/global-delivery-status", "text/rfc822-headers"]),
            (
                "Subject: ü", "jörg@a.example", .inHeader, false,
                ["message/global-delivery-status", "message/global-headers"]
            ),
            ("Subject: ü", "jörg@a.example", .inHeader, true, ["message/global-delivery-status", "message/global"]),
            ("Subject: x", "jörg@a.example", .asked, true, ["message/global-delivery-status", "message/rfc822"]),
        ]

    @Test("is of ASCII for whoever has an address in ASCII, and else of UTF-8 (RFC 6533)", arguments: international)
    func forms(header: String, sender: String, unicode: UnicodeDemand, full: Bool, types: [String]) throws {
        let isASCII = sender.utf8.isASCII
        let made = try report(
            [recipient("δοκιμή@b.example", original: "größe@a.example")], header: octets(header + "\r\n\r\nx\r\n"),
            dsn: MessageDSN(returned: full ? .full : nil), unicode: unicode, sender: sender)
        let message = made.octets
        #expect(made.isInternational == !isASCII)
        #expect(made.bodyType == (isASCII ? .sevenBit : .eightBitMIME))
        #expect(message.isASCII == isASCII)
        let text = String(decoding: message, as: UTF8.self)
        for type in types { #expect(text.contains("\r\nContent-Type: \(type)\r\n"), "\(type)") }
        let address = isASCII ? "\\x{3B4}\\x{3BF}\\x{3BA}\\x{3B9}\\x{3BC}\\x{3AE}" : "δοκιμή"
        #expect(text.contains("\r\nFinal-Recipient: utf-8; \(address)@b.example\r\n"))
        #expect(
            text.contains("\r\nOriginal-Recipient: utf-8; \(isASCII ? "gr\\x{F6}\\x{DF}e" : "größe")@a.example\r\n"))
        #expect(text.contains("\r\nX-Apus-Sender: \(isASCII ? "rfc822" : "utf-8"); \(sender)\r\n"))
    }
}
