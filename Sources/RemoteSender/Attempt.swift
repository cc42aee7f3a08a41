// SPDX-License-Identifier: Apache-2.0

import DNSCore
import MailTypes
import PipeCore
import SMTPCore
import SMTPDrivers

/// One delivery that the queue has handed us: a message, its recipients of one route, and how far we are with it.
final class Attempt {
    /// Ours, never used twice; answers of resolvers find the attempt by it.
    let number: UInt64
    /// The queue's.
    let channel: UInt32
    let delivery: Delivery
    let nextHop: NextHop
    /// Nil once the link is gone: nobody is left to tell.
    weak var queueLink: QueueLink?

    private(set) var recipients: [DeliveryRecipient] = []
    private(set) var outcomes: [DeliveryOutcome?] = []
    /// Whether `go` has come.
    var isComplete = false
    /// Whether `done` has been sent.
    var isDone = false { didSet { self.content = nil } }

    var exchangers: MailExchangers?
    /// Where the connection leads.
    var candidate: MailExchangers.Candidate?
    /// Whether the handshake under way begins with an earlier session.
    var isResuming = false
    /// A handshake that began with an earlier session has failed with that host: no such session is used.
    var isResumingTried = false
    /// A handshake with that host has failed, and plain text will do.
    var isPlainTextTried = false
    /// The connection that carries it now.
    var connection: ClientConnection?
    /// Whether that connection had carried another message before.
    var isReusing = false
    /// The recipients of the transaction under way, by place.
    private var places: [Int] = []

    /// A message that is not longer comes whole with its envelope, and is kept until the delivery is done: most are so
    /// short, a question for each would cost more, and the next server is not kept waiting for it. The price is so
    /// much memory for each delivery that waits for its server.
    static let unaskedOctetCountMax: UInt64 = 16_384

    /// A message that comes unasked, as far as it has come; nil for one that is asked for.
    private var content: [UInt8]?
    /// Octets of the last `want`, or of content that comes unasked, that the queue has still to send.
    private(set) var outstandingOctetCount = 0
    /// Whether those are for a connection that is gone, so that they are dropped.
    private var isOutstandingStale = false
    /// What the present connection wants, while octets for an earlier one are still coming.
    private var heldWant: (offset: UInt64, octetCount: Int)?

    init(number: UInt64, channel: UInt32, delivery: Delivery, nextHop: NextHop, queueLink: QueueLink) {
        self.number = number
        self.channel = channel
        self.delivery = delivery
        self.nextHop = nextHop
        self.queueLink = queueLink
        if delivery.octetCount > 0, delivery.octetCount <= Self.unaskedOctetCountMax {
            self.content = []
            self.outstandingOctetCount = Int(delivery.octetCount)
        }
    }

    var hasRecipients: Bool { !self.recipients.isEmpty }

    func append(_ recipient: DeliveryRecipient) {
        self.recipients.append(recipient)
        self.outcomes.append(nil)
    }

    /// Whether every recipient has its outcome.
    var isSettled: Bool { !self.outcomes.contains { $0 == nil } }

    /// The transaction for those that have none.
    func transaction() -> ClientSession.Transaction {
        self.places = self.outcomes.indices.filter { self.outcomes[$0] == nil }
        return ClientSession.Transaction(
            reversePath: self.delivery.reversePath, recipients: self.places.map { self.recipients[$0].forwardPath },
            octetCount: self.delivery.octetCount, bodyType: self.delivery.bodyType,
            unicode: self.delivery.unicode, dsn: self.delivery.dsn,
            recipientDSNs: self.places.map { self.recipients[$0].passedOnDSN })
    }

    /// Takes what one server has said.
    func take(_ verdicts: [DeliveryOutcome?]) {
        for (place, verdict) in zip(self.places, verdicts) {
            if let verdict { self.outcomes[place] = verdict }
        }
        self.places = []
    }

    /// The same outcome for all that have none.
    func settleRest(_ outcome: DeliveryOutcome) {
        for place in self.outcomes.indices where self.outcomes[place] == nil { self.outcomes[place] = outcome }
    }

    // MARK: Content

    /// Gives the connection content that has come already, or asks the queue for it; later, if octets are still coming
    /// that nobody has asked for, or somebody before.
    func want(offset: UInt64, octetCount: Int) {
        guard self.outstandingOctetCount == 0 else {
            self.heldWant = (offset, octetCount)
            return
        }
        if let content = self.content {
            _ = self.connection?.provide(content.dropFirst(Int(offset)).prefix(octetCount))
            return
        }
        self.outstandingOctetCount = octetCount
        self.isOutstandingStale = false
        self.queueLink?.send(.want(offset: offset, octetCount: octetCount), channel: self.channel)
    }

    /// Content came. False if it was not asked for.
    func take(_ octets: ArraySlice<UInt8>) -> Bool {
        guard octets.count <= self.outstandingOctetCount else { return false }
        self.outstandingOctetCount -= octets.count
        if self.content != nil {
            self.content? += octets
        } else if !self.isOutstandingStale, let connection = self.connection {
            guard connection.provide(octets) else { return false }
        }
        if self.outstandingOctetCount == 0, let held = self.heldWant {
            self.heldWant = nil
            self.want(offset: held.offset, octetCount: held.octetCount)
        }
        return true
    }

    /// The connection is given up; what it asked for may still come.
    func leaveConnection() {
        self.connection = nil
        self.isOutstandingStale = true
        self.heldWant = nil
    }
}

extension DeliveryRecipient {
    /// What the next server is told: where an alias has led here, the address that the sender knows (RFC 3461 §5.2.7.1).
    fileprivate var passedOnDSN: RecipientDSN {
        guard let original = self.originalForwardPath, self.dsn.originalRecipient.isEmpty else { return self.dsn }
        return RecipientDSN(
            notify: self.dsn.notify, originalRecipient: RecipientDSN.originalRecipient(of: original))
    }
}
