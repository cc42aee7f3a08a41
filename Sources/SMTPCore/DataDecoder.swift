// SPDX-License-Identifier: Apache-2.0
//
// The octets between 354 and the final dot (RFC 5321 §4.1.1.4, §4.5.2).
// This is the only place in the tree that interprets CR, LF or a leading dot in mail data as it is received.
//
// SMTP smuggling is two servers disagreeing on where a message ends. Here only CR LF ends a line and only
// CR LF . CR LF ends the data. A bare CR or LF does not end the data, ever: it makes the message unacceptable, and the
// decoder reads on to the true end, so that what a sender believed to be inside the message is never taken for a
// command. For users' own programs a bare LF may be repaired instead: it becomes CR LF, and begins a line as that does,
// but a dot behind it is only dropped.

private import MailTypes

/// Why a message is refused for its octets. The first fault of a message is the one that is told.
package enum DataFault: Hashable, Sendable {
    case bareCarriageReturn
    case bareLineFeed
    /// A line above the limit.
    case lineTooLong
    /// More octets than the limit for a message.
    case tooLarge
}

/// Finds the content in the octets that follow 354: removes the stuffed dots and stops at the end.
///
/// As with `LineFramer` the caller keeps unused octets in front of the next ones; at most two are ever held
/// back (a CR, a dot, or a dot and a CR, whose meaning the next octet decides). Content is given as places in
/// the octets that came, as long as possible: a piece without a leading dot is one run, and no octet is copied.
///
/// One decoder is for one message.
package struct DataDecoder: Sendable {
    /// What was found.
    package enum Step: Hashable, Sendable {
        /// Content. Empty if the limit of the call leaves no room for the next octet.
        case run(Range<Int>)
        /// Content too: the CR LF that a bare LF became, which is not among these octets.
        case repairedLineEnd
        /// Nothing more to be had from these octets.
        case hungry
        /// The final dot was read. What follows are commands again.
        case end
    }

    private let mailOctetCountMax: UInt64
    /// Without CR LF.
    private let lineOctetCountMax: Int
    private let repairsBareLineFeeds: Bool
    /// Octets of the content so far, CR LF included (RFC 1870 §5: stuffed dots and the final dot do not count).
    /// It goes on counting after a fault.
    package private(set) var octetCount: UInt64 = 0
    /// Once there is one, no more content is given, but the end is still looked for.
    package private(set) var fault: DataFault?
    private var isAtLineStart = true
    /// Whether the line began behind a bare LF, so that it cannot be the end.
    private var isLineRepaired = false
    private var lineOctetCount = 0

    /// - Parameters:
    ///   - mailOctetCountMax: larger messages are refused.
    ///   - lineOctetCountMax: longer lines are refused, CR LF not counted. RFC 5321 §4.5.3.1.6 asks for 998.
    ///   - repairsBareLineFeeds: whether a bare LF stands for CR LF instead of making the message unacceptable.
    package init(mailOctetCountMax: UInt64, lineOctetCountMax: Int, repairsBareLineFeeds: Bool = false) {
        self.repairsBareLineFeeds = repairsBareLineFeeds
        self.mailOctetCountMax = mailOctetCountMax
        self.lineOctetCountMax = lineOctetCountMax
    }

    /// Finds what comes next behind `index`, and moves `index` past it.
    ///
    /// - Parameter countMax: the longest run that may be given now.
    package mutating func next(_ octets: Span<UInt8>, at index: inout Int, countMax: Int) -> Step {
        while true {
            switch self.atLineStart(octets, at: &index) {
            case .end: return .end
            case .hungry: return .hungry
            case .content: break
            }
            if self.isAtRepair(octets, index) {
                // Both octets, or neither.
                guard countMax >= 2 else { return .run(index..<index) }
                return self.repair(at: &index)
            }
            let run = self.run(octets, at: &index, countMax: self.fault == nil ? countMax : .max)
            guard self.fault != nil else {
                return run.isEmpty && self.isHeldBack(octets, index) ? .hungry : .run(run)
            }
            // Nothing is given any more; without progress only a CR is left, which waits for its LF.
            if run.isEmpty { return .hungry }
        }
    }

    private enum LineStart {
        case content
        case hungry
        case end
    }

    /// Takes a dot at the start of a line: the end, or a stuffed one, which is dropped.
    private mutating func atLineStart(_ octets: Span<UInt8>, at index: inout Int) -> LineStart {
        guard index < octets.count else { return .hungry }
        guard self.isAtLineStart, octets[index] == ASCII.dot else { return .content }
        if self.isLineRepaired {
            index += 1
            self.isAtLineStart = false
            return index < octets.count ? .content : .hungry
        }
        guard index + 1 < octets.count else { return .hungry }
        if octets[index + 1] == ASCII.carriageReturn {
            guard index + 2 < octets.count else { return .hungry }
            if octets[index + 2] == ASCII.lineFeed {
                index += 3
                return .end
            }
        }
        index += 1
        self.isAtLineStart = false
        return index < octets.count ? .content : .hungry
    }

    /// A LF that a run has stopped before: its CR would have been taken with it.
    private func isAtRepair(_ octets: Span<UInt8>, _ index: Int) -> Bool {
        self.repairsBareLineFeeds && self.fault == nil && octets[index] == ASCII.lineFeed
    }

    private mutating func repair(at index: inout Int) -> Step {
        index += 1
        self.isAtLineStart = true
        self.isLineRepaired = true
        self.lineOctetCount = 0
        self.octetCount += 2
        if self.octetCount > self.mailOctetCountMax { self.note(.tooLarge) }
        return .repairedLineEnd
    }

    /// A CR at the end of what has come: the next octet tells whether it is bare.
    private func isHeldBack(_ octets: Span<UInt8>, _ index: Int) -> Bool {
        index + 1 == octets.count && octets[index] == ASCII.carriageReturn
    }

    /// Content up to the next leading dot, the end of the octets, the limit, or a fault.
    private mutating func run(_ octets: Span<UInt8>, at index: inout Int, countMax: Int) -> Range<Int> {
        let start = index
        let limit = countMax < octets.count - start ? start + countMax : octets.count
        var place = start
        var lineStart = start - self.lineOctetCount
        while place < limit {
            place = octets.lineOctetIndex(from: place, to: limit)
            if place - lineStart > self.lineOctetCountMax { self.note(.lineTooLong) }
            guard place < limit else { break }
            let isCarriageReturn = octets[place] == ASCII.carriageReturn
            if isCarriageReturn, place + 1 == octets.count { break }
            if isCarriageReturn, octets[place + 1] == ASCII.lineFeed {
                // The pair stays together: a limit that falls between the two ends the run before them.
                guard place + 2 <= limit else { break }
                place += 2
                lineStart = place
                self.isLineRepaired = false
                if place < octets.count, octets[place] == ASCII.dot { break }
            } else {
                if !isCarriageReturn, self.repairsBareLineFeeds, self.fault == nil { break }
                self.note(isCarriageReturn ? .bareCarriageReturn : .bareLineFeed)
                place += 1
            }
        }
        if place > start { self.isAtLineStart = place == lineStart }
        index = place
        self.lineOctetCount = place - lineStart
        self.octetCount += UInt64(place - start)
        if self.octetCount > self.mailOctetCountMax { self.note(.tooLarge) }
        return start..<place
    }

    private mutating func note(_ fault: DataFault) {
        if self.fault == nil { self.fault = fault }
    }
}
