// SPDX-License-Identifier: Apache-2.0
//
// Every reply that the server gives of itself, in the order of the numbers. Codes are those that RFC 5321
// §4.2.2 and §4.3.2 allow for the command; the enhanced status is of RFC 3463 and the registry of RFC 5248.
// The words are for a person who reads them in a bounce: they say what was wrong with what.

package import MailTypes

extension Reply {
    // MARK: 2yz: done

    /// To HELP (RFC 5321 §4.1.1.8).
    package static let help = Reply(
        214, EnhancedStatus(.success, 0, 0),
        lines: ["EHLO HELO MAIL RCPT DATA RSET NOOP QUIT VRFY STARTTLS AUTH HELP", "See RFC 5321"].map {
            Array($0.utf8)
        })

    /// The greeting. RFC 2034 §4 leaves it without a status.
    static func greeting(_ hostname: [UInt8]) -> Reply {
        Reply(220, nil, lines: [hostname + Array(" ESMTP Apus".utf8)])
    }

    /// To STARTTLS (RFC 3207 §4): what comes next is a handshake.
    static let startTLS = Reply(220, EnhancedStatus(.success, 0, 0), "Ready to start TLS")

    static func goodbye(_ hostname: [UInt8]) -> Reply {
        Reply(221, EnhancedStatus(.success, 0, 0), lines: [hostname + Array(" closing connection".utf8)])
    }

    /// To HELO (RFC 5321 §4.1.1.1); without a status, as RFC 2034 §4 says.
    static func hello(_ hostname: [UInt8]) -> Reply { Reply(250, nil, lines: [hostname]) }

    /// To EHLO: what is offered (RFC 2920, RFC 1870, RFC 3207, RFC 6152, RFC 2034, RFC 6531).
    ///
    /// - Parameter origin: what the programs of this machine complete addresses with; for them alone.
    static func extendedHello(
        _ hostname: [UInt8], mailOctetCountMax: UInt64, offersTLS: Bool, offersUnicode: Bool, origin: [UInt8]?
    ) -> Reply {
        let keywords =
            ["PIPELINING", "SIZE \(mailOctetCountMax)"] + (offersTLS ? ["STARTTLS"] : [])
            + ["8BITMIME", "ENHANCEDSTATUSCODES", "DSN"] + (offersUnicode ? ["SMTPUTF8"] : [])
        let local = origin.map { [Array("XORIGIN ".utf8) + $0, Array("XVERP".utf8)] } ?? []
        return Reply(250, nil, lines: [hostname] + keywords.map { Array($0.utf8) } + local)
    }

    /// To NOOP and RSET.
    package static let done = Reply(250, EnhancedStatus(.success, 0, 0), "OK")
    package static let senderAccepted = Reply(250, EnhancedStatus(.success, 1, 0), "Sender OK")
    package static let senderForeign = Reply(
        553, EnhancedStatus(.permanent, 7, 1), "This is not your own address (sendmail.senders)")
    package static let recipientAccepted = Reply(250, EnhancedStatus(.success, 1, 5), "Recipient OK")

    /// The message is on stable storage: this reply passes the responsibility to us (RFC 5321 §6.1).
    package static func queued(_ id: MessageID) -> Reply {
        Reply(250, EnhancedStatus(.success, 0, 0), lines: [Array("Queued as ".utf8) + id.octets])
    }

    /// To VRFY of an address that exists, for somebody who may know.
    package static let addressExists = Reply(250, EnhancedStatus(.success, 1, 5), "Address exists")
    /// To VRFY otherwise (RFC 5321 §3.5.3): says nothing about the address.
    package static let cannotVerify = Reply(
        252, EnhancedStatus(.success, 0, 0), "Cannot verify the address, but will try to deliver mail for it")

    // MARK: 3yz: go on

    /// RFC 2034 §4 gives no status for a 3yz reply.
    static let startContent = Reply(354, nil, "End the message with <CR><LF>.<CR><LF>")

    // MARK: 4yz: not now

    /// A 421 names the host first (RFC 5321 §4.2.2) and ends the session.
    static func shuttingDown(_ hostname: [UInt8]) -> Reply {
        Reply(421, EnhancedStatus(.transient, 3, 2), lines: [hostname + Array(" is shutting down, try later".utf8)])
    }
    static func tooManySessions(_ hostname: [UInt8]) -> Reply {
        Reply(421, EnhancedStatus(.transient, 3, 2), lines: [hostname + Array(" is too busy, try later".utf8)])
    }
    static func idleTooLong(_ hostname: [UInt8]) -> Reply {
        Reply(421, EnhancedStatus(.transient, 4, 2), lines: [hostname + Array(" waited too long for you".utf8)])
    }
    static func tooManyFaults(_ hostname: [UInt8]) -> Reply {
        Reply(421, EnhancedStatus(.transient, 7, 0), lines: [hostname + Array(" too many errors".utf8)])
    }
    static func tooManySessionsOfClient(_ hostname: [UInt8]) -> Reply {
        Reply(
            421, EnhancedStatus(.transient, 7, 0),
            lines: [hostname + Array(" too many connections from your address".utf8)])
    }

    /// The queue is away.
    package static let queueUnavailable = Reply(
        451, EnhancedStatus(.transient, 3, 0), "The queue is not available, try later")
    /// The lookup is away.
    package static let lookupUnavailable = Reply(
        451, EnhancedStatus(.transient, 4, 3), "Addresses cannot be looked up now, try later")
    /// The lookup could not tell (a file that cannot be read, for example). Its reason is in the log.
    package static let lookupFailed = Reply(
        451, EnhancedStatus(.transient, 3, 0), "The address cannot be checked now, try later")
    static let tooManyRecipients = Reply(
        452, EnhancedStatus(.transient, 5, 3), "Too many recipients, send the others in another message")

    // MARK: 5yz: no

    static let commandUnknown = Reply(500, EnhancedStatus(.permanent, 5, 2), "Command not recognized")
    static let commandNotPrintable = Reply(
        500, EnhancedStatus(.permanent, 5, 2), "A command consists of printable ASCII")
    static let commandTooLong = Reply(500, EnhancedStatus(.permanent, 5, 2), "Line too long")
    static let commandBareCarriageReturn = Reply(
        500, EnhancedStatus(.permanent, 5, 2), "Bare <CR> received, lines end with <CR><LF>")
    static let commandBareLineFeed = Reply(
        500, EnhancedStatus(.permanent, 5, 2), "Bare <LF> received, lines end with <CR><LF>")
    package static let recipientAddressSyntax = Reply(
        501, EnhancedStatus(.permanent, 1, 3), "Recipient address is not a mailbox")
    package static let senderAddressSyntax = Reply(
        501, EnhancedStatus(.permanent, 1, 7), "Sender address is not a mailbox")
    static let helloSyntax = Reply(501, EnhancedStatus(.permanent, 5, 4), "Syntax: EHLO hostname")
    static let mailSyntax = Reply(501, EnhancedStatus(.permanent, 5, 4), "Syntax: MAIL FROM:<address>")
    static let recipientSyntax = Reply(501, EnhancedStatus(.permanent, 5, 4), "Syntax: RCPT TO:<address>")
    static let argumentUnexpected = Reply(501, EnhancedStatus(.permanent, 5, 4), "This command has no argument")
    static let argumentMissing = Reply(501, EnhancedStatus(.permanent, 5, 4), "This command has an argument")
    static let parameterValue = Reply(
        501, EnhancedStatus(.permanent, 5, 4), "A parameter has a value that it cannot have")
    /// To STARTTLS where it was not offered.
    static let startTLSUnknown = Reply(502, EnhancedStatus(.permanent, 5, 1), "STARTTLS is not offered here")
    static let startTLSAgain = Reply(503, EnhancedStatus(.permanent, 5, 1), "TLS is active already")
    static let startTLSInMail = Reply(503, EnhancedStatus(.permanent, 5, 1), "Not within a mail, say RSET first")
    /// RFC 3207 §4.
    static let startTLSFirst = Reply(530, EnhancedStatus(.permanent, 7, 0), "Must issue a STARTTLS command first")
    static let helloFirst = Reply(503, EnhancedStatus(.permanent, 5, 1), "Say EHLO or HELO first")
    static let mailNested = Reply(503, EnhancedStatus(.permanent, 5, 1), "A sender was given already")
    static let mailFirst = Reply(503, EnhancedStatus(.permanent, 5, 1), "Give a sender with MAIL first")
    static let recipientFirst = Reply(503, EnhancedStatus(.permanent, 5, 1), "Give a recipient with RCPT first")

    /// To VRFY of a local address that does not exist, and to RCPT likewise.
    package static let recipientUnknown = Reply(550, EnhancedStatus(.permanent, 1, 1), "No such mailbox here")
    static let contentBareCarriageReturn = Reply(
        550, EnhancedStatus(.permanent, 5, 2), "Message refused for a bare <CR> in it, lines end with <CR><LF>")
    static let contentBareLineFeed = Reply(
        550, EnhancedStatus(.permanent, 5, 2), "Message refused for a bare <LF> in it, lines end with <CR><LF>")
    /// RCPT for a domain that is not ours, from a client that may not relay. Both reasons are told, because
    /// either may be the mistake that somebody is looking for.
    package static func relayingDenied(client: IPAddress, domain: some Collection<UInt8>) -> Reply {
        var text = Array("Relaying denied: ".utf8)
        text.append(contentsOf: domain)
        text.append(text: " is not a domain of this server, and ")
        text.append(contentsOf: client.octets)
        text.append(text: " may not relay through it")
        return Reply(550, EnhancedStatus(.permanent, 7, 1), lines: [text])
    }
    /// MAIL at a port for submission (RFC 6409 §4.3), from a client that may not relay.
    package static func submissionDenied(client: IPAddress) -> Reply {
        var text = Array("This port is for the clients of this server, and ".utf8)
        text.append(contentsOf: client.octets)
        text.append(text: " is none of them")
        return Reply(550, EnhancedStatus(.permanent, 7, 1), lines: [text])
    }
    /// To EXPN: the members of a list are nobody's business (RFC 5321 §7.3).
    static let expansionRefused = Reply(550, EnhancedStatus(.permanent, 7, 2), "Lists are not expanded")
    /// To an address beyond ASCII in a mail without SMTPUTF8 (RFC 6531 §3.5).
    static let unicodeNotAsked = Reply(
        553, EnhancedStatus(.permanent, 6, 7), "An address that is not ASCII needs MAIL with SMTPUTF8")
    static let mailTooLarge = Reply(552, EnhancedStatus(.permanent, 3, 4), "Message too large")
    /// RFC 5321 §6.3.
    package static let mailLoop = Reply(
        554, EnhancedStatus(.permanent, 4, 6), "Too many Received fields: the message goes in circles")
    /// Input where the client had to wait for a reply (RFC 5321 §4.3.1, RFC 2920 §3.1).
    static let spokenTooSoon = Reply(
        554, EnhancedStatus(.permanent, 5, 0), "Protocol error: you spoke before our reply")
    static let noValidRecipients = Reply(554, EnhancedStatus(.permanent, 5, 1), "No valid recipients")
    static let contentLineTooLong = Reply(554, EnhancedStatus(.permanent, 6, 0), "A line of the message is too long")
    package static let parameterUnknown = Reply(555, EnhancedStatus(.permanent, 5, 4), "Unknown parameter")
}

extension CommandFault {
    /// What the client is told.
    var reply: Reply {
        switch self {
        case .line(.tooLong): .commandTooLong
        case .line(.bareCarriageReturn): .commandBareCarriageReturn
        case .line(.bareLineFeed): .commandBareLineFeed
        case .line(.nul), .notPrintable: .commandNotPrintable
        case .unicodeNotAsked: .unicodeNotAsked
        case .unknownCommand: .commandUnknown
        case .authenticateSyntax: .authenticateSyntax
        case .helloSyntax: .helloSyntax
        case .mailSyntax: .mailSyntax
        case .recipientSyntax: .recipientSyntax
        case .unexpectedArgument: .argumentUnexpected
        case .missingArgument: .argumentMissing
        case .senderAddress: .senderAddressSyntax
        case .recipientAddress: .recipientAddressSyntax
        case .unknownParameter: .parameterUnknown
        case .parameterValue: .parameterValue
        }
    }
}

extension DataFault {
    /// What the client is told at the end of the data.
    var reply: Reply {
        switch self {
        case .bareCarriageReturn: .contentBareCarriageReturn
        case .bareLineFeed: .contentBareLineFeed
        case .lineTooLong: .contentLineTooLong
        case .tooLarge: .mailTooLarge
        }
    }
}
