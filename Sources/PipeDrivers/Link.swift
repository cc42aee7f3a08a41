// SPDX-License-Identifier: Apache-2.0
//
// One pair of pipes on an event loop, with frames cut, checked and gathered.

import ChannelOutlet
package import NIOCore
import NIOPosix
package import PipeCore
package import Unix

/// Who uses a link. Everything is called on the link's event loop.
package protocol LinkReceiver: AnyObject {
    /// The other side has said hello; frames follow.
    func linkOpened(_ link: Link, hello: Hello)
    func linkReceived(_ frame: Frame, from link: Link)
    /// The other side has ended its output: no frame comes any more. Of a link that was made to answer behind its input only. True
    /// if there are answers that are owed; the receiver closes the link then. Otherwise it is closed.
    func linkInputEnded(_ link: Link) -> Bool
    /// The other side takes octets again, after `Link.isWritable` was false.
    func linkBecameWritable(_ link: Link)
    /// The link is gone: the other side closed it, a frame was bad (that is logged already), or `close` was called.
    /// Called exactly once, also if the link never opened.
    func linkClosed(_ link: Link)
}

extension LinkReceiver {
    package func linkInputEnded(_ link: Link) -> Bool { false }

    package func linkBecameWritable(_ link: Link) {}
}

/// One connection to another program: a pair of pipes, or a socket, on an event loop.
///
/// What is sent during a turn of the event loop goes out in one write at the end of the turn.
package final class Link {
    package let ends: LinkEnds
    package let eventLoop: any EventLoop
    /// What the other side said of itself; nil until it has.
    package private(set) var hello: Hello?
    package private(set) var isClosed = false

    private weak var receiver: (any LinkReceiver)?
    private var channel: (any Channel)?
    private var outlet: ChannelOutlet?
    private var decoder = FrameDecoder()
    private var pending: [UInt8] = []
    private var isFlushScheduled = false
    /// A bad frame has ended it; what follows that frame means nothing.
    private var isFaulted = false
    private let unreadOctetCountMax: Int

    /// The receiver stops being writable above so many octets that the other side has not taken.
    package static let unwrittenOctetCountMax = 1_048_576
    /// So many octets of answers may wait for one who asks on. No answers to honest questions come to so much unread, and
    /// who does not read must not fill our memory.
    package static let unreadAnswerOctetCountMax = 16 << 20

    /// Takes the descriptors over and says hello. To be called on the event loop.
    ///
    /// - Parameters:
    ///   - capacity: how many channels we bear at once (pipes.md §1).
    ///   - unaskedOctetCountMax: content of a delivery that we take unasked.
    ///   - unreadOctetCountMax: the link ends at a frame that comes while the other side has left more than so many
    ///     octets unread. What is sent without being asked for ends nothing.
    ///   - answersBehindInput: whether the end of the input is told (`linkInputEnded`) instead of ending the link.
    package init(
        _ ends: LinkEnds, program: String, capacity: UInt32 = 0, unaskedOctetCountMax: UInt32 = 0,
        unreadOctetCountMax: Int = .max, answersBehindInput: Bool = false, receiver: any LinkReceiver,
        on eventLoop: any EventLoop
    ) {
        eventLoop.preconditionInEventLoop()
        self.unreadOctetCountMax = unreadOctetCountMax
        self.ends = ends
        self.eventLoop = eventLoop
        self.receiver = receiver
        let hello = Hello(
            ends.dialect, program: program, capacity: capacity, unaskedOctetCountMax: unaskedOctetCountMax)
        self.send { hello.append(to: &$0) }
        self.open(answersBehindInput)
    }

    private func open(_ answersBehindInput: Bool) {
        var output = self.ends.output
        do throws(SystemError) {
            // A socket serves both directions; each direction owns a descriptor of its own.
            if output == self.ends.input { output = try output.duplicate() }
        } catch {
            self.fail("open", error.text)
            self.eventLoop.assumeIsolated().execute { self.ended() }
            return
        }
        let handler = LinkHandler(self)
        let bound = NIOLoopBound(self, eventLoop: self.eventLoop)
        let boundHandler = NIOLoopBound(handler, eventLoop: self.eventLoop)
        NIOPipeBootstrap(group: self.eventLoop)
            .channelOption(ChannelOptions.recvAllocator, value: FixedSizeRecvByteBufferAllocator(capacity: 65_536))
            .channelOption(
                ChannelOptions.writeBufferWaterMark,
                value: .init(low: Self.unwrittenOctetCountMax / 2, high: Self.unwrittenOctetCountMax)
            )
            .channelOption(ChannelOptions.allowRemoteHalfClosure, value: answersBehindInput)
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(boundHandler.value)
                }
            }
            .takingOwnershipOfDescriptors(input: self.ends.input.number, output: output.number)
            .whenComplete { result in
                switch result {
                case .success(let channel): bound.value.opened(channel, boundHandler.value.outlet)
                case .failure(let error):
                    bound.value.fail("open", "\(error)")
                    bound.value.ended()
                }
            }
    }

    private func opened(_ channel: any Channel, _ outlet: ChannelOutlet?) {
        guard !self.isClosed else {
            channel.close(promise: nil)
            return
        }
        self.channel = channel
        self.outlet = outlet
        self.flush()
    }

    /// Encodes frames to be sent at the end of this turn.
    package func send(_ encode: (inout [UInt8]) -> Void) {
        guard !self.isClosed else { return }
        encode(&self.pending)
        guard !self.isFlushScheduled, self.channel != nil else { return }
        self.isFlushScheduled = true
        self.eventLoop.assumeIsolated().execute { self.flush() }
    }

    /// Whether the other side keeps up. If not, wait for `linkBecameWritable` before sending content.
    package var isWritable: Bool {
        (self.channel?.isWritable ?? true) && self.pending.count < Self.unwrittenOctetCountMax
    }

    /// Octets that were sent and that the other side has not taken.
    private var unwrittenOctetCount: Int { self.pending.count + (self.outlet?.waitingOctetCount ?? 0) }

    private func flush() {
        self.isFlushScheduled = false
        guard let outlet = self.outlet, !self.pending.isEmpty, !self.isClosed else { return }
        // Why out of our hands: writing may end the link, which clears what is pending.
        var octets: [UInt8] = []
        swap(&octets, &self.pending)
        let wasFull = octets.count >= Self.unwrittenOctetCountMax
        outlet.write(octets.span)
        octets.removeAll(keepingCapacity: octets.capacity <= 262_144)
        if self.pending.isEmpty { swap(&octets, &self.pending) }
        // Who has found the link full may wait, and the channel tells nothing of what never had to wait in it.
        if wasFull, self.isWritable, !self.isClosed { self.receiver?.linkBecameWritable(self) }
    }

    /// Sends what waits, then closes; `linkClosed` follows.
    package func close() {
        guard !self.isClosed else { return }
        self.flush()
        if let channel = self.channel { channel.close(promise: nil) } else { self.ended() }
    }

    /// Closes because of something the other side did; says so in the log.
    package func close(because fault: FrameFault) {
        self.fail("frame", fault.text)
        self.isFaulted = true
        self.close()
    }

    /// The other side goes on and does not read.
    private func closeUnread() {
        self.fail("unread", "\(self.unwrittenOctetCount) octets wait to be read")
        self.isFaulted = true
        self.close()
    }

    private func fail(_ kind: String, _ reason: String) {
        var line = LogLine("link-fault")
        line.add("peer", self.ends.peer)
        line.add("dialect", self.ends.dialect.rawValue)
        line.add("kind", kind)
        line.add("reason", reason)
        line.write()
    }

    fileprivate func read(_ buffer: ByteBuffer) {
        self.decoder.append(buffer.readableBytesUInt8Span)
        do throws(FrameFault) {
            while !self.isClosed, let frame = try self.decoder.next() {
                guard self.unwrittenOctetCount <= self.unreadOctetCountMax else { return self.closeUnread() }
                if self.hello == nil {
                    let hello = try Hello(frame)
                    guard hello.dialect == self.ends.dialect else { throw FrameFault(.badField, .hello) }
                    self.hello = hello
                    self.receiver?.linkOpened(self, hello: hello)
                } else {
                    self.receiver?.linkReceived(frame, from: self)
                }
            }
        } catch {
            self.close(because: error)
        }
    }

    fileprivate func writabilityChanged(_ isWritable: Bool) {
        if isWritable { self.receiver?.linkBecameWritable(self) }
    }

    /// The other side has ended its output: all that could come has come.
    fileprivate func inputEnded() {
        guard !self.isClosed, self.receiver?.linkInputEnded(self) != true else { return }
        self.close()
    }

    fileprivate func ended() {
        guard !self.isClosed else { return }
        self.isClosed = true
        if !self.isFaulted, self.decoder.isInsideFrame { self.fail("cut", "the other side ended inside a frame") }
        self.channel = nil
        self.outlet = nil
        self.pending = []
        self.ends.tellEnd()
        self.receiver?.linkClosed(self)
    }
}

/// Carries octets between the channel and its link, and nothing else.
private final class LinkHandler: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    private let link: Link
    fileprivate private(set) var outlet: ChannelOutlet?

    init(_ link: Link) { self.link = link }

    func handlerAdded(context: ChannelHandlerContext) { self.outlet = ChannelOutlet(context) }

    func handlerRemoved(context: ChannelHandlerContext) { self.outlet = nil }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        self.link.read(Self.unwrapInboundIn(data))
    }

    func channelWritabilityChanged(context: ChannelHandlerContext) {
        self.link.writabilityChanged(context.channel.isWritable)
    }

    func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
        if case ChannelEvent.inputClosed? = event as? ChannelEvent { self.link.inputEnded() }
    }

    func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }

    func channelInactive(context: ChannelHandlerContext) { self.link.ended() }
}
