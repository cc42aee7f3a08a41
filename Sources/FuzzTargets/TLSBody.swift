// SPDX-License-Identifier: Apache-2.0

import TLSEngine

/// A client and a server of ours with a hostile wire between them: what is on its way is cut, lost, put in another order,
/// changed, mixed with the fuzzer's own octets, or comes to its end.
struct TLSBody {
    /// Made for this purpose; nobody believes it.
    private static let pem = """
        -----BEGIN CERTIFICATE-----
        MIIBnjCCAUSgAwIBAgIUC02FGV3F3TdUO5w0DNQJHFipLhEwCgYIKoZIzj0EAwIw
        FzEVMBMGA1UEAwwMZnV6ei5leGFtcGxlMCAXDTI2MTEyNDEyNTUxNFoYDzIxMjYx
        MDMxMTI1NTE0WjAXMRUwEwYDVQQDDAxmdXp6LmV4YW1wbGUwWTATBgcqhkjOPQIB
        BggqhkjOPQMBBwNCAASIfz5Izy6qJQO2OH58+HLNXr0tpEJ2oXnu3WV8TAZ6GtgN
        d1Sxh33jEwteT6NWs+0+8Qj/W1LFI0y65lgDYrF3o2wwajAdBgNVHQ4EFgQUPRM+
        w1kdvooJWcDChI+Aro7g53kwHwYDVR0jBBgwFoAUPRM+w1kdvooJWcDChI+Aro7g
        53kwDwYDVR0TAQH/BAUwAwEB/zAXBgNVHREEEDAOggxmdXp6LmV4YW1wbGUwCgYI
        KoZIzj0EAwIDSAAwRQIhAL/JOEKNp0hbSsfGkBSNdy/0RVolKh0+HnwXRAeTIu5Z
        AiA7oy6iz40VpOW5fjkNxYCcbOY4eiJELWE0oma9HYNAAw==
        -----END CERTIFICATE-----
        -----BEGIN PRIVATE KEY-----
        MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgOwUMh+RRorZyrYxl
        I92cJct3WL+vQRoVcXzzpgQyalihRANCAASIfz5Izy6qJQO2OH58+HLNXr0tpEJ2
        oXnu3WV8TAZ6GtgNd1Sxh33jEwteT6NWs+0+8Qj/W1LFI0y65lgDYrF3
        -----END PRIVATE KEY-----
        """

    private let client: TLSEngine
    private let server: TLSEngine
    private var toServer: [[UInt8]] = []
    private var toClient: [[UInt8]] = []
    private var saidByClient: [UInt8] = []
    private var saidByServer: [UInt8] = []
    private var heardByServer: [UInt8] = []
    private var heardByClient: [UInt8] = []

    static func run(_ octets: [UInt8]) throws(Breach) {
        var body: TLSBody
        do throws(TLSError) {
            body = try TLSBody(minimum: octets.first == 1 ? .tls13 : .tls12)
        } catch {
            throw Breach(text: "no world to fuzz: \(error.text)")
        }
        for octet in octets.dropFirst().prefix(400) { body.step(octet, octets) }
        try body.judge()
    }

    private init(minimum: TLSVersion) throws(TLSError) {
        let pem = Array(Self.pem.utf8)
        let tickets = TLSTicketKeys()
        tickets.replace([Array(repeating: 7, count: TLSTicketKeys.octetCount)])
        let context = try TLSServerContext(
            [try TLSCredential(chain: pem, key: pem)], minimum: minimum, tickets: tickets, asksForCertificate: false)
        self.client = try TLSEngine(client: try TLSClientContext(), serverName: "fuzz.example", names: [])
        self.server = try TLSEngine(server: context)
        try self.client.start()
    }

    /// One thing that happens; the low bits say what.
    private mutating func step(_ octet: UInt8, _ octets: [UInt8]) {
        self.client.takeOutput { self.toServer.append(Array($0)) }
        self.server.takeOutput { self.toClient.append(Array($0)) }
        let size = Int(octet >> 4)
        switch octet & 0x0F {
        case 0, 1, 2: self.carryToServer(.max)
        case 3, 4, 5: self.carryToClient(.max)
        case 6: self.carryToServer(1 + size)
        case 7: self.carryToClient(1 + size)
        case 8:
            let words = Array("client \(size)".utf8)
            if Self.say(words, self.client) { self.saidByClient += words }
        case 9:
            let words = Array("server \(size)".utf8)
            if Self.say(words, self.server) { self.saidByServer += words }
        case 10: self.toServer.reverse()
        case 11: if !self.toServer.isEmpty { self.toServer.removeFirst() }
        case 12:
            guard let count = self.toServer.first?.count, count > 0 else { return }
            self.toServer[0][size * 37 % count] ^= octet | 1
        case 13: self.toServer.insert(Array(octets.suffix(1 + size * 3)), at: 0)
        case 14: self.client.close()
        default: size.isMultiple(of: 2) ? (try? self.server.receiveEnd()) : (try? self.client.receiveEnd())
        }
    }

    private static func say(_ words: [UInt8], _ engine: TLSEngine) -> Bool {
        words.withUnsafeBytes { octets in
            do throws(TLSError) { try engine.send(octets) } catch { return false }
            return true
        }
    }

    private mutating func carryToServer(_ count: Int) {
        guard let first = self.toServer.first else { return }
        self.toServer[0] = Array(first.dropFirst(count))
        if self.toServer[0].isEmpty { self.toServer.removeFirst() }
        self.heardByServer += Self.feed(first.prefix(count), self.server)
    }

    private mutating func carryToClient(_ count: Int) {
        guard let first = self.toClient.first else { return }
        self.toClient[0] = Array(first.dropFirst(count))
        if self.toClient[0].isEmpty { self.toClient.removeFirst() }
        self.heardByClient += Self.feed(first.prefix(count), self.client)
    }

    private static func feed(_ octets: ArraySlice<UInt8>, _ engine: TLSEngine) -> [UInt8] {
        var heard: [UInt8] = []
        octets.withUnsafeBytes { octets in
            // What fails has failed for good, which `judge` relies on.
            try? engine.receive(octets) { heard += $0 }
        }
        return heard
    }

    /// Nobody hears what the other has not said, in that order, and nothing before the handshake.
    private func judge() throws(Breach) {
        try hold(self.saidByClient.starts(with: self.heardByServer), "the server heard what the client did not say")
        try hold(self.saidByServer.starts(with: self.heardByClient), "the client heard what the server did not say")
        if self.server.state == .handshaking { try hold(self.heardByServer.isEmpty, "plain text in a handshake") }
    }
}
