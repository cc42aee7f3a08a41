// SPDX-License-Identifier: Apache-2.0
//
// The sockets of a StubResolver: datagrams from ports that the kernel chose, and TCP for long answers.

package import DNSCore
import MailTypes
package import NIOCore
import NIOPosix

/// Who asks. Called on the resolver's event loop, for answers from the cache from within `ask`.
package protocol ResolverUser: AnyObject {
    func resolverAnswered(_ answer: DNSAnswer, to question: DNSQuestion, asker: UInt64)
}

/// Asks resolvers over the network, and remembers what they said.
package final class Resolver {
    /// How often time limits are looked at.
    private static let tick = TimeAmount.milliseconds(200)

    private let servers: [ResolverAddress]
    private let streamTime: Duration
    private let eventLoop: any EventLoop
    private weak var user: (any ResolverUser)?
    private var core: StubResolver
    private var random = SystemRandomNumberGenerator()
    private var isTickScheduled = false
    /// By resolver and port, opened when first used.
    private var ports: [[ResolverPort?]]

    /// - Precondition: `servers` is not empty.
    package init(
        servers: [ResolverAddress], limits: StubResolver.Limits, user: any ResolverUser, eventLoop: any EventLoop
    ) {
        self.servers = servers
        self.streamTime = limits.attemptTime
        self.eventLoop = eventLoop
        self.user = user
        self.core = StubResolver(serverCount: servers.count, limits: limits)
        self.ports = Array(repeating: Array(repeating: nil, count: limits.portCount), count: servers.count)
    }

    /// Monotonic, so that a clock set back makes no answer eternal.
    private var now: Timestamp { Timestamp(microseconds: NIODeadline.now().uptimeNanoseconds / 1_000) }

    /// Asks; the answer comes with the same `asker`, perhaps before this returns.
    package func ask(_ question: DNSQuestion, asker: UInt64) { self.feed(.asked(question, asker: asker)) }

    /// Closes the sockets; what is under way is not answered any more.
    package func close() {
        self.user = nil
        for port in self.ports.joined() { port?.close() }
    }

    fileprivate func feed(_ event: StubResolver.Event) {
        // Why: after the end a tick or a stream may still come, and would open sockets that nobody closes.
        guard self.user != nil else { return }
        let actions = self.core.receive(event, now: self.now, random: &self.random)
        for action in actions {
            switch action {
            case .sendDatagram(let octets, let server, let port): self.send(octets, server, port)
            case .exchangeByStream(let octets, let server, let exchange):
                ResolverStream.exchange(
                    octets, with: self.servers[server], time: self.streamTime, on: self.eventLoop
                ) { answer in
                    self.feed(
                        answer.map { .streamAnswered($0, exchange: exchange) } ?? .streamFailed(exchange: exchange))
                }
            case .answer(let answer, let question, let asker):
                self.user?.resolverAnswered(answer, to: question, asker: asker)
            }
        }
        guard self.core.isBusy, !self.isTickScheduled, self.user != nil else { return }
        self.isTickScheduled = true
        self.eventLoop.assumeIsolated().scheduleTask(in: Self.tick) {
            self.isTickScheduled = false
            self.feed(.timePassed)
        }
    }

    private func send(_ octets: [UInt8], _ server: Int, _ number: Int) {
        let port: ResolverPort
        if let open = self.ports[server][number], !open.isClosed {
            port = open
        } else {
            port = ResolverPort(self, server: server, number: number)
            self.ports[server][number] = port
            port.open(to: self.servers[server], on: self.eventLoop)
        }
        port.send(octets)
    }
}

/// One UDP socket, connected to one resolver so that the kernel drops what others send.
private final class ResolverPort: ChannelInboundHandler {
    typealias InboundIn = AddressedEnvelope<ByteBuffer>
    typealias OutboundOut = AddressedEnvelope<ByteBuffer>

    private weak var resolver: Resolver?
    private let server: Int
    private let number: Int
    private var channel: (any Channel)?
    private var remote: SocketAddress?
    /// Sent while the socket was being opened. The time limits of the questions bound it.
    private var pending: [[UInt8]] = []
    private(set) var isClosed = false

    init(_ resolver: Resolver, server: Int, number: Int) {
        self.resolver = resolver
        self.server = server
        self.number = number
    }

    func open(to server: ResolverAddress, on eventLoop: any EventLoop) {
        let bound = NIOLoopBound(self, eventLoop: eventLoop)
        guard let remote = try? SocketAddress(client: server.address, port: server.port) else {
            self.isClosed = true
            return
        }
        self.remote = remote
        DatagramBootstrap(group: eventLoop)
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(bound.value)
                }
            }
            .connect(to: remote)
            .whenComplete { result in
                switch result {
                case .success(let channel): bound.value.opened(channel)
                case .failure: bound.value.isClosed = true
                }
            }
    }

    private func opened(_ channel: any Channel) {
        guard !self.isClosed else {
            channel.close(promise: nil)
            return
        }
        self.channel = channel
        let pending = self.pending
        self.pending = []
        for octets in pending { self.send(octets) }
    }

    func send(_ octets: [UInt8]) {
        guard let channel = self.channel, let remote = self.remote else {
            if !self.isClosed { self.pending.append(octets) }
            return
        }
        channel.writeAndFlush(AddressedEnvelope(remoteAddress: remote, data: ByteBuffer(bytes: octets)), promise: nil)
    }

    func close() {
        self.isClosed = true
        self.channel?.close(promise: nil)
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        let octets = Array(Self.unwrapInboundIn(data).data.readableBytesView)
        self.resolver?.feed(.datagramReceived(octets, server: self.server, port: self.number))
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) {
        // "Connection refused" of an earlier datagram: the time limit of its question deals with it.
    }

    func channelInactive(context: ChannelHandlerContext) {
        self.isClosed = true
        self.channel = nil
    }
}

/// One question and its answer over TCP (RFC 1035 §4.2.2: two octets of length first).
private final class ResolverStream: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    private let query: [UInt8]
    private var received = ByteBuffer()
    private var report: (([UInt8]?) -> Void)?

    private init(_ query: [UInt8], _ report: @escaping ([UInt8]?) -> Void) {
        self.query = query
        self.report = report
    }

    /// - Parameter report: called once with the answer, or with nil if there is none.
    static func exchange(
        _ query: [UInt8], with server: ResolverAddress, time: Duration, on eventLoop: any EventLoop,
        _ report: @escaping ([UInt8]?) -> Void
    ) {
        let stream = ResolverStream(query, report)
        let bound = NIOLoopBound(stream, eventLoop: eventLoop)
        let limit = TimeAmount.seconds(max(time.components.seconds, 1))
        // What has not come in twice the time will not be waited for by the core either.
        eventLoop.assumeIsolated().scheduleTask(in: limit * 2) { stream.end(nil) }
        guard let remote = try? SocketAddress(client: server.address, port: server.port) else {
            eventLoop.assumeIsolated().execute { stream.end(nil) }
            return
        }
        ClientBootstrap(group: eventLoop)
            .connectTimeout(limit)
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(bound.value)
                }
            }
            .connect(to: remote)
            .whenFailure { _ in bound.value.end(nil) }
    }

    private var channel: (any Channel)?

    private func end(_ answer: [UInt8]?) {
        let report = self.report
        self.report = nil
        self.channel?.close(promise: nil)
        self.channel = nil
        report?(answer)
    }

    func channelActive(context: ChannelHandlerContext) {
        guard self.report != nil else {
            context.close(promise: nil)
            return
        }
        self.channel = context.channel
        var buffer = context.channel.allocator.buffer(capacity: self.query.count + 2)
        buffer.writeInteger(UInt16(truncatingIfNeeded: self.query.count))
        buffer.writeBytes(self.query)
        context.writeAndFlush(Self.wrapOutboundOut(buffer), promise: nil)
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        guard self.report != nil else { return }
        var buffer = Self.unwrapInboundIn(data)
        self.received.writeBuffer(&buffer)
        // The length has two octets, so that this holds at most one read beyond 64 KiB.
        guard let length = self.received.getInteger(at: self.received.readerIndex, as: UInt16.self),
            let answer = self.received.getBytes(at: self.received.readerIndex + 2, length: Int(length))
        else { return }
        self.end(answer)
    }

    func channelInactive(context: ChannelHandlerContext) { self.end(nil) }

    func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }
}
