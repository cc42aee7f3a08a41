// SPDX-License-Identifier: Apache-2.0

import MailTypes
import QueueCore
import Simulation
import Testing

@Suite struct SimulationTests {
    @Test(
        "in 40 worlds of crashes, lost agents, refusing peers, operators and administrators nothing is lost or invented"
    )
    func seeds() {
        for seed in 1...40 {
            var world = World(WorldRules(seed: UInt64(seed)))
            let faults = world.run()
            #expect(
                faults.isEmpty, "seed \(seed): \(faults.prefix(3))\n\(world.trace.suffix(40).joined(separator: "\n"))")
            if !faults.isEmpty { break }
        }
    }

    @Test(
        "worlds in which a rule was broken once are whole now",
        arguments: [
            // Two orders on one message, and the clock set back between them.
            151_130_419_000_010
        ] as [UInt64])
    func found(seed: UInt64) {
        var rules = WorldRules(seed: seed)
        // What a seed makes has changed since; without it, it makes the world that it made then.
        rules.forwardWeight = 0
        rules.changeWeight = 0
        var world = World(rules)
        let faults = world.run()
        #expect(faults.isEmpty, "\(faults.prefix(3))\n\(world.trace.suffix(40).joined(separator: "\n"))")
    }

    @Test("one message with two recipients survives a crash at every single point")
    func everyPoint() {
        for seed in 1...20 {
            var rules = WorldRules(recipientCount: 2, crashPoint: nil)
            rules.seed = UInt64(seed)
            var untouched = World(rules)
            #expect(untouched.run().isEmpty, "seed \(seed)")
            #expect(untouched.pointCount > 5)
            for point in 1...untouched.pointCount {
                rules.crashPoint = point
                var world = World(rules)
                let faults = world.run()
                #expect(
                    faults.isEmpty,
                    "seed \(seed), point \(point): \(faults)\n\(world.trace.suffix(30).joined(separator: "\n"))")
            }
        }
    }

    @Test("that a recipient is unreported, dropped or removed is believed only where the world has given a reason")
    func reasons() throws {
        let key = RecipientKey(message: MessageID(rawValue: 7), number: 0)
        let hour = Timestamp(microseconds: 3_600_000_000)
        func isLost(_ change: (inout Ledger) -> Void) throws -> Bool {
            var ledger = Ledger()
            ledger.acknowledged = [key]
            ledger.expiries[key.message] = hour
            ledger.wishes[key] = RecipientDSN(notify: .never)
            change(&ledger)
            return try !NothingLost().faults(ledger, MemoryQueueStore(), isAtRest: false).isEmpty
        }
        #expect(try isLost { $0.removed = [key] })
        #expect(try !isLost { ($0.removed, $0.orderedOut) = ([key], [key]) })
        #expect(try isLost { $0.unreported = [key] })
        #expect(try !isLost { ($0.unreported, $0.refused) = ([key], [key]) })
        #expect(try !isLost { ($0.unreported, $0.latest) = ([key], hour) })
        #expect(
            try isLost {
                ($0.unreported, $0.refused) = ([key], [key])
                $0.wishes[key] = nil
            })
        #expect(try isLost { $0.dropped = [key] })
        #expect(try isLost { ($0.dropped, $0.refused) = ([key], [key]) })
        #expect(
            try !isLost {
                ($0.dropped, $0.refused) = ([key], [key])
                $0.reports = [key.message]
            })
    }

    @Test("a commit that claims success and does nothing is found")
    func canary() {
        for skipped in [3, 10, 25] {
            var foundCount = 0
            for seed in 1...20 {
                var rules = WorldRules(seed: UInt64(seed), stepCount: 600)
                rules.skippedCommit = skipped
                var world = World(rules)
                if !world.run().isEmpty { foundCount += 1 }
            }
            #expect(foundCount >= 5, "commit \(skipped): found in \(foundCount) of 20 worlds")
        }
    }

    @Test("each checker finds the world that breaks its rule", arguments: Canary.allCases)
    func canaries(_ canary: Canary) {
        var faults: [String] = []
        for seed in 1...60 {
            var rules = WorldRules(seed: UInt64(seed), stepCount: 600)
            rules.canary = canary
            rules.crashWeight = 3
            rules.failedWeight = 20
            rules.forwardWeight = 40
            var world = World(rules)
            faults = world.run()
            if faults.contains(where: { $0.hasPrefix("\(canary.checkerName): ") }) { return }
        }
        Issue.record("no world of \(canary) was found by \(canary.checkerName); the last one: \(faults.prefix(3))")
    }

    @Test("the command line names a world, a range or a time, and nothing else")
    func commandLine() {
        #expect(SimulationCommand(["--seed", "7"]) == .world(seed: 7))
        #expect(SimulationCommand(["--seeds", "1...20"]) == .range(1...20))
        #expect(SimulationCommand(["--seconds", "30"]) == .time(seconds: 30))
        for wrong in [
            [], ["--seed"], ["--seed", "x"], ["--seeds", "2...1"], ["--seeds", "1..2"], ["--seconds", "0"],
        ] {
            #expect(SimulationCommand(wrong) == nil, "\(wrong)")
        }
    }

    @Test("the same seed makes the same world")
    func repetition() {
        var first = World(WorldRules(seed: 7))
        var second = World(WorldRules(seed: 7))
        #expect(first.run() == second.run())
        #expect(first.trace == second.trace)
    }
}

@Suite struct MemoryStoreTests {
    @Test("the store in memory keeps the rules of every store", arguments: StoreConformance.allCases)
    func conformance(_ rule: StoreConformance) throws {
        let faults = try rule.faults(MemoryQueueStore())
        #expect(faults == [])
    }
}
