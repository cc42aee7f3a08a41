// SPDX-License-Identifier: Apache-2.0

import MailTypes
import PipeCore
import QueueCore

extension OperatorConnection {
    /// `explain ADDRESS`, or `explain ID`: an id has no `@`, and no path of thirteen characters is without one.
    func explain(_ frame: Frame, _ question: Question) throws(FrameFault) {
        try frame.expectFields(1)
        if MessageID(octets: frame[0]) != nil {
            if let message = self.message(frame[0], question.channel) { self.explain(message, question) }
        } else if let path = ForwardPath(octets: frame[0], alphabet: .unicodeLocalPart) {
            self.start(ExplainAnswer(question, path), question.channel)
        } else {
            question.fail("this is neither a message id nor an address")
        }
    }

    /// The rows of `show`, and what is known of each recipient's destination.
    private func explain(_ message: StoredMessage, _ question: Question) {
        self.showEnvelope(message, question.channel)
        question.row([("id", message.record.id.octets), ("paused", self.pausedWord)])
        for recipient in message.recipients {
            self.show(recipient, message.record.id, question.channel)
            self.destination(("recipient", .init(decimal: recipient.number)), recipient.destination, question)
        }
        question.end(1 + message.recipients.count)
    }

    private var pausedWord: [UInt8] { Array((self.manager.settings.isPaused ? "true" : "false").utf8) }

    /// What is known of a destination, as a continuation of an object.
    func destination(_ subject: (String, [UInt8]), _ route: Route, _ question: Question) {
        let terms = self.manager.settings.scheduler.terms(of: route)
        if terms.deliveryCountMax != nil || terms.deliveriesPerMinuteMax != nil {
            question.row(
                [
                    subject, ("connections-max", terms.deliveryCountMax.map { .init(decimal: $0) } ?? []),
                    ("messages-per-minute-max", terms.deliveriesPerMinuteMax.map { .init(decimal: $0) } ?? []),
                ])
        }
        if case .remote(let nextHop) = route { self.demands(subject, nextHop, question) }
        guard let state = self.manager.scheduler.state(of: route) else {
            return question.row([subject, ("destination", route.octets)])
        }
        question.row(
            [
                subject, ("destination", route.octets), ("window", .init(decimal: state.windowSize)),
                ("deliveries", .init(decimal: state.deliveryCount)), ("waiting", .init(decimal: state.waitingCount)),
                ("failures", .init(decimal: state.failureCount)),
            ])
        guard let suspension = state.suspension else { return }
        question.row(
            [
                subject, ("down-until", .init(decimal: suspension.suspendedUntil.microseconds)),
                ("down-times", .init(decimal: suspension.suspensionCount)),
            ])
    }
}

extension OperatorConnection {
    /// What apus-remote asks of a next hop and as whom, with the settings that say so.
    private func demands(_ subject: (String, [UInt8]), _ nextHop: NextHop, _ question: Question) {
        let destinations = self.manager.settings.destinations
        let setting = destinations.setting(nextHop)
        let tls = destinations.tls(nextHop)
        let place = setting.map { "[[destination]] \($0.name)" } ?? ""
        question.row(
            [
                subject, ("tls", Array(tls.rawValue.utf8)),
                ("tls-place", Array((setting?.tls == nil ? "remote.tls" : place).utf8)),
            ])
        guard let user = setting?.user else { return }
        question.row([subject, ("user", user), ("user-place", Array(place.utf8))])
    }
}

/// The answer to `explain ADDRESS`: an object for each step, one for each target, and one for the whole.
final class ExplainAnswer: LongAnswer {
    private let question: Question
    private let path: ForwardPath
    private var isAsked = false
    private var isAbandoned = false

    init(_ question: Question, _ path: ForwardPath) {
        self.question = question
        self.path = path
    }

    func step() {
        guard !self.isAsked else { return }
        self.isAsked = true
        self.question.manager.lookup.explain(self.path) { explanation in
            if !self.isAbandoned { self.tell(explanation) }
        }
    }

    func abandon() { self.isAbandoned = true }

    private func tell(_ explanation: Explanation) {
        for (index, step) in explanation.steps.enumerated() {
            self.question.row(
                [
                    ("step", .init(decimal: index + 1)), ("kind", step.kind), ("subject", step.subject),
                    ("text", step.text), ("place", step.place),
                ])
        }
        var targets: [Resolution.Target] = []
        let verdict: (word: String, text: [UInt8])
        switch explanation.resolution {
        case .targets(let found):
            targets = found
            verdict = ("accepted", [])
        case .unknown(let status, let text): verdict = ("refused", status.octets + [0x20] + text)
        case .later: verdict = ("later", explanation.reason)
        }
        for (index, target) in targets.enumerated() {
            let subject = ("target", [UInt8](decimal: index + 1))
            self.question.row([subject, ("to", target.forwardPath.octets), ("route", target.route.octets)])
            self.question.connection.destination(subject, target.route, self.question)
        }
        let paused = self.question.manager.settings.isPaused ? "true" : "false"
        self.question.row(
            [
                ("verdict", Array(verdict.word.utf8)), ("address", self.path.octets), ("text", verdict.text),
                ("paused", Array(paused.utf8)),
            ])
        self.question.end(explanation.steps.count + targets.count + 1)
    }
}
