// SPDX-License-Identifier: Apache-2.0
//
// What one session is to the rest of Apus: whose mail is taken, and where it goes.

import IDN
import MailTypes
import MessageCore
import NIOCore
import PipeCore
import PipeDrivers
import SMTPCore
import SMTPDrivers
import TLSEngine
import Unix

/// Stands behind one session: asks apus-lookup about recipients and submits the mail to apus-queue.
///
/// It is the memory of the session too, in the log and in the Received field.
final class Reception: ServerIntake, ServerConnectionHolder {
    var connection: ServerConnection?
    let desk: ReceptionDesk
    let settings: ReceiverSettings
    let client: IPAddress
    /// The user of this machine whose program it is, on the local socket.
    let uid: UInt32?
    private var mayRelay: Bool
    /// What the handshake has agreed on; nil in plain text.
    private(set) var tls: TLSSummary?
    /// What authentication can bind to, on a listener that offers it.
    private(set) var bindings: TLSBindings?
    /// Whether the listener is for the mail programs of our own clients (RFC 6409), not for other servers.
    let isSubmission: Bool
    let sessionID: [UInt8]
    private let begin = WallClock.now()
    private(set) var helloName: [UInt8] = []
    private(set) var isExtended = false
    /// Who the client is; nil as long as it has not said so.
    var user: [UInt8]?
    var authenticationFailureCount = 0
    /// When the vault was asked about the client's credentials last.
    var credentialsAskedAt = NIODeadline.uptimeNanoseconds(0)
    var mail: ReceivedMail?
    var question: Question?
    private(set) var messageCount = 0
    private var refusalCount = 0

    /// What is awaited.
    enum Question {
        case sender(channel: UInt32)
        case recipient(ForwardPath, RecipientDSN, channel: UInt32)
        case verify(channel: UInt32)
        case author(channel: UInt32)
        /// The vault's answer, or the client's to its challenge.
        case credentials(SASLMechanism, channel: UInt32)
        /// The time until the client is told.
        case delay(ServerSession.Verdict)
        case commit
    }

    /// A client that is refused all the time does not fill the log.
    private static let refusalLogCountMax = 100

    init(
        desk: ReceptionDesk, settings: ReceiverSettings, client: IPAddress, uid: UInt32?, mayRelay: Bool,
        isSubmission: Bool, sessionID: [UInt8]
    ) {
        self.uid = uid
        self.desk = desk
        self.settings = settings
        self.client = client
        self.mayRelay = mayRelay
        self.isSubmission = isSubmission
        self.sessionID = sessionID
    }

    // MARK: Questions of the session

    func greeted(_ name: [UInt8], isExtended: Bool) {
        self.helloName = name
        self.isExtended = isExtended
    }

    /// Whether mail for anywhere is taken.
    private var isTrusted: Bool { self.mayRelay || self.user != nil }

    func secured(_ summary: TLSSummary, _ bindings: () -> TLSBindings) {
        self.tls = summary
        if self.isSubmission { self.bindings = bindings() }
        self.user = nil
        self.helloName = []
        self.isExtended = false
        if let peer = summary.peer, self.settings.relayCertificates.contains(peer.fingerprint) { self.mayRelay = true }
        var line = self.line("tls")
        line.add("tls", summary.version)
        line.add("cipher", summary.cipher)
        if summary.isResumed { line.add("resumed", "true") }
        if let peer = summary.peer {
            line.add("peer", peer.name ?? "")
            line.add("fingerprint", peer.fingerprint)
        }
        line.write()
        self.desk.totals.encryptedCount += 1
    }

    func handshakeFailed(_ reason: String) {
        var line = self.line("tls-failed")
        line.add("reason", reason)
        line.write()
    }

    func checkSender(_ path: ReversePath, _ parameters: MailParameters) -> ServerSession.Verdict? {
        // From here on domains are written in ASCII, which RFC 6531 §3.2 allows everywhere.
        guard let path = path.mapped(.idna2008) else { return .refused(.senderAddressSyntax) }
        self.mail = ReceivedMail(path, parameters, readsAuthors: self.mustBeAuthor)
        // It was not announced to anybody else.
        if parameters.isVERP, self.uid == nil { return .refused(.parameterUnknown) }
        if self.isSubmission, !self.isTrusted {
            // Without a way to say who it is there is no use in asking for it.
            let isAnyUserKnown = !self.authenticationOffer.mechanisms.isEmpty
            return .refused(isAnyUserKnown ? .authenticationRequired : .submissionDenied(client: self.client))
        }
        guard self.desk.queue.isAvailable else { return .refused(.queueUnavailable) }
        if let user = self.user {
            let desk = self.desk.authentication
            let refusal =
                desk.messageRefusal(user, self.authenticationTerms)
                ?? desk.recipientRefusal(user, self.authenticationTerms)
            if let refusal { return .refused(refusal) }
            // The null reverse-path is everybody's: for receipts and the like.
            guard case .address(let address) = path else { return .accepted(.senderAccepted) }
            return self.judgeSender(self.desk.lookup.checkSender(.address(address), user: user, for: self))
        }
        guard let uid = self.uid, self.settings.localSendersAreOwn, case .address(let address) = path else {
            return .accepted(.senderAccepted)
        }
        return self.judgeSender(self.desk.lookup.checkOwner(.address(address), uid: uid, for: self))
    }

    private func judgeSender(_ asked: LookupClient.Asked) -> ServerSession.Verdict? {
        switch asked {
        case .answered(let check): return self.judgeSender(check)
        case .waiting(let channel):
            self.question = .sender(channel: channel)
            return nil
        }
    }

    private func judgeSender(_ check: RecipientCheck) -> ServerSession.Verdict {
        switch check {
        case .local: .accepted(.senderAccepted)
        case .remote, .unknown: .refused(self.user == nil ? .senderForeign : .senderNotOwned)
        case .later, .unavailable: .refused(.lookupUnavailable)
        }
    }

    func checkRecipient(_ given: ForwardPath, _ dsn: RecipientDSN) -> ServerSession.Verdict? {
        guard let path = given.mapped(.idna2008) else { return self.refuse(given, .recipientAddressSyntax) }
        // RFC 5321 §4.5.1: mail for the postmaster is taken whatever else fails.
        if case .postmaster = path { return self.take(path, dsn) }
        // A program that hands in mail for ten people and is refused one of them has no use for that: whoever does not
        // exist is told of in a report. The queue looks, and refuses a recipient that is the only one.
        if self.uid != nil { return self.take(path, dsn) }
        switch self.desk.lookup.check(path, for: self) {
        case .answered(let check): return self.judge(path, dsn, check)
        case .waiting(let channel):
            self.question = .recipient(path, dsn, channel: channel)
            return nil
        }
    }

    func verify(_ path: ForwardPath) -> ServerSession.Verdict? {
        // RFC 5321 §7.3: to strangers we say nothing about who exists.
        guard self.isTrusted, let path = path.mapped(.idna2008) else { return .accepted(.cannotVerify) }
        switch self.desk.lookup.check(path, for: self) {
        case .answered(let check): return Self.verified(check)
        case .waiting(let channel):
            self.question = .verify(channel: channel)
            return nil
        }
    }

    private static func verified(_ check: RecipientCheck) -> ServerSession.Verdict {
        switch check {
        case .local: .accepted(.addressExists)
        case .unknown: .refused(.recipientUnknown)
        case .remote, .later, .unavailable: .accepted(.cannotVerify)
        }
    }

    func overdue() -> ServerSession.Verdict {
        defer { self.question = nil }
        switch self.question {
        case .recipient(let path, let dsn, let channel):
            self.desk.lookup.cancel(channel)
            return self.judge(path, dsn, .unavailable)
        case .verify(let channel):
            self.desk.lookup.cancel(channel)
            return .accepted(.cannotVerify)
        case .sender(let channel):
            self.desk.lookup.cancel(channel)
            return .refused(.lookupUnavailable)
        case .author(let channel):
            self.desk.lookup.cancel(channel)
            return self.refuseContent(.lookupUnavailable)
        case .credentials(_, let channel):
            self.desk.authentication.vault.cancel(channel, isOverdue: true)
            return .refused(.authenticationUnavailable)
        case .delay(let verdict):
            return verdict
        case .commit, nil:
            // The queue may still take it: then the client sends it twice, which is better than not at all.
            self.abandonSubmission()
            return .refused(.queueUnavailable)
        }
    }

    // MARK: Recipients

    /// Whether mail for a recipient is taken (RFC 5321 §3.3, §7.3; no relay for strangers).
    private func judge(
        _ path: ForwardPath, _ dsn: RecipientDSN, _ check: RecipientCheck
    ) -> ServerSession.Verdict {
        switch check {
        case .local:
            return self.take(path, dsn)
        case .remote:
            if self.isTrusted { return self.take(path, dsn) }
            return self.refuse(path, .relayingDenied(client: self.client, domain: Self.domain(path)))
        case .unknown(let status, let text):
            if Self.isPostmaster(path) { return self.take(path, dsn) }
            guard status.statusClass == .permanent, !text.isEmpty else { return self.refuse(path, .recipientUnknown) }
            return self.refuse(path, Reply(550, status, lines: [text]))
        case .later(let reason):
            var line = self.line("lookup-later")
            line.add(path: "to", path.octets)
            line.add("reason", reason)
            line.write()
            return self.refuse(path, .lookupFailed)
        case .unavailable:
            return self.refuse(path, .lookupUnavailable)
        }
    }

    private static func domain(_ path: ForwardPath) -> ArraySlice<UInt8> {
        switch path {
        case .postmaster: []
        case .address(let address): address.domain
        }
    }

    private static func isPostmaster(_ path: ForwardPath) -> Bool {
        switch path {
        case .postmaster: true
        case .address(let address): address.unquotedLocalPart.equalsIgnoringCase("postmaster".utf8)
        }
    }

    private func take(_ path: ForwardPath, _ dsn: RecipientDSN) -> ServerSession.Verdict {
        guard let mail = self.mail else { return .refused(.queueUnavailable) }
        if let refusal = mail.refusal { return self.refuse(path, refusal) }
        if let user = self.user {
            if let refusal = self.desk.authentication.recipientRefusal(user, self.authenticationTerms) {
                return self.refuse(path, refusal)
            }
            self.desk.authentication.noteRecipient(of: user, self.authenticationTerms)
        }
        if mail.submission == nil {
            mail.submission = self.desk.queue.begin(
                MailRequest(
                    reversePath: mail.reversePath, bodyType: mail.parameters.bodyType,
                    declaredSize: mail.parameters.declaredOctetCount, trace: self.trace, dsn: mail.parameters.dsn,
                    unicode: mail.parameters.isUnicode ? .asked : .none, isVERP: mail.parameters.isVERP),
                for: self)
        }
        guard let submission = mail.submission else { return self.refuse(path, .queueUnavailable) }
        self.desk.queue.send(.rcpt(path, dsn), for: submission)
        if mail.recipient == nil { mail.recipient = path }
        mail.recipientCount += 1
        return .accepted(.recipientAccepted)
    }

    // MARK: Content

    var contentCredit: Int {
        guard let mail = self.mail, mail.refusal == nil, let submission = mail.submission else { return .max }
        return submission.link.isWritable ? submission.credit : 0
    }

    func takeContent(_ octets: Span<UInt8>) {
        guard let mail = self.mail, mail.refusal == nil, mail.submission != nil else { return }
        mail.receivedCounter.receive(octets)
        if mail.parameters.isUnicode { mail.unicodeHeader.receive(octets) }
        if self.isSubmission { mail.fieldPresence.receive(octets) }
        if var submission = mail.submission {
            self.desk.queue.send(octets, for: &submission)
            mail.submission = submission
        }
    }

    func commit(octetCount: UInt64) -> ServerSession.Verdict? {
        guard let mail = self.mail else { return .refused(.queueUnavailable) }
        if let refusal = mail.refusal { return .refused(refusal) }
        if mail.receivedCounter.isLoop { return self.refuseContent(.mailLoop) }
        if self.isSubmission, mail.fieldPresence.count(of: .from) > 1 { return self.refuseContent(.fromTwice) }
        return self.mustBeAuthor ? self.checkAuthors() : self.commitSubmission()
    }

    /// Nothing is left to object to the message.
    func commitSubmission() -> ServerSession.Verdict? {
        guard let mail = self.mail else { return .refused(.queueUnavailable) }
        if let refusal = mail.refusal { return .refused(refusal) }
        guard let submission = mail.submission else { return .refused(.queueUnavailable) }
        if let user = self.user {
            // Asked again, and noted before the queue has answered: other sessions of his have gone on since MAIL.
            if let refusal = self.desk.authentication.messageRefusal(user, self.authenticationTerms) {
                return self.refuseContent(refusal)
            }
            self.desk.authentication.noteMessage(of: user, self.authenticationTerms)
        }
        let additions = self.isSubmission ? self.additions(to: mail.fieldPresence, from: mail.reversePath) : []
        let field = ReceivedField(
            helloName: self.helloName, client: self.client, uid: self.uid, hostname: self.settings.terms.rules.hostname,
            transport: self.transport, encryption: self.encryption,
            tellsClient: self.user == nil || self.authenticationTerms.tellsClientAddress,
            recipient: self.namedRecipient(mail), date: WallClock.now())
        self.question = .commit
        // A From: that was added may be the first field beyond ASCII.
        let hasUnicodeHeader = mail.parameters.isUnicode && (mail.unicodeHeader.isFound || !additions.isASCII)
        self.desk.queue.send(
            .commit(
                CommitRequest(
                    octetCount: submission.octetCount, prefix: field.prefix, suffix: field.suffix + additions,
                    hasUnicodeHeader: hasUnicodeHeader)),
            for: submission)
        return nil
    }

    /// The message is not taken for what is in it.
    func refuseContent(_ reply: Reply) -> ServerSession.Verdict {
        self.abandonSubmission()
        return .refused(reply)
    }

    func abandon() {
        self.abandonSubmission()
        self.mail = nil
    }

    private func abandonSubmission() {
        guard let submission = self.mail?.submission else { return }
        self.mail?.submission = nil
        self.desk.queue.abort(submission)
    }

    // MARK: Log

    func line(_ event: StaticString) -> LogLine {
        var line = LogLine(event)
        line.add("session", self.sessionID)
        if let uid = self.uid { line.add("uid", uid) } else { line.add("client", self.client) }
        return line
    }

    func logConnect(_ origin: ServerListener.Origin, role: String) {
        var line = self.line("connect")
        if case .network(_, let port) = origin { line.add("port", port) }
        line.add("role", role)
        line.write()
    }

    private func refuse(_ path: ForwardPath, _ reply: Reply) -> ServerSession.Verdict {
        self.refusedRecipient = path
        return .refused(reply)
    }

    /// Set from the verdict to the line about it.
    private var refusedRecipient: ForwardPath?

    func refused(_ reply: Reply) {
        // The end of a session has a line of its own, with this code.
        if reply.code == 421 { return }
        let path = self.refusedRecipient
        self.refusedRecipient = nil
        self.refusalCount += 1
        self.desk.totals.refusalCount += 1
        guard self.refusalCount <= Self.refusalLogCountMax else { return }
        var line = self.line("refused")
        line.add("helo", self.helloName)
        if let mail = self.mail { line.add(path: "from", mail.reversePath.octets) }
        if let path { line.add(path: "to", path.octets) }
        line.add("code", reply.code)
        if let status = reply.status { line.add("status", status.octets) }
        line.add("text", reply.lines.first ?? [])
        line.write()
    }

    private func logQueued(_ id: MessageID, _ mail: ReceivedMail, _ octetCount: UInt64) {
        var line = self.line("queued")
        line.add("id", id)
        line.add("helo", self.helloName)
        if let user = self.user { line.add("user", user) }
        line.add(path: "from", mail.reversePath.octets)
        line.add("recipients", mail.recipientCount)
        line.add("size", octetCount)
        if let tls = self.tls { line.add("tls", tls.version) }
        line.write()
    }

    func ended(by reply: Reply?) {
        switch self.question {
        case .recipient(_, _, let channel), .verify(let channel), .sender(let channel), .author(let channel):
            self.desk.lookup.cancel(channel)
        case .credentials(let mechanism, let channel): self.abandonCredentials(mechanism, channel)
        case .delay, .commit, nil: break
        }
        self.question = nil
        self.connection = nil
        self.desk.noteEnd(uid: self.uid)
        var line = self.line("disconnect")
        line.add("messages", self.messageCount)
        line.add("refusals", self.refusalCount)
        line.add("duration", WallClock.now().elapsed(since: self.begin))
        if let reply { line.add("code", reply.code) } else { line.add("code", "none") }
        line.write()
    }
}

extension Reception: Asker {
    func checked(_ check: RecipientCheck) {
        guard let question = self.question else { return }
        self.question = nil
        switch question {
        case .recipient(let path, let dsn, _): self.connection?.conclude(self.judge(path, dsn, check))
        case .verify: self.connection?.conclude(Self.verified(check))
        case .sender: self.connection?.conclude(self.judgeSender(check))
        case .author:
            if let verdict = self.judgeAuthor(check) { self.connection?.conclude(verdict) }
        case .commit, .credentials, .delay: self.question = question
        }
    }
}

extension Reception: Submitter {
    func creditGiven(_ octetCount: UInt64) {
        guard let credit = self.mail?.submission?.credit else { return }
        // A queue that gives more than anybody could use is not a reason to overflow.
        self.mail?.submission?.credit = credit + Int(min(octetCount, 1 << 40))
        if credit == 0 || octetCount > 0 { self.connection?.resume() }
    }

    func linkBecameWritable() { self.connection?.resume() }

    func submissionEnded(_ end: SubmissionEnd) {
        let octetCount = self.mail?.submission?.octetCount ?? 0
        self.mail?.submission = nil
        let verdict: ServerSession.Verdict
        switch end {
        case .answered(.queued(let id)):
            if let mail = self.mail { self.logQueued(id, mail, octetCount) }
            self.messageCount += 1
            self.desk.totals.messageCount += 1
            self.mail = nil
            verdict = .accepted(.queued(id))
        case .answered(.refused(let refusal)): verdict = .refused(refusal.reply)
        case .answered(.more), .lost: verdict = .refused(.queueUnavailable)
        }
        if case .commit = self.question {
            self.question = nil
            self.connection?.conclude(verdict)
            return
        }
        if case .refused(let reply) = verdict { self.mail?.refusal = reply }
        // What still comes of the content is dropped, which needs no credit.
        self.connection?.resume()
    }
}
