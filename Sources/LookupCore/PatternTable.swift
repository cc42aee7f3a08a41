// SPDX-License-Identifier: Apache-2.0

import MailTypes

/// A text file whose entries stand for more than one key. With a mistake in it none of it is used.
package protocol PatternTable: Sendable {
    init(octets: [UInt8])
    /// In the order of their lines.
    var faults: [LineFault] { get }
    /// How many entries there are.
    var count: Int { get }
    /// - Parameter key: as `TableKey` writes it.
    func finding(of key: [UInt8]) -> (value: [UInt8], line: Int)?
}

/// The entries of such a file as text without blanks at its ends, each with the line in which it begins.
struct TableLines {
    private(set) var lines: [(text: [UInt8], number: Int)] = []

    init(_ octets: [UInt8]) {
        LineFile.forEachItem(octets, isBlank: \.isTableBlank) { item in
            switch item {
            case .entry(let text, let line): self.lines.append((Array(Self.trimmed(text[...])), line))
            case .orphan(let text, let line):
                // There is nothing that it could continue but others of its kind.
                guard let last = self.lines.indices.last else {
                    return self.lines.append((Array(Self.trimmed(text)), line))
                }
                self.lines[last].text.append(ASCII.space)
                self.lines[last].text += Self.trimmed(text)
            }
        }
    }

    static func trimmed(_ text: ArraySlice<UInt8>) -> ArraySlice<UInt8> {
        LineFile.trimmed(text, isBlank: \.isTableBlank)
    }
}

/// `/expression/ value`: the first entry whose expression matches the key counts; `!/expression/` counts where it does not.
///
/// `$1` … `$9` in a value stand for what the groups have matched. That comes from a stranger, so an entry whose groups have
/// matched anything but letters, digits and `.`, `_`, `+`, `=`, `-` does not count: nothing can be smuggled into a list.
package struct RegexpTable: PatternTable {
    private struct Entry {
        let line: Int
        let expression: RegularExpression
        let isNegated: Bool
        let value: [UInt8]
    }

    private var entries: [Entry] = []
    package private(set) var faults: [LineFault] = []

    /// A file with more entries is not used: each is tried.
    package static let entryCountMax = 1_000

    package init(octets: [UInt8]) {
        for (text, line) in TableLines(octets).lines {
            guard self.faults.count < TextTable.faultCountMax else { return }
            do throws(RegularExpression.Fault) {
                guard self.entries.count < Self.entryCountMax else {
                    throw RegularExpression.Fault(text: "more than \(Self.entryCountMax) entries")
                }
                self.entries.append(try Self.entry(text, line))
            } catch { self.faults.append(LineFault(line: line, text: error.text)) }
        }
    }

    private static func entry(_ text: [UInt8], _ line: Int) throws(RegularExpression.Fault) -> Entry {
        let isNegated = text.first == 0x21
        let body = isNegated ? text.dropFirst() : text[...]
        guard body.first == 0x2F, let end = Self.end(of: body.dropFirst()) else {
            throw RegularExpression.Fault(text: "an entry is written /expression/ value")
        }
        var pattern: [UInt8] = []
        for octet in body[(body.startIndex + 1)..<end] {
            // `\/` is the slash itself.
            if octet == 0x2F { pattern.removeLast() }
            pattern.append(octet)
        }
        let rest = body[(end + 1)...]
        guard rest.first.map({ $0 == ASCII.space || $0 == ASCII.tab }) ?? true else {
            throw RegularExpression.Fault(text: "a blank is missing behind /expression/; there are no flags")
        }
        let expression = try RegularExpression(pattern)
        let value = Array(TableLines.trimmed(rest))
        let groups = zip(value, value.dropFirst()).filter { $0 == 0x24 && $1.isDigit }.map { Int($1 - 0x30) }
        guard groups.allSatisfy({ (1...max(1, expression.groupCount)).contains($0) && !isNegated }),
            groups.isEmpty || expression.groupCount > 0
        else { throw RegularExpression.Fault(text: "the value names a group that the expression does not have") }
        return Entry(line: line, expression: expression, isNegated: isNegated, value: value)
    }

    /// Where the slash is that ends the expression.
    private static func end(of text: ArraySlice<UInt8>) -> Int? {
        var isEscaped = false
        for index in text.indices {
            if isEscaped {
                isEscaped = false
            } else if text[index] == ASCII.backslash {
                isEscaped = true
            } else if text[index] == 0x2F {
                return index
            }
        }
        return nil
    }

    package var count: Int { self.entries.count }

    package func finding(of key: [UInt8]) -> (value: [UInt8], line: Int)? {
        // What a catch-all is asked with is no address that an expression is meant for.
        guard key.first != ASCII.at else { return nil }
        for entry in self.entries {
            let groups = entry.expression.match(key)
            guard (groups == nil) == entry.isNegated else { continue }
            if let value = Self.filled(entry.value, groups ?? []) { return (value, entry.line) }
        }
        return nil
    }

    private static func filled(_ value: [UInt8], _ groups: [ArraySlice<UInt8>?]) -> [UInt8]? {
        var filled: [UInt8] = []
        var rest = value[...]
        while let octet = rest.popFirst() {
            guard octet == 0x24, let digit = rest.first, digit.isDigit else {
                filled.append(octet)
                continue
            }
            rest.removeFirst()
            let number = Int(digit - 0x30)
            let group = number < groups.count ? groups[number] ?? [] : []
            guard group.allSatisfy({ $0.isLetterOrDigit || [0x2E, 0x5F, 0x2B, 0x3D, 0x2D].contains($0) }) else {
                return nil
            }
            filled += group
        }
        return filled
    }
}

/// `beginning value`: the longest entry counts that the key begins with.
package struct PrefixTable: PatternTable {
    private var entries: [[UInt8]: TextTable.Entry] = [:]
    private var octetCounts: [Int] = []
    package private(set) var faults: [LineFault] = []

    package init(octets: [UInt8]) {
        for (text, line) in TableLines(octets).lines {
            guard self.faults.count < TextTable.faultCountMax else { return }
            let end = text.firstIndex { $0 == ASCII.space || $0 == ASCII.tab } ?? text.count
            let key = text[..<end].lowercasedOctets
            if !key.allSatisfy(\.isPrintable) || key.count > TableKey.octetCountMax {
                self.faults.append(LineFault(line: line, text: "is no beginning of an address"))
            } else if let earlier = self.entries[key] {
                self.faults.append(
                    LineFault(
                        line: line, text: "\(key.printableText) is there already in line \(earlier.line)"))
            } else {
                self.entries[key] = TextTable.Entry(line: line, value: Array(TableLines.trimmed(text[end...])))
            }
        }
        self.octetCounts = Set(self.entries.keys.map(\.count)).sorted(by: >)
    }

    package var count: Int { self.entries.count }

    package func finding(of key: [UInt8]) -> (value: [UInt8], line: Int)? {
        guard key.first != ASCII.at else { return nil }
        for octetCount in self.octetCounts where octetCount <= key.count {
            if let entry = self.entries[Array(key[..<octetCount])] { return (entry.value, entry.line) }
        }
        return nil
    }
}
