// SPDX-License-Identifier: Apache-2.0
//
// AUTH as the client says it (RFC 4954). What is said is made by whoever has the password; here is only when.

package import MailTypes

extension ClientSession {
    /// What the one who has the password says next.
    package enum Proof: Hashable, Sendable {
        /// - Parameter response: nil if the mechanism has the server speak first.
        /// - Parameter isLast: whether the server's word for success may be believed after it.
        case response(SASLMechanism, [UInt8]?, isLast: Bool)
        /// We cannot prove who we are, in words for a person.
        case none(String)
    }

    /// Whose turn it is in an exchange of credentials.
    enum AuthenticationTurn: Hashable, Sendable {
        /// The proof is waited for; `isBegun` once AUTH was said. → `server`
        case ours(isBegun: Bool)
        /// A reply is waited for. A response that was too long for the command goes first. → `ours`
        case server(kept: [UInt8]?, isLast: Bool)
    }

    /// RFC 5321 §4.5.3.1.4: a command with its CR LF. What does not fit waits for the server's first challenge.
    private static let commandOctetCountMax = 512

    /// TLS is as it has to be: before the first message we say who we are, where that is wished.
    mutating func becomeReady() -> Action {
        guard self.isAuthenticating else {
            self.phase = .ready
            return .announceReady
        }
        guard !self.capabilities.mechanisms.isEmpty else {
            return self.failAuthentication("the server does not offer it")
        }
        self.phase = .authenticating(.ours(isBegun: false))
        return .seekProof
    }

    mutating func prove(_ proof: Proof) -> Action {
        guard case .authenticating(.ours(let isBegun)) = self.phase else { return .wait }
        switch proof {
        case .none(let reason):
            return self.failAuthentication(reason, canQuit: !isBegun)
        case .response(_, let response, let isLast) where isBegun:
            self.phase = .authenticating(.server(kept: nil, isLast: isLast))
            return .send(Base64.encode(response ?? []) + [ASCII.carriageReturn, ASCII.lineFeed])
        case .response(let mechanism, let response, let isLast):
            var line = Array("AUTH \(mechanism.rawValue)".utf8)
            var kept: [UInt8]?
            if let response {
                // An empty response is not the same as none.
                let text = response.isEmpty ? [ASCII.equals] : Base64.encode(response)
                if line.count + 1 + text.count + 2 <= Self.commandOctetCountMax {
                    line += [ASCII.space] + text
                } else {
                    kept = response
                }
            }
            self.phase = .authenticating(.server(kept: kept, isLast: isLast))
            return .send(line + [ASCII.carriageReturn, ASCII.lineFeed])
        }
    }

    /// A reply to AUTH, or to a response.
    mutating func hear(_ reply: PeerReply, to turn: AuthenticationTurn) -> Action {
        guard case .server(let kept, let isLast) = turn else { return self.fail(self.violation(reply), canQuit: false) }
        switch reply.code / 100 {
        case 2:
            guard isLast, kept == nil else {
                return self.failAuthentication("the server is content without a proof of its own", canQuit: false)
            }
            self.isAuthenticating = false
            return self.becomeReady()
        case 3:
            if let kept {
                self.phase = .authenticating(.server(kept: nil, isLast: isLast))
                return .send(Base64.encode(kept) + [ASCII.carriageReturn, ASCII.lineFeed])
            }
            guard reply.code == 334, let challenge = Base64.decode(reply.text) else {
                return self.fail(self.violation(reply), canQuit: false)
            }
            self.phase = .authenticating(.ours(isBegun: true))
            return .passChallenge(challenge)
        default:
            // A wrong password is ours to mend, and no fault of the mail: it waits, whatever the code.
            let isForNow = reply.code / 100 == 4
            let status = (isForNow ? reply.status : nil) ?? EnhancedStatus(.transient, 7, 8)
            return self.fail(
                self.outcome(
                    .deferred, PeerReply(code: reply.code, status: status, text: reply.text), to: self.stage.suffix),
                canQuit: true)
        }
    }

    /// RFC 3463 §3.8: X.7.0, security of another kind.
    private mutating func failAuthentication(_ reason: String, canQuit: Bool = true) -> Action {
        self.fail(
            self.ours("We cannot authenticate ourselves: \(reason)", EnhancedStatus(.transient, 7, 0)),
            canQuit: canQuit)
    }
}
