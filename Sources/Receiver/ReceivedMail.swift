// SPDX-License-Identifier: Apache-2.0

import MailTypes
import MessageCore
import SMTPCore

/// One mail transaction of a session, from MAIL on.
///
/// A class, as it is asked for at every piece of content and would be copied each time.
final class ReceivedMail {
    let reversePath: ReversePath
    let parameters: MailParameters
    /// The first recipient that was taken; the only one is named in the Received field.
    var recipient: ForwardPath?
    var recipientCount = 0
    /// Begun with the first recipient: a mail that nobody here gets does not bother the queue.
    var submission: Submission?
    /// The queue has ended the submission before its commit. The rest of the content is read and dropped.
    var refusal: Reply?
    var receivedCounter = ReceivedCounter()
    /// Of a message with SMTPUTF8.
    var unicodeHeader = UnicodeHeader()
    /// Of a message for submission.
    var fieldPresence: FieldPresence
    /// Whom it says to be from, and who is still to be asked about.
    var authors: ArraySlice<FieldPresence.Author> = []

    init(_ reversePath: ReversePath, _ parameters: MailParameters, readsAuthors: Bool) {
        self.reversePath = reversePath
        self.parameters = parameters
        self.fieldPresence = FieldPresence(authorOctetCountMax: readsAuthors ? Reception.authorOctetCountMax : 0)
    }
}
