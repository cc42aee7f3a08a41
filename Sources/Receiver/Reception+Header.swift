// SPDX-License-Identifier: Apache-2.0
//
// What goes in front of a message.

import MailTypes
import MessageCore
import SMTPCore
import SMTPDrivers
import TLSEngine
import Unix

extension Reception {
    /// What a mail program has left out (RFC 6409 §8).
    func additions(to presence: FieldPresence, from path: ReversePath) -> [UInt8] {
        var sender: [UInt8]?
        if case .address(let address) = path { sender = address.octets }
        var messageID = self.sessionID
        messageID.append(ASCII.dot)
        messageID.append(decimal: self.messageCount + 1)
        messageID.append(ASCII.at)
        messageID += self.settings.terms.rules.hostname
        return presence.additions(date: WallClock.now(), sender: sender, messageID: messageID)
    }

    /// RFC 3848 has no word for HELO under TLS; what the encryption was stands in the field all the same.
    var transport: ReceivedField.Transport {
        guard self.isExtended else { return .smtp }
        let isUnicode = self.mail?.parameters.isUnicode ?? false
        return switch (self.tls != nil, self.user != nil) {
        case (false, false): isUnicode ? .utf8smtp : .esmtp
        case (false, true): isUnicode ? .utf8smtpa : .esmtpa
        case (true, false): isUnicode ? .utf8smtps : .esmtps
        case (true, true): isUnicode ? .utf8smtpsa : .esmtpsa
        }
    }

    /// Whom the Received field names.
    func namedRecipient(_ mail: ReceivedMail) -> ForwardPath? {
        guard mail.recipientCount == 1, let recipient = mail.recipient else { return nil }
        return recipient.isInternational && !mail.unicodeHeader.isFound ? nil : recipient
    }

    var encryption: ReceivedField.Encryption? {
        self.tls.map {
            ReceivedField.Encryption(version: $0.version, cipher: $0.cipher, clientFingerprint: $0.peer?.fingerprint)
        }
    }

    /// One line for `apus queue show`: words with what they are. A client's own word must not look like several.
    var trace: [UInt8] {
        var octets: [UInt8] = []
        octets.reserveCapacity(96)
        if let uid = self.uid {
            octets.append(text: "uid=" as StaticString)
            octets.append(decimal: uid)
        } else {
            octets.append(text: "client=" as StaticString)
            self.client.append(to: &octets)
        }
        if let user = self.user {
            octets.append(text: " user=" as StaticString)
            octets += Self.word(user)
        }
        octets.append(text: " helo=" as StaticString)
        octets += Self.word(self.helloName)
        if let tls = self.tls {
            octets.append(text: " tls=" as StaticString)
            octets += Array(tls.version.utf8)
        }
        octets.append(text: " session=" as StaticString)
        octets += self.sessionID
        return octets
    }

    /// With `?` for blanks, signs of equality and everything that is not printable.
    private static func word(_ octets: [UInt8]) -> [UInt8] {
        [UInt8](printable: octets[...]).map { $0 == ASCII.space || $0 == 0x3D ? 0x3F : $0 }
    }
}
