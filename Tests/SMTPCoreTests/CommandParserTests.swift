// SPDX-License-Identifier: Apache-2.0

import MailTypes
import SMTPCore
import Testing

@Suite("CommandParser")
struct CommandParserTests {
    /// The command in words that are easy to compare.
    private func parse(_ line: String) -> String {
        switch CommandParser.parse(Array(line.utf8).span) {
        case .failure(let fault): return "\(fault)"
        case .success(.hello(let name)): return "hello \(String(decoding: name, as: UTF8.self))"
        case .success(.extendedHello(let name)): return "extendedHello \(String(decoding: name, as: UTF8.self))"
        case .success(.mail(let path, let parameters)):
            let path = String(decoding: path.octets, as: UTF8.self)
            let returned = parameters.dsn.returned.map { " \($0)" } ?? ""
            let id = parameters.dsn.envelopeID.isEmpty ? "" : " id=\(parameters.dsn.envelopeID.printableText)"
            let unicode = parameters.isUnicode ? " utf8" : ""
            return
                "mail <\(path)> \(parameters.declaredOctetCount) \(parameters.bodyType.rawValue)\(returned)\(id)\(unicode)"
        case .success(.recipient(let path, let dsn)):
            let notify = dsn.notify.map { " \($0.octets.printableText)" } ?? ""
            let original = dsn.originalRecipient.isEmpty ? "" : " \(dsn.originalRecipient.printableText)"
            if case .postmaster = path { return "recipient postmaster\(notify)\(original)" }
            return "recipient <\(String(decoding: path.octets, as: UTF8.self))>\(notify)\(original)"
        case .success(.verify(let path)):
            return "verify \(path.map { String(decoding: $0.octets, as: UTF8.self) } ?? "word")"
        case .success(let command): return "\(command)"
        }
    }

    @Test(
        "reads the commands of RFC 5321",
        arguments: [
            ("EHLO client.example", "extendedHello client.example"),
            ("ehlo [192.0.2.1] ", "extendedHello [192.0.2.1]"),
            ("HeLo my printer", "hello my printer"),
            ("DATA", "data"), ("data  ", "data"), ("RSET", "reset"), ("QUIT\t", "quit"),
            ("NOOP", "noOperation"), ("NOOP whatever", "noOperation"), ("HELP", "help"), ("HELP MAIL", "help"),
            ("VRFY user@example.org", "verify user@example.org"),
            ("VRFY <user@example.org>", "verify user@example.org"),
            ("VRFY Jones", "verify word"), ("VRFY postmaster", "verify postmaster"), ("VRFY <", "verify word"),
            ("EXPN staff", "expand"),
        ])
    func commands(line: String, expected: String) { #expect(self.parse(line) == expected) }

    @Test(
        "reads reverse-paths and the parameters of MAIL",
        arguments: [
            ("MAIL FROM:<a@example.org>", "mail <a@example.org> 0 7bit"),
            ("mail from:<A@Example.ORG>", "mail <A@Example.ORG> 0 7bit"),
            ("MAIL FROM: <a@example.org>", "mail <a@example.org> 0 7bit"),
            ("MAIL  FROM:\t<a@example.org> ", "mail <a@example.org> 0 7bit"),
            ("MAIL FROM:<>", "mail <> 0 7bit"),
            ("MAIL FROM:<> SIZE=0", "mail <> 0 7bit"),
            ("MAIL FROM:<a@b> size=1234 BODY=8bitmime", "mail <a@b> 1234 8bitmime"),
            ("MAIL FROM:<a@b> BODY=7BIT  SIZE=007", "mail <a@b> 7 7bit"),
            ("MAIL FROM:<a@b> SIZE=99999999999999999999", "mail <a@b> 18446744073709551615 7bit"),
            ("MAIL FROM:<\"x> \\\" y\"@b>", "mail <\"x> \\\" y\"@b> 0 7bit"),
            ("MAIL FROM:<\"<>\"@[IPv6:2001:db8::1]>", "mail <\"<>\"@[IPv6:2001:db8::1]> 0 7bit"),
            ("MAIL FROM:<@one.example:a@b>", "mail <a@b> 0 7bit"),
            ("MAIL FROM:<@one.example,@[192.0.2.1],@[IPv6:::1]:a@b>", "mail <a@b> 0 7bit"),
        ])
    func mail(line: String, expected: String) { #expect(self.parse(line) == expected) }

    @Test(
        "reads UTF-8 in addresses and nowhere else (RFC 6531 §3.3, §3.4)",
        arguments: [
            ("MAIL FROM:<jörg@bücher.example> SMTPUTF8", "mail <jörg@bücher.example> 0 7bit utf8"),
            ("MAIL FROM:<a@b> smtputf8 SIZE=1", "mail <a@b> 1 7bit utf8"),
            ("MAIL FROM:<jörg@b>", "mail <jörg@b> 0 7bit"),
            ("RCPT TO:<@one.example:\"ö ö\"@b>", "recipient <\"ö ö\"@b>"),
            ("VRFY <jörg@b> SMTPUTF8", "verify jörg@b"), ("VRFY a@b  smtputf8", "verify a@b"),
            ("VRFY SMTPUTF8", "verify word"), ("VRFY jörg@b", "unicodeNotAsked"), ("VRFY Jörg SMTPUTF8", "verify word"),
            ("MAIL FROM:<a@b> SMTPUTF8 SMTPUTF8", "parameterValue"), ("MAIL FROM:<a@b> SMTPUTF8=", "parameterValue"),
            ("MAIL FROM:<a@b> SMTPUTF8=yes", "parameterValue"), ("MAIL FROM:<a@b> ENVID=ö", "parameterValue"),
            ("MAIL FROM:<a@b> Ö=1", "unknownParameter"), ("MAIL FROM:<jö..rg@b>", "senderAddress"),
            ("RCPT TO:<a@b> ORCPT=rfc822;ö@b", "parameterValue"), ("RCPT TO:<a@b> SMTPUTF8", "unknownParameter"),
            ("EHLO ö", "notPrintable"), ("NOOP ö", "notPrintable"), ("Ö", "notPrintable"),
            ("MAIL FROM:<j\u{85}@b>", "notPrintable"),
            ("MAILÖ FROM:<a@b>", "unknownCommand"),
        ])
    func unicode(line: String, expected: String) { #expect(self.parse(line) == expected) }

    @Test("takes a line that is no UTF-8 for none of a command, wherever it was cut")
    func brokenUnicode() {
        let line = Array("MAIL FROM:<δδ@b> SMTPUTF8".utf8)
        for index in line.indices where line[index] >= 0x80 {
            var cut = line
            cut.remove(at: index)
            #expect(CommandParser.parse(cut.span) == .failure(.notPrintable), "without octet \(index)")
        }
    }

    @Test(
        "reads forward-paths",
        arguments: [
            ("RCPT TO:<u@example.org>", "recipient <u@example.org>"),
            ("rcpt to: <u+tag@example.org>", "recipient <u+tag@example.org>"),
            ("RCPT TO:<Postmaster>", "recipient postmaster"),
            ("RCPT TO:<postmaster@example.org>", "recipient <postmaster@example.org>"),
            ("RCPT TO:<@relay.example:u@example.org>", "recipient <u@example.org>"),
            ("RCPT TO:<u@[192.0.2.7]>", "recipient <u@[192.0.2.7]>"),
        ])
    func recipient(line: String, expected: String) { #expect(self.parse(line) == expected) }

    @Test(
        "reads what a sender wishes about reports (RFC 3461)",
        arguments: [
            ("MAIL FROM:<a@b> RET=FULL ENVID=QQ314159", "mail <a@b> 0 7bit full id=QQ314159"),
            ("MAIL FROM:<a@b> ret=hdrs size=5 envid=a+2Bb", "mail <a@b> 5 7bit headers id=a+2Bb"),
            ("MAIL FROM:<> ENVID=x RET=HDRS", "mail <> 0 7bit headers id=x"),
            ("RCPT TO:<a@b> NOTIFY=NEVER", "recipient <a@b> NEVER"),
            ("RCPT TO:<a@b> notify=delay,success", "recipient <a@b> SUCCESS,DELAY"),
            (
                "RCPT TO:<a@b> ORCPT=rfc822;c+2Bd@e NOTIFY=SUCCESS,FAILURE",
                "recipient <a@b> SUCCESS,FAILURE rfc822;c+2Bd@e"
            ),
            ("RCPT TO:<postmaster> ORCPT=x400;/C+3Da/S+3Db", "recipient postmaster x400;/C+3Da/S+3Db"),
            ("RCPT TO:<a@b> ORCPT=UTF-8;\\x{17C}uk@b", "recipient <a@b> UTF-8;\\x{17C}uk@b"),
        ])
    func reportWishes(line: String, expected: String) { #expect(self.parse(line) == expected) }

    @Test(
        "refuses everything else, with its reason",
        arguments: [
            ("", "unknownCommand"), ("   ", "unknownCommand"), ("FOO", "unknownCommand"), ("QUIT!", "unknownCommand"),
            ("DATAX", "unknownCommand"), (" QUIT", "unknownCommand"), ("GET / HTTP/1.1", "unknownCommand"),
            ("EHLO", "helloSyntax"), ("HELO ", "helloSyntax"),
            ("EHLO " + String(repeating: "x", count: 256), "helloSyntax"),
            ("DATA now", "unexpectedArgument"), ("RSET x", "unexpectedArgument"), ("QUIT x", "unexpectedArgument"),
            ("VRFY", "missingArgument"), ("EXPN ", "missingArgument"),
            ("EHLO caf\u{e9}", "notPrintable"),
            ("NOOP \u{7f}", "notPrintable"),
            ("NOOP \u{1}", "notPrintable"),
            ("MAIL", "mailSyntax"), ("MAIL FROM", "mailSyntax"), ("MAIL FROM:", "mailSyntax"),
            ("MAIL FROM:a@b", "mailSyntax"), ("MAIL TO:<a@b>", "mailSyntax"), ("MAIL FROM:<a@b>SIZE=1", "mailSyntax"),
            ("MAIL FROM:<a@b", "senderAddress"), ("MAIL FROM:<", "senderAddress"), ("MAIL FROM:<a>", "senderAddress"),
            ("MAIL FROM:<a b@c>", "senderAddress"), ("MAIL FROM:<a@b@c>", "senderAddress"),
            ("MAIL FROM:<.a@b>", "senderAddress"), ("MAIL FROM:<\"a@b>", "senderAddress"),
            ("MAIL FROM:<a@-b>", "senderAddress"), ("MAIL FROM:<postmaster>", "senderAddress"),
            ("MAIL FROM:<@x:>", "senderAddress"), ("MAIL FROM:<@x>", "senderAddress"),
            ("MAIL FROM:<@,@x:a@b>", "senderAddress"),
            ("MAIL FROM:<@x,a@b>", "senderAddress"), ("MAIL FROM:<\"\\", "senderAddress"),
            ("MAIL FROM:<a@b> SIZE", "parameterValue"), ("MAIL FROM:<a@b> SIZE=", "parameterValue"),
            ("MAIL FROM:<a@b> SIZE=-1", "parameterValue"), ("MAIL FROM:<a@b> SIZE=1 SIZE=2", "parameterValue"),
            ("MAIL FROM:<a@b> SIZE=100000000000000000000", "parameterValue"),
            ("MAIL FROM:<a@b> BODY=BINARYMIME", "parameterValue"),
            ("MAIL FROM:<a@b> BODY=7BIT BODY=7BIT", "parameterValue"),
            ("MAIL FROM:<a@b> RET=", "parameterValue"), ("MAIL FROM:<a@b> RET=BODY", "parameterValue"),
            ("MAIL FROM:<a@b> RET=FULL RET=FULL", "parameterValue"), ("MAIL FROM:<a@b> ENVID=", "parameterValue"),
            ("MAIL FROM:<a@b> ENVID=a=b", "parameterValue"), ("MAIL FROM:<a@b> ENVID=a+2", "parameterValue"),
            ("MAIL FROM:<a@b> ENVID=a+0Ab", "parameterValue"), ("MAIL FROM:<a@b> ENVID=1 ENVID=2", "parameterValue"),
            ("MAIL FROM:<a@b> ENVID=" + String(repeating: "x", count: 101), "parameterValue"),
            ("MAIL FROM:<a@b> NOTIFY=NEVER", "unknownParameter"), ("MAIL FROM:<a@b> =", "unknownParameter"),
            ("RCPT", "recipientSyntax"), ("RCPT FROM:<a@b>", "recipientSyntax"), ("RCPT TO:a@b", "recipientSyntax"),
            ("RCPT TO:<a@b>x", "recipientSyntax"),
            ("RCPT TO:<>", "recipientAddress"), ("RCPT TO:<user>", "recipientAddress"),
            ("RCPT TO:<a@b", "recipientAddress"),
            ("RCPT TO:<@x:postmaster>", "recipientAddress"),
            ("RCPT TO:<a@b> RET=FULL", "unknownParameter"), ("RCPT TO:<a@b> SIZE=1", "unknownParameter"),
            ("RCPT TO:<a@b> NOTIFY", "parameterValue"), ("RCPT TO:<a@b> NOTIFY=", "parameterValue"),
            ("RCPT TO:<a@b> NOTIFY=SOMETIMES", "parameterValue"), ("RCPT TO:<a@b> NOTIFY=SUCCESS,", "parameterValue"),
            ("RCPT TO:<a@b> NOTIFY=NEVER,DELAY", "parameterValue"),
            ("RCPT TO:<a@b> NOTIFY=DELAY NOTIFY=DELAY", "parameterValue"),
            ("RCPT TO:<a@b> ORCPT=a@b", "parameterValue"), ("RCPT TO:<a@b> ORCPT=rfc822;", "parameterValue"),
            ("RCPT TO:<a@b> ORCPT=;a@b", "parameterValue"), ("RCPT TO:<a@b> ORCPT=rf c;a@b", "parameterValue"),
            ("RCPT TO:<a@b> ORCPT=rfc822;a+0D+0Ab", "parameterValue"),
            ("RCPT TO:<a@b> ORCPT=utf-8;a\\x{D800}@b", "parameterValue"),
            ("RCPT TO:<a@b> ORCPT=utf-8;a\\x{0A}@b", "parameterValue"),
            ("RCPT TO:<a@b> ORCPT=utf-8;a+2B@b", "parameterValue"),
            ("RCPT TO:<a@b> ORCPT=rfc822;" + String(repeating: "x", count: 494), "parameterValue"),
        ])
    func faults(line: String, expected: String) { #expect(self.parse(line) == expected) }

    @Test("takes addresses at the limits of RFC 5321 §4.5.3.1 and more")
    func limits() {
        let local = String(repeating: "l", count: 64)
        let domain = [63, 63, 63, 61].map { String(repeating: "d", count: $0) }.joined(separator: ".")
        #expect(domain.utf8.count == 253)
        #expect(self.parse("RCPT TO:<\(local)@\(domain)>") == "recipient <\(local)@\(domain)>")
    }

    @Test("no line of printable octets makes it fail in another way than by a fault")
    func noise() {
        let words = [
            "MAIL", "RCPT", "FROM:", "TO:", "<", ">", "@", "a", "\"", "\\", " ", ":", ",", "[", "]", "=", "SIZE=",
        ]
        // A small generator with a fixed seed: the same lines in each run.
        var seed: UInt64 = 0x9E37_79B9_7F4A_7C15
        for _ in 0..<20_000 {
            var line = ["MAIL FROM:<", "RCPT TO:<", "VRFY <", ""][Int(seed >> 7 & 3)]
            for _ in 0..<(seed >> 9 & 15) {
                seed ^= seed << 13
                seed ^= seed >> 7
                seed ^= seed << 17
                line += words[Int(seed % UInt64(words.count))]
            }
            seed ^= seed << 13
            seed ^= seed >> 7
            seed ^= seed << 17
            if case .success(.mail(let path, _)) = CommandParser.parse(Array(line.utf8).span) {
                #expect(ReversePath(octets: path.octets) == path, "\(line)")
            }
        }
    }
}
