// SPDX-License-Identifier: Apache-2.0
//
// A safe face for the part of LMDB 0.9 that a queue needs. It knows no mail. What LMDB's caveats ask for is held here:
// one environment per process and one process per environment (a lock beside it), no transaction across a change of the
// map's size, pointers into the map that never outlive their transaction, full sync on every commit.

import CLMDB
import Glibc
import Synchronization

/// A named database of an environment; made by `Environment.database`.
package struct Database: Hashable, Sendable {
    let index: MDB_dbi
}

/// An open LMDB environment: one writer at a time, one reader at a time, each on any thread.
///
/// Every commit is synced before `write` returns; there is no way to ask for less. The map grows by doubling when it is
/// full, up to `sizeMax`.
package final class Environment: Sendable {
    /// What a transaction may be while it is not running: the parked reader and the map's present size.
    private struct Shared {
        // Safety: a pointer that is only used while the mutex is held.
        nonisolated(unsafe) var parkedReader: OpaquePointer?
        var mapSize: Int
        /// Where the map is; nil where the kernel does not say.
        var mapPlace: MapPlace?
        /// Whether the kernel had no room for the larger map: LMDB has none then, and must not be asked for anything.
        var isLost = false
        /// Octets of the map touched since they were last let go, by estimate.
        var touchedOctetCount = 0
    }

    // Safety: MDB_env is made for use by several threads; the one function that is not, mdb_env_set_mapsize, is called
    // only with both mutexes held, when no transaction is open.
    private nonisolated(unsafe) let handle: OpaquePointer
    private let shared: Mutex<Shared>
    private let writing = Mutex<Void>(())
    /// The octets that the map has at most for what is not essential.
    package let sizeMax: Int
    private let sizeReserve: Int
    private let path: String
    private let dataFile: DataFile

    /// Opens or creates the environment in an existing directory. After a crash at any instant it is there, or not.
    ///
    /// - Parameters:
    ///   - directory: the path; `data.mdb` and `lock.mdb` are made in it with mode 0600.
    ///   - databaseCountMax: how many named databases there will be.
    ///   - sizeStart: the first size of the map in octets; the file itself grows only with what is written.
    ///   - sizeMax: the size that the map, and so the file, does not exceed for ordinary transactions.
    ///   - sizeReserve: how much more essential transactions may have.
    package init(
        directory: String, databaseCountMax: Int, sizeStart: Int, sizeMax: Int, sizeReserve: Int
    ) throws(LMDBError) {
        try createDataFile(directory)
        var created: OpaquePointer?
        try check(mdb_env_create(&created), "mdb_env_create")
        guard let handle = created else { throw LMDBError("mdb_env_create", ENOMEM) }
        // An existing file may be larger than the first size; LMDB then takes the larger one by itself.
        let size = max(min(sizeStart, sizeMax), 1 << 20)
        var code = mdb_env_set_maxdbs(handle, MDB_dbi(databaseCountMax))
        if code == MDB_SUCCESS { code = mdb_env_set_mapsize(handle, size) }
        // Why: MDB_NOTLS ties a reader to its transaction instead of its thread, so that one parked reader serves all.
        // MDB_NOMEMINIT stays off: uninitialised heap must not reach the file.
        if code == MDB_SUCCESS {
            code = mdb_env_open(handle, directory, UInt32(MDB_NOTLS) | UInt32(MDB_NORDAHEAD), 0o600)
        }
        guard code == MDB_SUCCESS else {
            mdb_env_close(handle)
            throw LMDBError("mdb_env_open", code)
        }
        do throws(LMDBError) { self.dataFile = try DataFile(directory: directory) } catch {
            mdb_env_close(handle)
            throw error
        }
        var info = MDB_envinfo()
        mdb_env_info(handle, &info)
        self.handle = handle
        self.sizeMax = sizeMax
        self.sizeReserve = sizeReserve
        self.path = directory
        self.shared = Mutex(
            Shared(
                parkedReader: nil, mapSize: Int(info.me_mapsize), mapPlace: MapPlace(file: directory + "/data.mdb")))
        // A reader of a process that was killed would keep its pages from being used again.
        var deadCount: Int32 = 0
        mdb_reader_check(handle, &deadCount)
    }

    deinit {
        self.shared.withLock { shared in
            if let reader = shared.parkedReader { mdb_txn_abort(reader) }
            shared.parkedReader = nil
        }
        mdb_env_close(self.handle)
    }

    /// Opens a named database, creating it if it is not there.
    package func database(_ name: String) throws(LMDBError) -> Database {
        try self.write { transaction throws(LMDBError) in
            var index: MDB_dbi = 0
            try check(mdb_dbi_open(transaction.handle, name, UInt32(MDB_CREATE), &index), "mdb_dbi_open")
            return Database(index: index)
        }
    }

    /// The unnamed database; its keys must not be names of others.
    package func mainDatabase() throws(LMDBError) -> Database {
        try self.write { transaction throws(LMDBError) in
            var index: MDB_dbi = 0
            try check(mdb_dbi_open(transaction.handle, nil, 0, &index), "mdb_dbi_open")
            return Database(index: index)
        }
    }

    /// Runs `body` in a write transaction, commits and syncs it.
    ///
    /// `body` may run more than once: when the map is full, the transaction is given up, the map grown, and `body` called
    /// anew. It must therefore change nothing outside that it does not set afresh each time. If it throws, nothing of it
    /// remains.
    ///
    /// - Parameter isEssential: whether the map may grow into the reserve.
    package func write<Result>(
        isEssential: Bool = false, _ body: (borrowing WriteTransaction) throws(LMDBError) -> Result
    ) throws(LMDBError) -> Result {
        while true {
            do throws(LMDBError) {
                return try self.attempt(body)
            } catch {
                // Why: LMDB tells a write that was short as EIO. A full disk is the usual reason for one.
                if error.code == EIO, self.dataFile.isOutOfRoom { throw LMDBError(error.operation, ENOSPC) }
                guard error.isMapFull else { throw error }
                try self.grow(to: isEssential ? self.sizeMax + self.sizeReserve : self.sizeMax)
            }
        }
    }

    private func attempt<Result>(
        _ body: (borrowing WriteTransaction) throws(LMDBError) -> Result
    ) throws(LMDBError) -> Result {
        try self.writing.withLock { _ throws(LMDBError) in
            var started: OpaquePointer?
            try check(mdb_txn_begin(self.handle, nil, 0, &started), "mdb_txn_begin")
            guard let started else { throw LMDBError("mdb_txn_begin", ENOMEM) }
            let result: Result
            do throws(LMDBError) {
                result = try body(WriteTransaction(handle: started))
            } catch {
                mdb_txn_abort(started)
                throw error
            }
            // LMDB frees the transaction whether or not the commit succeeds.
            try check(mdb_txn_commit(started), "mdb_txn_commit")
            return result
        }
    }

    /// Runs `body` on a consistent snapshot of the last commit. Keep it short: pages that it sees are not used again
    /// meanwhile, the map cannot grow, and other readers wait.
    package func read<Result>(
        _ body: (borrowing ReadTransaction) throws(LMDBError) -> Result
    ) throws(LMDBError) -> Result {
        try self.shared.withLock { shared throws(LMDBError) in
            guard !shared.isLost else { throw LMDBError("mdb_env_set_mapsize", ENOMEM) }
            let reader: OpaquePointer
            if let parked = shared.parkedReader {
                shared.parkedReader = nil
                let code = mdb_txn_renew(parked)
                guard code == MDB_SUCCESS else {
                    mdb_txn_abort(parked)
                    throw LMDBError("mdb_txn_renew", code)
                }
                reader = parked
            } else {
                var started: OpaquePointer?
                try check(mdb_txn_begin(self.handle, nil, UInt32(MDB_RDONLY), &started), "mdb_txn_begin")
                guard let started else { throw LMDBError("mdb_txn_begin", ENOMEM) }
                reader = started
            }
            defer {
                mdb_txn_reset(reader)
                shared.parkedReader = reader
            }
            return try body(ReadTransaction(handle: reader))
        }
    }

    /// Whether the map has grown into the reserve. From then on LMDB gives its pages to whoever asks: who writes what is not
    /// essential has to look at `unusedOctetCount` himself.
    package var isInReserve: Bool { self.shared.withLock { $0.mapSize > self.sizeMax } }

    /// The file never has more octets.
    package var sizeLimit: UInt64 { UInt64(self.sizeMax) + UInt64(self.sizeReserve) }

    private func grow(to limit: Int) throws(LMDBError) {
        try self.writing.withLock { _ throws(LMDBError) in
            try self.shared.withLock { shared throws(LMDBError) in
                let wanted = min(shared.mapSize.multipliedReportingOverflow(by: 2).partialValue, limit)
                guard wanted > shared.mapSize else { throw LMDBError("mdb_env_set_mapsize", MDB_MAP_FULL) }
                if let reader = shared.parkedReader { mdb_txn_abort(reader) }
                shared.parkedReader = nil
                shared.mapPlace = nil
                let code = mdb_env_set_mapsize(self.handle, wanted)
                // Why: LMDB gives the old map up before it asks for the new one.
                if code != MDB_SUCCESS { shared.isLost = true }
                try check(code, "mdb_env_set_mapsize")
                shared.mapSize = wanted
                shared.mapPlace = MapPlace(file: self.path + "/data.mdb")
            }
        }
    }

    /// Pages of the map that were touched stay with the process; above this many octets they are let go.
    private static let touchedOctetCountMax = 8 << 20

    /// To be told how much of the map was read or walked through, so that the process does not grow with the file.
    /// Not to be called inside `read`.
    package func noteTouched(_ octetCount: Int) {
        self.shared.withLock { shared in
            shared.touchedOctetCount += octetCount
            guard shared.touchedOctetCount > Self.touchedOctetCountMax, !shared.isLost else { return }
            shared.touchedOctetCount = 0
            guard self.usedOctetCount > UInt64(Self.touchedOctetCountMax) else { return }
            shared.mapPlace?.letGo()
        }
    }

    /// The octets that the pages ever used take up in the file. Not to be asked for inside `read`.
    package var fileOctetCount: UInt64 { self.shared.withLock { $0.isLost ? 0 : self.usedOctetCount } }

    private var usedOctetCount: UInt64 {
        var info = MDB_envinfo()
        var stat = MDB_stat()
        mdb_env_info(self.handle, &info)
        mdb_env_stat(self.handle, &stat)
        return (UInt64(info.me_last_pgno) + 1) * UInt64(stat.ms_psize)
    }

    /// The size of a page in octets.
    package var pageOctetCount: Int {
        var stat = MDB_stat()
        mdb_env_stat(self.handle, &stat)
        return Int(stat.ms_psize)
    }

    /// The octets of the file that hold nothing and are used again before the file grows, as of the last commit. What
    /// that commit itself has freed is used from the next but one on.
    ///
    /// - Parameter databases: all that were opened, the main one with them.
    package func unusedOctetCount(_ databases: [Database]) throws(LMDBError) -> UInt64 {
        try self.read { transaction throws(LMDBError) in
            var info = MDB_envinfo()
            mdb_env_info(self.handle, &info)
            // Two pages say where the rest is; database 0 is LMDB's list of unused pages.
            var usedCount: UInt64 = 2
            var pageSize: UInt64 = 0
            for index in [0] + databases.map(\.index) {
                var stat = MDB_stat()
                try check(mdb_stat(transaction.handle, index, &stat), "mdb_stat")
                usedCount += UInt64(stat.ms_branch_pages + stat.ms_leaf_pages + stat.ms_overflow_pages)
                pageSize = UInt64(stat.ms_psize)
            }
            let count = UInt64(info.me_last_pgno) + 1
            return count > usedCount ? (count - usedCount) * pageSize : 0
        }
    }

    /// How many octets an unprivileged process may still write to the file system below; nil if it does not say.
    package var diskFreeOctetCount: UInt64? {
        var answer = statvfs()
        guard statvfs(self.path, &answer) == 0 else { return nil }
        return UInt64(answer.f_bavail).multipliedReportingOverflow(by: UInt64(answer.f_frsize)).partialValue
    }
}
