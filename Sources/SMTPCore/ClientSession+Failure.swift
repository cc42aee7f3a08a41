// SPDX-License-Identifier: Apache-2.0
//
// How a client's session ends before its time, and what is then said of the recipients.

import MailTypes

extension ClientSession.Stage {
    /// Whether what a server says here is about a message or a recipient, and not about the session.
    fileprivate var isOfMessage: Bool {
        switch self {
        case .mail, .recipient, .data, .content, .finalReply: true
        case .connection, .greeting, .hello, .startTLS, .handshake, .authentication, .idle, .quit, .closed: false
        }
    }

    /// What is put behind a server's words, so that one knows what they were about.
    var suffix: StaticString {
        switch self {
        case .connection: " (while connecting)"
        case .greeting: " (as a greeting)"
        case .hello: " (in reply to EHLO)"
        case .startTLS: " (in reply to STARTTLS)"
        case .handshake: " (during the TLS handshake)"
        case .authentication: " (in reply to AUTH)"
        case .mail: " (in reply to MAIL FROM)"
        case .recipient: " (in reply to RCPT TO)"
        case .data: " (in reply to DATA)"
        case .content: " (while content was being sent)"
        case .finalReply: " (in reply to end of data)"
        case .idle, .quit, .closed: ""
        }
    }
}

extension ClientSession {
    /// The two ways in which a peer falls silent.
    enum Silence: Hashable, Sendable {
        case timeout
        case disconnection
    }

    /// The outcome that a reply stands for. Without a status of the server, it is that of the class alone.
    func outcome(_ kind: DeliveryOutcome.Kind, _ reply: PeerReply, to suffix: StaticString = "") -> DeliveryOutcome {
        var text = reply.line
        if suffix.utf8CodeUnitCount > 0 {
            let limit = DeliveryOutcome.textOctetCountMax - suffix.utf8CodeUnitCount
            if text.count > limit { text.removeLast(text.count - limit) }
            text.append(text: suffix)
        }
        // A status of another class than the kind becomes X.0.0 there.
        var outcome = DeliveryOutcome(
            kind, code: reply.code, status: reply.status ?? EnhancedStatus(.success, 0, 0), reporter: self.peerName,
            text: text)
        outcome.hasAnswered = kind == .deferred && reply.code != 421 && self.stage.isOfMessage
        return outcome
    }

    /// An outcome that no reply stands behind.
    func ours(_ text: String, _ status: EnhancedStatus) -> DeliveryOutcome {
        DeliveryOutcome(.deferred, code: 0, status: status, reporter: self.peerName, text: Array(text.utf8))
    }

    /// What is said of a reply that has no meaning where it came.
    func violation(_ reply: PeerReply) -> DeliveryOutcome {
        self.ours(
            "The server said \(reply.code) where that has no meaning: \(reply.line.prefix(200).printableText)",
            EnhancedStatus(.transient, 5, 0))
    }

    /// The end was sent and not answered: nobody knows, and RFC 5321 §4.5.3.2.6 prefers two copies to none (RFC 1047).
    func uncertain(_ text: String) -> DeliveryOutcome {
        self.ours("\(text) after the final dot: the message may be delivered twice", EnhancedStatus(.transient, 4, 2))
    }

    /// Ends the session with nothing settled beyond what is.
    mutating func fail(_ failure: DeliveryOutcome, canQuit: Bool) -> Action {
        // Whoever waits for the session to become ready may not have heard that it is: the next reply can come in the same
        // read. Later nobody waits for a verdict.
        if case .ready = self.phase, self.transactionCount > 0 {
            self.phase = .closed
            return .close
        }
        if case .spent = self.phase {
            self.phase = .closed
            return .close
        }
        return self.conclude(failure, next: .spent(canQuit: canQuit))
    }

    /// The server broke the form of replies.
    mutating func hear(_ fault: ReplyFault, _ broken: PeerReply?) -> Action {
        if case .quitting = self.phase {
            self.phase = .closed
            return .close
        }
        // What the first digit says of a message that is all sent is said, however badly the rest is put: to ask again would
        // be to send it again.
        if case .finalReply = self.phase, let broken { return self.hearLast(broken) }
        let text: String
        switch fault {
        case .lineTooLong: text = "The server sent a reply line that is too long"
        case .tooManyLines: text = "The server sent a reply of too many lines"
        case .noReplyCode: text = "The server sent something that is no SMTP reply"
        case .codesDiffer: text = "The server sent a reply whose lines contradict each other"
        }
        return self.lose(text, EnhancedStatus(.transient, 5, 0))
    }

    /// The reply stream cannot be read any more.
    mutating func lose(_ text: String, _ status: EnhancedStatus) -> Action {
        if case .finalReply = self.phase {
            self.settleRest(self.uncertain(text))
            return self.conclude(nil, next: .spent(canQuit: false))
        }
        return self.fail(self.ours(text, status), canQuit: false)
    }

    /// RFC 3463 §3.8: X.7.5, a cryptographic failure.
    mutating func failHandshake(_ reason: String) -> Action {
        self.hasHandshakeFailed = true
        return self.fail(
            self.ours("TLS with the server failed: \(reason)", EnhancedStatus(.transient, 7, 5)), canQuit: false)
    }

    /// RFC 3463 §3.8: X.7.4, a security feature that is not supported.
    mutating func failForWantOfTLS(_ reason: String) -> Action {
        self.fail(self.ours("TLS is required, but \(reason)", EnhancedStatus(.transient, 7, 4)), canQuit: true)
    }

    mutating func breakOff(_ silence: Silence) -> Action {
        switch self.phase {
        case .ready where self.transactionCount == 0:
            return self.fail(
                self.ours("The server closed the connection", EnhancedStatus(.transient, 4, 2)), canQuit: false)
        case .ready, .quitting, .spent, .closed:
            self.phase = .closed
            return .close
        case .finalReply:
            self.settleRest(
                self.uncertain(silence == .timeout ? "The server did not answer in time" : "The connection was lost"))
            return self.conclude(nil, next: .spent(canQuit: false))
        case .loneDot:
            // All verdicts are there already; only the connection is of no more use.
            return self.conclude(nil, next: .spent(canQuit: false))
        case .securing:
            return self.failHandshake(
                silence == .timeout ? "the server did not answer in time" : "the server closed the connection")
        case .connecting, .greeting, .hello, .startTLS, .authenticating, .envelope, .content:
            let text = silence == .timeout ? "The server did not answer in time" : "The server closed the connection"
            let status =
                silence == .timeout ? EnhancedStatus(.transient, 4, 1) : EnhancedStatus(.transient, 4, 2)
            return self.fail(self.ours("\(text)\(self.stage.suffix)", status), canQuit: false)
        }
    }
}
