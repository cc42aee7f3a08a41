// SPDX-License-Identifier: Apache-2.0

import Foundation
import MailTypes
import Testing

@testable import MessageCore

private func octets(_ text: String) -> [UInt8] { Array(text.utf8) }

/// A file of the source tree.
private func file(_ path: String) throws -> [UInt8] {
    let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent()
    return Array(try Data(contentsOf: root.appendingPathComponent(path)))
}

@Suite("The words of reports")
struct ReportTemplateTests {
    @Test("in English are the shipped ones, and there are Polish ones")
    func shipped() throws {
        #expect(try file("etc/reports/en.template") == octets(ReportTemplate.englishText + "\n"))
        #expect(try ReportTemplate(octets: file("etc/reports/en.template")) == .english)
        let polish = try ReportTemplate(octets: file("etc/reports/pl.template"))
        #expect(polish.language == octets("pl"))
        // Whatever can be said in one can be said in the other.
        for section in ReportTemplate.Section.allCases {
            let values = Dictionary(uniqueKeysWithValues: section.places.map { ($0, octets("<\($0.rawValue)>")) })
            for place in section.places where section != .from {
                for template in [ReportTemplate.english, polish] {
                    let text = String(decoding: template.text(section, values), as: UTF8.self)
                    #expect(text.contains("<\(place.rawValue)>"), "\(section) of \(template.language.printableText)")
                }
            }
        }
    }

    @Test("put in what they are given, once, and look at it no more")
    func places() {
        let text = ReportTemplate.english.text(
            .saidByServer, [.server: octets("{words}"), .words: octets("{server}\u{1}")])
        #expect(text == octets("The server {words} said: {server}\u{1}"))
    }

    /// What is put in the place of a line of the English template, where the fault is told, and in which words.
    static let faults: [(String, String, String)] = [
        ("[more]", "[moar]", "[moar] is no section of a report"),
        ("[more]", "[retry]", "[retry] stands here for the second time"),
        ("[more]", "", "{count} cannot stand in [retry], only {time} can"),
        ("This is the mail server {server}.", "", "[greeting] above has no text"),
        ("This is the mail server {server}.", "{server", "a { without its }"),
        ("This is the mail server {server}.", "{id}", "{id} cannot stand in [greeting], only {server} can"),
        ("Your mail is delayed", "one\n\ntwo", "[subject delayed] above must be one paragraph"),
        ("en", "{server}", "{server} cannot stand in [language]"),
        ("en", "en us", "[language] must be a tag such as en or pl"),
        ("[language]", "hello", "stands in front of all sections"),
        ("Your mail is delayed", "\u{1}", "is no text in UTF-8"),
        ("Your mail is delayed", String(repeating: "x", count: 1_001), "is longer than 1000 octets"),
    ]

    @Test("are refused with the line where something is wrong", arguments: faults)
    func mistakes(line: String, replacement: String, words: String) throws {
        var lines = ReportTemplate.englishText.components(separatedBy: "\n")
        let index = try #require(lines.firstIndex(of: line))
        lines[index] = replacement
        let fault = #expect(throws: ReportTemplate.Fault.self) {
            _ = try ReportTemplate(octets: octets(lines.joined(separator: "\n")))
        }
        #expect(fault?.text == words)
        if let fault, fault.line > 0 { #expect((index...index + 5).contains(fault.line), "line \(fault.line)") }
    }

    @Test("are never half there, wherever the file was cut")
    func cuts() throws {
        let whole = octets(ReportTemplate.englishText)
        for count in stride(from: 0, to: whole.count - 60, by: 37) {
            #expect(throws: ReportTemplate.Fault.self) { _ = try ReportTemplate(octets: Array(whole[..<count])) }
        }
        #expect(throws: ReportTemplate.Fault.self) { _ = try ReportTemplate(octets: [0x5B, 0xFF, 0x5D]) }
        #expect(throws: ReportTemplate.Fault.self) {
            _ = try ReportTemplate(octets: [UInt8](repeating: 0x0A, count: 70_000))
        }
    }

    static let languages: [(String, String, String)] = [
        ("a@example.org", "", "en"), ("a@example.pl", "", "pl"), ("a@sub.example.pl", "Content-Language: en\r\n", "pl"),
        ("a@example.org", "Content-Language: pl\r\n", "pl"), ("a@example.org", "content-language: PL-pl\r\n", "pl"),
        ("a@example.org", "Content-Language: de, pl\r\n", "pl"), ("a@example.org", "Content-Language: de\r\n", "en"),
        ("a@example.org", "Accept-Language: en;q=0.2, pl;q=0.9\r\n", "pl"),
        ("a@example.org", "Accept-Language: pl;q=0, en;q=0.1\r\n", "en"),
        ("a@example.org", "Accept-Language: pl;q=0\r\n", "en"),
        ("a@example.org", "Content-Language: en\r\nAccept-Language: pl\r\n", "en"),
        ("a@example.org", "Accept-Language: ;;,,q=,\r\n", "en"),
    ]

    @Test("are chosen by the sender's domain, else by what the message says of its language", arguments: languages)
    func choice(sender: String, header: String, language: String) throws {
        let polish = try ReportTemplate(octets: file("etc/reports/pl.template"))
        let pattern = try ["example.pl", "*.example.pl"].map { try #require(DomainPattern(text: $0)) }
        let languages = ReportLanguages(
            templates: [polish], rules: pattern.map { ReportLanguages.Rule(pattern: $0, language: octets("pl")) })
        let address = try #require(MailAddress(text: sender))
        let fields = HeaderFields(octets(header + "\r\n"), isWholeMessage: true)
        #expect(languages.template(for: address, fields).language == octets(language))
    }

    @Test("in a header field are whole characters in encoded words that give the text back")
    func encodedWords() {
        let text = "Zażółć gęślą jaźń, " + String(repeating: "ż", count: 60)
        var field: [UInt8] = []
        field.append(unstructured: octets(text))
        var decoded: [UInt8] = []
        for line in String(decoding: field, as: UTF8.self).components(separatedBy: "\r\n ") {
            #expect(line.hasPrefix("=?utf-8?B?") && line.hasSuffix("?=") && line.utf8.count <= 75)
            let word = Base64.decode(line.dropFirst(10).dropLast(2).utf8) ?? []
            #expect(String(validating: word, as: UTF8.self) != nil)
            decoded += word
        }
        #expect(decoded == octets(text))
        var plain: [UInt8] = []
        plain.append(unstructured: octets("Your mail"))
        plain.append(phrase: octets("Mail (Delivery)"))
        #expect(plain == octets("Your mail=?utf-8?B?TWFpbCAoRGVsaXZlcnkp?="))
    }
}
