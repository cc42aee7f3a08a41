// SPDX-License-Identifier: Apache-2.0

import Glibc
import MailTypes
package import Unix

/// Opens the sockets that Apus listens on, and tries whether they could be opened.
package enum ListeningSocket {
    /// Connections that the kernel completes before a program takes them.
    private static let backlog: CInt = 4_096

    /// A bound TCP socket that does not listen yet.
    ///
    /// - Parameter isDualStack: `[::]` takes IPv4 as well.
    private static func bind(_ address: SocketAddress, isDualStack: Bool) throws(SystemError) -> Descriptor {
        let family: CInt = if case .v4 = address.address { AF_INET } else { AF_INET6 }
        let kind = CInt(SOCK_STREAM.rawValue) | CInt(SOCK_CLOEXEC.rawValue) | CInt(SOCK_NONBLOCK.rawValue)
        let number = socket(family, kind, 0)
        guard number >= 0 else { throw SystemError("socket", address.text) }
        let descriptor = Descriptor(number)
        do throws(SystemError) {
            // Without it a restarted server could not listen while old connections linger.
            try Self.set(number, SOL_SOCKET, SO_REUSEADDR, 1, address)
            if family == AF_INET6 {
                try Self.set(number, CInt(IPPROTO_IPV6), IPV6_V6ONLY, isDualStack ? 0 : 1, address)
            }
            guard Self.bind(number, address) == 0 else { throw SystemError("bind", address.text) }
        } catch {
            descriptor.close()
            throw error
        }
        return descriptor
    }

    private static func set(
        _ number: CInt, _ level: CInt, _ option: CInt, _ value: CInt, _ address: SocketAddress
    ) throws(SystemError) {
        var value = value
        guard setsockopt(number, level, option, &value, socklen_t(MemoryLayout<CInt>.size)) == 0 else {
            throw SystemError("setsockopt", address.text)
        }
    }

    private static func bind(_ number: CInt, _ address: SocketAddress) -> CInt {
        switch address.address {
        case .v4(let bits):
            var name = sockaddr_in()
            name.sin_family = sa_family_t(AF_INET)
            name.sin_port = address.port.bigEndian
            name.sin_addr.s_addr = bits.bigEndian
            return Self.bind(number, &name, MemoryLayout<sockaddr_in>.size)
        case .v6(let high, let low):
            var name = sockaddr_in6()
            name.sin6_family = sa_family_t(AF_INET6)
            name.sin6_port = address.port.bigEndian
            withUnsafeMutableBytes(of: &name.sin6_addr) { octets in
                octets.storeBytes(of: high.bigEndian, as: UInt64.self)
                octets.storeBytes(of: low.bigEndian, toByteOffset: 8, as: UInt64.self)
            }
            return Self.bind(number, &name, MemoryLayout<sockaddr_in6>.size)
        }
    }

    private static func bind(_ number: CInt, _ name: UnsafeRawPointer, _ size: Int) -> CInt {
        Glibc.bind(number, name.assumingMemoryBound(to: sockaddr.self), socklen_t(size))
    }

    /// Whether `[::]` takes IPv4 as well: unless that list leaves it to another listener of the same port.
    private static func isDualStack(_ address: SocketAddress, among others: some Sequence<SocketAddress>) -> Bool {
        guard case .v6 = address.address, address.address.isUnspecified else { return false }
        return !others.contains { other in
            guard other.port == address.port, case .v4 = other.address else { return false }
            return true
        }
    }

    /// Why a running Apus cannot take an address of new settings without a restart; nil if nothing is known against it.
    ///
    /// - Parameters:
    ///   - own: what it listens on now.
    ///   - others: all addresses of the new settings.
    package static func obstacle(
        to address: SocketAddress, among others: [SocketAddress], own: Set<SocketAddress>
    ) -> String? {
        if own.contains(address) {
            // Its socket is kept, so that nobody is refused meanwhile; what it takes was settled when it was bound.
            let isDualStack = Self.isDualStack(address, among: others)
            guard isDualStack != Self.isDualStack(address, among: own) else { return nil }
            let change = isDualStack ? "take IPv4 as well" : "leave IPv4 to another listener"
            return "\(address.text) would now have to \(change), which an open socket cannot begin to do"
        }
        // The old socket is closed only when all new ones are open: if one of these fails, nothing has changed.
        let obstacle = own.filter { open in
            guard Self.overlap(address, others, open, own) else { return false }
            // What overlaps in the new settings too is a mistake, which a restart does not mend.
            return !others.contains(open) || !Self.overlap(address, others, open, others)
        }.min { $0.text < $1.text }
        return obstacle.map { "\(address.text) overlaps \($0.text), on which the running Apus listens" }
    }

    /// Whether the sockets of two different addresses, each in a list that says what `[::]` takes, cannot both listen.
    private static func overlap(
        _ left: SocketAddress, _ lefts: some Sequence<SocketAddress>, _ right: SocketAddress,
        _ rights: some Sequence<SocketAddress>
    ) -> Bool {
        guard left.port == right.port else { return false }
        return switch (left.address, right.address) {
        case (.v4, .v4), (.v6, .v6): left.address.isUnspecified || right.address.isUnspecified
        case (.v6, .v4): Self.isDualStack(left, among: lefts)
        case (.v4, .v6): Self.isDualStack(right, among: rights)
        }
    }

    /// Opens a listening socket.
    ///
    /// - Parameter others: all addresses of the settings: `[::]` takes IPv4 as well, unless one of them is an IPv4
    ///   address with the same port.
    package static func open(_ address: SocketAddress, among others: [SocketAddress]) throws(SystemError) -> Descriptor
    {
        let descriptor = try Self.bind(address, isDualStack: Self.isDualStack(address, among: others))
        guard listen(descriptor.number, Self.backlog) == 0 else {
            let error = SystemError("listen", address.text)
            descriptor.close()
            throw error
        }
        return descriptor
    }

    /// Throws what `open` would throw, without taking a connection.
    package static func tryOut(_ address: SocketAddress, among others: [SocketAddress]) throws(SystemError) {
        // Why: with SO_REUSEADDR two sockets may be bound to one address as long as only one listens, so binding
        // alone tells nothing; the moment of listening is as short as can be.
        let descriptor = try Self.open(address, among: others)
        descriptor.close()
    }
}
