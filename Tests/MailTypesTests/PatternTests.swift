// SPDX-License-Identifier: Apache-2.0

import MailTypes
import Testing

@Suite struct PatternTests {
    @Test(
        "a pattern of domains matches the domains that it names",
        arguments: [
            ("example.org", "EXAMPLE.org", true), ("example.org", "mx.example.org", false),
            ("*.example.org", "mx.example.org", true), ("*.example.org", "a.b.Example.ORG", true),
            ("*.example.org", "example.org", false), ("*.example.org", "badexample.org", false),
            ("*.example.org", ".example.org", false), ("*", "anything.example", true),
            ("192.0.2.1", "192.0.2.1", true), ("192.0.2.1", "192.0.2.11", false),
        ])
    func domains(_ pattern: String, _ domain: String, _ isMatch: Bool) {
        #expect(DomainPattern(text: pattern)?.matches(Array(domain.utf8)) == isMatch)
    }

    @Test(
        "what is no pattern of domains is refused", arguments: ["", ".", "*.", "*example.org", "a b", "@example.org"])
    func wrongDomains(_ text: String) { #expect(DomainPattern(text: text) == nil) }

    @Test(
        "a next hop is matched by its domain, its host or its address, whatever its port",
        arguments: [
            ("example.org", "example.org:2525", true), ("mail.example.org", "[mail.example.org]:587", true),
            ("192.0.2.1", "[192.0.2.1]:25", true), ("2001:db8::1", "[2001:db8::1]", true),
            ("example.org", "[192.0.2.1]", false),
        ])
    func nextHops(_ pattern: String, _ nextHop: String, _ isMatch: Bool) throws {
        let hop = try #require(NextHop(octets: Array(nextHop.utf8)))
        #expect(DomainPattern(text: pattern)?.matches(hop) == isMatch)
    }

    @Test(
        "a pattern of senders matches the reverse-paths that it names",
        arguments: [
            ("news@example.org", "news@EXAMPLE.org", true), ("news@example.org", "News@example.org", false),
            ("@example.org", "anybody@example.org", true), ("@example.org", "anybody@mx.example.org", false),
            ("@*.example.org", "anybody@mx.example.org", true), ("<>", "", true), ("<>", "a@example.org", false),
            ("@*", "", false), ("@*", "a@b.example", true),
        ])
    func senders(_ pattern: String, _ path: String, _ isMatch: Bool) throws {
        let reversePath = try #require(ReversePath(octets: Array(path.utf8)))
        #expect(SenderPattern(text: pattern)?.matches(reversePath) == isMatch)
    }

    @Test(
        "what is no pattern of senders is refused", arguments: ["", "news", "a b@example.org", "<a@example.org>", "@"])
    func wrongSenders(_ text: String) { #expect(SenderPattern(text: text) == nil) }
}
