// SPDX-License-Identifier: Apache-2.0

import MailTypes

/// Reads a TOML document: statements, keys and the tables that they make. The values are read in TOMLValueReader.swift.
///
/// A mistake does not end the reading: the rest of its statement's first line is skipped and the next line is looked
/// at, so that one run names all mistakes. What could not be understood is missing in the tree.
package struct TOMLReader {
    /// Lists and inline tables may be nested so deep.
    static let nestingMax = 32
    /// After so many mistakes the rest of the file is not read: it is something else than TOML.
    package static let faultCountMax = 20

    let octets: [UInt8]
    var index = 0
    var line = 1
    private let root = TOMLTableBuilder(origin: .header)
    private var current: TOMLTableBuilder
    private var headerCount = 0
    private var faults: [TOMLFault] = []

    private init(_ octets: [UInt8]) {
        self.octets = octets
        self.current = self.root
    }

    /// The whole document, and every mistake in it; the table is complete if there are none.
    package static func read(_ octets: [UInt8]) -> (table: TOMLTable, faults: [TOMLFault]) {
        var reader = TOMLReader(octets)
        if let fault = reader.firstForeignOctet() { return (TOMLTable(entries: []), [fault]) }
        if octets.starts(with: [0xEF, 0xBB, 0xBF]) { reader.index = 3 }
        reader.readStatements()
        return (reader.root.table, reader.faults)
    }

    /// A document is UTF-8 without control characters; told apart first, for the text of a mistake shows it.
    private func firstForeignOctet() -> TOMLFault? {
        var line = 1
        for (place, octet) in self.octets.enumerated() {
            if octet == ASCII.lineFeed {
                line += 1
            } else if octet == ASCII.carriageReturn {
                guard place + 1 < self.octets.count, self.octets[place + 1] == ASCII.lineFeed else {
                    return TOMLFault(line: line, text: "a carriage return that does not end a line")
                }
            } else if octet == 0x7F || (octet < 0x20 && octet != ASCII.tab) {
                return TOMLFault(line: line, text: "a control character (octet \(octet))")
            }
        }
        guard String(validating: self.octets, as: UTF8.self) == nil else { return nil }
        let lines = self.octets.split(separator: ASCII.lineFeed, omittingEmptySubsequences: false)
        let place = lines.firstIndex { String(validating: $0, as: UTF8.self) == nil } ?? 0
        return TOMLFault(line: place + 1, text: "octets that are not UTF-8")
    }

    private mutating func readStatements() {
        while self.index < self.octets.count {
            let start = (index: self.index, line: self.line)
            do throws(TOMLFault) {
                try self.readStatement()
            } catch {
                self.faults.append(error)
                guard self.faults.count < Self.faultCountMax else { return }
                self.index = start.index
                self.line = start.line
                self.skipLine()
            }
        }
    }

    private mutating func readStatement() throws(TOMLFault) {
        self.skipBlanks()
        switch self.peek {
        case nil, ASCII.lineFeed, ASCII.carriageReturn, 0x23: break
        case 0x5B: try self.readHeader()
        default: try self.readKeyValue(into: self.current)
        }
        self.skipBlanks()
        if self.peek == 0x23 { self.skipComment() }
        guard self.takeLineEnd() || self.peek == nil else {
            throw self.fault("unexpected \(self.shown) after the end of the statement")
        }
    }

    // MARK: Headers

    private mutating func readHeader() throws(TOMLFault) {
        let line = self.line
        self.index += 1
        let isArray = self.peek == 0x5B
        if isArray { self.index += 1 }
        self.skipBlanks()
        let keys = try self.readDottedKey()
        for _ in 0..<(isArray ? 2 : 1) {
            guard self.peek == 0x5D else { throw self.fault("the header is not closed with \(isArray ? "]]" : "]")") }
            self.index += 1
        }
        // Whatever the header turns out to be, what follows belongs to it and not to the table before.
        self.current = TOMLTableBuilder(origin: .header)
        self.headerCount += 1
        let name = keys.joined(separator: ".")
        guard let last = keys.last else { return }
        var table = self.root
        for key in keys.dropLast() { table = try self.enter(key, of: table, name: name, line: line) }
        switch (table[last]?.content, isArray) {
        case (nil, false):
            table.add(last, line: line, .table(self.current))
        case (nil, true):
            table.add(last, line: line, .tables([(line, self.current)]))
        case (.tables, true):
            table.extend(last, line: line, with: self.current)
        case (.table(let known), false) where known.origin == .implied:
            known.origin = .header
            self.current = known
        case (.tables, false):
            throw TOMLFault(line: line, text: "[\(name)] is a list of tables above; write [[\(name)]]")
        case (.table, false), (.value, false), (.value, true), (.table, true):
            let before = table[last].map { " in line \($0.line)" } ?? ""
            throw TOMLFault(line: line, text: "\(name) is already set\(before)")
        }
    }

    /// The table of a key on the way to a header's table; of a list of tables the last.
    private func enter(
        _ key: String, of table: TOMLTableBuilder, name: String, line: Int
    ) throws(TOMLFault) -> TOMLTableBuilder {
        switch table[key]?.content {
        case nil:
            let new = TOMLTableBuilder(origin: .implied)
            table.add(key, line: line, .table(new))
            return new
        case .table(let known):
            return known
        case .tables(let tables):
            // `tables` is never empty; the new table only satisfies the compiler.
            return tables.last?.table ?? TOMLTableBuilder(origin: .header)
        case .value:
            throw TOMLFault(line: line, text: "[\(name)] cannot be: \(key) is not a table")
        }
    }

    // MARK: Keys

    /// `key = value`, also within an inline table.
    mutating func readKeyValue(into table: TOMLTableBuilder, depth: Int = 0) throws(TOMLFault) {
        let line = self.line
        let keys = try self.readDottedKey()
        guard self.peek == 0x3D else {
            throw self.fault("expected = after the key \(keys.joined(separator: ".")), found \(self.shown)")
        }
        self.index += 1
        self.skipBlanks()
        let value = try self.readValue(depth: depth)
        guard let last = keys.last else { return }
        var table = table
        for key in keys.dropLast() {
            switch table[key]?.content {
            case nil:
                let new = TOMLTableBuilder(origin: .dotted(header: self.headerCount))
                table.add(key, line: line, .table(new))
                table = new
            case .table(let known) where known.origin == .implied || known.origin == .dotted(header: self.headerCount):
                known.origin = .dotted(header: self.headerCount)
                table = known
            case .table, .tables, .value:
                let before = table[key].map { " in line \($0.line)" } ?? ""
                throw TOMLFault(line: line, text: "\(key) is already set\(before) and cannot be added to here")
            }
        }
        if let known = table[last] {
            throw TOMLFault(line: line, text: "\(last) is already set in line \(known.line)")
        }
        table.add(last, line: line, .value(value))
    }

    private mutating func readDottedKey() throws(TOMLFault) -> [String] {
        var keys = [try self.readKey()]
        self.skipBlanks()
        while self.peek == ASCII.dot {
            self.index += 1
            self.skipBlanks()
            keys.append(try self.readKey())
            self.skipBlanks()
            // Each part makes a table within a table; nobody means so many.
            guard keys.count <= Self.nestingMax else { throw self.fault("a key of too many parts") }
        }
        return keys
    }

    private mutating func readKey() throws(TOMLFault) -> String {
        switch self.peek {
        case ASCII.quote: return try self.readBasicString()
        case 0x27: return try self.readLiteralString()
        default: break
        }
        let start = self.index
        while let octet = self.peek, octet.isLetterOrDigit || octet == ASCII.hyphen || octet == 0x5F { self.index += 1 }
        guard self.index > start else { throw self.fault("expected a key, found \(self.shown)") }
        return String(decoding: self.octets[start..<self.index], as: UTF8.self)
    }

    // MARK: The text

    var peek: UInt8? { self.index < self.octets.count ? self.octets[self.index] : nil }

    /// What stands here, for the text of a mistake.
    var shown: String {
        switch self.peek {
        case nil: "the end of the file"
        case ASCII.lineFeed, ASCII.carriageReturn: "the end of the line"
        case let octet?: octet.isPrintable ? "\"\(Unicode.Scalar(octet))\"" : "a character outside ASCII"
        }
    }

    func fault(_ text: String) -> TOMLFault { TOMLFault(line: self.line, text: text) }

    func isNext(_ word: StaticString) -> Bool { self.octets[self.index...].starts(with: word.description.utf8) }

    mutating func skipBlanks() {
        while self.peek == ASCII.space || self.peek == ASCII.tab { self.index += 1 }
    }

    mutating func skipComment() {
        while let octet = self.peek, octet != ASCII.lineFeed, octet != ASCII.carriageReturn { self.index += 1 }
    }

    private mutating func skipLine() {
        self.skipComment()
        _ = self.takeLineEnd()
    }

    /// Takes LF or CR LF, and counts it.
    mutating func takeLineEnd() -> Bool {
        if self.peek == ASCII.carriageReturn { self.index += 1 }
        guard self.peek == ASCII.lineFeed else { return false }
        self.index += 1
        self.line += 1
        return true
    }
}
