// SPDX-License-Identifier: Apache-2.0
//
// The words of reports, which an administrator may write in any language (Documentation/reports.md): a text of sections.
// The frame around them, all parts for programs included, is made by DeliveryReport alone.

package import MailTypes

/// What a report says to people, in one language.
package struct ReportTemplate: Hashable, Sendable {
    /// What is wrong with a template, for the administrator.
    package struct Fault: Error, Hashable, Sendable {
        /// 0: the file as a whole.
        package let line: Int
        package let text: String
    }

    /// The parts of a template. Every one must be there.
    package enum Section: String, Hashable, Sendable, CaseIterable {
        case language
        /// Who reports, in front of the address in `From:`.
        case from
        case subjectFailed = "subject failed"
        case subjectDelayed = "subject delayed"
        case subjectDelivered = "subject delivered"
        case subjectPostmaster = "subject postmaster"
        /// The first words.
        case greeting
        /// In front of the recipients who failed, are delayed, and so on.
        case failed, delayed, delivered, relayed, expanded
        /// In their place if the report goes to the postmaster.
        case postmaster
        case original
        case saidByServer = "said by server"
        case saidAboutServer = "said about server"
        case saidHere = "said here"
        case retry, more, ending, message
        case adviceNoMailbox = "advice no-mailbox"
        case adviceNoDomain = "advice no-domain"
        case adviceBadAddress = "advice bad-address"
        case adviceNoMail = "advice no-mail"
        case adviceSender = "advice sender"
        case adviceDisabled = "advice disabled"
        case adviceFull = "advice full"
        case adviceLarge = "advice large"
        case adviceNoRoom = "advice no-room"
        case adviceUnreachable = "advice unreachable"
        case adviceNoServer = "advice no-server"
        case adviceLoop = "advice loop"
        case adviceTooMany = "advice too-many"
        case adviceContent = "advice content"
        case advicePolicy = "advice policy"
        case adviceOther = "advice other"

        /// What may stand in it in braces.
        var places: [Place] {
            switch self {
            case .greeting, .from: [.server]
            case .original: [.address]
            case .saidByServer, .saidAboutServer: [.server, .words]
            case .saidHere: [.words]
            case .retry: [.time]
            case .more: [.count]
            case .message: [.id, .time]
            default: []
            }
        }

        /// Whether it is one line of the report's header.
        var isLine: Bool {
            switch self {
            case .language, .from, .subjectFailed, .subjectDelayed, .subjectDelivered, .subjectPostmaster: true
            default: false
            }
        }
    }

    /// What is put in: `{server}`.
    package enum Place: String, Hashable, Sendable, CaseIterable {
        case server, address, words, time, count, id
    }

    private enum Piece: Hashable, Sendable {
        case text([UInt8])
        case place(Place)
    }

    /// The paragraphs of each section; a section is there or the template is none.
    private let paragraphs: [Section: [[Piece]]]

    /// More octets than a report should have words.
    package static let octetCountMax = 65_536
    /// Of a line of the file.
    package static let lineOctetCountMax = 1_000

    /// Whether the octets can be the tag of a language (RFC 5646): letters, digits and hyphens.
    package static func isLanguage(_ tag: [UInt8]) -> Bool {
        (2...35).contains(tag.count) && tag.allSatisfy { $0.isLetterOrDigit || $0 == ASCII.hyphen }
    }

    /// A tag such as `en` (RFC 5646), in small letters.
    package var language: [UInt8] { self.text(.language) }

    /// Reads a template: UTF-8, a section's name in brackets on a line of its own, then its text; an empty line ends a
    /// paragraph, `#` at the beginning of a line a comment.
    package init(octets: [UInt8]) throws(Fault) {
        guard octets.count <= Self.octetCountMax else {
            throw Fault(line: 0, text: "has more than \(Self.octetCountMax) octets")
        }
        var reader = Reader()
        var number = 0
        for line in octets.split(separator: ASCII.lineFeed, omittingEmptySubsequences: false) {
            number += 1
            try reader.take(line.last == ASCII.carriageReturn ? line.dropLast() : line, number)
        }
        self.paragraphs = try reader.finish()
    }

    /// The paragraphs of a section with its places filled in. What is put in is never looked at again.
    package func paragraphs(_ section: Section, _ values: [Place: [UInt8]] = [:]) -> [[UInt8]] {
        (self.paragraphs[section] ?? []).map { pieces in
            pieces.reduce(into: []) { text, piece in
                switch piece {
                case .text(let octets): text += octets
                case .place(let place): text += values[place] ?? []
                }
            }
        }
    }

    /// A section on one line.
    package func text(_ section: Section, _ values: [Place: [UInt8]] = [:]) -> [UInt8] {
        Array(self.paragraphs(section, values).joined(separator: [ASCII.space]))
    }

    // MARK: - Reading

    private struct Reader {
        private var paragraphs: [Section: [[Piece]]] = [:]
        private var section: Section?
        /// The paragraph that is being read.
        private var current: [Piece] = []

        mutating func take(_ line: ArraySlice<UInt8>, _ number: Int) throws(Fault) {
            guard line.count <= ReportTemplate.lineOctetCountMax else {
                throw Fault(line: number, text: "is longer than \(ReportTemplate.lineOctetCountMax) octets")
            }
            guard String(validating: line, as: UTF8.self) != nil, !line.contains(where: Self.isControl) else {
                throw Fault(line: number, text: "is no text in UTF-8")
            }
            var text = line
            while text.last == ASCII.space { text.removeLast() }
            while text.first == ASCII.space { text.removeFirst() }
            if text.first == 0x23 { return }
            if text.first == 0x5B, text.last == 0x5D { return try self.begin(text.dropFirst().dropLast(), number) }
            guard !text.isEmpty else { return self.endParagraph() }
            guard let section = self.section else { throw Fault(line: number, text: "stands in front of all sections") }
            if !self.current.isEmpty { self.current.append(.text([ASCII.space])) }
            self.current += try Self.pieces(text, section, number)
        }

        private static func isControl(_ octet: UInt8) -> Bool { octet < ASCII.space || octet == 0x7F }

        private mutating func begin(_ name: ArraySlice<UInt8>, _ number: Int) throws(Fault) {
            self.endParagraph()
            try self.checkSection(number)
            guard let section = Section.allCases.first(where: { name.elementsEqual($0.rawValue.utf8) }) else {
                throw Fault(line: number, text: "[\(name.printableText)] is no section of a report")
            }
            guard self.paragraphs[section] == nil else {
                throw Fault(line: number, text: "[\(section.rawValue)] stands here for the second time")
            }
            self.paragraphs[section] = []
            self.section = section
        }

        private mutating func endParagraph() {
            guard let section, !self.current.isEmpty else { return }
            self.paragraphs[section]?.append(self.current)
            self.current = []
        }

        private func checkSection(_ number: Int) throws(Fault) {
            guard let section else { return }
            let count = self.paragraphs[section]?.count ?? 0
            guard count > 0 else { throw Fault(line: number, text: "[\(section.rawValue)] above has no text") }
            guard count == 1 || !section.isLine else {
                throw Fault(line: number, text: "[\(section.rawValue)] above must be one paragraph")
            }
        }

        private static func pieces(
            _ text: ArraySlice<UInt8>, _ section: Section, _ number: Int
        ) throws(Fault) -> [Piece] {
            var pieces: [Piece] = []
            var rest = text
            while let open = rest.firstIndex(of: 0x7B) {
                guard let close = rest[open...].firstIndex(of: 0x7D) else {
                    throw Fault(line: number, text: "a { without its }")
                }
                let name = rest[(open + 1)..<close]
                guard let place = section.places.first(where: { name.elementsEqual($0.rawValue.utf8) }) else {
                    let known = section.places.map { "{\($0.rawValue)}" }.joined(separator: ", ")
                    throw Fault(
                        line: number,
                        text: "{\(name.printableText)} cannot stand in [\(section.rawValue)]"
                            + (known.isEmpty ? "" : ", only \(known) can"))
                }
                if open > rest.startIndex { pieces.append(.text(Array(rest[..<open]))) }
                pieces.append(.place(place))
                rest = rest[(close + 1)...]
            }
            if !rest.isEmpty { pieces.append(.text(Array(rest))) }
            return pieces
        }

        mutating func finish() throws(Fault) -> [Section: [[Piece]]] {
            self.endParagraph()
            try self.checkSection(0)
            for section in Section.allCases where self.paragraphs[section] == nil {
                throw Fault(line: 0, text: "has no section [\(section.rawValue)]")
            }
            let language = self.paragraphs[.language] ?? []
            guard case .text(let tag)? = language.first?.first, language.first?.count == 1,
                ReportTemplate.isLanguage(tag)
            else { throw Fault(line: 0, text: "[language] must be a tag such as en or pl") }
            self.paragraphs[.language] = [[.text(tag.lowercasedOctets)]]
            return self.paragraphs
        }
    }
}

/// The templates that there are, and which of them is for whom.
package struct ReportLanguages: Hashable, Sendable {
    /// Senders of this domain are written to in this language.
    package struct Rule: Hashable, Sendable {
        package let pattern: DomainPattern
        package let language: [UInt8]

        package init(pattern: DomainPattern, language: [UInt8]) {
            self.pattern = pattern
            self.language = language
        }
    }

    private let templates: [[UInt8]: ReportTemplate]
    private let rules: [Rule]
    private let standard: ReportTemplate

    /// - Parameters:
    ///   - templates: beside the English one, which is always there; a later one of the same language counts.
    ///   - standard: the language of those of whom nothing is known; English if there is no template of it.
    package init(templates: [ReportTemplate] = [], rules: [Rule] = [], standard: [UInt8] = []) {
        var known = [ReportTemplate.english.language: ReportTemplate.english]
        for template in templates { known[template.language] = template }
        self.templates = known
        self.rules = rules
        self.standard = known[standard] ?? known[ReportTemplate.english.language] ?? .english
    }

    /// Whether there is a template of the language.
    package func has(_ language: [UInt8]) -> Bool { self.templates[language] != nil }

    /// The words for a sender: by his domain, else by what the message says of its language, else the standard.
    package func template(for sender: MailAddress, _ header: HeaderFields) -> ReportTemplate {
        if let rule = self.rules.first(where: { $0.pattern.matches(sender.domain) }),
            let template = self.templates[rule.language]
        {
            return template
        }
        for name in ["Content-Language", "Accept-Language"] as [StaticString] {
            guard let value = header.value(of: name) else { continue }
            for tag in Self.tags(value) {
                if let template = self.templates[tag] { return template }
                // `pl-PL` is Polish.
                let primary = Array(tag.prefix { $0 != ASCII.hyphen })
                if let template = self.templates[primary] { return template }
            }
        }
        return self.standard
    }

    /// The language tags of a list (RFC 3282), those that are liked best first.
    static func tags(_ value: [UInt8]) -> [[UInt8]] {
        var tags: [(tag: [UInt8], weight: UInt64)] = []
        for item in value.prefix(500).split(separator: 0x2C).prefix(20) {
            let parts = item.filter { $0 != ASCII.space && $0 != ASCII.tab }.split(separator: 0x3B)
            guard let tag = parts.first, !tag.isEmpty else { continue }
            tags.append((tag.lowercasedOctets, parts.count > 1 ? Self.weight(parts[1]) : 1_000))
        }
        return tags.enumerated().sorted { left, right in
            (right.element.weight, left.offset) < (left.element.weight, right.offset)
        }.filter { $0.element.weight > 0 }.map(\.element.tag)
    }

    /// `q=0.8` in thousandths.
    private static func weight(_ parameter: ArraySlice<UInt8>) -> UInt64 {
        guard parameter.lowercasedOctets.starts(with: Array("q=".utf8)) else { return 1_000 }
        let digits = parameter.dropFirst(2).filter(\.isDigit).prefix(4)
        guard let first = digits.first, first == 0x30 else { return 1_000 }
        return (Array(digits.dropFirst()) + [0x30, 0x30, 0x30]).prefix(3).decimal() ?? 0
    }
}
