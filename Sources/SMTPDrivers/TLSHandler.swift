// SPDX-License-Identifier: Apache-2.0
//
// TLS in the pipeline of a connection, of a server or a client: ciphertext towards the network, plain text towards the
// session. All that TLS is, is in the engine.

import ChannelOutlet
import NIOCore
package import TLSEngine

/// What the handler tells the session behind it, as a user event.
package enum TLSEvent: Sendable {
    case established(TLSSummary)
    /// The handshake has failed, or a record was not as it must be. The connection is closed after this.
    case failed(TLSError)
}

/// The first handler of a connection that is encrypted. Reads go on by themselves until there is something for the session.
final class TLSHandler: ChannelDuplexHandler {
    typealias InboundIn = ByteBuffer
    typealias InboundOut = ByteBuffer
    typealias OutboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    private let engine: TLSEngine
    /// A client begins.
    private let isClient: Bool
    /// Called with a session that the server gives, for the next connection.
    private let keepSession: ((TLSSession) -> Void)?
    private var outlet: ChannelOutlet?
    /// Of writes that the kernel has not taken all of.
    private var promises: [EventLoopPromise<Void>] = []
    /// The session has asked for octets and has got none since.
    private var isReadOwed = false
    /// A read was put off until the other side takes what we have sent.
    private var isReadHeld = false
    /// Octets that records asked for since the other side has last taken all that we have sent.
    private var answerOctetCount = 0
    /// Far more than any session asks for.
    private static let answerOctetCountMax = 65_536
    private var isTold = false
    private var isInputOver = false
    private var isOver = false

    init(_ engine: TLSEngine, isClient: Bool, keepSession: ((TLSSession) -> Void)? = nil) {
        self.engine = engine
        self.isClient = isClient
        self.keepSession = keepSession
    }

    func handlerAdded(context: ChannelHandlerContext) {
        self.outlet = ChannelOutlet(context) { [weak self] in self?.fulfilPromises() }
        // A session that asked for octets before it was encrypted asks for these.
        self.isReadOwed = true
        guard self.isClient, context.channel.isActive else { return }
        self.begin(context)
    }

    func handlerRemoved(context: ChannelHandlerContext) {
        self.outlet = nil
        let promises = self.promises
        self.promises = []
        for promise in promises { promise.fail(ChannelError.ioOnClosedChannel) }
    }

    func channelActive(context: ChannelHandlerContext) {
        if self.isClient { self.begin(context) }
        context.fireChannelActive()
    }

    private func begin(_ context: ChannelHandlerContext) {
        do throws(TLSError) { try self.engine.start() } catch { return self.fail(error, context) }
        self.sendOutput()
    }

    // MARK: Coming in

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        guard !self.isOver else { return }
        let ciphertext = Self.unwrapInboundIn(data)
        var plaintext: ByteBuffer?
        var fault: TLSError?
        ciphertext.withUnsafeReadableBytes { octets in
            do throws(TLSError) {
                try self.engine.receive(octets) { part in
                    if plaintext == nil {
                        plaintext = context.channel.allocator.buffer(
                            capacity: max(part.count, min(ciphertext.readableBytes, 65_536)))
                    }
                    plaintext?.writeBytes(part)
                }
            } catch { fault = error }
        }
        if let flood = self.countAnswers() { fault = fault ?? flood }
        // What follows the end of the handshake is for later; it goes out with the greeting, or with an answer.
        let isIdle = self.engine.state == .established && !self.isTold && self.engine.isLastFlightIdle
        if let session = self.engine.takeSession() { self.keepSession?(session) }
        self.tellEstablished(context)
        if let plaintext, !self.isOver {
            self.isReadOwed = false
            context.fireChannelRead(Self.wrapInboundOut(plaintext))
        }
        // Why last: what the session has to say goes out in the same write.
        if !isIdle { self.sendOutput() }
        if let fault { return self.fail(fault, context) }
        if self.engine.state == .ended, !self.isOver { self.end(context) }
    }

    /// Some records are answered (a new key): whoever sends them and does not take the answers could make these pile up. Reads of
    /// a server are held then (`readOn`); a client reads on, as it must hear what is said while it sends.
    private func countAnswers() -> TLSError? {
        guard let outlet = self.outlet, outlet.waitingOctetCount > 0 else {
            self.answerOctetCount = 0
            return nil
        }
        self.answerOctetCount += self.engine.outputOctetCount
        guard self.answerOctetCount > Self.answerOctetCountMax else { return nil }
        return TLSError("the other side does not take the answers that it asks for")
    }

    private func tellEstablished(_ context: ChannelHandlerContext) {
        guard !self.isTold, let summary = self.engine.summary, self.engine.state != .failed else { return }
        self.isTold = true
        context.fireUserInboundEventTriggered(TLSEvent.established(summary))
    }

    /// The other side has said that it sends no more. A server that says so has nothing to say; a client may wait for replies.
    private func end(_ context: ChannelHandlerContext) {
        guard !self.isInputOver else { return }
        self.isInputOver = true
        if self.isClient {
            self.isOver = true
            context.close(promise: nil)
        } else {
            context.fireUserInboundEventTriggered(ChannelEvent.inputClosed)
        }
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        guard event as? ChannelEvent == .inputClosed else { return context.fireUserInboundEventTriggered(event) }
        guard !self.isOver else { return }
        do throws(TLSError) { try self.engine.receiveEnd() } catch { return self.fail(error, context) }
        self.end(context)
    }

    private func fail(_ error: TLSError, _ context: ChannelHandlerContext) {
        guard !self.isOver else { return }
        self.isOver = true
        // The alert, so that the other side knows why.
        self.sendOutput()
        context.fireUserInboundEventTriggered(TLSEvent.failed(error))
        context.close(promise: nil)
    }

    func channelReadComplete(context: ChannelHandlerContext) {
        context.fireChannelReadComplete()
        self.readOn(context)
    }

    /// A read that brought no plain text is none for the session, which will not ask again.
    private func readOn(_ context: ChannelHandlerContext) {
        guard self.isReadOwed, !self.isOver else { return }
        // Why: some records are answered (a new key), and whoever does not take the answers could make them pile up.
        guard context.channel.isWritable else {
            self.isReadHeld = true
            return
        }
        self.isReadHeld = false
        context.read()
    }

    func channelWritabilityChanged(context: ChannelHandlerContext) {
        if self.isReadHeld { self.readOn(context) }
        context.fireChannelWritabilityChanged()
    }

    func channelInactive(context: ChannelHandlerContext) {
        if !self.isOver {
            self.isOver = true
            do throws(TLSError) { try self.engine.receiveEnd() } catch {
                context.fireUserInboundEventTriggered(TLSEvent.failed(error))
            }
        }
        context.fireChannelInactive()
    }

    func read(context: ChannelHandlerContext) {
        self.isReadOwed = true
        context.read()
    }

    // MARK: Going out

    func write(context: ChannelHandlerContext, data: NIOAny, promise: EventLoopPromise<Void>?) {
        let plaintext = Self.unwrapOutboundIn(data)
        var fault: TLSError?
        plaintext.withUnsafeReadableBytes { octets in
            do throws(TLSError) { try self.engine.send(octets) } catch { fault = error }
        }
        if let fault {
            promise?.fail(fault)
        } else if let promise {
            self.promises.append(promise)
        }
    }

    func flush(context: ChannelHandlerContext) { self.sendOutput() }

    /// Hands over what the engine has put out.
    ///
    /// - Parameter isLast: the channel is closed right behind it.
    private func sendOutput(isLast: Bool = false) {
        // Safety: the octets are looked at during the call only, and any are octets.
        if let outlet = self.outlet {
            self.engine.takeOutput { octets in
                unsafe outlet.write(octets.bindMemory(to: UInt8.self).span, isLast: isLast)
            }
        }
        self.fulfilPromises()
    }

    /// Tells who wrote that it is out, once it is.
    private func fulfilPromises() {
        guard !self.promises.isEmpty, self.outlet?.waitingOctetCount == 0 else { return }
        let promises = self.promises
        self.promises = []
        for promise in promises { promise.succeed() }
    }

    func close(context: ChannelHandlerContext, mode: CloseMode, promise: EventLoopPromise<Void>?) {
        if mode != .input, context.channel.isActive {
            self.engine.close()
            self.sendOutput(isLast: mode == .all)
        }
        context.close(mode: mode, promise: promise)
    }
}
