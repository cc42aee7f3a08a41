// SPDX-License-Identifier: Apache-2.0
//
// What a server says (RFC 5321 §4.2), read by the client. The server is as much a stranger as any client:
// lines and their number are bounded, and none of its octets gets further than this file unless printable.

package import MailTypes

/// One complete reply of a server.
package struct PeerReply: Hashable, Sendable {
    /// 200…599; of the last line, should they differ.
    package let code: UInt16
    /// The enhanced status that the first line begins with, if its class agrees with `code` (RFC 2034 §4).
    ///
    /// It is taken whether or not the server announced ENHANCEDSTATUSCODES: servers that were greeted by HELO,
    /// or that refuse before EHLO, have no way to announce it, and use it nevertheless.
    package let status: EnhancedStatus?
    /// What the lines say after code and status, a line feed between two lines; everything else is printable ASCII.
    ///
    /// At most `ReplyParser.Limits.textOctetCountMax` octets; what is longer is cut.
    package let text: [UInt8]

    package init(code: UInt16, status: EnhancedStatus?, text: [UInt8]) {
        self.code = code
        self.status = status
        self.text = text
    }

    /// The text in one line.
    package var line: [UInt8] { self.text.map { $0 == ASCII.lineFeed ? ASCII.space : $0 } }
}

/// How a server broke the form of replies. The connection is of no use after it.
package enum ReplyFault: Error, Hashable, Sendable {
    /// A line longer than `lineOctetCountMax`.
    case lineTooLong
    /// More lines in one reply than `lineCountMax`.
    case tooManyLines
    /// A line that does not begin with three digits, or whose code is not 200…599.
    case noReplyCode
    /// Two lines of one reply whose codes differ in their first digit, which alone says whether it is a refusal.
    case codesDiffer
}

/// Cuts what a server sends into replies.
///
/// A line may end in a lone LF: some servers send that, and nothing can be smuggled into replies by it, as every
/// line must begin with a reply code.
package struct ReplyParser: Sendable {
    /// What one reply may take.
    package struct Limits: Hashable, Sendable {
        /// Octets of one line without its end. RFC 5321 §4.5.3.1.5 says 512 with its end; others send more.
        package var lineOctetCountMax: Int
        package var lineCountMax: Int
        /// Octets of text kept of one reply; the rest is read and dropped.
        package var textOctetCountMax: Int

        package init(lineOctetCountMax: Int, lineCountMax: Int, textOctetCountMax: Int) {
            self.lineOctetCountMax = lineOctetCountMax
            self.lineCountMax = lineCountMax
            self.textOctetCountMax = textOctetCountMax
        }
    }

    private let limits: Limits
    /// The beginning of a line whose end has not come.
    private var partial: [UInt8] = []
    private var lineCount = 0
    private var code: UInt16 = 0
    private var status: EnhancedStatus?
    private var text: [UInt8] = []
    /// After a fault: the reply as far as it could be read, if it has a code that nothing contradicts.
    package private(set) var broken: PeerReply?

    package init(limits: Limits) { self.limits = limits }

    /// Whether the octets so far end within a reply.
    package var isWithinReply: Bool { !self.partial.isEmpty || self.lineCount > 0 }

    /// The next reply in `octets` from `index` on; nil when they are used up. `index` is moved past what was read.
    ///
    /// After a fault the parser must not be used again.
    package mutating func next(_ octets: Span<UInt8>, from index: inout Int) throws(ReplyFault) -> PeerReply? {
        do throws(ReplyFault) { return try self.read(octets, from: &index) } catch {
            if error != .codesDiffer, self.lineCount > 0 {
                self.broken = PeerReply(code: self.code, status: self.status, text: self.text)
            }
            throw error
        }
    }

    private mutating func read(_ octets: Span<UInt8>, from index: inout Int) throws(ReplyFault) -> PeerReply? {
        while index < octets.count {
            var end = index
            while end < octets.count, octets[end] != ASCII.lineFeed { end += 1 }
            let line = octets.extracting(index..<end)
            // Why two more: a line that waits for its end may have a CR already.
            guard self.partial.count + line.count <= self.limits.lineOctetCountMax + 1 else {
                throw self.takeBeginning(line)
            }
            guard end < octets.count else {
                for place in 0..<line.count { self.partial.append(line[place]) }
                index = end
                return nil
            }
            index = end + 1
            let isLast: Bool
            if self.partial.isEmpty {
                isLast = try self.take(line)
            } else {
                for place in 0..<line.count { self.partial.append(line[place]) }
                let whole = self.partial
                self.partial.removeAll(keepingCapacity: true)
                isLast = try self.take(whole.span)
            }
            if isLast {
                let reply = PeerReply(code: self.code, status: self.status, text: self.text)
                self.lineCount = 0
                self.status = nil
                self.text = []
                return reply
            }
        }
        return nil
    }

    /// Reads as much of a line that is too long as a line may have.
    private mutating func takeBeginning(_ line: Span<UInt8>) -> ReplyFault {
        var beginning = Array(self.partial.prefix(self.limits.lineOctetCountMax))
        for place in 0..<line.count where beginning.count < self.limits.lineOctetCountMax {
            beginning.append(line[place])
        }
        do throws(ReplyFault) { _ = try self.take(beginning.span) } catch {
            if error == .codesDiffer { return error }
        }
        return .lineTooLong
    }

    /// Reads one line without its LF. True if it is the last of its reply.
    private mutating func take(_ ended: Span<UInt8>) throws(ReplyFault) -> Bool {
        var line = ended
        if line.count > 0, line[line.count - 1] == ASCII.carriageReturn { line = line.extracting(0..<(line.count - 1)) }
        guard line.count <= self.limits.lineOctetCountMax else {
            throw self.takeBeginning(line)
        }
        guard self.lineCount < self.limits.lineCountMax else { throw .tooManyLines }
        guard line.count >= 3, line[0] >= 0x32, line[0] <= 0x35, line[1].isDigit, line[2].isDigit else {
            throw .noReplyCode
        }
        let code = UInt16(line[0] - 0x30) * 100 + UInt16(line[1] - 0x30) * 10 + UInt16(line[2] - 0x30)
        guard self.lineCount == 0 || code / 100 == self.code / 100 else { throw .codesDiffer }
        let isLast: Bool
        if line.count == 3 {
            isLast = true
        } else {
            switch line[3] {
            case ASCII.space: isLast = true
            case ASCII.hyphen: isLast = false
            default: throw .noReplyCode
            }
        }
        self.code = code
        var start = min(4, line.count)
        if let (status, end) = Self.status(in: line, from: start, code: code) {
            if self.lineCount == 0 { self.status = status }
            start = end
        }
        if self.lineCount > 0 { self.keep(ASCII.lineFeed) }
        if self.text.isEmpty { self.text.reserveCapacity(line.count - start) }
        while start < line.count {
            self.keep(line[start].isPrintable ? line[start] : 0x3F)
            start += 1
        }
        self.lineCount += 1
        return isLast
    }

    private mutating func keep(_ octet: UInt8) {
        if self.text.count < self.limits.textOctetCountMax { self.text.append(octet) }
    }

    /// The status that stands at `start`, and where the text after it begins.
    private static func status(in line: Span<UInt8>, from start: Int, code: UInt16) -> (EnhancedStatus, Int)? {
        guard start + 4 < line.count, let statusClass = EnhancedStatus.Class(rawValue: line[start] &- 0x30),
            UInt16(statusClass.rawValue) == code / 100, line[start + 1] == ASCII.dot
        else { return nil }
        var index = start + 2
        guard let subject = Self.number(in: line, at: &index), index < line.count, line[index] == ASCII.dot else {
            return nil
        }
        index += 1
        guard let detail = Self.number(in: line, at: &index) else { return nil }
        guard index == line.count || line[index] == ASCII.space else { return nil }
        return (EnhancedStatus(statusClass, subject, detail), min(index + 1, line.count))
    }

    /// One to three digits.
    private static func number(in line: Span<UInt8>, at index: inout Int) -> UInt16? {
        var value: UInt16 = 0
        let start = index
        while index < line.count, line[index].isDigit, index - start < 3 {
            value = value * 10 + UInt16(line[index] - 0x30)
            index += 1
        }
        return index > start ? value : nil
    }
}
