// SPDX-License-Identifier: Apache-2.0
//
// One SMTP connection on an event loop. It feeds the octets that come to the pure session and carries out what
// that decides. It decides nothing about mail itself; it knows about reading, writing and waiting.

import ChannelOutlet
package import MailTypes
package import NIOCore
package import SMTPCore
import TLSEngine

/// The handler of a client's connection; with TLS, a `TLSHandler` is in front of it.
///
/// Replies to a batch of pipelined commands go out in one write, when the batch is used up. An answer that is
/// still awaited holds the earlier replies of its batch back: the client waits for all of them anyway.
package final class ServerConnection: ChannelInboundHandler {
    package typealias InboundIn = ByteBuffer
    package typealias OutboundOut = ByteBuffer

    package let client: IPAddress
    private let terms: ServerTerms
    private let register: ServerRegister
    private var intake: (any ServerIntake)?
    private var session: ServerSession
    private var standing: ServerSession.Standing { self.session.standing }
    private var input: ServerInput
    /// Until it is used.
    private var encryption: TLSServerContext?
    /// While its handshake is under way.
    private var engine: TLSEngine?
    private var context: ChannelHandlerContext?
    /// Nil before the connection is there, and under TLS.
    private var outlet: ChannelOutlet?
    /// What has come and is not used yet; nil for an idle connection.
    private var inbound: ByteBuffer?
    /// Replies that are not sent yet; nil for an idle connection.
    private var outbound: ByteBuffer?
    /// Where the register keeps us.
    var place: Int?
    /// The tick of the last command, of the last octets of content, or of the question that is awaited. Octets of a
    /// command that is not complete do not count: one now and then would keep a session for ever.
    private var lastTick: UInt32
    /// Octets of content by which the client is behind `contentRateMin`, in the time that it was waited for.
    private var contentDebt = 0
    private var state: State = []

    private struct State: OptionSet {
        let rawValue: UInt8
        static let isGreeted = State(rawValue: 1)
        /// The loop over the input is running: whoever wants it to run need not start it.
        static let isAdvancing = State(rawValue: 2)
        /// No read was asked for, because too much waits.
        static let isReadHeld = State(rawValue: 4)
        static let isStopping = State(rawValue: 8)
        /// The last reply is out; what still comes is dropped until the client closes.
        static let isLingering = State(rawValue: 16)
        static let isAborted = State(rawValue: 32)
        /// A read was asked for and nothing has come since: to ask again would do nothing, at the price of asking.
        static let isReadAsked = State(rawValue: 64)
        /// The client sends no more, and may still read.
        static let isInputEnded = State(rawValue: 128)
    }

    /// More than so many octets that wait are not read on top of.
    private static let inboundOctetCountMax = 65_536
    /// More than so many octets of replies are sent before the batch is used up.
    private static let outboundOctetCountMax = 16_384
    private static let lineEnd: [UInt8] = [13, 10]
    /// How long a client has to read the reply that closes its session.
    private static let lingerTickCount: UInt32 = 3

    /// - Parameter intake: must call nothing of the connection before `channelActive`.
    package init(
        client: IPAddress, terms: ServerTerms, encryption: ServerEncryption, register: ServerRegister,
        intake: any ServerIntake
    ) {
        self.client = client
        self.terms = terms
        self.register = register
        self.intake = intake
        self.session = ServerSession(rules: terms.rules, tls: encryption.kind)
        self.encryption = encryption.context
        self.input = ServerInput(
            limits: terms.rules.limits, repairsBareLineFeeds: terms.rules.repairsBareLineFeeds)
        self.lastTick = register.tick
    }

    // MARK: Events of the channel

    package func handlerAdded(context: ChannelHandlerContext) {
        self.context = context
        // Why not when the channel is active: a batch of connections is accepted before the first of them is, and each
        // has to count against the limits of the next.
        self.place = self.register.add(self)
    }

    package func handlerRemoved(context: ChannelHandlerContext) {
        self.finish(by: nil)
        self.context = nil
        self.outlet = nil
    }

    package func channelActive(context: ChannelHandlerContext) {
        self.lastTick = self.register.tick
        if self.standing == .securing {
            self.startTLS(context)
            return self.readOn()
        }
        self.outlet = ChannelOutlet(context)
        self.readOn()
        if self.terms.greetingDelay > .zero {
            context.eventLoop.assumeIsolated().scheduleTask(in: self.terms.greetingDelay) { self.greet() }
        } else {
            self.greet()
        }
    }

    private func greet() {
        guard self.standing != .closed, !self.state.contains(.isGreeted) else { return }
        self.state.insert(.isGreeted)
        self.perform(self.session.receive(.connected))
        self.advance()
    }

    package func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        self.state.remove(.isReadAsked)
        guard self.standing != .closed else { return }
        guard self.standing != .securing else { return }
        guard self.state.contains(.isGreeted) else {
            self.perform(self.session.receive(.spokenTooSoon))
            return self.flush()
        }
        var octets = Self.unwrapInboundIn(data)
        if self.input.isInContent, self.standing != .asking {
            self.lastTick = self.register.tick
            self.contentDebt = max(self.contentDebt - octets.readableBytes, 0)
        }
        if self.inbound == nil { self.inbound = octets } else { self.inbound?.writeBuffer(&octets) }
        self.advance()
    }

    package func channelReadComplete(context: ChannelHandlerContext) {
        self.readOn()
    }

    package func channelWritabilityChanged(context: ChannelHandlerContext) {
        if context.channel.isWritable { self.advance() }
    }

    package func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        if event as? ChannelEvent == .inputClosed { return self.endInput(context) }
        guard let event = event as? TLSEvent else { return context.fireUserInboundEventTriggered(event) }
        switch event {
        case .established(let summary):
            guard self.standing == .securing else { return }
            self.lastTick = self.register.tick
            self.perform(self.session.receive(.secured))
            if let engine = self.engine { self.intake?.secured(summary) { engine.bindings } }
            self.engine = nil
            // Over implicit TLS the greeting is still to come.
            if self.state.contains(.isGreeted) { self.advance() } else { self.greet() }
        case .failed(let error):
            if self.standing == .securing { self.intake?.handshakeFailed(error.text) }
            self.perform(self.session.receive(.handshakeFailed))
        }
    }

    /// The client has closed its direction. Whoever does that behind its last command or the final dot still gets every
    /// reply: it would send the message again if it did not hear of the first.
    private func endInput(_ context: ChannelHandlerContext) {
        self.state.insert(.isInputEnded)
        guard self.state.contains(.isGreeted), self.standing == .open || self.standing == .asking else {
            return context.close(promise: nil)
        }
        self.advance()
    }

    package func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }

    package func channelInactive(context: ChannelHandlerContext) { self.finish(by: nil) }

    // MARK: What the intake calls

    /// Whether a question waits for its answer.
    package var isAsking: Bool { self.standing == .asking }

    /// Answers the question that the intake left open.
    package func conclude(_ verdict: ServerSession.Verdict) {
        guard self.standing != .closed else { return }
        self.lastTick = self.register.tick
        self.perform(self.session.receive(.verdict(verdict)))
        self.advance()
    }

    /// Answers the question about the client's credentials with what it has to be shown.
    package func challenge(_ octets: [UInt8]) {
        guard self.standing != .closed else { return }
        self.lastTick = self.register.tick
        self.perform(self.session.receive(.challenged(octets)))
        self.advance()
    }

    /// There is room for content again.
    package func resume() { self.advance() }

    // MARK: What the register calls

    /// Ends the session as soon as no mail is under way.
    func stop() {
        self.state.insert(.isStopping)
        guard self.state.contains(.isGreeted) || self.standing == .securing else {
            self.context?.close(promise: nil)
            return
        }
        self.advance()
    }

    /// Looks whether something has taken too long.
    func checkTime(_ tick: UInt32) {
        let elapsed = TimeAmount.nanoseconds(Int64(tick &- self.lastTick) * ServerRegister.tickLength.nanoseconds)
        if self.state.contains(.isInputEnded), self.standing == .open { self.advance() }
        if self.state.contains(.isLingering) {
            if tick &- self.lastTick >= Self.lingerTickCount { self.context?.close(promise: nil) }
        } else if self.standing == .asking {
            guard elapsed > self.terms.answerTimeout, let intake = self.intake else { return }
            self.conclude(intake.overdue())
        } else if self.standing == .securing {
            guard elapsed > self.terms.handshakeTimeout else { return }
            self.intake?.handshakeFailed("the client did not complete the TLS handshake in time")
            self.perform(self.session.receive(.idleLimitReached))
        } else if elapsed > (self.input.isInContent ? self.terms.dataTimeout : self.terms.commandTimeout)
            || self.isDragging()
        {
            self.perform(self.session.receive(.idleLimitReached))
            self.flush()
        }
    }

    /// Whether the content comes so slowly that it would keep the session for days; asked with each tick. Only while the client
    /// is what we wait for: how slow our own programs are is not its fault.
    private func isDragging() -> Bool {
        guard self.terms.contentRateMin > 0, self.input.isInContent, self.state.contains(.isReadAsked),
            let intake = self.intake, intake.contentCredit > 0
        else { return false }
        self.contentDebt += self.terms.contentRateMin
        return self.contentDebt > self.terms.contentDebtMax
    }

    // MARK: The loop over the input

    /// Uses up what has come, as far as no answer, no room and no octets are missing.
    private func advance() {
        guard !self.state.contains(.isAdvancing), self.context != nil else { return }
        self.state.insert(.isAdvancing)
        defer { self.state.remove(.isAdvancing) }

        var isHungry = self.inbound == nil
        if let buffer = self.inbound {
            self.inbound = nil
            let usedCount = self.use(buffer, isHungry: &isHungry)
            if self.standing != .closed { self.keep(buffer, from: usedCount) }
            if self.inbound == nil { self.register.receiveBuffer.bringBack(buffer) }
        }
        if self.standing == .asking { return }
        if self.state.contains(.isStopping), self.standing != .closed {
            self.perform(self.session.receive(.stopRequested))
        }
        self.flush()
        if self.state.contains(.isInputEnded), isHungry, self.standing == .open {
            // What the kernel has not taken of the replies would be lost; the next tick of the clock looks again.
            if (self.outlet?.waitingOctetCount ?? 0) == 0 { self.context?.close(promise: nil) }
            return
        }
        self.readOn()
    }

    /// Feeds the session; how many octets were used.
    ///
    /// - Parameter isHungry: set if nothing but octets is missing.
    private func use(_ buffer: ByteBuffer, isHungry: inout Bool) -> Int {
        let octets = buffer.readableBytesUInt8Span
        var index = 0
        while self.standing == .open, let intake = self.intake {
            // A client that does not read its replies gets no more of them. One read can ask for a megabyte of help.
            if let count = self.outbound?.readableBytes, count > Self.outboundOctetCountMax { self.flush() }
            if self.isClogged { break }
            let credit = self.input.isInContent ? intake.contentCredit : 0
            switch self.input.next(octets, at: &index, contentCountMax: credit) {
            case .command(let command):
                self.lastTick = self.register.tick
                self.obey(command, isFollowed: index < octets.count)
            case .commandFault(let fault):
                self.lastTick = self.register.tick
                self.perform(self.session.receive(.commandFaulted(fault)))
            case .response(let range):
                self.lastTick = self.register.tick
                let line = range.map { octets[$0] }
                self.perform(self.session.receive(.responseReceived(line, isFollowed: index < octets.count)))
            case .responseFault(let fault):
                self.lastTick = self.register.tick
                self.perform(self.session.receive(.responseFaulted(fault)))
            case .content(let range):
                if range.isEmpty { return index }
                intake.takeContent(octets.extracting(range))
            case .contentLineEnd:
                intake.takeContent(Self.lineEnd.span)
            case .contentEnd(let octetCount):
                self.perform(self.session.receive(.contentEnded(octetCount: octetCount)))
            case .contentFault(let fault):
                self.perform(self.session.receive(.contentFaulted(fault)))
            case .hungry:
                self.abandonEarly()
                isHungry = true
                return index
            }
        }
        return index
    }

    private func obey(_ command: Command, isFollowed: Bool) {
        switch command {
        case .hello(let name): self.intake?.greeted(name, isExtended: false)
        case .extendedHello(let name):
            self.intake?.greeted(name, isExtended: true)
            self.session.authentication = self.intake?.authenticationOffer ?? AuthenticationOffer()
        case .authenticate: self.session.authentication = self.intake?.authenticationOffer ?? AuthenticationOffer()
        case .mail, .recipient, .data, .reset, .noOperation, .quit, .verify, .expand, .help, .startTLS: break
        }
        self.perform(self.session.receive(.commandReceived(command, isFollowed: isFollowed)))
    }

    /// Content that is refused already is not carried on to its end: what was taken of it is given up at once.
    private func abandonEarly() {
        guard self.input.isContentFaulted, !self.state.contains(.isAborted) else { return }
        self.state.insert(.isAborted)
        self.intake?.abandon()
    }

    /// Keeps what was not used. A few octets do not keep a large buffer alive.
    private func keep(_ buffer: ByteBuffer, from usedCount: Int) {
        let restCount = buffer.readableBytes - usedCount
        guard restCount > 0 else { return }
        var rest = buffer
        rest.moveReaderIndex(forwardBy: usedCount)
        if rest.storageCapacity > 4 * restCount {
            var small = ByteBufferAllocator().buffer(capacity: restCount)
            small.writeBuffer(&rest)
            rest = small
        } else {
            rest.discardReadBytes()
        }
        self.inbound = rest
    }

    private var isClogged: Bool { !(self.context?.channel.isWritable ?? false) }

    private func readOn() {
        guard self.state.isDisjoint(with: [.isReadAsked, .isInputEnded]), let context = self.context,
            (self.inbound?.readableBytes ?? 0) < Self.inboundOctetCountMax
        else { return }
        self.state.insert(.isReadAsked)
        context.read()
    }

    // MARK: Carrying out

    private func perform(_ first: ServerSession.Action) {
        var action = first
        while true {
            let verdict: ServerSession.Verdict?
            switch action {
            case .wait: return
            case .reply(let reply): return self.write(reply)
            case .abandonThenReply(let reply):
                self.intake?.abandon()
                return self.write(reply)
            case .replyThenClose(let reply):
                self.write(reply)
                return self.close(after: reply)
            case .close:
                self.context?.close(promise: nil)
                return
            case .startTLS(let reply):
                self.write(reply)
                self.flush()
                if let context = self.context { self.startTLS(context) }
                return
            case .receiveResponse(let reply):
                self.input.beginResponse()
                return self.write(reply)
            case .giveUpCredentialsThenReply(let reply):
                self.intake?.giveUpCredentials()
                return self.write(reply)
            case .receiveContent(let reply):
                self.state.remove(.isAborted)
                self.contentDebt = 0
                self.input.beginContent()
                return self.write(reply)
            case .checkSender(let path, let parameters): verdict = self.intake?.checkSender(path, parameters)
            case .checkRecipient(let path, let dsn): verdict = self.intake?.checkRecipient(path, dsn)
            case .verify(let path): verdict = self.intake?.verify(path)
            case .authenticate(let mechanism, let response):
                verdict = self.intake?.authenticate(mechanism, initialResponse: response)
            case .respond(let response): verdict = self.intake?.respond(response)
            case .commit(let octetCount): verdict = self.intake?.commit(octetCount: octetCount)
            }
            guard let verdict else {
                self.lastTick = self.register.tick
                return
            }
            action = self.session.receive(.verdict(verdict))
        }
    }

    /// From here on the client's octets are those of its handshake. None of what it has sent before is left: a session whose
    /// client sent more behind STARTTLS is closed.
    private func startTLS(_ context: ChannelHandlerContext) {
        guard let encryption = self.encryption else { return context.close(promise: nil) }
        self.encryption = nil
        self.outlet = nil
        self.lastTick = self.register.tick
        do {
            let engine = try TLSEngine(server: encryption)
            self.engine = engine
            let handler = TLSHandler(engine, isClient: false)
            try context.pipeline.syncOperations.addHandler(handler, position: .first)
        } catch {
            self.intake?.handshakeFailed("\(error)")
            self.perform(self.session.receive(.handshakeFailed))
        }
    }

    private func write(_ reply: Reply) {
        if reply.isRefusal { self.intake?.refused(reply) }
        if self.outbound == nil { self.outbound = self.register.replyBuffer.take(capacity: 0) }
        self.outbound?.writeBytes(reply.octets)
    }

    /// - Parameter isLast: the channel is closed right behind it.
    private func flush(isLast: Bool = false) {
        guard let octets = self.outbound, let context = self.context else { return }
        self.outbound = nil
        if let outlet = self.outlet {
            outlet.write(octets.readableBytesUInt8Span, isLast: isLast)
        } else {
            context.writeAndFlush(Self.wrapOutboundOut(octets), promise: nil)
        }
        self.register.replyBuffer.bringBack(octets)
    }

    /// Sends the last reply and closes.
    ///
    /// Closing while octets of the client are unread would reset the connection, and the client might never see
    /// the reply. After QUIT there are none; otherwise our direction is closed first, and the client is given
    /// a moment to close its own.
    private func close(after reply: Reply) {
        if reply.code != 221 || !self.session.isSecured { self.flush(isLast: reply.code == 221) }
        self.finish(by: reply)
        guard let context = self.context else { return }
        if reply.code == 221 {
            // Under TLS the reply and the farewell go out together.
            if let octets = self.outbound { context.write(Self.wrapOutboundOut(octets), promise: nil) }
            self.outbound = nil
            context.close(promise: nil)
        } else {
            self.state.insert(.isLingering)
            self.lastTick = self.register.tick
            context.close(mode: .output, promise: nil)
        }
    }

    /// The end of the session, however it came; the channel may live a moment longer.
    private func finish(by reply: Reply?) {
        if self.standing != .closed { _ = self.session.receive(.disconnected) }
        if let intake = self.intake {
            self.intake = nil
            intake.abandon()
            intake.ended(by: reply)
        }
        self.inbound = nil
        guard let place = self.place, reply == nil else { return }
        self.place = nil
        self.register.remove(at: place)
    }
}
