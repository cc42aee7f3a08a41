// SPDX-License-Identifier: Apache-2.0

import MailTypes

/// The languages that are spoken over a pair of pipes.
package enum Dialect: String, Sendable, CaseIterable {
    case submit
    case deliver
    case ask
    case operate
    case vault

    package init?(octets: some Collection<UInt8>) {
        guard let dialect = Dialect.allCases.first(where: { $0.rawValue.utf8.elementsEqual(octets) }) else {
            return nil
        }
        self = dialect
    }
}

/// The first frame in each direction (pipes.md §1).
package struct Hello: Equatable, Sendable {
    package let dialect: Dialect
    /// Who speaks, for the log; at most 64 octets.
    package let program: [UInt8]
    /// How many channels the speaker bears at once; 0 where it does not matter.
    package let capacity: UInt32
    /// An agent takes the content of a delivery unasked, right behind the envelope, if it is not longer; 0 for never.
    package let unaskedOctetCountMax: UInt32

    package static let version: UInt64 = 1

    package init(_ dialect: Dialect, program: String, capacity: UInt32 = 0, unaskedOctetCountMax: UInt32 = 0) {
        self.dialect = dialect
        self.program = Array(program.utf8.prefix(64))
        self.capacity = capacity
        self.unaskedOctetCountMax = unaskedOctetCountMax
    }

    package init(_ frame: Frame) throws(FrameFault) {
        guard frame.verb == .hello, frame.channel == 0 else { throw FrameFault(.outOfPlace, frame.verb) }
        try frame.expectFields(4...5)
        self.dialect = try frame.value(Dialect(octets: frame[0]))
        guard try frame.number(1) == Self.version else { throw FrameFault(.badField, .hello) }
        self.program = Array(frame[2].prefix(64))
        self.capacity = UInt32(truncatingIfNeeded: try frame.number(3, limit: UInt64(UInt32.max)))
        self.unaskedOctetCountMax =
            frame.fieldCount > 4
            ? UInt32(truncatingIfNeeded: try frame.number(4, limit: UInt64(FrameLimits.dataOctetCountMax))) : 0
    }

    package func append(to octets: inout [UInt8]) {
        let start = octets.beginFrame(.hello, 0)
        octets.appendField(Array(self.dialect.rawValue.utf8))
        octets.appendField(number: Self.version)
        octets.appendField(self.program)
        octets.appendField(number: self.capacity)
        if self.unaskedOctetCountMax > 0 { octets.appendField(number: self.unaskedOctetCountMax) }
        octets.endFrame(start)
    }
}
