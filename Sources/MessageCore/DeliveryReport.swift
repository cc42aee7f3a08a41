// SPDX-License-Identifier: Apache-2.0

package import MailTypes

/// The report that mail could not be delivered: everything it is composed from (RFC 3464).
///
/// The report is a `multipart/report` message: words for a person who has never seen one, the same for programs,
/// and the header of the message that it is about. `octets` composes it; nothing here depends on a clock or chance.
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

    /// What became of one recipient for good.
    package struct Recipient: Hashable, Sendable {
        package let address: ForwardPath
        /// What the sender wrote, if an alias led from there to `address`.
        package let original: ForwardPath?
        /// The reply code of the last attempt; 0 where there was no reply.
        package let code: UInt16
        /// The class may be 4: the time for further attempts is over.
        package let status: EnhancedStatus
        /// Who said so: a host with its address, or one of our programs.
        package let reporter: [UInt8]
        package let text: [UInt8]
        package let lastAttempt: Timestamp?

        /// Makes the fate of a recipient. Of `reporter` and `text` every octet outside printable ASCII becomes `?`,
        /// and what is longer than `DeliveryOutcome.textOctetCountMax` is cut.
        package init(
            address: ForwardPath, original: ForwardPath?, code: UInt16, status: EnhancedStatus, reporter: [UInt8],
            text: [UInt8], lastAttempt: Timestamp?
        ) {
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
    /// The message that failed.
    package let messageID: MessageID
    package let reversePath: ReversePath
    package let arrival: Timestamp
    package let recipients: [Recipient]
    /// The message's header as far as it is known, or a beginning of the message.
    package let header: HeaderFields
    /// When the report is composed.
    package let now: Timestamp
    /// Any number that a sender cannot foresee; it goes into the boundary between the parts.
    package let salt: UInt64

    /// - Parameters:
    ///   - hostname: only letters, digits, hyphens, underscores and dots of it are taken.
    ///   - header: of which at most `headerOctetCountMax` octets are quoted.
    package init(
        audience: Audience, hostname: [UInt8], messageID: MessageID, reversePath: ReversePath, arrival: Timestamp,
        recipients: [Recipient], header: HeaderFields, now: Timestamp, salt: UInt64
    ) {
        self.audience = audience
        let name = hostname.filter { $0.isLetterOrDigit || [ASCII.hyphen, ASCII.dot, 0x5F].contains($0) }
        self.hostname = name.isEmpty ? Array("localhost".utf8) : Array(name.prefix(MailAddress.domainOctetCountMax))
        self.messageID = messageID
        self.reversePath = reversePath
        self.arrival = arrival
        self.recipients = recipients
        self.header = header
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

    /// The report as a message: CR LF ends its lines, none is longer than 998 octets, every octet is ASCII.
    ///
    /// It is less than 1 MiB, and names 1,000 recipients at least, however long their addresses are.
    package var octets: [UInt8] {
        let parts = [
            MultipartReport.Part(
                contentType: "text/plain; charset=us-ascii", description: "What happened", body: self.explanation),
            MultipartReport.Part(
                contentType: "message/delivery-status", description: "The same for programs", body: self.deliveryStatus),
            MultipartReport.Part(
                contentType: "text/rfc822-headers", description: "The header of your message",
                body: self.quotedHeader),
        ]
        return MultipartReport(reportType: "delivery-status", parts: parts, salt: self.salt).message(
            fields: self.fields)
    }

    // MARK: The report's own header

    private var fields: [UInt8] {
        var fields: [UInt8] = []
        fields.append(text: "Date: ")
        MailDate(self.now).append(to: &fields)
        fields.append(text: "\r\nFrom: Mail Delivery System <MAILER-DAEMON@")
        fields += self.hostname
        fields.append(text: ">\r\nTo: <")
        fields += self.audience.address.octets
        fields.append(text: ">\r\nSubject: ")
        switch self.audience {
        case .sender: fields.append(text: "Your mail could not be delivered")
        case .postmaster: fields.append(text: "A report could not be delivered")
        }
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
