// SPDX-License-Identifier: Apache-2.0
//
// The agent of the dialect `deliver` for the route `bounce:` (pipes.md §3, "The exchange"): gathers what is to be
// reported, pulls the beginning of the message, composes the report and submits it in exchange for the recipients.

package import MailTypes
package import MessageCore
package import PipeCore
import Unix

/// All deliveries of one link. Frames go in, octets for the queue come out; nothing waits.
package struct BounceAgent {
    /// What the settings say.
    package struct Rules: Hashable, Sendable {
        /// Of the server, for the report's sender.
        package let hostname: [UInt8]
        /// Who is told when a report itself cannot be delivered; nil: nobody.
        package let postmaster: MailAddress?
        package let languages: ReportLanguages
        /// A message of no more octets is returned whole to a sender who wishes it.
        package let returnedOctetCountMax: Int
        package let limits: ReportLimits

        package init(
            hostname: [UInt8], postmaster: MailAddress?, languages: ReportLanguages = ReportLanguages(),
            returnedOctetCountMax: Int = 51_200, limits: ReportLimits = ReportLimits()
        ) {
            self.hostname = hostname
            self.postmaster = postmaster
            self.languages = languages
            self.returnedOctetCountMax = returnedOctetCountMax
            self.limits = limits
        }
    }

    /// How many deliveries we bear at once: each holds the beginning of a message and its recipients.
    package static let capacity = 16
    /// So much of the message is pulled to find its header in.
    package static let headOctetCountMax = 65_536
    /// More recipients in one delivery than any queue of ours sends.
    package static let recipientCountMax = 20_000

    private enum Phase {
        case envelope
        /// The beginning of the message was asked for.
        case head(wantedOctetCount: Int)
        /// The report was submitted.
        case exchange
        /// No report can be sent, and the queue was told so.
        case dropped
    }

    /// One message whose sender is to be told.
    private struct Job {
        let delivery: Delivery
        var recipients: [DeliveryRecipient] = []
        var fates: [UInt32: RecipientFate] = [:]
        var head: [UInt8] = []
        var phase = Phase.envelope
    }

    package var rules: Rules
    private var jobs: [UInt32: Job] = [:]
    private var counter = ReportCounter()
    /// Since the start: reports that were composed, and that were not because of a limit.
    package private(set) var reportCount = 0
    package private(set) var withheldCount = 0

    package init(rules: Rules) { self.rules = rules }

    /// Whether nothing is under way.
    package var isIdle: Bool { self.jobs.isEmpty }

    /// Takes a frame from the queue and appends what is to be answered.
    ///
    /// - Parameters:
    ///   - now: the date of a report that is composed now.
    ///   - salt: a number that nobody can foresee.
    package mutating func receive(
        _ frame: Frame, now: Timestamp, salt: UInt64, answers: inout [UInt8]
    ) throws(FrameFault) {
        let request = try DeliverRequest(frame)
        let channel = frame.channel
        if case .deliver(let delivery) = request {
            guard self.jobs[channel] == nil, self.jobs.count < Self.capacity, delivery.route == .bounce else {
                throw FrameFault(.outOfPlace, frame.verb)
            }
            self.jobs[channel] = Job(delivery: delivery)
            return
        }
        guard var job = self.jobs.removeValue(forKey: channel) else { throw FrameFault(.outOfPlace, frame.verb) }
        switch (job.phase, request) {
        case (.envelope, .rcpt(let recipient)):
            guard job.recipients.count < Self.recipientCountMax else { throw FrameFault(.outOfPlace, frame.verb) }
            job.recipients.append(recipient)
        case (.envelope, .fate(let fate)):
            guard job.recipients.last?.number == fate.number else { throw FrameFault(.outOfPlace, frame.verb) }
            job.fates[fate.number] = fate
        case (.envelope, .go):
            guard !job.recipients.isEmpty else { throw FrameFault(.outOfPlace, frame.verb) }
            self.begin(&job, channel, &answers)
            if case .head(0) = job.phase { self.report(&job, channel, now, salt, &answers) }
        case (.head(let wanted), .data(let octets)):
            guard job.head.count + octets.count <= wanted else { throw FrameFault(.creditExceeded, frame.verb) }
            job.head += octets
            if job.head.count == wanted { self.report(&job, channel, now, salt, &answers) }
        case (.exchange, .queued(let id)):
            Self.log("reported", job) { $0.add("report", id) }
            return
        case (.exchange, .refused(let refusal)):
            // The queue asks again later.
            Self.log("report-refused", job) { $0.add("reason", refusal.text) }
            return
        case (.dropped, .noted):
            return
        default:
            throw FrameFault(.outOfPlace, frame.verb)
        }
        self.jobs[channel] = job
    }

    /// Whom a report about the message goes to; nil: there is nobody to tell.
    private func audience(_ job: Job) -> DeliveryReport.Audience? {
        if case .address(let sender) = job.delivery.reversePath { return .sender(sender) }
        guard let postmaster = self.rules.postmaster else { return nil }
        // Why: a report to the postmaster that fails would make the next one, and so on for ever; as itself, or as what it was
        // sent on as by an alias or a file of the postmaster's.
        guard !MailRequest.isPostmastersReport(job.delivery.trace) else { return nil }
        let isPostmasters = job.recipients.contains { recipient in
            [recipient.forwardPath, recipient.originalForwardPath].contains { path in
                path == .postmaster || path?.octets.equalsIgnoringCase(postmaster.octets) == true
            }
        }
        return isPostmasters ? nil : .postmaster(postmaster)
    }

    private func begin(_ job: inout Job, _ channel: UInt32, _ answers: inout [UInt8]) {
        guard self.audience(job) != nil else {
            self.drop(&job, channel, &answers)
            return
        }
        let hasFailure = job.recipients.contains { job.fates[$0.number].map { $0.action == .failed } ?? true }
        let isReturned = hasFailure && job.delivery.dsn.returned == .full
        let most = isReturned ? max(self.rules.returnedOctetCountMax, Self.headOctetCountMax) : Self.headOctetCountMax
        let wanted = Int(min(job.delivery.octetCount, UInt64(most)))
        job.phase = .head(wantedOctetCount: wanted)
        if wanted > 0 { DeliverAnswer.want(offset: 0, octetCount: wanted).append(to: &answers, channel: channel) }
    }

    private func drop(_ job: inout Job, _ channel: UInt32, _ answers: inout [UInt8]) {
        Self.log("report-dropped", job) {
            $0.add("reason", "a report could not be delivered, and there is nobody left to tell")
        }
        Self.end(
            &job, channel, .failed, "dropped: the message was a report itself, and there is nobody left to tell",
            &answers)
    }

    /// Ends a delivery without a report.
    ///
    /// - Parameter kind: `failed`: there will be none; `deferred`: not now.
    private static func end(
        _ job: inout Job, _ channel: UInt32, _ kind: DeliveryOutcome.Kind, _ reason: String, _ answers: inout [UInt8]
    ) {
        let status = kind == .failed ? EnhancedStatus(.permanent, 0, 0) : EnhancedStatus(.transient, 0, 0)
        let outcome = DeliveryOutcome(kind, code: 0, status: status, reporter: "apus-bounce", text: reason)
        for recipient in job.recipients {
            DeliverAnswer.outcome(number: recipient.number, outcome).append(to: &answers, channel: channel)
        }
        DeliverAnswer.done.append(to: &answers, channel: channel)
        job.phase = .dropped
    }

    /// Whom nothing is told, and why; nil: the report may go.
    private mutating func restraint(
        _ told: [DeliveryReport.Recipient], _ audience: DeliveryReport.Audience, _ now: Timestamp
    ) -> (kind: DeliveryOutcome.Kind, reason: String)? {
        if told.isEmpty { return (.failed, "the message is automatic or of a list: its delay is not reported") }
        switch self.counter.allow(audience.address, self.rules.limits, at: now) {
        case .allowed: return nil
        case .addressExceeded:
            return (.failed, "the sender has had bounce.reports-per-sender-max reports within an hour")
        case .allExceeded: return (.deferred, "bounce.reports-per-minute-max reports were sent within a minute")
        }
    }

    private mutating func report(
        _ job: inout Job, _ channel: UInt32, _ now: Timestamp, _ salt: UInt64, _ answers: inout [UInt8]
    ) {
        guard let audience = self.audience(job) else { return self.drop(&job, channel, &answers) }
        let isWhole = UInt64(job.head.count) == job.delivery.octetCount
        let header = HeaderFields(job.head, isWholeMessage: isWhole)
        job.head = []
        var told = job.recipients.map { Self.reported($0, job.fates[$0.number]) }
        if case .sender(let sender) = audience, BulkMail.isBulk(sender, header) {
            told.removeAll { $0.action == .delayed }
        }
        if let restraint = self.restraint(told, audience, now) {
            self.withheldCount += 1
            Self.log("report-withheld", job) { $0.add("reason", restraint.reason) }
            return Self.end(&job, channel, restraint.kind, restraint.reason, &answers)
        }
        self.reportCount += 1
        func report(returnsWhole: Bool) -> DeliveryReport {
            DeliveryReport(
                audience: audience, hostname: self.rules.hostname,
                template: self.rules.languages.template(for: audience.address, header),
                original: DeliveryReport.Original(
                    id: job.delivery.id, reversePath: job.delivery.reversePath, arrival: job.delivery.arrival,
                    dsn: job.delivery.dsn, unicode: job.delivery.unicode, trace: job.delivery.trace, header: header,
                    isWhole: returnsWhole),
                recipients: told, now: now, salt: salt)
        }
        let returnsWhole = isWhole && header.octets.count <= self.rules.returnedOctetCountMax
        var composed = report(returnsWhole: returnsWhole)
        var octets = composed.octets
        if octets.count > FrameLimits.exchangeOctetCountMax {
            composed = report(returnsWhole: false)
            octets = composed.octets
        }
        var trace = Array("report of ".utf8)
        if case .postmaster = audience { trace = MailRequest.postmastersReport + Array(" of ".utf8) }
        trace += job.delivery.id.octets
        let requests: [SubmitRequest] = [
            .mail(
                MailRequest(
                    reversePath: .null, bodyType: composed.bodyType, declaredSize: UInt64(octets.count), trace: trace,
                    unicode: composed.isInternational ? .inHeader : .none)),
            // Nobody is told of the fate of a report (RFC 3461 §6.1).
            .rcpt(.address(audience.address), RecipientDSN(notify: .never)),
            .data(octets[...]),
            .commit(CommitRequest(octetCount: UInt64(octets.count), prefix: [], suffix: [])),
        ]
        for request in requests { DeliverAnswer.exchange(request).append(to: &answers, channel: channel) }
        job.phase = .exchange
    }

    private static func reported(_ recipient: DeliveryRecipient, _ fate: RecipientFate?) -> DeliveryReport.Recipient {
        DeliveryReport.Recipient(
            address: recipient.forwardPath, original: recipient.dsn.originalPath ?? recipient.originalForwardPath,
            action: fate?.action ?? .failed, dsn: recipient.dsn,
            code: fate?.outcome.code ?? 0, status: fate?.outcome.status ?? EnhancedStatus(.permanent, 0, 0),
            reporter: fate?.outcome.reporter ?? [], text: fate?.outcome.text ?? [], lastAttempt: fate?.lastAttempt,
            retryLimit: fate?.retryLimit)
    }

    private static func log(_ event: StaticString, _ job: Job, _ more: (inout LogLine) -> Void) {
        var line = LogLine(event)
        line.add("id", job.delivery.id)
        line.add(path: "from", job.delivery.reversePath.octets)
        line.add("recipients", job.recipients.count)
        more(&line)
        line.write()
    }
}
