// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import IDN
import MailTypes
import PipeCore
import Settings
import Unix

/// `apus explain`: how an address would be routed, or what became of a message and what comes next.
struct ExplainCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "explain",
        abstract: "Says how an address would be routed and why; or what happened to a message and what comes next.")

    @Argument(help: "An address, or the id of a message.") var subject: String
    @Flag(help: "Write JSON.") var json = false
    @OptionGroup var common: CommonOptions

    func run() throws {
        var objects: [AnswerObject] = []
        // An address is resolved by apus-lookup, which only runs under apusd.
        let isAddress = MessageID(octets: Array(self.subject.utf8)) == nil
        let subject = isAddress ? Self.mapped(self.qualified) : self.subject
        try ask(self.common, .explain, [subject], needsApusd: isAddress) { AnswerObject.append($0, to: &objects) }
        guard let first = objects.first else { return }
        let isMessage = first.pairs.first?.name == "id"
        guard !self.json else {
            return Terminal.write(isMessage ? Self.messageJSON(objects) : Self.addressJSON(objects))
        }
        let narrator = Narrator(now: WallClock.now())
        Terminal.write(isMessage ? narrator.message(objects) : narrator.address(objects))
    }

    /// An address without a domain is one of here, as for sendmail(8).
    private var qualified: String {
        guard !self.subject.contains("@"), let settings = Settings.readAnyway(file: self.common.config) else {
            return self.subject
        }
        return "\(self.subject)@\(settings.table(for: .smtpd).text("origin") ?? settings.hostname)"
    }

    /// The address with its domain in ASCII, as the programs have it.
    private static func mapped(_ text: String) -> String {
        let path = ForwardPath(octets: Array(text.utf8), domains: .idna2008)
        return path.map { String(decoding: $0.octets, as: UTF8.self) } ?? text
    }

    private static func messageJSON(_ objects: [AnswerObject]) -> String {
        guard var message = objects.first else { return "" }
        message.pairs.removeAll { $0.name == "recipients" }
        let recipients = objects.dropFirst().map { $0.json() }.joined(separator: ",\n ")
        return message.json(extra: "\"recipients\":[\(recipients)]") + "\n"
    }

    private static func addressJSON(_ objects: [AnswerObject]) -> String {
        func list(_ name: String) -> String {
            let found = objects.filter { $0.pairs.first?.name == name }.map { object in
                var object = object
                object.pairs.removeFirst()
                return object.json()
            }
            return "[\(found.joined(separator: ",\n "))]"
        }
        guard let verdict = objects.last, verdict.pairs.first?.name == "verdict" else { return "" }
        return verdict.json(extra: "\"steps\":\(list("step")),\"targets\":\(list("target"))") + "\n"
    }
}

/// Puts answers into sentences.
struct Narrator {
    let now: Timestamp

    // MARK: - An address

    func address(_ objects: [AnswerObject]) -> String {
        var text = ""
        for step in objects where step.pairs.first?.name == "step" {
            let place = step.value("place").isEmpty ? "" : " (\(step.value("place")))"
            text += "\(step.value("subject")) \(step.value("text"))\(place)\n"
        }
        let verdict = objects.last
        switch verdict?.value("verdict") {
        case "refused": text += "Mail for it is refused: \(verdict?.value("text") ?? "")\n"
        case "later": text += "It cannot be told now, and mail for it is put off: \(verdict?.value("text") ?? "")\n"
        default: break
        }
        for target in objects where target.pairs.first?.name == "target" {
            text += "-> <\(target.value("to"))> by \(target.value("route"))\(self.state(target))\n"
            text += self.demands(target)
        }
        if verdict?.value("paused") == "true" { text += "The queue is paused: nothing is delivered.\n" }
        return text
    }

    /// What is asked of the servers there, and as whom.
    private func demands(_ target: AnswerObject) -> String {
        let tls =
            switch TLSDemand(rawValue: target.value("tls")) {
            case .off: "in plain text"
            case .may: "with TLS if it is offered, whatever the certificate"
            case .require: "with TLS, whatever the certificate"
            case .verify: "with TLS and a verified certificate"
            case .implicit: "with TLS from the first octet and a verified certificate"
            case nil: ""
            }
        guard !tls.isEmpty else { return "" }
        let text = "   \(tls): \(target.value("tls")) (\(target.value("tls-place")))\n"
        guard !target.value("user").isEmpty else { return text }
        return text + "   authenticated as \(target.value("user")) (\(target.value("user-place")))\n"
    }

    /// What is known of the destination of a target or a recipient.
    private func state(_ object: AnswerObject) -> String {
        var parts: [String] = []
        if let until = object.number("down-until") {
            let times = object.number("down-times") ?? 1
            let word = times == 1 ? "the first time" : "\(times) times in a row"
            let next =
                Timestamp(microseconds: until) > self.now ? "next tried \(self.until(until))" : "being tried again"
            parts.append("down \(word), \(next)")
        } else if let failures = object.number("failures"), failures > 0 {
            parts.append("\(failures) \(failures == 1 ? "failure" : "failures") in a row")
        }
        if let deliveries = object.number("deliveries"), let window = object.number("window"), deliveries > 0 {
            parts.append("\(deliveries) of \(window) deliveries under way")
        }
        if let waiting = object.number("waiting"), waiting > 0 { parts.append("\(waiting) recipients wait") }
        if let most = object.number("connections-max") { parts.append("at most \(most) connections") }
        if let most = object.number("messages-per-minute-max") { parts.append("at most \(most) messages a minute") }
        return parts.isEmpty ? "" : ": \(parts.joined(separator: ", "))"
    }

    private func until(_ microseconds: UInt64) -> String {
        "\(Readable.until(microseconds, now: self.now)) (\(Readable.instant(microseconds)))"
    }

    // MARK: - A message

    func message(_ objects: [AnswerObject]) -> String {
        guard let message = objects.first else { return "" }
        var text = "\(message.value("id")) from <\(message.value("from"))>, \(Readable.size(message.number("size"))), "
        text += "arrived \(Readable.instant(message.number("arrival"))), "
        text += "\(Readable.age(message.number("arrival"), now: self.now)) ago"
        if !message.value("client").isEmpty { text += "\n  through \(message.value("client"))" }
        text += ".\n"
        if message.value("paused") == "true" { text += "The queue is paused: nothing is delivered until that ends.\n" }
        for recipient in objects.dropFirst() {
            text += "\n<\(recipient.value("to"))> by \(recipient.value("route"))"
            if !recipient.value("original").isEmpty { text += ", for <\(recipient.value("original"))>" }
            text += ":\n  \(self.past(recipient))\n  \(self.future(recipient, message))\n"
        }
        return text
    }

    private func past(_ recipient: AnswerObject) -> String {
        let attempts = recipient.number("attempts") ?? 0
        let said = "\(recipient.value("dsn")) \(recipient.value("reason")) (said by \(recipient.value("reporter")))"
        let times = attempts == 1 ? "Tried once" : "Tried \(attempts) times"
        let last = recipient.number("last").map { ", last \(Readable.instant($0))" } ?? ""
        let hasFailed = recipient.value("destination") == "bounce:"
        if recipient.value("reason").isEmpty {
            return attempts == 0 ? "Not tried yet." : "\(times)\(last)."
        }
        if attempts == 0 { return "\(hasFailed ? "Failed" : "Put off") without an attempt: \(said)." }
        return "\(times)\(last): \(said)."
    }

    private func future(_ recipient: AnswerObject, _ message: AnswerObject) -> String {
        let expiry = message.number("expiry").map { Timestamp(microseconds: $0) }
        let hasFailed = recipient.value("destination") == "bounce:"
        let end =
            expiry.map {
                $0 > self.now
                    ? " It is given up after \(Readable.instant($0.microseconds))."
                    : " It is too old: the next deferral is a failure."
            } ?? ""
        switch recipient.value("status") {
        case "held":
            let what = hasFailed ? "no report is made" : "nothing is tried"
            return "Held by the operator: \(what) until `apus queue release`."
        case "delivering": return "A delivery is under way now."
        case "failed":
            let sender = message.value("from")
            let when = Readable.until(recipient.number("next"), now: self.now)
            return sender.isEmpty
                ? "It has failed. There is no sender to tell; the bounce agent decides what becomes of it, due \(when)."
                : "It has failed; a report to <\(sender)> is due \(when)."
        case "reporting":
            let when = Readable.until(recipient.number("next"), now: self.now)
            return "It is done; a report of that to <\(message.value("from"))>, who asked for it, is due \(when)."
        default:
            let state = self.state(recipient)
            let destination = state.isEmpty ? "" : " The destination\(state)."
            return "Next attempt \(self.until(recipient.number("next") ?? 0)).\(destination)\(end)"
        }
    }
}
