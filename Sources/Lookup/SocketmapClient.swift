// SPDX-License-Identifier: Apache-2.0

package import LookupCore
import MailTypes
package import NIOCore
import NIOPosix
import Unix

/// Asks one server of tables. Every question is answered once, at the latest when its time is over.
///
/// A connection has one question at a time, as not every server reads on while it looks; a few connections are kept.
package final class SocketmapClient {
    /// A question until it is answered.
    fileprivate final class Question {
        let request: [UInt8]
        private var answer: ((TableFinding) -> Void)?
        let place: SocketmapPlace
        var timeout: Scheduled<Void>?
        /// It was asked on a connection that the server had given up, and is asked once more.
        var isRepeated = false

        init(_ place: SocketmapPlace, _ key: [UInt8], _ answer: @escaping (TableFinding) -> Void) {
            self.place = place
            self.request = place.request(key)
            self.answer = answer
        }

        var isAnswered: Bool { self.answer == nil }

        func settle(_ finding: TableFinding) {
            self.timeout?.cancel()
            let answer = self.answer
            self.answer = nil
            answer?(finding)
        }
    }

    private let server: SocketmapPlace.Server
    private let timeLimit: TimeAmount
    private let eventLoop: any EventLoop
    private var waiting: [Question] = []
    private var connections: [ObjectIdentifier: SocketmapConnection] = [:]
    private var isClosed = false
    /// What was said last of a server that does not answer.
    private var complaint = ""

    private static let connectionCountMax = 8
    private static let waitingCountMax = 10_000
    private static let idleTime = TimeAmount.seconds(30)

    /// - Parameter timeLimit: for each question.
    package init(_ server: SocketmapPlace.Server, timeLimit: TimeAmount, eventLoop: any EventLoop) {
        self.server = server
        self.timeLimit = timeLimit
        self.eventLoop = eventLoop
    }

    /// Asks for a key; `answer` is called later, never before this returns.
    package func ask(_ place: SocketmapPlace, _ key: [UInt8], _ answer: @escaping (TableFinding) -> Void) {
        let question = Question(place, key, answer)
        guard !self.isClosed, self.waiting.count < Self.waitingCountMax else {
            self.eventLoop.assumeIsolated().execute {
                question.settle(.unknownNow(reason: "the server of the table \(place.text) has too much to do"))
            }
            return
        }
        question.timeout = self.eventLoop.assumeIsolated().scheduleTask(in: self.timeLimit) { self.expire(question) }
        self.waiting.append(question)
        self.dispatch()
    }

    /// Answers what is under way with a failure; nothing can be asked any more.
    package func close() {
        self.isClosed = true
        self.failWaiting("the settings have changed")
        for connection in self.connections.values { connection.close() }
    }

    private func expire(_ question: Question) {
        self.waiting.removeAll { $0 === question }
        let reason = "no answer in time"
        self.complain(reason)
        // Why before the connection is closed: a question that has no answer then is asked once more, without a limit.
        question.settle(.unknownNow(reason: "the table \(question.place.text): \(reason)"))
        for connection in self.connections.values where connection.question === question { connection.close() }
    }

    private func dispatch() {
        guard !self.isClosed else { return }
        for connection in self.connections.values where connection.isIdle {
            guard !self.waiting.isEmpty else { return }
            connection.ask(self.waiting.removeFirst())
        }
        var connectingCount = self.connections.values.count(where: \.isConnecting)
        while self.connections.count < Self.connectionCountMax, connectingCount < self.waiting.count {
            let connection = SocketmapConnection(self)
            self.connections[ObjectIdentifier(connection)] = connection
            connection.connect(to: self.server, timeLimit: self.timeLimit, on: self.eventLoop)
            connectingCount += 1
        }
    }

    private func failWaiting(_ reason: String) {
        let questions = self.waiting
        self.waiting = []
        for question in questions {
            question.settle(.unknownNow(reason: "the table \(question.place.text): \(reason)"))
        }
    }

    private func complain(_ reason: String) {
        guard self.complaint != reason, !self.isClosed else { return }
        self.complaint = reason
        var line = LogLine("table-away")
        switch self.server {
        case .socket(let path): line.add("server", path)
        case .host(let address, let port): line.add("server", "[\(address.text)]:\(port)")
        }
        line.add("reason", reason)
        line.write()
    }

    // MARK: What connections say

    fileprivate func connected(_ connection: SocketmapConnection) {
        guard !self.isClosed else { return connection.close() }
        self.becameIdle(connection)
    }

    fileprivate func answered(_ connection: SocketmapConnection, _ question: Question, _ reply: SocketmapReply) {
        switch reply {
        case .found(let value): question.settle(.found(value, place: "socketmap:\(question.place.text)"))
        case .absent: question.settle(.absent)
        case .failed(let text):
            let reason = text.prefix(200).printableText
            self.complain(reason)
            question.settle(.unknownNow(reason: "the table \(question.place.text): \(reason)"))
            return self.becameIdle(connection)
        }
        self.complaint = ""
        self.becameIdle(connection)
    }

    private func becameIdle(_ connection: SocketmapConnection) {
        connection.idleEnd?.cancel()
        self.dispatch()
        guard connection.isIdle else { return }
        connection.idleEnd = self.eventLoop.assumeIsolated().scheduleTask(in: Self.idleTime) {
            if connection.isIdle { connection.close() }
        }
    }

    /// - Parameter question: what it had under way.
    fileprivate func lost(_ connection: SocketmapConnection, _ question: Question?, _ reason: String) {
        guard self.connections.removeValue(forKey: ObjectIdentifier(connection)) != nil else { return }
        connection.idleEnd?.cancel()
        if let question, !question.isAnswered {
            if connection.replyCount > 0, !question.isRepeated {
                // The server has closed a connection that it thought idle.
                question.isRepeated = true
                self.waiting.insert(question, at: 0)
            } else {
                self.complain(reason)
                question.settle(.unknownNow(reason: "the table \(question.place.text): \(reason)"))
            }
        }
        if !connection.wasConnected {
            self.complain(reason)
            // Others may still be served by those that are there.
            if !self.connections.values.contains(where: \.wasConnected) { self.failWaiting(reason) }
        }
        self.dispatch()
    }
}

/// One connection to a server of tables.
private final class SocketmapConnection: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer

    private let client: SocketmapClient
    private var channel: (any Channel)?
    private var decoder = NetstringDecoder(octetCountMax: SocketmapConnection.replyOctetCountMax)
    private(set) var question: SocketmapClient.Question?
    private(set) var isConnecting = true
    private(set) var replyCount = 0
    private(set) var wasConnected = false
    private var isClosed = false
    var idleEnd: Scheduled<Void>?

    /// As Postfix has it.
    private static let replyOctetCountMax = 100_000

    init(_ client: SocketmapClient) { self.client = client }

    var isIdle: Bool { self.channel != nil && self.question == nil && !self.isClosed }

    func connect(to server: SocketmapPlace.Server, timeLimit: TimeAmount, on eventLoop: any EventLoop) {
        let bound = NIOLoopBound(self, eventLoop: eventLoop)
        let bootstrap = ClientBootstrap(group: eventLoop)
            .connectTimeout(timeLimit)
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(bound.value)
                }
            }
        let attempt: EventLoopFuture<any Channel>
        switch server {
        case .socket(let path): attempt = bootstrap.connect(unixDomainSocketPath: path)
        case .host(let address, let port): attempt = bootstrap.connect(host: address.text, port: Int(port))
        }
        attempt.whenComplete { result in
            // Why not at once: nobody expects an answer before this has returned.
            bound.value.connected(result, bound)
        }
    }

    private func connected(_ result: Result<any Channel, any Error>, _ bound: NIOLoopBound<SocketmapConnection>) {
        bound.eventLoop.execute {
            let connection = bound.value
            connection.isConnecting = false
            switch result {
            case .success(let channel):
                guard !connection.isClosed else { return channel.close(promise: nil) }
                connection.channel = channel
                connection.wasConnected = true
                connection.client.connected(connection)
            case .failure(let error):
                let reason =
                    (error as? IOError).map { SystemError("connect", code: $0.errnoCode).text } ?? "connect: \(error)"
                connection.end(reason)
            }
        }
    }

    func ask(_ question: SocketmapClient.Question) {
        guard let channel = self.channel else { return }
        self.question = question
        channel.writeAndFlush(ByteBuffer(bytes: question.request), promise: nil)
    }

    func close() {
        self.channel?.close(promise: nil)
        self.end("closed")
    }

    private func end(_ reason: String) {
        guard !self.isClosed else { return }
        self.isClosed = true
        let question = self.question
        self.question = nil
        self.client.lost(self, question, reason)
    }

    // MARK: ChannelInboundHandler

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        let buffer = self.unwrapInboundIn(data)
        guard !self.isClosed else { return }
        self.decoder.append(buffer.readableBytesView)
        do throws(NetstringDecoder.Fault) {
            while !self.isClosed, let octets = try self.decoder.next() {
                // A reply that nobody has asked for could be taken for the next one's.
                guard let question = self.question, let reply = SocketmapReply(octets: octets) else {
                    throw NetstringDecoder.Fault()
                }
                self.question = nil
                self.replyCount += 1
                self.client.answered(self, question, reply)
            }
        } catch {
            self.end("its answer is none of socketmap")
            context.close(promise: nil)
        }
    }

    func channelInactive(context: ChannelHandlerContext) { self.end("the server has closed the connection") }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        self.end((error as? IOError).map { SystemError("read", code: $0.errnoCode).text } ?? "\(error)")
        context.close(promise: nil)
    }
}
