// SPDX-License-Identifier: Apache-2.0

import MailTypes
import NIOCore
import PipeCore
import PipeDrivers
import QueueCore
import Unix

/// One agent with its deliveries (pipes.md §3).
final class AgentConnection: LinkReceiver, SubmissionHome {
    let id: AgentLinkID
    let kind: AgentKind
    private unowned let manager: QueueManager
    private var link: Link?
    /// Content that is not longer goes out with the envelope.
    private var unaskedOctetCountMax: UInt64 = 0
    private var channels: [UInt32: OpenDelivery] = [:]
    /// Channels of reports that were refused: of these more frames may be under way, up to `commit` or `abort`.
    private var refusedReports: Set<UInt32> = []
    /// Channels whose `want` waits until the agent takes octets again.
    private var held: [UInt32] = []

    /// A class, as every frame looks at one, and what it holds is too much to be copied for it.
    private final class OpenDelivery {
        let order: DeliveryOrder
        /// The reverse-path that the agent was told.
        let reversePath: ReversePath
        var message: MessageID { self.order.message.id }
        var isReport: Bool { self.order.route == .bounce }
        /// As the agent was told.
        let octetCount: UInt64
        /// `done` or the report's commit has come; only the queue speaks now.
        var isDone = false
        var want: (offset: UInt64, octetCount: Int)?
        var report: Submission?
        /// What is to go on to others, by the recipients' numbers.
        var wishes: [UInt32: Forwarding.Wish] = [:]
        var forwarding: Forwarding?

        init(order: DeliveryOrder, reversePath: ReversePath, octetCount: UInt64) {
            self.octetCount = octetCount
            self.order = order
            self.reversePath = reversePath
        }
    }

    /// More addresses than any dot file of ours leads to.
    private static let forwardPathCountMax = 1_000
    /// An agent that leaves more refused reports without an end is let go.
    private static let refusedReportCountMax = 1_000

    init(_ ends: LinkEnds, _ id: AgentLinkID, _ kind: AgentKind, _ manager: QueueManager) {
        self.id = id
        self.kind = kind
        self.manager = manager
        self.link = Link(ends, program: "apus-queue", receiver: self, on: manager.eventLoop)
    }

    func close() { self.link?.close() }

    func close(because fault: FrameFault) { self.link?.close(because: fault) }

    /// Begins a delivery.
    func deliver(_ order: DeliveryOrder) {
        guard let link = self.link else { return }
        let channel = order.id.rawValue
        let message = order.message
        var reversePath = message.reversePath
        if let verp = message.verp, let recipient = order.recipients.first {
            reversePath = reversePath.variable(for: recipient.originalPath ?? recipient.forwardPath, verp)
        }
        if case .remote(let nextHop) = order.route, !nextHop.isLMTP {
            reversePath = self.manager.rewritten(reversePath, of: message, to: order.recipients)
        }
        var content: ArraySlice<UInt8> = []
        let octetCount: UInt64
        if message.octetCount <= self.unaskedOctetCountMax {
            guard let whole = self.manager.content(message.id, offset: 0, octetCount: Int(message.octetCount)) else {
                return self.missesContent(link)
            }
            content = whole
            octetCount = UInt64(whole.count)
        } else {
            guard let count = self.manager.wholeOctetCount(of: message) else { return self.missesContent(link) }
            octetCount = count
        }
        // Why a report all the same: its sender is told the more surely, and it needs no more than the beginning.
        guard octetCount == message.octetCount || order.route == .bounce else { return self.putOff(order) }
        self.refusedReports.remove(channel)
        self.channels[channel] = OpenDelivery(order: order, reversePath: reversePath, octetCount: octetCount)
        link.send { octets in
            DeliverRequest.deliver(
                Delivery(
                    id: message.id, reversePath: reversePath, octetCount: octetCount,
                    bodyType: message.bodyType, route: order.route, arrival: message.arrival, dsn: message.dsn,
                    unicode: message.unicode, trace: order.route == .bounce ? message.trace : [])
            ).append(to: &octets, channel: channel)
            for recipient in order.recipients {
                DeliverRequest.rcpt(
                    DeliveryRecipient(
                        number: recipient.number, forwardPath: recipient.forwardPath,
                        originalForwardPath: recipient.originalPath, dsn: recipient.dsn)
                ).append(to: &octets, channel: channel)
                guard case .reporting(let action, let outcome) = recipient.state else { continue }
                DeliverRequest.fate(
                    RecipientFate(
                        number: recipient.number, action: action, outcome: outcome, lastAttempt: recipient.lastAttempt,
                        retryLimit: action == .delayed ? message.expiry : nil)
                ).append(to: &octets, channel: channel)
            }
            DeliverRequest.go.append(to: &octets, channel: channel)
            if !content.isEmpty { DeliverRequest.data(content).append(to: &octets, channel: channel) }
        }
    }

    /// Why: a message cannot vanish under a delivery, nor a part of it that was there when it began; if it has, the agent
    /// must not take a part for the whole.
    private func missesContent(_ link: Link) { link.close(because: FrameFault(.outOfPlace, .want)) }

    /// A part of the content is gone from the file: the agent is not told of the delivery, and it is tried again later.
    private func putOff(_ order: DeliveryOrder) {
        QueueLog.note("content-incomplete", order.message.id.text)
        for recipient in order.recipients {
            self.manager.tell(.outcomeReceived(order.id, number: recipient.number, Self.contentIncomplete))
        }
        self.manager.tell(.doneReceived(order.id))
    }

    /// Why not X.3.0: it would say that the next server is down.
    private static let contentIncomplete = DeliveryOutcome(
        .deferred, code: 0, status: EnhancedStatus(.transient, 6, 0), reporter: "apus-queue",
        text: "a part of the message is missing in the queue")

    /// The outcomes are committed.
    func noted(_ settlement: Settlement) {
        let channel = settlement.delivery.rawValue
        guard let open = self.channels.removeValue(forKey: channel) else { return }
        self.link?.send { octets in
            for change in settlement.changes where open.wishes[change.number]?.outcome != nil {
                guard let after = change.after, !after.isEnded else { continue }
                DeliverRequest.owed(number: change.number).append(to: &octets, channel: channel)
            }
            DeliverRequest.noted.append(to: &octets, channel: channel)
        }
    }

    // MARK: - The link

    func linkOpened(_ link: Link, hello: Hello) {
        self.unaskedOctetCountMax = UInt64(hello.unaskedOctetCountMax)
        self.manager.tell(.agentJoined(self.id, self.kind, capacity: Int(hello.capacity)))
    }

    func linkReceived(_ frame: Frame, from link: Link) {
        do throws(FrameFault) {
            let answer = try DeliverAnswer(frame)
            if case .exchange(let request) = answer, self.refusedReports.contains(frame.channel) {
                return self.passOver(request, frame.channel)
            }
            guard let open = self.channels[frame.channel], !open.isDone else {
                throw FrameFault(.outOfPlace, frame.verb)
            }
            try self.take(answer, frame.channel, open)
        } catch {
            link.close(because: error)
        }
    }

    /// Takes what comes still for a report that was refused.
    private func passOver(_ request: SubmitRequest, _ channel: UInt32) {
        switch request {
        case .commit, .abort: self.refusedReports.remove(channel)
        case .mail, .rcpt, .data: break
        }
    }

    private func take(_ answer: DeliverAnswer, _ channel: UInt32, _ open: OpenDelivery) throws(FrameFault) {
        switch answer {
        case .want(let offset, let octetCount):
            guard open.want == nil else { throw FrameFault(.outOfPlace, .want) }
            self.serve(open, channel, offset, octetCount)
        case .outcome(let number, let outcome):
            if open.wishes[number] != nil, outcome.kind == .delivered {
                // It is told when the copies are complete.
                open.wishes[number]?.outcome = outcome
                return
            }
            open.wishes[number] = nil
            self.manager.tell(.outcomeReceived(DeliveryID(channel), number: number, outcome))
        case .done:
            if let report = open.report { self.manager.abandon(report) }
            open.report = nil
            open.isDone = true
            let wishes = open.wishes.values.filter { $0.outcome != nil }
            guard !wishes.isEmpty else { return self.manager.tell(.doneReceived(DeliveryID(channel))) }
            let forwarding = Forwarding(
                DeliveryID(channel), open.order.message, reversePath: open.reversePath, self.manager)
            open.forwarding = forwarding
            forwarding.begin(wishes.sorted { $0.recipient.number < $1.recipient.number })
        case .forward(let number, let forward): try self.forward(number, forward, open)
        case .exchange(let request):
            guard open.isReport else { throw FrameFault(.outOfPlace, .mail) }
            try self.exchange(request, channel, open)
        }
    }

    private func forward(
        _ number: UInt32, _ forward: Forward, _ open: OpenDelivery
    ) throws(FrameFault) {
        guard self.kind == .local, let recipient = open.order.recipients.first(where: { $0.number == number }),
            open.wishes.values.reduce(0, { $0 + $1.paths.count }) < Self.forwardPathCountMax
        else { throw FrameFault(.outOfPlace, .forward) }
        var wish =
            open.wishes[number]
            ?? Forwarding.Wish(recipient: recipient, reversePath: forward.reversePath, isVERP: forward.isVERP)
        guard wish.outcome == nil, wish.reversePath == forward.reversePath, wish.isVERP == forward.isVERP else {
            throw FrameFault(.badField, .forward)
        }
        wish.paths.append((forward.forwardPath, forward.meaning))
        open.wishes[number] = wish
    }

    // MARK: - Content

    private func serve(_ open: OpenDelivery, _ channel: UInt32, _ offset: UInt64, _ octetCount: Int) {
        guard let link = self.link else { return }
        guard link.isWritable else {
            open.want = (offset, octetCount)
            self.held.append(channel)
            return
        }
        open.want = nil
        let wanted = offset < open.octetCount ? Int(clamping: min(UInt64(octetCount), open.octetCount - offset)) : 0
        guard let content = self.manager.content(open.message, offset: offset, octetCount: wanted),
            content.count == wanted
        else { return self.missesContent(link) }
        link.send { DeliverRequest.data(content).append(to: &$0, channel: channel) }
    }

    func linkBecameWritable(_ link: Link) {
        let channels = self.held
        self.held = []
        for channel in channels {
            guard let open = self.channels[channel], let want = open.want else { continue }
            self.serve(open, channel, want.offset, want.octetCount)
        }
    }

    // MARK: - The exchange of failures for a report

    private func exchange(
        _ request: SubmitRequest, _ channel: UInt32, _ open: OpenDelivery
    ) throws(FrameFault) {
        switch request {
        case .mail(let mail):
            guard open.report == nil else { throw FrameFault(.outOfPlace, .mail) }
            let report = Submission(
                channel: channel, mail: mail, reported: DeliveryID(channel),
                credit: FrameLimits.exchangeOctetCountMax, memory: self.manager.memory, home: self)
            open.report = report
            self.manager.begin(report)
        case .rcpt(let path, let dsn):
            self.manager.add(path, dsn, to: try Self.arriving(open, .rcpt))
        case .data(let octets):
            let report = try Self.arriving(open, .data)
            guard !report.recipients.isEmpty else { throw FrameFault(.outOfPlace, .data) }
            try report.append(octets)
        case .commit(let commit):
            let report = try Self.arriving(open, .commit)
            guard !report.recipients.isEmpty else { throw FrameFault(.outOfPlace, .commit) }
            open.isDone = true
            report.commit = commit
            self.manager.commitAsked(report)
        case .abort:
            if let report = open.report { self.manager.abandon(report) }
            open.report = nil
        }
    }

    private static func arriving(_ open: OpenDelivery, _ verb: Verb) throws(FrameFault) -> Submission {
        guard let report = open.report else { throw FrameFault(.outOfPlace, verb) }
        return report
    }

    func submission(_ submission: Submission, queued id: MessageID) {
        guard self.channels.removeValue(forKey: submission.channel) != nil else { return }
        self.link?.send { DeliverRequest.queued(id).append(to: &$0, channel: submission.channel) }
    }

    func submission(_ submission: Submission, refused refusal: Refusal) {
        guard self.channels.removeValue(forKey: submission.channel) != nil else { return }
        if submission.commit == nil, self.refusedReports.insert(submission.channel).inserted,
            self.refusedReports.count > Self.refusedReportCountMax
        {
            self.link?.close(because: FrameFault(.outOfPlace, .mail))
        }
        self.link?.send { DeliverRequest.refused(refusal).append(to: &$0, channel: submission.channel) }
        // The report is asked for again later.
        self.manager.tell(.doneReceived(DeliveryID(submission.channel)))
    }

    func submission(_ submission: Submission, granted octetCount: Int) {}

    func linkClosed(_ link: Link) {
        self.link = nil
        for channel in self.channels.keys.sorted() {
            if let report = self.channels[channel]?.report { self.manager.abandon(report) }
            self.channels[channel]?.forwarding?.abandon()
        }
        self.channels = [:]
        self.manager.closed(self)
    }
}
