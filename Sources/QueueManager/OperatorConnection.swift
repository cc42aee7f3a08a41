// SPDX-License-Identifier: Apache-2.0

import LMDBQueueStore
import MailTypes
import NIOCore
import PipeCore
import PipeDrivers
import QueueCore
import Unix

/// An operator's tool with its questions (pipes.md §5). Answers of any length go out page by page, as the tool takes
/// them; the mail goes on between two pages.
final class OperatorConnection: LinkReceiver {
    unowned let manager: QueueManager
    private var link: Link?
    /// Answers that are not at their end; they wait for their next turn, for the link, or for a commit.
    private var answers: [UInt32: any LongAnswer] = [:]
    /// What the next question of a channel is limited to; or what is wrong with it.
    private var filters: [UInt32: Result<QueueFilter, QueueFilter.Fault>] = [:]

    /// Says something to whoever waits for an answer; nil while nobody does.
    private var wordTask: Scheduled<Void>?
    private static let answerCountMax = 16
    /// Between two turns of a long answer.
    ///
    /// Why: tasks that are due at once are all run before the event loop looks at its sockets again.
    private static let pause = TimeAmount.microseconds(100)

    init(_ ends: LinkEnds, _ manager: QueueManager) {
        self.manager = manager
        self.link = Link(
            ends, program: "apus-queue", unreadOctetCountMax: Link.unreadAnswerOctetCountMax, receiver: self,
            on: manager.eventLoop)
    }

    func linkOpened(_ link: Link, hello: Hello) {}

    func linkReceived(_ frame: Frame, from link: Link) {
        do throws(FrameFault) {
            if let answer = self.answers[frame.channel] {
                try answer.receive(frame)
            } else if frame.verb == .filter {
                try self.addFilter(frame)
            } else {
                try self.answer(frame, self.filters.removeValue(forKey: frame.channel) ?? .success(QueueFilter()))
            }
        } catch {
            link.close(because: error)
        }
    }

    private func addFilter(_ frame: Frame) throws(FrameFault) {
        guard frame.fieldCount.isMultiple(of: 2) else { throw FrameFault(.wrongFieldCount, .filter) }
        guard self.filters[frame.channel] != nil || self.filters.count < Self.answerCountMax else {
            throw FrameFault(.outOfPlace, .filter)
        }
        guard case .success(var filter) = self.filters[frame.channel] ?? .success(QueueFilter()) else { return }
        do throws(QueueFilter.Fault) {
            for index in stride(from: 0, to: frame.fieldCount, by: 2) { try filter.add(frame[index], frame[index + 1]) }
            self.filters[frame.channel] = .success(filter)
        } catch {
            self.filters[frame.channel] = .failure(error)
        }
    }

    private func answer(
        _ frame: Frame, _ filter: Result<QueueFilter, QueueFilter.Fault>
    ) throws(FrameFault) {
        let channel = frame.channel
        let question: Question
        switch filter {
        case .success(let filter): question = Question(self, channel, filter)
        case .failure(let fault): return self.fail(fault.text, channel)
        }
        switch frame.verb {
        case .count:
            try frame.expectFields(0)
            self.count(channel)
        case .list: try self.list(frame, question)
        case .show:
            try frame.expectFields(1)
            if let message = self.message(frame[0], channel) { self.show(message, channel) }
        case .explain: try self.explain(frame, question)
        case .check: try self.check(frame, question)
        case .export: try self.export(frame, question)
        case .import:
            try frame.expectFields(0)
            self.start(ImportAnswer(question), channel)
        case .flush, .hold, .release, .remove, .bounce, .reroute: try self.order(frame, question)
        default: throw FrameFault(.outOfPlace, frame.verb)
        }
    }

    /// The message that a field names; if there is none, that is the answer.
    func message(_ field: ArraySlice<UInt8>, _ channel: UInt32) -> StoredMessage? {
        guard let id = MessageID(octets: field) else {
            self.fail("this is not a message id", channel)
            return nil
        }
        guard let found = try? self.manager.store.message(id) else {
            self.fail("no such message in the queue", channel)
            return nil
        }
        return found
    }

    func linkBecameWritable(_ link: Link) {
        for channel in self.answers.keys.sorted() { self.answers[channel]?.step() }
    }

    func linkClosed(_ link: Link) {
        self.link = nil
        self.wordTask?.cancel()
        self.wordTask = nil
        for channel in self.answers.keys.sorted() { self.answers[channel]?.abandon() }
        self.answers = [:]
        self.filters = [:]
        self.manager.closed(self)
    }

    // MARK: - Long answers

    func start(_ answer: any LongAnswer, _ channel: UInt32) {
        guard self.answers.count < Self.answerCountMax else { return self.fail("too many questions at once", channel) }
        self.answers[channel] = answer
        self.promiseWord()
        answer.step()
    }

    /// While an answer is under way, something is said every so often: whoever waits takes silence for a program that hangs.
    private func promiseWord() {
        guard self.wordTask == nil, self.link != nil else { return }
        self.wordTask = self.manager.eventLoop.assumeIsolated().scheduleTask(in: Self.wordInterval) {
            self.wordTask = nil
            guard !self.answers.isEmpty else { return }
            if self.isWritable { for channel in self.answers.keys.sorted() { self.row(channel, []) } }
            self.promiseWord()
        }
    }

    private static let wordInterval = TimeAmount.seconds(10)

    /// Whether more can be sent; if not, the answer's `step` is called when it can.
    var isWritable: Bool { self.link?.isWritable ?? false }

    /// Calls `step` of the answer in a moment, after what has come for others meanwhile.
    func stepSoon(_ channel: UInt32) {
        self.manager.eventLoop.assumeIsolated().scheduleTask(in: Self.pause) { self.answers[channel]?.step() }
    }

    // MARK: - Frames

    func send(_ encode: (inout [UInt8]) -> Void) { self.link?.send(encode) }

    /// - Precondition: at most six pairs.
    func row(_ channel: UInt32, _ pairs: [(String, [UInt8])]) {
        self.send { octets in
            let start = octets.beginFrame(.row, channel)
            for (name, value) in pairs {
                octets.appendField(Array(name.utf8))
                octets.appendField(value)
            }
            octets.endFrame(start)
        }
    }

    /// The end of an answer.
    func end(_ count: Int, _ channel: UInt32) {
        self.forget(channel)
        self.send { $0.appendFrame(.end, channel, [.init(decimal: count)]) }
    }

    /// The end of an answer that cannot be given.
    func fail(_ text: String, _ channel: UInt32) {
        self.forget(channel)
        self.sendFailure(text, channel)
    }

    func sendFailure(_ text: String, _ channel: UInt32) {
        self.send { $0.appendFrame(.failed, channel, [Array(text.utf8.prefix(1_000))]) }
    }

    func forget(_ channel: UInt32) { self.answers[channel] = nil }
}

/// An answer that takes more than one turn of the event loop.
protocol LongAnswer: AnyObject {
    /// Does a turn's worth; called again whenever the link can take more, so it may have nothing to do.
    func step()
    /// A frame on its channel.
    func receive(_ frame: Frame) throws(FrameFault)
    /// Nobody waits for it any more.
    func abandon()
}

extension LongAnswer {
    func receive(_ frame: Frame) throws(FrameFault) { throw FrameFault(.outOfPlace, frame.verb) }

    func abandon() {}
}

/// What every answer needs.
struct Question {
    let connection: OperatorConnection
    let channel: UInt32
    let filter: QueueFilter

    init(_ connection: OperatorConnection, _ channel: UInt32, _ filter: QueueFilter) {
        self.connection = connection
        self.channel = channel
        self.filter = filter
    }

    var manager: QueueManager { self.connection.manager }

    func row(_ pairs: [(String, [UInt8])]) { self.connection.row(self.channel, pairs) }
    func end(_ count: Int) { self.connection.end(count, self.channel) }
    func fail(_ text: String) { self.connection.fail(text, self.channel) }
    func forget() { self.connection.forget(self.channel) }
    func stepSoon() { self.connection.stepSoon(self.channel) }
}

extension Array where Element == UInt8 {
    init(decimal number: some BinaryInteger) {
        self = []
        self.append(decimal: number)
    }
}
