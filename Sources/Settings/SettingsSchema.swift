// SPDX-License-Identifier: Apache-2.0

/// The programs that are handed settings.
package enum ProgramName: String, CaseIterable, Sendable {
    case smtpd = "apus-smtpd"
    case lookup = "apus-lookup"
    case vault = "apus-vault"
    case queue = "apus-queue"
    case remote = "apus-remote"
    case local = "apus-local"
    case bounce = "apus-bounce"
}

/// One key of apus.toml: what it can hold, who is handed it, and what the manual says.
///
/// Checking, the settings of each program and the reference are all made from `SettingsSchema.keys`.
package struct SettingKey: Sendable {
    /// How often it may stand in the file.
    package enum Count: Sendable {
        case optional
        case required
        /// A list of values.
        case list
        /// A list in which the same value may stand twice: a command line.
        case words
    }

    /// Who is handed it, and by which name.
    package struct Use: Sendable {
        package let program: ProgramName
        package let name: String
    }

    /// `smtp.size-max`; keys of a `[[listen]]` are `listen.address`.
    package let path: String
    package let kind: SettingKind
    package let count: Count
    package let uses: [Use]
    /// In the words of the manual; empty for what must be set.
    package let defaultText: String
    /// One or two sentences.
    package let about: String

    init(
        _ path: String, _ kind: SettingKind, _ count: Count = .optional, for uses: [(ProgramName, String)] = [],
        default defaultText: String = "", _ about: String
    ) {
        self.path = path
        self.kind = kind
        self.count = count
        self.uses = uses.map { Use(program: $0.0, name: $0.1) }
        self.defaultText = defaultText
        self.about = about
    }

    /// `smtp`, or empty for a key of the top.
    package var table: String { self.path.split(separator: ".").dropLast().joined(separator: ".") }
    /// `size-max`.
    package var name: String { String(self.path.split(separator: ".").last ?? "") }
    /// Whether it is known but does not work yet.
    var isLater: Bool { if case .later = self.kind { true } else { false } }
}

/// All keys of apus.toml, in the order of the manual.
package enum SettingsSchema {
    /// Written `[[listen]]`, once for each address, `[[certificate]]` and `[[destination]]`, once for each pattern.
    static let repeatedTables = ["listen", "certificate", "destination"]

    /// `smtp.size-max` by default. Two programs must agree on it, so it is handed over even if it is not set.
    static let messageOctetCountDefault = 52_428_800
    /// What apus-queue takes above it: the fields in front of a message.
    static let messageOctetCountMargin = 65_536

    /// The key of that path.
    static func key(_ path: String) -> SettingKey? { Self.keys.first { $0.path == path } }

    /// The tables that the keys stand in.
    static let tables: Set<String> = Set(Self.keys.map(\.table).filter { !$0.isEmpty })
}
