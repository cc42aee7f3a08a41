// SPDX-License-Identifier: Apache-2.0

import MailTypes

/// What is wrong with a setting of a program, in words that name it.
package struct SettingsFault: Error, Equatable, Sendable {
    package let name: String
    package let text: String

    package init(_ name: String, _ text: String) {
        self.name = name
        self.text = text
    }

    /// `size-max: must be a whole number`.
    package var description: String { "\(self.name): \(self.text)" }
}

/// The settings of one program: names and values, a name as often as it has values.
///
/// apusd hands it over frame by frame (pipes.md §6); by hand it comes from a file of `name value` lines.
/// Settings are the one place where text is `String`: they come from the administrator, not from mail.
package struct SettingsTable: Equatable, Sendable {
    package private(set) var pairs: [(name: String, value: String)] = []

    package init() {}

    package init(_ pairs: [(String, String)]) {
        for (name, value) in pairs { self.append(name, value) }
    }

    package mutating func append(_ name: String, _ value: String) { self.pairs.append((name, value)) }

    /// Reads a settings file: one `name value` a line, `#` begins a comment line.
    package init(fileOctets: [UInt8]) throws(SettingsFault) {
        let lines = fileOctets.split(separator: ASCII.lineFeed, omittingEmptySubsequences: false)
        for (index, line) in lines.enumerated() {
            let text = line.filter { $0 != ASCII.carriageReturn }
            guard let first = text.first(where: { $0 != ASCII.space && $0 != ASCII.tab }), first != 0x23 else {
                continue
            }
            let words = text.split(maxSplits: 1, whereSeparator: { $0 == ASCII.space || $0 == ASCII.tab })
            guard words.count == 2, let name = String(validating: words[0], as: UTF8.self),
                let value = String(validating: words[1], as: UTF8.self)
            else { throw SettingsFault("line \(index + 1)", "expected a name and a value") }
            self.append(name, value.trimmingBlanks)
        }
    }

    package static func == (left: SettingsTable, right: SettingsTable) -> Bool {
        left.pairs.elementsEqual(right.pairs) { $0.name == $1.name && $0.value == $1.value }
    }

    /// The first name that is none of `known`: a slip in a hand-written file.
    package func unknownName(known: Set<String>) -> String? {
        self.pairs.first { !known.contains($0.name) }?.name
    }

    /// All values of a name, in order.
    package func texts(_ name: String) -> [String] { self.pairs.filter { $0.name == name }.map(\.value) }

    /// The value of a name; the last one if there are several.
    package func text(_ name: String) -> String? { self.pairs.last { $0.name == name }?.value }

    package func text(_ name: String, default value: String) -> String { self.text(name) ?? value }

    /// A value that must be there.
    package func required(_ name: String) throws(SettingsFault) -> String {
        guard let value = self.text(name) else { throw SettingsFault(name, "must be set") }
        return value
    }

    package func integer(
        _ name: String, in range: ClosedRange<Int>, default value: Int
    ) throws(SettingsFault) -> Int {
        guard let text = self.text(name) else { return value }
        guard let number = Int(text), range.contains(number) else {
            throw SettingsFault(name, "must be a whole number from \(range.lowerBound) to \(range.upperBound)")
        }
        return number
    }

    /// A span of time, given in whole seconds.
    package func duration(
        _ name: String, in range: ClosedRange<Int>, default value: Duration
    ) throws(SettingsFault) -> Duration {
        guard self.text(name) != nil else { return value }
        return .seconds(try self.integer(name, in: range, default: 0))
    }

    /// `true` or `false`.
    package func boolean(_ name: String, default value: Bool) throws(SettingsFault) -> Bool {
        guard let text = self.text(name) else { return value }
        guard let truth = Bool(text) else { throw SettingsFault(name, "must be true or false") }
        return truth
    }

    /// Each value of a name, read by `read`; the fault says what it should have been.
    package func values<Value>(
        _ name: String, _ expected: String, _ read: (String) -> Value?
    ) throws(SettingsFault) -> [Value] {
        var values: [Value] = []
        for text in self.texts(name) {
            guard let value = read(text) else { throw SettingsFault(name, "\(text) is not \(expected)") }
            values.append(value)
        }
        return values
    }
}

extension String {
    fileprivate var trimmingBlanks: String {
        var view = Substring(self)
        while let last = view.last, last == " " || last == "\t" { view.removeLast() }
        while let first = view.first, first == " " || first == "\t" { view.removeFirst() }
        return String(view)
    }
}
