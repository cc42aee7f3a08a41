// SPDX-License-Identifier: Apache-2.0
//
// What `simulate` is asked on its command line, and what it says. Clock and output are main's.

/// One call of `simulate`.
package enum SimulationCommand: Equatable, Sendable {
    /// One world.
    case world(seed: UInt64)
    /// Every world of a range.
    case range(ClosedRange<UInt64>)
    /// New worlds for so many seconds.
    case time(seconds: Int)

    package static let usage = "usage: simulate --seed N | --seeds A...B | --seconds S\n"

    /// Reads the arguments; nil if they are none of the three.
    package init?(_ arguments: [String]) {
        guard arguments.count == 2 else { return nil }
        let value = arguments[1]
        switch arguments[0] {
        case "--seed":
            guard let seed = UInt64(value) else { return nil }
            self = .world(seed: seed)
        case "--seconds":
            guard let seconds = Int(value), (1...1_000_000).contains(seconds) else { return nil }
            self = .time(seconds: seconds)
        case "--seeds":
            let ends = value.split(separator: ".", omittingEmptySubsequences: false)
            guard ends.count == 4, ends[1].isEmpty, ends[2].isEmpty, let first = UInt64(ends[0]),
                let last = UInt64(ends[3]), first <= last
            else { return nil }
            self = .range(first...last)
        default: return nil
        }
    }

    /// Runs worlds until one breaks a rule, all have run, or the time is over.
    ///
    /// - Parameters:
    ///   - start: the first seed where the command names none.
    ///   - isOver: whether so many seconds have passed.
    /// - Returns: what to tell, and whether a rule was broken.
    package func run(start: UInt64, isOver: (Int) -> Bool) -> (text: String, isFinding: Bool) {
        var seed: UInt64
        let last: UInt64
        switch self {
        case .world(let only): (seed, last) = (only, only)
        case .range(let range): (seed, last) = (range.lowerBound, range.upperBound)
        case .time: (seed, last) = (start, .max)
        }
        let first = seed
        var stepCount = 0
        var pointCount = 0
        while true {
            var world = World(WorldRules(seed: seed))
            let faults = world.run()
            stepCount += world.stepCount
            pointCount += world.pointCount
            guard faults.isEmpty else { return (Self.report(seed, world, faults), true) }
            if case .time(let seconds) = self, isOver(seconds) { break }
            guard seed < last else { break }
            seed += 1
        }
        let text =
            "simulate: seeds \(first)...\(seed): \(seed - first + 1) worlds, \(stepCount) steps, \(pointCount) points "
            + "at which a crash could be; no rule is broken\n"
        return (text, false)
    }

    private static let eventCount = 50

    private static func report(_ seed: UInt64, _ world: World, _ faults: [String]) -> String {
        var lines = ["simulate: seed \(seed), step \(world.stepCount): a rule is broken"]
        lines += faults.prefix(10).map { "  \($0)" }
        lines.append("the last events:")
        lines += world.trace.suffix(Self.eventCount).map { "  \($0)" }
        lines.append("again: simulate --seed \(seed)")
        return lines.joined(separator: "\n") + "\n"
    }
}
