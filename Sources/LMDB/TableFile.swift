// SPDX-License-Identifier: Apache-2.0
//
// A table in one LMDB file that is written once and then only read: other programs put another file in its place by
// rename(2). So nobody locks, and a process that has it open goes on reading what it has opened.

import CLMDB
import Glibc

/// The marker of the format. No key of a table begins with NUL.
private let formatKey: [UInt8] = [0]
private let format: [UInt8] = Array("apus table 1".utf8)

/// A finished table, open for reading.
package final class TableFile {
    /// Why a file is no table.
    package enum Fault: Error, Hashable, Sendable {
        case failed(LMDBError)
        /// An LMDB file that nobody has made a table, or that is of another version.
        case noTable
        /// It is shorter than it says, so it is being copied, or is damaged.
        case cutShort

        /// One line for a log.
        package var text: String {
            switch self {
            case .failed(let error): error.text
            case .noTable: "is no table of this version; make it with apus table build"
            case .cutShort: "is cut short"
            }
        }
    }

    private let environment: OpaquePointer
    /// For as long as the file is open: nothing in it ever changes.
    private let transaction: OpaquePointer
    private let database: Database
    /// How many keys it has.
    package let count: Int

    /// Opens a file that `TableFileWriter` has made. What is in its place later is not seen.
    package init(path: String) throws(Fault) {
        var created: OpaquePointer?
        guard mdb_env_create(&created) == MDB_SUCCESS, let environment = created else {
            throw .failed(LMDBError("mdb_env_create", ENOMEM))
        }
        do throws(Fault) {
            // Why without locks: nobody writes to the file, and who reads it may not write beside it.
            let flags = UInt32(MDB_RDONLY) | UInt32(MDB_NOLOCK) | UInt32(MDB_NOSUBDIR) | UInt32(MDB_NOTLS)
            try Self.check(mdb_env_open(environment, path, flags, 0), "mdb_env_open")
            try Self.checkLength(environment, path)
            var started: OpaquePointer?
            try Self.check(mdb_txn_begin(environment, nil, UInt32(MDB_RDONLY), &started), "mdb_txn_begin")
            guard let transaction = started else { throw .failed(LMDBError("mdb_txn_begin", ENOMEM)) }
            do throws(Fault) {
                var index: MDB_dbi = 0
                try Self.check(mdb_dbi_open(transaction, nil, 0, &index), "mdb_dbi_open")
                let database = Database(index: index)
                guard try Self.hasFormat(transaction, database) else { throw .noTable }
                var facts = MDB_stat()
                try Self.check(mdb_stat(transaction, index, &facts), "mdb_stat")
                self.count = facts.ms_entries - 1
                self.database = database
                self.transaction = transaction
                self.environment = environment
            } catch {
                mdb_txn_abort(transaction)
                throw error
            }
        } catch {
            mdb_env_close(environment)
            throw error
        }
    }

    deinit {
        mdb_txn_abort(self.transaction)
        mdb_env_close(self.environment)
    }

    /// The value of a key; nil if it is not there.
    package func value(of key: [UInt8]) throws(LMDBError) -> [UInt8]? {
        // LMDB refuses longer ones, and none was ever written.
        guard (1...TableFileWriter.keyOctetCountMax).contains(key.count), key != formatKey else { return nil }
        return try lookUp(self.transaction, self.database, key.span) { Array(copying: $0) }
    }

    private static func hasFormat(_ transaction: OpaquePointer, _ database: Database) throws(Fault) -> Bool {
        do throws(LMDBError) {
            return try lookUp(transaction, database, formatKey.span) { Array(copying: $0) } == format
        } catch { throw .failed(error) }
    }

    private static func check(_ code: Int32, _ operation: StaticString) throws(Fault) {
        guard code != MDB_SUCCESS else { return }
        throw code == MDB_INVALID || code == MDB_VERSION_MISMATCH ? .noTable : .failed(LMDBError(operation, code))
    }

    /// Why: a page of the map that the file does not have would end the process when it is read.
    private static func checkLength(_ environment: OpaquePointer, _ path: String) throws(Fault) {
        var number: mdb_filehandle_t = -1
        var facts = stat()
        guard mdb_env_get_fd(environment, &number) == MDB_SUCCESS, fstat(number, &facts) == 0 else {
            throw .failed(LMDBError("fstat", errno))
        }
        var info = MDB_envinfo()
        var pages = MDB_stat()
        mdb_env_info(environment, &info)
        mdb_env_stat(environment, &pages)
        let (needed, isHuge) = (Int(info.me_last_pgno) + 1).multipliedReportingOverflow(by: Int(pages.ms_psize))
        guard !isHuge, facts.st_size >= needed else { throw .cutShort }
    }
}

/// Makes table files.
package enum TableFileWriter {
    /// LMDB's limit.
    package static let keyOctetCountMax = 511

    /// Writes a table into a new file, and syncs it.
    ///
    /// - Parameters:
    ///   - path: where no file is, or an empty one.
    ///   - entries: distinct keys of 1…511 octets that do not begin with NUL, with their values.
    package static func write(_ entries: [[UInt8]: [UInt8]], path: String) throws(LMDBError) {
        var created: OpaquePointer?
        try check(mdb_env_create(&created), "mdb_env_create")
        guard let environment = created else { throw LMDBError("mdb_env_create", ENOMEM) }
        defer { mdb_env_close(environment) }
        // Far more than pages can waste; the file has only the pages that are used.
        let octetCount = entries.reduce(0) { $0 + $1.key.count + $1.value.count + 64 }
        try check(mdb_env_set_mapsize(environment, octetCount * 4 + (64 << 20)), "mdb_env_set_mapsize")
        let flags = UInt32(MDB_NOSUBDIR) | UInt32(MDB_NOLOCK) | UInt32(MDB_NOSYNC)
        try check(mdb_env_open(environment, path, flags, 0o600), "mdb_env_open")
        var started: OpaquePointer?
        try check(mdb_txn_begin(environment, nil, 0, &started), "mdb_txn_begin")
        guard let started else { throw LMDBError("mdb_txn_begin", ENOMEM) }
        do throws(LMDBError) {
            var index: MDB_dbi = 0
            try check(mdb_dbi_open(started, nil, 0, &index), "mdb_dbi_open")
            let transaction = WriteTransaction(handle: started)
            let database = Database(index: index)
            try transaction.put(database, key: formatKey.span, value: format.span)
            for key in entries.keys.sorted(by: { $0.lexicographicallyPrecedes($1) }) {
                let value = entries[key] ?? []
                try transaction.putAscending(database, key: key.span, value: value.span)
            }
        } catch {
            mdb_txn_abort(started)
            throw error
        }
        try check(mdb_txn_commit(started), "mdb_txn_commit")
        try check(mdb_env_sync(environment, 1), "mdb_env_sync")
    }
}
