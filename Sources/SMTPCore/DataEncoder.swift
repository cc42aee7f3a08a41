// SPDX-License-Identifier: Apache-2.0
//
// The octets between 354 and the final dot, as the client sends them (RFC 5321 §4.5.2).
// This is the only place in the tree that adds a leading dot or writes the end of the data.

import MailTypes

/// Makes content ready for the wire: a dot more in front of lines that begin with one, and the end marker.
///
/// Content that came in through apus-smtpd has CR LF line ends only. Should another program have put a stray CR or LF
/// into the queue, it leaves here as CR LF, *before* dots are looked at: what one server takes for the end of
/// the data and another for text must never be sent (SMTP smuggling).
package struct DataEncoder: Hashable, Sendable {
    private enum Place: Hashable, Sendable {
        /// After CR LF, or at the very beginning.
        case lineStart
        /// After a CR that has not been written yet, as its LF may follow in the next part.
        case carriageReturn
        case line
    }

    private var place = Place.lineStart

    package init() {}

    /// Appends the next part of the content to `output`, in the form of the wire.
    ///
    /// `output` grows by at most twice the octets given, and one.
    package mutating func encode(_ octets: ArraySlice<UInt8>, into output: inout [UInt8]) {
        let span = octets.span
        let base = octets.startIndex
        // Where the run begins that is copied as it is.
        var runStart = 0
        var index = 0
        while index < span.count {
            let octet = span[index]
            switch self.place {
            case .line:
                // The common case, and the whole cost of this type: a run of octets that mean nothing.
                if octet != ASCII.carriageReturn, octet != ASCII.lineFeed {
                    index = span.lineOctetIndex(from: index + 1, to: span.count)
                    continue
                }
                if octet == ASCII.carriageReturn {
                    if index + 1 < span.count, span[index + 1] == ASCII.lineFeed {
                        self.place = .lineStart
                        index += 2
                    } else {
                        output.append(contentsOf: octets[(base + runStart)..<(base + index)])
                        self.place = .carriageReturn
                        index += 1
                        runStart = index
                    }
                } else {
                    output.append(contentsOf: octets[(base + runStart)..<(base + index)])
                    output.append(ASCII.carriageReturn)
                    runStart = index
                    self.place = .lineStart
                    index += 1
                }
            case .lineStart:
                if octet == ASCII.dot {
                    output.append(contentsOf: octets[(base + runStart)..<(base + index)])
                    output.append(ASCII.dot)
                    runStart = index
                    index += 1
                }
                self.place = .line
            case .carriageReturn:
                // The CR is held back; whatever follows it, a line ends here.
                output.append(ASCII.carriageReturn)
                output.append(ASCII.lineFeed)
                if octet == ASCII.lineFeed {
                    index += 1
                    runStart = index
                }
                self.place = .lineStart
            }
        }
        output.append(contentsOf: octets[(base + runStart)...])
    }

    /// Appends the end of the data: a dot on a line of its own. A last line without an end gets one first.
    package mutating func finish(into output: inout [UInt8]) {
        if self.place != .lineStart {
            output.append(ASCII.carriageReturn)
            output.append(ASCII.lineFeed)
        }
        output.append(ASCII.dot)
        output.append(ASCII.carriageReturn)
        output.append(ASCII.lineFeed)
        self.place = .lineStart
    }
}
