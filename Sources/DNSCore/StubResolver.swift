// SPDX-License-Identifier: Apache-2.0
//
// Asks resolvers and makes one answer of what they say, without input or output: datagrams and streams are the
// driver's, time and randomness are arguments. What does not fit a question under way is dropped without a trace:
// anybody can send a datagram.

package import MailTypes

/// A stub resolver (RFC 1034 §5.3.1) with a cache, over one or several recursive resolvers.
package struct StubResolver: Sendable {
    package struct Limits: Hashable, Sendable {
        /// How often each resolver is asked, at most.
        package var roundCountMax: Int
        /// How long the first round waits for each answer; each further round waits this much longer.
        package var attemptTime: Duration
        /// Questions under way; beyond it the answer is `later`.
        package var questionCountMax: Int
        /// Aliases from the name asked for to the one that has the records.
        package var aliasCountMax: Int
        /// Records of one answer.
        package var recordCountMax: Int
        /// Source ports among which each question takes one; the driver has a socket for each, for each resolver.
        package var portCount: Int
        package var cacheEntryCountMax: Int
        package var cacheLifetimeMax: Duration

        package init(
            roundCountMax: Int, attemptTime: Duration, questionCountMax: Int, aliasCountMax: Int, recordCountMax: Int,
            portCount: Int, cacheEntryCountMax: Int, cacheLifetimeMax: Duration
        ) {
            self.roundCountMax = roundCountMax
            self.attemptTime = attemptTime
            self.questionCountMax = questionCountMax
            self.aliasCountMax = aliasCountMax
            self.recordCountMax = recordCountMax
            self.portCount = portCount
            self.cacheEntryCountMax = cacheEntryCountMax
            self.cacheLifetimeMax = cacheLifetimeMax
        }
    }

    package enum Event: Hashable, Sendable {
        /// Somebody wants to know; `asker` comes back with the answer.
        case asked(DNSQuestion, asker: UInt64)
        /// A datagram came from this resolver (its address checked) to this port.
        case datagramReceived([UInt8], server: Int, port: Int)
        /// The answer over the stream that was wanted for this exchange.
        case streamAnswered([UInt8], exchange: UInt64)
        case streamFailed(exchange: UInt64)
        /// Some time has gone by; to be fed at least every second while `isBusy`.
        case timePassed
    }

    package enum Action: Hashable, Sendable {
        case sendDatagram([UInt8], server: Int, port: Int)
        /// Ask the same over TCP (RFC 7766), then feed `streamAnswered` or `streamFailed`.
        case exchangeByStream([UInt8], server: Int, exchange: UInt64)
        case answer(DNSAnswer, to: DNSQuestion, asker: UInt64)
    }

    /// How an answer over UDP is recognised, beside its question.
    private struct Mark: Hashable, Sendable {
        var server: Int
        var port: Int
        var id: UInt16
    }

    /// One question under way.
    private struct Exchange: Sendable {
        let question: DNSQuestion
        /// The name that is asked now, after aliases.
        var name: DNSName
        var aliasCount = 0
        /// The shortest time to live among the aliases so far.
        var ttl = UInt32.max
        var isAuthentic = true
        /// 0…`roundCountMax * serverCount - 1`.
        var attempt = 0
        /// Resolvers that have said that they cannot, by number.
        var refusingServers: Set<Int> = []
        var hasEDNS = true
        var mark: Mark?
        var id: UInt16 = 0
        var isStream = false
        var deadline = Timestamp(microseconds: 0)
        var askers: [UInt64]

        var asked: DNSQuestion { DNSQuestion(self.name, self.question.type) }
    }

    private let limits: Limits
    private let serverCount: Int
    private var cache: DNSCache
    private var exchanges: [UInt64: Exchange] = [:]
    private var byQuestion: [DNSQuestion: UInt64] = [:]
    private var byMark: [Mark: UInt64] = [:]
    private var lastExchange: UInt64 = 0

    /// - Precondition: `serverCount`, `limits.portCount` and `limits.roundCountMax` are at least 1.
    package init(serverCount: Int, limits: Limits) {
        precondition(serverCount > 0 && limits.portCount > 0 && limits.roundCountMax > 0)
        self.serverCount = serverCount
        self.limits = limits
        self.cache = DNSCache(entryCountMax: limits.cacheEntryCountMax, lifetimeMax: limits.cacheLifetimeMax)
    }

    /// Whether a question is under way.
    package var isBusy: Bool { !self.exchanges.isEmpty }

    /// What is known without asking: the cache alone.
    package func knownAnswer(to question: DNSQuestion, now: Timestamp) -> DNSAnswer? {
        self.cache.answer(to: question, now: now)
    }

    /// - Parameter now: of any clock that does not go back.
    /// - Parameter random: for ids and ports; whoever can foresee it can forge answers.
    package mutating func receive(
        _ event: Event, now: Timestamp, random: inout some RandomNumberGenerator
    ) -> [Action] {
        var actions: [Action] = []
        switch event {
        case .asked(let question, let asker):
            self.ask(question, asker, now: now, random: &random, into: &actions)
        case .datagramReceived(let octets, let server, let port):
            guard let message = try? DNSMessage(octets: octets, recordCountMax: self.limits.recordCountMax),
                let number = self.byMark[Mark(server: server, port: port, id: message.id)]
            else { break }
            self.hear(message, number, now: now, random: &random, into: &actions)
        case .streamAnswered(let octets, let number):
            guard let exchange = self.exchanges[number], exchange.isStream else { break }
            guard let message = try? DNSMessage(octets: octets, recordCountMax: self.limits.recordCountMax),
                message.id == exchange.id, !message.isTruncated, message.question == exchange.asked
            else {
                self.retry(number, isRefused: true, now: now, random: &random, into: &actions)
                break
            }
            self.hear(message, number, now: now, random: &random, into: &actions)
        case .streamFailed(let number):
            guard let exchange = self.exchanges[number], exchange.isStream else { break }
            self.retry(number, isRefused: false, now: now, random: &random, into: &actions)
        case .timePassed:
            // Why sorted: the order of a dictionary must not decide the order of actions.
            for number in self.exchanges.filter({ $0.value.deadline <= now }).keys.sorted() {
                self.retry(number, isRefused: false, now: now, random: &random, into: &actions)
            }
        }
        return actions
    }

    private mutating func ask(
        _ question: DNSQuestion, _ asker: UInt64, now: Timestamp, random: inout some RandomNumberGenerator,
        into actions: inout [Action]
    ) {
        if let answer = self.cache.answer(to: question, now: now) {
            actions.append(.answer(answer, to: question, asker: asker))
            return
        }
        if let number = self.byQuestion[question] {
            self.exchanges[number]?.askers.append(asker)
            return
        }
        guard self.exchanges.count < self.limits.questionCountMax else {
            actions.append(.answer(.later(.tooManyQuestions), to: question, asker: asker))
            return
        }
        self.lastExchange += 1
        self.byQuestion[question] = self.lastExchange
        self.exchanges[self.lastExchange] = Exchange(question: question, name: question.name, askers: [asker])
        self.send(self.lastExchange, now: now, random: &random, into: &actions)
    }

    /// Sends the question of an exchange by UDP, under a new mark.
    private mutating func send(
        _ number: UInt64, now: Timestamp, random: inout some RandomNumberGenerator, into actions: inout [Action]
    ) {
        guard var exchange = self.exchanges[number] else { return }
        if let mark = exchange.mark { self.byMark[mark] = nil }
        let server = exchange.attempt % self.serverCount
        var mark = Mark(server: server, port: 0, id: 0)
        // Why eight: with tens of thousands of questions under way a mark may be taken; one that is taken
        // eight times over is a question that can wait for its time limit.
        for _ in 0..<8 {
            mark.port = Int.random(in: 0..<self.limits.portCount, using: &random)
            mark.id = UInt16.random(in: 0...UInt16.max, using: &random)
            if self.byMark[mark] == nil { break }
        }
        exchange.isStream = false
        exchange.deadline = now.advanced(
            by: self.limits.attemptTime * (exchange.attempt / self.serverCount + 1))
        if self.byMark[mark] == nil {
            self.byMark[mark] = number
            exchange.mark = mark
            exchange.id = mark.id
            actions.append(
                .sendDatagram(
                    DNSMessage.query(id: mark.id, exchange.asked, hasEDNS: exchange.hasEDNS), server: server,
                    port: mark.port))
        } else {
            exchange.mark = nil
        }
        self.exchanges[number] = exchange
    }

    /// The next resolver, or the end.
    private mutating func retry(
        _ number: UInt64, isRefused: Bool, now: Timestamp, random: inout some RandomNumberGenerator,
        into actions: inout [Action]
    ) {
        guard var exchange = self.exchanges[number] else { return }
        if isRefused { exchange.refusingServers.insert(exchange.attempt % self.serverCount) }
        let attemptCountMax = self.serverCount * self.limits.roundCountMax
        repeat {
            exchange.attempt += 1
        } while exchange.attempt < attemptCountMax
            && exchange.refusingServers.contains(exchange.attempt % self.serverCount)
        guard exchange.attempt < attemptCountMax else {
            self.settle(
                number, .later(exchange.refusingServers.isEmpty ? .timeout : .serverFailure), ttl: 0, now: now,
                into: &actions)
            return
        }
        exchange.hasEDNS = true
        self.exchanges[number] = exchange
        self.send(number, now: now, random: &random, into: &actions)
    }

    /// A message came under the mark of an exchange.
    private mutating func hear(
        _ message: DNSMessage, _ number: UInt64, now: Timestamp, random: inout some RandomNumberGenerator,
        into actions: inout [Action]
    ) {
        guard let exchange = self.exchanges[number], message.isResponse else { return }
        if message.responseCode == .formatError || message.responseCode == .notImplemented, exchange.hasEDNS {
            // An old resolver may know no EDNS0, and then need not repeat the question (RFC 6891 §7).
            guard message.question == nil || message.question == exchange.asked else { return }
            self.exchanges[number]?.hasEDNS = false
            self.send(number, now: now, random: &random, into: &actions)
            return
        }
        // Invariant: an answer counts only if it repeats what was asked.
        guard message.question == exchange.asked else { return }
        if message.isTruncated {
            guard !exchange.isStream else { return }
            if let mark = exchange.mark { self.byMark[mark] = nil }
            self.exchanges[number]?.mark = nil
            self.exchanges[number]?.isStream = true
            // The time of the attempt goes on; a stream has twice as many ways to go as a datagram.
            self.exchanges[number]?.deadline = now.advanced(by: self.limits.attemptTime * 2)
            actions.append(
                .exchangeByStream(
                    DNSMessage.query(id: exchange.id, exchange.asked, hasEDNS: exchange.hasEDNS),
                    server: exchange.attempt % self.serverCount, exchange: number))
            return
        }
        switch message.responseCode {
        case .noError, .noSuchName:
            self.take(message, number, now: now, random: &random, into: &actions)
        case .formatError, .serverFailure, .notImplemented, .refused, .other:
            self.retry(number, isRefused: true, now: now, random: &random, into: &actions)
        }
    }

    /// Reads the answer section: follows aliases to the records.
    private mutating func take(
        _ message: DNSMessage, _ number: UInt64, now: Timestamp, random: inout some RandomNumberGenerator,
        into actions: inout [Action]
    ) {
        guard var exchange = self.exchanges[number] else { return }
        let type = exchange.question.type
        exchange.isAuthentic = exchange.isAuthentic && message.isAuthentic
        let before = exchange.name
        while true {
            let name = exchange.name
            let found = message.answers.filter { $0.type == type && $0.name == name }
            if !found.isEmpty {
                let ttl = found.reduce(exchange.ttl) { min($0, $1.ttl) }
                self.settle(
                    number, .values(found.map(\.value), isAuthentic: exchange.isAuthentic), ttl: ttl, now: now,
                    into: &actions)
                return
            }
            guard let alias = message.answers.first(where: { $0.type == .cname && $0.name == name }),
                case .cname(let target) = alias.value
            else { break }
            exchange.ttl = min(exchange.ttl, alias.ttl)
            exchange.aliasCount += 1
            guard exchange.aliasCount <= self.limits.aliasCountMax else {
                self.settle(number, .later(.aliasChainTooLong), ttl: 0, now: now, into: &actions)
                return
            }
            exchange.name = target
        }
        // RFC 2308 §5: a negative answer holds as long as the SOA record beside it says.
        var negativeTTL: UInt32 = 0
        var hasSOA = false
        for record in message.authority {
            if case .soa(let minimum) = record.value {
                negativeTTL = min(record.ttl, minimum, exchange.ttl)
                hasSOA = true
                break
            }
        }
        if message.responseCode == .noSuchName {
            self.settle(number, .noSuchName, ttl: negativeTTL, now: now, into: &actions)
        } else if exchange.name != before, !hasSOA {
            // The resolver gave the alias alone: ask on from there.
            exchange.attempt = 0
            exchange.refusingServers = []
            self.exchanges[number] = exchange
            self.send(number, now: now, random: &random, into: &actions)
        } else {
            self.settle(number, .none, ttl: negativeTTL, now: now, into: &actions)
        }
    }

    private mutating func settle(
        _ number: UInt64, _ answer: DNSAnswer, ttl: UInt32, now: Timestamp, into actions: inout [Action]
    ) {
        guard let exchange = self.exchanges.removeValue(forKey: number) else { return }
        if let mark = exchange.mark { self.byMark[mark] = nil }
        self.byQuestion[exchange.question] = nil
        self.cache.insert(answer, for: exchange.question, ttl: ttl, now: now)
        for asker in exchange.askers { actions.append(.answer(answer, to: exchange.question, asker: asker)) }
    }
}
