// SPDX-License-Identifier: Apache-2.0
//
// The two kinds of files in which users say what becomes of their mail, as text: `.forward` as of sendmail and Postfix, and
// `.qmail` as of dot-qmail(5). No file is opened here.

package import MailTypes

/// What a user's file says.
package struct DotFile: Equatable, Sendable {
    /// A line that cannot be understood, or is not allowed: the mail waits until the user has seen to it.
    package struct Fault: Error, Equatable {
        /// From 1 on.
        package let line: Int
        package let text: String
    }

    package enum Instruction: Equatable, Sendable {
        /// An absolute path, or one that begins in the home directory.
        case mbox(String)
        case maildir(String)
        /// For /bin/sh.
        case command(String)
        /// The user's mailbox as the settings say.
        case mailbox
    }

    /// In the order in which they are done; the first that fails is the last.
    package private(set) var instructions: [Instruction] = []
    /// Done after the instructions, all in one message.
    package private(set) var forwards: [ForwardPath] = []
    /// How many of `forwards` stood in front of each instruction: a program can end the reading there.
    package private(set) var forwardCounts: [Int] = []

    /// Whether there is no instruction. By a `.forward` like that the mail goes into the mailbox.
    package var isEmpty: Bool { self.instructions.isEmpty && self.forwards.isEmpty }

    /// A file that is larger is not read.
    package static let octetCountMax = 65_536
    /// Instructions and addresses together.
    package static let entryCountMax = 500

    private mutating func append(_ instruction: Instruction, _ line: Int) throws(Fault) {
        try self.checkCount(line)
        self.instructions.append(instruction)
        self.forwardCounts.append(self.forwards.count)
    }

    private mutating func append(
        address text: ArraySlice<UInt8>, domain: [UInt8], _ domains: DomainMapping, _ line: Int
    ) throws(Fault) {
        try self.checkCount(line)
        var octets = Array(text)
        if !octets.contains(ASCII.at), !octets.isEmpty { octets += [ASCII.at] + domain }
        guard let path = ForwardPath(octets: octets, domains: domains), path != .postmaster else {
            throw Fault(line: line, text: "\(Array(text).printableText) is not an address")
        }
        self.forwards.append(path)
    }

    private func checkCount(_ line: Int) throws(Fault) {
        guard self.instructions.count + self.forwards.count < Self.entryCountMax else {
            throw Fault(line: line, text: "more than \(Self.entryCountMax) instructions")
        }
    }

    private static func text(_ octets: ArraySlice<UInt8>, _ line: Int) throws(Fault) -> String {
        guard !octets.contains(0), let text = String(validating: octets, as: UTF8.self) else {
            throw Fault(line: line, text: "is not text")
        }
        return text
    }

    private mutating func append(command octets: ArraySlice<UInt8>, _ line: Int) throws(Fault) {
        // A shell that is given nothing to do does it, and the mail would be gone.
        guard !Self.trimmed(octets).isEmpty else { throw Fault(line: line, text: "there is no program behind |") }
        try self.append(.command(Self.text(octets, line)), line)
    }

    private mutating func append(path octets: ArraySlice<UInt8>, _ line: Int) throws(Fault) {
        let path = try Self.text(octets, line)
        let components = path.split(separator: "/")
        guard !components.isEmpty, !components.contains(".."), !components.dropFirst().contains(".") else {
            throw Fault(line: line, text: "\(path) is not a file or a directory for mail")
        }
        try self.append(path.hasSuffix("/") ? .maildir(path) : .mbox(path), line)
    }

    // MARK: .forward

    /// Reads a `.forward`: targets parted by commas and ends of lines.
    ///
    /// - Parameters:
    ///   - user: whose own name, or a name behind `\`, is the mailbox.
    ///   - domain: of addresses without one.
    ///   - domains: how those beyond ASCII are written.
    package static func forward(
        _ octets: [UInt8], user: [UInt8], domain: [UInt8], domains: DomainMapping
    ) throws(Fault) -> DotFile {
        var file = DotFile()
        let lines = octets.split(separator: ASCII.lineFeed, omittingEmptySubsequences: false)
        for (index, line) in lines.enumerated() where line.first(where: { !$0.isTableBlank }) != 0x23 {
            for target in try Self.targets(line, index + 1) {
                try file.take(target, user: user, domain: domain, domains, index + 1)
            }
        }
        return file
    }

    /// The targets of a line, without the quotation marks around them; those of `|"program arguments"` are left to `take`.
    private static func targets(_ line: ArraySlice<UInt8>, _ number: Int) throws(Fault) -> [[UInt8]] {
        var targets: [[UInt8]] = [[]]
        var rest = line
        while let octet = rest.popFirst() {
            if octet == ASCII.quote, targets[targets.count - 1] == [0x7C] {
                targets[targets.count - 1] += Self.quotedString(&rest)
            } else if octet == ASCII.quote, targets[targets.count - 1].isEmpty {
                let string = Self.quotedString(&rest)
                guard AliasFile.unquoted(string[...]) != nil else {
                    throw Fault(line: number, text: "a quotation mark is not closed")
                }
                targets[targets.count - 1] = string
            } else if octet == 0x2C {
                targets.append([])
            } else if !(octet.isTableBlank && targets[targets.count - 1].isEmpty) {
                targets[targets.count - 1].append(octet)
            }
        }
        return targets.map { Self.unquoted(Self.trimmed($0[...])) }.filter { !$0.isEmpty }
    }

    /// A target without the quotation marks around it. Those of an address belong to it: `"joe smith"@example.org`,
    /// `"Smith, Joe" <joe@example.org>`.
    private static func unquoted(_ target: ArraySlice<UInt8>) -> [UInt8] {
        guard target.first == ASCII.quote else { return Array(target) }
        if let inside = AliasFile.unquoted(target) { return inside }
        guard target.last != ASCII.greater, ForwardPath(octets: target, alphabet: .unicodeLocalPart) == nil else {
            return Array(target)
        }
        var rest = target.dropFirst()
        let string = Self.quotedString(&rest)
        return (AliasFile.unquoted(string[...]) ?? string) + rest
    }

    /// A quoted string whose first mark is gone, as it is written, its marks included; all that is left if it does not end.
    private static func quotedString(_ rest: inout ArraySlice<UInt8>) -> [UInt8] {
        var string = [ASCII.quote]
        while let octet = rest.popFirst() {
            string.append(octet)
            if octet == ASCII.quote { break }
            if octet == ASCII.backslash, let next = rest.popFirst() { string.append(next) }
        }
        return string
    }

    private mutating func take(
        _ target: [UInt8], user: [UInt8], domain: [UInt8], _ domains: DomainMapping, _ line: Int
    ) throws(Fault) {
        switch target[0] {
        case 0x7C: try self.append(command: AliasFile.unquotedCommand(Self.trimmed(target.dropFirst()))[...], line)
        case 0x2F: try self.append(path: target[...], line)
        case 0x7E where target.starts(with: "~/".utf8): try self.append(path: [ASCII.dot] + target.dropFirst(), line)
        case ASCII.backslash:
            guard Self.isSelf(target.dropFirst(), user, domain) else {
                throw Fault(line: line, text: "\(target.printableText): only the user's own name can stand behind \\")
            }
            try self.append(.mailbox, line)
        case ASCII.colon: throw Fault(line: line, text: "\(target.printableText) is not possible here")
        default:
            var address = target[...]
            if target.last == ASCII.greater, let open = target.lastIndex(of: ASCII.less) {
                address = target[(open + 1)..<(target.endIndex - 1)]
            }
            if Self.isSelf(address, user, domain) {
                try self.append(.mailbox, line)
            } else {
                try self.append(address: address, domain: domain, domains, line)
            }
        }
    }

    /// Whether that is the user himself, by name or by address.
    private static func isSelf(_ target: ArraySlice<UInt8>, _ user: [UInt8], _ domain: [UInt8]) -> Bool {
        target.equalsIgnoringCase(user) || target.equalsIgnoringCase(user + [ASCII.at] + domain)
    }

    private static func trimmed(_ octets: ArraySlice<UInt8>) -> ArraySlice<UInt8> {
        LineFile.trimmed(octets, isBlank: \.isTableBlank)
    }

    // MARK: .qmail

    /// Reads a `.qmail`: an instruction a line.
    ///
    /// - Parameters:
    ///   - domain: of addresses without one.
    ///   - isForwardOnly: whether only addresses may stand in it, as the file is executable.
    ///   - domains: how those beyond ASCII are written.
    package static func qmail(
        _ octets: [UInt8], domain: [UInt8], isForwardOnly: Bool, domains: DomainMapping
    ) throws(Fault) -> DotFile {
        var file = DotFile()
        var isForwardOnly = isForwardOnly
        guard !octets.isEmpty else { return file }
        let lines = octets.split(separator: ASCII.lineFeed, omittingEmptySubsequences: false)
        for (index, whole) in lines.enumerated() {
            let number = index + 1
            var line = whole
            while line.last?.isTableBlank == true { line.removeLast() }
            guard let first = line.first else {
                guard index > 0 else { throw Fault(line: 1, text: "the first line is empty") }
                continue
            }
            switch first {
            case 0x23: continue
            case 0x2B:
                if line.elementsEqual("+list".utf8) { isForwardOnly = true }
            case 0x7C, ASCII.dot, 0x2F:
                guard !isForwardOnly else {
                    throw Fault(line: number, text: "only addresses are allowed in this file")
                }
                if first == 0x7C {
                    try file.append(command: line.dropFirst(), number)
                } else {
                    guard first == 0x2F || line.starts(with: "./".utf8) else {
                        throw Fault(line: number, text: "a file begins with / or ./")
                    }
                    try file.append(path: line, number)
                }
            case 0x26: try file.append(address: Self.trimmed(line.dropFirst()), domain: domain, domains, number)
            default: try file.append(address: line, domain: domain, domains, number)
            }
        }
        return file
    }

    /// The names under which the file for an extension is looked for, in order; none if it cannot be part of a name.
    package static func qmailNames(extension tag: [UInt8]) -> [String] {
        guard !tag.isEmpty else { return [".qmail"] }
        // As dot-qmail(5) has it: a dot is a colon, so that no name leads anywhere else.
        let safe = tag.map { $0 == ASCII.dot ? ASCII.colon : $0.lowercased }
        guard safe.count <= 200, safe.allSatisfy({ $0 > 0x20 && $0 != 0x2F && $0 < 0x7F }) else { return [] }
        let text = String(decoding: safe, as: UTF8.self)
        var names = [".qmail-\(text)"]
        for place in safe.indices.reversed() where safe[place] == ASCII.hyphen {
            names.append(".qmail-\(String(decoding: safe[...place], as: UTF8.self))default")
        }
        names.append(".qmail-default")
        return names
    }
}
