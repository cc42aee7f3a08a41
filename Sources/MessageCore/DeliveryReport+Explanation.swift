// SPDX-License-Identifier: Apache-2.0
//
// The first part of a report: for a person who wrote a mail and has never heard of a status code. What to do comes
// before what a machine said; the machine's words are kept, as the person who helps will ask for them.

import MailTypes

extension DeliveryReport {
    /// In which order things are told.
    static let order: [ReportAction] = [.failed, .delayed, .delivered, .relayed, .expanded]

    /// The words for people, in lines of at most 76 characters, but for addresses that are longer.
    var explanation: [UInt8] {
        var text: [UInt8] = []
        self.append(.greeting, [.server: self.hostname], to: &text)
        var restCount = self.recipients.count
        for action in Self.order {
            let recipients = self.recipients.filter { $0.action == action }
            guard !recipients.isEmpty else { continue }
            text.append(text: "\r\n")
            self.append(self.introduction(action), to: &text)
            for recipient in recipients {
                guard text.count < Self.explanationOctetCountMax else { break }
                restCount -= 1
                self.explain(recipient, in: &text)
            }
        }
        if restCount > 0 {
            text.append(text: "\r\n")
            var count: [UInt8] = []
            count.append(decimal: restCount)
            self.append(.more, [.count: count], to: &text)
        }
        text.append(text: "\r\n")
        self.append(.ending, to: &text)
        text.append(text: "\r\n")
        self.append(.message, [.id: self.messageID.octets, .time: MailDate(self.arrival).octets], to: &text)
        return text
    }

    private func introduction(_ action: ReportAction) -> ReportTemplate.Section {
        if case .postmaster = self.audience { return .postmaster }
        return switch action {
        case .failed: .failed
        case .delayed: .delayed
        case .delivered: .delivered
        case .relayed: .relayed
        case .expanded: .expanded
        }
    }

    private func append(
        _ section: ReportTemplate.Section, _ values: [ReportTemplate.Place: [UInt8]] = [:], indent: Int = 0,
        to text: inout [UInt8]
    ) {
        for (index, paragraph) in self.template.paragraphs(section, values).enumerated() {
            if index > 0 { text.append(text: "\r\n") }
            text.append(wrapping: paragraph, indent: indent)
        }
    }

    private func explain(_ recipient: Recipient, in text: inout [UInt8]) {
        text.append(text: "\r\n<")
        text += recipient.address.octets
        text.append(text: ">\r\n")
        if let original = recipient.original, original != recipient.address {
            self.append(.original, [.address: original.octets], indent: 2, to: &text)
        }
        if recipient.action == .failed { self.append(Self.advice(recipient.status), indent: 2, to: &text) }
        if recipient.action == .failed || recipient.action == .delayed { self.quote(recipient, in: &text) }
        if recipient.action == .delayed, let limit = recipient.retryLimit {
            self.append(.retry, [.time: MailDate(limit).octets], indent: 2, to: &text)
        }
    }

    private func quote(_ recipient: Recipient, in text: inout [UInt8]) {
        guard !recipient.text.isEmpty else { return }
        let words = recipient.diagnostic
        guard let host = recipient.remoteHost else {
            return self.append(.saidHere, [.words: words], indent: 2, to: &text)
        }
        // Without a reply the words are our own, and about the host.
        self.append(
            recipient.code > 0 ? .saidByServer : .saidAboutServer, [.server: Array(host), .words: words], indent: 2,
            to: &text)
    }

    /// What the status means for the person who sent the mail, and what to do about it.
    static func advice(_ status: EnhancedStatus) -> ReportTemplate.Section {
        switch (status.subject, status.detail) {
        case (1, 0), (1, 1), (1, 6): .adviceNoMailbox
        case (1, 2): .adviceNoDomain
        case (1, 3): .adviceBadAddress
        case (1, 10): .adviceNoMail
        case (1, 7), (1, 8): .adviceSender
        case (2, 1): .adviceDisabled
        case (2, 2): .adviceFull
        case (2, 3), (3, 4): .adviceLarge
        case (3, 1): .adviceNoRoom
        case (4, 1), (4, 2), (4, 5), (4, 7), (4, 0): .adviceUnreachable
        case (4, 3), (4, 4): .adviceNoServer
        case (4, 6): .adviceLoop
        case (5, 3): .adviceTooMany
        case (6, _): .adviceContent
        case (7, _): .advicePolicy
        default: status.statusClass == .permanent ? .adviceOther : .adviceUnreachable
        }
    }
}

extension Array where Element == UInt8 {
    /// Appends a paragraph in lines of at most 76 characters, each with CR LF; a longer word has a line to itself,
    /// but no line is longer than 900 octets.
    mutating func append(wrapping paragraph: some Collection<UInt8>, indent: Int = 0) {
        var column = 0
        for word in paragraph.split(separator: ASCII.space) {
            var rest = word[...]
            while !rest.isEmpty {
                let piece = rest.prefix(900)
                rest = rest.dropFirst(900)
                // Octets that go on with a character are not counted.
                let width = piece.count { $0 & 0xC0 != 0x80 }
                if column > 0 {
                    if column + 1 + width <= 76 {
                        self.append(ASCII.space)
                        column += 1
                    } else {
                        self += [ASCII.carriageReturn, ASCII.lineFeed]
                        column = 0
                    }
                }
                if column == 0 {
                    self += [UInt8](repeating: ASCII.space, count: indent)
                    column = indent
                }
                self += piece
                column += width
            }
        }
        if column > 0 { self += [ASCII.carriageReturn, ASCII.lineFeed] }
    }
}
