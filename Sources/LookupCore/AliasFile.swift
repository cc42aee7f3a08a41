// SPDX-License-Identifier: Apache-2.0

package import MailTypes

/// The entries of an aliases(5) file, and everything that is wrong with it.
///
/// `name: target, target`. A line that begins with white space continues the one before; empty lines and lines whose
/// first character is `#` are passed over, also between a line and its continuation. Names have no domain and are
/// compared without regard to case. A target is a local name, an address, or `\name` for the system user of that name;
/// quotes hold what would otherwise be special. If that is allowed, `:include:/path` stands for the targets in a file,
/// `|command` for a program that takes the mail, and `/path` for a file that it is written into.
///
/// A mistake never makes mail bounce: an entry with a target that is not understood is kept as broken, and its mail
/// waits; if the name of an entry cannot be read, any name that is not found might be that one (`hasUnreadableLine`).
package struct AliasFile: Hashable, Sendable {
    /// Where an alias leads.
    package enum Target: Hashable, Sendable {
        /// Another alias, or a system user; as written, without quotes.
        case name([UInt8])
        /// The system user, even if there is an alias of the same name.
        case user([UInt8])
        case address(MailAddress)
        /// Those in the file of that absolute path.
        case list(path: String)
        /// For /bin/sh.
        case program(command: String)
        /// An absolute path; with a slash at the end, that of a Maildir.
        case file(path: String)
    }

    /// What may be a target besides names and addresses.
    package struct Terms: Hashable, Sendable {
        package var includes = false
        package var programs = false
        package var files = false

        package init(includes: Bool = false, programs: Bool = false, files: Bool = false) {
            self.includes = includes
            self.programs = programs
            self.files = files
        }
    }

    /// Where a list of targets stands.
    enum Place {
        case aliases(Terms)
        /// A file that an alias includes: who may write it is not the administrator.
        case included
        case virtualTable

        var terms: Terms {
            switch self {
            case .aliases(let terms): terms
            case .included: Terms(includes: true)
            case .virtualTable: Terms()
            }
        }

        /// Why a kind of target is not allowed here.
        func refusal(_ kind: String, setting: String) -> String {
            switch self {
            case .aliases: "\(kind) are not allowed (\(setting))"
            case .included: "\(kind) are not possible in a file that is included"
            case .virtualTable: "\(kind) are not possible in a table"
            }
        }
    }

    /// What stands behind one name.
    package struct Entry: Hashable, Sendable {
        /// Where the entry begins, counted from 1.
        package let line: Int
        package let targets: [Target]
        /// A target was not understood, or there is none: mail for this name has to wait for the administrator.
        package let isBroken: Bool
        /// Whether a program or a file is among the targets.
        package let hasActions: Bool

        init(line: Int, targets: [Target], isBroken: Bool) {
            self.line = line
            self.targets = targets
            self.isBroken = isBroken
            self.hasActions = targets.contains { target in
                switch target {
                case .program, .file: true
                case .name, .user, .address, .list: false
                }
            }
        }
    }

    /// By name in lower case.
    package private(set) var entries: [[UInt8]: Entry] = [:]
    private var noted = LineFaults()
    /// There is a line whose name is not known.
    package private(set) var hasUnreadableLine = false

    /// A file larger than this is not read.
    package static let octetCountMax = 67_108_864
    /// A name, quotes taken off, is at most so long.
    package static let nameOctetCountMax = MailAddress.localPartOctetCountMax
    /// So many targets of one entry are taken; one more breaks it.
    package static let targetCountMax = 10_000
    /// So many faults are told one by one; the last of them says that there are more.
    package static let faultCountMax = LineFaults.countMax

    /// In the order of their lines.
    package var faults: [LineFault] { self.noted.list }

    /// No aliases at all.
    package init() { self.terms = Terms() }

    /// What stands for a file that could not be read: any name might be in it.
    package static var unreadable: AliasFile {
        var file = AliasFile()
        file.hasUnreadableLine = true
        return file
    }

    private let terms: Terms

    /// Reads a file of at most `octetCountMax` octets; a longer one is a fault.
    ///
    /// - Parameter domains: how those beyond ASCII are written.
    package init(octets: [UInt8], _ terms: Terms = Terms(), domains: DomainMapping = .none) {
        self.terms = terms
        guard octets.count <= Self.octetCountMax else {
            self.hasUnreadableLine = true
            self.noted.note(1, "the file is larger than \(Self.octetCountMax) octets; nothing of it was read")
            return
        }
        LineFile.forEachItem(octets, isBlank: \.isBlank) { item in
            switch item {
            case .entry(let text, let line): self.take(text, line: line, domains)
            case .orphan(_, let line):
                self.hasUnreadableLine = true
                self.noted.note(line, LineFile.Item.orphanText)
            }
        }
        self.noted.sortByLine()
    }

    // MARK: One entry

    private mutating func take(_ text: [UInt8], line: Int, _ domains: DomainMapping) {
        guard let colon = LineFile.end(of: text[...], where: { $0 == ASCII.colon }) else {
            self.hasUnreadableLine = true
            self.noted.note(line, "no colon; an entry is written \"name: target, target\"")
            return
        }
        guard let name = Self.unquoted(Self.trimmed(text[..<colon])), Self.isName(name) else {
            self.hasUnreadableLine = true
            let shown = text[..<colon].prefix(60).printableText
            self.noted.note(line, "\"\(shown)\" is no name: it has no domain, and blanks only inside quotes")
            return
        }
        let (targets, reasons) = Self.targets(text[(colon + 1)...], in: .aliases(self.terms), domains)
        for reason in reasons { self.noted.note(line, "\(name.printableText): \(reason.text)") }
        let isBroken = !reasons.isEmpty
        let key = name.lowercasedOctets
        if let earlier = self.entries[key] {
            self.noted.note(line, "\(name.printableText) is there already in line \(earlier.line), which counts")
        } else {
            self.entries[key] = Entry(line: line, targets: targets, isBroken: isBroken)
        }
    }

    /// Why a target is not understood.
    struct Reason: Error { let text: String }

    /// The targets of a list, and why others in it are none. One of both is not empty.
    static func targets(
        _ list: ArraySlice<UInt8>, in place: Place, _ domains: DomainMapping
    ) -> (targets: [Target], reasons: [Reason]) {
        var targets: [Target] = []
        var reasons: [Reason] = []
        var rest = list
        while true {
            let end = LineFile.end(of: rest, where: { $0 == 0x2C }) ?? rest.endIndex
            let word = Self.trimmed(rest[..<end])
            if !word.isEmpty {
                switch Self.target(word, place, domains) {
                case .success(let target): targets.append(target)
                case .failure(let reason): if reasons.count < Self.faultCountMax { reasons.append(reason) }
                }
            }
            guard end < rest.endIndex else { break }
            rest = rest[(end + 1)...]
            if targets.count >= Self.targetCountMax {
                reasons.append(Reason(text: "more than \(Self.targetCountMax) targets"))
                break
            }
        }
        if targets.isEmpty, reasons.isEmpty { reasons.append(Reason(text: "no target behind the colon")) }
        return (targets, reasons)
    }

    /// The targets of a virtual alias: a list as in a file of aliases, or `@domain`, the same local part there.
    ///
    /// - Parameter address: whose mail it is.
    static func virtualTargets(
        _ list: [UInt8], of address: MailAddress, _ domains: DomainMapping
    ) -> Result<[Target], Reason> {
        let word = Self.trimmed(list[...])
        if word.first == ASCII.at {
            guard let other = MailAddress(octets: address.localPart + word, domains: domains) else {
                return .failure(Reason(text: "\"\(word.prefix(60).printableText)\" is no domain"))
            }
            return .success([.address(other)])
        }
        guard !word.isEmpty else { return .failure(Reason(text: "no target")) }
        let (targets, reasons) = Self.targets(word, in: .virtualTable, domains)
        return reasons.first.map { .failure($0) } ?? .success(targets)
    }

    private static func target(
        _ word: ArraySlice<UInt8>, _ place: Place, _ domains: DomainMapping
    ) -> Result<Target, Reason> {
        if let special = Self.specialTarget(word, place) { return special }
        let shown = word.prefix(60).printableText
        if let open = word.lastIndex(of: ASCII.less), word.last == ASCII.greater {
            guard let address = MailAddress(octets: word[(open + 1)..<(word.endIndex - 1)], domains: domains) else {
                return .failure(Reason(text: "\"\(shown)\" has no mail address between < and >"))
            }
            return .success(.address(address))
        }
        if let address = MailAddress(octets: word, domains: domains) { return .success(.address(address)) }
        if word.first == ASCII.backslash {
            guard let user = Self.unquoted(word.dropFirst()), Route.isUserName(user) else {
                return .failure(Reason(text: "\"\(shown)\": behind the backslash stands no name of a user"))
            }
            return .success(.user(user))
        }
        guard let name = Self.unquoted(word), Self.isName(name) else {
            let hint = word.contains(where: \.isBlank) ? "; is a comma missing?" : ""
            return .failure(Reason(text: "\"\(shown)\" is neither a local name nor a mail address\(hint)"))
        }
        return .success(.name(name))
    }

    // MARK: Words

    static func trimmed(_ text: ArraySlice<UInt8>) -> ArraySlice<UInt8> {
        LineFile.trimmed(text, isBlank: \.isBlank)
    }

    /// What a word means: the inside of a quoted one, an unquoted one as it is; nil if its quotes are not one pair
    /// around the whole.
    static func unquoted(_ word: ArraySlice<UInt8>) -> [UInt8]? {
        guard word.first == ASCII.quote else {
            return word.contains { $0 == ASCII.quote || $0.isBlank } ? nil : Array(word)
        }
        var result: [UInt8] = []
        var isEscaped = false
        for index in word.indices.dropFirst() {
            let octet = word[index]
            if !isEscaped, octet == ASCII.backslash {
                isEscaped = true
            } else if !isEscaped, octet == ASCII.quote {
                return index == word.endIndex - 1 ? result : nil
            } else {
                result.append(octet)
                isEscaped = false
            }
        }
        return nil
    }

    /// Whether this can be the name of an alias: what a local part can mean, but for an `@`.
    private static func isName(_ name: [UInt8]) -> Bool {
        !name.isEmpty && name.count <= Self.nameOctetCountMax
            && name.allSatisfy { ($0.isPrintable || $0 >= 0x80) && $0 != ASCII.at } && name.isAddressText
    }
}

extension UInt8 {
    /// A space or a tab.
    fileprivate var isBlank: Bool { self == ASCII.space || self == ASCII.tab }
}
