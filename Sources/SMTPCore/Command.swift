// SPDX-License-Identifier: Apache-2.0

package import MailTypes

/// A command that follows the grammar (RFC 5321 §4.1.1). Whether it may be given now is the session's business.
package enum Command: Hashable, Sendable {
    /// HELO with the name that the client gives itself: printable, 1…255 octets, otherwise unchecked.
    case hello([UInt8])
    /// EHLO, likewise.
    case extendedHello([UInt8])
    case mail(ReversePath, MailParameters)
    case recipient(ForwardPath, RecipientDSN = RecipientDSN())
    case data
    case reset
    case noOperation
    case quit
    /// VRFY; nil if the argument is a word that is no path, such as a person's name. Only with the parameter SMTPUTF8 it
    /// is beyond ASCII (RFC 6531 §3.7.4.2).
    case verify(ForwardPath?)
    case expand
    case help
    /// RFC 3207.
    /// AUTH with the name of a mechanism, as the client wrote it.
    case authenticate([UInt8], ServerSession.InitialResponse)
    case startTLS
}

/// What MAIL may say about the message to come.
package struct MailParameters: Hashable, Sendable {
    /// SIZE= (RFC 1870); 0 if it was not given. A number above what 64 bits hold is the largest that they hold.
    package var declaredOctetCount: UInt64
    /// BODY= (RFC 6152).
    package var bodyType: BodyType
    /// RET= and ENVID= (RFC 3461).
    package var dsn: MessageDSN
    /// SMTPUTF8 (RFC 6531 §3.4).
    package var isUnicode: Bool
    /// XVERP, as Postfix has it: for the programs of this machine.
    package var isVERP: Bool

    package init(
        declaredOctetCount: UInt64 = 0, bodyType: BodyType = .sevenBit, dsn: MessageDSN = MessageDSN(),
        isUnicode: Bool = false, isVERP: Bool = false
    ) {
        self.isUnicode = isUnicode
        self.isVERP = isVERP
        self.dsn = dsn
        self.declaredOctetCount = declaredOctetCount
        self.bodyType = bodyType
    }
}

/// What is wrong with a line that was meant as a command.
package enum CommandFault: Error, Hashable, Sendable {
    case line(LineFault)
    /// An octet that is not printable ASCII. MAIL, RCPT and VRFY alone may have UTF-8 (RFC 6531 §3.3), and whether they
    /// may is the session's business.
    case notPrintable
    /// VRFY of an address beyond ASCII without SMTPUTF8.
    case unicodeNotAsked
    case unknownCommand
    /// AUTH without a mechanism, or with more than a response behind it.
    case authenticateSyntax
    /// HELO or EHLO without a name, or with an overlong one.
    case helloSyntax
    /// MAIL without `FROM:<…>`.
    case mailSyntax
    /// RCPT without `TO:<…>`.
    case recipientSyntax
    /// An argument where none is taken.
    case unexpectedArgument
    /// VRFY or EXPN without one.
    case missingArgument
    /// The brackets of MAIL do not hold a path.
    case senderAddress
    /// The brackets of RCPT do not hold a path.
    case recipientAddress
    /// A parameter that was not announced (RFC 5321 §4.1.1.11).
    case unknownParameter
    /// A known parameter with a value that it cannot have, or given twice.
    case parameterValue
}
