// SPDX-License-Identifier: Apache-2.0

import MailTypes
import Testing

@Suite struct NextHopTests {
    @Test(
        "a next hop is written as it was read",
        arguments: [
            "example.org", "example.org:2525", "[mail.example.org]:587", "[192.0.2.1]", "[2001:db8::1]:25", "lmtp:24",
            "lmtp:/run/dovecot/lmtp", "lmtp:[127.0.0.1]:24", "lmtp:[mail.example.org]",
        ])
    func same(_ text: String) throws {
        let nextHop = try #require(NextHop(octets: Array(text.utf8)))
        #expect(nextHop.octets.printableText == text)
        #expect(nextHop.isLMTP == (text.hasPrefix("lmtp:") && text != "lmtp:24"))
        #expect(Route(octets: Array("remote:\(text)".utf8)) == .remote(nextHop))
    }

    @Test(
        "what is no next hop is refused",
        arguments: [
            "", "/run/dovecot/lmtp", "lmtp:", "lmtp:example.org", "lmtp:/a b", "lmtp:/run/x\n", "lmtp:[127.0.0.1",
            "[x y]",
            "example.org:0", "lmtp:/" + String(repeating: "x", count: 107),
        ])
    func wrong(_ text: String) { #expect(NextHop(octets: Array(text.utf8)) == nil) }
}
