// SPDX-License-Identifier: Apache-2.0
//
// One connection to a server, around a ClientSession. The session decides, this carries it out: octets in and out,
// content asked for as fast as the server takes it, and the deadline of what is being waited for.

import ChannelOutlet
package import MailTypes
package import NIOCore
import NIOPosix
package import SMTPCore
package import TLSEngine
import Unix

/// One connection to one server, for any number of messages.
package final class ClientConnection: ChannelInboundHandler {
    package typealias InboundIn = ByteBuffer
    package typealias OutboundOut = ByteBuffer

    /// Octets of content that are asked for at once.
    private static let wantOctetCount = 131_072
    /// Above this many octets that the kernel has not taken, no more are asked for.
    private static let unwrittenOctetCountMax = 65_536

    /// The user's own number for it.
    package let number: UInt64
    package let peerName: [UInt8]

    private let timeLimits: ClientTimeLimits
    private let eventLoop: any EventLoop
    private unowned let user: any ClientConnectionUser
    private var session: ClientSession
    /// Until it is used.
    private var encryption: ClientEncryption?
    /// What the handshake has agreed on; nil in plain text.
    package private(set) var tls: TLSSummary?
    private var parser: ReplyParser
    private var channel: (any Channel)?
    /// Nil before the connection is there, and under TLS.
    private var outlet: ChannelOutlet?
    private var isConnecting = true
    private var isClosed = false

    // What is told to the user at the end of an event, so that all replies of one read are heard first.
    private var isReadyToTell = false
    /// A challenge, or nil within for the beginning.
    private var proofToTell: [UInt8]??
    private var conclusionToTell: ClientSession.Conclusion?

    // The content under way.
    private var encoder = DataEncoder()
    private var encoded: [UInt8] = []
    private var contentOctetCount: UInt64 = 0
    private var providedOctetCount: UInt64 = 0
    private var wantedEnd: UInt64 = 0
    /// Of content under TLS: octets that the kernel has not taken.
    private var encryptedOctetCount = 0

    /// When what is waited for is given up; nil while only our own side is waited for.
    package private(set) var deadline: NIODeadline?

    /// - Parameters:
    ///   - hasMissedTLS: whether a handshake with the server has just failed, and this is the attempt without it.
    ///   - user: must outlive the connection.
    package init(
        number: UInt64, peerName: [UInt8], helloName: [UInt8], timeLimits: ClientTimeLimits,
        replyLimits: ReplyParser.Limits, encryption: ClientEncryption?, hasMissedTLS: Bool, isAuthenticating: Bool,
        isLMTP: Bool, user: any ClientConnectionUser, eventLoop: any EventLoop
    ) {
        self.number = number
        self.peerName = peerName
        self.timeLimits = timeLimits
        self.user = user
        self.eventLoop = eventLoop
        self.encryption = encryption
        self.session = ClientSession(
            helloName: helloName, peerName: peerName, encryption: encryption?.kind ?? .none,
            hasMissedTLS: hasMissedTLS, isAuthenticating: isAuthenticating, isLMTP: isLMTP)
        self.parser = ReplyParser(limits: replyLimits)
    }

    /// Whether a message can be begun.
    package var isReady: Bool { self.session.isReady && !self.isClosed }
    /// Whether the final dot is under way, so that only the answer is missing.
    package var isAwaitingFinalReply: Bool { self.session.stage == .finalReply }
    /// Whether the connection was lost to a TLS handshake that failed.
    package var hasHandshakeFailed: Bool { self.session.hasHandshakeFailed }
    package var transactionCount: Int { self.session.transactionCount }
    package var capabilities: Capabilities { self.session.capabilities }

    /// Connects; `connectionBecameReady`, or `connectionConcluded` with a failure, follows.
    package func connect(to address: IPAddress, port: UInt16) {
        let bound = NIOLoopBound(self, eventLoop: self.eventLoop)
        do {
            let target = try SocketAddress(client: address, port: port)
            self.bootstrap(bound).connect(to: target).whenFailure { bound.value.connectFailed($0) }
        } catch {
            // Why not at once: the user expects no answer before `connect` has returned.
            self.eventLoop.assumeIsolated().execute { bound.value.connectFailed(error) }
        }
    }

    /// The same with a socket in the file system; reading its path takes no time.
    package func connect(toSocket path: String) {
        let bound = NIOLoopBound(self, eventLoop: self.eventLoop)
        self.bootstrap(bound).connect(unixDomainSocketPath: path).whenFailure { error in
            // Why not at once: the user expects no answer before this has returned.
            bound.value.eventLoop.assumeIsolated().execute { bound.value.connectFailed(error) }
        }
    }

    private func bootstrap(_ bound: NIOLoopBound<ClientConnection>) -> ClientBootstrap {
        ClientBootstrap(group: self.eventLoop)
            .connectTimeout(TimeAmount(self.timeLimits.connection))
            .channelOption(ChannelOptions.recvAllocator, value: FixedSizeRecvByteBufferAllocator(capacity: 4_096))
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(bound.value)
                }
            }
    }

    private func connectFailed(_ error: any Error) {
        guard !self.isClosed, self.isConnecting else { return }
        let reason: String =
            switch error {
            case let error as IOError: SystemError("connect", code: error.errnoCode).text
            case ChannelError.connectTimeout: "connect: the host did not answer in time"
            default: "connect: \(error)"
            }
        self.conclusionToTell = ClientSession.Conclusion(
            verdicts: [],
            failure: DeliveryOutcome(
                .deferred, code: 0, status: EnhancedStatus(.transient, 4, 1), reporter: self.peerName,
                text: Array(reason.utf8)))
        self.tell()
        self.ended()
    }

    /// What we say of who we are.
    package func prove(_ proof: ClientSession.Proof) {
        guard !self.isClosed else { return }
        self.perform(self.session.receive(.proved(proof)))
        self.settle()
    }

    /// Sends a message; `connectionConcluded` follows. Only while `isReady`.
    package func begin(_ transaction: ClientSession.Transaction) {
        self.contentOctetCount = transaction.octetCount
        self.perform(self.session.receive(.begin(transaction)))
        self.settle()
    }

    /// Takes the next octets of what was wanted. False, and nothing is taken, if they are more than that.
    package func provide(_ octets: ArraySlice<UInt8>) -> Bool {
        guard UInt64(octets.count) <= self.wantedEnd - self.providedOctetCount else { return false }
        guard self.session.stage == .content, !octets.isEmpty else { return true }
        self.providedOctetCount += UInt64(octets.count)
        self.encoded.removeAll(keepingCapacity: true)
        self.encoder.encode(octets, into: &self.encoded)
        if self.providedOctetCount == self.contentOctetCount {
            self.finishContent()
        } else {
            self.writeContent()
            if self.providedOctetCount == self.wantedEnd { self.wantMore() }
        }
        return true
    }

    /// Says QUIT if that can be said, and closes.
    package func quit() {
        self.perform(self.session.receive(.quit))
        self.settle()
    }

    /// Closes at once, whatever is under way; a message without its final dot is not accepted by anybody.
    package func abandon() {
        guard !self.isClosed else { return }
        if let channel = self.channel { channel.close(promise: nil) } else { self.ended() }
    }

    /// To be called every second or oftener: gives up what has lasted too long.
    package func checkTime(_ now: NIODeadline) {
        guard let deadline = self.deadline, deadline <= now, !self.isClosed else { return }
        if self.session.stage == .idle, self.session.isReady {
            self.quit()
            return
        }
        self.perform(self.session.receive(.timedOut))
        self.settle()
    }

    // MARK: Events of the channel

    package func channelActive(context: ChannelHandlerContext) {
        self.isConnecting = false
        // The user may have given up meanwhile.
        guard !self.isClosed else {
            context.close(promise: nil)
            return
        }
        self.channel = context.channel
        if self.encryption?.kind != .implicit {
            self.outlet = ChannelOutlet(context) { [weak self] in self?.contentProgressed() }
        }
        self.perform(self.session.receive(.connected))
        self.settle()
    }

    package func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        let buffer = Self.unwrapInboundIn(data)
        let octets = buffer.readableBytesUInt8Span
        var index = 0
        var isWhole = false
        do throws(ReplyFault) {
            while !self.isClosed, let reply = try self.parser.next(octets, from: &index) {
                isWhole = true
                self.perform(self.session.receive(.replied(reply)))
                // What came in clear text behind the answer to STARTTLS may be somebody else's, and would be taken for
                // answers under TLS.
                if self.session.stage == .handshake, index < octets.count {
                    self.perform(self.session.receive(.handshakeFailed("the server sent something before it")))
                    break
                }
            }
        } catch {
            isWhole = true
            self.perform(self.session.receive(.replyFaulted(error, self.parser.broken)))
        }
        // A part of a reply is no word: octets that drip do not buy time.
        if isWhole { self.settle() }
    }

    package func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        guard let event = event as? TLSEvent else { return context.fireUserInboundEventTriggered(event) }
        switch event {
        case .established(let summary):
            self.tls = summary
            self.perform(self.session.receive(.secured))
        case .failed(let error):
            self.perform(self.session.receive(.handshakeFailed(error.text)))
        }
        self.settle()
    }

    package func channelInactive(context: ChannelHandlerContext) {
        guard !self.isClosed else { return }
        self.perform(self.session.receive(.disconnected))
        self.tell()
        self.ended()
    }

    package func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }

    // MARK: Actions

    private func perform(_ action: ClientSession.Action) {
        switch action {
        case .wait: break
        case .send(let octets): self.write(octets)
        case .startTLS: self.startTLS()
        case .seekProof: self.proofToTell = .some(nil)
        case .passChallenge(let challenge): self.proofToTell = .some(challenge)
        case .announceReady: self.isReadyToTell = true
        case .sendContent:
            self.encoder = DataEncoder()
            self.providedOctetCount = 0
            self.wantedEnd = 0
            // The next word is ours.
            self.deadline = nil
            self.encoded.removeAll(keepingCapacity: true)
            if self.contentOctetCount == 0 { self.finishContent() } else { self.wantMore() }
        case .conclude(let conclusion): self.conclusionToTell = conclusion
        case .close: self.abandon()
        }
    }

    private func startTLS() {
        guard let channel = self.channel, let encryption = self.encryption else { return self.abandon() }
        self.encryption = nil
        self.outlet = nil
        do {
            let engine = try TLSEngine(
                client: encryption.context, serverName: encryption.serverName, names: encryption.names,
                address: encryption.address, session: encryption.session)
            let handler = TLSHandler(engine, isClient: true, keepSession: encryption.keepSession)
            try channel.pipeline.syncOperations.addHandler(handler, position: .first)
        } catch {
            let text = (error as? TLSError)?.text ?? "\(error)"
            self.perform(self.session.receive(.handshakeFailed(text)))
        }
    }

    /// After every event: the new deadline, then the user. While content goes out, `setContentDeadline` has the say.
    private func settle() {
        let stage = self.session.stage
        if stage != .content { self.deadline = .now() + TimeAmount(self.timeLimits[stage]) }
        self.tell()
    }

    private func tell() {
        if let challenge = self.proofToTell {
            self.proofToTell = nil
            if let challenge {
                self.user.connectionWasChallenged(self, challenge)
            } else {
                self.user.connectionWantsProof(self)
            }
        }
        if self.isReadyToTell {
            self.isReadyToTell = false
            if self.isReady { self.user.connectionBecameReady(self) }
        }
        if let conclusion = self.conclusionToTell {
            self.conclusionToTell = nil
            self.user.connectionConcluded(self, conclusion)
        }
    }

    private func ended() {
        guard !self.isClosed else { return }
        self.isClosed = true
        self.channel = nil
        self.outlet = nil
        self.deadline = nil
        self.user.connectionClosed(self)
    }

    private func write(_ octets: [UInt8]) {
        if let outlet = self.outlet { outlet.write(octets.span) } else { self.encrypt(octets, promise: nil) }
    }

    /// Writes through the channel, and so through TLS.
    private func encrypt(_ octets: [UInt8], promise: EventLoopPromise<Void>?) {
        guard let channel = self.channel else {
            promise?.fail(ChannelError.ioOnClosedChannel)
            return
        }
        var buffer = channel.allocator.buffer(capacity: octets.count)
        buffer.writeBytes(octets)
        channel.writeAndFlush(buffer, promise: promise)
    }

    // MARK: Content

    private func wantMore() {
        guard self.unwrittenOctetCount <= Self.unwrittenOctetCountMax, self.session.stage == .content,
            self.wantedEnd < self.contentOctetCount
        else { return }
        let count = min(UInt64(Self.wantOctetCount), self.contentOctetCount - self.wantedEnd)
        let offset = self.wantedEnd
        self.wantedEnd += count
        self.user.connectionWantsContent(self, offset: offset, octetCount: Int(count))
    }

    /// Writes what is encoded, and counts it until the kernel has taken it.
    private func writeContent() {
        if self.outlet != nil {
            self.write(self.encoded)
        } else {
            let count = self.encoded.count
            self.encryptedOctetCount += count
            let promise = self.eventLoop.makePromise(of: Void.self)
            promise.futureResult.assumeIsolated().whenComplete { _ in
                self.encryptedOctetCount -= count
                self.contentProgressed()
            }
            self.encrypt(self.encoded, promise: promise)
        }
        self.setContentDeadline()
    }

    /// Content that the kernel has not taken.
    private var unwrittenOctetCount: Int { self.outlet?.waitingOctetCount ?? self.encryptedOctetCount }

    /// The server has taken a part of what waited.
    private func contentProgressed() {
        guard self.session.stage == .content, !self.isClosed else { return }
        self.setContentDeadline()
        if self.providedOctetCount == self.wantedEnd { self.wantMore() }
    }

    /// The server has its time as long as octets wait for it.
    private func setContentDeadline() {
        self.deadline = self.unwrittenOctetCount > 0 ? .now() + TimeAmount(self.timeLimits.content) : nil
    }

    private func finishContent() {
        self.encoder.finish(into: &self.encoded)
        self.write(self.encoded)
        if self.encoded.capacity > 2 * Self.unwrittenOctetCountMax { self.encoded = [] }
        self.perform(self.session.receive(.contentSent))
        self.deadline = .now() + TimeAmount(self.timeLimits.finalReply)
    }
}

extension TimeAmount {
    fileprivate init(_ duration: Duration) {
        let (seconds, attoseconds) = duration.components
        self = .seconds(seconds) + .nanoseconds(attoseconds / 1_000_000_000)
    }
}

extension SocketAddress {
    /// The address of a peer that a client connects to.
    init(client address: IPAddress, port: UInt16) throws {
        var packed = ByteBuffer()
        switch address {
        case .v4(let bits): packed.writeInteger(bits)
        case .v6(let high, let low):
            packed.writeInteger(high)
            packed.writeInteger(low)
        }
        try self.init(packedIPAddress: packed, port: Int(port))
    }
}
