// SPDX-License-Identifier: Apache-2.0
//
// Every enhanced status code (RFC 3463, RFC 5248) by which a program of ours says that something has failed: the source
// of Documentation/status-codes.md. A test holds the sources against it, both ways.

/// One failure that a program of ours can tell.
package struct RegisteredStatus: Hashable, Sendable {
    /// Who says it.
    package let program: String
    package let status: EnhancedStatus
    /// The reply code that goes with it; 0: there is none, it is said of an attempt that had no reply.
    package let code: UInt16
    /// When.
    package let about: String

    init(
        _ program: String, _ statusClass: EnhancedStatus.Class, _ subject: UInt16, _ detail: UInt16, _ code: UInt16,
        _ about: String
    ) {
        self.program = program
        self.status = EnhancedStatus(statusClass, subject, detail)
        self.code = code
        self.about = about
    }
}

package enum StatusRegister {
    package static let all: [RegisteredStatus] = smtpd + lookup + queue + remote + local + bounce

    private static let smtpd = [
        RegisteredStatus(
            "apus-smtpd", .transient, 3, 0, 451,
            "apus-queue or apus-lookup does not answer, or the address cannot be checked now"),
        RegisteredStatus("apus-smtpd", .transient, 3, 2, 421, "Apus is stopping, or has too many sessions"),
        RegisteredStatus(
            "apus-smtpd", .transient, 4, 2, 421, "the client was silent for too long, or its message came too slowly"),
        RegisteredStatus("apus-smtpd", .transient, 4, 3, 451, "addresses cannot be looked up now"),
        RegisteredStatus("apus-smtpd", .transient, 5, 3, 452, "more than `smtp.recipients-max` recipients"),
        RegisteredStatus(
            "apus-smtpd", .transient, 7, 0, 421,
            "too many errors, sessions, or failed attempts to authenticate of the client"),
        RegisteredStatus(
            "apus-smtpd", .transient, 7, 0, 454, "credentials cannot be checked now, or too many were wrong"),
        RegisteredStatus("apus-smtpd", .transient, 7, 1, 450, "the user has sent as much as he may in an hour"),
        RegisteredStatus(
            "apus-smtpd", .permanent, 1, 1, 550, "the recipient does not exist; apus-lookup may say why in other words"),
        RegisteredStatus("apus-smtpd", .permanent, 1, 3, 501, "the recipient's address is none"),
        RegisteredStatus("apus-smtpd", .permanent, 1, 7, 501, "the sender's address is none"),
        RegisteredStatus("apus-smtpd", .permanent, 3, 4, 552, "the message is larger than `smtp.size-max`"),
        RegisteredStatus("apus-smtpd", .permanent, 4, 6, 554, "too many `Received:` fields"),
        RegisteredStatus(
            "apus-smtpd", .permanent, 5, 0, 554, "the client spoke before the greeting, or sent on where it must wait"),
        RegisteredStatus("apus-smtpd", .permanent, 5, 1, 502, "STARTTLS or AUTH where it is not offered"),
        RegisteredStatus("apus-smtpd", .permanent, 5, 1, 503, "a command at the wrong time"),
        RegisteredStatus("apus-smtpd", .permanent, 5, 1, 554, "DATA without a recipient that was taken"),
        RegisteredStatus("apus-smtpd", .permanent, 5, 2, 500, "no command, or a line that is none"),
        RegisteredStatus("apus-smtpd", .permanent, 5, 2, 501, "no base64 in an exchange of credentials"),
        RegisteredStatus("apus-smtpd", .permanent, 5, 2, 550, "a bare CR or LF in the message"),
        RegisteredStatus("apus-smtpd", .permanent, 5, 4, 501, "arguments or parameters that a command cannot have"),
        RegisteredStatus("apus-smtpd", .permanent, 5, 4, 504, "a mechanism of authentication that is not offered"),
        RegisteredStatus("apus-smtpd", .permanent, 5, 4, 555, "a parameter of MAIL or RCPT that is not known"),
        RegisteredStatus("apus-smtpd", .permanent, 5, 6, 500, "a line of an exchange of credentials that is too long"),
        RegisteredStatus(
            "apus-smtpd", .permanent, 6, 0, 550,
            "more than one `From:` in a message for submission, or one that cannot be read, if `submission.from` is `own`"
        ),
        RegisteredStatus(
            "apus-smtpd", .permanent, 6, 0, 554, "a line of the message is longer than `smtp.line-length-max`"),
        RegisteredStatus("apus-smtpd", .permanent, 6, 7, 553, "an address beyond ASCII without SMTPUTF8"),
        RegisteredStatus("apus-smtpd", .permanent, 7, 0, 501, "the client has given up its exchange of credentials"),
        RegisteredStatus("apus-smtpd", .permanent, 7, 0, 530, "STARTTLS or AUTH must come first"),
        RegisteredStatus(
            "apus-smtpd", .permanent, 7, 1, 550,
            "the client may not send to where the recipient is, or not through this listener; or `From:` or `Sender:` of a "
                + "message is not one of the user's (`submission.from`)"),
        RegisteredStatus("apus-smtpd", .permanent, 7, 1, 553, "the sender's address is not one of the user's"),
        RegisteredStatus("apus-smtpd", .permanent, 7, 2, 550, "EXPN"),
        RegisteredStatus("apus-smtpd", .permanent, 7, 8, 535, "wrong credentials"),
        RegisteredStatus("apus-smtpd", .permanent, 7, 11, 538, "credentials that must not be shown without TLS"),
    ]

    private static let lookup = [
        RegisteredStatus("apus-lookup", .permanent, 1, 1, 0, "no such user, or an alias that leads nowhere"),
        RegisteredStatus("apus-lookup", .permanent, 1, 2, 0, "a domain that is a number without brackets"),
    ]

    private static let queue = [
        RegisteredStatus(
            "apus-queue", .transient, 3, 0, 0,
            "a delivering program told no outcome, or was lost with the message three times"),
        RegisteredStatus(
            "apus-queue", .transient, 3, 0, 451,
            "apus-lookup does not answer, the content did not arrive whole, or the queue has a fault"),
        RegisteredStatus(
            "apus-queue", .transient, 3, 1, 452,
            "less than `queue.reserve` is left on the disk, or too much mail arrives at once"),
        RegisteredStatus("apus-queue", .transient, 3, 2, 451, "apus-queue is stopping"),
        RegisteredStatus(
            "apus-queue", .transient, 4, 1, 0,
            "the destination is down; said in the report of a delay without an attempt"),
        RegisteredStatus(
            "apus-queue", .transient, 5, 3, 452, "more than `queue.recipients-max` recipients, aliases expanded"),
        RegisteredStatus(
            "apus-queue", .transient, 6, 0, 0, "a part of the message is missing in the file of the queue"),
        RegisteredStatus("apus-queue", .permanent, 0, 0, 554, "returned by the operator (`apus queue bounce`)"),
        RegisteredStatus("apus-queue", .permanent, 1, 1, 0, "none of the recipients exists, and nobody is to be told"),
        RegisteredStatus("apus-queue", .permanent, 3, 4, 552, "the message is too large"),
        RegisteredStatus(
            "apus-queue", .permanent, 4, 7, 0, "tried for `queue.lifetime`; the last reply stands behind it"),
    ]

    private static let remote = [
        RegisteredStatus("apus-remote", .transient, 0, 0, 0, "the server gave no verdict; also a 4xx without a status"),
        RegisteredStatus("apus-remote", .transient, 4, 1, 0, "the host cannot be reached, or does not answer in time"),
        RegisteredStatus("apus-remote", .transient, 4, 2, 0, "the connection was lost"),
        RegisteredStatus("apus-remote", .transient, 4, 3, 0, "the DNS does not answer, or in error"),
        RegisteredStatus("apus-remote", .transient, 5, 0, 0, "the server does not keep to SMTP"),
        RegisteredStatus("apus-remote", .transient, 5, 3, 452, "552 in reply to RCPT: too many recipients, once"),
        RegisteredStatus(
            "apus-remote", .transient, 7, 0, 0,
            "we cannot authenticate ourselves: no password, no TLS that is good enough, no mechanism in common; a refusal that may be for want of TLS"
        ),
        RegisteredStatus("apus-remote", .transient, 7, 8, 0, "the server does not take our credentials"),
        RegisteredStatus("apus-remote", .transient, 7, 4, 0, "TLS is demanded, and the server does not offer it"),
        RegisteredStatus(
            "apus-remote", .transient, 7, 5, 0, "the handshake of TLS failed, or the certificate is not good enough"),
        RegisteredStatus(
            "apus-remote", .permanent, 1, 2, 0, "the domain does not exist, has neither MX nor address, or is no domain"
        ),
        RegisteredStatus("apus-remote", .permanent, 1, 10, 556, "the domain accepts no mail (null MX, RFC 7505)"),
        RegisteredStatus("apus-remote", .permanent, 3, 4, 0, "the message is larger than the server's SIZE"),
        RegisteredStatus(
            "apus-remote", .permanent, 4, 4, 0, "no exchanger of the domain has a usable name or an address"),
        RegisteredStatus("apus-remote", .permanent, 4, 6, 0, "the best exchanger is this server itself"),
        RegisteredStatus(
            "apus-remote", .permanent, 6, 7, 0,
            "the recipient's or the sender's address is beyond ASCII, and the server does not offer SMTPUTF8"),
        RegisteredStatus(
            "apus-remote", .permanent, 6, 9, 0,
            "the sender has asked for SMTPUTF8, the header is beyond ASCII, and the server does not offer it"),
    ]

    private static let local = [
        RegisteredStatus(
            "apus-local", .transient, 2, 0, 0,
            "the mailbox cannot be used as it is: no home, no permission, locked, another attempt at the same delivery"),
        RegisteredStatus("apus-local", .transient, 2, 2, 0, "the mailbox is over its quota"),
        RegisteredStatus(
            "apus-local", .transient, 3, 0, 0,
            "another fault of the system; a program did not take the mail now; the user's processes hang"),
        RegisteredStatus("apus-local", .transient, 3, 1, 0, "no space on the disk"),
        RegisteredStatus(
            "apus-local", .transient, 3, 2, 0,
            "the system is short of memory or files; mail goes on to more addresses than at once"),
        RegisteredStatus(
            "apus-local", .transient, 3, 5, 0,
            "nobody reads the postmaster's mail; the user's `.forward` or `.qmail`, or the file of aliases, is not to be believed "
                + "or understood; `virtual.owner` or `local.alias-user` is no user"),
        RegisteredStatus(
            "apus-local", .permanent, 1, 1, 0, "no such user, or a program says so (exit status EX_NOUSER)"),
        RegisteredStatus("apus-local", .permanent, 1, 2, 0, "a program: EX_NOHOST"),
        RegisteredStatus("apus-local", .permanent, 2, 0, 0, "a program: EX_CANTCREAT"),
        RegisteredStatus(
            "apus-local", .permanent, 2, 2, 0, "the mailbox is over its quota, with `local.over-quota = \"fail\"`"),
        RegisteredStatus("apus-local", .permanent, 2, 3, 0, "larger than a file of the user may be"),
        RegisteredStatus(
            "apus-local", .permanent, 3, 0, 0,
            "a program: EX_USAGE, EX_NOINPUT, EX_UNAVAILABLE, EX_SOFTWARE, EX_OSFILE"),
        RegisteredStatus("apus-local", .permanent, 3, 5, 0, "a program: EX_CONFIG"),
        RegisteredStatus("apus-local", .permanent, 4, 6, 0, "the message has been delivered to this address before"),
        RegisteredStatus("apus-local", .permanent, 5, 0, 0, "a program: EX_PROTOCOL"),
        RegisteredStatus("apus-local", .permanent, 6, 0, 0, "a program: EX_DATAERR"),
        RegisteredStatus("apus-local", .permanent, 7, 0, 0, "a program: EX_NOPERM"),
        RegisteredStatus("apus-local", .permanent, 7, 1, 0, "the user is root"),
    ]

    private static let bounce = [
        RegisteredStatus("apus-bounce", .transient, 0, 0, 0, "no report now: `bounce.reports-per-minute-max`"),
        RegisteredStatus(
            "apus-bounce", .permanent, 0, 0, 0,
            "no report: there is nobody to tell, or the sender has had enough of them"),
    ]

    /// The table in Markdown, as Documentation/status-codes.md has it.
    package static var markdown: String {
        var text = "| status | reply | program | when |\n|---|---|---|---|\n"
        for row in Self.all {
            let status = row.status.octets.printableText
            text += "| \(status) | \(row.code == 0 ? "" : String(row.code)) | \(row.program) | \(row.about) |\n"
        }
        return text
    }
}
