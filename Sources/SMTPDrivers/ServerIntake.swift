// SPDX-License-Identifier: Apache-2.0

package import MailTypes
package import SMTPCore
package import TLSEngine

/// What stands behind one SMTP session: it knows the policy and carries the mail away.
///
/// Everything is called on the connection's event loop. A question is answered by what it returns, or, if
/// that is nil, later by `ServerConnection.conclude`; until then no other question is asked.
package protocol ServerIntake: AnyObject {
    /// The client has said HELO or EHLO.
    func greeted(_ name: [UInt8], isExtended: Bool)
    /// What comes from now on is encrypted. What the client has called itself is forgotten.
    ///
    /// - Parameter bindings: what authentication can bind to; to be called only if the client may authenticate.
    func secured(_ summary: TLSSummary, _ bindings: () -> TLSBindings)
    /// There was to be a handshake, and it has failed; `ended` follows.
    func handshakeFailed(_ reason: String)
    /// How the client may say who it is, as things are now.
    var authenticationOffer: AuthenticationOffer { get }
    /// AUTH: are these credentials right? `ServerConnection.challenge` is an answer too.
    func authenticate(_ mechanism: SASLMechanism, initialResponse: [UInt8]?) -> ServerSession.Verdict?
    /// The same question, with what the client has answered to a challenge.
    func respond(_ response: [UInt8]) -> ServerSession.Verdict?
    /// The client has ended the exchange of credentials.
    func giveUpCredentials()
    /// MAIL: may this sender begin a mail?
    func checkSender(_ path: ReversePath, _ parameters: MailParameters) -> ServerSession.Verdict?
    /// RCPT: is mail for this recipient taken?
    func checkRecipient(_ path: ForwardPath, _ dsn: RecipientDSN) -> ServerSession.Verdict?
    /// VRFY: may this client know of this address, and does it exist?
    func verify(_ path: ForwardPath) -> ServerSession.Verdict?
    /// How many octets of content can be taken now. After 0 `ServerConnection.resume` must be called
    /// as soon as there is room.
    var contentCredit: Int { get }
    /// Takes content, at most as much as `contentCredit` said.
    func takeContent(_ octets: Span<UInt8>)
    /// The content is complete: is the message accepted?
    func commit(octetCount: UInt64) -> ServerSession.Verdict?
    /// An answer has been outstanding for too long: it is this one now, and the real one is not given any more.
    func overdue() -> ServerSession.Verdict
    /// What MAIL began is forgotten. Also called if nothing was begun.
    func abandon()
    /// The client was told no.
    func refused(_ reply: Reply)
    /// The end of the session: `reply` closed it, or nil if the client left. Called exactly once, last.
    func ended(by reply: Reply?)
}
