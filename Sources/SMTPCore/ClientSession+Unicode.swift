// SPDX-License-Identifier: Apache-2.0
//
// What a server without SMTPUTF8 cannot be told (RFC 6531 §3.2, §3.6).

import MailTypes

extension ClientSession.Transaction {
    /// Whether MAIL has SMTPUTF8 where that is offered: if the sender has asked for it, needed or not, as nobody but him
    /// knows what stands in the parts of the message; and if an address needs it.
    var concernsUnicode: Bool {
        if self.unicode != .none || self.reversePath.isInternational { return true }
        for recipient in self.recipients where recipient.isInternational { return true }
        return false
    }
}

extension ClientSession {
    /// Settles the recipients that the message cannot reach by way of this server.
    ///
    /// It is as final as a message that is too large: a sender who learns of it now can write in another way. A header
    /// alone is no obstacle for LMTP: mailboxes take octets, and nobody downgrades behind them.
    mutating func settleForWantOfUnicode(_ transaction: Transaction) {
        if transaction.reversePath.isInternational {
            self.settleRest(self.unicodeFailure("the sender's address", EnhancedStatus(.permanent, 6, 7)))
        } else if transaction.unicode == .inHeader, !self.isLMTP {
            self.settleRest(self.unicodeFailure("the message's header", EnhancedStatus(.permanent, 6, 9)))
        }
        for (index, recipient) in transaction.recipients.enumerated() where recipient.isInternational {
            self.untold.insert(index)
            guard self.verdicts[index] == nil else { continue }
            self.verdicts[index] = self.unicodeFailure("this address", EnhancedStatus(.permanent, 6, 7))
        }
    }

    /// The statuses are those of RFC 6531 §4.2.
    private func unicodeFailure(_ subject: String, _ status: EnhancedStatus) -> DeliveryOutcome {
        DeliveryOutcome(
            .failed, code: 0, status: status, reporter: self.peerName,
            text: Array("The server does not offer SMTPUTF8, which \(subject) needs".utf8))
    }

    /// The first recipient from `index` on that the server is told.
    func nextRecipient(from index: Int) -> Int? {
        var index = index
        while index < self.verdicts.count, self.untold.contains(index) { index += 1 }
        return index < self.verdicts.count ? index : nil
    }
}
