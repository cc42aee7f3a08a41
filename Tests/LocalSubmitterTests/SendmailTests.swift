// SPDX-License-Identifier: Apache-2.0

import MailTypes
import Testing

@testable import LocalSubmitter
@testable import Settings

@Suite struct SubmissionPathTests {
    @Test("the socket is in the state directory that the settings name, or in that of an installed Apus")
    func state() {
        for (text, path) in [
            ("hostname = \"mx.example\"\nstate = \"/srv/apus\"\n[smtp]\n", "/srv/apus/submit"),
            ("state = \"/srv/apus\"\nhostname =\n[[[", "/srv/apus/submit"), ("[smtp]\nstate = \"/x\"", nil),
            ("state = 7", nil), ("state = \"apus\"", nil), ("", nil), ("\u{0}", nil),
        ] as [(String, String?)] {
            #expect(SubmissionPath.path(settings: Array(text.utf8)) == path ?? "/var/lib/apus/submit", "\(text)")
        }
        #expect(SubmissionPath.path(settings: nil) == "/var/lib/apus/submit")
        #expect(SubmissionPath.settingsFile == Settings.fileDefault)
        #expect(SubmissionPath.stateDirectoryDefault == Settings.stateDirectoryDefault)
        #expect(SubmissionPath.settingsOctetCountMax == Settings.fileOctetCountMax)
    }
}

@Suite struct SendmailArgumentsTests {
    private func read(_ line: String, name: String = "sendmail") throws -> SendmailArguments {
        try SendmailArguments(name: name, line.split(separator: " ").map(String.init))
    }

    @Test("the calls that programs make are understood")
    func customaryCalls() throws {
        // PHP's mail(), cron, git send-email, mutt, s-nail, and a mailing list manager.
        let php = try self.read("-t -i")
        #expect(php.takesRecipients && php.ignoresDots && php.recipients.isEmpty)
        let cron = try self.read("-FCronDaemon -i -B8BITMIME -oem root")
        #expect(cron.fullName == "CronDaemon" && cron.ignoresDots && cron.recipients == ["root"])
        let git = try self.read("-i alice@example.org bob@example.org")
        #expect(git.recipients == ["alice@example.org", "bob@example.org"])
        let mutt = try self.read("-oem -oi -f alice@example.org -- bob@example.org")
        #expect(mutt.sender == "alice@example.org" && mutt.ignoresDots && mutt.recipients == ["bob@example.org"])
        let nail = try self.read("-i -m -v -r alice@example.org bob@example.org")
        #expect(nail.sender == "alice@example.org" && nail.isVerbose && nail.recipients == ["bob@example.org"])
        let list = try self.read("-f <> -G -N never -R hdrs -V id7 -- -odd@example.org")
        #expect(list.sender == "<>" && list.isRelayed && list.notify == "never" && list.returned == "hdrs")
        #expect(list.envelopeID == "id7" && list.recipients == ["-odd@example.org"])
        let verp = try self.read("-XV -f news@example.org a@b")
        #expect(verp.isUnicode == nil)
        let unicode = try self.read("-O smtputf8=yes a@b")
        #expect(unicode.isUnicode == true && unicode.recipients == ["a@b"])
        #expect(try self.read("-OSMTPUTF8=no a@b").isUnicode == false)
        #expect(verp.isVERP && verp.sender == "news@example.org" && verp.recipients == ["a@b"])
    }

    @Test(
        "options of a sendmail that delivers by itself change nothing",
        arguments: [
            "-O DeliveryMode=b a@b", "-ODeliveryMode=b a@b", "-odb -oeq -om a@b", "-o x a@b", "-C /etc/x a@b",
            "-L tag a@b",
            "-h 5 a@b", "-pSMTP:here a@b", "-X /tmp/log a@b", "-X/tmp/Vlog a@b", "-em -n -U a@b", "-d0.1 a@b",
            "-bm a@b", "-Ac a@b",
        ])
    func ignored(line: String) throws {
        let arguments = try self.read(line)
        #expect(arguments.recipients == ["a@b"], "\(arguments)")
        #expect(arguments.mode == .send)
    }

    @Test("other modes are known by their option and by the name of the program")
    func modes() throws {
        for (line, mode) in [
            ("-bs", SendmailArguments.Mode.smtp), ("-bp", .queue), ("-bi", .aliases), ("-I", .aliases),
            ("-bv a@b", .verify),
            ("-q", .flush), ("-q30m", .flush), ("-qRexample.org", .flush),
        ] { #expect(try self.read(line).mode == mode, "\(line)") }
        #expect(try self.read("", name: "mailq").mode == .queue)
        #expect(try self.read("", name: "newaliases").mode == .aliases)
    }

    @Test("what is not understood is refused", arguments: ["-y a", "-f", "-F", "-bd", "-bX", "-b"])
    func wrong(line: String) { #expect(throws: SendmailArguments.Fault.self) { try self.read(line) } }
}

@Suite struct DotEndTests {
    @Test(
        "a line with a dot alone ends the message, and nothing else does",
        arguments: [
            ("a\n.\nb\n", "a\n", true), (".\n", "", true), ("a\n..\n", "a\n..\n", false), ("a.\n", "a.\n", false),
            ("a\n.b\n", "a\n.b\n", false), ("a\r\n.\r\nb", "a\r\n", true), ("a\n.\r", "a\n", true),
            ("a\n.", "a\n", true),
            ("a\n.\rb\n", "a\n.\rb\n", false), ("a\n\n.\n.\n", "a\n\n", true), ("", "", false),
        ])
    func ends(input: String, content: String, isEnded: Bool) {
        let octets = Array(input.utf8)
        for cut in 0...octets.count {
            var dots = DotEnd()
            var found = dots.receive(octets[..<cut])
            found += dots.receive(octets[cut...])
            dots.finish()
            #expect(found == Array(content.utf8), "cut at \(cut)")
            #expect(dots.isEnded == isEnded, "cut at \(cut)")
        }
    }
}
