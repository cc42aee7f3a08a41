// SPDX-License-Identifier: Apache-2.0

import MailTypes
import NIOCore
import PipeCore
import PipeDrivers
import Unix

/// Where a recipient goes, as apus-lookup says.
enum Resolution: Equatable {
    /// At least one.
    case targets([Target])
    case unknown(EnhancedStatus, text: [UInt8])
    /// It cannot be told now.
    case later

    struct Target: Hashable {
        let forwardPath: ForwardPath
        let route: Route
    }
}

/// Where a recipient goes and how that follows, as apus-lookup says.
struct Explanation {
    struct Step {
        let kind: [UInt8]
        let subject: [UInt8]
        let text: [UInt8]
        let place: [UInt8]
    }

    let steps: [Step]
    let resolution: Resolution
    /// Why it cannot be told now; empty if it can.
    let reason: [UInt8]
}

/// Asks apus-lookup for routes, one question for each recipient, and remembers answers for a moment.
final class LookupClient: LinkReceiver {
    private struct Question {
        let subject: Subject
        var targets: [Resolution.Target] = []
        /// Who wants to know the way, too; nobody else waits for this question.
        var explained: ((Explanation) -> Void)?
        var steps: [Explanation.Step] = []
        /// What apus-lookup says about a `later`.
        var reason: [UInt8] = []
        var timeout: Scheduled<Void>?
    }

    /// What is asked about.
    private struct Subject: Hashable {
        let path: ForwardPath
        let meaning: PathMeaning
    }

    private let eventLoop: any EventLoop
    /// The present link; a new one takes its place when the program was restarted.
    private var link: Link?
    private var questions: [UInt32: Question] = [:]
    /// Who waits for the answer about a path; each path is asked once at a time.
    private var waiting: [Subject: [(Resolution) -> Void]] = [:]
    private var cache: [Subject: (resolution: Resolution, until: NIODeadline)] = [:]
    private var lastChannel: UInt32 = 0
    /// Answers are not kept longer, so that a changed alias is soon seen.
    private static let cacheTime = TimeAmount.seconds(2)
    private static let cacheCountMax = 4_096
    private static let timeLimit = TimeAmount.seconds(30)
    /// An alias that leads to more than so many recipients is not expanded.
    private static let targetCountMax = 10_000
    private static let stepCountMax = 10_000

    init(on eventLoop: any EventLoop) { self.eventLoop = eventLoop }

    func connect(_ ends: LinkEnds) {
        self.link?.close()
        self.link = Link(ends, program: "apus-queue", receiver: self, on: self.eventLoop)
    }

    /// Forgets what it knew: the settings have changed.
    func forget() { self.cache.removeAll() }

    /// Answers at once, or later.
    func resolve(_ path: ForwardPath, _ meaning: PathMeaning, _ answer: @escaping (Resolution) -> Void) {
        let subject = Subject(path: path, meaning: meaning)
        if let known = self.cache[subject] {
            if known.until > .now() { return answer(known.resolution) }
            self.cache[subject] = nil
        }
        if self.waiting[subject] != nil {
            self.waiting[subject]?.append(answer)
            return
        }
        guard let link = self.link, !link.isClosed else { return answer(.later) }
        repeat { self.lastChannel &+= 1 } while self.lastChannel == 0 || self.questions[self.lastChannel] != nil
        let channel = self.lastChannel
        self.waiting[subject] = [answer]
        var question = Question(subject: subject)
        question.timeout = self.eventLoop.assumeIsolated().scheduleTask(in: Self.timeLimit) {
            self.settle(channel, .later)
        }
        self.questions[channel] = question
        link.send { AskQuestion.resolve(path, meaning).append(to: &$0, channel: channel) }
    }

    /// Answers with the steps of the way, at once or later.
    func explain(_ path: ForwardPath, _ answer: @escaping (Explanation) -> Void) {
        guard let link = self.link, !link.isClosed else {
            return answer(Explanation(steps: [], resolution: .later, reason: Array("apus-lookup is not running".utf8)))
        }
        repeat { self.lastChannel &+= 1 } while self.lastChannel == 0 || self.questions[self.lastChannel] != nil
        let channel = self.lastChannel
        var question = Question(subject: Subject(path: path, meaning: .address))
        question.explained = answer
        question.timeout = self.eventLoop.assumeIsolated().scheduleTask(in: Self.timeLimit) {
            self.settle(channel, .later)
        }
        self.questions[channel] = question
        link.send { AskQuestion.explain(path).append(to: &$0, channel: channel) }
    }

    private func settle(_ channel: UInt32, _ resolution: Resolution) {
        guard let question = self.questions.removeValue(forKey: channel) else { return }
        question.timeout?.cancel()
        if let explained = question.explained {
            return explained(Explanation(steps: question.steps, resolution: resolution, reason: question.reason))
        }
        switch resolution {
        case .targets:
            if self.cache.count >= Self.cacheCountMax { self.cache.removeAll(keepingCapacity: true) }
            self.cache[question.subject] = (resolution, .now() + Self.cacheTime)
        case .unknown, .later: break
        }
        for answer in self.waiting.removeValue(forKey: question.subject) ?? [] { answer(resolution) }
    }

    // MARK: - The link

    func linkOpened(_ link: Link, hello: Hello) {}

    func linkReceived(_ frame: Frame, from link: Link) {
        do throws(FrameFault) {
            // An answer that comes after its time limit belongs to nobody.
            let answer = try AskAnswer(frame)
            guard let question = self.questions[frame.channel] else { return }
            switch answer {
            case .target(let path, let route):
                guard route != .bounce, question.targets.count < Self.targetCountMax else {
                    throw FrameFault(.outOfPlace, .target)
                }
                self.questions[frame.channel]?.targets.append(Resolution.Target(forwardPath: path, route: route))
            case .resolved(let count):
                guard count == question.targets.count, count > 0 else { throw FrameFault(.badField, .resolved) }
                self.settle(frame.channel, .targets(question.targets))
            case .unknown(let status, let text):
                guard status.statusClass == .permanent else { throw FrameFault(.badField, .unknown) }
                self.settle(frame.channel, .unknown(status, text: text))
            case .later(let text):
                self.questions[frame.channel]?.reason = text
                self.settle(frame.channel, .later)
            case .step(let kind, let subject, let text, let place):
                guard question.explained != nil, question.steps.count < Self.stepCountMax else {
                    throw FrameFault(.outOfPlace, .step)
                }
                self.questions[frame.channel]?.steps.append(
                    Explanation.Step(kind: kind, subject: subject, text: text, place: place))
            case .local, .remote: throw FrameFault(.outOfPlace, frame.verb)
            }
        } catch {
            link.close(because: error)
        }
    }

    func linkClosed(_ link: Link) {
        // A link that was replaced has no questions of its own left.
        guard self.link === link else { return }
        self.link = nil
        for channel in self.questions.keys.sorted() { self.settle(channel, .later) }
    }
}
