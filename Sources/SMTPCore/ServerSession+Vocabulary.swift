// SPDX-License-Identifier: Apache-2.0
//
// What a session is told, and what it says.

package import MailTypes

extension ServerSession {
    /// What happens to a session.
    package enum Event: Equatable, Sendable {
        case connected
        /// Octets came before the greeting went out.
        case spokenTooSoon
        /// - isFollowed: the client had sent more behind this command when it was read.
        case commandReceived(Command, isFollowed: Bool)
        case commandFaulted(CommandFault)
        /// The answer to the question that the last action asked.
        case verdict(Verdict)
        /// What the client has to be shown before it can go on with its credentials.
        case challenged([UInt8])
        /// A line that answers a challenge, without its CR LF.
        case responseReceived([UInt8], isFollowed: Bool)
        case responseFaulted(LineFault)
        /// The final dot, after so many octets of content without fault.
        case contentEnded(octetCount: UInt64)
        /// The final dot of content that is refused.
        case contentFaulted(DataFault)
        /// The handshake that `startTLS` asked for, or that comes before the greeting, is done.
        case secured
        /// That handshake has failed: the connection cannot be used any more.
        case handshakeFailed
        /// Nothing came for as long as the settings allow.
        case idleLimitReached
        /// The program is to end. Fed again after each reply until the session closes.
        case stopRequested
        case disconnected
    }

    /// What the driver has to do. After the close nothing is fed but what timing may still bring.
    package enum Action: Equatable, Sendable {
        case reply(Reply)
        /// Forget what MAIL began, then reply.
        case abandonThenReply(Reply)
        /// Forget what MAIL began, if anything, reply and close.
        case replyThenClose(Reply)
        case checkSender(ReversePath, MailParameters)
        case checkRecipient(ForwardPath, RecipientDSN = RecipientDSN())
        case verify(ForwardPath)
        /// Ask whether these credentials are right, or what the client has to be shown.
        case authenticate(SASLMechanism, initialResponse: [UInt8]?)
        /// Likewise, with what the client has answered.
        case respond([UInt8])
        /// Reply, and take what comes as one line that answers it.
        case receiveResponse(Reply)
        /// Nobody is asked any more about the credentials; then reply.
        case giveUpCredentialsThenReply(Reply)
        /// Reply, and take what comes as the handshake of TLS. Whatever else the client sent must not be used.
        case startTLS(Reply)
        /// Reply, and take what comes as content.
        case receiveContent(Reply)
        /// The content is complete: ask for acceptance.
        case commit(octetCount: UInt64)
        /// Forget what MAIL began, if anything, and close.
        case close
        /// Nothing to do.
        case wait
    }

    /// The answer of the world to a question, with the words for the client.
    package enum Verdict: Equatable, Sendable {
        case accepted(Reply)
        /// A 421 closes the session.
        case refused(Reply)
    }

    /// What the driver may feed, in a word.
    package enum Standing: Sendable {
        /// Commands or content.
        case open
        /// A verdict.
        case asking
        /// The end of a handshake.
        case securing
        case closed
    }
}
