// SPDX-License-Identifier: Apache-2.0

package import MailTypes

/// The entries of a table that is a text file, and everything that is wrong with it.
///
/// `key value`, one entry a line, parted by blanks; the value may be missing. Empty lines and lines whose first character is
/// `#` are passed over; a line that begins with a blank continues the one before. A key is an address, `@domain` or a
/// domain (`TableKey`); quotes in an address hold blanks.
///
/// A mistake never makes mail bounce: if a key cannot be read, any key that is not found might be that one
/// (`hasUnreadableLine`).
package struct TextTable: Hashable, Sendable {
    /// What stands behind one key.
    package struct Entry: Hashable, Sendable {
        /// Where it begins, counted from 1.
        package let line: Int
        /// Without blanks at its ends; empty if there is none.
        package let value: [UInt8]
    }

    /// By key, as `TableKey` writes it.
    package private(set) var entries: [[UInt8]: Entry] = [:]
    private var noted = LineFaults()
    /// There is a line whose key is not known.
    package private(set) var hasUnreadableLine = false

    /// A file larger than this is not read.
    package static let octetCountMax = 268_435_456
    /// A value longer than this is a fault.
    package static let valueOctetCountMax = 65_536
    /// So many faults are told one by one; the last of them says that there are more.
    package static let faultCountMax = LineFaults.countMax

    /// In the order of their lines.
    package var faults: [LineFault] { self.noted.list }

    /// No entries at all.
    package init() {}

    /// What stands for a file that could not be read: any key might be in it.
    package static var unreadable: TextTable {
        var table = TextTable()
        table.hasUnreadableLine = true
        return table
    }

    /// Reads a file of at most `octetCountMax` octets; a longer one is a fault.
    ///
    /// - Parameter domains: how those beyond ASCII are written.
    package init(octets: [UInt8], domains: DomainMapping = .none) {
        guard octets.count <= Self.octetCountMax else {
            self.hasUnreadableLine = true
            self.noted.note(1, "the file is larger than \(Self.octetCountMax) octets; nothing of it was read")
            return
        }
        LineFile.forEachItem(octets, isBlank: \.isTableBlank) { item in
            switch item {
            case .entry(let text, let line): self.take(text, line: line, domains)
            case .orphan(_, let line):
                self.hasUnreadableLine = true
                self.noted.note(line, LineFile.Item.orphanText)
            }
        }
        self.noted.sortByLine()
    }

    /// What stands behind a key, written as `TableKey` writes it.
    package func finding(of key: [UInt8]) -> Entry? { self.entries[key] }

    private mutating func take(_ text: [UInt8], line: Int, _ domains: DomainMapping) {
        let end = LineFile.end(of: text[...], where: \.isTableBlank) ?? text.count
        guard let key = TableKey.key(Array(text[..<end]), domains) else {
            self.hasUnreadableLine = true
            let shown = text[..<end].prefix(60).printableText
            self.noted.note(line, "\"\(shown)\" is no address, no @domain and no domain with a dot in it")
            return
        }
        let value = LineFile.trimmed(text[end...], isBlank: \.isTableBlank)
        if let earlier = self.entries[key] {
            self.noted.note(line, "\(key.printableText) is there already in line \(earlier.line), which counts")
        } else if value.count > Self.valueOctetCountMax {
            self.hasUnreadableLine = true
            self.noted.note(line, "\(key.printableText): its value is longer than \(Self.valueOctetCountMax) octets")
        } else {
            self.entries[key] = Entry(line: line, value: Array(value))
        }
    }
}

extension UInt8 {
    /// A space, a tab, or the CR of a line end.
    var isTableBlank: Bool { self == ASCII.space || self == ASCII.tab || self == ASCII.carriageReturn }
}
