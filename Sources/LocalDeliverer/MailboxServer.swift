// SPDX-License-Identifier: Apache-2.0

import MailTypes
import PipeCore
import Unix

/// A link with the agent that serves it in this process.
struct MailboxServer {
    private(set) var pipe: PolledPipe
    var agent: LocalAgent
    private var hasHello = false

    /// So many readings are taken together at most, before what has come is made durable.
    private static let readingCountMax = 64

    /// Takes the descriptors over and says hello with the next `serve`.
    init(_ input: Descriptor, _ output: Descriptor, rules: LocalAgent.Rules) throws(SystemError) {
        self.pipe = try PolledPipe(input: input, output: output)
        self.agent = LocalAgent(rules: rules)
        self.pipe.send { Hello(.deliver, program: "apus-local", capacity: UInt32(LocalAgent.capacity)).append(to: &$0) }
    }

    /// What goes on on the link and beside it, as `Poll` has told. To be called after every waiting.
    ///
    /// - Returns: whether the link is still there. If not, everything is closed.
    mutating func serve(isReadable: Bool) -> Bool {
        do throws(FramePipe.Fault) {
            let isEnded = isReadable ? try self.read() : false
            // What we want is asked for before the long work.
            try self.answer()
            let now = ThisProcess.uptime
            self.agent.commitIfDue(now)
            self.agent.advance(now, clock: WallClock.now())
            try self.answer()
            guard isEnded else { return true }
        } catch {
            var line = LogLine("link-fault")
            line.add("peer", "apus-queue")
            line.add("reason", error.text)
            line.write()
        }
        self.agent.abandon()
        self.pipe.close()
        return false
    }

    /// Has `poll` watch the link and what the agent waits for; how long the waiting may be, nil for as long as it takes.
    func watch(in poll: inout Poll) -> (link: LinkWatch, limit: Duration?) {
        let link = LinkWatch(self.pipe, in: &poll)
        let deadline = self.agent.watch(in: &poll)
        return (link, deadline.map { max(.zero, $0 - ThisProcess.uptime) })
    }

    /// Takes all that is there; true at the end of input.
    private mutating func read() throws(FramePipe.Fault) -> Bool {
        for _ in 0..<Self.readingCountMax {
            let progress = try self.pipe.read()
            while let frame = try self.pipe.next() {
                do throws(FrameFault) {
                    if self.hasHello {
                        try self.agent.receive(frame)
                    } else {
                        guard try Hello(frame).dialect == .deliver else { throw FrameFault(.badField, .hello) }
                        self.hasHello = true
                    }
                } catch { throw .frame(error) }
            }
            switch progress {
            case .some: continue
            case .none: return false
            case .ended: return true
            }
        }
        return false
    }

    private mutating func answer() throws(FramePipe.Fault) {
        if !self.agent.answers.isEmpty {
            let answers = self.agent.answers
            self.agent.answers = []
            self.pipe.send { $0 += answers }
        }
        try self.pipe.flush()
    }
}

/// The descriptors of a link in a `Poll`.
struct LinkWatch {
    private var reading: Int?
    private var writing: Int?

    init(_ pipe: PolledPipe, isReading: Bool = true, in poll: inout Poll) {
        if isReading { self.reading = poll.add(pipe.input, reading: true) }
        if pipe.unwrittenOctetCount > 0 { self.writing = poll.add(pipe.output, reading: false, writing: true) }
    }

    func isReadable(_ poll: Poll) -> Bool { self.reading.map { poll.isReadable($0) } ?? false }

    func isReady(_ poll: Poll) -> Bool {
        self.isReadable(poll) || (self.writing.map { poll.isWritable($0) } ?? false)
    }
}
