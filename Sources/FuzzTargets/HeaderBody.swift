// SPDX-License-Identifier: Apache-2.0

import MailTypes
import MessageCore

/// A message with any header, and the report about it.
enum HeaderBody {
    static func run(_ script: inout FuzzScript) throws(Breach) {
        let stream = script.stream
        for isWhole in [true, false] {
            let header = HeaderFields(stream, isWholeMessage: isWhole)
            try hold(header.endOffset <= stream.count && header.bodyOffset ?? 0 <= stream.count, "an offset outside")
            var end = 0
            for field in header {
                try hold(field.octets.startIndex >= end, "fields overlap")
                end = field.octets.endIndex
                try hold(end <= header.endOffset, "a field beyond the header")
                _ = field.value
            }
        }
        try Self.count(stream, &script)
        try Self.authors(stream, &script)
        try Self.report(stream, &script)
    }

    private static func count(_ stream: [UInt8], _ script: inout FuzzScript) throws(Breach) {
        var whole = ReceivedCounter()
        whole.receive(stream.span)
        var cut = ReceivedCounter()
        for piece in script.pieces() { cut.receive(Array(piece).span) }
        try hold(whole.count == cut.count, "\(whole.count) Received fields, and \(cut.count) at other cuts")
        var wholeHeader = UnicodeHeader()
        wholeHeader.receive(stream.span)
        var cutHeader = UnicodeHeader()
        for piece in script.pieces() { cutHeader.receive(Array(piece).span) }
        try hold(wholeHeader.isFound == cutHeader.isFound, "another header at other cuts")
    }

    private static func authors(_ stream: [UInt8], _ script: inout FuzzScript) throws(Breach) {
        var whole = FieldPresence(authorOctetCountMax: 1_024)
        whole.receive(stream.span)
        var cut = FieldPresence(authorOctetCountMax: 1_024)
        for piece in script.pieces() { cut.receive(Array(piece).span) }
        let authors = whole.authors(countMax: 8)
        try hold(authors == cut.authors(countMax: 8), "other authors at other cuts")
        if case .addresses(let found) = authors { try hold(found.count <= 8, "\(found.count) authors") }
    }

    private static func report(_ stream: [UInt8], _ script: inout FuzzScript) throws(Breach) {
        let names = ["joe@a.example", "jörg@a.example"]
        guard
            let sender = MailAddress(octets: Array(names[script.next(2)].utf8), alphabet: .unicodeLocalPart),
            let address = ForwardPath(
                octets: Array(["\"q q\"@b.example", "χρήστης@b.example"][script.next(2)].utf8),
                alphabet: .unicodeLocalPart)
        else { return }
        let kinds: [EnhancedStatus.Class] = [.permanent, .transient]
        let recipients = (0...script.next(3)).map { number in
            DeliveryReport.Recipient(
                address: address, original: number == 1 ? .postmaster : nil,
                action: ReportAction.allCases[script.next(5)], code: UInt16(script.next(256)) * 3,
                status: EnhancedStatus(kinds[script.next(2)], 1, UInt16(script.next(9))),
                reporter: Array(stream.prefix(40)), text: Array(stream.suffix(600)),
                lastAttempt: Timestamp(microseconds: 1_700_000_050_000_000))
        }
        let report = DeliveryReport(
            audience: script.next(2) == 0 ? .sender(sender) : .postmaster(sender), hostname: Array(stream.prefix(300)),
            template: (try? ReportTemplate(octets: stream)) ?? .english,
            original: DeliveryReport.Original(
                id: MessageID(rawValue: 1_700_000_000_000_000), reversePath: .address(sender),
                arrival: Timestamp(microseconds: 1_700_000_000_000_000),
                dsn: MessageDSN(returned: script.next(2) == 0 ? .full : nil),
                unicode: UnicodeDemand.allCases[script.next(3)], trace: Array(stream.prefix(200)),
                header: HeaderFields(stream, isWholeMessage: script.next(2) == 0), isWhole: script.next(2) == 0),
            recipients: recipients, now: Timestamp(microseconds: 1_700_000_100_000_000), salt: 1)
        let octets = report.octets
        let isEight = report.bodyType == .eightBitMIME
        try hold(octets.count < stream.count + 1 << 20, "a report of \(octets.count) octets")
        try hold(octets.suffix(2).elementsEqual([13, 10]), "a report without its last line end")
        var lineStart = 0
        for (index, octet) in octets.enumerated() {
            try hold((octet < 0x80 || isEight) && octet != 0, "an octet \(octet) in a report")
            if octet == 13 { try hold(index + 1 < octets.count && octets[index + 1] == 10, "a bare CR in a report") }
            guard octet == 10 else { continue }
            try hold(index > 0 && octets[index - 1] == 13, "a bare LF in a report")
            try hold(index - 1 - lineStart <= 998, "a line of \(index - 1 - lineStart) octets in a report")
            lineStart = index + 1
        }
    }
}
