// SPDX-License-Identifier: Apache-2.0
//
// The sender's wishes about reports (RFC 3461) as the last fields of frames: they are left out where nothing was wished.

import MailTypes

extension Frame {
    /// Two fields, RET and ENVID, from `index` on; each may be empty, and both may be missing.
    func messageDSN(from index: Int) throws(FrameFault) -> MessageDSN {
        var dsn = MessageDSN()
        if self.fieldCount > index, !self[index].isEmpty {
            dsn.returned = try self.value(ReturnedContent(octets: self[index]))
        }
        if self.fieldCount > index + 1, !self[index + 1].isEmpty {
            guard MessageDSN.isEnvelopeID(self[index + 1]) else { throw FrameFault(.badField, self.verb) }
            dsn.envelopeID = Array(self[index + 1])
        }
        return dsn
    }

    /// Two fields, NOTIFY and ORCPT, likewise.
    func recipientDSN(from index: Int) throws(FrameFault) -> RecipientDSN {
        var dsn = RecipientDSN()
        if self.fieldCount > index, !self[index].isEmpty {
            dsn.notify = try self.value(NotifyConditions(octets: self[index]))
        }
        if self.fieldCount > index + 1, !self[index + 1].isEmpty {
            guard RecipientDSN.isOriginalRecipient(self[index + 1]) else { throw FrameFault(.badField, self.verb) }
            dsn.originalRecipient = Array(self[index + 1])
        }
        return dsn
    }
}

extension Array where Element == UInt8 {
    /// - Parameter isFilled: whether the fields are needed even if they are empty, because another follows.
    mutating func appendFields(_ dsn: MessageDSN, isFilled: Bool = false) {
        guard isFilled || !dsn.isEmpty else { return }
        self.appendField(dsn.returned?.octets ?? [])
        self.appendField(dsn.envelopeID)
    }

    mutating func appendFields(_ dsn: RecipientDSN) {
        guard !dsn.isEmpty else { return }
        self.appendField(dsn.notify?.octets ?? [])
        self.appendField(dsn.originalRecipient)
    }
}
