// SPDX-License-Identifier: Apache-2.0

import MailTypes

/// Some of the 256 octets.
struct OctetSet: Hashable, Sendable {
    private var words: (UInt64, UInt64, UInt64, UInt64) = (0, 0, 0, 0)

    static let all = OctetSet { _ in true }

    init() {}

    init(_ isMember: (UInt8) -> Bool) {
        for octet in UInt8.min...UInt8.max where isMember(octet) { self.insert(octet) }
    }

    mutating func insert(_ octet: UInt8) {
        let bit = UInt64(1) << UInt64(octet & 63)
        switch octet >> 6 {
        case 0: self.words.0 |= bit
        case 1: self.words.1 |= bit
        case 2: self.words.2 |= bit
        default: self.words.3 |= bit
        }
    }

    mutating func formUnion(_ other: OctetSet) {
        self.words.0 |= other.words.0
        self.words.1 |= other.words.1
        self.words.2 |= other.words.2
        self.words.3 |= other.words.3
    }

    func contains(_ octet: UInt8) -> Bool {
        let word =
            switch octet >> 6 {
            case 0: self.words.0
            case 1: self.words.1
            case 2: self.words.2
            default: self.words.3
            }
        return word >> UInt64(octet & 63) & 1 == 1
    }

    static func == (left: OctetSet, right: OctetSet) -> Bool { left.words == right.words }

    func hash(into hasher: inout Hasher) {
        hasher.combine(self.words.0)
        hasher.combine(self.words.1)
        hasher.combine(self.words.2)
        hasher.combine(self.words.3)
    }
}

/// A regular expression as it was read.
indirect enum ExpressionNode {
    case octet(OctetSet)
    case begin
    case end
    case sequence([ExpressionNode])
    case choice([ExpressionNode])
    case group(ExpressionNode, Int)
    case repetition(ExpressionNode, least: Int, most: Int?)
}

/// Reads a regular expression.
struct ExpressionParser {
    private typealias Fault = RegularExpression.Fault

    private var rest: ArraySlice<UInt8>
    private(set) var groupCount = 0
    private var depth = 0

    private static let depthMax = 50
    private static let repetitionMax = 255

    init(_ pattern: [UInt8]) { self.rest = pattern[...] }

    mutating func parse() throws(RegularExpression.Fault) -> ExpressionNode {
        let node = try self.choice()
        guard self.rest.isEmpty else { throw Fault(text: "a ) without a (") }
        return node
    }

    private mutating func choice() throws(RegularExpression.Fault) -> ExpressionNode {
        var branches = [try self.sequence()]
        while self.rest.first == 0x7C {
            self.rest.removeFirst()
            branches.append(try self.sequence())
        }
        return branches.count == 1 ? branches[0] : .choice(branches)
    }

    private mutating func sequence() throws(RegularExpression.Fault) -> ExpressionNode {
        var nodes: [ExpressionNode] = []
        while let next = self.rest.first, next != 0x7C, next != 0x29 {
            var node = try self.atom()
            if let (least, most) = try self.repetition() {
                node = .repetition(node, least: least, most: most)
                // POSIX leaves open what it means, and a row of them would be as deep as it is long.
                guard try self.repetition() == nil else { throw Fault(text: "a repetition stands behind another one") }
            }
            nodes.append(node)
        }
        return .sequence(nodes)
    }

    private mutating func atom() throws(RegularExpression.Fault) -> ExpressionNode {
        guard let octet = self.rest.popFirst() else { throw Fault(text: "it ends too soon") }
        switch octet {
        case 0x28: return try self.group()
        case 0x5B: return .octet(try self.bracket())
        case ASCII.dot: return .octet(.all)
        case 0x5E: return .begin
        case 0x24: return .end
        case ASCII.backslash: return .octet(try self.escaped())
        case 0x2A, 0x2B, 0x3F, 0x7B:
            let sign = Character(Unicode.Scalar(octet))
            throw Fault(text: "\(sign) stands behind nothing; write \\\(sign) for the sign itself")
        default: return .octet(Self.one(octet))
        }
    }

    private static func one(_ octet: UInt8) -> OctetSet {
        var set = OctetSet()
        set.insert(octet.lowercased)
        return set
    }

    private mutating func escaped() throws(RegularExpression.Fault) -> OctetSet {
        guard let octet = self.rest.popFirst() else { throw Fault(text: "a \\ at the end") }
        switch octet {
        case 0x64: return OctetSet { $0.isDigit }
        case 0x77: return OctetSet { $0.isLetterOrDigit || $0 == 0x5F }
        case let other where other.isLetterOrDigit:
            throw Fault(text: "\\\(Character(Unicode.Scalar(other))) is not known here")
        default: return Self.one(octet)
        }
    }

    private mutating func group() throws(RegularExpression.Fault) -> ExpressionNode {
        self.depth += 1
        defer { self.depth -= 1 }
        guard self.depth <= Self.depthMax else { throw Fault(text: "groups in groups, \(Self.depthMax) deep") }
        var number: Int?
        if self.rest.starts(with: "?:".utf8) {
            self.rest = self.rest.dropFirst(2)
        } else {
            guard self.groupCount < RegularExpression.groupCountMax else {
                throw Fault(text: "more than \(RegularExpression.groupCountMax) groups; write (?: ) for others")
            }
            self.groupCount += 1
            number = self.groupCount
        }
        let node = try self.choice()
        guard self.rest.popFirst() == 0x29 else { throw Fault(text: "a ( without a )") }
        return number.map { .group(node, $0) } ?? node
    }

    /// What stands behind an atom, if it says how often.
    private mutating func repetition() throws(RegularExpression.Fault) -> (least: Int, most: Int?)? {
        switch self.rest.first {
        case 0x2A:
            self.rest.removeFirst()
            return (0, nil)
        case 0x2B:
            self.rest.removeFirst()
            return (1, nil)
        case 0x3F:
            self.rest.removeFirst()
            return (0, 1)
        case 0x7B:
            guard let end = self.rest.firstIndex(of: 0x7D) else { throw Fault(text: "a { without a }") }
            let inner = self.rest[self.rest.index(after: self.rest.startIndex)..<end]
            self.rest = self.rest[(end + 1)...]
            let parts = inner.split(separator: 0x2C, omittingEmptySubsequences: false)
            let limit = UInt64(Self.repetitionMax)
            guard (1...2).contains(parts.count), let least = parts[0].decimal(limit: limit) else {
                throw Fault(text: "{\(inner.printableText)} is no count up to \(Self.repetitionMax)")
            }
            guard parts.count == 2 else { return (Int(least), Int(least)) }
            if parts[1].isEmpty { return (Int(least), nil) }
            guard let most = parts[1].decimal(limit: limit), most >= least else {
                throw Fault(text: "{\(inner.printableText)} is no count up to \(Self.repetitionMax)")
            }
            return (Int(least), Int(most))
        default: return nil
        }
    }

    private static let classes: [(name: String, set: OctetSet)] = [
        ("[:digit:]", OctetSet { $0.isDigit }), ("[:alnum:]", OctetSet { $0.isLetterOrDigit }),
        ("[:alpha:]", OctetSet { $0.isLetterOrDigit && !$0.isDigit }),
        ("[:lower:]", OctetSet { $0.isLetterOrDigit && !$0.isDigit }),
    ]

    /// Behind `[`.
    private mutating func bracket() throws(RegularExpression.Fault) -> OctetSet {
        let isNegated = self.rest.first == 0x5E
        if isNegated { self.rest.removeFirst() }
        var set = OctetSet()
        var isFirst = true
        while true {
            guard let octet = self.rest.popFirst() else { throw Fault(text: "a [ without a ]") }
            if octet == 0x5D, !isFirst { break }
            isFirst = false
            if octet == 0x5B, self.rest.first == ASCII.colon {
                guard let known = Self.classes.first(where: { self.rest.starts(with: $0.name.utf8.dropFirst()) }) else {
                    throw Fault(text: "an unknown class in [ ]")
                }
                self.rest = self.rest.dropFirst(known.name.utf8.count - 1)
                set.formUnion(known.set)
                continue
            }
            let first = octet == ASCII.backslash ? self.rest.popFirst() ?? octet : octet
            guard self.rest.first == ASCII.hyphen, let last = self.rest.dropFirst().first, last != 0x5D else {
                set.insert(first.lowercased)
                continue
            }
            self.rest = self.rest.dropFirst(2)
            guard first <= last else { throw Fault(text: "a range in [ ] that goes backwards") }
            for octet in first...last { set.insert(octet.lowercased) }
        }
        return isNegated ? OctetSet { !set.contains($0) } : set
    }
}
