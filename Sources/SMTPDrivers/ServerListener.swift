// SPDX-License-Identifier: Apache-2.0

import Glibc
package import MailTypes
package import NIOCore
import NIOPosix

/// A listening socket whose connections become sessions.
package final class ServerListener {
    /// Who has connected.
    package enum Origin: Hashable, Sendable {
        case network(IPAddress, port: UInt16)
        /// A process of this machine, over a socket in the file system; the user as the kernel knows him.
        case local(uid: UInt32)

        /// For counts and the log: what is local comes from this machine.
        package var address: IPAddress {
            switch self {
            case .network(let address, _): address
            case .local: .v4(0x7F00_0001)
            }
        }
    }

    /// What a new connection gets: the terms of its session and what stands behind it, or a reply that turns
    /// it away; nil: it is closed without a word, as the client would take one for a broken handshake.
    package enum Welcome {
        case session(ServerTerms, ServerEncryption, any ServerIntake & ServerConnectionHolder)
        case turnedAway(Reply?)
    }

    /// Where it listens, for the log.
    package let address: String
    private let channel: any Channel

    private init(address: String, channel: any Channel) {
        self.address = address
        self.channel = channel
    }

    /// Connections that wait to be accepted while we are busy.
    private static let backlog: CInt = 1_024

    /// Serves a socket that listens already. Everything is called on the event loop.
    package static func serve(
        descriptor: CInt, address: String, register: ServerRegister, on eventLoop: any EventLoop,
        welcome: @escaping (Origin) -> Welcome
    ) -> EventLoopFuture<ServerListener> {
        let bootstrap = Self.bootstrap(register, eventLoop, isLocal: address.hasPrefix("unix:"), welcome)
        let bound = bootstrap.withBoundSocket(descriptor).flatMapThrowing { channel in
            // NIO has set its own, smaller backlog.
            _ = Glibc.listen(descriptor, Self.backlog)
            return channel
        }
        return Self.listener(bound, address, eventLoop)
    }

    /// Opens a socket of its own, for a program that is run by hand.
    package static func bind(
        to address: SocketAddress, register: ServerRegister, on eventLoop: any EventLoop,
        welcome: @escaping (Origin) -> Welcome
    ) -> EventLoopFuture<ServerListener> {
        let bootstrap = Self.bootstrap(register, eventLoop, isLocal: false, welcome)
            .serverChannelOption(ChannelOptions.backlog, value: Self.backlog)
            .serverChannelOption(ChannelOptions.socketOption(.so_reuseaddr), value: 1)
        return Self.listener(bootstrap.bind(to: address), "\(address)", eventLoop)
    }

    private static func listener(
        _ bound: EventLoopFuture<any Channel>, _ address: String, _ eventLoop: any EventLoop
    ) -> EventLoopFuture<ServerListener> {
        bound.hop(to: eventLoop).assumeIsolated().map { ServerListener(address: address, channel: $0) }.nonisolated()
    }

    private static func bootstrap(
        _ register: ServerRegister, _ eventLoop: any EventLoop, isLocal: Bool, _ welcome: @escaping (Origin) -> Welcome
    ) -> ServerBootstrap {
        let allocator = ServerReceiveAllocator(NIOLoopBound(register.receiveBuffer, eventLoop: eventLoop))
        let door = NIOLoopBound(
            Door(register: register, allocator: allocator, welcome: welcome), eventLoop: eventLoop)
        let bootstrap = ServerBootstrap(group: eventLoop)
            // A further accept of each batch would only tell that nobody else is there; if somebody is, the next turn
            // comes at once.
            .serverChannelOption(ChannelOptions.maxMessagesPerRead, value: 1)
            .childChannelInitializer { channel in
                // Not `makeCompletedFuture`, which makes a future for each connection.
                do { try door.value.admit(channel) } catch { return channel.eventLoop.makeFailedFuture(error) }
                return channel.eventLoop.makeSucceededVoidFuture()
            }
        // Connections inherit it. Replies are written once a batch; none may wait for an acknowledgement.
        return isLocal ? bootstrap : bootstrap.serverChannelOption(ChannelOptions.tcpOption(.tcp_nodelay), value: 1)
    }

    /// Accepts no more; sessions go on.
    package func close() { self.channel.close(promise: nil) }
}

/// An intake that answers later keeps the connection to answer to.
package protocol ServerConnectionHolder: AnyObject {
    /// Set once, before anything is asked; the holder lets go of it in `ServerIntake.ended`.
    var connection: ServerConnection? { get set }
}

/// Decides about each accepted connection.
private struct Door {
    let register: ServerRegister
    let allocator: ServerReceiveAllocator
    let welcome: (ServerListener.Origin) -> ServerListener.Welcome

    func admit(_ channel: any Channel) throws {
        // Why not by the bootstrap: it would make a future of each option of each connection.
        if let options = channel.syncOptions {
            try options.setOption(ChannelOptions.autoRead, value: false)
            try options.setOption(ChannelOptions.maxMessagesPerRead, value: 1)
            try options.setOption(ChannelOptions.recvAllocator, value: self.allocator)
            try options.setOption(ChannelOptions.allowRemoteHalfClosure, value: true)
        }
        guard let origin = Self.localOrigin(channel) ?? channel.remoteAddress.flatMap(Self.origin) else {
            throw ChannelError.eof
        }
        switch self.welcome(origin) {
        case .session(let terms, let encryption, let intake):
            let connection = ServerConnection(
                client: origin.address, terms: terms, encryption: encryption, register: self.register, intake: intake)
            intake.connection = connection
            try channel.pipeline.syncOperations.addHandler(connection)
        case .turnedAway(let reply):
            self.register.noteTurnedAway()
            guard let reply else { throw ChannelError.eof }
            try channel.pipeline.syncOperations.addHandler(TurnAway(reply))
        }
    }

    /// Who is at the other end of a socket in the file system; nil if it is none.
    private static func localOrigin(_ channel: any Channel) -> ServerListener.Origin? {
        guard case .unixDomainSocket = channel.localAddress, let provider = channel as? any SocketOptionProvider else {
            return nil
        }
        // struct ucred: process, user, group. Safety: its layout is fixed, and the kernel fills in all of it.
        let credentials: EventLoopFuture<Credentials> = provider.unsafeGetSocketOption(
            level: NIOBSDSocket.OptionLevel(rawValue: SOL_SOCKET), name: NIOBSDSocket.Option(rawValue: SO_PEERCRED))
        var origin: ServerListener.Origin?
        // On the event loop the answer is there at once.
        credentials.assumeIsolated().whenSuccess { origin = .local(uid: $0.user) }
        return origin
    }

    private struct Credentials: Sendable {
        var process: Int32 = 0
        var user: UInt32 = 0
        var group: UInt32 = 0
    }

    /// The client's address and port, read from the address of the socket without a detour over text.
    private static func origin(_ address: SocketAddress) -> ServerListener.Origin? {
        // Safety: the layouts of sockaddr_in and sockaddr_in6 are fixed: the port, in network order, is at 2,
        // the address at 4 and 8; the length that comes with the pointer is checked.
        address.withSockAddr { pointer, count in
            let octets = UnsafeRawBufferPointer(start: pointer, count: count)
            switch address {
            case .v4:
                guard count >= 8 else { return nil }
                let port = UInt16(bigEndian: octets.loadUnaligned(fromByteOffset: 2, as: UInt16.self))
                let bits = UInt32(bigEndian: octets.loadUnaligned(fromByteOffset: 4, as: UInt32.self))
                return .network(.v4(bits), port: port)
            case .v6:
                guard count >= 24 else { return nil }
                let port = UInt16(bigEndian: octets.loadUnaligned(fromByteOffset: 2, as: UInt16.self))
                let high = UInt64(bigEndian: octets.loadUnaligned(fromByteOffset: 8, as: UInt64.self))
                let low = UInt64(bigEndian: octets.loadUnaligned(fromByteOffset: 16, as: UInt64.self))
                return .network(IPAddress(high: high, low: low), port: port)
            case .unixDomainSocket:
                return nil
            }
        }
    }
}

/// Says why a connection is not wanted and closes it.
private final class TurnAway: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer
    typealias OutboundOut = ByteBuffer

    private let reply: Reply

    init(_ reply: Reply) { self.reply = reply }

    func channelActive(context: ChannelHandlerContext) {
        context.writeAndFlush(Self.wrapOutboundOut(ByteBuffer(bytes: self.reply.octets)), promise: nil)
        context.close(promise: nil)
    }
}
