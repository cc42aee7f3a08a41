// SPDX-License-Identifier: Apache-2.0
//
// Targets of aliases that are neither names nor addresses: what they are and whether they may be there.

import MailTypes

extension AliasFile {
    /// The alias beside an alias to which reports about its mail go: `owner-list` beside `list`, if it is there. Owners have
    /// none themselves.
    ///
    /// - Parameter alias: in lower case.
    package func owner(of alias: [UInt8]) -> [UInt8]? {
        guard !alias.starts(with: Self.ownerMark) else { return nil }
        let owner = Self.ownerMark + alias
        return self.entries[owner] == nil ? nil : owner
    }

    /// Whether a name is that of an alias which reports may go to.
    func isOwner(_ name: [UInt8]) -> Bool { name.starts(with: Self.ownerMark) && self.entries[name] != nil }

    /// Whether apus-local has to do what an alias says, as it is more than addresses: it runs programs or writes files, or
    /// sends in the name of its owner.
    package func isDelivered(_ alias: [UInt8], _ entry: Entry) -> Bool {
        entry.hasActions || self.owner(of: alias) != nil
    }

    /// Whether a target of an alias means the user behind it: an alias that names itself would lead to itself.
    ///
    /// - Parameter domain: of the address that the alias was asked for as.
    package static func isSelf(_ target: Target, of alias: [UInt8], at domain: some Collection<UInt8>) -> Bool {
        switch target {
        case .name(let name), .user(let name): name.lowercasedOctets == alias
        case .address(let address):
            address.unquotedLocalPart.lowercasedOctets == alias
                && address.domain.lowercasedOctets == domain.lowercasedOctets
        case .list, .program, .file: false
        }
    }

    private static let ownerMark: [UInt8] = Array("owner-".utf8)

    /// What /bin/sh takes as one argument, by a margin; and no path is longer.
    private static let textOctetCountMax = 4_096

    /// A program, a file or an included list; nil if the word is none of them.
    static func specialTarget(_ word: ArraySlice<UInt8>, _ place: Place) -> Result<Target, Reason>? {
        let shown = word.prefix(60).printableText
        let words = Self.unquoted(word) ?? Array(word)
        func refused(_ kind: String, _ setting: String) -> Result<Target, Reason> {
            .failure(Reason(text: "\"\(shown)\": \(place.refusal(kind, setting: setting))"))
        }
        switch words.first {
        case 0x7C:
            guard place.terms.programs else { return refused("programs (|)", "local.alias-programs") }
            guard let command = Self.command(words) else {
                return .failure(Reason(text: "\"\(shown)\": behind | stands no command that can be run"))
            }
            return .success(.program(command: command))
        case 0x2F:
            guard place.terms.files else { return refused("files", "local.alias-files") }
            guard let path = Self.filePath(words) else {
                return .failure(Reason(text: "\"\(shown)\" is not a file or a directory for mail"))
            }
            return .success(.file(path: path))
        case ASCII.colon:
            guard let path = Self.includedPath(words) else {
                return .failure(Reason(text: "\"\(shown)\" is neither a target nor :include:/path"))
            }
            guard place.terms.includes else {
                return .failure(Reason(text: "\"\(shown)\": :include: is not allowed (local.alias-includes)"))
            }
            return .success(.list(path: path))
        default: return nil
        }
    }

    /// The command behind the bar; sendmail's way to write it, `|"command"`, has the quotes behind it.
    private static func command(_ words: [UInt8]) -> String? {
        let text = Self.trimmed(words.dropFirst())
        return Self.text(Self.unquotedCommand(text))
    }

    /// `"program arguments"` without its marks, which vacation(1) and procmail(1) tell users to write behind `|`; anything else
    /// as it is.
    static func unquotedCommand(_ text: ArraySlice<UInt8>) -> [UInt8] {
        text.first == ASCII.quote ? Self.unquoted(text) ?? Array(text) : Array(text)
    }

    /// A path that leads nowhere but where it says.
    private static func filePath(_ words: [UInt8]) -> String? {
        guard let path = Self.text(words) else { return nil }
        let components = path.split(separator: "/")
        return components.isEmpty || components.contains("..") || components.contains(".") ? nil : path
    }

    /// The path behind `:include:`; nil if there is no absolute one.
    private static func includedPath(_ words: [UInt8]) -> String? {
        let mark = Array(":include:".utf8)
        let path = Self.trimmed(words.dropFirst(mark.count))
        guard words.prefix(mark.count).equalsIgnoringCase(mark), path.first == 0x2F else { return nil }
        return Self.text(Array(path))
    }

    /// Text without control characters; nil if it is none, or empty, or too long.
    private static func text(_ octets: [UInt8]) -> String? {
        guard !octets.isEmpty, octets.count <= Self.textOctetCountMax,
            octets.allSatisfy({ ($0 >= ASCII.space && $0 != 0x7F) || $0 == ASCII.tab })
        else { return nil }
        return String(validating: octets, as: UTF8.self)
    }
}
