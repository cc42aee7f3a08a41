// SPDX-License-Identifier: Apache-2.0

import CLMDB
import Glibc

/// What LMDB, or the file system below it, refused.
///
/// A key that is not there is not an error: lookups answer nil or false.
package struct LMDBError: Error, Hashable, Sendable {
    /// The function that failed, such as `mdb_txn_commit`.
    package let operation: StaticString
    /// An LMDB code (negative) or an errno (positive).
    package let code: Int32

    package init(_ operation: StaticString, _ code: Int32) {
        self.operation = operation
        self.code = code
    }

    /// The environment's map is full. `Environment.write` grows it and tries again, so that a caller sees this only
    /// when the size limit is reached.
    package var isMapFull: Bool { self.code == MDB_MAP_FULL }

    /// There is no room: neither in the map nor, perhaps, on the disk. Nothing was changed.
    package var isFull: Bool {
        self.code == MDB_MAP_FULL || self.code == MDB_TXN_FULL || self.code == ENOSPC || self.code == EDQUOT
    }

    /// One line for a log: the operation and LMDB's own words.
    package var text: String {
        // Safety: mdb_strerror answers a text of its own, or strerror's, ended by NUL; it is copied at once.
        let words = mdb_strerror(self.code).map { String(cString: $0) } ?? "unknown error"
        return "\(self.operation): \(words)"
    }

    package static func == (left: LMDBError, right: LMDBError) -> Bool {
        left.code == right.code && left.operation.description == right.operation.description
    }

    package func hash(into hasher: inout Hasher) { hasher.combine(self.code) }
}

/// Throws what a function of LMDB answered, unless it was success.
@inline(__always)
func check(_ code: Int32, _ operation: StaticString) throws(LMDBError) {
    if code != MDB_SUCCESS { throw LMDBError(operation, code) }
}
