// SPDX-License-Identifier: Apache-2.0
//
// The agent of the dialect `deliver` for the route `bounce:` (pipes.md §3, "The exchange"): gathers what is to be
// reported, pulls the beginning of the message, composes the report and submits it in exchange for the recipients.

package import MailTypes
import MessageCore
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

        package init(hostname: [UInt8], postmaster: MailAddress?) {
            self.hostname = hostname
            self.postmaster = postmaster
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
        // Why: a report to the postmaster that fails would make the next one, and so on for ever.
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
        let wanted = Int(min(job.delivery.octetCount, UInt64(Self.headOctetCountMax)))
        job.phase = .head(wantedOctetCount: wanted)
        if wanted > 0 { DeliverAnswer.want(offset: 0, octetCount: wanted).append(to: &answers, channel: channel) }
    }

    private func drop(_ job: inout Job, _ channel: UInt32, _ answers: inout [UInt8]) {
        Self.log("report-dropped", job) {
            $0.add("reason", "a report could not be delivered, and there is nobody left to tell")
        }
        let outcome = DeliveryOutcome(
            .failed, code: 0, status: EnhancedStatus(.permanent, 0, 0), reporter: "apus-bounce",
            text: "dropped: the message was a report itself, and there is nobody left to tell")
        for recipient in job.recipients {
            DeliverAnswer.outcome(number: recipient.number, outcome).append(to: &answers, channel: channel)
        }
        DeliverAnswer.done.append(to: &answers, channel: channel)
        job.phase = .dropped
    }

    private func report(
        _ job: inout Job, _ channel: UInt32, _ now: Timestamp, _ salt: UInt64, _ answers: inout [UInt8]
    ) {
        guard let audience = self.audience(job) else { return self.drop(&job, channel, &answers) }
        let isWhole = UInt64(job.head.count) == job.delivery.octetCount
        let report = DeliveryReport(
            audience: audience, hostname: self.rules.hostname, messageID: job.delivery.id,
            reversePath: job.delivery.reversePath, arrival: job.delivery.arrival,
            recipients: job.recipients.map { Self.reported($0, job.fates[$0.number]) },
            header: HeaderFields(job.head, isWholeMessage: isWhole), now: now, salt: salt)
        job.head = []
        let octets = report.octets
        var trace = Array("report of ".utf8)
        trace += job.delivery.id.octets
        let requests: [SubmitRequest] = [
            .mail(
                MailRequest(
                    reversePath: .null, bodyType: .sevenBit, declaredSize: UInt64(octets.count), trace: trace)),
            .rcpt(.address(audience.address)),
            .data(octets[...]),
            .commit(CommitRequest(octetCount: UInt64(octets.count), prefix: [], suffix: [])),
        ]
        for request in requests { DeliverAnswer.exchange(request).append(to: &answers, channel: channel) }
        job.phase = .exchange
    }

    private static func reported(_ recipient: DeliveryRecipient, _ fate: RecipientFate?) -> DeliveryReport.Recipient {
        DeliveryReport.Recipient(
            address: recipient.forwardPath, original: recipient.originalForwardPath,
            code: fate?.outcome.code ?? 0, status: fate?.outcome.status ?? EnhancedStatus(.permanent, 0, 0),
            reporter: fate?.outcome.reporter ?? [], text: fate?.outcome.text ?? [], lastAttempt: fate?.lastAttempt)
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
