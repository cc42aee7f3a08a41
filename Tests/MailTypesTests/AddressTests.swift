// SPDX-License-Identifier: Apache-2.0

import MailTypes
import Testing

@Suite struct MailAddressTests {
    @Test(
        "a mailbox of RFC 5321 §4.1.2 is taken as it came",
        arguments: [
            "a@b", "user+tag@example.org", "first.last@sub.example.org", "\"quoted part\"@example.org",
            "\"with\\\"quote\"@example.org", "\"\"@example.org", "!#$%&'*+-/=?^_`{|}~@example.org",
            "a@[192.0.2.1]", "a@[IPv6:2001:db8::1]", "a@[IPv6:::1]", "a@xn--bcher-kva.example",
            "a@has_underscore.example",
            "a@1.2.3.4", "\"a@b\"@example.org",
        ])
    func accepted(_ text: String) throws {
        let address = try #require(MailAddress(text: text))
        #expect(address.octets == Array(text.utf8))
        #expect(Array(address.localPart) + [0x40] + Array(address.domain) == Array(text.utf8))
    }

    @Test(
        "what is not a mailbox is refused",
        arguments: [
            "", "@", "a", "a@", "@b", ".a@b", "a.@b", "a..b@c", "a b@c", "a@b@c", "a@-b", "a@b-", "a@b..c", "a@b.",
            "a@.b",
            "\"unclosed@b", "\"a\"b@c", "\"ctrl\u{1}\"@b", "a@[1.2.3]", "a@[1.2.3.256]", "a@[IPv6:]",
            "a@[IPv6:1.2.3.4]",
            "a@[2001:db8::1]", "a@[x:y]", "a@[", "a@[]", "ä@example.org", "a@ä.example", "a\r\n@b", "a@b\r\n", "a@b c",
            "<a@b>",
            "a\u{0}@b",
        ])
    func refused(_ text: String) { #expect(MailAddress(text: text) == nil) }

    @Test("local parts up to 255 and domains up to 255 octets are taken, longer ones are not")
    func lengths() {
        let local = String(repeating: "a", count: 255)
        let label = String(repeating: "b", count: 63)
        let domain = [label, label, label, String(repeating: "c", count: 63)].joined(separator: ".")
        #expect(domain.utf8.count == 255)
        #expect(MailAddress(text: "\(local)@\(domain)") != nil)
        #expect(MailAddress(text: "\(local)a@\(domain)") == nil)
        #expect(MailAddress(text: "\(local)@\(domain)c") == nil)
        #expect(MailAddress(text: "a@\(label)b.org") == nil)
    }

    @Test("quotes and backslashes do not belong to what a local part means")
    func unquoted() {
        #expect(MailAddress(text: "\"a \\\"b\\\\\"@c")?.unquotedLocalPart == Array("a \"b\\".utf8))
        #expect(MailAddress(text: "plain@c")?.unquotedLocalPart == Array("plain".utf8))
    }

    @Test("no octets are the null reverse-path; postmaster alone is a forward-path in any case of letters")
    func paths() {
        #expect(ReversePath(octets: [UInt8]()) == .null)
        #expect(ForwardPath(octets: Array("PostMaster".utf8)) == .postmaster)
        #expect(ForwardPath(octets: [UInt8]()) == nil)
        #expect(ReversePath(octets: Array("nobody".utf8)) == nil)
    }
}

@Suite struct IPAddressTests {
    @Test(
        "addresses are read in every form and written in the customary one",
        arguments: [
            ("192.0.2.1", "192.0.2.1"), ("0.0.0.0", "0.0.0.0"), ("::", "::"), ("::1", "::1"),
            ("2001:DB8:0:0:0:0:0:1", "2001:db8::1"),
            ("2001:db8::8:800:200c:417a", "2001:db8::8:800:200c:417a"), ("1:0:0:2:0:0:0:3", "1:0:0:2::3"),
            ("fe80::", "fe80::"),
            ("::ffff:192.0.2.128", "192.0.2.128"), ("64:ff9b::192.0.2.33", "64:ff9b::c000:221"),
            ("1:2:3:4:5:6:7:8", "1:2:3:4:5:6:7:8"),
            ("1:0:3:4:5:6:7:8", "1:0:3:4:5:6:7:8"), ("::2:3:4:5:6:7:8", "0:2:3:4:5:6:7:8"),
        ])
    func readAndWritten(_ given: String, _ customary: String) {
        #expect(IPAddress(text: given)?.text == customary)
    }

    @Test(
        "what is not an address is refused",
        arguments: [
            "", ":", ":::", "1", "1.2.3", "1.2.3.4.5", "01.2.3.4", "256.1.1.1", "1.2.3.4 ", "::1::", "1:2:3:4:5:6:7",
            "1:2:3:4:5:6:7:8:9",
            "12345::", "g::", "1:2:3:4:5:6:7:", ":1:2:3:4:5:6:7", "::1.2.3", "1::2:3:4:5:6:7:8", "1.2.3.4:5",
        ])
    func refused(_ text: String) { #expect(IPAddress(text: text) == nil) }

    @Test("a network contains its addresses and no others")
    func networks() throws {
        let ten = try #require(Network(text: "10.0.0.0/8"))
        #expect(ten.contains(.v4(0x0A01_0203)))
        #expect(!ten.contains(.v4(0x0B00_0000)))
        let v6 = try #require(Network(text: "2001:db8::/33"))
        #expect(v6.contains(try #require(IPAddress(text: "2001:db8:7fff::1"))))
        #expect(!v6.contains(try #require(IPAddress(text: "2001:db8:8000::1"))))
        let all = try #require(Network(text: "0.0.0.0/0"))
        #expect(all.contains(.v4(.max)))
        #expect(!all.contains(.v6(0, 1)))
        #expect(try #require(Network(text: "::1")).contains(.v6(0, 1)))
        #expect(try #require(Network(text: "2001:db8::/64")).contains(.v6(0x2001_0db8_0000_0000, .max)))
    }

    @Test(
        "a network with bits beyond its prefix, or a length beyond its family, is refused",
        arguments: ["10.0.0.1/8", "10.0.0.0/33", "::1/0", "::/129", "10.0.0.0/", "/8", "10.0.0.0/8/8", "x"])
    func badNetworks(_ text: String) { #expect(Network(text: text) == nil) }
}

@Suite struct RouteTests {
    @Test(
        "routes are read and written alike",
        arguments: [
            ("local:alice", "local:alice"), ("bounce:", "bounce:"), ("remote:Example.ORG", "remote:example.org"),
            ("remote:[Mail.example.org]:587", "remote:[mail.example.org]:587"),
            ("remote:[192.0.2.1]:25", "remote:[192.0.2.1]:25"),
            ("remote:[2001:db8::1]", "remote:[2001:db8::1]"),
            ("remote:[IPv6:2001:db8::1]:26", "remote:[2001:db8::1]:26"),
            ("remote:127.0.0.1:2526", "remote:[127.0.0.1]:2526"), ("remote:example.org:26", "remote:example.org:26"),
            ("mailbox:vmail:example.org/joe", "mailbox:vmail:example.org/joe"),
            ("mailbox:vmail:example.org/j.o-e_+=1", "mailbox:vmail:example.org/j.o-e_+=1"),
            ("mailbox:vmail:example.org/%2E.%2Fx%3A%00%25", "mailbox:vmail:example.org/%2E.%2Fx%3A%00%25"),
            ("alias:list", "alias:list"), ("alias:größe", "alias:größe"), ("alias:a/b:c. d|e", "alias:a/b:c. d|e"),
        ])
    func roundTrip(_ given: String, _ written: String) throws {
        let route = try #require(Route(octets: Array(given.utf8)))
        #expect(route.octets == Array(written.utf8))
        #expect(Route(octets: route.octets) == route)
    }

    @Test(
        "a route names a place and nothing else",
        arguments: [
            "", "local:", "local:../etc", "local:-rf", "local:a/b", "local:a b", "bounce:x", "remote:", "remote:a b",
            "remote:[]",
            "remote:[a", "remote:a:0", "remote:a:65536", "remote:a:", "remote:[a]x", "pipe:sh", "local",
            "mailbox:", "mailbox:vmail", "mailbox:vmail:", "mailbox:vmail:example.org", "mailbox::example.org/joe",
            "mailbox:../x:example.org/joe", "mailbox:vmail:example.org/", "mailbox:vmail:/joe",
            "mailbox:vmail:example.org/..", "mailbox:vmail:../joe", "mailbox:vmail:.example.org/joe",
            "mailbox:vmail:example.org/a/b", "mailbox:vmail:example.org/a:b", "mailbox:vmail:example.org/a b",
            "mailbox:vmail:example.org/%6Aoe", "mailbox:vmail:example.org/a%2", "mailbox:vmail:example.org/a%2f",
            "mailbox:vmail:example.org/Joe", "alias:", "alias:List", "alias:a@b", "alias:a\nb", "alias:j\u{85}",
            "alias:" + String(repeating: "a", count: 256),
        ])
    func refused(_ text: String) { #expect(Route(octets: Array(text.utf8)) == nil) }

    @Test("no octet of an address gets into a path but letters, digits, - _ + = and a dot behind another")
    func mailboxNames() throws {
        for octet in UInt8.min...UInt8.max {
            let name = try #require(MailboxName(domain: [0x78, octet], localPart: [octet, octet]))
            for component in [name.domainComponent, name.localComponent] {
                #expect(component.allSatisfy { $0.isLetterOrDigit || Array("-_+=.%".utf8).contains($0) })
                #expect(component.first != ASCII.dot)
            }
            let route = Route.mailbox(owner: Array("vmail".utf8), name)
            #expect(Route(octets: route.octets) == route)
        }
    }

    @Test("two virtual users never share a name, and one name is written in one way")
    func mailboxNamesDiffer() throws {
        let parts = ["a", "%61", "%2561", ".a", "%2Ea", "a/b", "a%2Fb", "..", "."]
        let names = parts.compactMap { MailboxName(domain: Array("x.example".utf8), localPart: Array($0.utf8)) }
        #expect(Set(names.map(\.octets)).count == parts.count)
    }

    @Test("a name that is too long for a file is refused")
    func longMailboxNames() {
        let domain = Array("x.example".utf8)
        #expect(MailboxName(domain: domain, localPart: Array(repeating: 0x61, count: 200)) != nil)
        #expect(MailboxName(domain: domain, localPart: Array(repeating: 0x61, count: 201)) == nil)
        #expect(MailboxName(domain: domain, localPart: Array(repeating: 0x2F, count: 66)) != nil)
        #expect(MailboxName(domain: domain, localPart: Array(repeating: 0x2F, count: 67)) == nil)
        #expect(MailboxName(domain: domain, localPart: []) == nil)
    }
}

@Suite struct ValueTests {
    @Test("a message id is thirteen characters whose order is the order of the numbers")
    func messageIDs() {
        let ids = [0, 1, 31, 32, 1_795_446_231_123_456, UInt64.max].map { MessageID(rawValue: $0) }
        for id in ids {
            #expect(id.octets.count == 13)
            #expect(MessageID(octets: id.octets) == id)
            #expect(MessageID(octets: Array(id.text.uppercased().utf8)) == id)
        }
        #expect(ids.map(\.text).sorted() == ids.map(\.text))
        for text in ["", "0", "g000000000000", "000000000000i", "00000000000000", "000000000000!"] {
            #expect(MessageID(octets: Array(text.utf8)) == nil)
        }
    }

    @Test("an enhanced status is class 2, 4 or 5 and two numbers up to 999")
    func statuses() {
        #expect(EnhancedStatus(octets: Array("5.1.1".utf8)) == EnhancedStatus(.permanent, 1, 1))
        #expect(EnhancedStatus(.transient, 7, 999).octets == Array("4.7.999".utf8))
        for text in ["", "3.1.1", "5.1", "5.1.1.1", "5..1", "5.1.1000", "5.1.x", " 5.1.1", "5.0001.1"] {
            #expect(EnhancedStatus(octets: Array(text.utf8)) == nil)
        }
    }

    @Test("an outcome's text cannot hold a line break and is never empty, and its status agrees with its kind")
    func outcomes() {
        let outcome = DeliveryOutcome(
            .failed, code: 550, status: EnhancedStatus(.transient, 1, 1), reporter: Array("mx\n".utf8),
            text: Array("no\r\nX: y\u{0}".utf8))
        #expect(outcome.text == Array("no??X: y?".utf8))
        #expect(outcome.reporter == Array("mx?".utf8))
        #expect(outcome.status == EnhancedStatus(.permanent, 0, 0))
        #expect(
            !DeliveryOutcome(.deferred, code: 0, status: EnhancedStatus(.transient, 0, 0), reporter: "", text: "").text
                .isEmpty)
        let long = DeliveryOutcome(
            .delivered, code: 250, status: EnhancedStatus(.success, 0, 0), reporter: "a",
            text: String(repeating: "x", count: 9_999))
        #expect(long.text.count == DeliveryOutcome.textOctetCountMax)
    }

    @Test("a reply has its code on every line and nothing in it can start a line")
    func replies() {
        let reply = Reply(
            550, EnhancedStatus(.permanent, 1, 1), lines: [Array("one\r\n250 ok".utf8), Array("two".utf8)])
        #expect(reply.octets == Array("550-5.1.1 one??250 ok\r\n550 5.1.1 two\r\n".utf8))
    }

    @Test("instants move by durations and stop at the ends of time")
    func timestamps() {
        let now = Timestamp(microseconds: 1_000_000)
        #expect(now.advanced(by: .seconds(2)).microseconds == 3_000_000)
        #expect(now.advanced(by: .milliseconds(-500)).microseconds == 500_000)
        #expect(now.advanced(by: .seconds(-5)).microseconds == 0)
        #expect(now.advanced(by: .seconds(Int64.max / 4)).microseconds == .max)
        #expect(now.elapsed(since: Timestamp(microseconds: 250_000)) == .milliseconds(750))
        #expect(now.elapsed(since: Timestamp(microseconds: 2_000_000)) == .zero)
    }

    @Test("a decimal number has digits only and stays below its limit")
    func decimals() {
        #expect(Array("18446744073709551615".utf8).decimal() == .max)
        #expect(Array("18446744073709551616".utf8).decimal() == nil)
        #expect(Array("99999999999999999999".utf8).decimal() == nil)
        #expect(Array("007".utf8).decimal() == 7)
        #expect(Array("10".utf8).decimal(limit: 9) == nil)
        for text in ["", "-1", "+1", "1 ", "0x1"] { #expect(Array(text.utf8).decimal() == nil) }
        var octets: [UInt8] = []
        octets.append(decimal: Int64.min)
        octets.append(decimal: UInt64.max)
        octets.append(decimal: 0)
        #expect(octets == Array("-9223372036854775808184467440737095516150".utf8))
    }
}

@Suite struct VariableReversePathTests {
    static let paths: [(String, String, String)] = [
        ("list@example.org", "joe@example.net", "list+joe=example.net@example.org"),
        ("list@example.org", "joe+tag@example.net", "list+joe+tag=example.net@example.org"),
        ("list@example.org", "postmaster", "list@example.org"),
        ("list@example.org", "\"j o\"@example.net", "list@example.org"),
        ("list@example.org", "joe@[192.0.2.1]", "list@example.org"),
        ("", "joe@example.net", ""),
        ("list@example.org", String(repeating: "j", count: 245) + "@example.net", "list@example.org"),
    ]

    @Test("a reverse-path of a recipient's own names him, or is the plain one", arguments: paths)
    func variable(sender: String, recipient: String, expected: String) throws {
        let path = try #require(ReversePath(octets: Array(sender.utf8)))
        let to = try #require(ForwardPath(octets: Array(recipient.utf8)))
        #expect(path.variable(for: to).octets.printableText == expected)
        let hyphened = expected.replacing("list+", with: "list-")
        #expect(path.variable(for: to, .hyphen).octets.printableText == hyphened)
    }
}
