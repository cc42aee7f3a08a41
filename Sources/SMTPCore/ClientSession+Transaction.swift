// SPDX-License-Identifier: Apache-2.0
//
// One message of a session: MAIL, RCPT, DATA (RFC 5321 §3.3), pipelined where the server bears it (RFC 2920).

import MailTypes

extension ClientSession {
    /// Whether all commands of a transaction go out in one write.
    private var isPipelined: Bool { self.capabilities.hasPipelining }

    mutating func begin(_ transaction: Transaction) -> Action {
        guard self.isReady, !transaction.recipients.isEmpty else {
            // Why no precondition: the server may have closed while the driver was making up its mind.
            let failure = self.ours(
                "The connection was lost before the message began", EnhancedStatus(.transient, 4, 2))
            return .conclude(
                Conclusion(
                    verdicts: Array(repeating: nil, count: transaction.recipients.count), failure: failure))
        }
        self.transactionCount += 1
        self.transaction = transaction
        self.verdicts = Array(repeating: nil, count: transaction.recipients.count)
        self.acceptedCount = 0
        self.mailRefusal = nil
        if !self.capabilities.hasUnicode, transaction.concernsUnicode {
            self.settleForWantOfUnicode(transaction)
            guard self.verdicts.contains(nil) else { return self.conclude(nil, next: .ready) }
        }
        if let sizeMax = self.capabilities.sizeMax, sizeMax > 0, transaction.octetCount > sizeMax {
            self.settleRest(
                DeliveryOutcome(
                    .failed, code: 0, status: EnhancedStatus(.permanent, 3, 4), reporter: self.peerName,
                    text: Array(
                        "The message has \(transaction.octetCount) octets, the server takes at most \(sizeMax)".utf8)))
            return self.conclude(nil, next: .ready)
        }
        let first: Step = self.needsReset ? .reset : .mail
        self.needsReset = false
        self.phase = .envelope(first)
        var octets: [UInt8] = []
        guard self.isPipelined else {
            self.write(first, of: transaction, to: &octets)
            return .send(octets)
        }
        octets.reserveCapacity(128 + 64 * transaction.recipients.count)
        if first == .reset { self.write(.reset, of: transaction, to: &octets) }
        self.write(.mail, of: transaction, to: &octets)
        for index in transaction.recipients.indices where !self.untold.contains(index) {
            self.write(.recipient(index), of: transaction, to: &octets)
        }
        self.write(.data, of: transaction, to: &octets)
        return .send(octets)
    }

    private func write(_ step: Step, of transaction: Transaction, to octets: inout [UInt8]) {
        switch step {
        case .reset:
            octets.append(text: "RSET")
        case .mail:
            octets.append(text: "MAIL FROM:<")
            octets.append(contentsOf: transaction.reversePath.octets)
            octets.append(ASCII.greater)
            if self.capabilities.sizeMax != nil {
                octets.append(text: " SIZE=")
                octets.append(decimal: transaction.octetCount)
            }
            if self.capabilities.hasEightBitMIME, transaction.bodyType == .eightBitMIME {
                octets.append(text: " BODY=8BITMIME")
            }
            if self.capabilities.hasUnicode, transaction.concernsUnicode { octets.append(text: " SMTPUTF8") }
            if self.capabilities.hasDSN { Self.write(transaction.dsn, to: &octets) }
        case .recipient(let index):
            octets.append(text: "RCPT TO:<")
            octets.append(contentsOf: transaction.recipients[index].octets)
            octets.append(ASCII.greater)
            if self.capabilities.hasDSN, transaction.recipientDSNs.indices.contains(index) {
                Self.write(transaction.recipientDSNs[index], to: &octets)
            }
        case .data:
            octets.append(text: "DATA")
        }
        octets.append(ASCII.carriageReturn)
        octets.append(ASCII.lineFeed)
    }

    private static func write(_ dsn: MessageDSN, to octets: inout [UInt8]) {
        if let returned = dsn.returned {
            octets.append(text: " RET=")
            octets += returned.octets
        }
        if !dsn.envelopeID.isEmpty {
            octets.append(text: " ENVID=")
            octets += dsn.envelopeID
        }
    }

    private static func write(_ dsn: RecipientDSN, to octets: inout [UInt8]) {
        if let notify = dsn.notify {
            octets.append(text: " NOTIFY=")
            octets += notify.octets
        }
        if !dsn.originalRecipient.isEmpty {
            octets.append(text: " ORCPT=")
            octets += dsn.originalRecipient
        }
    }

    /// A reply to a command of the envelope.
    mutating func hear(_ reply: PeerReply, to step: Step) -> Action {
        switch step {
        case .reset:
            guard reply.code / 100 == 2 else { return self.fail(self.violation(reply), canQuit: true) }
            return self.proceed(to: .mail)
        case .mail:
            return self.hearMail(reply)
        case .recipient(let index):
            return self.hearRecipient(index, reply)
        case .data:
            return self.hearData(reply)
        }
    }

    private mutating func hearMail(_ reply: PeerReply) -> Action {
        switch reply.code / 100 {
        case 2:
            return self.proceed(to: .recipient(self.nextRecipient(from: 0) ?? 0))
        case 4, 5:
            // A refusal for now says that this server cannot; another may. A refusal for good concerns the message.
            let reprieve = self.reprieve(reply, isVague: reply.status == nil)
            if reply.code / 100 == 5, reprieve == nil {
                self.settleRest(self.outcome(.failed, reply, to: Stage.mail.suffix))
            }
            guard self.isPipelined else { return self.concludeRefusedMail(reprieve ?? reply, needsReset: false) }
            self.mailRefusal = reprieve ?? reply
            return self.proceed(to: .recipient(self.nextRecipient(from: 0) ?? 0))
        default:
            return self.fail(self.violation(reply), canQuit: false)
        }
    }

    private mutating func hearRecipient(_ index: Int, _ reply: PeerReply) -> Action {
        switch reply.code / 100 {
        case _ where self.mailRefusal != nil:
            // Whatever is said of a recipient of a refused message says nothing of the recipient.
            break
        case 2:
            self.acceptedCount += 1
        case 4:
            self.settle(index, self.outcome(.deferred, reply, to: Stage.recipient.suffix))
        case 5:
            // 552 was "too many recipients" once (RFC 5321 §4.5.3.1.10): those beyond the number come again. A status
            // that says something else is believed.
            if reply.code == 552, reply.status.map({ ($0.subject, $0.detail) == (5, 3) }) ?? true {
                let once = PeerReply(code: 452, status: EnhancedStatus(.transient, 5, 3), text: reply.text)
                self.settle(index, self.outcome(.deferred, once, to: " (552 in reply to RCPT TO)"))
            } else if let reprieve = self.reprieve(reply) {
                self.settle(index, self.outcome(.deferred, reprieve, to: Stage.recipient.suffix))
            } else {
                self.settle(index, self.outcome(.failed, reply, to: Stage.recipient.suffix))
            }
        default:
            return self.fail(self.violation(reply), canQuit: false)
        }
        if let next = self.nextRecipient(from: index + 1) { return self.proceed(to: .recipient(next)) }
        if self.acceptedCount == 0, !self.isPipelined {
            self.needsReset = true
            return self.conclude(nil, next: .ready)
        }
        return self.proceed(to: .data)
    }

    private mutating func hearData(_ reply: PeerReply) -> Action {
        switch reply.code / 100 {
        case 3:
            guard self.acceptedCount > 0 else {
                // RFC 2033 §4.2 has the server refuse, as the end would have no reply.
                if self.isLMTP { return self.fail(self.violation(reply), canQuit: false) }
                // The command was under way before we knew that nobody is left; an empty mail without recipients ends it.
                self.phase = .loneDot
                return .send(Array(".\r\n".utf8))
            }
            self.phase = .content
            return .sendContent
        case 4, 5:
            if let refusal = self.mailRefusal { return self.concludeRefusedMail(refusal, needsReset: true) }
            if self.acceptedCount > 0 {
                let reprieve = self.reprieve(reply)
                let kind: DeliveryOutcome.Kind = reply.code / 100 == 4 || reprieve != nil ? .deferred : .failed
                self.settleRest(self.outcome(kind, reprieve ?? reply, to: Stage.data.suffix))
            }
            self.needsReset = true
            return self.conclude(nil, next: .ready)
        default:
            return self.fail(self.violation(reply), canQuit: false)
        }
    }

    private mutating func concludeRefusedMail(_ refusal: PeerReply, needsReset: Bool) -> Action {
        self.needsReset = needsReset
        return self.conclude(
            self.verdicts.contains(nil) ? self.outcome(.deferred, refusal, to: Stage.mail.suffix) : nil,
            next: .ready)
    }

    /// The refusal for now that a refusal for good is if it may only mean that TLS must come first, where it was offered and not
    /// reached: with the next handshake the server may take what it refuses now. Nil for any other.
    ///
    /// - Parameter isVague: whether it may be that although it says nothing of security.
    private mutating func reprieve(_ reply: PeerReply, isVague: Bool = false) -> PeerReply? {
        guard self.hasMissedTLS, reply.code / 100 == 5,
            isVague || reply.code == 530 || reply.status?.subject == 7
        else { return nil }
        self.isTLSWanted = true
        return PeerReply(code: reply.code, status: EnhancedStatus(.transient, 7, 0), text: reply.text)
    }

    /// The server speaks while it should listen: it will not take the rest, and the end must not be sent any more.
    mutating func interruptContent(_ reply: PeerReply) -> Action {
        switch reply.code / 100 {
        case 4: self.settleRest(self.outcome(.deferred, reply, to: Stage.content.suffix))
        case 5: self.settleRest(self.outcome(.failed, reply, to: Stage.content.suffix))
        default: return self.fail(self.violation(reply), canQuit: false)
        }
        return self.conclude(nil, next: .spent(canQuit: false))
    }

    mutating func hearFinal(_ reply: PeerReply) -> Action {
        guard let verdict = self.finalVerdict(reply) else {
            self.settleRest(self.uncertain("The server answered the end of the data with \(reply.code)"))
            return self.conclude(nil, next: .spent(canQuit: false))
        }
        if self.isLMTP { return self.settleNext(verdict) }
        self.settleRest(verdict)
        return self.conclude(nil, next: reply.code == 421 ? .spent(canQuit: false) : .ready)
    }

    /// The same where no further reply can be read.
    mutating func hearLast(_ reply: PeerReply) -> Action {
        guard let verdict = self.finalVerdict(reply) else { return self.hearFinal(reply) }
        if self.isLMTP, let index = self.verdicts.firstIndex(of: nil) {
            self.settle(index, verdict)
            self.settleRest(self.uncertain("The server sent what is no reply"))
        }
        self.settleRest(verdict)
        return self.conclude(nil, next: .spent(canQuit: false))
    }

    /// What a reply to the end of the content says of whom it is about; nil if it has no meaning there.
    private func finalVerdict(_ reply: PeerReply) -> DeliveryOutcome? {
        switch reply.code / 100 {
        case 2:
            var outcome = self.outcome(.delivered, reply)
            outcome.hasPassedOnDSN = self.capabilities.hasDSN
            return outcome
        case 4: return self.outcome(.deferred, reply, to: Stage.finalReply.suffix)
        case 5: return self.outcome(.failed, reply, to: Stage.finalReply.suffix)
        default: return nil
        }
    }

    /// RFC 2033 §4.2: the replies come in the order of the recipients that were taken.
    private mutating func settleNext(_ verdict: DeliveryOutcome) -> Action {
        if let index = self.verdicts.firstIndex(of: nil) { self.settle(index, verdict) }
        return self.verdicts.contains(nil) ? .wait : self.conclude(nil, next: .ready)
    }

    /// Waits for the reply to `step`; sends it first if it is not under way already.
    private mutating func proceed(to step: Step) -> Action {
        self.phase = .envelope(step)
        if self.isPipelined { return .wait }
        guard let transaction = self.transaction else { return .wait }
        var octets: [UInt8] = []
        self.write(step, of: transaction, to: &octets)
        return .send(octets)
    }

    private mutating func settle(_ index: Int, _ outcome: DeliveryOutcome) {
        if self.verdicts[index] == nil { self.verdicts[index] = outcome }
    }

    /// The verdict of all recipients that have none.
    mutating func settleRest(_ outcome: DeliveryOutcome) {
        for index in self.verdicts.indices where self.verdicts[index] == nil { self.verdicts[index] = outcome }
    }

    mutating func conclude(_ failure: DeliveryOutcome?, next: Phase) -> Action {
        var failure = failure
        if failure == nil, let refusal = self.mailRefusal, self.verdicts.contains(nil) {
            failure = self.outcome(.deferred, refusal, to: Stage.mail.suffix)
        }
        let conclusion = Conclusion(verdicts: self.verdicts, failure: failure)
        self.phase = next == .ready && self.isTLSWanted ? .spent(canQuit: true) : next
        self.transaction = nil
        self.verdicts = []
        self.untold = []
        self.mailRefusal = nil
        return .conclude(conclusion)
    }
}
