// SPDX-License-Identifier: Apache-2.0

import MailTypes

/// A domain name as DNS has it: labels of octets (RFC 1035 §3.1), ASCII letters in lower case.
package struct DNSName: Hashable, Sendable {
    /// The uncompressed form of the wire: each label after its length, then the empty label of the root; 1…255 octets.
    package let wire: [UInt8]

    package static let octetCountMax = 255
    package static let root = DNSName(checked: [0])

    /// - Precondition: `wire` is well formed; this type's own readers have seen to that.
    fileprivate init(checked wire: [UInt8]) { self.wire = wire }

    /// Reads `mail.example.org`, with or without a final dot. Nil for an empty or overlong label, or a name too long.
    ///
    /// Any other octet is taken as it is; there are no escapes, so that a label with a dot in it cannot be written.
    package init?(octets: some Collection<UInt8>) {
        guard octets.count <= Self.octetCountMax else { return nil }
        var name = Array(octets)
        if name.last == ASCII.dot { name.removeLast() }
        var wire: [UInt8] = []
        wire.reserveCapacity(name.count + 2)
        if !name.isEmpty {
            for label in name.split(separator: ASCII.dot, omittingEmptySubsequences: false) {
                guard (1...63).contains(label.count) else { return nil }
                wire.append(UInt8(label.count))
                for octet in label { wire.append(octet.lowercased) }
            }
        }
        wire.append(0)
        guard wire.count <= Self.octetCountMax else { return nil }
        self.wire = wire
    }

    package init?(text: String) { self.init(octets: Array(text.utf8)) }

    package var isRoot: Bool { self.wire.count == 1 }

    /// Without a final dot; nothing for the root. Octets that are not printable, and dots within labels, become `?`.
    package var octets: [UInt8] {
        var result: [UInt8] = []
        result.reserveCapacity(self.wire.count)
        var index = 0
        while index < self.wire.count, self.wire[index] > 0 {
            if index > 0 { result.append(ASCII.dot) }
            let end = index + 1 + Int(self.wire[index])
            for octet in self.wire[(index + 1)..<end] {
                result.append(octet.isPrintable && octet != ASCII.dot ? octet : 0x3F)
            }
            index = end
        }
        return result
    }

    package var text: String { String(decoding: self.octets, as: UTF8.self) }

    /// Whether it can be the name of a host that mail goes to: letters, digits, inner hyphens, and the underscore.
    package var isHostName: Bool {
        !self.isRoot && MailAddress.isDomainName(self.octets) && !self.octets.contains(0x3F)
    }

    /// Whether the last label is `localhost`, which never leaves the machine (RFC 6761 §6.3).
    package var isLocalhost: Bool {
        let suffix: [UInt8] = [9] + Array("localhost".utf8) + [0]
        guard self.wire.count >= suffix.count, self.wire.suffix(suffix.count).elementsEqual(suffix) else {
            return false
        }
        // Why: the octets could also be the end of a longer label.
        var index = 0
        while index < self.wire.count, self.wire[index] > 0 {
            if index == self.wire.count - suffix.count { return true }
            index += 1 + Int(self.wire[index])
        }
        return false
    }
}

extension DNSName {
    /// Reads a name of a message, which may be compressed (RFC 1035 §4.1.4). `index` is moved past it.
    ///
    /// A pointer must point to before the part of the name that it ends, so that there can be no loop, and the
    /// number of pointers is bounded by the number of octets.
    init(message: [UInt8], at index: inout Int) throws(DNSFault) {
        var wire: [UInt8] = []
        var position = index
        // Where the octets after the name are, once a pointer was followed.
        var end: Int?
        var partStart = index
        while true {
            guard position < message.count else { throw .truncated }
            let length = Int(message[position])
            switch length {
            case 0:
                wire.append(0)
                guard wire.count <= Self.octetCountMax else { throw .nameTooLong }
                index = end ?? (position + 1)
                self.init(checked: wire)
                return
            case 1...63:
                guard position + length < message.count else { throw .truncated }
                guard wire.count + length + 2 <= Self.octetCountMax else { throw .nameTooLong }
                wire.append(UInt8(length))
                for octet in message[(position + 1)...(position + length)] { wire.append(octet.lowercased) }
                position += length + 1
            case 0xC0...:
                guard position + 1 < message.count else { throw .truncated }
                let target = (length & 0x3F) << 8 | Int(message[position + 1])
                guard target < partStart else { throw .badPointer }
                if end == nil { end = position + 2 }
                partStart = target
                position = target
            default:
                throw .badLabel
            }
        }
    }
}
