// SPDX-License-Identifier: Apache-2.0
//
// Messages of DNS (RFC 1035 §4) as a stub resolver needs them: one question out, one answer in.
// Whatever a resolver sends is read with every length checked, and cannot make the reader loop.

package import MailTypes

/// Why octets are not an answer that can be used.
package enum DNSFault: Error, Hashable, Sendable {
    case truncated
    case nameTooLong
    case badPointer
    case badLabel
    case badRecord
    case tooManyRecords
}

/// The record types that are asked for or understood. The raw value is the number of the wire.
package enum DNSType: UInt16, Hashable, Sendable, CaseIterable {
    case a = 1
    case cname = 5
    case soa = 6
    case mx = 15
    case txt = 16
    case aaaa = 28
    case tlsa = 52
}

/// What is asked, always in class IN.
package struct DNSQuestion: Hashable, Sendable {
    package let name: DNSName
    package let type: DNSType

    package init(_ name: DNSName, _ type: DNSType) {
        self.name = name
        self.type = type
    }
}

/// What a record says.
package enum DNSValue: Hashable, Sendable {
    /// A or AAAA.
    case address(IPAddress)
    case mx(preference: UInt16, exchange: DNSName)
    case cname(DNSName)
    /// The last field of SOA: how long a negative answer holds, in seconds (RFC 2308 §4).
    case soa(minimum: UInt32)
    /// The character strings of one TXT record, joined.
    case txt([UInt8])
    /// RFC 6698 §2.1.
    case tlsa(usage: UInt8, selector: UInt8, matching: UInt8, data: [UInt8])
}

/// One record of class IN of a type that is understood.
package struct DNSRecord: Hashable, Sendable {
    package let name: DNSName
    package let type: DNSType
    /// In seconds. A value with the uppermost bit set is 0 (RFC 2181 §8).
    package let ttl: UInt32
    package let value: DNSValue

    package init(name: DNSName, type: DNSType, ttl: UInt32, value: DNSValue) {
        self.name = name
        self.type = type
        self.ttl = ttl
        self.value = value
    }
}

/// An answer of a resolver.
package struct DNSMessage: Hashable, Sendable {
    /// RFC 1035 §4.1.1; the others are of no interest here.
    package enum ResponseCode: UInt16, Hashable, Sendable {
        case noError = 0
        case formatError = 1
        case serverFailure = 2
        case noSuchName = 3
        case notImplemented = 4
        case refused = 5
        /// Any other number.
        case other = 0xFFFF
    }

    package let id: UInt16
    package let isResponse: Bool
    /// The answer did not fit; ask again by TCP.
    package let isTruncated: Bool
    /// The resolver has checked DNSSEC signatures (RFC 4035 §3.2.3). Worth what the way to the resolver is worth.
    package let isAuthentic: Bool
    package let responseCode: ResponseCode
    /// Nil if it is none that we would ask.
    package let question: DNSQuestion?
    package let answers: [DNSRecord]
    package let authority: [DNSRecord]

    /// The size of UDP answers that we announce (RFC 6891 §6.2.5): what passes any path unfragmented.
    package static let datagramOctetCountMax: UInt16 = 1232

    /// The octets of a query: recursion desired, AD wanted (RFC 6840 §5.7), with or without EDNS0.
    package static func query(id: UInt16, _ question: DNSQuestion, hasEDNS: Bool) -> [UInt8] {
        var octets: [UInt8] = []
        octets.reserveCapacity(12 + question.name.wire.count + 4 + 11)
        octets.append(number: id)
        // RD, and AD, which in a query says that we understand it in the answer.
        octets += [0x01, 0x20]
        octets.append(number: 1)
        octets.append(number: 0)
        octets.append(number: 0)
        octets.append(number: hasEDNS ? 1 : 0)
        octets.append(contentsOf: question.name.wire)
        octets.append(number: question.type.rawValue)
        octets.append(number: 1)
        if hasEDNS {
            // OPT (RFC 6891 §6.1.2): root, type 41, size of answers, no extended code, version 0, no flags, no options.
            octets.append(0)
            octets.append(number: 41)
            octets.append(number: Self.datagramOctetCountMax)
            octets += [0, 0, 0, 0, 0, 0]
        }
        return octets
    }

    /// Reads an answer. Records of other classes or types are passed over, but count.
    ///
    /// - Parameter recordCountMax: more records in answer and authority together are refused.
    package init(octets: [UInt8], recordCountMax: Int) throws(DNSFault) {
        var reader = DNSReader(octets: octets)
        self.id = try reader.number16()
        let flags = try reader.number16()
        self.isResponse = flags & 0x8000 != 0 && flags & 0x7800 == 0
        self.isTruncated = flags & 0x0200 != 0
        self.isAuthentic = flags & 0x0020 != 0
        self.responseCode = ResponseCode(rawValue: flags & 0x000F) ?? .other
        let questionCount = try reader.number16()
        let answerCount = Int(try reader.number16())
        let authorityCount = Int(try reader.number16())
        _ = try reader.number16()
        guard answerCount + authorityCount <= recordCountMax else { throw .tooManyRecords }
        guard questionCount <= 1 else { throw .badRecord }
        if questionCount == 1 {
            let name = try reader.name()
            let type = DNSType(rawValue: try reader.number16())
            let isInternet = try reader.number16() == 1
            self.question = isInternet ? type.map { DNSQuestion(name, $0) } : nil
        } else {
            self.question = nil
        }
        // Why: a truncated answer may end anywhere, and nothing in it is used.
        guard !self.isTruncated else {
            self.answers = []
            self.authority = []
            return
        }
        self.answers = try reader.records(answerCount)
        self.authority = try reader.records(authorityCount)
    }
}

/// Reads fields of a message one after the other.
private struct DNSReader {
    let octets: [UInt8]
    var index = 0

    init(octets: [UInt8]) { self.octets = octets }

    mutating func number8() throws(DNSFault) -> UInt8 {
        guard self.index < self.octets.count else { throw .truncated }
        defer { self.index += 1 }
        return self.octets[self.index]
    }

    mutating func number16() throws(DNSFault) -> UInt16 {
        let high = try self.number8()
        let low = try self.number8()
        return UInt16(high) << 8 | UInt16(low)
    }

    mutating func number32() throws(DNSFault) -> UInt32 {
        let high = try self.number16()
        let low = try self.number16()
        return UInt32(high) << 16 | UInt32(low)
    }

    mutating func number64() throws(DNSFault) -> UInt64 {
        let high = try self.number32()
        let low = try self.number32()
        return UInt64(high) << 32 | UInt64(low)
    }

    mutating func name() throws(DNSFault) -> DNSName { try DNSName(message: self.octets, at: &self.index) }

    mutating func records(_ count: Int) throws(DNSFault) -> [DNSRecord] {
        var records: [DNSRecord] = []
        for _ in 0..<count {
            let name = try self.name()
            let number = try self.number16()
            let isInternet = try self.number16() == 1
            let seconds = try self.number32()
            let length = Int(try self.number16())
            let end = self.index + length
            guard end <= self.octets.count else { throw .truncated }
            if isInternet, let type = DNSType(rawValue: number) {
                let value = try self.value(type, end: end)
                // A record whose fields end before or after its length is no record.
                guard self.index == end else { throw .badRecord }
                records.append(
                    DNSRecord(name: name, type: type, ttl: seconds >> 31 == 0 ? seconds : 0, value: value))
            } else {
                self.index = end
            }
        }
        return records
    }

    private mutating func value(_ type: DNSType, end: Int) throws(DNSFault) -> DNSValue {
        switch type {
        case .a:
            return .address(.v4(try self.number32()))
        case .aaaa:
            let high = try self.number64()
            let low = try self.number64()
            return .address(IPAddress(high: high, low: low))
        case .mx:
            let preference = try self.number16()
            return .mx(preference: preference, exchange: try self.name())
        case .cname:
            return .cname(try self.name())
        case .soa:
            _ = try self.name()
            _ = try self.name()
            for _ in 0..<4 { _ = try self.number32() }
            return .soa(minimum: try self.number32())
        case .txt:
            var text: [UInt8] = []
            while self.index < end {
                let length = Int(try self.number8())
                guard self.index + length <= end else { throw .badRecord }
                text.append(contentsOf: self.octets[self.index..<(self.index + length)])
                self.index += length
            }
            return .txt(text)
        case .tlsa:
            guard end - self.index >= 3 else { throw .badRecord }
            let usage = try self.number8()
            let selector = try self.number8()
            let matching = try self.number8()
            let data = Array(self.octets[self.index..<end])
            self.index = end
            return .tlsa(usage: usage, selector: selector, matching: matching, data: data)
        }
    }
}

extension Array where Element == UInt8 {
    /// Appends a number of two octets, the upper one first.
    fileprivate mutating func append(number: UInt16) {
        self.append(UInt8(truncatingIfNeeded: number >> 8))
        self.append(UInt8(truncatingIfNeeded: number))
    }
}
