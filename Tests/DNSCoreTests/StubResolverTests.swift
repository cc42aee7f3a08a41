// SPDX-License-Identifier: Apache-2.0

import DNSCore
import MailTypes
import Testing

/// Counts up, so that ids and ports can be foreseen by a test.
private struct Counting: RandomNumberGenerator {
    var last: UInt64 = 0
    mutating func next() -> UInt64 {
        self.last &+= 0x0101_0101_0101_0101
        return self.last
    }
}

private func name(_ text: String) -> DNSName { DNSName(text: text) ?? .root }

/// A resolver with its clock, and the last query that it sent.
private struct World {
    var resolver: StubResolver
    var random = Counting()
    var now = Timestamp(microseconds: 1_000_000)
    private(set) var query: [UInt8] = []
    private(set) var server = -1
    private(set) var port = -1
    private(set) var exchange: UInt64 = 0

    init(serverCount: Int = 1, questionCountMax: Int = 10, cacheEntryCountMax: Int = 100) {
        self.resolver = StubResolver(
            serverCount: serverCount,
            limits: StubResolver.Limits(
                roundCountMax: 2, attemptTime: .seconds(2), questionCountMax: questionCountMax, aliasCountMax: 3,
                recordCountMax: 20, portCount: 4, cacheEntryCountMax: cacheEntryCountMax,
                cacheLifetimeMax: .seconds(3600)))
    }

    /// What the resolver does, in words: `udp 0`, `tcp 0`, `7 values`, ...
    mutating func feed(_ event: StubResolver.Event) -> [String] {
        self.resolver.receive(event, now: self.now, random: &self.random).map { action in
            switch action {
            case .sendDatagram(let octets, let server, let port):
                (self.query, self.server, self.port) = (octets, server, port)
                return "udp \(server)"
            case .exchangeByStream(let octets, let server, let exchange):
                (self.query, self.server, self.exchange) = (octets, server, exchange)
                return "tcp \(server)"
            case .answer(let answer, _, let asker):
                switch answer {
                case .values(let values, let isAuthentic):
                    return "\(asker) values \(values.count)\(isAuthentic ? " AD" : "")"
                case .none: return "\(asker) none"
                case .noSuchName: return "\(asker) no such name"
                case .later(let trouble): return "\(asker) later: \(trouble)"
                }
            }
        }
    }

    mutating func ask(_ text: String, _ type: DNSType = .a, asker: UInt64 = 1) -> [String] {
        self.feed(.asked(DNSQuestion(name(text), type), asker: asker))
    }

    var id: Int { Int(self.query[0]) << 8 | Int(self.query[1]) }

    /// Answers the last query by UDP.
    mutating func answer(
        _ text: String, _ type: DNSType = .a, flags: Int = 0x8180, answers: Int = 0, authority: Int = 0,
        idOffset: Int = 0, port: Int? = nil, server: Int? = nil, _ records: (inout MessageWriter) -> Void = { _ in }
    ) -> [String] {
        let octets = self.message(
            text, type, flags: flags, answers: answers, authority: authority, idOffset: idOffset, records)
        return self.feed(.datagramReceived(octets, server: server ?? self.server, port: port ?? self.port))
    }

    func message(
        _ text: String, _ type: DNSType = .a, flags: Int = 0x8180, answers: Int = 0, authority: Int = 0,
        idOffset: Int = 0, _ records: (inout MessageWriter) -> Void = { _ in }
    ) -> [UInt8] {
        var writer = MessageWriter()
        writer.header(id: (self.id + idOffset) & 0xFFFF, flags: flags, answers: answers, authority: authority)
        writer.question(text, type)
        records(&writer)
        return writer.octets
    }

    mutating func pass(_ duration: Duration) -> [String] {
        self.now = self.now.advanced(by: duration)
        return self.feed(.timePassed)
    }
}

@Suite("The stub resolver")
struct StubResolverTests {
    @Test("an answer goes to all who asked, and is kept for its time to live")
    func answersAndKeeps() {
        var world = World()
        #expect(world.ask("a.org", asker: 1) == ["udp 0"])
        #expect(world.ask("A.org", asker: 2) == [])
        #expect(
            world.answer("a.org", answers: 2) {
                $0.record("a.org", 1, ttl: 60, [1, 2, 3, 4])
                $0.record("a.org", 1, ttl: 30, [1, 2, 3, 5])
            } == ["1 values 2", "2 values 2"])
        #expect(!world.resolver.isBusy)
        _ = world.pass(.seconds(29))
        #expect(world.ask("a.org", asker: 3) == ["3 values 2"])
        _ = world.pass(.seconds(1))
        #expect(world.ask("a.org", asker: 4) == ["udp 0"])
    }

    @Test("only an answer with the right id, port, resolver and question counts")
    func forgeries() {
        var world = World(serverCount: 2)
        #expect(world.ask("a.org") == ["udp 0"])
        let records: (inout MessageWriter) -> Void = { $0.record("a.org", 1, [1, 2, 3, 4]) }
        #expect(world.answer("a.org", answers: 1, idOffset: 1, records) == [])
        #expect(world.answer("a.org", answers: 1, port: (world.port + 1) % 4, records) == [])
        #expect(world.answer("a.org", answers: 1, server: 1, records) == [])
        #expect(world.answer("b.org", answers: 1, records) == [])
        #expect(world.answer("a.org", .aaaa, answers: 1, records) == [])
        // A query is no answer.
        #expect(world.answer("a.org", flags: 0x0100, answers: 1, records) == [])
        #expect(world.feed(.datagramReceived([1, 2, 3], server: 0, port: 0)) == [])
        #expect(world.answer("a.org", answers: 1, records) == ["1 values 1"])
        // And it counts once.
        #expect(world.answer("a.org", answers: 1, records) == [])
    }

    @Test("ids and ports are those of the generator, new for every attempt")
    func marks() {
        var world = World()
        _ = world.ask("a.org")
        let first = world.id
        #expect(world.pass(.seconds(2)) == ["udp 0"])
        #expect(world.id != first)
        let late = world.message("a.org", answers: 1, idOffset: first - world.id) {
            $0.record("a.org", 1, [1, 2, 3, 4])
        }
        for port in 0..<4 { #expect(world.feed(.datagramReceived(late, server: 0, port: port)) == []) }
    }

    @Test("resolvers that do not answer are asked in turn, each round with more time, then it is given up")
    func timeouts() {
        var world = World(serverCount: 2)
        #expect(world.ask("a.org") == ["udp 0"])
        #expect(world.pass(.milliseconds(1_900)) == [])
        #expect(world.pass(.milliseconds(100)) == ["udp 1"])
        #expect(world.pass(.seconds(2)) == ["udp 0"])
        #expect(world.pass(.seconds(2)) == [])
        #expect(world.pass(.seconds(2)) == ["udp 1"])
        #expect(world.pass(.seconds(4)) == ["1 later: timeout"])
        #expect(!world.resolver.isBusy)
        // That is not kept.
        #expect(world.ask("a.org") == ["udp 0"])
    }

    @Test("a resolver that cannot answer is not asked again for this question")
    func serverFailures() {
        var world = World(serverCount: 2)
        _ = world.ask("a.org")
        #expect(world.answer("a.org", flags: 0x8182) == ["udp 1"])
        #expect(world.pass(.seconds(2)) == ["udp 1"])
        #expect(world.answer("a.org", flags: 0x8185) == ["1 later: serverFailure"])
    }

    @Test("a resolver that knows no EDNS0 is asked without it")
    func withoutEDNS() {
        var world = World()
        _ = world.ask("a.org")
        #expect(world.query[11] == 1)
        #expect(world.answer("a.org", flags: 0x8181) == ["udp 0"])
        #expect(world.query[11] == 0)
        #expect(world.answer("a.org", flags: 0x8181) == ["1 later: serverFailure"])
    }

    @Test("a truncated answer is asked for over TCP")
    func stream() {
        var world = World()
        _ = world.ask("a.org")
        #expect(world.answer("a.org", flags: 0x8380) == ["tcp 0"])
        let message = world.message("a.org", answers: 1) { $0.record("a.org", 1, [1, 2, 3, 4]) }
        #expect(world.feed(.streamAnswered(message, exchange: world.exchange + 1)) == [])
        #expect(world.feed(.streamAnswered(message, exchange: world.exchange)) == ["1 values 1"])

        _ = world.ask("b.org")
        _ = world.answer("b.org", flags: 0x8380)
        #expect(world.feed(.streamFailed(exchange: world.exchange)) == ["udp 0"])
        _ = world.answer("b.org", flags: 0x8380)
        #expect(world.feed(.streamAnswered([0], exchange: world.exchange)) == ["1 later: serverFailure"])
    }

    @Test("aliases are followed in the answer, and asked for where it ends")
    func aliases() {
        var world = World()
        _ = world.ask("a.org")
        #expect(
            world.answer("a.org", flags: 0x81A0, answers: 2) {
                $0.record("a.org", 5, ttl: 10, MessageWriter.wire("b.org"))
                $0.record("b.org", 1, ttl: 60, [1, 2, 3, 4])
            } == ["1 values 1 AD"])
        _ = world.pass(.seconds(10))
        #expect(world.ask("a.org") == ["udp 0"])
        #expect(
            world.answer("a.org", answers: 1) { $0.record("a.org", 5, MessageWriter.wire("c.org")) } == ["udp 0"])
        #expect(world.answer("c.org", answers: 1) { $0.record("c.org", 1, [1, 2, 3, 4]) } == ["1 values 1"])
    }

    @Test("a chain of aliases has an end, and a circle of them is one")
    func aliasLimits() {
        var world = World()
        _ = world.ask("a.org")
        #expect(
            world.answer("a.org", answers: 2) {
                $0.record("a.org", 5, MessageWriter.wire("b.org"))
                $0.record("b.org", 5, MessageWriter.wire("a.org"))
            } == ["1 later: aliasChainTooLong"])
        _ = world.ask("1.org")
        for number in 1...3 {
            #expect(
                world.answer("\(number).org", answers: 1) {
                    $0.record("\(number).org", 5, MessageWriter.wire("\(number + 1).org"))
                } == ["udp 0"])
        }
        #expect(
            world.answer("4.org", answers: 1) { $0.record("4.org", 5, MessageWriter.wire("5.org")) }
                == ["1 later: aliasChainTooLong"])
    }

    @Test("negative answers are told apart, and kept as long as SOA says")
    func negative() {
        var world = World()
        _ = world.ask("a.org")
        #expect(
            world.answer("a.org", flags: 0x8183, authority: 1) { $0.record("org", 6, ttl: 60, MessageWriter.soa) }
                == ["1 no such name"])
        _ = world.pass(.seconds(29))
        #expect(world.ask("a.org") == ["1 no such name"])
        _ = world.pass(.seconds(1))
        #expect(world.ask("a.org") == ["udp 0"])
        // Without SOA it is not kept.
        #expect(world.answer("a.org") == ["1 none"])
        #expect(world.ask("a.org") == ["udp 0"])
        // An alias to nowhere: what the code says is about its end.
        #expect(
            world.answer("a.org", flags: 0x8183, answers: 1) { $0.record("a.org", 5, MessageWriter.wire("b.org")) }
                == ["1 no such name"])
    }

    @Test("questions beyond the limit are put off, not queued")
    func tooMany() {
        var world = World(questionCountMax: 1)
        _ = world.ask("a.org")
        #expect(world.ask("b.org") == ["1 later: tooManyQuestions"])
        #expect(world.ask("a.org", asker: 2) == [])
    }

    @Test("the cache is bounded, and the oldest entry goes first")
    func cacheBound() {
        let instant = Timestamp(microseconds: 0)
        var cache = DNSCache(entryCountMax: 2, lifetimeMax: .seconds(100))
        let questions = ["a", "b", "c"].map { DNSQuestion(name($0), .a) }
        cache.insert(.none, for: questions[0], ttl: 50, now: instant)
        cache.insert(.none, for: questions[1], ttl: 50, now: instant)
        // Renewed: now the second is the oldest.
        cache.insert(.noSuchName, for: questions[0], ttl: 50, now: instant)
        cache.insert(.none, for: questions[2], ttl: 5_000, now: instant)
        #expect(cache.count == 2)
        #expect(cache.answer(to: questions[0], now: instant) == .noSuchName)
        #expect(cache.answer(to: questions[1], now: instant) == nil)
        #expect(cache.answer(to: questions[2], now: instant.advanced(by: .seconds(99))) == DNSAnswer.none)
        #expect(cache.answer(to: questions[2], now: instant.advanced(by: .seconds(100))) == nil)
        for _ in 0..<10 { cache.insert(.none, for: questions[1], ttl: 50, now: instant) }
        #expect(cache.count <= 2)
        cache.insert(.none, for: questions[0], ttl: 0, now: instant)
        #expect(cache.count <= 2)
    }

    @Test("resolver addresses are read with and without a port")
    func addresses() {
        func text(_ text: String) -> String? {
            ResolverAddress(octets: Array(text.utf8)).map { String(decoding: $0.octets, as: UTF8.self) }
        }
        #expect(text("127.0.0.1") == "127.0.0.1:53")
        #expect(text("127.0.0.1:5353") == "127.0.0.1:5353")
        #expect(text("::1") == "[::1]:53")
        #expect(text("[::1]") == "[::1]:53")
        #expect(text("[::1]:54") == "[::1]:54")
        for bad in ["", "a", "127.0.0.1:", "127.0.0.1:0", "127.0.0.1:65536", "[::1]:x", "[]", "[]:53", "::1%eth0"] {
            #expect(text(bad) == nil)
        }
    }

    @Test("resolv.conf gives its nameservers, and this machine if it has none")
    func resolverFile() {
        func list(_ text: String) -> [String] {
            ResolverAddress.list(resolverFile: Array(text.utf8), countMax: 2).map {
                String(decoding: $0.octets, as: UTF8.self)
            }
        }
        #expect(
            list(
                "# comment\nsearch a.org\n nameserver\t192.0.2.1\nnameserver fe80::1%eth0\nnameserver ::1 \r\nnameserver 192.0.2.3"
            )
                == ["192.0.2.1:53", "[::1]:53"])
        #expect(list("options ndots:2\n") == ["127.0.0.1:53"])
        #expect(list("") == ["127.0.0.1:53"])
    }
}
