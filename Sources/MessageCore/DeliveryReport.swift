// SPDX-License-Identifier: Apache-2.0

package import MailTypes

/// A report of what became of a message: everything it is composed from (RFC 3464).
///
/// The report is a `multipart/report` message: words for a person who has never seen one, the same for programs,
/// and the message that it is about, or its header. `octets` composes it; nothing here depends on a clock or chance.
package struct DeliveryReport: Sendable {
    /// Who is told.
    package enum Audience: Hashable, Sendable {
        /// The sender of the message.
        case sender(MailAddress)
        /// The postmaster, as nobody else can be told: the message was a report itself.
        case postmaster(MailAddress)

        /// The address that the report goes to.
        package var address: MailAddress {
            switch self {
            case .sender(let address), .postmaster(let address): address
            }
        }
    }

    /// What is told of one recipient.
    package struct Recipient: Hashable, Sendable {
        package let address: ForwardPath
        /// What the sender wrote, if an alias led from there to `address`.
        package let original: ForwardPath?
        package let action: ReportAction
        /// What the sender wishes about reports: only how he called the recipient counts here.
        package let dsn: RecipientDSN
        /// The reply code of the last attempt; 0 where there was no reply.
        package let code: UInt16
        /// The class may be 4: the time for further attempts is over.
        package let status: EnhancedStatus
        /// Who said so: a host with its address, or one of our programs.
        package let reporter: [UInt8]
        package let text: [UInt8]
        package let lastAttempt: Timestamp?
        /// Of a delay: until when it is tried.
        package let retryLimit: Timestamp?

        /// Makes the fate of a recipient. Of `reporter` and `text` every octet outside printable ASCII becomes `?`,
        /// and what is longer than `DeliveryOutcome.textOctetCountMax` is cut.
        package init(
            address: ForwardPath, original: ForwardPath?, action: ReportAction = .failed,
            dsn: RecipientDSN = RecipientDSN(), code: UInt16, status: EnhancedStatus, reporter: [UInt8],
            text: [UInt8], lastAttempt: Timestamp?, retryLimit: Timestamp? = nil
        ) {
            self.action = action
            self.dsn = dsn
            self.retryLimit = retryLimit
            self.address = address
            self.original = original
            self.code = (200...599).contains(code) ? code : 0
            self.status = status
            self.reporter = Self.line(reporter)
            self.text = Self.line(text)
            self.lastAttempt = lastAttempt
        }

        private static func line(_ octets: [UInt8]) -> [UInt8] {
            octets.prefix(DeliveryOutcome.textOctetCountMax).map { $0.isPrintable ? $0 : 0x3F }
        }
    }

    package let audience: Audience
    /// This server: a domain name, the part after the `@` of MAILER-DAEMON and of the Message-ID.
    package let hostname: [UInt8]
    /// The words for people.
    package let template: ReportTemplate
    /// The message that the report is about.
    package let original: Original
    package let recipients: [Recipient]
    /// When the report is composed.
    package let now: Timestamp
    /// Any number that a sender cannot foresee; it goes into the boundary between the parts.
    package let salt: UInt64

    /// What is known of the message.
    package struct Original: Sendable {
        package let id: MessageID
        package let reversePath: ReversePath
        package let arrival: Timestamp
        package let dsn: MessageDSN
        /// Whether its sender has asked for SMTPUTF8.
        package let unicode: UnicodeDemand
        /// One line about the client, as apus-smtpd writes it; empty: nothing is known.
        package let trace: [UInt8]
        /// The message's header as far as it is known, or a beginning of the message.
        package let header: HeaderFields
        /// Whether `header.octets` are the message to its end.
        package let isWhole: Bool

        package init(
            id: MessageID, reversePath: ReversePath, arrival: Timestamp, dsn: MessageDSN = MessageDSN(),
            unicode: UnicodeDemand = .none, trace: [UInt8] = [], header: HeaderFields, isWhole: Bool
        ) {
            self.id = id
            self.reversePath = reversePath
            self.arrival = arrival
            self.dsn = dsn
            self.unicode = unicode
            self.trace = trace
            self.header = header
            self.isWhole = isWhole
        }
    }

    var messageID: MessageID { self.original.id }
    var reversePath: ReversePath { self.original.reversePath }
    var arrival: Timestamp { self.original.arrival }
    private var header: HeaderFields { self.original.header }

    /// - Parameters:
    ///   - hostname: only letters, digits, hyphens, underscores and dots of it are taken.
    ///   - original: of its header at most `headerOctetCountMax` octets are quoted; the whole, if the sender wishes it,
    ///     something has failed and it is there to its end.
    package init(
        audience: Audience, hostname: [UInt8], template: ReportTemplate = .english, original: Original,
        recipients: [Recipient], now: Timestamp, salt: UInt64
    ) {
        self.audience = audience
        self.template = template
        self.original = original
        let name = hostname.filter { $0.isLetterOrDigit || [ASCII.hyphen, ASCII.dot, 0x5F].contains($0) }
        self.hostname = name.isEmpty ? Array("localhost".utf8) : Array(name.prefix(MailAddress.domainOctetCountMax))
        self.recipients = recipients
        self.now = now
        self.salt = salt
    }

    /// So much of the original's header is quoted; what is longer is cut between two fields.
    package static let headerOctetCountMax = 32_768
    /// After so many octets of the words for people, the remaining recipients are left to the other part.
    package static let explanationOctetCountMax = 131_072
    /// After so many octets of the part for programs, only what RFC 3464 §2.3 demands is said of a recipient.
    package static let statusOctetCountMax = 131_072
    /// After so many octets nothing more is said: a report must stay smaller than 1 MiB, however many it is about.
    package static let statusOctetCountLimit = 655_360

    /// Whether only servers with SMTPUTF8 can be given the report: whoever it is for has an address beyond ASCII, and so can
    /// read a report in UTF-8 (RFC 6533 §4 to §6). All others get one in ASCII, in which such addresses are coded.
    package var isInternational: Bool { self.audience.address.isInternational }

    /// The report as a message: CR LF ends its lines, none is longer than 998 octets, every octet is ASCII unless
    /// `bodyType` says otherwise.
    ///
    /// Without the message itself it is less than 1 MiB, and names 1,000 recipients at least, however long their
    /// addresses are.
    package var octets: [UInt8] {
        let explanation = self.explanation
        let charset = explanation.allSatisfy { $0 < 0x80 } ? "us-ascii" : "utf-8"
        let parts = [
            MultipartReport.Part(
                contentType: "text/plain; charset=\(charset)", description: "What happened", body: explanation),
            MultipartReport.Part(
                contentType: self.isInternational ? "message/global-delivery-status" : "message/delivery-status",
                description: "The same for programs", body: self.deliveryStatus, mayBeEightBit: self.isInternational),
            self.returnedPart,
        ]
        return MultipartReport(reportType: "delivery-status", parts: parts, salt: self.salt).message(
            fields: self.fields)
    }

    /// What the report has to be handed in as.
    package var bodyType: BodyType {
        if self.isInternational { return .eightBitMIME }
        return self.returnsWhole && !self.returnsInternational && !self.header.octets.isASCII
            ? .eightBitMIME : .sevenBit
    }

    /// Whether anything has failed: only then may the message itself come back (RFC 3461 §4.3).
    private var hasFailure: Bool { self.recipients.contains { $0.action == .failed } }

    /// Whether the message itself is returned. One that no part can hold as it is (RFC 2046 §5.2.1 allows no coding) is
    /// represented by its header.
    private var returnsWhole: Bool {
        self.hasFailure && self.original.isWhole && self.original.dsn.returned == .full
            && MultipartReport.isLines(self.header.octets)
    }

    /// Whether what is returned is a message or a header in UTF-8 by its sender's word. Without it other octets in a header are
    /// what they have always been.
    private var returnsInternational: Bool {
        self.original.unicode != .none && !self.header.octets[..<self.header.endOffset].isASCII
    }

    private var returnedPart: MultipartReport.Part {
        let isInternational = self.returnsInternational
        guard self.returnsWhole else {
            return MultipartReport.Part(
                contentType: isInternational ? "message/global-headers" : "text/rfc822-headers",
                description: "The header of your message", body: self.quotedHeader, mayBeEightBit: self.isInternational)
        }
        // RFC 6532 §3.7: message/global may be coded, and message/rfc822 may not.
        return MultipartReport.Part(
            contentType: isInternational ? "message/global" : "message/rfc822", description: "Your message",
            body: self.header.octets, mayBeEncoded: isInternational, mayBeEightBit: self.isInternational)
    }

    // MARK: The report's own header

    private var fields: [UInt8] {
        var fields: [UInt8] = []
        fields.append(text: "Date: ")
        MailDate(self.now).append(to: &fields)
        fields.append(text: "\r\nFrom: ")
        fields.append(phrase: self.template.text(.from, [.server: self.hostname]))
        fields.append(text: " <MAILER-DAEMON@")
        fields += self.hostname
        fields.append(text: ">\r\nTo: <")
        fields += self.audience.address.octets
        fields.append(text: ">\r\nSubject: ")
        fields.append(unstructured: self.template.text(self.subject))
        // Why two numbers: the id tells which message this is about, the time sets a report apart from an earlier one
        // that was composed, but never got into the queue.
        fields.append(text: "\r\nMessage-ID: <")
        fields += MessageID(rawValue: self.now.microseconds).octets
        fields.append(ASCII.dot)
        fields += self.messageID.octets
        fields.append(text: ".report@")
        fields += self.hostname
        fields.append(text: ">\r\n")
        if let original = self.originalMessageID {
            fields.append(text: "In-Reply-To: ")
            fields += original
            fields.append(text: "\r\nReferences: ")
            fields += original
            fields.append(text: "\r\n")
        }
        // RFC 3834 §5: nobody's autoresponder answers this.
        fields.append(text: "Auto-Submitted: auto-replied\r\n")
        return fields
    }

    private var subject: ReportTemplate.Section {
        if case .postmaster = self.audience { return .subjectPostmaster }
        if self.hasFailure { return .subjectFailed }
        return self.recipients.contains { $0.action == .delayed } ? .subjectDelayed : .subjectDelivered
    }

    /// The original's Message-ID, if it is fit to be repeated in a header field of ours.
    private var originalMessageID: [UInt8]? {
        guard let value = self.header.value(of: "Message-ID"), (3...250).contains(value.count),
            value.first == ASCII.less, value.last == ASCII.greater,
            value.dropFirst().dropLast().allSatisfy({
                $0.isPrintable && $0 != ASCII.space && $0 != ASCII.less && $0 != ASCII.greater
            })
        else { return nil }
        return value
    }

    // MARK: The third part

    /// The fields of the original that fit, each whole, with CR LF line ends.
    private var quotedHeader: [UInt8] {
        var quoted: [UInt8] = []
        for field in self.header {
            guard quoted.count + field.octets.count <= Self.headerOctetCountMax else { break }
            for octet in field.octets {
                if octet == ASCII.lineFeed, quoted.last != ASCII.carriageReturn { quoted.append(ASCII.carriageReturn) }
                quoted.append(octet)
            }
            if quoted.last != ASCII.lineFeed { quoted.append(text: "\r\n") }
        }
        return quoted
    }
}
