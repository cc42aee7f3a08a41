// SPDX-License-Identifier: Apache-2.0

import IDN
import LookupCore
import MailTypes
import MessageCore
import TOML
import Unix

/// What a setting can hold. Each kind reads the value of the file and gives the text that the programs are handed.
package enum SettingKind: Equatable, Sendable {
    /// Printable text of at most 500 octets.
    case text
    /// The name by which this server is known.
    case hostname
    /// A mail domain.
    case domain
    /// An absolute path; nothing is asked of what is there.
    case path
    /// The absolute path of a local socket.
    case socket
    /// The absolute path of a file that Apus reads.
    case file
    case integer(ClosedRange<Int>)
    /// Whole seconds, or `"30s"`, `"5m"`, `"4h"`, `"5d"`, `"1w"` and sums of these; handed over in seconds.
    case duration(ClosedRange<Int>)
    /// Octets, or `"50MB"`, `"50MiB"`; handed over in octets.
    case size(ClosedRange<Int>)
    case boolean
    /// `127.0.0.0/8`, `2001:db8::/32`, or one address.
    case network
    /// `127.0.0.1:25`, `[::]:25`.
    case socketAddress
    /// An address with or without a port: `127.0.0.1`, `127.0.0.1:5353`.
    case resolver
    /// `example.org`, `[mail.example.org]:587`, `127.0.0.1:2526`.
    case nextHop
    /// One IP address.
    case address
    /// The name of a user who gets mail.
    case user
    /// `/run/dovecot/lmtp`, `[127.0.0.1]:24`.
    case mailboxServer
    /// The name of an account at another server, without blanks.
    case accountName
    /// A mailbox, or the name of a local user.
    case recipient
    /// Up to five characters of an address that are no letters and no digits, or none.
    case delimiter
    /// `maildir:PATH` or `mbox:PATH`, where `~/` is the home of the recipient, or `discard:`.
    case mailbox
    /// The same for virtual users: `maildir:PATH` with `%{domain}` and `%{local}` in it.
    case virtualMailbox
    /// `text:/etc/apus/virtual`, `lmdb:/etc/apus/virtual.lmdb`, `socketmap:unix:/run/tables:users`.
    case table
    /// `example.org`, `*.example.org`, `*`, or an address.
    case domainPattern
    /// `user@example.org`, `@example.org`, `@*.example.org`, `<>`.
    case sender
    /// The tag of a language: `en`, `pt-BR`; handed over in small letters.
    case language
    /// A pattern of domains and a language: `*.example.org pl`.
    case languageRule
    /// The SHA-256 of a certificate: 64 hexadecimal digits, with or without colons; handed over in small letters without.
    case fingerprint
    /// One of these words.
    case word([String])
    /// Known, but of a later version.
    case later(String)

    /// Why a value does not do.
    struct Fault: Error, Equatable {
        let text: String
        let hint: String

        init(_ text: String, hint: String = "") {
            self.text = text
            self.hint = hint
        }
    }

    /// The text that programs are handed for the value.
    func read(_ value: TOMLValue) throws(Fault) -> String {
        switch self {
        case .integer(let range):
            guard case .integer(let number) = value else { throw Self.wrongType(value, "an integer") }
            return String(try Self.inRange(number, range, unit: ""))
        case .duration(let range):
            return String(try Self.inRange(try Self.seconds(value), range, unit: " seconds"))
        case .size(let range):
            return String(try Self.inRange(try Self.octetCount(value), range, unit: " octets"))
        case .boolean:
            guard case .boolean(let truth) = value else {
                throw Self.wrongType(value, "true or false", hint: "write true or false without quotation marks")
            }
            return truth ? "true" : "false"
        case .later(let text):
            throw Fault(text)
        case .text, .hostname, .domain, .path, .socket, .file, .network, .socketAddress, .resolver, .nextHop, .address,
            .user, .accountName, .mailboxServer, .recipient, .delimiter, .mailbox, .virtualMailbox,
            .table, .domainPattern, .sender, .language,
            .languageRule, .fingerprint, .word:
            guard case .string(let text) = value else {
                throw Self.wrongType(value, "a string", hint: "put it into quotation marks")
            }
            return try self.readText(text)
        }
    }

    private func readText(_ text: String) throws(Fault) -> String {
        let octets = Array(text.utf8)
        if self == .delimiter {
            guard octets.count <= 5, octets.allSatisfy({ MailAddress.isAtomText($0) && !$0.isLetterOrDigit }) else {
                throw Fault("\"\(text)\" is not up to 5 signs of an address", hint: "write \"+\" or \"+-\"")
            }
            return text
        }
        guard !octets.isEmpty else { throw Fault("is empty", hint: "leave the key out to have the default") }
        guard octets.count <= 500, octets.allSatisfy({ $0 >= 0x20 && $0 != 0x7F }) else {
            throw Fault("is longer than 500 octets or has control characters")
        }
        switch self {
        case .hostname: return try Self.hostname(text)
        case .domain: return try Self.domain(text)
        case .path, .file, .socket:
            guard octets.first == 0x2F else {
                throw Fault("\"\(text)\" is not an absolute path", hint: "begin it with /")
            }
            guard self != .socket || octets.count <= UnixSocket.pathOctetCountMax else {
                throw Fault(
                    "\"\(text)\" is longer than the path of a socket can be",
                    hint: "at most \(UnixSocket.pathOctetCountMax) octets")
            }
            return text
        case .network: return try Self.network(text)
        case .socketAddress: return try Self.socketAddress(text)
        case .resolver: return try Self.resolver(text)
        case .nextHop:
            guard NextHop(octets: octets) != nil else {
                throw Fault(
                    "\"\(text)\" is not a next host",
                    hint: "write \"example.org\" (its MX), \"[mail.example.org]:587\" (that host) or \"192.0.2.1:25\"")
            }
            return text
        case .address:
            guard IPAddress(text: text) != nil else {
                throw Fault("\"\(text)\" is not an IP address", hint: "write \"192.0.2.1\" or \"2001:db8::1\"")
            }
            return text
        case .user:
            guard Route.isUserName(octets) else { throw Fault("\"\(text)\" is not the name of a user") }
            return text
        case .mailboxServer:
            guard NextHop(octets: Array("lmtp:".utf8) + octets)?.isLMTP == true else {
                throw Fault(
                    "\"\(text)\" is not a server for LMTP",
                    hint: "write \"/run/dovecot/lmtp\" (its socket) or \"[127.0.0.1]:24\"")
            }
            return text
        case .accountName:
            guard (1...SASLLimits.userOctetCountMax).contains(octets.count), octets.allSatisfy({ $0 > ASCII.space })
            else { throw Fault("\"\(text)\" is not the name of an account", hint: "it has no blanks in it") }
            return text
        case .recipient:
            guard !octets.equalsIgnoringCase("postmaster".utf8) else {
                throw Fault("\"\(text)\" is who is to be named", hint: "write who reads the postmaster's mail")
            }
            if Route.isUserName(octets) { return text }
            guard let address = MailAddress(octets: octets, domains: .idna2008) else {
                throw Fault(
                    "\"\(text)\" is not a mail address", hint: "write \"user@example.org\" or the name of a user")
            }
            return String(decoding: address.octets, as: UTF8.self)
        case .mailbox: return try Self.mailbox(text)
        case .virtualMailbox: return try Self.virtualMailbox(text)
        case .table:
            guard TablePlace(text) != nil else {
                throw Fault(
                    "\"\(text)\" is not a table",
                    hint:
                        "write \"text:/etc/apus/virtual\", \"lmdb:/etc/apus/virtual.lmdb\" or \"socketmap:unix:/run/tables:users\""
                )
            }
            return text
        case .domainPattern:
            let text = DomainMapping.idna2008.asciiPattern(text)
            guard DomainPattern(text: text) != nil else {
                throw Fault(
                    "\"\(text)\" is not a pattern of domains",
                    hint: "write \"example.org\", \"*.example.org\" (all below it), \"192.0.2.1\" or \"*\"")
            }
            return text
        case .sender:
            let text = DomainMapping.idna2008.asciiPattern(text)
            guard SenderPattern(text: text) != nil else {
                throw Fault(
                    "\"\(text)\" is not a sender",
                    hint: "write \"user@example.org\", \"@example.org\", \"@*.example.org\" or \"<>\"")
            }
            return text
        case .language: return try Self.language(text)
        case .languageRule:
            var words = text.split(separator: " ").map(String.init)
            if words.count == 2 { words[0] = DomainMapping.idna2008.asciiPattern(words[0]) }
            guard words.count == 2, DomainPattern(text: words[0]) != nil else {
                throw Fault(
                    "\"\(text)\" is not a domain and a language",
                    hint: "write \"example.org pl\" or \"*.example.org pl\"")
            }
            return "\(words[0]) \(try Self.language(words[1]))"
        case .fingerprint:
            let digits = text.lowercased().filter { $0 != ":" }
            guard digits.utf8.count == 64, digits.allSatisfy(\.isHexDigit) else {
                throw Fault(
                    "\"\(text)\" is not the SHA-256 of a certificate",
                    hint: "openssl x509 -in FILE -noout -fingerprint -sha256 prints it")
            }
            return digits
        case .word(let words):
            guard words.contains(text) else {
                let known = words.map { "\"\($0)\"" }.joined(separator: ", ")
                throw Fault("\"\(text)\" is not one of \(known)", hint: Self.meant(text, words))
            }
            return text
        case .text, .integer, .duration, .size, .boolean, .delimiter, .later: return text
        }
    }

    private static func meant(_ text: String, _ words: [String]) -> String {
        Spelling.nearest(to: text, among: words).map { "did you mean \"\($0)\"?" } ?? ""
    }

    static func wrongType(_ value: TOMLValue, _ wanted: String, hint: String = "") -> Fault {
        Fault("must be \(wanted), not \(value.kind)", hint: hint)
    }

    private static func inRange(_ number: Int64, _ range: ClosedRange<Int>, unit: String) throws(Fault) -> Int64 {
        guard number >= Int64(range.lowerBound), number <= Int64(range.upperBound) else {
            throw Fault("\(number) is out of range", hint: "from \(range.lowerBound) to \(range.upperBound)\(unit)")
        }
        return number
    }

    // MARK: Numbers with units

    private static func seconds(_ value: TOMLValue) throws(Fault) -> Int64 {
        let hint = "write seconds, or \"90s\", \"5m\", \"4h\", \"5d\", \"1w\""
        if case .integer(let number) = value { return number }
        guard case .string(let text) = value else { throw Self.wrongType(value, "a span of time", hint: hint) }
        var total: Int64 = 0
        var rest = Array(text.utf8)[...]
        guard !rest.isEmpty else { throw Fault("is empty", hint: hint) }
        while !rest.isEmpty {
            let digits = rest.prefix(while: \.isDigit)
            rest = rest.dropFirst(digits.count)
            guard let number = digits.decimal(limit: 1 << 40), let unit = rest.popFirst(),
                let factor = Self.unitSeconds(unit.lowercased)
            else { throw Fault("\"\(text)\" is not a span of time", hint: hint) }
            let (sum, overflow) = total.addingReportingOverflow(Int64(number) * factor)
            guard !overflow else { throw Fault("\"\(text)\" is too long", hint: hint) }
            total = sum
        }
        return total
    }

    private static func unitSeconds(_ unit: UInt8) -> Int64? {
        switch unit {
        case 0x73: 1
        case 0x6D: 60
        case 0x68: 3_600
        case 0x64: 86_400
        case 0x77: 604_800
        default: nil
        }
    }

    private static let sizeUnits: [(name: String, factor: Int64)] = [
        ("", 1), ("b", 1), ("kb", 1_000), ("mb", 1_000_000), ("gb", 1_000_000_000), ("tb", 1_000_000_000_000),
        ("kib", 1 << 10), ("mib", 1 << 20), ("gib", 1 << 30), ("tib", 1 << 40),
    ]

    private static func octetCount(_ value: TOMLValue) throws(Fault) -> Int64 {
        let hint = "write octets, or \"50MB\", \"50MiB\""
        if case .integer(let number) = value { return number }
        guard case .string(let text) = value else { throw Self.wrongType(value, "a size", hint: hint) }
        let octets = Array(text.utf8)
        let digits = octets.prefix(while: \.isDigit)
        let unit = octets.dropFirst(digits.count).drop { $0 == ASCII.space }.lowercasedOctets
        guard let number = digits.decimal(limit: 1 << 50),
            let factor = Self.sizeUnits.first(where: { unit.elementsEqual($0.name.utf8) })?.factor
        else { throw Fault("\"\(text)\" is not a size", hint: hint) }
        let (product, overflow) = Int64(number).multipliedReportingOverflow(by: factor)
        guard !overflow else { throw Fault("\"\(text)\" is too large", hint: hint) }
        return product
    }

    // MARK: Names and addresses

    private static func hostname(_ text: String) throws(Fault) -> String {
        let hint = "the name by which other servers know this one, such as \"mx.example.org\""
        guard IPAddress(text: text) == nil else { throw Fault("\"\(text)\" is an address, not a name", hint: hint) }
        let octets = Array(text.utf8)
        guard MailAddress.isDomainName(octets), let last = octets.split(separator: ASCII.dot).last,
            !last.allSatisfy(\.isDigit)
        else { throw Fault("\"\(text)\" is not a host name", hint: hint) }
        return text
    }

    private static func domain(_ text: String) throws(Fault) -> String {
        let octets = Array(text.utf8)
        if octets.contains(ASCII.at) {
            throw Fault("\"\(text)\" is not a domain", hint: "only what stands after the @")
        }
        guard let domain = DomainMapping.idna2008.ascii(octets) else {
            let hint = octets.contains(0x2A) || octets.first == ASCII.dot ? "list each domain by itself" : ""
            throw Fault("\"\(text)\" is not a domain", hint: hint)
        }
        return String(decoding: domain, as: UTF8.self)
    }

    private static func network(_ text: String) throws(Fault) -> String {
        guard Network(text: text) == nil else { return text }
        let parts = text.split(separator: "/", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
        if let address = IPAddress(text: parts[0]), parts.count == 2, let length = Int(parts[1]),
            (0...128).contains(length)
        {
            // An address in front of a length that fits: bits beyond the length are set.
            for shorter in stride(from: length, through: 0, by: -1) {
                if let network = Self.masked(address, length: shorter) {
                    throw Fault("\"\(text)\" has bits beyond its length", hint: "did you mean \"\(network)\"?")
                }
            }
        }
        throw Fault("\"\(text)\" is not a network", hint: "write \"192.0.2.0/24\", \"2001:db8::/32\" or one address")
    }

    /// The network of that length that the address is in, or nil if it has no such length.
    private static func masked(_ address: IPAddress, length: Int) -> String? {
        switch address {
        case .v4(let bits):
            guard length <= 32 else { return nil }
            let base = length == 0 ? 0 : bits & (UInt32.max << UInt32(32 - length))
            return "\(IPAddress.v4(base).text)/\(length)"
        case .v6(let high, let low):
            guard length <= 128 else { return nil }
            let upper = length >= 64 ? high : (length == 0 ? 0 : high & (UInt64.max << UInt64(64 - length)))
            let lower = length <= 64 ? 0 : (length == 128 ? low : low & (UInt64.max << UInt64(128 - length)))
            return "\(IPAddress.v6(upper, lower).text)/\(length)"
        }
    }

    private static func socketAddress(_ text: String) throws(Fault) -> String {
        if SocketAddress(text: text) != nil { return text }
        let octets = Array(text.utf8)
        var hint = "write \"127.0.0.1:25\" or \"[::]:25\""
        if let address = IPAddress(text: text) {
            hint = "the port is missing: \"\(SocketAddress(address: address, port: 25).text)\""
        } else if let port = octets.decimal(limit: 65_535) {
            hint = "write \"[::]:\(port)\" for all addresses of this machine"
        } else if let colon = octets.lastIndex(of: ASCII.colon),
            let port = octets[(colon + 1)...].decimal(limit: 65_535), port > 0
        {
            let host = Array(octets[..<colon])
            if host.isEmpty || host == [0x2A] {
                hint = "write \"[::]:\(port)\" for all addresses of this machine"
            } else if IPAddress(octets: host) != nil {
                hint = "write \"[\(host.printableText)]:\(port)\""
            } else if host.elementsEqual("localhost".utf8) {
                hint = "write \"127.0.0.1:\(port)\", and \"[::1]:\(port)\" in a second [[listen]]"
            }
        }
        throw Fault("\"\(text)\" is not an address with a port", hint: hint)
    }

    private static func resolver(_ text: String) throws(Fault) -> String {
        guard IPAddress(text: text) != nil || SocketAddress(text: text) != nil else {
            throw Fault(
                "\"\(text)\" is not the address of a resolver", hint: "write \"127.0.0.1\" or \"127.0.0.1:5353\"")
        }
        return text
    }

    private static func language(_ text: String) throws(Fault) -> String {
        guard ReportTemplate.isLanguage(Array(text.utf8)) else {
            throw Fault("\"\(text)\" is not the tag of a language", hint: "write \"en\", \"pl\" or \"pt-BR\"")
        }
        return text.lowercased()
    }
}
