// SPDX-License-Identifier: Apache-2.0

/// A table of a TOML document (toml.io, version 1.0.0), in which every key and every value knows its line.
///
/// The lines are why Apus reads TOML itself: a mistake in the settings is told with the place where it is.
package struct TOMLTable: Equatable, Sendable {
    /// A key with its value.
    package struct Entry: Equatable, Sendable {
        package let key: String
        /// Where the key stands, from 1.
        package let line: Int
        package let value: TOMLValue

        package init(key: String, line: Int, value: TOMLValue) {
            self.key = key
            self.line = line
            self.value = value
        }
    }

    /// In the order of the file; no two have the same key.
    package let entries: [Entry]

    package init(entries: [Entry]) { self.entries = entries }

    package subscript(_ key: String) -> Entry? { self.entries.first { $0.key == key } }
}

/// What a key can be set to.
package enum TOMLValue: Equatable, Sendable {
    case string(String)
    case integer(Int64)
    case float(Double)
    case boolean(Bool)
    /// A date, a time or both, as written; no setting has such a value.
    case moment(String)
    case array([TOMLElement])
    case table(TOMLTable)

    /// What a person calls it.
    package var kind: String {
        switch self {
        case .string: "a string"
        case .integer: "an integer"
        case .float: "a decimal fraction"
        case .boolean: "true or false"
        case .moment: "a date or time"
        case .array: "a list"
        case .table: "a table"
        }
    }
}

/// One value of a list, with its line.
package struct TOMLElement: Equatable, Sendable {
    package let line: Int
    package let value: TOMLValue

    package init(line: Int, value: TOMLValue) {
        self.line = line
        self.value = value
    }
}

/// A place at which the text is not TOML.
package struct TOMLFault: Error, Equatable, Sendable {
    package let line: Int
    /// What is wrong, in the words of the administrator.
    package let text: String

    package init(line: Int, text: String) {
        self.line = line
        self.text = text
    }
}

/// A table while the document is read. Tables are found again and added to by later lines, hence a class.
final class TOMLTableBuilder {
    /// What stands at a key while the document is read.
    enum Content {
        case value(TOMLValue)
        case table(TOMLTableBuilder)
        /// Made by `[[key]]`; never empty.
        case tables([(line: Int, table: TOMLTableBuilder)])
    }

    /// How a table came into being, which decides who may add to it.
    enum Origin: Equatable {
        /// It is a parent in somebody's header.
        case implied
        /// By a header of its own.
        case header
        /// By a dotted key below the header of this number: open to dotted keys below the same header.
        case dotted(header: Int)
    }

    var origin: Origin
    private(set) var entries: [(key: String, line: Int, content: Content)] = []
    private var places: [String: Int] = [:]

    init(origin: Origin) { self.origin = origin }

    subscript(_ key: String) -> (line: Int, content: Content)? {
        self.places[key].map { (self.entries[$0].line, self.entries[$0].content) }
    }

    /// - Precondition: the key is not set yet.
    func add(_ key: String, line: Int, _ content: Content) {
        precondition(self.places[key] == nil)
        self.places[key] = self.entries.count
        self.entries.append((key, line, content))
    }

    /// Adds a table to the `[[key]]` that is there.
    func extend(_ key: String, line: Int, with table: TOMLTableBuilder) {
        guard let place = self.places[key], case .tables(let tables) = self.entries[place].content else { return }
        self.entries[place].content = .tables(tables + [(line, table)])
    }

    /// The finished table.
    var table: TOMLTable {
        TOMLTable(
            entries: self.entries.map { entry in
                let value: TOMLValue =
                    switch entry.content {
                    case .value(let value): value
                    case .table(let builder): .table(builder.table)
                    case .tables(let tables):
                        .array(tables.map { TOMLElement(line: $0.line, value: .table($0.table.table)) })
                    }
                return TOMLTable.Entry(key: entry.key, line: entry.line, value: value)
            })
    }
}
