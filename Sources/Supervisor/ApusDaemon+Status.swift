// SPDX-License-Identifier: Apache-2.0

import Glibc
import MailTypes
import PipeCore
import Settings
import Unix

/// The answer to `apus status`: what apusd knows itself, and what each program tells of itself.
extension ApusDaemon {
    /// Programs have this long to answer.
    private static let gatherTimeout: Duration = .seconds(3)

    func gatherStatus(for client: Descriptor, channel: UInt32) {
        let number = self.nextGathering
        self.nextGathering = self.nextGathering &+ 1
        let asked = self.processes.values.filter {
            $0.controlDescriptor != nil && self.supervision.state(of: $0.part).word == "running"
        }.map(\.part)
        self.gatherings[number] = StatusGathering(
            client: client, channel: channel, deadline: self.now + Self.gatherTimeout, waiting: Set(asked))
        for part in asked {
            self.tell(part) { process throws(SystemError) in try process.send(.status, channel: number) }
        }
        if asked.isEmpty { self.finishGathering(number) }
    }

    /// A program has answered, or has ended without.
    func answered(_ number: UInt32, _ part: Part) {
        self.gatherings[number]?.waiting.remove(part)
        if self.gatherings[number]?.waiting.isEmpty == true { self.finishGathering(number) }
    }

    /// Answers with what is there; who has not answered in time is shown as silent.
    func finishGathering(_ number: UInt32) {
        guard let gathering = self.gatherings.removeValue(forKey: number) else { return }
        defer { gathering.client.close() }
        var octets: [UInt8] = []
        func row(_ name: String, _ pairs: [(name: String, value: String)]) {
            // A row has room for six pairs, the first of which names the object.
            var rest = pairs[...]
            repeat {
                var fields = [Array("program".utf8), Array(name.utf8)]
                for pair in rest.prefix(5) { fields += [Array(pair.name.utf8), Array(pair.value.utf8)] }
                octets.appendFrame(.row, gathering.channel, fields)
                rest = rest.dropFirst(5)
            } while !rest.isEmpty
        }
        row("apusd", self.ownRows)
        let parts = self.supervision.knownParts
        for part in parts {
            let (word, restartCount) = self.supervision.state(of: part)
            var pairs: [(name: String, value: String)] = [("state", word)]
            if let process = self.processes[part] {
                pairs.append(("pid", String(process.pid)))
                let age = WallClock.now().elapsed(since: process.startedAt)
                pairs.append(("uptime", String(age.components.seconds)))
            }
            pairs.append(("restarts", String(restartCount)))
            if gathering.waiting.contains(part) { pairs.append(("silent", "true")) }
            row(part.name, pairs + (gathering.rows[part] ?? []))
        }
        octets.appendFrame(.end, gathering.channel, [Array(String(parts.count + 1).utf8)])
        _ = OperatorClient(gathering.client, deadline: .zero).answer(octets)
    }

    private var ownRows: [(name: String, value: String)] {
        let age = WallClock.now().elapsed(since: self.startedAt)
        var rows: [(name: String, value: String)] = [
            ("state", self.supervision.isStopping ? "stopping" : "running"), ("pid", String(getpid())),
            ("uptime", String(age.components.seconds)), ("hostname", self.settings.hostname),
            ("config", self.configuration),
        ]
        if !self.installation.hasOwnUsers { rows.append(("mode", "single-user")) }
        for listener in self.listeners { rows.append(("listen", "\(listener.address) \(listener.role)")) }
        return rows
    }
}
