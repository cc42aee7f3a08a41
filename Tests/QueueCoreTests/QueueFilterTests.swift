// SPDX-License-Identifier: Apache-2.0

import MailTypes
import QueueCore
import Simulation
import Testing

@Suite struct QueueFilterTests {
    private static func filter(_ terms: [(String, String)]) throws -> QueueFilter {
        var filter = QueueFilter()
        for (name, value) in terms { try filter.add(Array(name.utf8)[...], Array(value.utf8)[...]) }
        return filter
    }

    private static func recipient(_ to: String, original: String? = nil, route: String = "remote:example.org")
        -> RecipientRecord
    {
        RecipientRecord(
            number: 0, forwardPath: Samples.path(to), originalPath: original.map { Samples.path($0) },
            route: Route(octets: Array(route.utf8)) ?? .bounce,
            flow: Samples.flow, state: .queued(last: nil),
            due: Timestamp(microseconds: 1))
    }

    @Test(
        "an address is matched exactly, by its domain or by a pattern, without regard to case, in brackets or not",
        arguments: [
            ("bob@example.org", "bob@example.org", true), ("<Bob@EXAMPLE.org>", "bob@example.org", true),
            ("bob@example.org", "BOB@Example.ORG", true), ("bob@example.org", "xbob@example.org", false),
            ("@example.org", "bob@example.org", true), ("@example.org", "bob@sub.example.org", false),
            ("@ample.org", "bob@example.org", false), ("*@example.org", "bob@example.org", true),
            ("*", "bob@example.org", true), ("b*@*.org", "bob@example.org", true),
            ("b*b@*", "bob@example.org", true), ("*a*b*", "bob@example.org", false),
            ("*.com", "bob@example.org", false), ("**o**", "bob@example.org", true),
            ("postmaster", "postmaster", true), ("postmaster", "postmaster@example.org", false),
        ])
    func addresses(_ pattern: String, _ address: String, _ isMatch: Bool) throws {
        let filter = try Self.filter([("to", pattern)])
        #expect(filter.matches(Self.recipient(address), isUnderWay: false) == isMatch)
        #expect(filter.matches(Self.recipient("x@y.example", original: address), isUnderWay: false) == isMatch)
    }

    @Test("a pattern of many stars is matched in time that does not explode")
    func manyStars() throws {
        let filter = try Self.filter([("to", String(repeating: "a*", count: 200) + "b")])
        #expect(!filter.matches(Self.recipient(String(repeating: "a", count: 200) + "@example.org"), isUnderWay: false))
    }

    @Test("the sender is matched in the same way, and <> is the null reverse-path")
    func senders() throws {
        var record = Samples.message(1, recipientCount: 1, at: 100).record
        let now = Timestamp(microseconds: 200)
        #expect(try Self.filter([("from", "sender@example.com")]).matches(record, now: now))
        #expect(try !Self.filter([("from", "<>")]).matches(record, now: now))
        record = MessageRecord(
            id: record.id, reversePath: .null, bodyType: .sevenBit, arrival: record.arrival, expiry: record.expiry,
            prefix: [], contentOctetCount: 0, trace: [])
        #expect(try Self.filter([("from", "<>")]).matches(record, now: now))
        #expect(try !Self.filter([("from", "*@*")]).matches(record, now: now))
        #expect(try Self.filter([("from", "*@*"), ("from", "<>")]).matches(record, now: now))
    }

    @Test(
        "a destination is a domain, a host, an address, or a route as it is shown",
        arguments: [
            ("example.org", "remote:example.org", true), ("EXAMPLE.org", "remote:example.org:2525", true),
            ("example.org", "remote:[example.org]", true), ("[example.org]", "remote:example.org", false),
            ("example.org:25", "remote:example.org", false), ("example.org:25", "remote:example.org:25", true),
            ("192.0.2.1", "remote:[192.0.2.1]:25", true), ("[192.0.2.2]", "remote:[192.0.2.1]", false),
            ("remote:example.org", "remote:example.org", true), ("remote:example.org", "remote:example.org:26", false),
            ("local:bob", "local:bob", true), ("local:bob", "local:alice", false), ("bob.example", "local:bob", false),
            ("*.example.org", "remote:a.b.example.org:25", true), ("*.example.org", "remote:example.org", false),
        ])
    func destinations(_ pattern: String, _ route: String, _ isMatch: Bool) throws {
        let filter = try Self.filter([("destination", pattern)])
        #expect(filter.matches(Self.recipient("a@b.example", route: route), isUnderWay: false) == isMatch)
    }

    @Test("each status matches what it says, and deferred what was tried and is queued")
    func statuses() throws {
        let fresh = Self.recipient("a@b.example")
        var tried = fresh
        tried.attemptCount = 2
        var held = tried
        held.due = nil
        var failed = tried
        failed.state = .failed(Samples.failure)
        let rows: [(RecipientRecord, Bool, [String])] = [
            (fresh, false, ["queued"]), (tried, false, ["queued", "deferred"]), (tried, true, ["delivering"]),
            (held, false, ["held"]), (failed, false, ["failed"]),
        ]
        for (recipient, isUnderWay, wanted) in rows {
            let found = try ["queued", "deferred", "delivering", "held", "failed"].filter { word in
                try Self.filter([("status", word)]).matches(recipient, isUnderWay: isUnderWay)
            }
            #expect(found == wanted)
        }
        // Of a failed recipient the destination is the bounce agent.
        #expect(try Self.filter([("destination", "bounce:")]).matches(failed, isUnderWay: false))
        #expect(try !Self.filter([("destination", "example.org")]).matches(failed, isUnderWay: false))
    }

    @Test("older is about the arrival, and terms of different names must all hold")
    func together() throws {
        let record = Samples.message(1, recipientCount: 1, at: 1_000_000).record
        let filter = try Self.filter([("older", "60"), ("from", "@example.com")])
        #expect(!filter.matches(record, now: Timestamp(microseconds: 61_000_000)))
        #expect(filter.matches(record, now: Timestamp(microseconds: 61_000_001)))
        #expect(
            try !Self.filter([("older", "60"), ("from", "@other.example")]).matches(
                record, now: Timestamp(microseconds: 99_000_000)))
        let both = try Self.filter([("to", "@b.example"), ("status", "held")])
        #expect(!both.matches(Self.recipient("a@b.example"), isUnderWay: false))
    }

    @Test(
        "a term that means nothing is refused with a word about it",
        arguments: [
            ("to", "example.org"), ("to", ""), ("to", "<>"), ("to", "@"), ("to", "a@b@c.example"), ("from", "bob"),
            ("destination", "exa mple"), ("destination", ""), ("older", "5d"), ("older", "-1"), ("status", "gone"),
            ("status", ""), ("subject", "hello"),
        ])
    func faults(_ name: String, _ value: String) {
        #expect(throws: QueueFilter.Fault.self) { try Self.filter([(name, value)]) }
    }

    @Test("a filter takes no more than its limit of terms")
    func bounded() throws {
        var filter = QueueFilter()
        for _ in 0..<QueueFilter.termCountMax { try filter.add(Array("to".utf8)[...], Array("*".utf8)[...]) }
        #expect(throws: QueueFilter.Fault.self) { try filter.add(Array("to".utf8)[...], Array("*".utf8)[...]) }
    }
}

@Suite struct OperatorVerbTests {
    @Test("reroute makes due what waits, leaves held what is held, and spares what has failed or goes there already")
    func reroute() {
        let record = Samples.message(1, recipientCount: 1, at: 100).recipients[0]
        let now = Timestamp(microseconds: 900)
        let route = Samples.route("elsewhere.example")
        let change = OperatorVerb.reroute(route).change(record, now: now)
        #expect(change?.dueBefore == record.due)
        #expect(change?.after?.due == now)
        #expect(change?.after?.destination == route)
        var held = record
        held.due = nil
        #expect(OperatorVerb.reroute(route).change(held, now: now)?.after?.due == nil)
        #expect(OperatorVerb.reroute(route).change(held, now: now)?.after?.route == route)
        var failed = record
        failed.state = .failed(Samples.failure)
        #expect(OperatorVerb.reroute(route).change(failed, now: now) == nil)
        #expect(OperatorVerb.reroute(record.route).change(record, now: now) == nil)
        #expect(OperatorVerb.reroute(.bounce).change(record, now: now) == nil)
    }

    @Test("Mail that was held for long has as much time for its report as other mail")
    func reportAfterHold() {
        let now = Timestamp(microseconds: 5_000_000_000_000)
        let old = RecipientRecord(
            number: 0, forwardPath: .postmaster, originalPath: nil, route: Samples.route("a.example"),
            flow: Samples.flow,
            state: .queued(last: nil), due: nil, lastAttempt: Timestamp(microseconds: 1))
        #expect(OperatorVerb.bounce.change(old, now: now)?.after?.lastAttempt == now)
        var failed = old
        failed.state = .failed(Samples.failure)
        #expect(OperatorVerb.release.change(failed, now: now)?.after?.lastAttempt == now)
        #expect(OperatorVerb.release.change(old, now: now)?.after?.lastAttempt == old.lastAttempt)
    }
}
