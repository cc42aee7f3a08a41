// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import Glibc
import IDN
import LMDB
import LookupCore
import MailTypes
import Unix

/// `apus table`: compiled tables.
struct TableCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "table", abstract: "Makes and asks tables of virtual domains.",
        subcommands: [Build.self, Query.self])

    /// The entries of a text file; its mistakes are told, and end the command if there are any.
    private static func read(_ path: String) throws -> LookupCore.TextTable {
        let table = LookupCore.TextTable(octets: try Self.octets(path), domains: .idna2008)
        try Self.complain(path, table.faults)
        return table
    }

    private static func readPatterns<Table: PatternTable>(_ path: String, _ kind: Table.Type) throws -> Table {
        let table = Table(octets: try Self.octets(path))
        try Self.complain(path, table.faults)
        return table
    }

    private static func octets(_ path: String) throws -> [UInt8] {
        do throws(SystemError) {
            return try Descriptor.readFile(path, octetCountMax: LookupCore.TextTable.octetCountMax)
        } catch { throw Terminal.exit(error.text, .inputError) }
    }

    private static func complain(_ path: String, _ faults: [LineFault]) throws {
        for fault in faults { Terminal.complain("\(path):\(fault.line): \(fault.text)") }
        guard faults.isEmpty else { throw Terminal.exit("\(path) is not in order", .badInput) }
    }

    // MARK: build

    struct Build: ParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "build", abstract: "Compiles a text file into FILE.lmdb.",
            discussion:
                "A running Apus has either the old or the new table, and notices the new one by itself. If the file has a "
                + "mistake, nothing is changed. The new file has the owner and the mode of the text file.")

        @Argument(help: "The text file: key and value, one entry a line.") var file: String

        func run() throws {
            let table = try TableCommand.read(self.file)
            let long = table.entries.keys.first { $0.count > TableFileWriter.keyOctetCountMax }
            if let long { throw Terminal.exit("\(long.printableText) is too long for a key", .badInput) }
            let entries = table.entries.mapValues(\.value)
            do throws(SystemError) {
                try Self.replace(self.file, entries)
            } catch {
                throw Terminal.exit(error.text, error.code == EACCES ? .noPermission : .system)
            }
            Terminal.write("\(self.file).lmdb: \(entries.count) \(entries.count == 1 ? "entry" : "entries")\n")
        }

        /// Under another name first: whoever opens the table has the old or the new one, whole.
        private static func replace(_ path: String, _ entries: [[UInt8]: [UInt8]]) throws(SystemError) {
            let parts = path.split(separator: "/", omittingEmptySubsequences: false)
            let folder = parts.count > 1 ? parts.dropLast().joined(separator: "/") + "/" : "./"
            let name = String(parts.last ?? "") + ".lmdb"
            let directory = try Descriptor.open(folder, O_RDONLY | O_DIRECTORY)
            defer { directory.close() }
            guard flock(directory.number, LOCK_EX) == 0 else { throw SystemError("lock", folder) }
            var source = stat()
            guard stat(path, &source) == 0 else { throw SystemError("stat", path) }
            let temporary = ".\(name).new"
            try directory.unlink(temporary)
            do throws(SystemError) {
                do throws(LMDBError) {
                    try TableFileWriter.write(entries, path: folder + temporary)
                } catch { throw SystemError(error.text, folder + temporary, code: error.code > 0 ? error.code : EIO) }
                let file = try directory.open(temporary, O_RDWR | O_NOFOLLOW)
                defer { file.close() }
                if source.st_uid != geteuid() || source.st_gid != getegid() {
                    guard fchown(file.number, source.st_uid, source.st_gid) == 0 else {
                        throw SystemError("chown", temporary)
                    }
                }
                guard fchmod(file.number, source.st_mode & 0o666) == 0 else { throw SystemError("chmod", temporary) }
                try file.sync()
                try directory.rename(temporary, name)
                try directory.sync()
            } catch {
                _ = try? directory.unlink(temporary)
                throw error
            }
        }
    }

    // MARK: query

    struct Query: ParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "query", abstract: "Prints what stands behind a key; exit status 1 if it is not there.",
            discussion: "Only this key is looked for; apus explain follows an address through all tables.")

        @Argument(help: "The table, as in the settings: text:, lmdb:, regexp: or prefix: and a path.") var table: String
        @Argument(help: "An address, @domain or a domain.") var key: String

        func run() throws {
            guard let place = TablePlace(self.table), let path = place.path else {
                throw Terminal.exit("\"\(self.table)\" is no file: write text:/PATH, for instance", .usage)
            }
            guard let key = TableKey.key(Array(self.key.utf8), .idna2008) else {
                throw Terminal.exit("\"\(self.key)\" is no address, no @domain and no domain", .usage)
            }
            guard let value = try Self.value(of: key, place, path) else { throw ExitCode.failure }
            Terminal.write(value.printableText + "\n")
        }

        private static func value(of key: [UInt8], _ place: TablePlace, _ path: String) throws -> [UInt8]? {
            switch place {
            case .lmdb:
                do throws(TableFile.Fault) {
                    let file = try TableFile(path: path)
                    do throws(LMDBError) { return try file.value(of: key) } catch { throw .failed(error) }
                } catch { throw Terminal.exit("\(path): \(error.text)", .inputError) }
            case .regexp: return try TableCommand.readPatterns(path, RegexpTable.self).finding(of: key)?.value
            case .prefix: return try TableCommand.readPatterns(path, PrefixTable.self).finding(of: key)?.value
            case .text, .socketmap: return try TableCommand.read(path).finding(of: key)?.value
            }
        }
    }
}
