// SPDX-License-Identifier: Apache-2.0

import IDN
import MailTypes
import Testing

@Suite struct DomainMappingTests {
    private func ascii(_ text: String) -> String? {
        DomainMapping.idna2008.ascii(Array(text.utf8)).map { String(decoding: $0, as: UTF8.self) }
    }

    @Test(
        "a U-label becomes its A-label, with the mappings of UTS #46",
        arguments: [
            ("bücher.example", "xn--bcher-kva.example"),
            ("BÜCHER.Example", "xn--bcher-kva.example"),
            // The same letter in two characters.
            ("bu\u{308}cher.example", "xn--bcher-kva.example"),
            // Non-transitional: the sharp s stays one.
            ("straße.example", "xn--strae-oqa.example"),
            ("παράδειγμα.δοκιμή", "xn--hxajbheg2az3al.xn--jxalpdlp"),
            ("例え。テスト", "xn--r8jz45g.xn--zckzah"),
            ("mail.bücher.example", "mail.xn--bcher-kva.example"),
        ])
    func mapped(_ text: String, _ expected: String) { #expect(self.ascii(text) == expected) }

    @Test(
        "what is ASCII stays as it is",
        arguments: [
            "example.org", "xn--bcher-kva.example", "Example.ORG", "a_b.example", "[192.0.2.1]",
        ])
    func kept(_ text: String) { #expect(self.ascii(text) == text) }

    @Test(
        "what is no domain in any alphabet has no form in ASCII",
        arguments: [
            "", "ü..example", ".ü.example", "-ü.example", "ü\u{0}.example", "ü @.example", "\u{200D}.example", "ü.",
            "a.-ü",
            "\u{FFFD}.example", String(repeating: "ü", count: 64) + ".example",
        ])
    func refused(_ text: String) { #expect(self.ascii(text) == nil) }

    @Test("an address keeps its local part, octet for octet")
    func address() {
        let address = MailAddress(octets: Array("Jörg+Ä@Bücher.example".utf8), domains: .idna2008)
        #expect(address?.octets == Array("Jörg+Ä@xn--bcher-kva.example".utf8))
        #expect(address?.isInternational == true)
        let plain = MailAddress(octets: Array("joe@bücher.example".utf8), domains: .idna2008)
        #expect(plain?.isInternational == false)
        #expect(MailAddress(octets: Array("joe@ü..example".utf8), domains: .idna2008) == nil)
    }
}
