// SPDX-License-Identifier: Apache-2.0

import DNSCore
import MailTypes
import Testing

/// Writes messages of any shape, also wrong ones.
struct MessageWriter {
    var octets: [UInt8] = []

    mutating func number(_ value: Int) { self.octets += [UInt8(value >> 8 & 255), UInt8(value & 255)] }

    mutating func name(_ text: String) {
        for label in text.split(separator: ".") {
            self.octets.append(UInt8(label.utf8.count))
            self.octets += Array(label.utf8)
        }
        self.octets.append(0)
    }

    mutating func header(id: Int, flags: Int, questions: Int = 1, answers: Int = 0, authority: Int = 0) {
        for value in [id, flags, questions, answers, authority, 0] { self.number(value) }
    }

    mutating func question(_ name: String, _ type: DNSType) {
        self.name(name)
        self.number(Int(type.rawValue))
        self.number(1)
    }

    mutating func record(_ name: String, _ type: Int, ttl: Int = 300, class recordClass: Int = 1, _ data: [UInt8]) {
        self.name(name)
        self.number(type)
        self.number(recordClass)
        self.number(ttl >> 16)
        self.number(ttl & 0xFFFF)
        self.number(data.count)
        self.octets += data
    }

    static func wire(_ name: String) -> [UInt8] {
        var writer = MessageWriter()
        writer.name(name)
        return writer.octets
    }

    static func mx(_ preference: Int, _ name: String) -> [UInt8] { [0, UInt8(preference)] + Self.wire(name) }

    static var soa: [UInt8] { [0, 0] + [UInt8](repeating: 0, count: 16) + [0, 0, 0, 30] }
}

private func name(_ text: String) -> DNSName { DNSName(text: text) ?? .root }

private func fault(_ octets: [UInt8]) -> DNSFault? {
    do throws(DNSFault) {
        _ = try DNSMessage(octets: octets, recordCountMax: 10)
        return nil
    } catch { return error }
}

@Suite("DNS names")
struct DNSNameTests {
    @Test(
        "names are read and written in lower case",
        arguments: [("Example.ORG", "example.org"), ("example.org.", "example.org"), ("a", "a"), ("", ""), (".", "")])
    func names(_ text: String, _ expected: String) {
        #expect(DNSName(text: text)?.text == expected)
    }

    @Test(
        "what is too long or has empty labels is no name",
        arguments: [
            "a..b", ".a", "..", String(repeating: "a", count: 64) + ".org",
            Array(repeating: String(repeating: "a", count: 50), count: 5).joined(separator: "."),
        ])
    func badNames(_ text: String) { #expect(DNSName(text: text) == nil) }

    @Test("localhost is known by its last label, not by its last letters")
    func localhost() {
        #expect(name("localhost").isLocalhost)
        #expect(name("a.LocalHost").isLocalhost)
        #expect(!name("notlocalhost").isLocalhost)
        #expect(!name("localhost.org").isLocalhost)
    }

    @Test(
        "host names are letters, digits, hyphens and underscores",
        arguments: [
            ("mx-1.example.org", true), ("a_b.example", true), ("", false), ("-a.org", false), ("a b.org", false),
            ("é.org", false),
        ])
    func hostNames(_ text: String, _ isHostName: Bool) { #expect(name(text).isHostName == isHostName) }
}

@Suite("DNS messages")
struct DNSMessageTests {
    @Test("a query is the octets that RFC 1035 and RFC 6891 say")
    func query() {
        let question = DNSQuestion(name("a.bc"), .mx)
        let plain: [UInt8] = [0x12, 0x34, 1, 0x20, 0, 1, 0, 0, 0, 0, 0, 0, 1, 0x61, 2, 0x62, 0x63, 0, 0, 15, 0, 1]
        #expect(DNSMessage.query(id: 0x1234, question, hasEDNS: false) == plain)
        var extended = plain
        extended[11] = 1
        extended += [0, 0, 41, 0x04, 0xD0, 0, 0, 0, 0, 0, 0]
        #expect(DNSMessage.query(id: 0x1234, question, hasEDNS: true) == extended)
    }

    /// An answer with every kind of record, names compressed and not.
    private var everything: [UInt8] {
        var writer = MessageWriter()
        writer.header(id: 7, flags: 0x81A0, answers: 7, authority: 1)
        writer.question("Example.org", .mx)
        writer.record("example.org", 15, MessageWriter.mx(10, "MX.example.org"))
        // The owner is a pointer to the question's name, the exchange ends in one.
        writer.octets += [0xC0, 12, 0, 15, 0, 1, 0, 0, 1, 44, 0, 7, 0, 20, 2, 0x6D, 0x79, 0xC0, 12]
        writer.record("mx.example.org", 1, [192, 0, 2, 1])
        writer.record("mx.example.org", 28, [0x20, 1, 0x0D, 0xB8] + [UInt8](repeating: 0, count: 11) + [1])
        writer.record("www.example.org", 5, MessageWriter.wire("mx.example.org"))
        writer.record("example.org", 16, [2, 0x61, 0x62, 1, 0x63])
        writer.record("_25._tcp.mx.example.org", 52, [3, 1, 1, 0xAB, 0xCD])
        writer.record("example.org", 6, MessageWriter.soa)
        return writer.octets
    }

    @Test("every kind of record is read")
    func decodes() throws {
        let message = try DNSMessage(octets: self.everything, recordCountMax: 10)
        #expect(message.id == 7)
        #expect(message.isResponse && message.isAuthentic && !message.isTruncated)
        #expect(message.responseCode == .noError)
        #expect(message.question == DNSQuestion(name("example.org"), .mx))
        #expect(
            message.answers.map(\.value) == [
                .mx(preference: 10, exchange: name("mx.example.org")),
                .mx(preference: 20, exchange: name("my.example.org")),
                .address(.v4(0xC000_0201)),
                .address(.v6(0x2001_0DB8_0000_0000, 1)),
                .cname(name("mx.example.org")),
                .txt(Array("abc".utf8)),
                .tlsa(usage: 3, selector: 1, matching: 1, data: [0xAB, 0xCD]),
            ])
        #expect(message.answers[1].name == name("example.org") && message.answers[1].ttl == 300)
        #expect(message.authority.map(\.value) == [.soa(minimum: 30)])
    }

    @Test("a message that is cut anywhere is refused")
    func everyCut() {
        let octets = self.everything
        for count in octets.indices { #expect(fault(Array(octets[..<count])) != nil) }
    }

    @Test("no octet that is changed makes the reader crash or loop")
    func everyChange() {
        let octets = self.everything
        for index in octets.indices {
            for value: UInt8 in [0, 1, 0x3F, 0x40, 0x80, 0xC0, 0xFF, octets[index] ^ 1] {
                var changed = octets
                changed[index] = value
                _ = fault(changed)
            }
        }
    }

    @Test("pointers that point to themselves, forwards or in circles are refused")
    func pointers() {
        func answer(_ owner: [UInt8]) -> [UInt8] {
            var writer = MessageWriter()
            writer.header(id: 7, flags: 0x8180, questions: 0, answers: 1)
            writer.octets += owner + [0, 1, 0, 1, 0, 0, 0, 0, 0, 4, 1, 2, 3, 4]
            return writer.octets
        }
        #expect(fault(answer([0xC0, 12])) == .badPointer)
        #expect(fault(answer([0xC0, 14])) == .badPointer)
        #expect(fault(answer([0xFF, 0xFF])) == .badPointer)
        #expect(fault(answer([1, 0x61, 0xC0, 12])) == .badPointer)
        #expect(fault(answer([0x80, 0])) == .badLabel)
        #expect(fault(answer([0x40])) == .badLabel)
        // Backwards into the header: octets as good as any, and the end is a zero.
        #expect(fault(answer([0xC0, 8])) == nil)
    }

    @Test("a name longer than 255 octets is refused, by whatever pointers it comes together")
    func longName() {
        var writer = MessageWriter()
        writer.header(id: 7, flags: 0x8180, questions: 0, answers: 2)
        writer.octets += [63] + [UInt8](repeating: 0x61, count: 63)
        writer.octets += [63] + [UInt8](repeating: 0x61, count: 63)
        writer.octets += [63] + [UInt8](repeating: 0x61, count: 63) + [0]
        writer.octets += [0, 1, 0, 1, 0, 0, 0, 0, 0, 4, 1, 2, 3, 4]
        let good = writer.octets + [61] + [UInt8](repeating: 0x62, count: 61) + [0xC0, 12]
        let bad = writer.octets + [62] + [UInt8](repeating: 0x62, count: 62) + [0xC0, 12]
        let rest: [UInt8] = [0, 1, 0, 1, 0, 0, 0, 0, 0, 4, 1, 2, 3, 4]
        #expect(fault(good + rest) == nil)
        #expect(fault(bad + rest) == .nameTooLong)
    }

    @Test("a record whose fields do not fill its length is refused")
    func badLengths() {
        func answer(_ type: Int, _ data: [UInt8]) -> [UInt8] {
            var writer = MessageWriter()
            writer.header(id: 7, flags: 0x8180, questions: 0, answers: 1)
            writer.record("a", type, data)
            // So that a field that reads too far finds octets.
            return writer.octets + [UInt8](repeating: 0, count: 40)
        }
        #expect(fault(answer(1, [1, 2, 3])) == .badRecord)
        #expect(fault(answer(1, [1, 2, 3, 4, 5])) == .badRecord)
        #expect(fault(answer(28, [UInt8](repeating: 1, count: 15))) == .badRecord)
        #expect(fault(answer(15, MessageWriter.mx(1, "b") + [0])) == .badRecord)
        #expect(fault(answer(5, [])) == .badRecord)
        #expect(fault(answer(16, [5, 0x61])) == .badRecord)
        #expect(fault(answer(52, [1, 2])) == .badRecord)
        #expect(fault(answer(6, MessageWriter.soa.dropLast())) == .badRecord)
        // What is not understood is passed over, whatever is in it.
        #expect(fault(answer(99, [5, 0x61])) == nil)
    }

    @Test("more records than the limit are refused, and other classes passed over")
    func limits() throws {
        var writer = MessageWriter()
        writer.header(id: 7, flags: 0x8180, questions: 0, answers: 11)
        #expect(fault(writer.octets) == .tooManyRecords)

        var other = MessageWriter()
        other.header(id: 7, flags: 0x8180, questions: 0, answers: 1)
        other.record("a", 1, class: 3, [1, 2, 3, 4])
        #expect(try DNSMessage(octets: other.octets, recordCountMax: 10).answers.isEmpty)
    }
}
