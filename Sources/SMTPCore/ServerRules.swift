// SPDX-License-Identifier: Apache-2.0

package import MailTypes

/// How much a client may ask of one session. No limit has a default here: the settings have.
package struct ServerLimits: Hashable, Sendable {
    /// Announced by SIZE (RFC 1870).
    package let mailOctetCountMax: UInt64
    /// RFC 5321 §4.5.3.1.8 asks for 100.
    package var recipientCountMax: Int
    /// So many refused commands and recipients since the last message taken end the session.
    package let faultCountMax: Int
    /// CR LF included. RFC 5321 §4.5.3.1.4 asks for 512, the parameters of MAIL for more.
    package let commandLineOctetCountMax: Int
    /// Without CR LF. RFC 5321 §4.5.3.1.6 asks for 998.
    package let dataLineOctetCountMax: Int
    /// Commands since the last message taken that bring none further and do not count as faults.
    package static let idleCommandCountMax = 100
    /// A program of this machine may name so many at least: unlike a server, it cannot come again with those that are left.
    package static let localRecipientCountMax = 10_000

    package init(
        mailOctetCountMax: UInt64, recipientCountMax: Int, faultCountMax: Int, commandLineOctetCountMax: Int,
        dataLineOctetCountMax: Int
    ) {
        self.mailOctetCountMax = mailOctetCountMax
        self.recipientCountMax = recipientCountMax
        self.faultCountMax = faultCountMax
        self.commandLineOctetCountMax = commandLineOctetCountMax
        self.dataLineOctetCountMax = dataLineOctetCountMax
    }
}

/// What a session has to do with TLS.
package enum ServerTLS: Hashable, Sendable {
    /// Not offered.
    case none
    /// STARTTLS is offered (RFC 3207).
    case offered
    /// STARTTLS is offered, and there is no mail without it.
    case required
    /// TLS comes before the greeting (RFC 8314 §3).
    case implicit
}

/// What all sessions of one set of settings share: the limits, and the replies that name the host.
///
/// Made once at start and at each reload; a session keeps those that it began with.
package final class ServerRules: Sendable {
    package let hostname: [UInt8]
    package let limits: ServerLimits
    /// Whether a bare LF of a client's content becomes CR LF; else the message is refused.
    package let repairsBareLineFeeds: Bool
    /// Whether SMTPUTF8 is offered (RFC 6531).
    package let offersUnicode: Bool
    /// Whether a client is a process of this machine: nobody can put words into its mouth, and it may send a session that it
    /// has ready (`sendmail -bs < file`).
    let isLocal: Bool

    let greeting: Reply
    let hello: Reply
    let extendedHello: Reply
    /// The same with STARTTLS.
    let extendedHelloBeforeTLS: Reply
    let goodbye: Reply
    let idleTooLong: Reply
    let tooManyFaults: Reply
    package let shuttingDown: Reply
    package let tooManySessions: Reply
    package let tooManySessionsOfClient: Reply

    /// - Parameter origin: see `Reply.extendedHello`.
    package init(
        hostname: [UInt8], limits: ServerLimits, origin: [UInt8]? = nil, repairsBareLineFeeds: Bool = false,
        offersUnicode: Bool = true
    ) {
        self.hostname = hostname
        self.isLocal = origin != nil
        self.offersUnicode = offersUnicode
        self.repairsBareLineFeeds = repairsBareLineFeeds
        self.limits = limits
        self.greeting = .greeting(hostname)
        self.hello = .hello(hostname)
        self.extendedHello = .extendedHello(
            hostname, mailOctetCountMax: limits.mailOctetCountMax, offersTLS: false,
            offersUnicode: offersUnicode, origin: origin)
        self.extendedHelloBeforeTLS = .extendedHello(
            hostname, mailOctetCountMax: limits.mailOctetCountMax, offersTLS: true,
            offersUnicode: offersUnicode, origin: origin)
        self.goodbye = .goodbye(hostname)
        self.idleTooLong = .idleTooLong(hostname)
        self.tooManyFaults = .tooManyFaults(hostname)
        self.shuttingDown = .shuttingDown(hostname)
        self.tooManySessions = .tooManySessions(hostname)
        self.tooManySessionsOfClient = .tooManySessionsOfClient(hostname)
    }
}
