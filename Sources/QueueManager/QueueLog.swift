// SPDX-License-Identifier: Apache-2.0
//
// The log lines of apus-queue. Each line of a message carries its id.

import LMDBQueueStore
import MailTypes
import PipeCore
import QueueCore
import Unix

enum QueueLog {
    static func opened(_ report: RecoveryReport, _ counts: QueueCounts?) {
        var line = LogLine("queue-opened")
        if let counts {
            line.add("messages", counts.messages)
            line.add("recipients", counts.recipients)
        }
        line.add("discarded", report.discardedCount)
        line.add("repaired", report.repairedDueCount)
        line.write()
    }

    static func queued(_ message: NewMessage, delay: Duration) {
        var line = LogLine("queued")
        line.add("id", message.record.id)
        line.add(path: "from", message.record.reversePath.octets)
        line.add("size", message.record.octetCount)
        line.add("nrcpt", message.recipients.count)
        line.add("delay", delay)
        line.add("client", message.record.trace)
        line.write()
    }

    static func imported(_ message: NewMessage) {
        var line = LogLine("imported")
        line.add("id", message.record.id)
        line.add(path: "from", message.record.reversePath.octets)
        line.add("size", message.record.octetCount)
        line.add("nrcpt", message.recipients.count)
        line.add("client", message.record.trace)
        line.write()
    }

    static func refused(_ submission: Submission, _ refusal: Refusal) {
        var line = LogLine("refused")
        line.add(path: "from", submission.mail.reversePath.octets)
        line.add("code", refusal.code)
        line.add("dsn", refusal.status.octets)
        line.add("text", refusal.text)
        line.add("client", submission.mail.trace)
        line.write()
    }

    /// What became of a recipient: the line that promise 6 of the design is about.
    static func ending(_ ending: RecipientEnding, report: MessageID?) {
        var line = LogLine("recipient")
        line.add("id", ending.message)
        line.add(path: "to", ending.recipient.forwardPath.octets)
        if let original = ending.recipient.originalPath { line.add(path: "original", original.octets) }
        line.add("status", ending.status.rawValue)
        if let outcome = ending.outcome {
            line.add("dsn", outcome.status)
            line.add("code", outcome.code)
            line.add("who", outcome.reporter)
        }
        line.add("route", ending.recipient.route.octets)
        line.add("delay", ending.delay)
        line.add("attempts", ending.recipient.attemptCount)
        if let report { line.add("report", report) }
        if let outcome = ending.outcome { line.add("text", outcome.text) }
        line.write()
    }

    static func operated(_ verb: OperatorVerb, _ message: MessageID, _ recipient: RecipientRecord) {
        var line = LogLine("operated")
        line.add("id", message)
        line.add(path: "to", recipient.forwardPath.octets)
        line.add("verb", verb.word)
        if case .reroute(let route) = verb { line.add("route", route.octets) }
        if verb == .remove { line.add("status", RecipientEnding.Status.removed.rawValue) }
        line.write()
    }

    static func destination(_ route: Route, _ record: DestinationRecord?) {
        var line = LogLine(record == nil ? "destination-up" : "destination-down")
        line.add("route", route.octets)
        if let record {
            line.add("until", record.suspendedUntil.seconds)
            line.add("times", record.suspensionCount)
        }
        line.write()
    }

    static func quarantined(_ key: DueKey) {
        var line = LogLine("quarantined")
        line.add("id", key.recipient.message)
        line.add("number", key.recipient.number)
        line.add("reason", "its record cannot be read; it stays in the database but is not tried")
        line.write()
    }

    /// A check has found that a rule of queue.md does not hold.
    static func fault(_ fault: QueueFault) {
        var line = LogLine("queue-fault")
        line.add("kind", fault.kind.rawValue)
        if let message = fault.message { line.add("id", message) }
        if let number = fault.number { line.add("number", number) }
        line.add("reason", fault.text)
        line.write()
    }

    static func undecodable(_ record: UndecodableRecord) {
        var line = LogLine("record-unreadable")
        line.add("database", record.database)
        line.add("key", record.key)
        line.write()
    }

    static func note(_ event: StaticString, _ reason: String) {
        var line = LogLine(event)
        line.add("reason", reason)
        line.write()
    }

    static func exit(_ what: String, _ reason: String, _ status: ExitStatus) -> Never {
        var line = LogLine("start-failed")
        line.add("step", what)
        line.add("reason", reason)
        line.write()
        status.exit()
    }

    static func text(_ fault: StoreFault) -> String {
        switch fault {
        case .full(let text), .broken(let text): text
        }
    }
}

/// What the program has done since its start, for `apus status`.
struct Counters {
    var accepted: UInt64 = 0
    var refused: UInt64 = 0
    var started: UInt64 = 0
    var delivered: UInt64 = 0
    var deferred: UInt64 = 0
    var failed: UInt64 = 0
    var reported: UInt64 = 0

    mutating func count(_ status: RecipientEnding.Status) {
        switch status {
        case .delivered: self.delivered += 1
        case .deferred: self.deferred += 1
        case .failed, .expired, .unreported: self.failed += 1
        case .reported, .dropped, .warned: self.reported += 1
        case .removed: break
        }
    }
}

extension QueueManager {
    var statusRows: [(name: String, value: String)] {
        var rows: [(name: String, value: String)] = []
        if let counts = try? self.store.counts() {
            rows.append(("messages", "\(counts.messages)"))
            rows.append(("recipients", "\(counts.recipients)"))
            rows.append(("held", "\(max(0, counts.recipients - counts.scheduled))"))
        }
        rows.append(("deliveries", "\(self.scheduler.deliveryCount)"))
        rows.append(("in-memory", "\(self.scheduler.recipientCount)"))
        rows.append(("destinations-down", "\(self.scheduler.suspendedCount)"))
        rows.append(("accepted", "\(self.counters.accepted)"))
        rows.append(("refused", "\(self.counters.refused)"))
        rows.append(("delivered", "\(self.counters.delivered)"))
        rows.append(("deferred", "\(self.counters.deferred)"))
        rows.append(("failed", "\(self.counters.failed)"))
        rows.append(("commits", "\(self.committer.commitCount)"))
        rows.append(("file-octets", "\(self.store.fileOctetCount)"))
        rows.append(("paused", "\(self.settings.isPaused)"))
        return rows
    }
}
