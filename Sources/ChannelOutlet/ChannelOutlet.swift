// SPDX-License-Identifier: Apache-2.0
//
// The way out of a channel. A channel's own way is made for whatever may happen: a queue of pending writes, a flush
// point, a promise, a registration with the selector. Nearly all that we write is a few octets that the kernel takes at
// once, and for those all of it is work for nothing: four thousand instructions for each reply to a client.

import Glibc
package import NIOCore

/// Writes octets to the socket or pipe of a channel: at once what the kernel takes, and through the channel what it does
/// not take. To be used on the event loop, by the only handler that writes to the channel.
///
/// Whoever has it must let go of it when the handler is removed.
package final class ChannelOutlet {
    private let context: ChannelHandlerContext
    private let channel: any Channel
    private let descriptor: CInt
    private let isSocket: Bool
    /// Octets that the channel has taken and the kernel has not. What is written meanwhile queues behind them.
    package private(set) var waitingOctetCount = 0
    /// Called when a part of these has gone out, or never will.
    private let progressed: (() -> Void)?

    /// - Parameter context: of the handler that writes, in a channel over a socket or a pair of pipes. With any other, all
    ///   goes through the channel.
    package init(_ context: ChannelHandlerContext, progressed: (() -> Void)? = nil) {
        self.context = context
        self.channel = context.channel
        self.progressed = progressed
        (self.descriptor, self.isSocket) = Self.output(of: context.channel) ?? (-1, false)
    }

    /// Where the octets of a channel go to. Not by the pipeline's own `withUnsafeTransportIfAvailable`: the cast in there
    /// costs more than all the writes of a session.
    private static func output(of channel: any Channel) -> (descriptor: CInt, isSocket: Bool)? {
        guard let core = channel as? any NIOTransportAccessibleChannelCore else { return nil }
        return Self.output(of: core)
    }

    private static func output(of core: some NIOTransportAccessibleChannelCore) -> (descriptor: CInt, isSocket: Bool)? {
        let output: (CInt, Bool)?? = try? core.withUnsafeTransport { transport in
            switch transport {
            case let socket as NIOBSDSocket.Handle: (socket, true)
            case let pipes as NIOBSDSocket.PipeHandle: (pipes.output, false)
            default: nil
            }
        }
        return output ?? nil
    }

    /// Writes octets behind all that were written before.
    ///
    /// - Parameter isLast: the channel is closed right behind this; the kernel sends the octets and the end in one packet.
    package func write(_ octets: Span<UInt8>, isLast: Bool = false) {
        let sentCount = self.offer(octets, isLast: isLast)
        guard sentCount < octets.count else { return }
        let restCount = octets.count - sentCount
        var rest = self.channel.allocator.buffer(capacity: restCount)
        // Safety: the pointer is used inside the closure only.
        unsafe octets.extracting(sentCount...).withUnsafeBytes { _ = unsafe rest.writeBytes($0) }
        self.waitingOctetCount += restCount
        let promise = self.context.eventLoop.makePromise(of: Void.self)
        promise.futureResult.assumeIsolated().whenComplete { _ in
            self.waitingOctetCount -= restCount
            self.progressed?()
        }
        self.context.writeAndFlush(NIOAny(rest), promise: promise)
    }

    /// How many octets the kernel takes at once. Whatever is wrong with the other side, the channel finds out with the rest.
    private func offer(_ octets: Span<UInt8>, isLast: Bool) -> Int {
        // Why active: the descriptor is the channel's as long as it is. One that is closed may be somebody else's already.
        guard self.waitingOctetCount == 0, self.descriptor >= 0, self.channel.isActive else { return 0 }
        let flags = CInt(MSG_NOSIGNAL) | (isLast ? CInt(MSG_MORE) : 0)
        // Safety: the pointer is used inside the closure only, within its bounds.
        let count = unsafe octets.withUnsafeBufferPointer { octets in
            unsafe self.isSocket
                ? Glibc.send(self.descriptor, octets.baseAddress, octets.count, flags)
                : Glibc.write(self.descriptor, octets.baseAddress, octets.count)
        }
        return max(count, 0)
    }
}
