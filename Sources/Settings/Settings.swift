// SPDX-License-Identifier: Apache-2.0

import LookupCore
import MailTypes
import MessageCore
package import PipeCore
package import Unix

/// The settings of a running Apus: what apusd itself needs, and the table of each program.
package struct Settings: Equatable, Sendable {
    /// Where Apus listens.
    package struct ListenAddress: Hashable, Sendable {
        package let address: SocketAddress
        /// As the administrator wrote it; this word names the listener towards the programs.
        package let text: String
        /// `mx` or `submission`.
        package let role: String
        package let tls: ListenerTLS
        /// Where it stands in the file.
        package let line: Int
    }

    /// The file it was read from.
    package let file: String
    package let hostname: String
    package let stateDirectory: String
    /// Where `state` stands in the file; 0 if it is not set.
    package let stateLine: Int
    package let listenAddresses: [ListenAddress]
    /// The first is for clients that name no host, or one that no certificate has.
    package let certificates: [CertificateFiles]
    package let workerCount: Int
    package let stopTimeout: Duration
    /// Programs of others that run in the place of ours: the path and the arguments.
    package let replacements: [ProgramName: [String]]
    /// What each program is handed: only what the administrator has set; the programs know their defaults.
    private let tables: [ProgramName: SettingsTable]
    /// Files that programs read, with their program.
    package let files: [File]

    /// A file that a program reads.
    package struct File: Sendable {
        enum Form {
            case other
            case aliases(AliasFile.Terms)
            case table(TablePlace)
        }

        package let path: String
        /// Where it stands in the settings.
        package let line: Int
        package let program: ProgramName
        let form: Form
    }

    /// More octets than a template of reports may have are not read.
    package static let templateOctetCountMax = ReportTemplate.octetCountMax
    /// Files that apusd reads for apus-bounce, which may read none.
    package let templates: [(path: String, line: Int)]
    /// The file with the secret of rewritten senders, which apusd reads for the programs that need it.
    package let secretFile: (path: String, line: Int)?
    /// Whether senders are rewritten, and where that stands.
    let rewriting: (domain: String, line: Int)?
    /// The languages that reports are to be written in.
    let languages: [(tag: String, line: Int)]

    /// The secret in a file: its first line, of printable characters without blanks.
    ///
    /// - Returns: nil if there is none, or one that is too short.
    package static func secret(_ octets: [UInt8]) -> String? {
        let line = octets.prefix { $0 != ASCII.lineFeed && $0 != ASCII.carriageReturn }
        guard line.count >= SenderRewriting.secretOctetCountMin,
            line.allSatisfy({ $0.isPrintable && $0 != ASCII.space })
        else {
            return nil
        }
        return String(decoding: line, as: UTF8.self)
    }

    /// A longer file is not read.
    package static let secretFileOctetCountMax = 4_096

    /// What a program is handed.
    package func table(for program: ProgramName) -> SettingsTable { self.tables[program] ?? SettingsTable() }

    package static func == (left: Settings, right: Settings) -> Bool {
        left.file == right.file && left.hostname == right.hostname && left.stateDirectory == right.stateDirectory
            && left.listenAddresses == right.listenAddresses && left.workerCount == right.workerCount
            && left.stopTimeout == right.stopTimeout && left.tables == right.tables
            && left.replacements == right.replacements && left.certificates == right.certificates
            && left.templates.map(\.path) == right.templates.map(\.path)
            && left.secretFile?.path == right.secretFile?.path
    }

    package static let stateDirectoryDefault = "/var/lib/apus"
    /// The settings file of an installed Apus.
    package static let fileDefault = "/etc/apus/apus.toml"
    /// More octets than a settings file of ten thousand domains needs.
    package static let fileOctetCountMax = 4 << 20

    /// Reads and checks a text. The settings are nil if there is a mistake; advice alone does no harm.
    package static func read(octets: [UInt8], file: String) -> (settings: Settings?, remarks: [Remark]) {
        let reader = SettingsReader(file: file, octets: octets)
        let isFaulty = reader.remarks.contains { $0.weight == .mistake }
        return (isFaulty ? nil : Settings(reader), reader.remarks)
    }

    /// Reads and checks a file; looks at nothing else. `Surroundings` looks whether the world fits the settings.
    package static func read(file: String) -> (settings: Settings?, remarks: [Remark]) {
        do throws(SystemError) {
            return Self.read(octets: try Descriptor.readFile(file, octetCountMax: Self.fileOctetCountMax), file: file)
        } catch {
            return (nil, [Remark(file: file, line: 0, "cannot be read: \(error.text)")])
        }
    }

    /// What a file with mistakes says as far as it can be read: for looking further, never for running. Where a value
    /// is wrong, the default stands.
    package static func readAnyway(file: String) -> Settings? {
        guard let octets = try? Descriptor.readFile(file, octetCountMax: Self.fileOctetCountMax) else { return nil }
        return Settings(SettingsReader(file: file, octets: octets))
    }

    /// The state directory that a file names, even if there are mistakes elsewhere in it.
    package static func stateDirectory(file: String) throws(SystemError) -> String {
        let octets = try Descriptor.readFile(file, octetCountMax: Self.fileOctetCountMax)
        return SettingsReader(file: file, octets: octets).values["state"]?.first?.text ?? Self.stateDirectoryDefault
    }

    /// Those of listeners with their own, that of `[tls]`, then the others.
    private static func certificates(_ reader: SettingsReader) -> [CertificateFiles] {
        var certificates: [CertificateFiles] = []
        func add(_ chain: SettingsReader.Value?, _ key: SettingsReader.Value?, listener: String = "") {
            guard let chain else { return }
            certificates.append(
                CertificateFiles(
                    listener: listener, chain: chain.text, key: key?.text ?? chain.text, line: chain.line))
        }
        for listen in reader.tables("listen") {
            add(
                listen.values["certificate"], listen.values["private-key"],
                listener: listen.values["address"]?.text ?? "")
        }
        add(reader.values["tls.certificate"]?.first, reader.values["tls.private-key"]?.first)
        for table in reader.tables("certificate") { add(table.values["certificate"], table.values["private-key"]) }
        return certificates
    }

    private static func aliasTerms(_ reader: SettingsReader) -> AliasFile.Terms {
        func isOn(_ key: String) -> Bool { reader.values[key]?.first?.text == "true" }
        return AliasFile.Terms(
            includes: isOn("local.alias-includes"), programs: isOn("local.alias-programs"),
            files: isOn("local.alias-files"))
    }

    private static func file(
        _ key: SettingKey, _ value: SettingsReader.Value, _ program: ProgramName, _ reader: SettingsReader
    ) -> File? {
        // Apus-local reads the aliases as another user; `Surroundings` looks at that for itself.
        guard program != .local else { return nil }
        return switch key.kind {
        case .file:
            File(
                path: value.text, line: value.line, program: program,
                form: key.path == "local.aliases" ? .aliases(Self.aliasTerms(reader)) : .other)
        case .table:
            TablePlace(value.text).flatMap { place in
                place.path.map { File(path: $0, line: value.line, program: program, form: .table(place)) }
            }
        default: nil
        }
    }

    /// Takes what the reader has found in order.
    private init(_ reader: SettingsReader) {
        self.file = reader.file
        self.hostname = reader.values["hostname"]?.first?.text ?? ""
        let state = reader.values["state"]?.first
        self.stateDirectory = state?.text ?? Self.stateDirectoryDefault
        self.stateLine = state?.line ?? 0
        self.workerCount = reader.values["smtp.workers"]?.first.flatMap { Int($0.text) } ?? 1
        self.stopTimeout = .seconds(reader.values["stop-timeout"]?.first.flatMap { Int($0.text) } ?? 30)
        self.listenAddresses = reader.tables("listen").compactMap { listen in
            guard let value = listen.values["address"], let role = listen.values["role"],
                let address = SocketAddress(text: value.text)
            else { return nil }
            return ListenAddress(
                address: address, text: value.text, role: role.text,
                tls: listen.values["tls"].flatMap { ListenerTLS(rawValue: $0.text) } ?? .offer, line: value.line)
        }
        self.certificates = Self.certificates(reader)
        let places: [ProgramName: String] = [
            .local: "programs.local", .remote: "programs.remote", .bounce: "programs.bounce",
        ]
        self.replacements = places.compactMapValues { reader.values[$0]?.map(\.text) }
        var tables: [ProgramName: SettingsTable] = [:]
        var files: [File] = []
        for key in SettingsSchema.keys {
            for value in reader.values[key.path] ?? [] {
                for use in key.uses {
                    tables[use.program, default: SettingsTable()].append(use.name, value.text)
                    if let file = Self.file(key, value, use.program, reader) { files.append(file) }
                }
            }
        }
        for table in reader.tables("destination") {
            guard let match = table.values["match"] else { continue }
            let limits = DestinationSetting.ranges.compactMap { limit in
                table.values[limit.name].map { " \(limit.name)=\($0.text)" }
            }
            let words = limits.joined() + (table.values["tls"].map { " tls=\($0.text)" } ?? "")
            let user = table.values["user"].map { " user=\($0.text)" } ?? ""
            for program in [ProgramName.queue, .remote] {
                tables[program, default: SettingsTable()].append("destination", match.text + words + user)
            }
        }
        // What follows from the settings without being one.
        tables[.queue, default: SettingsTable()].append("directory", "\(self.stateDirectory)/queue")
        if reader.values["sendmail.origin"] == nil, let domain = reader.values["domains.local"]?.first {
            tables[.smtpd, default: SettingsTable()].append("origin", domain.text)
        }
        let sizeMax =
            reader.values["smtp.size-max"]?.first.flatMap { Int($0.text) } ?? SettingsSchema.messageOctetCountDefault
        tables[.smtpd, default: SettingsTable()].append("size-max", String(sizeMax))
        tables[.queue, default: SettingsTable()].append(
            "message-size-max", String(sizeMax + SettingsSchema.messageOctetCountMargin))
        // Sessions get less time than the supervision gives to their process, so that it is not killed over them.
        let stopSeconds = Int(self.stopTimeout.components.seconds)
        tables[.smtpd, default: SettingsTable()].append("stop-timeout", String(stopSeconds * 2 / 5))
        // The queue stops behind them. It has the rest of what it is given if they took their time, and nearly all if not.
        tables[.queue, default: SettingsTable()].append("stop-timeout", String(max(1, stopSeconds * 4 / 5)))
        self.tables = tables
        self.files = files
        self.secretFile = reader.values["forwarding.srs-secret"]?.first.map { ($0.text, $0.line) }
        self.rewriting = reader.values["forwarding.srs-domain"]?.first.map { ($0.text, $0.line) }
        self.templates = (reader.values["bounce.templates"] ?? []).map { ($0.text, $0.line) }
        let rules = (reader.values["bounce.languages"] ?? []).map { rule in
            (tag: rule.text.split(separator: " ").last.map(String.init) ?? "", line: rule.line)
        }
        self.languages = rules + (reader.values["bounce.language"] ?? []).map { ($0.text, $0.line) }
    }
}
