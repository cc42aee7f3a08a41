// SPDX-License-Identifier: Apache-2.0

import DNSCore
import MailTypes
import QueueCore

/// A resolver that answers what it likes. The stream is one answer without its id.
enum DNSBody {
    static func run(_ script: inout FuzzScript) throws(Breach) {
        if let message = try? DNSMessage(octets: [0, 0] + script.stream, recordCountMax: 16) {
            try hold(message.answers.count + message.authority.count <= 16, "too many records")
            for record in message.answers + message.authority {
                try hold(record.name.wire.count <= DNSName.octetCountMax, "a name that is too long")
                // Other names are escaped for the log, and not read again.
                guard record.name.isHostName else { continue }
                try hold(DNSName(octets: record.name.octets) == record.name, "a name is lost")
            }
        }
        for address in ResolverAddress.list(resolverFile: script.stream, countMax: 3) {
            try hold(ResolverAddress(octets: address.octets) == address, "a resolver's address is lost")
        }
        try Self.resolve(&script)
    }

    private static func resolve(_ script: inout FuzzScript) throws(Breach) {
        guard let name = DNSName(text: "example.org") else { return }
        var random = SeededGenerator(seed: UInt64(script.next(256)))
        var resolver = StubResolver(
            serverCount: 2,
            limits: StubResolver.Limits(
                roundCountMax: 2, attemptTime: .seconds(2), questionCountMax: 4, aliasCountMax: 4, recordCountMax: 16,
                portCount: 4, cacheEntryCountMax: 8, cacheLifetimeMax: .seconds(600)))
        let type = [DNSType.mx, .a, .aaaa][script.next(3)]
        var now = Timestamp(microseconds: 1_000_000)
        var actions = resolver.receive(.asked(DNSQuestion(name, type), asker: 7), now: now, random: &random)
        var answerCount = 0
        for _ in 0..<24 {
            guard answerCount == 0 else { break }
            var next: [StubResolver.Action] = []
            for action in actions {
                switch action {
                case .answer: answerCount += 1
                case .sendDatagram(let query, let server, let port):
                    let answer = Array(query.prefix(2)) + script.stream
                    next += resolver.receive(
                        .datagramReceived(answer, server: server, port: port), now: now, random: &random)
                case .exchangeByStream(let query, _, let exchange):
                    let answer = Array(query.prefix(2)) + script.stream
                    let event: StubResolver.Event =
                        script.next(2) == 0
                        ? .streamAnswered(answer, exchange: exchange) : .streamFailed(exchange: exchange)
                    next += resolver.receive(event, now: now, random: &random)
                }
            }
            if next.isEmpty {
                now = now.advanced(by: .seconds(3))
                next = resolver.receive(.timePassed, now: now, random: &random)
            }
            actions = next
        }
        for case .answer in actions where answerCount == 0 { answerCount += 1 }
        try hold(answerCount == 1, "\(answerCount) answers to one question")
        try hold(!resolver.isBusy, "a question is left over")
    }
}
