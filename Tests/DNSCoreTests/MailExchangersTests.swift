// SPDX-License-Identifier: Apache-2.0

import DNSCore
import MailTypes
import Testing

/// A fixed sequence; which one does not matter.
private struct Congruential: RandomNumberGenerator {
    var state: UInt64
    mutating func next() -> UInt64 {
        self.state = self.state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
        return self.state ^ self.state >> 29
    }
}

private func name(_ text: String) -> DNSName { DNSName(text: text) ?? .root }

/// Plays DNS from a table, fails every candidate, and writes down what happens.
private func walk(
    _ nextHop: String, _ zone: [String: DNSAnswer], families: MailExchangers.FamilyChoice = .ipv4First,
    own: String = "self.example", ownAddresses: [String] = [], hostCountMax: Int = 10, candidateCountMax: Int = 10,
    seed: UInt64 = 1, failure: (Int) -> DeliveryOutcome.Kind = { _ in .deferred }
) -> [String] {
    guard let hop = NextHop(octets: Array(nextHop.utf8)) else { return ["no next hop"] }
    var random = Congruential(state: seed)
    var exchangers = MailExchangers(
        nextHop: hop, port: 25, families: families,
        ourselves: MailExchangers.Ourselves(
            name: name(own), addresses: Set(ownAddresses.compactMap { IPAddress(text: $0) })),
        limits: MailExchangers.Limits(hostCountMax: hostCountMax, candidateCountMax: candidateCountMax))
    var events: [MailExchangers.Event] = [.begun]
    var log: [String] = []
    while !events.isEmpty, log.count < 100 {
        switch exchangers.receive(events.removeFirst(), random: &random) {
        case .wait: break
        case .ask(let questions):
            for question in questions {
                let answer = zone["\(question.type) \(question.name.text)"] ?? .noSuchName
                events.append(.answered(question, answer))
            }
        case .connect(let candidate):
            log.append(String(decoding: candidate.octets, as: UTF8.self))
            let kind = failure(log.count)
            events.append(
                .candidateFailed(
                    DeliveryOutcome(
                        kind, code: kind == .failed ? 554 : 450, status: EnhancedStatus(.success, 0, 0),
                        reporter: "host", text: "attempt \(log.count)")))
        case .end(let outcome):
            log.append("\(outcome.kind) \(outcome.code) \(String(decoding: outcome.status.octets, as: UTF8.self))")
        }
    }
    return log
}

private func mx(_ records: (UInt16, String)...) -> DNSAnswer {
    .values(records.map { .mx(preference: $0.0, exchange: name($0.1)) }, isAuthentic: false)
}

private func addresses(_ texts: String...) -> DNSAnswer {
    .values(texts.compactMap { IPAddress(text: $0).map(DNSValue.address) }, isAuthentic: false)
}

@Suite("Mail exchangers")
struct MailExchangersTests {
    private let zone: [String: DNSAnswer] = [
        "mx example.org": mx((20, "b.example.org"), (10, "a.example.org")),
        "a a.example.org": addresses("192.0.2.1", "192.0.2.2"),
        "aaaa a.example.org": addresses("2001:db8::1"),
        "a b.example.org": addresses("192.0.2.3"),
        "aaaa b.example.org": DNSAnswer.none,
    ]

    @Test("hosts are tried by preference, each with all its addresses, and the last word is the last failure")
    func preference() {
        #expect(
            walk("example.org", self.zone) == [
                "a.example.org[192.0.2.1]", "a.example.org[192.0.2.2]", "a.example.org[2001:db8::1]",
                "b.example.org[192.0.2.3]", "deferred 450 4.0.0",
            ])
    }

    @Test(
        "the choice of families decides what is asked for and tried first",
        arguments: [
            (MailExchangers.FamilyChoice.ipv6First, "a.example.org[2001:db8::1]", 5),
            (.ipv6Only, "a.example.org[2001:db8::1]", 2),
            (.ipv4Only, "a.example.org[192.0.2.1]", 4),
        ])
    func families(_ families: MailExchangers.FamilyChoice, _ first: String, _ count: Int) {
        let log = walk("example.org", self.zone, families: families)
        #expect(log.first == first)
        #expect(log.count == count)
    }

    @Test("hosts of equal preference come in any order, and never before a better one")
    func shuffle() {
        let zone: [String: DNSAnswer] = [
            "mx example.org": mx((10, "c.org"), (5, "first.org"), (10, "d.org"), (10, "e.org")),
            "a first.org": addresses("192.0.2.9"), "a c.org": addresses("192.0.2.1"),
            "a d.org": addresses("192.0.2.2"), "a e.org": addresses("192.0.2.3"),
        ]
        var orders: Set<[String]> = []
        for seed in 1...60 {
            let log = walk("example.org", zone, seed: UInt64(seed))
            #expect(log.first == "first.org[192.0.2.9]")
            #expect(Set(log.dropFirst().dropLast()) == ["c.org[192.0.2.1]", "d.org[192.0.2.2]", "e.org[192.0.2.3]"])
            orders.insert(log)
        }
        #expect(orders.count == 6)
    }

    @Test("a domain without MX records is its own host")
    func implicit() {
        let zone: [String: DNSAnswer] = ["mx example.org": DNSAnswer.none, "a example.org": addresses("192.0.2.1")]
        #expect(walk("example.org", zone) == ["example.org[192.0.2.1]", "deferred 450 4.0.0"])
        #expect(walk("example.org", ["mx example.org": DNSAnswer.none]) == ["failed 0 5.1.2"])
    }

    @Test(
        "what ends without a host",
        arguments: [
            ([:], "failed 0 5.1.2"),
            (["mx example.org": .later(.timeout)], "deferred 0 4.4.3"),
            (["mx example.org": mx((0, "."))], "failed 556 5.1.10"),
            (["mx example.org": mx((10, "a.org"))], "failed 0 5.4.4"),
            (["mx example.org": mx((10, "a.org")), "a a.org": .later(.serverFailure)], "deferred 0 4.4.3"),
            (["mx example.org": mx((10, "a.org"), (20, "b.org")), "a a.org": .later(.timeout)], "deferred 0 4.4.3"),
            (["mx example.org": mx((10, "a.org")), "a a.org": addresses("0.0.0.0")], "failed 0 5.4.4"),
            (["mx example.org": mx((10, "bad name"))], "failed 0 5.4.4"),
        ] as [([String: DNSAnswer], String)])
    func noHost(_ zone: [String: DNSAnswer], _ end: String) {
        #expect(walk("example.org", zone) == [end])
    }

    @Test("a null MX beside others is passed over")
    func nullBesideOthers() {
        let zone: [String: DNSAnswer] = [
            "mx example.org": mx((0, "."), (10, "a.org")), "a a.org": addresses("192.0.2.1"),
        ]
        #expect(walk("example.org", zone) == ["a.org[192.0.2.1]", "deferred 450 4.0.0"])
    }

    @Test("we never send to ourselves, nor to those that would send to us")
    func loops() {
        let log = walk(
            "example.org",
            [
                "mx example.org": mx((10, "a.org"), (20, "Self.Example"), (20, "b.org"), (30, "c.org")),
                "a a.org": addresses("192.0.2.1"), "a b.org": addresses("192.0.2.2"),
            ])
        #expect(log == ["a.org[192.0.2.1]", "deferred 450 4.0.0"])
        #expect(walk("example.org", ["mx example.org": mx((10, "self.example"), (10, "b.org"))]) == ["failed 0 5.4.6"])
        #expect(walk("self.example", ["mx self.example": DNSAnswer.none]) == ["failed 0 5.4.6"])
        // By address too, if the settings name ours; not where the administrator has named the host.
        #expect(walk("example.org", self.zone, ownAddresses: ["192.0.2.2"]) == ["failed 0 5.4.6"])
        #expect(walk("[a.example.org]", self.zone, ownAddresses: ["192.0.2.2"]).count == 4)
        // The port of SMTP on this machine is ours, whoever names it.
        #expect(walk("example.org", ["mx example.org": mx((0, "localhost"))]) == ["failed 0 5.4.6"])
        #expect(
            walk("example.org", ["mx example.org": mx((5, "a.org")), "a a.org": addresses("127.0.0.9")])
                == ["failed 0 5.4.6"])
        #expect(walk("example.org:2525", ["mx example.org": mx((0, "localhost"))]).count == 3)
        #expect(walk("lmtp:[127.0.0.1]", [:]).first == "[127.0.0.1]:24")
        #expect(walk("lmtp:[192.0.2.9]", [:]).first == "[192.0.2.9]:24")
        for literal in [
            "127.0.0.1", "[127.1.2.3]", "[::1]", "[::ffff:127.0.0.1]", "[0.0.0.0]", "[::]", "localhost",
            "sub.localhost",
        ] {
            #expect(walk(literal, [:]) == ["failed 0 5.4.6"], "\(literal)")
            #expect(walk(literal + ":2525", [:]).last == "deferred 450 4.0.0", "\(literal)")
        }
        #expect(walk("[192.0.2.7]", [:], ownAddresses: ["192.0.2.7"]) == ["failed 0 5.4.6"])
        #expect(walk("[192.0.2.7]:25", [:], ownAddresses: ["192.0.2.7"]).count == 2)
        // A better host that failed for now may come back.
        #expect(
            walk("example.org", self.zone, ownAddresses: ["192.0.2.3"]).last == "deferred 450 4.0.0")
    }

    @Test("a host in brackets is no MX domain, and an address needs no DNS")
    func given() {
        #expect(walk("[b.example.org]:2525", self.zone).first == "b.example.org[192.0.2.3]:2525")
        #expect(walk("[192.0.2.7]", [:]) == ["[192.0.2.7]", "deferred 450 4.0.0"])
        #expect(walk("[2001:db8::7]:26", [:]).first == "[2001:db8::7]:26")
        #expect(walk("[gone.example.org]", [:]) == ["failed 0 5.1.2"])
    }

    @Test("localhost is this machine, whatever DNS may say")
    func localhost() {
        #expect(
            walk("[localhost]:2526", [:]) == ["localhost[127.0.0.1]:2526", "localhost[::1]:2526", "deferred 450 4.0.0"])
        #expect(walk("[localhost]", [:], families: .ipv6First).first == "localhost[::1]")
    }

    @Test("hosts and addresses are tried up to their limits")
    func limits() {
        #expect(walk("example.org", self.zone, hostCountMax: 1).count == 4)
        #expect(walk("example.org", self.zone, candidateCountMax: 2).count == 3)
        #expect(
            walk("example.org", self.zone, candidateCountMax: 1) == ["a.example.org[192.0.2.1]", "deferred 450 4.0.0"])
    }

    @Test("the delivery fails only if every host says that it always will")
    func failures() {
        #expect(walk("example.org", self.zone, failure: { _ in .failed }).last == "failed 554 5.0.0")
        #expect(walk("example.org", self.zone, failure: { $0 == 1 ? .deferred : .failed }).last == "deferred 450 4.0.0")
        #expect(walk("example.org", self.zone, failure: { $0 == 4 ? .deferred : .failed }).last == "deferred 450 4.0.0")
    }
}
