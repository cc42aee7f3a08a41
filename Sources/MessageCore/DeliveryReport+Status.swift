// SPDX-License-Identifier: Apache-2.0
//
// The second part of a report: message/delivery-status (RFC 3464 §2), or message/global-delivery-status (RFC 6533 §4), in
// which addresses beyond ASCII are UTF-8 and not coded. Every other value is either made here or was checked
// for printable ASCII; the texts of other servers are folded, so that no line of theirs is longer than a line may be.

import MailTypes

extension DeliveryReport {
    /// The fields of the message, then a block of fields for each recipient, with empty lines between them.
    var deliveryStatus: [UInt8] {
        var status: [UInt8] = []
        if let id = Xtext.decode(self.original.dsn.envelopeID), !id.isEmpty {
            status.append(text: "Original-Envelope-Id: ")
            status += [UInt8](printable: id[...])
            status.append(text: "\r\n")
        }
        status.append(text: "Reporting-MTA: dns; ")
        status += self.hostname
        if let client = self.receivedFrom {
            status.append(text: "\r\nReceived-From-MTA: dns; ")
            status += client
        }
        status.append(text: "\r\nX-Apus-Message-ID: ")
        status += self.messageID.octets
        if case .address(let sender) = self.reversePath {
            status.append(text: "\r\nX-Apus-Sender: ")
            status += Self.typed(sender.octets, isCoded: !self.isInternational)
        }
        status.append(text: "\r\nArrival-Date: ")
        MailDate(self.arrival).append(to: &status)
        status.append(text: "\r\n")
        for recipient in self.recipients {
            guard status.count < Self.statusOctetCountLimit else { break }
            status.append(text: "\r\n")
            recipient.appendStatus(
                isComplete: status.count < Self.statusOctetCountMax, isCoded: !self.isInternational, to: &status)
        }
        return status
    }

    /// An address with its type (RFC 3464 §2.1.2, RFC 6533 §3).
    ///
    /// - Parameter isCoded: whether it must be ASCII.
    static func typed(_ address: [UInt8], isCoded: Bool) -> [UInt8] {
        guard !address.isASCII else { return Array("rfc822; ".utf8) + address }
        return Array("utf-8; ".utf8) + (isCoded ? Xtext.encodeUnicode(address) : address)
    }

    /// The name and the address of the client (RFC 3464 §2.2.4), from the trace of apus-smtpd; nil for a user of this
    /// machine, and for a message whose origin is not known.
    private var receivedFrom: [UInt8]? {
        var name: [UInt8] = []
        var address: [UInt8]?
        for word in self.original.trace.split(separator: ASCII.space) {
            if word.starts(with: Array("client=".utf8)) {
                let octets = word.dropFirst(7)
                address = IPAddress(octets: octets).map { _ in Array(octets) }
            } else if word.starts(with: Array("helo=".utf8)), MailAddress.isDomain(word.dropFirst(5)) {
                name = Array(word.dropFirst(5))
            }
        }
        guard let address else { return nil }
        if name.isEmpty { name = [0x5B] + address + [0x5D] }
        return name + Array(" (".utf8) + address + Array(")".utf8)
    }
}

extension DeliveryReport.Recipient {
    /// The host of the reply, if it was not one of our own programs: `mx.example.org` of `mx.example.org[192.0.2.1]`.
    ///
    /// Our programs' names have neither a dot nor an address behind them.
    var remoteHost: ArraySlice<UInt8>? {
        let bracket = self.reporter.firstIndex(of: 0x5B)
        var host = self.reporter[..<(bracket ?? self.reporter.endIndex)]
        if host.isEmpty, bracket != nil {
            guard let close = self.reporter.firstIndex(of: 0x5D) else { return nil }
            host = self.reporter[...close]
            return MailAddress.isDomain(host) || IPAddress(octets: host.dropFirst().dropLast()) != nil ? host : nil
        }
        guard bracket != nil || host.contains(ASCII.dot), MailAddress.isDomainName(host) else { return nil }
        return host
    }

    /// The reply as the other server gave it: code, status, text; each once.
    var diagnostic: [UInt8] {
        var line: [UInt8] = []
        var text = self.text[...]
        if self.code > 0 {
            line.append(decimal: self.code)
            if text.starts(with: line), text.count == 3 || text.dropFirst(3).first == ASCII.space { return self.text }
            line.append(ASCII.space)
        }
        let status = self.status.octets
        // X.0.0 stands for a status that the server did not give.
        let isGiven = self.status.subject > 0 || self.status.detail > 0
        if isGiven, !text.starts(with: status) {
            line += status
            line.append(ASCII.space)
        }
        while text.first == ASCII.space { text.removeFirst() }
        return line + text
    }

    fileprivate func appendStatus(isComplete: Bool, isCoded: Bool, to status: inout [UInt8]) {
        let original =
            self.dsn.reportedOriginal(isCoded: isCoded)
            ?? self.original.map { DeliveryReport.typed($0.octets, isCoded: isCoded) }
        if isComplete, let original {
            status.append(text: "Original-Recipient: ")
            status += original
            status.append(text: "\r\n")
        }
        status.append(text: "Final-Recipient: ")
        status += DeliveryReport.typed(self.address.octets, isCoded: isCoded)
        status.append(text: "\r\nAction: ")
        status += self.action.octets
        status.append(text: "\r\nStatus: ")
        status += self.status.octets
        status.append(text: "\r\n")
        guard isComplete else { return }
        if let host = self.remoteHost {
            status.append(text: "Remote-MTA: dns; ")
            status += host
            status.append(text: "\r\n")
        }
        if !self.text.isEmpty {
            // RFC 3464 §2.3.6: `smtp` is for the replies of SMTP servers; what we say ourselves is of our own type.
            let isReply = self.code > 0 && self.remoteHost != nil
            var field: [UInt8] = []
            field.append(text: isReply ? "Diagnostic-Code: smtp; " : "Diagnostic-Code: X-Apus; ")
            field += self.diagnostic
            status.append(folding: field)
        }
        if let lastAttempt = self.lastAttempt {
            status.append(text: "Last-Attempt-Date: ")
            MailDate(lastAttempt).append(to: &status)
            status.append(text: "\r\n")
        }
        if self.action == .delayed, let limit = self.retryLimit {
            status.append(text: "Will-Retry-Until: ")
            MailDate(limit).append(to: &status)
            status.append(text: "\r\n")
        }
    }
}

extension Array where Element == UInt8 {
    /// Appends a field, folded before words so that its lines have at most 76 octets where its words allow it.
    ///
    /// Unfolding (RFC 5322 §2.2.3) gives the field back, octet for octet.
    fileprivate mutating func append(folding field: [UInt8]) {
        var column = 0
        var index = 0
        while index < field.count {
            // A word with the spaces in front of it.
            var end = index
            while end < field.count, field[end] == ASCII.space { end += 1 }
            let hasWord = end < field.count
            while end < field.count, field[end] != ASCII.space { end += 1 }
            if column > 0, hasWord, field[index] == ASCII.space, column + end - index > 76 {
                self += [ASCII.carriageReturn, ASCII.lineFeed]
                column = 0
            }
            if hasWord { self += field[index..<end] }
            column += end - index
            index = end
        }
        self += [ASCII.carriageReturn, ASCII.lineFeed]
    }
}
