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

    /// Whether `[::]` in that list leaves IPv4 to another listener of the same port.
    private static func isDualStack(_ address: SocketAddress, among others: [SocketAddress]) -> Bool {
        guard case .v6 = address.address, address.address.isUnspecified else { return false }
        return !others.contains { other in
            guard other.port == address.port, case .v4 = other.address else { return false }
            return true
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
