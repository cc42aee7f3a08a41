// SPDX-License-Identifier: Apache-2.0
//
// The first part of a report: for a person who wrote a mail and has never heard of a status code. What to do comes
// before what a machine said; the machine's words are kept, as the person who helps will ask for them.

import MailTypes

extension DeliveryReport {
    /// The words for people, in lines of at most 76 octets, but for addresses that are longer.
    var explanation: [UInt8] {
        var text: [UInt8] = []
        text.append(text: "This is the mail server ")
        text += self.hostname
        text.append(text: ".\r\n\r\n")
        switch self.audience {
        case .sender:
            text.append(wrapping: self.recipients.count == 1 ? Self.introductionForOne : Self.introductionForSeveral)
        case .postmaster:
            text.append(wrapping: Self.introductionForPostmaster)
        }
        var restCount = self.recipients.count
        for recipient in self.recipients {
            guard text.count < Self.explanationOctetCountMax else { break }
            restCount -= 1
            self.explain(recipient, in: &text)
        }
        if restCount > 0 {
            text.append(text: "\r\nand ")
            text.append(decimal: restCount)
            text.append(text: " more, who are named in the second part of this report.\r\n")
        }
        text.append(text: "\r\n")
        text.append(wrapping: Self.ending)
        text.append(text: "\r\nMessage ")
        text += self.messageID.octets
        text.append(text: ", accepted ")
        MailDate(self.arrival).append(to: &text)
        text.append(text: "\r\n")
        return text
    }

    private static let introductionForOne = """
        Your message could not be delivered to the address below. This is final: the server has stopped trying, and \
        the recipient does not have your message.
        """
    private static let introductionForSeveral = """
        Your message could not be delivered to the addresses below. This is final: the server has stopped trying, and \
        these recipients do not have your message. Recipients who are not named here are not affected.
        """
    private static let introductionForPostmaster = """
        A report about mail that could not be delivered could not be delivered itself. Whom it was meant for will not \
        learn of it from this server. You get it as the postmaster.
        """
    private static let ending = """
        If you ask somebody for help, send this whole report along: the parts below say the same for programs, and \
        show the header of the message.
        """

    private func explain(_ recipient: Recipient, in text: inout [UInt8]) {
        text.append(text: "\r\n<")
        text += recipient.address.octets
        text.append(text: ">\r\n")
        if let original = recipient.original, original != recipient.address {
            text.append(text: "  (you wrote to <")
            text += original.octets
            text.append(text: ">)\r\n")
        }
        text.append(wrapping: Self.advice(recipient.status), indent: 2)
        if !recipient.text.isEmpty {
            var said: [UInt8] = []
            if let host = recipient.remoteHost, recipient.code > 0 {
                said.append(text: "The server ")
                said += host
                said.append(text: " said: ")
            } else if let host = recipient.remoteHost {
                // It gave no reply: these words are our own, and about it.
                said.append(text: "In the words of this server about the server ")
                said += host
                said.append(text: ": ")
            } else {
                said.append(text: "In the words of this server: ")
            }
            said += recipient.diagnostic
            text.append(wrapping: said, indent: 2)
        }
    }

    /// What the status means for the person who sent the mail, and what to do about it.
    static func advice(_ status: EnhancedStatus) -> String {
        switch (status.subject, status.detail) {
        case (1, 0), (1, 1), (1, 6):
            "There is no mailbox of this name. Please check the address, letter by letter, and send the mail again."
        case (1, 2):
            "The part of the address after the @ does not exist or takes no mail. Please check how it is spelt."
        case (1, 3):
            "This is not a complete mail address. Please check how it is spelt."
        case (1, 10):
            "The owner of the part after the @ has declared that no mail is accepted there at all."
        case (1, 7), (1, 8):
            "The recipient's server does not accept your own address as a sender. Please check how it is set in your "
                + "mail program."
        case (2, 1):
            "The mailbox exists, but accepts no mail at present. Please reach the recipient by another way."
        case (2, 2):
            "The recipient's mailbox is full. Please reach the recipient by another way, or try again later."
        case (2, 3), (3, 4):
            "The message is larger than the recipient's server accepts. Please send it without large attachments."
        case (3, 1):
            "The recipient's server has no room for mail. Please try again later."
        case (4, 1), (4, 2), (4, 7), (4, 0):
            "The recipient's server could not be reached, or would not take the message, in all the time that this "
                + "server tried. Please try again later, or reach the recipient by another way."
        case (4, 3), (4, 4):
            "The server for the part of the address after the @ could not be found. Please check how it is spelt."
        case (4, 6):
            "The message was going in circles between mail servers. This is a mistake in how they are set up, not in "
                + "your message; the recipient's administrator should know of it."
        case (5, 3):
            "The message has too many recipients at once. Please send it to fewer of them at a time."
        case (6, _):
            "The recipient's server does not accept a message of this kind."
        case (7, _):
            "The recipient's server refuses this message by its rules. What it said is below; the recipient's "
                + "administrator can explain it."
        default:
            status.statusClass == .permanent
                ? "The message was refused for good. What was said is below."
                : "The message could not be delivered in all the time that this server tried."
        }
    }
}

extension Array where Element == UInt8 {
    /// Appends a paragraph in lines of at most 76 octets, each with CR LF; a longer word has a line to itself,
    /// but no line is longer than 900 octets.
    mutating func append(wrapping paragraph: some Collection<UInt8>, indent: Int = 0) {
        var column = 0
        for word in paragraph.split(separator: ASCII.space) {
            var rest = word[...]
            while !rest.isEmpty {
                let piece = rest.prefix(900)
                rest = rest.dropFirst(900)
                if column > 0 {
                    if column + 1 + piece.count <= 76 {
                        self.append(ASCII.space)
                        column += 1
                    } else {
                        self += [ASCII.carriageReturn, ASCII.lineFeed]
                        column = 0
                    }
                }
                if column == 0 {
                    self += [UInt8](repeating: ASCII.space, count: indent)
                    column = indent
                }
                self += piece
                column += piece.count
            }
        }
        if column > 0 { self += [ASCII.carriageReturn, ASCII.lineFeed] }
    }

    /// The same with words of ours.
    mutating func append(wrapping paragraph: String, indent: Int = 0) {
        self.append(wrapping: Array(paragraph.utf8), indent: indent)
    }
}
