// SPDX-License-Identifier: Apache-2.0

import ChannelOutlet
import Glibc
import NIOCore
import NIOPosix
import Testing

@Suite("The way out of a channel") struct ChannelOutletTests {
    /// What a handler of ours does: keeps the outlet between its being added and its being removed.
    private final class Writer: ChannelInboundHandler {
        typealias InboundIn = ByteBuffer
        var outlet: ChannelOutlet?
        var progressCount = 0
        var isInactive = false

        func handlerAdded(context: ChannelHandlerContext) {
            self.outlet = ChannelOutlet(context) { [unowned self] in self.progressCount += 1 }
        }
        func handlerRemoved(context: ChannelHandlerContext) { self.outlet = nil }
        func channelInactive(context: ChannelHandlerContext) { self.isInactive = true }
    }

    /// Says one thing and closes.
    private final class Farewell: ChannelInboundHandler {
        typealias InboundIn = ByteBuffer

        func channelActive(context: ChannelHandlerContext) {
            ChannelOutlet(context).write(Array("221 bye".utf8).span, isLast: true)
            context.close(promise: nil)
        }
    }

    /// A channel over one end of a socket or a pipe, and the other end.
    private func with(
        socket isSocket: Bool, _ body: (NIOLoopBound<Writer>, any Channel, CInt) throws -> Void
    ) throws {
        var ends: [CInt] = [0, 0]
        if isSocket {
            try #require(socketpair(AF_UNIX, CInt(SOCK_STREAM.rawValue), 0, &ends) == 0)
        } else {
            try #require(pipe(&ends) == 0)
            ends.swapAt(0, 1)
        }
        let (ours, theirs) = (ends[0], ends[1])
        defer { close(theirs) }
        _ = fcntl(theirs, F_SETFL, O_NONBLOCK)
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        defer { try? group.syncShutdownGracefully() }
        let loop = group.next()
        let writer = try loop.submit { NIOLoopBound(Writer(), eventLoop: loop) }.wait()
        let add: @Sendable (any Channel) -> EventLoopFuture<Void> = { channel in
            channel.eventLoop.makeCompletedFuture { try channel.pipeline.syncOperations.addHandler(writer.value) }
        }
        let channel =
            isSocket
            ? try ClientBootstrap(group: loop).channelInitializer(add).withConnectedSocket(ours).wait()
            : try NIOPipeBootstrap(group: loop).channelInitializer(add).takingOwnershipOfDescriptor(output: ours).wait()
        try body(writer, channel, theirs)
        try? channel.close().wait()
    }

    private static func read(_ descriptor: CInt, _ countMax: Int = 1 << 20) -> [UInt8] {
        [UInt8](unsafeUninitializedCapacity: countMax) { buffer, count in
            count = max(Glibc.read(descriptor, buffer.baseAddress, countMax), 0)
        }
    }

    private static let kinds = [true, false]

    @Test("what the kernel takes is with the other side before the call returns", arguments: Self.kinds)
    func atOnce(isSocket: Bool) throws {
        try self.with(socket: isSocket) { writer, channel, other in
            try channel.eventLoop.submit {
                let outlet = try #require(writer.value.outlet)
                outlet.write(Array("one ".utf8).span)
                outlet.write(Array("two".utf8).span)
                outlet.write([UInt8]().span)
                #expect(String(decoding: Self.read(other), as: UTF8.self) == "one two")
                #expect(outlet.waitingOctetCount == 0 && writer.value.progressCount == 0)
            }.wait()
        }
    }

    @Test("a slow reader gets every octet in order, and what is written meanwhile behind it", arguments: Self.kinds)
    func slowReader(isSocket: Bool) throws {
        try self.with(socket: isSocket) { writer, channel, other in
            let parts = (0..<40).map { round in (0..<50_000).map { UInt8(truncatingIfNeeded: $0 &* 31 &+ round) } }
            let waiting = try channel.eventLoop.submit {
                for part in parts { writer.value.outlet?.write(part.span) }
                return writer.value.outlet?.waitingOctetCount ?? 0
            }.wait()
            #expect(waiting > 0)
            let expected = parts.flatMap { $0 }
            var got: [UInt8] = []
            for _ in 0..<20_000 where got.count < expected.count {
                let part = Self.read(other, 70_000)
                if part.isEmpty { usleep(1_000) }
                got += part
            }
            #expect(got == expected)
            try channel.eventLoop.submit {
                #expect(writer.value.outlet?.waitingOctetCount == 0 && writer.value.progressCount > 0)
                // And from here on at once again.
                writer.value.outlet?.write([7].span)
                #expect(Self.read(other) == [7])
            }.wait()
        }
    }

    @Test("the last octets do not wait for more, and share a packet with the end of the connection")
    func last() throws {
        let group = MultiThreadedEventLoopGroup(numberOfThreads: 1)
        defer { try? group.syncShutdownGracefully() }
        let listener = try ServerBootstrap(group: group)
            .childChannelInitializer { channel in
                channel.eventLoop.makeCompletedFuture { try channel.pipeline.syncOperations.addHandler(Farewell()) }
            }
            .bind(host: "127.0.0.1", port: 0).wait()
        let client = socket(AF_INET, CInt(SOCK_STREAM.rawValue), 0)
        defer { close(client) }
        let isConnected = try #require(listener.localAddress).withSockAddr { Glibc.connect(client, $0, socklen_t($1)) }
        try #require(isConnected == 0)
        #expect(String(decoding: Self.read(client), as: UTF8.self) == "221 bye")
        #expect(Self.read(client).isEmpty)
        // Linux's struct tcp_info, of which the C library knows the beginning only; tcpi_segs_in is at 140.
        var information = [UInt32](repeating: 0, count: 64)
        var size = socklen_t(4 * information.count)
        try #require(getsockopt(client, CInt(IPPROTO_TCP), TCP_INFO, &information, &size) == 0)
        // The answer to our SYN, and the octets with the end.
        #expect(information[140 / 4] == 2)
        try listener.close().wait()
    }

    @Test("a closed channel's descriptor is not written to, whosever it is by then", arguments: Self.kinds)
    func closed(isSocket: Bool) throws {
        try self.with(socket: isSocket) { writer, channel, other in
            try channel.eventLoop.submit {
                let outlet = try #require(writer.value.outlet)
                channel.close(promise: nil)
                #expect(!channel.isActive)
                // The number is free now; these take it.
                var ends: [CInt] = [0, 0]
                try #require(pipe(&ends) == 0)
                defer { for end in ends { close(end) } }
                _ = fcntl(ends[0], F_SETFL, O_NONBLOCK)
                outlet.write(Array("stray".utf8).span)
                #expect(Self.read(ends[0]).isEmpty && Self.read(other).isEmpty)
            }.wait()
        }
    }
}
