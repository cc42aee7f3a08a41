// SPDX-License-Identifier: Apache-2.0

import MailTypes
import Testing

private func octets(_ text: String) -> [UInt8] { Array(text.utf8) }

@Suite("Addresses beyond ASCII (RFC 6531 §3.3)")
struct UnicodeAddressTests {
    static let addresses: [(String, AddressAlphabet?)] = [
        ("joe@example.org", .ascii), ("jörg@example.org", .unicodeLocalPart),
        ("δοκιμή.x@example.org", .unicodeLocalPart),
        ("\"jö rg\"@example.org", .unicodeLocalPart), ("\"j\\ö\"@example.org", .unicodeLocalPart),
        ("joe@bücher.example", .unicode), ("jörg@bücher.example", .unicode), ("用户@例子.测试", .unicode),
        ("jörg@[192.0.2.1]", .unicodeLocalPart), ("j\u{1F600}@example.org", .unicodeLocalPart),
        ("jö rg@example.org", nil), ("jö..rg@example.org", nil), ("jörg@ü..example", nil), ("jörg@-ü.example", nil),
        ("jörg@", nil), ("@ü.example", nil), ("jörg", nil), ("j\u{85}rg@example.org", nil),
        ("j\u{FFFD}@example.org", nil), ("jörg@[ü]", nil),
        (String(repeating: "ö", count: 127) + "@example.org", .unicodeLocalPart),
        (String(repeating: "ö", count: 128) + "@example.org", nil),
    ]

    @Test("are read where they are allowed, and nowhere else", arguments: addresses)
    func grammar(text: String, least: AddressAlphabet?) {
        let readers: [AddressAlphabet] = [.ascii, .unicodeLocalPart, .unicode]
        let from = least.flatMap { readers.firstIndex(of: $0) } ?? readers.count
        for (index, alphabet) in readers.enumerated() {
            let address = MailAddress(octets: octets(text), alphabet: alphabet)
            #expect((address != nil) == (index >= from), "\(text) as \(alphabet)")
            if let address { #expect(address.isInternational == !text.utf8.isASCII) }
        }
    }

    @Test("are none if they are no UTF-8, at whatever octet they were cut")
    func cuts() {
        let whole = octets("δοκιμή")
        for count in 0...whole.count {
            let address = MailAddress(octets: whole[..<count] + octets("@example.org"), alphabet: .unicode)
            #expect((address != nil) == (count > 0 && count.isMultiple(of: 2)), "\(count) octets")
        }
        for octet: UInt8 in [0x80, 0xBF, 0xC0, 0xF5, 0xFF] {
            #expect(MailAddress(octets: [octet] + octets("@example.org"), alphabet: .unicode) == nil)
        }
    }

    @Test("have two cases for the letters of ASCII alone")
    func cases() {
        #expect(octets("JÖRG").lowercasedOctets == octets("jÖrg"))
        #expect(!octets("jörg").equalsIgnoringCase(octets("JÖRG")))
    }

    static let coded: [(String, String)] = [
        ("jörg@a.example", "j\\x{F6}rg@a.example"), ("δ@a", "\\x{3B4}@a"), ("a+b=c\\@d", "a\\x{2B}b\\x{3D}c\\x{5C}@d"),
        ("\"a b\"@c", "\"a\\x{20}b\"@c"), ("\u{1F600}@a", "\\x{1F600}@a"), ("plain@a", "plain@a"),
    ]

    @Test("have a form in ASCII, out of which they come again (RFC 6533 §3)", arguments: coded)
    func coding(text: String, coded: String) {
        #expect(Xtext.encodeUnicode(octets(text)) == octets(coded))
        #expect(Xtext.isUnicodeXtext(octets(coded)))
        #expect(Xtext.decodeUnicode(octets(coded)) == octets(text))
    }

    @Test("stand in ORCPT in UTF-8 or in that form, and are kept in the latter")
    func originalRecipient() throws {
        let given = octets("utf-8;jörg+@a.example".replacing("+", with: "\\x{2B}"))
        #expect(RecipientDSN.isOriginalRecipient(given, allowsUnicode: true))
        #expect(!RecipientDSN.isOriginalRecipient(given))
        #expect(!RecipientDSN.isOriginalRecipient(octets("rfc822;jörg@a.example"), allowsUnicode: true))
        #expect(!RecipientDSN.isOriginalRecipient(octets("utf-8;j") + [0xF6], allowsUnicode: true))
        let kept = try #require(RecipientDSN.asciiOriginalRecipient(given))
        #expect(kept == octets("utf-8;j\\x{F6}rg\\x{2B}@a.example"))
        let dsn = RecipientDSN(originalRecipient: kept)
        #expect(dsn.reportedOriginal(isCoded: true) == octets("utf-8; j\\x{F6}rg\\x{2B}@a.example"))
        #expect(dsn.reportedOriginal(isCoded: false) == octets("utf-8; jörg+@a.example"))
        let long = octets("utf-8;" + String(repeating: "ö", count: 200))
        #expect(RecipientDSN.isOriginalRecipient(long, allowsUnicode: true))
        #expect(RecipientDSN.asciiOriginalRecipient(long) == nil)
        let path = try #require(ForwardPath(octets: octets("jörg@a.example"), alphabet: .unicodeLocalPart))
        #expect(RecipientDSN.originalRecipient(of: path) == octets("utf-8;j\\x{F6}rg@a.example"))
    }

    @Test("a message asks for SMTPUTF8 in three ways, each with a word of its own")
    func demand() {
        for demand in UnicodeDemand.allCases { #expect(UnicodeDemand(octets: demand.octets) == demand) }
        #expect(UnicodeDemand(octets: octets("SMTPUTF8")) == nil)
        #expect(UnicodeDemand.none.with(unicodeHeader: true) == .none)
        #expect(UnicodeDemand.asked.with(unicodeHeader: true) == .inHeader)
        #expect(UnicodeDemand.inHeader.with(unicodeHeader: false) == .inHeader)
    }
}
