// SPDX-License-Identifier: Apache-2.0

import MailTypes

/// A regular expression on octets, whose matching takes a time that is bounded by its size and the text's: no text of a
/// stranger makes it slow, as it would one that goes back and tries again.
///
/// The extended form of POSIX: `.`, `[a-z]`, `[^@]`, `[[:digit:]]`, `( )`, `(?: )`, `|`, `*`, `+`, `?`, `{2,5}`, `^`, `$`, and a
/// backslash in front of a sign; also `\d` and `\w`. Without back-references. Letters match in lower case, as keys are
/// written so.
package struct RegularExpression: Hashable, Sendable {
    /// Why a text is no expression that can be used.
    package struct Fault: Error, Hashable, Sendable {
        package let text: String
    }

    enum Instruction: Hashable, Sendable {
        case octet(OctetSet)
        case begin
        case end
        /// Goes on at both; the first is preferred.
        case split(Int, Int)
        case jump(Int)
        /// Notes where a group begins or ends.
        case save(Int)
        case match
    }

    private let program: [Instruction]
    /// How many groups are numbered.
    package let groupCount: Int

    /// More instructions are refused: a small count behind a group makes many of them.
    static let instructionCountMax = 2_000
    /// `$1` … `$9`.
    static let groupCountMax = 9

    package init(_ pattern: [UInt8]) throws(Fault) {
        var parser = ExpressionParser(pattern)
        let node = try parser.parse()
        self.groupCount = parser.groupCount
        var program: [Instruction] = []
        try Self.compile(.group(node, 0), &program)
        program.append(.match)
        self.program = program
    }

    private static func emit(_ instruction: Instruction, _ program: inout [Instruction]) throws(Fault) {
        guard program.count < Self.instructionCountMax else { throw Fault(text: "the expression is too large") }
        program.append(instruction)
    }

    private static func compile(_ node: ExpressionNode, _ program: inout [Instruction]) throws(Fault) {
        switch node {
        case .octet(let set): try Self.emit(.octet(set), &program)
        case .begin: try Self.emit(.begin, &program)
        case .end: try Self.emit(.end, &program)
        case .sequence(let nodes):
            // Why not nothing: then there would be no bound for nothing within nothing, repeated.
            if nodes.isEmpty { try Self.emit(.jump(program.count + 1), &program) }
            for node in nodes { try Self.compile(node, &program) }
        case .group(let node, let number):
            try Self.emit(.save(2 * number), &program)
            try Self.compile(node, &program)
            try Self.emit(.save(2 * number + 1), &program)
        case .choice(let nodes):
            var jumps: [Int] = []
            for (index, node) in nodes.enumerated() {
                guard index < nodes.count - 1 else {
                    try Self.compile(node, &program)
                    break
                }
                let split = program.count
                try Self.emit(.split(split + 1, 0), &program)
                try Self.compile(node, &program)
                jumps.append(program.count)
                try Self.emit(.jump(0), &program)
                program[split] = .split(split + 1, program.count)
            }
            for jump in jumps { program[jump] = .jump(program.count) }
        case .repetition(let node, let least, let most):
            for _ in 0..<least { try Self.compile(node, &program) }
            guard let most else {
                let split = program.count
                try Self.emit(.split(split + 1, 0), &program)
                try Self.compile(node, &program)
                try Self.emit(.jump(split), &program)
                program[split] = .split(split + 1, program.count)
                return
            }
            var splits: [Int] = []
            for _ in least..<max(most, least) {
                splits.append(program.count)
                try Self.emit(.split(program.count + 1, 0), &program)
                try Self.compile(node, &program)
            }
            for split in splits { program[split] = .split(split + 1, program.count) }
        }
    }

    // MARK: Matching

    /// The whole match and the groups behind it, nil for a group that had no part in it; nil if there is no match.
    package func match(_ text: [UInt8]) -> [ArraySlice<UInt8>?]? {
        var run = ExpressionRun(self.program, text, slotCount: 2 * (self.groupCount + 1))
        guard let slots = run.run() else { return nil }
        return (0...self.groupCount).map { group in
            guard let start = slots[2 * group], let end = slots[2 * group + 1], start <= end else { return nil }
            return text[start..<end]
        }
    }
}

/// All ways through the program at once, one octet of the text after the other: each instruction is at most once in a step.
private struct ExpressionRun {
    private struct Thread {
        let place: Int
        let slots: [Int?]
    }

    private let program: [RegularExpression.Instruction]
    private let text: [UInt8]
    private let slotCount: Int
    /// In which step an instruction was last reached.
    private var reached: [Int]
    private var threads: [Thread] = []

    init(_ program: [RegularExpression.Instruction], _ text: [UInt8], slotCount: Int) {
        self.program = program
        self.text = text
        self.slotCount = slotCount
        self.reached = Array(repeating: -1, count: program.count)
    }

    mutating func run() -> [Int?]? {
        var found: [Int?]?
        for index in 0...self.text.count {
            let threads = self.threads
            self.threads = []
            for thread in threads {
                if case .octet(let set) = self.program[thread.place], set.contains(self.text[index - 1]) {
                    self.add(thread.place + 1, thread.slots, index)
                }
            }
            // Later beginnings are worth less than those under way, and nothing once there is a match.
            if found == nil { self.add(0, Array(repeating: nil, count: self.slotCount), index) }
            if let match = self.threads.firstIndex(where: { self.program[$0.place] == .match }) {
                found = self.threads[match].slots
                // Those behind it are worth less.
                self.threads.removeSubrange(match...)
            }
            if self.threads.isEmpty, found != nil { break }
        }
        return found
    }

    /// Follows what takes no octet, in the order of preference.
    private mutating func add(_ place: Int, _ slots: [Int?], _ index: Int) {
        var waiting = [Thread(place: place, slots: slots)]
        while let thread = waiting.popLast() {
            guard self.reached[thread.place] != index else { continue }
            self.reached[thread.place] = index
            switch self.program[thread.place] {
            case .jump(let next): waiting.append(Thread(place: next, slots: thread.slots))
            case .split(let first, let second):
                waiting.append(Thread(place: second, slots: thread.slots))
                waiting.append(Thread(place: first, slots: thread.slots))
            case .save(let slot):
                var slots = thread.slots
                slots[slot] = index
                waiting.append(Thread(place: thread.place + 1, slots: slots))
            case .begin: if index == 0 { waiting.append(Thread(place: thread.place + 1, slots: thread.slots)) }
            case .end:
                if index == self.text.count { waiting.append(Thread(place: thread.place + 1, slots: thread.slots)) }
            case .octet, .match: self.threads.append(thread)
            }
        }
    }
}
