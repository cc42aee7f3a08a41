// SPDX-License-Identifier: Apache-2.0
//
// One SMTP session seen from the server (RFC 5321 §3, §4). It decides; the driver acts. It holds what decides
// (a phase and two counts), not what is carried: addresses and content pass by it.

import MailTypes

/// A session as a machine: each event gives exactly one action.
///
/// An action that asks something (`checkSender`, `checkRecipient`, `verify`, `authenticate`, `respond`, `commit`) is
/// answered by a `verdict` (those about credentials maybe by `challenged`) before any other command is fed; the octets of a pipelining client wait in the driver's buffer.
/// That fixes the order of the replies.
package struct ServerSession: Sendable {
    enum Phase: Equatable {
        /// Not greeted yet, or no HELO yet. → `idle`, `closed`
        case fresh
        /// No mail in progress. → `askingSender`, `verifying`, `askingCredentials`, `securing`, `closed`
        case idle
        /// → `collecting`, `idle`, `closed`
        case askingSender
        /// MAIL was accepted. → `askingRecipient`, `verifying`, `receivingContent`, `idle`, `closed`
        case collecting(recipientCount: Int)
        /// → `collecting`, `closed`
        case askingRecipient(recipientCount: Int)
        /// VRFY within a mail or outside of one (nil), or before HELO. → what it was before, `closed`
        case verifying(recipientCount: Int?, isGreeted: Bool)
        /// Somebody is asked about the client's credentials. → `expectingResponse`, `idle`, `closed`
        case askingCredentials
        /// 334 was sent. → `askingCredentials`, `idle`, `closed`
        case expectingResponse
        /// 354 was sent. → `committing`, `idle`, `closed`
        case receivingContent
        /// → `idle`, `closed`
        case committing
        /// The client was told to begin its handshake. → `fresh`, `closed`
        case securing
        case closed

        var standing: Standing {
            switch self {
            case .fresh, .idle, .collecting, .expectingResponse, .receivingContent: .open
            case .askingSender, .askingRecipient, .verifying, .askingCredentials, .committing: .asking
            case .securing: .securing
            case .closed: .closed
            }
        }
    }

    private let rules: ServerRules
    var phase: Phase = .fresh { didSet { self.standing = self.phase.standing } }
    /// Stored, as the driver asks all the time, and what is computed would copy the session each time.
    package private(set) var standing = Standing.open
    private var faultCount = 0
    /// Commands since the last message taken that bring none further.
    private var idleCommandCount = 0
    /// Whether the client said EHLO, not HELO.
    package private(set) var isExtended = false
    /// Whether MAIL had SMTPUTF8; meaningful while a mail is in progress.
    private var isUnicode = false
    let tls: ServerTLS
    /// Whether all that is said is said under TLS.
    package private(set) var isSecured = false
    /// How the client may say who it is. Brought up to date by the driver before EHLO and AUTH are fed.
    package var authentication = AuthenticationOffer()
    /// Whether it has said so.
    package private(set) var isAuthenticated = false

    package init(rules: ServerRules, tls: ServerTLS = .none) {
        self.rules = rules
        self.tls = tls
        if tls == .implicit { (self.phase, self.standing) = (.securing, .securing) }
    }

    package var isClosed: Bool { self.standing == .closed }

    /// Whether a question waits for its verdict: no command may be fed now.
    package var isAsking: Bool { self.standing == .asking }

    /// Whether a handshake is awaited; nothing but its end may be fed now.
    package var isSecuring: Bool { self.standing == .securing }

    /// Whether commands or content may be fed now.
    package var isOpenToInput: Bool { self.standing == .open }

    package mutating func receive(_ event: Event) -> Action {
        // Why: timing can bring any event after the end: a verdict, a limit, a stop.
        if self.phase == .closed { return .wait }

        switch event {
        case .connected:
            return .reply(self.rules.greeting)
        case .spokenTooSoon:
            // RFC 5321 §4.3.1: a client waits for the greeting. Those that do not are programs that send
            // the whole dialogue blindly; a 554 instead of the greeting and the close cost them least time.
            return self.close(.spokenTooSoon)
        case .commandReceived(let command, let isFollowed):
            return self.obey(command, isFollowed: isFollowed)
        case .commandFaulted(let fault):
            return self.refuse(fault.reply)
        case .verdict(let verdict):
            return self.conclude(verdict)
        case .challenged(let challenge):
            guard self.phase == .askingCredentials else { return .wait }
            self.phase = .expectingResponse
            return .receiveResponse(.challenge(challenge))
        case .responseReceived(let line, let isFollowed):
            precondition(self.phase == .expectingResponse)
            return self.takeResponse(line, isFollowed: isFollowed)
        case .responseFaulted(let fault):
            precondition(self.phase == .expectingResponse)
            return self.giveUpCredentials(fault == .tooLong ? .responseTooLong : .notBase64)
        case .contentEnded(let octetCount):
            precondition(self.phase == .receivingContent)
            self.phase = .committing
            return .commit(octetCount: octetCount)
        case .contentFaulted(let fault):
            precondition(self.phase == .receivingContent)
            self.phase = .idle
            return self.refuse(fault.reply, abandons: true)
        case .secured:
            guard self.phase == .securing else { return .wait }
            // RFC 3207 §4.2: what was known of the client before is forgotten.
            self.phase = .fresh
            self.isExtended = false
            self.isAuthenticated = false
            self.isSecured = true
            return .wait
        case .handshakeFailed:
            return self.closeSilently()
        case .idleLimitReached:
            // In the middle of a handshake there is nobody who could read a reply.
            if self.phase == .securing { return self.closeSilently() }
            return self.close(self.rules.idleTooLong)
        case .stopRequested:
            return self.stop()
        case .disconnected:
            return self.closeSilently()
        }
    }

    // MARK: Commands

    private mutating func obey(_ command: Command, isFollowed: Bool) -> Action {
        precondition(
            self.isOpenToInput && self.phase != .receivingContent && self.phase != .expectingResponse,
            "A command was fed while none can be taken.")

        switch command {
        case .hello, .extendedHello, .data, .startTLS, .authenticate:
            // RFC 2920 §3.1: these must be the last of a group, because what follows depends on their reply.
            // Who sends more at once either does not read replies (a spammer's program) or has
            // been made to by somebody else (an HTTP client that talks to port 25; content smuggled into a
            // session). Like Postfix we give up synchronisation and close. NOOP, VRFY, EXPN and QUIT
            // must be last as well, but nothing that follows them can be misread, so they pass. What comes in clear text
            // behind STARTTLS may be somebody else's, and would be taken for the client's own words under TLS.
            if isFollowed, !self.rules.isLocal { return self.close(.spokenTooSoon) }
        case .mail, .recipient, .reset, .noOperation, .quit, .verify, .expand, .help:
            break
        }

        switch command {
        case .hello, .extendedHello, .reset, .noOperation, .help, .verify:
            // Each would keep the session for another time of silence.
            self.idleCommandCount += 1
            if self.idleCommandCount > ServerLimits.idleCommandCountMax, self.isFaultTooMany() {
                return self.close(self.rules.tooManyFaults)
            }
        case .mail, .recipient, .data, .startTLS, .authenticate, .expand, .quit: break
        }

        switch command {
        case .hello: return self.greet(self.rules.hello, isExtended: false)
        case .extendedHello: return self.greet(self.extendedHello, isExtended: true)
        case .authenticate(let name, let response): return self.authenticate(name, response)
        case .startTLS: return self.startTLS()
        case .mail(let path, let parameters): return self.begin(path, parameters)
        case .recipient(let path, let dsn): return self.addRecipient(path, dsn)
        case .data: return self.beginContent()
        case .reset: return self.reset()
        case .noOperation: return .reply(.done)
        case .help: return .reply(.help)
        case .expand: return self.refuse(.expansionRefused)
        case .verify(let path): return self.verify(path)
        case .quit: return self.close(self.rules.goodbye)
        }
    }

    /// HELO and EHLO also reset (RFC 5321 §4.1.4).
    private mutating func greet(_ reply: Reply, isExtended: Bool) -> Action {
        self.isExtended = isExtended
        if case .collecting = self.phase {
            self.phase = .idle
            return .abandonThenReply(reply)
        }
        self.phase = .idle
        return .reply(reply)
    }

    private var extendedHello: Reply {
        let reply = self.offersTLS ? self.rules.extendedHelloBeforeTLS : self.rules.extendedHello
        // What is refused in any case before STARTTLS is not announced: a client would choose it, and give up with a 538.
        guard self.tls != .required || self.isSecured else { return reply }
        let mechanisms = self.authentication.offered(isSecured: self.isSecured)
        guard !mechanisms.isEmpty else { return reply }
        let line = "AUTH " + mechanisms.map(\.rawValue).joined(separator: " ")
        return Reply(250, nil, lines: reply.lines + [Array(line.utf8)])
    }

    private var offersTLS: Bool { !self.isSecured && (self.tls == .offered || self.tls == .required) }

    private mutating func startTLS() -> Action {
        if self.isSecured { return self.refuse(.startTLSAgain) }
        guard self.offersTLS else { return self.refuse(.startTLSUnknown) }
        switch self.phase {
        case .fresh: return self.refuse(.helloFirst)
        case .collecting: return self.refuse(.startTLSInMail)
        case .idle: break
        case .askingSender, .askingRecipient, .verifying, .askingCredentials, .expectingResponse, .receivingContent,
            .committing, .securing, .closed:
            preconditionFailure("A command was fed while none can be taken.")
        }
        self.phase = .securing
        return .startTLS(.startTLS)
    }

    // MARK: Mail

    private mutating func begin(_ path: ReversePath, _ parameters: MailParameters) -> Action {
        switch self.phase {
        case .fresh: return self.refuse(.helloFirst)
        case .collecting: return self.refuse(.mailNested)
        case .idle: break
        case .askingSender, .askingRecipient, .verifying, .askingCredentials, .expectingResponse, .receivingContent,
            .committing, .securing, .closed:
            preconditionFailure("A command was fed while none can be taken.")
        }
        guard self.tls != .required || self.isSecured else { return self.refuse(.startTLSFirst) }
        if let fault = self.unicodeFault(path.isInternational, isAsked: parameters.isUnicode) {
            return self.refuse(fault)
        }
        // RFC 1870 §6.1: what is declared too large is refused before a single octet of it is sent.
        guard parameters.declaredOctetCount <= self.rules.limits.mailOctetCountMax else {
            return self.refuse(.mailTooLarge)
        }
        self.isUnicode = parameters.isUnicode
        self.phase = .askingSender
        return .checkSender(path, parameters)
    }

    private mutating func addRecipient(_ path: ForwardPath, _ dsn: RecipientDSN) -> Action {
        guard case .collecting(let recipientCount) = self.phase else { return self.refuse(.mailFirst) }
        // Not counted as a fault: a client with a long list has done nothing wrong (RFC 5321 §4.5.3.1.10).
        guard recipientCount < self.rules.limits.recipientCountMax else { return .reply(.tooManyRecipients) }
        let isInternational = path.isInternational || !dsn.originalRecipient.isASCII
        if let fault = self.unicodeFault(isInternational, isAsked: self.isUnicode) { return self.refuse(fault) }
        var dsn = dsn
        if isInternational {
            guard let original = RecipientDSN.asciiOriginalRecipient(dsn.originalRecipient) else {
                return self.refuse(.parameterValue)
            }
            dsn.originalRecipient = original
        }
        self.phase = .askingRecipient(recipientCount: recipientCount)
        return .checkRecipient(path, dsn)
    }

    /// What is wrong with an address for SMTPUTF8 not having been offered or asked for (RFC 6531 §3.1, §3.5).
    private func unicodeFault(_ isInternational: Bool, isAsked: Bool) -> Reply? {
        // HELO announces nothing.
        guard self.rules.offersUnicode, self.isExtended else {
            if isInternational { return .commandNotPrintable }
            return isAsked ? .parameterUnknown : nil
        }
        return isInternational && !isAsked ? .unicodeNotAsked : nil
    }

    private mutating func beginContent() -> Action {
        guard case .collecting(let recipientCount) = self.phase else {
            return self.refuse(self.phase == .fresh ? .helloFirst : .mailFirst)
        }
        guard recipientCount > 0 else { return self.refuse(.noValidRecipients) }
        self.phase = .receivingContent
        return .receiveContent(.startContent)
    }

    private mutating func reset() -> Action {
        if case .collecting = self.phase {
            self.phase = .idle
            return .abandonThenReply(.done)
        }
        return .reply(.done)
    }

    private mutating func verify(_ path: ForwardPath?) -> Action {
        guard self.tls != .required || self.isSecured else { return self.refuse(.startTLSFirst) }
        guard let path else { return .reply(.cannotVerify) }
        if let fault = self.unicodeFault(path.isInternational, isAsked: true), path.isInternational {
            return self.refuse(fault)
        }
        if case .collecting(let recipientCount) = self.phase {
            self.phase = .verifying(recipientCount: recipientCount, isGreeted: true)
        } else {
            self.phase = .verifying(recipientCount: nil, isGreeted: self.phase == .idle)
        }
        return .verify(path)
    }

    // MARK: Verdicts

    private mutating func conclude(_ verdict: Verdict) -> Action {
        switch (self.phase, verdict) {
        case (.askingSender, .accepted(let reply)):
            self.phase = .collecting(recipientCount: 0)
            return .reply(reply)
        case (.askingSender, .refused(let reply)):
            self.phase = .idle
            return self.refuse(reply)
        case (.askingRecipient(let recipientCount), .accepted(let reply)):
            self.phase = .collecting(recipientCount: recipientCount + 1)
            return .reply(reply)
        case (.askingRecipient(let recipientCount), .refused(let reply)):
            self.phase = .collecting(recipientCount: recipientCount)
            return self.refuse(reply)
        case (.verifying(let recipientCount, let isGreeted), .accepted(let reply)):
            self.phase = Self.phase(recipientCount, isGreeted: isGreeted)
            return .reply(reply)
        case (.verifying(let recipientCount, let isGreeted), .refused(let reply)):
            self.phase = Self.phase(recipientCount, isGreeted: isGreeted)
            return self.refuse(reply)
        case (.askingCredentials, .accepted(let reply)):
            self.phase = .idle
            self.isAuthenticated = true
            return .reply(reply)
        case (.askingCredentials, .refused(let reply)):
            self.phase = .idle
            return self.refuse(reply)
        case (.committing, .accepted(let reply)):
            self.phase = .idle
            // Somebody whose mail is taken is no nuisance, whatever went wrong before it.
            self.faultCount = 0
            self.idleCommandCount = 0
            return .reply(reply)
        case (.committing, .refused(let reply)):
            self.phase = .idle
            return self.refuse(reply)
        case (.fresh, _), (.idle, _), (.collecting, _), (.expectingResponse, _), (.receivingContent, _), (.securing, _),
            (.closed, _):
            preconditionFailure("A verdict was given to a question that nobody asked.")
        }
    }

    private static func phase(_ recipientCount: Int?, isGreeted: Bool) -> Phase {
        if let recipientCount { return .collecting(recipientCount: recipientCount) }
        return isGreeted ? .idle : .fresh
    }

    // MARK: Refusals and ends

    /// A refusal that counts, if it is a permanent one: our own temporary troubles are not the client's fault.
    mutating func refuse(_ reply: Reply, abandons: Bool = false) -> Action {
        if reply.code == 421 { return self.close(reply) }
        if reply.code >= 500 {
            if self.isFaultTooMany() { return self.close(self.rules.tooManyFaults) }
        }
        return abandons ? .abandonThenReply(reply) : .reply(reply)
    }

    /// Counts one more fault.
    private mutating func isFaultTooMany() -> Bool {
        self.faultCount += 1
        return self.faultCount > self.rules.limits.faultCountMax
    }

    mutating func close(_ reply: Reply) -> Action {
        self.phase = .closed
        return .replyThenClose(reply)
    }

    private mutating func closeSilently() -> Action {
        self.phase = .closed
        return .close
    }

    /// Idle sessions go at once, a mail under way is finished first (the driver limits how long).
    private mutating func stop() -> Action {
        switch self.phase {
        case .fresh, .idle, .expectingResponse, .verifying(recipientCount: nil, isGreeted: _):
            self.close(self.rules.shuttingDown)
        case .securing:
            self.closeSilently()
        case .askingSender, .collecting, .askingRecipient, .verifying, .askingCredentials, .receivingContent,
            .committing, .closed:
            .wait
        }
    }
}
