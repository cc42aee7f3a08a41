// SPDX-License-Identifier: Apache-2.0
//
// One SMTP session seen from the client (RFC 5321 §3), without input or output.
// The session decides; the driver acts. It never sees content, and it never lets a final dot be written for
// a message that no recipient was accepted for.

package import MailTypes

/// A connection to one server, over which any number of messages go one after the other.
///
/// The driver feeds what happens as events and carries out the action that each one answers with. After every
/// event, `stage` says what is being waited for, and so which time limit of RFC 5321 §4.5.3.2 counts.
///
/// Mail that was declared 8-bit goes as it is to a server without 8BITMIME, only without the BODY parameter.
/// RFC 6152 §3 would have it converted or returned; converting breaks signatures, returning loses mail, and servers
/// that would mangle an octet are no longer met.
package struct ClientSession: Sendable {
    /// One message and the recipients that this server is to take.
    package struct Transaction: Hashable, Sendable {
        package var reversePath: ReversePath
        /// At least one.
        package var recipients: [ForwardPath]
        /// The content's length before dot-stuffing (RFC 1870 §3).
        package var octetCount: UInt64
        package var bodyType: BodyType
        package var unicode: UnicodeDemand
        /// What the sender wishes about reports, of the message and of each recipient in order; empty if he has said
        /// nothing of any.
        package var dsn: MessageDSN
        package var recipientDSNs: [RecipientDSN]

        package init(
            reversePath: ReversePath, recipients: [ForwardPath], octetCount: UInt64, bodyType: BodyType,
            unicode: UnicodeDemand = .none, dsn: MessageDSN = MessageDSN(), recipientDSNs: [RecipientDSN] = []
        ) {
            self.unicode = unicode
            self.dsn = dsn
            self.recipientDSNs = recipientDSNs
            self.reversePath = reversePath
            self.recipients = recipients
            self.octetCount = octetCount
            self.bodyType = bodyType
        }
    }

    /// What is asked of the server.
    package enum Encryption: Hashable, Sendable {
        case none
        /// If it is offered.
        case opportunistic
        /// STARTTLS, or no mail. Whose certificate is good enough is the driver's business.
        case required
        /// Before the greeting (RFC 8314 §3.3).
        case implicit
    }

    package enum Event: Hashable, Sendable {
        /// The transport is there; the server speaks first.
        case connected
        /// The handshake is done.
        case secured
        /// The handshake has failed, in words for a person.
        case handshakeFailed(String)
        /// Answers `seekProof` and `passChallenge`.
        case proved(Proof)
        case replied(PeerReply)
        /// The peer broke the form of replies; with the reply as far as it was read, if it has a code.
        case replyFaulted(ReplyFault, PeerReply? = nil)
        /// Send this. Only while `isReady`; at any other time the session takes it for lost and concludes without a verdict.
        case begin(Transaction)
        /// The last octet of content and the end marker are on their way.
        case contentSent
        /// The limit of the current `stage` is over.
        case timedOut
        case disconnected
        /// No more messages for this server.
        case quit
    }

    package enum Action: Hashable, Sendable {
        case wait
        case send([UInt8])
        /// Begin the handshake of TLS; what was read and not used before must not be used after it.
        case startTLS
        /// We are to say who we are, by one of `capabilities.mechanisms`: feed `proved`.
        case seekProof
        /// The server's challenge, for whoever has the password: feed `proved`.
        case passChallenge([UInt8])
        /// The server knows us: `begin` may come. Once a connection.
        case announceReady
        /// The server said 354: send content, encoded, with the end marker; then feed `contentSent`.
        case sendContent
        /// A transaction is over, or none will begin. If `isReady` is false after this, feed `quit`.
        case conclude(Conclusion)
        case close
    }

    /// What became of a transaction.
    package struct Conclusion: Hashable, Sendable {
        /// One for each recipient of the transaction, in its order; nil if this server has said nothing that
        /// settles it. Empty if none had begun.
        package var verdicts: [DeliveryOutcome?]
        /// What to say of the recipients without a verdict if there is no other server to try. Not nil if any lacks one.
        package var failure: DeliveryOutcome?

        package init(verdicts: [DeliveryOutcome?], failure: DeliveryOutcome?) {
            self.verdicts = verdicts
            self.failure = failure
        }
    }

    /// What the session waits for.
    package enum Stage: Hashable, Sendable, CaseIterable {
        case connection
        case greeting
        case hello
        /// The answer to STARTTLS.
        case startTLS
        case handshake
        /// The answer to AUTH, or our own proof.
        case authentication
        /// The answer to MAIL, or to RSET before it.
        case mail
        case recipient
        case data
        /// The server takes content.
        case content
        case finalReply
        /// `begin` or `quit` of the driver.
        case idle
        case quit
        case closed
    }

    /// Each phase names the phases it may become. All may become `closed` or `spent`.
    enum Phase: Hashable, Sendable {
        /// → `greeting`, `securing`
        case connecting
        /// → `hello`
        case greeting
        /// EHLO or HELO sent. → `hello` (HELO after EHLO), `startTLS`, `authenticating`, `ready`
        case hello(isExtended: Bool)
        /// STARTTLS sent. → `securing`, `authenticating`, `ready`
        case startTLS
        /// → `greeting` (implicit), `hello`
        case securing
        /// → `ready`
        case authenticating(AuthenticationTurn)
        /// → `envelope`
        case ready
        /// Waiting for the reply to this step. → `envelope`, `content`, `loneDot`, `ready`
        case envelope(Step)
        /// → `finalReply`
        case content
        /// → `ready`
        case finalReply
        /// 354 came though no recipient was accepted; the empty mail was ended at once (RFC 2920 §3.1). → `ready`
        case loneDot
        /// Nothing more can be sent but QUIT. → `quitting`
        case spent(canQuit: Bool)
        /// → `closed`
        case quitting
        case closed

        var stage: Stage {
            switch self {
            case .connecting: .connection
            case .greeting: .greeting
            case .hello: .hello
            case .startTLS: .startTLS
            case .securing: .handshake
            case .authenticating: .authentication
            case .ready: .idle
            case .envelope(.reset), .envelope(.mail): .mail
            case .envelope(.recipient): .recipient
            case .envelope(.data): .data
            case .content: .content
            case .finalReply, .loneDot: .finalReply
            case .spent: .idle
            case .quitting: .quit
            case .closed: .closed
            }
        }
    }

    /// The commands of one transaction, in their order.
    enum Step: Hashable, Sendable {
        case reset
        case mail
        case recipient(Int)
        case data
    }

    /// The argument of EHLO: our host name or an address literal.
    let helloName: [UInt8]
    /// Who is named as the reporter of outcomes: `mx.example.org[192.0.2.1]`.
    let peerName: [UInt8]
    var phase = Phase.connecting {
        didSet {
            self.stage = self.phase.stage
            self.isReady = self.phase == .ready
        }
    }
    /// What is waited for. Stored, like the next, as the driver asks all the time, and what is computed would copy the
    /// session each time.
    package private(set) var stage = Stage.connection
    /// Whether a message can be begun.
    package private(set) var isReady = false
    package internal(set) var capabilities = Capabilities()
    private let encryption: Encryption
    /// LMTP (RFC 2033): LHLO, and after the final dot a reply for each recipient that was taken.
    let isLMTP: Bool
    /// Whether all that is said is said under TLS.
    package private(set) var isSecured = false
    /// Whether we have still to say who we are.
    var isAuthenticating: Bool
    /// Whether the connection was lost to a handshake that failed.
    package internal(set) var hasHandshakeFailed = false
    /// Whether TLS was offered and not reached: what such a server refuses for good may be for want of it.
    var hasMissedTLS: Bool
    /// Whether something was refused for want of TLS, so that no other message had better come this way.
    var isTLSWanted = false
    /// Messages that were begun on this connection.
    package internal(set) var transactionCount = 0

    // The transaction under way.
    var transaction: Transaction?
    var verdicts: [DeliveryOutcome?] = []
    /// Recipients whose address this server cannot be told.
    var untold: Set<Int> = []
    var acceptedCount = 0
    /// MAIL was answered like this, and pipelined commands behind it still have their replies to come.
    var mailRefusal: PeerReply?
    /// The server may still hold an envelope, so that RSET must come before the next MAIL.
    var needsReset = false

    /// - Parameters:
    ///   - hasMissedTLS: whether a handshake with this server has just failed, and this is the attempt without it.
    ///   - isAuthenticating: whether we say who we are before the first message.
    package init(
        helloName: [UInt8], peerName: [UInt8], encryption: Encryption = .none, hasMissedTLS: Bool = false,
        isAuthenticating: Bool = false, isLMTP: Bool = false
    ) {
        self.hasMissedTLS = hasMissedTLS
        self.isLMTP = isLMTP
        self.encryption = encryption
        self.isAuthenticating = isAuthenticating
        self.helloName = helloName
        self.peerName = peerName
    }

    package mutating func receive(_ event: Event) -> Action {
        // Why: timing can deliver any event after the end.
        if self.phase == .closed { return .wait }
        switch event {
        case .connected:
            guard self.phase == .connecting else { return .wait }
            if self.encryption == .implicit {
                self.phase = .securing
                return .startTLS
            }
            self.phase = .greeting
            return .wait
        case .secured:
            return self.secured()
        case .handshakeFailed(let reason):
            guard self.phase == .securing else { return self.breakOff(.disconnection) }
            return self.failHandshake(reason)
        case .proved(let proof):
            return self.prove(proof)
        case .replied(let reply):
            return self.hear(reply)
        case .replyFaulted(let fault, let broken):
            return self.hear(fault, broken)
        case .begin(let transaction):
            return self.begin(transaction)
        case .contentSent:
            if self.phase == .content { self.phase = .finalReply }
            return .wait
        case .timedOut:
            return self.breakOff(.timeout)
        case .disconnected:
            return self.breakOff(.disconnection)
        case .quit:
            switch self.phase {
            case .ready, .spent(canQuit: true):
                self.phase = .quitting
                return .send(Array("QUIT\r\n".utf8))
            case .quitting:
                return .wait
            case .connecting, .greeting, .hello, .startTLS, .securing, .authenticating, .envelope, .content,
                .finalReply, .loneDot, .spent(canQuit: false), .closed:
                self.phase = .closed
                return .close
            }
        }
    }

    /// A reply came: it belongs to the phase, as the order of replies is the order of commands.
    private mutating func hear(_ reply: PeerReply) -> Action {
        // A server may say 421 instead of any answer, and closes after it (RFC 5321 §3.8).
        if reply.code == 421, self.phase != .finalReply, self.phase != .content, self.phase != .quitting {
            return self.fail(self.outcome(.deferred, reply, to: self.stage.suffix), canQuit: false)
        }
        switch self.phase {
        case .greeting:
            guard reply.code / 100 == 2 else { return self.refuseSession(reply) }
            self.phase = .hello(isExtended: true)
            return .send(self.hello)
        case .hello(let isExtended):
            if reply.code / 100 == 2 {
                if isExtended { self.capabilities = Capabilities(reply) }
                return self.introduced()
            }
            // A server that does not know EHLO is greeted the old way (RFC 5321 §3.2).
            if isExtended, !self.isLMTP, reply.code / 100 == 5 {
                self.phase = .hello(isExtended: false)
                return .send(self.command("HELO ", self.helloName))
            }
            return self.refuseSession(reply)
        case .startTLS:
            if reply.code / 100 == 2 {
                self.phase = .securing
                return .startTLS
            }
            guard self.encryption == .required else {
                // RFC 3207 §4: it goes on as if the command had not been given.
                self.hasMissedTLS = true
                return self.becomeReady()
            }
            return self.fail(self.outcome(.deferred, reply, to: self.stage.suffix), canQuit: true)
        case .authenticating(let turn):
            return self.hear(reply, to: turn)
        case .envelope(let step):
            return self.hear(reply, to: step)
        case .content:
            return self.interruptContent(reply)
        case .finalReply:
            return self.hearFinal(reply)
        case .loneDot:
            return self.conclude(nil, next: .ready)
        case .quitting:
            self.phase = .closed
            return .close
        case .connecting, .securing, .ready, .spent:
            // Nothing was asked: who speaks now is not in step with us, and would be taken for an answer to the next command.
            return self.fail(self.violation(reply), canQuit: false)
        case .closed:
            return .wait
        }
    }

    /// EHLO or HELO was answered.
    private mutating func introduced() -> Action {
        if !self.isSecured, self.encryption == .opportunistic || self.encryption == .required {
            if self.capabilities.hasStartTLS {
                self.phase = .startTLS
                return .send(Array("STARTTLS\r\n".utf8))
            }
            if self.encryption == .required { return self.failForWantOfTLS("the server does not offer it") }
        }
        return self.becomeReady()
    }

    private mutating func secured() -> Action {
        guard self.phase == .securing else { return .wait }
        self.isSecured = true
        // RFC 3207 §4.2: nothing that the server said before counts any more.
        self.capabilities = Capabilities()
        if self.encryption == .implicit {
            self.phase = .greeting
            return .wait
        }
        self.phase = .hello(isExtended: true)
        return .send(self.hello)
    }

    private var hello: [UInt8] { self.command(self.isLMTP ? "LHLO " : "EHLO ", self.helloName) }

    /// The server does not want us, or not now.
    private mutating func refuseSession(_ reply: PeerReply) -> Action {
        switch reply.code / 100 {
        case 4: self.fail(self.outcome(.deferred, reply, to: self.stage.suffix), canQuit: true)
        case 5: self.fail(self.outcome(.failed, reply, to: self.stage.suffix), canQuit: true)
        default: self.fail(self.violation(reply), canQuit: true)
        }
    }

    func command(_ verb: StaticString, _ argument: [UInt8]) -> [UInt8] {
        var octets: [UInt8] = []
        octets.reserveCapacity(argument.count + 8)
        octets.append(text: verb)
        octets.append(contentsOf: argument)
        octets.append(ASCII.carriageReturn)
        octets.append(ASCII.lineFeed)
        return octets
    }
}
