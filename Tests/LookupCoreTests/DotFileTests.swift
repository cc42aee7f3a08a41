// SPDX-License-Identifier: Apache-2.0

import LookupCore
import MailTypes
import Testing

private func octets(_ text: String) -> [UInt8] { Array(text.utf8) }

/// What a file says, in words: `mbox:…`, `maildir:…`, `|…`, `mailbox`, `&address`; or `line: reason`.
private func words(_ read: () throws(DotFile.Fault) -> DotFile) -> [String] {
    do throws(DotFile.Fault) {
        let file = try read()
        let instructions = file.instructions.map { instruction in
            switch instruction {
            case .mbox(let path): "mbox:\(path)"
            case .maildir(let path): "maildir:\(path)"
            case .command(let text): "|\(text)"
            case .mailbox: "mailbox"
            }
        }
        return zip(instructions, file.forwardCounts).map { "\($0)@\($1)" }
            + file.forwards.map { "&\($0.octets.printableText)" }
    } catch {
        return ["\(error.line): \(error.text)"]
    }
}

@Suite("A user's file")
struct DotFileTests {
    @Test(
        "a .forward is targets parted by commas and ends of lines",
        arguments: [
            ("", []), ("# nothing\n\n", []), ("a@b.example, c\n", ["&a@b.example", "&c@example.org"]),
            ("\\joe, a@b.example\n", ["mailbox@0", "&a@b.example"]), ("JOE@example.org\n", ["mailbox@0"]),
            (
                "a@b.example\n\"|prog 'x, y'\"\n/var/mail/joe\n~/box/\n",
                ["|prog 'x, y'@1", "mbox:/var/mail/joe@1", "maildir:./box/@1", "&a@b.example"]
            ),
            ("\\ann\n", ["1: \\ann: only the user's own name can stand behind \\"]),
            ("a@b\n:include:/x\n", ["2: :include:/x is not possible here"]),
            ("\"open\n", ["1: a quotation mark is not closed"]),
            ("|\"prog a, b\", c\n", ["|prog a, b@0", "&c@example.org"]), ("|\"a b\" c\n", ["|\"a b\" c@0"]),
            ("|\"a \\\"b\\\"\"\n", ["|a \"b\"@0"]), ("|\n", ["1: there is no program behind |"]),
            ("\"| \", c\n", ["1: there is no program behind |"]), ("|\"\"\n", ["1: there is no program behind |"]),
            ("/var/../etc/x\n", ["1: /var/../etc/x is not a file or a directory for mail"]),
        ] as [(String, [String])])
    func forward(text: String, wanted: [String]) {
        #expect(
            words { () throws(DotFile.Fault) in
                try DotFile.forward(octets(text), user: octets("joe"), domain: octets("example.org"), domains: .none)
            } == wanted)
    }

    @Test(
        "a .qmail is an instruction a line",
        arguments: [
            ("", []), ("# nothing\n", []), ("\na@b\n", ["1: the first line is empty"]),
            (
                "&a@b.example\nc@d.example  \n./box/\n|prog x\n/var/mail/joe\n",
                ["maildir:./box/@2", "|prog x@2", "mbox:/var/mail/joe@2", "&a@b.example", "&c@d.example"]
            ),
            ("+list\n./box\n", ["2: only addresses are allowed in this file"]), ("+other\nb\n", ["&b@example.org"]),
            ("./box\n|  \n", ["2: there is no program behind |"]),
            (".box\n", ["1: a file begins with / or ./"]),
            ("./a/../b\n", ["1: ./a/../b is not a file or a directory for mail"]),
            ("@\n", ["1: @ is not an address"]),
        ] as [(String, [String])])
    func qmail(text: String, wanted: [String]) {
        #expect(
            words { () throws(DotFile.Fault) in
                try DotFile.qmail(octets(text), domain: octets("example.org"), isForwardOnly: false, domains: .none)
            } == wanted)
    }

    @Test("an executable .qmail has nothing but addresses")
    func executable() {
        for text in ["|prog\n", "./box\n", "/box\n"] {
            #expect(
                words { () throws(DotFile.Fault) in
                    try DotFile.qmail(octets(text), domain: octets("example.org"), isForwardOnly: true, domains: .none)
                } == ["1: only addresses are allowed in this file"])
        }
    }

    @Test("no file has more instructions than there is room for, and none is cut off in silence")
    func tooMany() {
        let text = String(repeating: "a@b.example\n", count: DotFile.entryCountMax)
        func count(_ text: String) -> [String] {
            words { () throws(DotFile.Fault) in
                try DotFile.qmail(octets(text), domain: octets("example.org"), isForwardOnly: false, domains: .none)
            }
        }
        #expect(count(text).count == DotFile.entryCountMax)
        #expect(
            count(text + "a@b.example\n") == [
                "\(DotFile.entryCountMax + 1): more than \(DotFile.entryCountMax) instructions"
            ])
    }

    @Test(
        "the file for an extension is its own, or that of a default, and no other",
        arguments: [
            ("", [".qmail"]), ("list", [".qmail-list", ".qmail-default"]),
            ("a-b", [".qmail-a-b", ".qmail-a-default", ".qmail-default"]), ("A.b", [".qmail-a:b", ".qmail-default"]),
            ("a/b", []), ("a b", []), (String(repeating: "x", count: 201), []),
        ] as [(String, [String])])
    func names(tag: String, wanted: [String]) { #expect(DotFile.qmailNames(extension: octets(tag)) == wanted) }
}
