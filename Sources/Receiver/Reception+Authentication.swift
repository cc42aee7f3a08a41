// SPDX-License-Identifier: Apache-2.0
//
// Who the client is: its credentials go to apus-vault and come back as a name (RFC 4954).

import MailTypes
import NIOCore
import PipeCore
import PipeDrivers
import SASLCore
import SMTPCore
import SMTPDrivers
import TLSEngine
import Unix

extension Reception {
    /// Users are for submission alone: other servers have none, and passwords have no business at port 25.
    var authenticationOffer: AuthenticationOffer {
        guard self.isSubmission, self.uid == nil else { return AuthenticationOffer() }
        return AuthenticationOffer(
            mechanisms: self.desk.authentication.vault.mechanisms,
            allowsClearText: self.authenticationTerms.loopbackWithoutTLS && self.client.isLoopback,
            hasBinding: self.bindings.map { !$0.isEmpty } ?? false,
            hasCertificate: self.tls?.peer != nil)
    }

    var authenticationTerms: AuthenticationDesk.Terms { self.settings.authentication }

    func authenticate(_ mechanism: SASLMechanism, initialResponse: [UInt8]?) -> ServerSession.Verdict? {
        let desk = self.desk.authentication
        guard !desk.failures.isBlocked(self.client, now: ThisProcess.uptime) else {
            return self.refusal("blocked", mechanism, .authenticationBlocked)
        }
        var beginning = ExchangeBeginning(
            mechanism: mechanism, client: self.client, isEncrypted: self.tls != nil, initialResponse: initialResponse)
        if let tls = self.tls {
            beginning.exporterBinding = self.bindings?.exporter ?? []
            beginning.endPointBinding = self.bindings?.endPoint ?? []
            beginning.certificate = tls.peer.map { Self.octets(hexadecimal: $0.fingerprint) } ?? []
        }
        self.credentialsAskedAt = .now()
        guard let channel = desk.vault.begin(beginning, for: self) else {
            return self.refusal("unavailable", mechanism, .authenticationUnavailable)
        }
        self.question = .credentials(mechanism, channel: channel)
        return nil
    }

    func respond(_ response: [UInt8]) -> ServerSession.Verdict? {
        guard case .credentials(let mechanism, let channel)? = self.question else {
            // The vault was lost while the client thought.
            return .refused(.authenticationUnavailable)
        }
        self.question = .credentials(mechanism, channel: channel)
        self.credentialsAskedAt = .now()
        self.desk.authentication.vault.answer(response, on: channel)
        return nil
    }

    func giveUpCredentials() {
        guard case .credentials(_, let channel)? = self.question else { return }
        self.question = nil
        self.desk.authentication.vault.cancel(channel)
    }

    /// The client has hung up. If that was while its credentials were being checked, it counts as a failure: otherwise
    /// those who do not wait for their answers could try, and make us work, as often as they like.
    func abandonCredentials(_ mechanism: SASLMechanism, _ channel: UInt32) {
        let desk = self.desk.authentication
        guard desk.vault.cancel(channel) else { return }
        desk.failures.noteFailure(self.client, user: nil, now: ThisProcess.uptime)
        desk.failedCount += 1
        self.logAuthentication(failure: "abandoned", user: [], mechanism)
    }

    private static func octets(hexadecimal text: String) -> [UInt8] {
        let digits = Array(text.utf8)
        return stride(from: 0, to: digits.count - 1, by: 2).compactMap {
            UInt8(String(decoding: digits[$0...($0 + 1)], as: UTF8.self), radix: 16)
        }
    }

    // MARK: Answers

    private func granted(_ user: [UInt8], _ mechanism: SASLMechanism) {
        let desk = self.desk.authentication
        let now = ThisProcess.uptime
        // Somebody guesses as this user from everywhere: whether he has guessed right is not told.
        if desk.failures.isBlocked(self.client, user: user, now: now) {
            return self.failed("blocked", user: user, mechanism, reply: .authenticationBlocked)
        }
        desk.failures.noteSuccess(self.client, user: user, now: now)
        desk.grantedCount += 1
        self.user = user
        var line = self.line("authenticated")
        line.add("user", user)
        line.add("mechanism", mechanism.rawValue)
        line.write()
        self.connection?.conclude(.accepted(.authenticated))
    }

    private func denied(_ reason: [UInt8], user: [UInt8], _ mechanism: SASLMechanism) {
        let desk = self.desk.authentication
        let now = ThisProcess.uptime
        // The vault counts for all processes; here is what this one knows by itself.
        if reason.elementsEqual(VaultAnswer.blocked) {
            return self.failed("blocked", user: user, mechanism, reply: .authenticationBlocked)
        }
        let isBlocked = !user.isEmpty && desk.failures.isBlocked(self.client, user: user, now: now)
        desk.failures.noteFailure(self.client, user: user.isEmpty ? nil : user, now: now)
        self.failed(
            isBlocked ? "blocked" : reason.printableText, user: user, mechanism,
            reply: isBlocked ? .authenticationBlocked : .authenticationFailed)
    }

    /// Holds the answer back: a second or two are nothing to a person and much to a program that guesses.
    ///
    /// The time runs from the question, not from the vault's answer, so that it does not show how long the check took:
    /// that may depend on whether there is such a user, where the hashes of users are of several schemes.
    private func failed(_ reason: String, user: [UInt8], _ mechanism: SASLMechanism, reply: Reply) {
        self.desk.authentication.failedCount += 1
        self.question = .delay(self.refusal(reason, user: user, mechanism, reply))
        let end = self.credentialsAskedAt + self.authenticationTerms.failureDelay
        self.desk.authentication.eventLoop.assumeIsolated().scheduleTask(deadline: max(end, .now())) {
            guard case .delay(let verdict)? = self.question else { return }
            self.question = nil
            self.connection?.conclude(verdict)
        }
    }

    /// A client that is not let in, for whatever reason. All of them count in its session, those too for which nothing had
    /// to be checked: these are answered at once, and could be asked for without end, each with a line in the log.
    private func refusal(
        _ reason: String, user: [UInt8] = [], _ mechanism: SASLMechanism, _ reply: Reply
    ) -> ServerSession.Verdict {
        self.logAuthentication(failure: reason, user: user, mechanism)
        self.authenticationFailureCount += 1
        let isLast = self.authenticationFailureCount >= self.authenticationTerms.failureCountPerSessionMax
        return .refused(isLast ? .authenticationFailedTooOften : reply)
    }

    /// The form that etc/fail2ban/apus.conf reads.
    private func logAuthentication(failure reason: String, user: [UInt8], _ mechanism: SASLMechanism) {
        var line = LogLine("auth-failed")
        line.add("client", self.client)
        line.add("user", user)
        line.add("mechanism", mechanism.rawValue)
        line.add("reason", reason)
        line.add("session", self.sessionID)
        line.write()
    }
}

extension Reception: CredentialCarrier {
    func vaultAnswered(_ answer: VaultAnswer?) {
        guard case .credentials(let mechanism, _)? = self.question else { return }
        switch answer {
        case .challenge(let challenge):
            // The client's turn: the question stays, as it holds the channel.
            self.connection?.challenge(challenge)
        case .granted(let user):
            self.question = nil
            self.granted(user, mechanism)
        case .denied(let reason, let user):
            self.question = nil
            self.denied(reason, user: user, mechanism)
        case .later(let text):
            self.question = nil
            self.connection?.conclude(self.refusal(text.printableText, mechanism, .authenticationUnavailable))
        case .mechanisms, .spent, .proof, nil:
            self.question = nil
            self.vaultLost()
        }
    }

    /// The client may be thinking about a challenge; it learns of the loss when it has answered.
    private func vaultLost() {
        guard self.connection?.isAsking == true else { return }
        self.connection?.conclude(.refused(.authenticationUnavailable))
    }
}
