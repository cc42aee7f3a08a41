// SPDX-License-Identifier: Apache-2.0

import MailTypes

/// The values of TOML.
extension TOMLReader {
    mutating func readValue(depth: Int) throws(TOMLFault) -> TOMLValue {
        guard depth <= Self.nestingMax else { throw self.fault("lists nested too deep") }
        switch self.peek {
        case ASCII.quote:
            return .string(self.isNext("\"\"\"") ? try self.readLongBasicString() : try self.readBasicString())
        case 0x27:
            return .string(self.isNext("'''") ? try self.readLongLiteralString() : try self.readLiteralString())
        case 0x5B: return try self.readArray(depth: depth)
        case 0x7B: return try self.readInlineTable(depth: depth)
        default: return try self.readBareValue()
        }
    }

    // MARK: Lists and inline tables

    private mutating func readArray(depth: Int) throws(TOMLFault) -> TOMLValue {
        let start = self.line
        var elements: [TOMLElement] = []
        self.index += 1
        while true {
            self.skipSpace()
            if self.peek == 0x5D { break }
            guard self.peek != nil else { throw TOMLFault(line: start, text: "the list is not closed with ]") }
            let line = self.line
            elements.append(TOMLElement(line: line, value: try self.readValue(depth: depth + 1)))
            self.skipSpace()
            if self.peek == 0x2C {
                self.index += 1
            } else if let octet = self.peek, octet != 0x5D {
                throw self.fault("expected , or ] in the list, found \(self.shown)")
            }
        }
        self.index += 1
        return .array(elements)
    }

    /// Blanks, line ends and comments, as lists may have them between their values.
    private mutating func skipSpace() {
        while true {
            self.skipBlanks()
            if self.peek == 0x23 { self.skipComment() }
            guard self.takeLineEnd() else { return }
        }
    }

    private mutating func readInlineTable(depth: Int) throws(TOMLFault) -> TOMLValue {
        let builder = TOMLTableBuilder(origin: .header)
        self.index += 1
        self.skipBlanks()
        if self.peek == 0x7D {
            self.index += 1
            return .table(builder.table)
        }
        while true {
            self.skipBlanks()
            try self.readKeyValue(into: builder, depth: depth + 1)
            self.skipBlanks()
            if self.peek == 0x7D { break }
            guard self.peek == 0x2C else {
                throw self.fault("expected , or } in the inline table, found \(self.shown)")
            }
            self.index += 1
        }
        self.index += 1
        return .table(builder.table)
    }

    // MARK: Strings

    /// `"text"`, in one line.
    mutating func readBasicString() throws(TOMLFault) -> String {
        var text: [UInt8] = []
        self.index += 1
        while let octet = self.peek {
            switch octet {
            case ASCII.quote:
                self.index += 1
                return String(decoding: text, as: UTF8.self)
            case ASCII.backslash:
                try self.readEscape(into: &text)
            case ASCII.lineFeed, ASCII.carriageReturn:
                throw self.fault("the string is not closed with \" in its line")
            default:
                text.append(octet)
                self.index += 1
            }
        }
        throw self.fault("the string is not closed with \"")
    }

    /// `'text'`, in one line and without escapes.
    mutating func readLiteralString() throws(TOMLFault) -> String {
        self.index += 1
        let start = self.index
        while let octet = self.peek, octet != ASCII.lineFeed, octet != ASCII.carriageReturn {
            self.index += 1
            if octet == 0x27 { return String(decoding: self.octets[start..<(self.index - 1)], as: UTF8.self) }
        }
        throw self.fault("the string is not closed with '")
    }

    private mutating func readLongBasicString() throws(TOMLFault) -> String {
        let start = self.line
        var text: [UInt8] = []
        self.index += 3
        _ = self.takeLineEnd()
        while let octet = self.peek {
            if octet == ASCII.backslash {
                if self.skipEscapedLineEnd() { continue }
                try self.readEscape(into: &text)
            } else if try self.takeLongPiece(octet, mark: ASCII.quote, into: &text) {
                return String(decoding: text, as: UTF8.self)
            }
        }
        throw TOMLFault(line: start, text: "the string is not closed with \"\"\"")
    }

    private mutating func readLongLiteralString() throws(TOMLFault) -> String {
        let start = self.line
        var text: [UInt8] = []
        self.index += 3
        _ = self.takeLineEnd()
        while let octet = self.peek {
            if try self.takeLongPiece(octet, mark: 0x27, into: &text) { return String(decoding: text, as: UTF8.self) }
        }
        throw TOMLFault(line: start, text: "the string is not closed with '''")
    }

    /// One octet, one line end, or a run of quotation marks; true if that run ends the string.
    private mutating func takeLongPiece(
        _ octet: UInt8, mark: UInt8, into text: inout [UInt8]
    ) throws(TOMLFault) -> Bool {
        if octet == ASCII.lineFeed || octet == ASCII.carriageReturn {
            _ = self.takeLineEnd()
            text.append(ASCII.lineFeed)
            return false
        }
        guard octet == mark else {
            text.append(octet)
            self.index += 1
            return false
        }
        var count = 0
        while self.peek == mark {
            count += 1
            self.index += 1
        }
        guard count >= 3 else {
            text.append(contentsOf: repeatElement(mark, count: count))
            return false
        }
        // One or two marks may stand right before the closing three.
        guard count <= 5 else { throw self.fault("too many quotation marks in a row") }
        text.append(contentsOf: repeatElement(mark, count: count - 3))
        return true
    }

    /// A backslash at the end of a line takes away all white space up to the next other character.
    private mutating func skipEscapedLineEnd() -> Bool {
        let start = (index: self.index, line: self.line)
        self.index += 1
        self.skipBlanks()
        guard self.takeLineEnd() else {
            self.index = start.index
            self.line = start.line
            return false
        }
        repeat { self.skipBlanks() } while self.takeLineEnd()
        return true
    }

    private mutating func readEscape(into text: inout [UInt8]) throws(TOMLFault) {
        self.index += 1
        guard let octet = self.peek else { throw self.fault("the string is not closed") }
        self.index += 1
        switch octet {
        case 0x62: text.append(0x08)
        case 0x74: text.append(ASCII.tab)
        case 0x6E: text.append(ASCII.lineFeed)
        case 0x66: text.append(0x0C)
        case 0x72: text.append(ASCII.carriageReturn)
        case ASCII.quote, ASCII.backslash: text.append(octet)
        case 0x75: try self.readScalar(digits: 4, into: &text)
        case 0x55: try self.readScalar(digits: 8, into: &text)
        default:
            throw self.fault("a backslash with \([octet].printableText) after it means nothing; write \\\\ for one")
        }
    }

    private mutating func readScalar(digits: Int, into text: inout [UInt8]) throws(TOMLFault) {
        var value: UInt32 = 0
        for _ in 0..<digits {
            guard let octet = self.peek, let digit = Self.digit(octet, radix: 16) else {
                throw self.fault("expected \(digits) hexadecimal digits")
            }
            value = value << 4 | UInt32(digit)
            self.index += 1
        }
        guard let scalar = Unicode.Scalar(value), let units = UTF8.encode(scalar) else {
            throw self.fault("there is no such character")
        }
        text.append(contentsOf: units)
    }

    // MARK: Numbers, truth, dates

    private mutating func readBareValue() throws(TOMLFault) -> TOMLValue {
        let start = self.index
        while let octet = self.peek, Self.isBare(octet) { self.index += 1 }
        // A date and its time may be parted by one space.
        if Self.isDate(self.octets[start..<self.index]), self.peek == ASCII.space, self.index + 1 < self.octets.count,
            self.octets[self.index + 1].isDigit
        {
            self.index += 1
            while let octet = self.peek, Self.isBare(octet) { self.index += 1 }
        }
        let word = self.octets[start..<self.index]
        guard !word.isEmpty else { throw self.fault("expected a value, found \(self.shown)") }
        if word.elementsEqual("true".utf8) { return .boolean(true) }
        if word.elementsEqual("false".utf8) { return .boolean(false) }
        if let value = Self.integer(word) { return .integer(value) }
        if let value = Self.float(word) { return .float(value) }
        if Self.isMoment(word) { return .moment(String(decoding: word, as: UTF8.self)) }
        throw self.fault("\(word.printableText) is not a value; text stands in quotation marks")
    }

    private static func isBare(_ octet: UInt8) -> Bool {
        octet.isLetterOrDigit || octet == 0x2B || octet == ASCII.hyphen || octet == 0x5F || octet == ASCII.dot
            || octet == ASCII.colon
    }

    private static func digit(_ octet: UInt8, radix: Int64) -> Int64? {
        let value: Int64
        switch octet.lowercased {
        case 0x30...0x39: value = Int64(octet) - 0x30
        case 0x61...0x66: value = Int64(octet.lowercased) - 0x61 + 10
        default: return nil
        }
        return value < radix ? value : nil
    }

    private static func integer(_ word: ArraySlice<UInt8>) -> Int64? {
        var rest = word
        var isNegative = false
        var radix: Int64 = 10
        if let sign = rest.first, sign == 0x2B || sign == ASCII.hyphen {
            isNegative = sign == ASCII.hyphen
            rest = rest.dropFirst()
        } else if rest.starts(with: "0x".utf8) {
            radix = 16
        } else if rest.starts(with: "0o".utf8) {
            radix = 8
        } else if rest.starts(with: "0b".utf8) {
            radix = 2
        }
        if radix != 10 { rest = rest.dropFirst(2) }
        // Why: a leading zero means octal to some readers.
        guard radix != 10 || rest.count == 1 || rest.first != 0x30 else { return nil }
        var value: Int64 = 0
        var wasDigit = false
        for octet in rest {
            if octet == 0x5F, wasDigit {
                wasDigit = false
                continue
            }
            guard let digit = Self.digit(octet, radix: radix) else { return nil }
            let (product, overflow) = value.multipliedReportingOverflow(by: radix)
            let (sum, carry) =
                isNegative
                ? product.subtractingReportingOverflow(digit) : product.addingReportingOverflow(digit)
            guard !overflow, !carry else { return nil }
            value = sum
            wasDigit = true
        }
        return wasDigit ? value : nil
    }

    private static func float(_ word: ArraySlice<UInt8>) -> Double? {
        var rest = word
        var isNegative = false
        if let sign = rest.first, sign == 0x2B || sign == ASCII.hyphen {
            isNegative = sign == ASCII.hyphen
            rest = rest.dropFirst()
        }
        if rest.elementsEqual("inf".utf8) { return isNegative ? -Double.infinity : .infinity }
        if rest.elementsEqual("nan".utf8) { return .nan }
        var plain: [UInt8] = []
        var runs: [Int] = [0]
        var marks: [UInt8] = []
        var wasDigit = false
        for octet in rest {
            switch octet.lowercased {
            case 0x30...0x39:
                runs[runs.count - 1] += 1
                wasDigit = true
                plain.append(octet)
            case 0x5F where wasDigit:
                wasDigit = false
            case ASCII.dot where wasDigit && marks.isEmpty, 0x65 where wasDigit && marks.last != 0x65:
                marks.append(octet.lowercased)
                runs.append(0)
                wasDigit = false
                plain.append(octet)
            case 0x2B where marks.last == 0x65 && runs.last == 0 && plain.last?.lowercased == 0x65,
                ASCII.hyphen where marks.last == 0x65 && runs.last == 0 && plain.last?.lowercased == 0x65:
                plain.append(octet)
            default: return nil
            }
        }
        guard wasDigit, !marks.isEmpty, runs[0] == 1 || plain.first != 0x30 else { return nil }
        return Double(String(decoding: plain, as: UTF8.self)).map { isNegative ? -$0 : $0 }
    }

    /// `1979-05-27`.
    private static func isDate(_ word: ArraySlice<UInt8>) -> Bool { Self.matches(word, "0000-00-00") }

    /// RFC 3339 §5.6: a date, a time, or both with `T` or a space between and an offset or none.
    private static func isMoment(_ word: ArraySlice<UInt8>) -> Bool {
        if Self.isDate(word) || Self.isTime(word) { return true }
        guard word.count > 11, Self.isDate(word.prefix(10)),
            word[word.startIndex + 10] == ASCII.space || word[word.startIndex + 10].lowercased == 0x74
        else { return false }
        let time = word.dropFirst(11)
        if Self.isTime(time) { return true }
        if time.last?.lowercased == 0x7A { return Self.isTime(time.dropLast()) }
        return Self.isTime(time.dropLast(6))
            && (Self.matches(time.suffix(6), "+00:00") || Self.matches(time.suffix(6), "-00:00"))
    }

    /// `07:32:00` and `07:32:00.999`.
    private static func isTime(_ word: ArraySlice<UInt8>) -> Bool {
        guard Self.matches(word.prefix(8), "00:00:00") else { return false }
        let fraction = word.dropFirst(8)
        return fraction.isEmpty
            || (fraction.first == ASCII.dot && fraction.count > 1 && fraction.dropFirst().allSatisfy(\.isDigit))
    }

    /// Whether the word is the pattern, in which 0 stands for any digit.
    private static func matches(_ word: ArraySlice<UInt8>, _ pattern: StaticString) -> Bool {
        word.elementsEqual(pattern.description.utf8) { $1 == 0x30 ? $0.isDigit : $0 == $1 }
    }
}
