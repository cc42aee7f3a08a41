// SPDX-License-Identifier: Apache-2.0
//
// What the administrator's files of aliases and tables have in common: entries that go on over several lines, comments,
// quotation marks, and mistakes that are told with their lines.

import MailTypes

/// One thing that is wrong with a file, for `apus check` and the log.
package struct LineFault: Hashable, Sendable {
    /// Counted from 1.
    package let line: Int
    /// One line of printable text.
    package let text: String

    package init(line: Int, text: String) {
        self.line = line
        self.text = text
    }
}

/// The mistakes of a file, up to a bound; the last one then says that there are more.
struct LineFaults: Hashable, Sendable {
    /// So many are told.
    static let countMax = 100

    private(set) var list: [LineFault] = []

    mutating func note(_ line: Int, _ text: String) {
        if self.list.count < Self.countMax - 1 {
            self.list.append(LineFault(line: line, text: text))
        } else if self.list.count < Self.countMax {
            self.list.append(LineFault(line: line, text: "and more mistakes from here on"))
        }
    }

    mutating func sortByLine() { self.list.sort { $0.line < $1.line } }
}

/// The entries of a file: empty lines and those whose first character is `#` are left out, a line that begins with a
/// blank continues the one before.
enum LineFile {
    /// What stands in it.
    enum Item {
        /// An entry, and the line in which it begins.
        case entry([UInt8], line: Int)
        /// A line that begins with a blank, with no entry before it.
        case orphan(ArraySlice<UInt8>, line: Int)

        static let orphanText = "this line begins with a blank, so it continues an entry, but there is none before it"
    }

    /// Hands out the items one by one, as a file may be large. Lines of an entry are joined by a space.
    ///
    /// - Parameter isBlank: what counts as one. A CR before the LF of a line belongs to its end.
    static func forEachItem(_ octets: [UInt8], isBlank: (UInt8) -> Bool, _ body: (Item) -> Void) {
        var gathered: [UInt8] = []
        var gatheredLine = 0
        var line = 0
        var start = 0
        while start < octets.count {
            line += 1
            let end = octets[start...].firstIndex(of: ASCII.lineFeed) ?? octets.count
            var text = octets[start..<end]
            start = end + 1
            if text.last == ASCII.carriageReturn { text.removeLast() }
            guard let first = text.first(where: { !isBlank($0) }), first != 0x23 else { continue }
            guard text.first.map(isBlank) == true else {
                if gatheredLine > 0 { body(.entry(gathered, line: gatheredLine)) }
                gathered = Array(text)
                gatheredLine = line
                continue
            }
            if gatheredLine == 0 {
                body(.orphan(text, line: line))
            } else {
                gathered.append(ASCII.space)
                gathered += text
            }
        }
        if gatheredLine > 0 { body(.entry(gathered, line: gatheredLine)) }
    }

    /// Where the first octet of that kind outside quotes is.
    static func end(of text: ArraySlice<UInt8>, where isEnd: (UInt8) -> Bool) -> Int? {
        var isQuoted = false
        var isEscaped = false
        for index in text.indices {
            let octet = text[index]
            if isEscaped {
                isEscaped = false
            } else if octet == ASCII.backslash {
                isEscaped = isQuoted
            } else if octet == ASCII.quote {
                isQuoted.toggle()
            } else if isEnd(octet), !isQuoted {
                return index
            }
        }
        return nil
    }

    /// Without blanks at both ends.
    static func trimmed(_ text: ArraySlice<UInt8>, isBlank: (UInt8) -> Bool) -> ArraySlice<UInt8> {
        var text = text.drop(while: isBlank)
        while let last = text.last, isBlank(last) { text.removeLast() }
        return text
    }
}
