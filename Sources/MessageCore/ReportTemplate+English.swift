// SPDX-License-Identifier: Apache-2.0
//
// etc/reports/en.template, word for word (a test compares them): a report can be written whatever files there are.

import MailTypes

extension ReportTemplate {
    /// The template that is always there.
    package static let english: ReportTemplate = {
        do throws(Fault) { return try ReportTemplate(octets: Array(Self.englishText.utf8)) } catch {
            preconditionFailure("line \(error.line) of the English template: \(error.text)")
        }
    }()

    /// Its text.
    package static let englishText = """
        # The words of reports in English. Documentation/reports.md says what can stand here.

        [language]
        en

        [from]
        Mail Delivery System

        [subject failed]
        Your mail could not be delivered

        [subject delayed]
        Your mail is delayed

        [subject delivered]
        Your mail was delivered

        [subject postmaster]
        A report could not be delivered

        [greeting]
        This is the mail server {server}.

        [failed]
        Your message could not be delivered to the recipients below. This is final: the server has stopped trying, and they do
        not have your message. Recipients who are not named here are not affected.

        [delayed]
        Your message has not been delivered to the recipients below yet. You need not do anything: the server goes on trying. If
        it does not succeed, you will get another report.

        [delivered]
        Your message was put into the mailboxes of the recipients below.

        [relayed]
        Your message was handed over to the next mail server for the recipients below. That server sends no reports of its own
        about mail that it delivers, so this is the last that you will hear unless it fails.

        [expanded]
        Your message was sent on to the addresses that stand behind the recipients below. Of these you will hear only if
        something goes wrong.

        [postmaster]
        A report about mail that could not be delivered could not be delivered itself. Whom it was meant for will not learn of
        it from this server. You get it as the postmaster.

        [original]
        (you wrote to <{address}>)

        [said by server]
        The server {server} said: {words}

        [said about server]
        In the words of this server about the server {server}: {words}

        [said here]
        In the words of this server: {words}

        [retry]
        The server goes on trying until {time}.

        [more]
        and {count} more, who are named in the second part of this report.

        [ending]
        If you ask somebody for help, send this whole report along: the parts below say the same for programs, and show your
        message or its header.

        [message]
        Message {id}, accepted {time}

        [advice no-mailbox]
        There is no mailbox of this name. Please check the address, letter by letter, and send the mail again.

        [advice no-domain]
        The part of the address after the @ does not exist or takes no mail. Please check how it is spelt.

        [advice bad-address]
        This is not a complete mail address. Please check how it is spelt.

        [advice no-mail]
        The owner of the part after the @ has declared that no mail is accepted there at all.

        [advice sender]
        The recipient's server does not accept your own address as a sender. Please check how it is set in your mail program.

        [advice disabled]
        The mailbox exists, but accepts no mail at present. Please reach the recipient by another way.

        [advice full]
        The recipient's mailbox is full. Please reach the recipient by another way, or try again later.

        [advice large]
        The message is larger than the recipient's server accepts. Please send it without large attachments.

        [advice no-room]
        The recipient's server has no room for mail. Please try again later.

        [advice unreachable]
        The recipient's server could not be reached, or would not take the message, in all the time that this server tried.
        Please try again later, or reach the recipient by another way.

        [advice no-server]
        The server for the part of the address after the @ could not be found. Please check how it is spelt.

        [advice loop]
        The message was going in circles between mail servers. This is a mistake in how they are set up, not in your message;
        the recipient's administrator should know of it.

        [advice too-many]
        The message has too many recipients at once. Please send it to fewer of them at a time.

        [advice content]
        The recipient's server does not accept a message of this kind.

        [advice policy]
        The recipient's server refuses this message by its rules. What it said is below; the recipient's administrator can
        explain it.

        [advice other]
        The message was refused for good. What was said is below.
        """
}
