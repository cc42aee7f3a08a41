// SPDX-License-Identifier: Apache-2.0
//
// The socketmap protocol, by which Postfix and sendmail ask other programs: a request is the netstring of `name key`, and
// a reply that of a word and what belongs to it.

package import MailTypes

/// A table of a server that speaks socketmap, as the settings name it behind `socketmap:`.
///
/// `unix:/run/tables:users` is the table `users` of the server at that socket, `inet:127.0.0.1:9999:users` of the one at that
/// port of this machine. The protocol is neither secret nor sealed, so it is spoken within this machine alone.
package struct SocketmapPlace: Hashable, Sendable {
    /// Where the server is.
    package enum Server: Hashable, Sendable {
        case socket(path: String)
        case host(IPAddress, port: UInt16)
    }

    package let server: Server
    /// What the server calls the table.
    package let name: String

    /// The room of sun_path, without the NUL behind it.
    private static let socketOctetCountMax = 107

    /// Nil if it is none of these.
    package init?(_ text: String) {
        let octets = Array(text.utf8)
        guard let end = octets.lastIndex(of: ASCII.colon), end + 1 < octets.count,
            octets[(end + 1)...].allSatisfy({ $0 > ASCII.space && $0 < 0x7F })
        else { return nil }
        self.name = String(decoding: octets[(end + 1)...], as: UTF8.self)
        let place = octets[..<end]
        if place.starts(with: "unix:/".utf8) {
            let path = place.dropFirst(5)
            guard path.count <= Self.socketOctetCountMax, !path.contains(0) else { return nil }
            self.server = .socket(path: String(decoding: path, as: UTF8.self))
        } else if place.starts(with: "inet:".utf8) {
            guard let colon = place.lastIndex(of: ASCII.colon), colon >= place.startIndex + 5,
                let port = place[(colon + 1)...].decimal(limit: 65_535), port > 0
            else { return nil }
            var host = place[(place.startIndex + 5)..<colon]
            if host.first == 0x5B, host.last == 0x5D, host.count > 2 { host = host.dropFirst().dropLast() }
            guard let address = IPAddress(octets: host), address.isLoopback else { return nil }
            self.server = .host(address, port: UInt16(port))
        } else {
            return nil
        }
    }

    /// As it stands in the settings.
    package var text: String {
        switch self.server {
        case .socket(let path): "unix:\(path):\(self.name)"
        case .host(.v4(let bits), let port): "inet:\(IPAddress.v4(bits).text):\(port):\(self.name)"
        case .host(let address, let port): "inet:[\(address.text)]:\(port):\(self.name)"
        }
    }

    /// What is sent to ask for a key.
    package func request(_ key: [UInt8]) -> [UInt8] {
        let question = Array(self.name.utf8) + [ASCII.space] + key
        var request: [UInt8] = []
        request.append(decimal: question.count)
        return request + [ASCII.colon] + question + [0x2C]
    }
}

/// What a server of tables answers.
package enum SocketmapReply: Hashable, Sendable {
    case found([UInt8])
    case absent
    /// TEMP, TIMEOUT, PERM: it cannot be told, for a reason that is for the log.
    case failed([UInt8])

    /// Nil if the octets, those within the netstring, are no reply.
    package init?(octets: [UInt8]) {
        let end = octets.firstIndex(of: ASCII.space) ?? octets.count
        let rest = Array(octets[min(end + 1, octets.count)...])
        switch octets[..<end] {
        case let word where word.elementsEqual("OK".utf8): self = .found(rest)
        case let word where word.elementsEqual("NOTFOUND".utf8): self = .absent
        case let word where ["TEMP", "TIMEOUT", "PERM"].contains(where: { word.elementsEqual($0.utf8) }):
            self = .failed(octets)
        default: return nil
        }
    }
}

/// Takes netstrings out of a stream that is cut anywhere.
package struct NetstringDecoder: Sendable {
    /// The stream is none of netstrings, or one is longer than the limit.
    package struct Fault: Error, Hashable, Sendable {
        package init() {}
    }

    private let octetCountMax: Int
    private var pending: [UInt8] = []

    /// - Parameter octetCountMax: a longer netstring is a fault.
    package init(octetCountMax: Int) { self.octetCountMax = octetCountMax }

    /// Takes octets; `next` gives what is complete. Call `next` until it gives nothing before appending more.
    package mutating func append(_ octets: some Sequence<UInt8>) { self.pending += octets }

    /// The next netstring that has come whole.
    package mutating func next() throws(Fault) -> [UInt8]? {
        let digits = self.pending.prefix { $0.isDigit }
        let isLong = digits.count > 9 || digits.count > 1 && digits.first == 0x30
        guard !isLong, let separator = self.pending.dropFirst(digits.count).first else {
            if isLong { throw Fault() }
            return nil
        }
        guard separator == ASCII.colon, let length = digits.decimal(limit: UInt64(self.octetCountMax)) else {
            throw Fault()
        }
        let start = digits.count + 1
        let end = start + Int(length)
        guard self.pending.count > end else { return nil }
        guard self.pending[end] == 0x2C else { throw Fault() }
        let octets = Array(self.pending[start..<end])
        self.pending.removeFirst(end + 1)
        return octets
    }
}
