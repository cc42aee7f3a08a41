// SPDX-License-Identifier: Apache-2.0

import MailTypes

/// The entries of a table that is a text file, and everything that is wrong with it.
///
/// `key value`, one entry a line, parted by blanks; the value may be missing. Empty lines and lines whose first character is
/// `#` are passed over; a line that begins with a blank continues the one before. A key is an address, `@domain` or a
/// domain (`TableKey`); quotes in an address hold blanks.
///
/// A mistake never makes mail bounce: if a key cannot be read, any key that is not found might be that one
/// (`hasUnreadableLine`).
package struct TextTable: Hashable, Sendable {
    /// One thing that is wrong, for `apus check` and the log.
    package struct Fault: Hashable, Sendable {
        /// Counted from 1.
        package let line: Int
        /// One line of printable text.
        package let text: String
    }

    /// What stands behind one key.
    package struct Entry: Hashable, Sendable {
        /// Where it begins, counted from 1.
        package let line: Int
        /// Without blanks at its ends; empty if there is none.
        package let value: [UInt8]
    }

    /// By key, as `TableKey` writes it.
    package private(set) var entries: [[UInt8]: Entry] = [:]
    /// In the order of their lines.
    package private(set) var faults: [Fault] = []
    /// There is a line whose key is not known.
    package private(set) var hasUnreadableLine = false

    /// A file larger than this is not read.
    package static let octetCountMax = 268_435_456
    /// A value longer than this is a fault.
    package static let valueOctetCountMax = 65_536
    /// So many faults are told one by one; the last of them says that there are more.
    package static let faultCountMax = 100

    /// No entries at all.
    package init() {}

    /// What stands for a file that could not be read: any key might be in it.
    package static var unreadable: TextTable {
        var table = TextTable()
        table.hasUnreadableLine = true
        return table
    }

    /// Reads a file of at most `octetCountMax` octets; a longer one is a fault.
    package init(octets: [UInt8]) {
        guard octets.count <= Self.octetCountMax else {
            self.hasUnreadableLine = true
            self.note(1, "the file is larger than \(Self.octetCountMax) octets; nothing of it was read")
            return
        }
        var gathered: [UInt8] = []
        var gatheredLine = 0
        var line = 0
        var start = 0
        while start < octets.count {
            line += 1
            let end = octets[start...].firstIndex(of: ASCII.lineFeed) ?? octets.count
            let text = octets[start..<end]
            start = end + 1
            guard let first = text.first(where: { !$0.isTableBlank }), first != 0x23 else { continue }
            if text.first?.isTableBlank == true {
                if gatheredLine == 0 {
                    self.hasUnreadableLine = true
                    self.note(
                        line, "this line begins with a blank, so it continues an entry, but there is none before it")
                } else {
                    gathered.append(ASCII.space)
                    gathered += text
                }
                continue
            }
            self.take(gathered, line: gatheredLine)
            gathered = Array(text)
            gatheredLine = line
        }
        self.take(gathered, line: gatheredLine)
        self.faults.sort { $0.line < $1.line }
    }

    /// What stands behind a key, written as `TableKey` writes it.
    package func finding(of key: [UInt8]) -> Entry? { self.entries[key] }

    private mutating func note(_ line: Int, _ text: String) {
        if self.faults.count < Self.faultCountMax - 1 {
            self.faults.append(Fault(line: line, text: text))
        } else if self.faults.count < Self.faultCountMax {
            self.faults.append(Fault(line: line, text: "and more mistakes from here on"))
        }
    }

    private mutating func take(_ text: [UInt8], line: Int) {
        guard line > 0 else { return }
        let end = Self.keyEnd(text)
        guard let key = TableKey.key(Array(text[..<end])) else {
            self.hasUnreadableLine = true
            let shown = text[..<end].prefix(60).printableText
            self.note(line, "\"\(shown)\" is no address, no @domain and no domain with a dot in it")
            return
        }
        var value = text[end...]
        while let first = value.first, first.isTableBlank { value.removeFirst() }
        while let last = value.last, last.isTableBlank { value.removeLast() }
        if let earlier = self.entries[key] {
            self.note(line, "\(key.printableText) is there already in line \(earlier.line), which counts")
        } else if value.count > Self.valueOctetCountMax {
            self.hasUnreadableLine = true
            self.note(line, "\(key.printableText): its value is longer than \(Self.valueOctetCountMax) octets")
        } else {
            self.entries[key] = Entry(line: line, value: Array(value))
        }
    }

    /// Where the first blank outside quotes is, or the end.
    private static func keyEnd(_ text: [UInt8]) -> Int {
        var isQuoted = false
        var isEscaped = false
        for (index, octet) in text.enumerated() {
            if isEscaped {
                isEscaped = false
            } else if octet == ASCII.backslash {
                isEscaped = isQuoted
            } else if octet == ASCII.quote {
                isQuoted.toggle()
            } else if octet.isTableBlank, !isQuoted {
                return index
            }
        }
        return text.count
    }
}

extension UInt8 {
    /// A space, a tab, or the CR of a line end.
    fileprivate var isTableBlank: Bool { self == ASCII.space || self == ASCII.tab || self == ASCII.carriageReturn }
}
