// SPDX-License-Identifier: Apache-2.0
//
// Whom the message of a user says to be from: `submission.from`.

import IDN
import MailTypes
import MessageCore
import SMTPCore

extension Reception {
    /// Octets of From: and Sender: together; much more than anybody's name and address.
    static let authorOctetCountMax = 16_384
    /// Each of them is a question to apus-lookup.
    private static let authorCountMax = 100

    /// Whether From: and Sender: must have addresses of the user alone. Clients that are trusted by their address have none.
    var mustBeAuthor: Bool { self.isSubmission && self.user != nil && self.settings.authorsAreOwn }

    /// Asks about each address in From: and Sender:, and commits the message if all of them are the user's.
    ///
    /// - Returns: nil if an answer is awaited.
    func checkAuthors() -> ServerSession.Verdict? {
        guard let mail = self.mail else { return .refused(.queueUnavailable) }
        switch mail.fieldPresence.authors(countMax: Self.authorCountMax) {
        case .unreadable(let field): return self.refuseContent(.authorUnreadable(field: field.rawValue))
        case .addresses(let authors):
            // That the reverse-path is his was found at MAIL.
            self.mail?.authors =
                authors.filter {
                    $0.address.mapped(.idna2008).map { .address($0) } != mail.reversePath
                }[...]
            return self.checkNextAuthor()
        }
    }

    private func checkNextAuthor() -> ServerSession.Verdict? {
        guard let author = self.mail?.authors.first, let user = self.user else { return self.commitSubmission() }
        guard let address = author.address.mapped(.idna2008) else {
            return self.refuseContent(.authorUnreadable(field: author.field.rawValue))
        }
        switch self.desk.lookup.checkSender(.address(address), user: user, for: self) {
        case .answered(let check): return self.judgeAuthor(check)
        case .waiting(let channel):
            self.question = .author(channel: channel)
            return nil
        }
    }

    /// What is known of the first of the authors that were asked about.
    func judgeAuthor(_ check: RecipientCheck) -> ServerSession.Verdict? {
        guard let author = self.mail?.authors.popFirst() else { return self.commitSubmission() }
        switch check {
        case .local: return self.checkNextAuthor()
        case .remote, .unknown:
            return self.refuseContent(.authorNotOwned(field: author.field.rawValue, author.address))
        case .later, .unavailable: return self.refuseContent(.lookupUnavailable)
        }
    }
}
