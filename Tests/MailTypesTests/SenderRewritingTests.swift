// SPDX-License-Identifier: Apache-2.0

import MailTypes
import Testing

@Suite("Rewritten senders")
struct SenderRewritingTests {
    private static func rewriting(_ domain: String, _ secret: UInt8 = 7) -> SenderRewriting {
        SenderRewriting(domain: Array(domain.utf8)) { octets in
            var code: [UInt8] = [secret, 1, 2, 3, 4]
            for (place, octet) in octets.enumerated() { code[place % 5] = code[place % 5] &* 31 &+ octet }
            return code
        }
    }

    private let here = Self.rewriting("srs.example")
    private let now = Timestamp(microseconds: 1_790_000_000_000_000)

    private func address(_ text: String) throws -> MailAddress { try #require(MailAddress(text: text)) }

    @Test(
        "lead back to the sender, in whatever case they come back",
        arguments: ["alice@a.example", "a=b+c@d.example", "A.B@C.Example"])
    func back(text: String) throws {
        let sender = try self.address(text)
        let rewritten = self.here.rewritten(sender, at: self.now)
        #expect(rewritten.text.hasPrefix("SRS0="))
        #expect(rewritten.domain.elementsEqual("srs.example".utf8))
        #expect(self.here.isOurs(rewritten))
        #expect(self.here.original(rewritten, at: self.now) == sender)
        for other in [rewritten.text.lowercased(), rewritten.text.uppercased()] {
            let original = try #require(self.here.original(try self.address(other), at: self.now))
            #expect(original.text.lowercased() == text.lowercased())
        }
    }

    @Test("are those of the first forwarder behind a second and a third one")
    func chain() throws {
        let sender = try self.address("alice@a.example")
        let second = Self.rewriting("second.example", 8)
        let third = Self.rewriting("third.example", 9)
        let one = self.here.rewritten(sender, at: self.now)
        let two = second.rewritten(one, at: self.now)
        let three = third.rewritten(two, at: self.now)
        #expect(two.text.hasPrefix("SRS1="))
        #expect(three.text.hasPrefix("SRS1="))
        #expect(three.text.contains("srs.example=="))
        #expect(!three.text.contains("second.example"))
        #expect(third.original(three, at: self.now) == one)
        #expect(second.original(two, at: self.now) == one)
        #expect(self.here.original(one, at: self.now) == sender)
    }

    @Test("are taken for three weeks, also where the count of days begins anew")
    func age() throws {
        let sender = try self.address("alice@a.example")
        for start in [UInt64(1_024 * 20 - 3), 20_717] {
            let made = Timestamp(microseconds: start * 86_400_000_000)
            let rewritten = self.here.rewritten(sender, at: made)
            for day in UInt64(0)...30 {
                let later = Timestamp(microseconds: (start + day) * 86_400_000_000)
                #expect((self.here.original(rewritten, at: later) != nil) == (day <= 21), "day \(day)")
            }
        }
    }

    @Test("are taken only as we have made them")
    func forged() throws {
        let rewritten = self.here.rewritten(try self.address("alice@a.example"), at: self.now).text
        let at = try #require(rewritten.firstIndex(of: "@"))
        for place in rewritten[..<at].indices.dropFirst(5) {
            var changed = rewritten
            changed.replaceSubrange(place...place, with: rewritten[place] == "x" ? "y" : "x")
            guard let address = MailAddress(text: changed) else { continue }
            #expect(self.here.original(address, at: self.now) == nil, "\(changed)")
        }
        for text in [
            "SRS0=@srs.example", "SRS0=a=b@srs.example", "SRS1=a=b@srs.example", "SRS0@srs.example", "srs@srs.example",
        ] {
            guard let address = MailAddress(text: text) else { continue }
            #expect(self.here.original(address, at: self.now) == nil)
        }
        #expect(Self.rewriting("srs.example", 99).original(try self.address(rewritten), at: self.now) == nil)
    }

    @Test("are not made of what is ours already, or is in quotes, or would be too long")
    func same() throws {
        for text in ["bob@srs.example", "\"a b\"@c.example", String(repeating: "a", count: 240) + "@b.example"] {
            let address = try self.address(text)
            #expect(self.here.rewritten(address, at: self.now) == address)
        }
    }
}
