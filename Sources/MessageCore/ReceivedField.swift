// SPDX-License-Identifier: Apache-2.0

package import MailTypes

/// The trace field that a server puts in front of each message it takes (RFC 5321 §4.4).
///
///     Received: from client.example ([192.0.2.1])
///         by mx.example.org with ESMTP id 0642p9hh7nvc0
///         for <user@example.org>; Mon, 23 Nov 2026 15:03:51 +0000
///
/// It is made in two parts because only the queue knows the message id that stands between them.
package struct ReceivedField: Sendable {
    /// How the message came (RFC 3848).
    package enum Transport: String, Sendable {
        /// The client said HELO.
        case smtp = "SMTP"
        /// The client said EHLO.
        case esmtp = "ESMTP"
        /// The client said EHLO under TLS.
        case esmtps = "ESMTPS"
        /// The client said EHLO and has authenticated.
        case esmtpa = "ESMTPA"
        /// The client said EHLO under TLS and has authenticated.
        case esmtpsa = "ESMTPSA"
        /// The same four for mail with SMTPUTF8 (RFC 6531 §4.3).
        case utf8smtp = "UTF8SMTP"
        case utf8smtps = "UTF8SMTPS"
        case utf8smtpa = "UTF8SMTPA"
        case utf8smtpsa = "UTF8SMTPSA"
    }

    /// How the connection was encrypted.
    package struct Encryption: Hashable, Sendable {
        /// `TLSv1.3`.
        package let version: String
        /// The IANA's name of the cipher suite.
        package let cipher: String
        /// SHA-256 of the certificate that the client has shown, in hexadecimal digits.
        package let clientFingerprint: String?

        package init(version: String, cipher: String, clientFingerprint: String?) {
            self.version = version
            self.cipher = cipher
            self.clientFingerprint = clientFingerprint
        }
    }

    /// What the client called itself. Whatever it was, the field stays well formed.
    package let helloName: [UInt8]
    package let client: IPAddress
    /// The user of this machine who has handed it in; then neither of the two before is told.
    package let uid: UInt32?
    /// Our own name.
    package let hostname: [UInt8]
    package let transport: Transport
    package let encryption: Encryption?
    /// Whether the field says where the message came from.
    package let tellsClient: Bool
    /// Given only if there is exactly one recipient: naming several would show each to the others
    /// (RFC 5321 §7.6). One beyond ASCII makes the header so, which not every server takes: for a header that is so already.
    package let recipient: ForwardPath?
    package let date: Timestamp

    package init(
        helloName: [UInt8], client: IPAddress, uid: UInt32? = nil, hostname: [UInt8], transport: Transport,
        encryption: Encryption? = nil, tellsClient: Bool = true, recipient: ForwardPath?, date: Timestamp
    ) {
        self.tellsClient = tellsClient
        self.uid = uid
        self.helloName = helloName
        self.client = client
        self.hostname = hostname
        self.transport = transport
        self.encryption = encryption
        self.recipient = recipient
        self.date = date
    }

    /// What stands before the message id. At most about 600 octets.
    package var prefix: [UInt8] {
        var octets: [UInt8] = []
        octets.reserveCapacity(128)
        if let uid = self.uid {
            octets.append(text: "Received: by ")
            octets.append(contentsOf: self.hostname)
            octets.append(text: " (from user ")
            octets.append(decimal: uid)
            octets.append(text: ")\r\n\tid ")
            return octets
        }
        octets.append(text: "Received: ")
        if self.tellsClient {
            octets.append(text: "from ")
            self.appendHelloName(to: &octets)
            octets.append(text: " ([")
            if case .v6 = self.client { octets.append(text: "IPv6:") }
            octets.append(contentsOf: self.client.octets)
            octets.append(text: "])\r\n\t")
        }
        octets.append(text: "by ")
        octets.append(contentsOf: self.hostname)
        octets.append(text: " with ")
        octets.append(text: self.transport.rawValue)
        if let encryption = self.encryption {
            // The names are OpenSSL's and the digits ours: nothing in them is the client's word.
            octets.append(text: " (")
            octets.append(text: encryption.version)
            if let fingerprint = encryption.clientFingerprint {
                octets.append(text: ", client certificate sha256 ")
                octets.append(text: fingerprint)
            }
            octets.append(text: ")\r\n\t")
        } else {
            octets.append(ASCII.space)
        }
        octets.append(text: "id ")
        return octets
    }

    /// What stands behind the message id, the end of the line included. At most about 600 octets.
    package var suffix: [UInt8] {
        var octets: [UInt8] = []
        octets.reserveCapacity(128)
        if let recipient = self.recipient {
            octets.append(text: "\r\n\tfor <")
            octets.append(contentsOf: recipient.octets)
            octets.append(ASCII.greater)
        }
        if let encryption = self.encryption {
            // RFC 8314 §4.3.
            octets.append(text: "\r\n\ttls ")
            octets.append(text: encryption.cipher)
        }
        octets.append(text: "; ")
        MailDate(self.date).append(to: &octets)
        octets.append(ASCII.carriageReturn)
        octets.append(ASCII.lineFeed)
        return octets
    }

    /// The name of HELO is the client's word and may be anything printable. A domain or a literal consists
    /// of letters, digits and these few; every other octet could open a comment or end the field.
    private func appendHelloName(to octets: inout [UInt8]) {
        if self.helloName.isEmpty { octets.append(text: "unknown") }
        for octet in self.helloName.prefix(MailAddress.domainOctetCountMax) {
            switch octet {
            case let octet where octet.isLetterOrDigit: octets.append(octet)
            // - . : [ ] _
            case 0x2D, 0x2E, 0x3A, 0x5B, 0x5D, 0x5F: octets.append(octet)
            default: octets.append(0x3F)
            }
        }
    }
}
