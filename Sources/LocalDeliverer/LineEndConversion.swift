// SPDX-License-Identifier: Apache-2.0

import MailTypes

/// Content as it is kept in mailboxes: each CR LF as LF. A lone CR or LF stays as it is.
struct LineEndConversion {
    /// A CR at the end of what was converted: whether it ends a line is known with the next octet.
    private var isCarriageReturnPending = false

    mutating func convert(_ content: ArraySlice<UInt8>, into octets: inout [UInt8]) {
        var rest = content
        if self.isCarriageReturnPending, let first = rest.first {
            if first != 0x0A { octets.append(0x0D) }
            self.isCarriageReturnPending = false
        }
        var index = rest.startIndex
        while index < rest.endIndex {
            index = rest.startIndex + rest.span.lineOctetIndex(from: index - rest.startIndex, to: rest.count)
            guard index < rest.endIndex else { break }
            let next = index + 1
            guard rest[index] == 0x0D else {
                index = next
                continue
            }
            self.isCarriageReturnPending = next == rest.endIndex
            if self.isCarriageReturnPending || rest[next] == 0x0A {
                octets += rest[..<index]
                rest = rest[next...]
            }
            index = next
        }
        octets += rest
    }

    /// The end of the content.
    mutating func end(into octets: inout [UInt8]) {
        if self.isCarriageReturnPending { octets.append(0x0D) }
        self.isCarriageReturnPending = false
    }
}
