// SPDX-License-Identifier: Apache-2.0

import MailTypes
import MessageCore
import Testing

private func octets(_ text: String) -> [UInt8] { Array(text.utf8) }

private func fields(_ text: String, isWholeMessage: Bool = true) -> [String] {
    HeaderFields(octets(text), isWholeMessage: isWholeMessage).map {
        "\($0.name.printableText)=\($0.value.printableText)"
    }
}

@Suite("The header of a message")
struct HeaderFieldsTests {
    static let cases: [(String, [String], String)] = [
        ("A: 1\r\nB: 2\r\n\r\nbody\r\n", ["A=1", "B=2"], "body\r\n"),
        ("A: 1\nB: 2\n\nbody\n", ["A=1", "B=2"], "body\n"),
        ("Subject: one\r\n two\r\n\tthree\r\nB: \r\n\r\n", ["Subject=one two?three", "B="], ""),
        ("A : 1\r\n\r\n", ["A=1"], ""),
        ("A:1", ["A=1"], ""),
        ("\r\nA: 1\r\n", [], "A: 1\r\n"),
        ("", [], ""),
        (" A: 1\r\nB: 2\r\n", [], " A: 1\r\nB: 2\r\n"),
        ("A: 1\r\nno field here\r\nB: 2\r\n", ["A=1"], "no field here\r\nB: 2\r\n"),
        (": 1\r\n", [], ": 1\r\n"),
        ("From joe Mon Jan 1\r\nA: 1\r\n\r\nx", ["A=1"], "x"),
        (">From joe Mon Jan 1\r\nA: 1\r\n\r\nx", ["A=1"], "x"),
        ("A: 1\r\nFrom joe Mon Jan 1\r\n", ["A=1"], "From joe Mon Jan 1\r\n"),
        ("A: 1\r\n \r\nB: 2\r\n\r\n", ["A=1", "B=2"], ""),
        ("A: x\u{E9}y\r\n\r\n", ["A=x??y"], ""),
        ("A\u{E9}: x\r\n\r\n", [], "A\u{E9}: x\r\n\r\n"),
        ("A: a:b: c\r\n\r\n", ["A=a:b: c"], ""),
    ]

    @Test("gives each field with its unfolded value and ends where the body begins", arguments: cases)
    func fieldsAndEnd(text: String, wanted: [String], body: String) {
        let header = HeaderFields(octets(text), isWholeMessage: true)
        #expect(fields(text) == wanted)
        #expect(header.bodyOffset.map { header.octets[$0...].elementsEqual(body.utf8) } == true)
    }

    @Test("is found the same in every beginning of a message that reaches past it", arguments: cases)
    func everyCut(text: String, wanted: [String], body: String) {
        let whole = octets(text)
        let complete = HeaderFields(whole, isWholeMessage: true)
        for cut in 0...whole.count {
            let header = HeaderFields(Array(whole[..<cut]), isWholeMessage: false)
            if let bodyOffset = header.bodyOffset {
                #expect(bodyOffset == complete.bodyOffset)
                #expect(header.endOffset == complete.endOffset)
                #expect(header.map { $0.value.printableText } == complete.map { $0.value.printableText })
            } else {
                // What is there so far is a beginning of the fields, and none of them is cut.
                let some = header.map { $0.value.printableText }
                #expect(complete.map { $0.value.printableText }.starts(with: some))
            }
        }
    }

    @Test("leaves out the field that a cut may have shortened")
    func cutField() {
        #expect(fields("A: 1\r\nB: 2\r\n", isWholeMessage: false) == ["A=1"])
        #expect(fields("A: 1\r\nB: 2\r\n three", isWholeMessage: false) == ["A=1"])
        #expect(fields("A: 1", isWholeMessage: false) == [])
    }

    @Test("gives the raw octets of a field with its line ends")
    func rawOctets() {
        let header = HeaderFields(octets("A: 1\r\nB: 2\r\n  3\r\n\r\n"), isWholeMessage: true)
        #expect(header.map { $0.octets.printableText } == ["A: 1??", "B: 2??  3??"])
    }

    @Test("finds the first field of a name in any case of letters")
    func valueOfName() {
        let header = HeaderFields(
            octets("a: 0\r\nMessage-ID: <1@x>\r\nmessage-id: <2@x>\r\n\r\n"), isWholeMessage: true)
        #expect(header.value(of: "message-Id") == octets("<1@x>"))
        #expect(header.value(of: "Message") == nil)
    }
}
