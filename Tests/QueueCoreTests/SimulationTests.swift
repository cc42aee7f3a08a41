// SPDX-License-Identifier: Apache-2.0

import QueueCore
import Simulation
import Testing

@Suite struct SimulationTests {
    @Test("in 40 worlds of crashes, lost agents, refusing peers and operators nothing is lost or invented")
    func seeds() {
        for seed in 1...40 {
            var world = World(WorldRules(seed: UInt64(seed)))
            let faults = world.run()
            #expect(
                faults.isEmpty, "seed \(seed): \(faults.prefix(3))\n\(world.trace.suffix(40).joined(separator: "\n"))")
            if !faults.isEmpty { break }
        }
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
            #expect(foundCount >= 10, "commit \(skipped): found in \(foundCount) of 20 worlds")
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
