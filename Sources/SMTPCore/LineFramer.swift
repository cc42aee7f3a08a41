// SPDX-License-Identifier: Apache-2.0
//
// Where one command ends and the next begins (RFC 5321 §2.3.8). Only CR LF ends a line. This file never
// looks at what a line says.

private import MailTypes

/// Why a command line is refused before anybody has read it.
package enum LineFault: Hashable, Sendable {
    /// More octets than the limit, CR LF included.
    case tooLong
    /// A CR without its LF.
    case bareCarriageReturn
    /// An LF without its CR.
    case bareLineFeed
    case nul
}

/// Cuts a stream of octets into command lines.
///
/// The caller keeps the octets in one piece and hands over all that it has; what the framer has not used
/// comes first again the next time. The framer remembers how far it has looked, so that a line that comes
/// octet by octet costs no more than one that comes whole.
///
/// A faulty line is reported once, as soon as the fault is seen: somebody who ends lines with LF alone is
/// told so at once instead of waiting for an answer. The rest of that line, up to its CR LF, is swallowed:
/// nothing in it is ever taken for a command.
package struct LineFramer: Sendable {
    /// What was found.
    package enum Step: Hashable, Sendable {
        /// A line, as places in the octets given, without its CR LF.
        case line(Range<Int>)
        case fault(LineFault)
        /// Nothing more to be had from these octets.
        case hungry
    }

    /// The longest line, CR LF included. Changed between lines only.
    package var lineOctetCountMax: Int
    /// How many octets behind the index are already known to hold no end of a line.
    private var scannedCount = 0
    private var isSwallowing = false

    /// - Parameter lineOctetCountMax: at least 3. RFC 5321 §4.5.3.1.4 asks for 512 and more with extensions.
    package init(lineOctetCountMax: Int) {
        precondition(lineOctetCountMax >= 3)
        self.lineOctetCountMax = lineOctetCountMax
    }

    /// Looks for the next line behind `index` and moves `index` past what is used.
    package mutating func next(_ octets: Span<UInt8>, at index: inout Int) -> Step {
        if self.isSwallowing, !self.swallow(octets, at: &index) { return .hungry }
        let start = index
        var place = start + self.scannedCount
        while place < octets.count {
            guard place - start < self.lineOctetCountMax else { return self.refuse(.tooLong, octets, at: &index) }
            let octet = octets[place]
            if octet > ASCII.carriageReturn {
                place += 1
            } else if octet == ASCII.carriageReturn {
                guard place + 1 < octets.count else { break }
                guard octets[place + 1] == ASCII.lineFeed else {
                    return self.refuse(.bareCarriageReturn, octets, at: &index)
                }
                guard place + 2 - start <= self.lineOctetCountMax else {
                    return self.refuse(.tooLong, octets, at: &index)
                }
                index = place + 2
                self.scannedCount = 0
                return .line(start..<place)
            } else if octet == ASCII.lineFeed {
                return self.refuse(.bareLineFeed, octets, at: &index)
            } else if octet == ASCII.nul {
                return self.refuse(.nul, octets, at: &index)
            } else {
                place += 1
            }
        }
        self.scannedCount = place - start
        return .hungry
    }

    private mutating func refuse(_ fault: LineFault, _ octets: Span<UInt8>, at index: inout Int) -> Step {
        self.scannedCount = 0
        self.isSwallowing = true
        _ = self.swallow(octets, at: &index)
        return .fault(fault)
    }

    /// Drops octets up to and including CR LF; false if its end has not come yet.
    private mutating func swallow(_ octets: Span<UInt8>, at index: inout Int) -> Bool {
        while index < octets.count {
            if octets[index] == ASCII.carriageReturn {
                // Kept until the next octet tells what it is.
                guard index + 1 < octets.count else { return false }
                if octets[index + 1] == ASCII.lineFeed {
                    index += 2
                    self.isSwallowing = false
                    return true
                }
            }
            index += 1
        }
        return false
    }
}
