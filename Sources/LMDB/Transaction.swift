// SPDX-License-Identifier: Apache-2.0

import CLMDB
import Glibc

/// The reading side of a transaction. Values are lent to closures and die with them.
package struct ReadTransaction: ~Copyable {
    let handle: OpaquePointer

    init(handle: OpaquePointer) { self.handle = handle }

    /// Looks a key up and lends its value to `body`; nil without calling it if the key is not there.
    package func value<Result>(
        _ database: Database, key: Span<UInt8>, _ body: (Span<UInt8>) throws(LMDBError) -> Result
    ) throws(LMDBError) -> Result? {
        try lookUp(self.handle, database, key, body)
    }

    /// A cursor before the first key.
    package func cursor(_ database: Database) throws(LMDBError) -> Cursor { try Cursor(self.handle, database) }

    /// How many keys the database holds; costs nothing.
    package func count(_ database: Database) throws(LMDBError) -> Int { try entryCount(self.handle, database) }
}

/// The one write transaction. What it has written is there when `Environment.write` returns, all of it or nothing.
package struct WriteTransaction: ~Copyable {
    let handle: OpaquePointer

    init(handle: OpaquePointer) { self.handle = handle }

    /// As `ReadTransaction.value`; sees what this transaction has written. `body` must not write.
    package func value<Result>(
        _ database: Database, key: Span<UInt8>, _ body: (Span<UInt8>) throws(LMDBError) -> Result
    ) throws(LMDBError) -> Result? {
        try lookUp(self.handle, database, key, body)
    }

    package func cursor(_ database: Database) throws(LMDBError) -> Cursor { try Cursor(self.handle, database) }

    package func count(_ database: Database) throws(LMDBError) -> Int { try entryCount(self.handle, database) }

    /// Writes a value, replacing one that is there. Keys are 1…511 octets.
    package func put(_ database: Database, key: Span<UInt8>, value: Span<UInt8>) throws(LMDBError) {
        try check(store(self.handle, database, key, value, 0), "mdb_put")
    }

    /// Writes a value whose key is most likely above all others: those are appended without a search. One that is not
    /// is written as `put` would.
    package func putAscending(_ database: Database, key: Span<UInt8>, value: Span<UInt8>) throws(LMDBError) {
        var code = store(self.handle, database, key, value, UInt32(MDB_APPEND))
        if code == MDB_KEYEXIST { code = store(self.handle, database, key, value, 0) }
        try check(code, "mdb_put")
    }

    /// Deletes a key; false if it was not there.
    @discardableResult
    package func delete(_ database: Database, key: Span<UInt8>) throws(LMDBError) -> Bool {
        let code = withValue(key) { key in mdb_del(self.handle, database.index, &key, nil) }
        if code == MDB_NOTFOUND { return false }
        try check(code, "mdb_del")
        return true
    }
}

/// A place in a database, walked in the order of keys. It belongs to its transaction and must not be kept beyond it.
package struct Cursor: ~Copyable {
    private let handle: OpaquePointer

    fileprivate init(_ transaction: OpaquePointer, _ database: Database) throws(LMDBError) {
        var opened: OpaquePointer?
        try check(mdb_cursor_open(transaction, database.index, &opened), "mdb_cursor_open")
        guard let opened else { throw LMDBError("mdb_cursor_open", ENOMEM) }
        self.handle = opened
    }

    deinit { mdb_cursor_close(self.handle) }

    /// Goes to the first key that is not below `key` and lends it with its value; nil if there is none.
    package func seek<Result>(
        _ key: Span<UInt8>, _ body: (_ key: Span<UInt8>, _ value: Span<UInt8>) throws(LMDBError) -> Result
    ) throws(LMDBError) -> Result? {
        var found = MDB_val()
        let code = withValue(key) { key in
            let code = mdb_cursor_get(self.handle, &key, &found, MDB_SET_RANGE)
            return (code, key)
        }
        return try self.lend(code.0, code.1, found, "mdb_cursor_get", body)
    }

    /// Goes to the next key; after a delete, to the one that followed the deleted. On a fresh cursor, to the first.
    package func next<Result>(
        _ body: (_ key: Span<UInt8>, _ value: Span<UInt8>) throws(LMDBError) -> Result
    ) throws(LMDBError) -> Result? {
        try self.move(MDB_NEXT, body)
    }

    /// Goes to the last key.
    package func last<Result>(
        _ body: (_ key: Span<UInt8>, _ value: Span<UInt8>) throws(LMDBError) -> Result
    ) throws(LMDBError) -> Result? {
        try self.move(MDB_LAST, body)
    }

    /// Deletes the key at which the cursor is. In a write transaction only.
    package func delete() throws(LMDBError) {
        try check(mdb_cursor_del(self.handle, 0), "mdb_cursor_del")
    }

    private func move<Result>(
        _ operation: MDB_cursor_op, _ body: (_ key: Span<UInt8>, _ value: Span<UInt8>) throws(LMDBError) -> Result
    ) throws(LMDBError) -> Result? {
        var key = MDB_val()
        var value = MDB_val()
        let code = mdb_cursor_get(self.handle, &key, &value, operation)
        return try self.lend(code, key, value, "mdb_cursor_get", body)
    }

    private func lend<Result>(
        _ code: Int32, _ key: MDB_val, _ value: MDB_val, _ operation: StaticString,
        _ body: (_ key: Span<UInt8>, _ value: Span<UInt8>) throws(LMDBError) -> Result
    ) throws(LMDBError) -> Result? {
        if code == MDB_NOTFOUND { return nil }
        try check(code, operation)
        return try lendOctets(key) { key throws(LMDBError) in
            try lendOctets(value) { value throws(LMDBError) in try body(key, value) }
        }
    }
}

// MARK: - Between spans and MDB_val

/// Lends the octets that LMDB points to, for the time of `body`.
private func lendOctets<Result>(
    _ value: MDB_val, _ body: (Span<UInt8>) throws(LMDBError) -> Result
) throws(LMDBError) -> Result {
    // Safety: LMDB's pointer is good until the transaction ends or writes again. The span cannot leave `body`, which
    // runs inside the transaction; the callers' documentation forbids writing in it.
    let octets = UnsafeBufferPointer(start: value.mv_data?.assumingMemoryBound(to: UInt8.self), count: value.mv_size)
    return try body(Span(_unsafeElements: octets))
}

/// Gives LMDB a view of a span, for the time of `body`.
@inline(__always)
private func withValue<Result>(_ octets: Span<UInt8>, _ body: (inout MDB_val) -> Result) -> Result {
    // Safety: LMDB takes a mutable pointer but only reads keys and the values of a put; the pointer ends with `body`.
    octets.withUnsafeBufferPointer { buffer in
        var value = MDB_val(mv_size: buffer.count, mv_data: UnsafeMutableRawPointer(mutating: buffer.baseAddress))
        return body(&value)
    }
}

func lookUp<Result>(
    _ transaction: OpaquePointer, _ database: Database, _ key: Span<UInt8>,
    _ body: (Span<UInt8>) throws(LMDBError) -> Result
) throws(LMDBError) -> Result? {
    var found = MDB_val()
    let code = withValue(key) { key in mdb_get(transaction, database.index, &key, &found) }
    if code == MDB_NOTFOUND { return nil }
    try check(code, "mdb_get")
    return try lendOctets(found, body)
}

private func entryCount(_ transaction: OpaquePointer, _ database: Database) throws(LMDBError) -> Int {
    var stat = MDB_stat()
    try check(mdb_stat(transaction, database.index, &stat), "mdb_stat")
    return stat.ms_entries
}

private func store(
    _ transaction: OpaquePointer, _ database: Database, _ key: Span<UInt8>, _ value: Span<UInt8>, _ flags: UInt32
) -> Int32 {
    withValue(key) { key in
        withValue(value) { value in mdb_put(transaction, database.index, &key, &value, flags) }
    }
}

extension Array where Element == UInt8 {
    /// A copy of lent octets, to be kept.
    package init(copying octets: Span<UInt8>) {
        // Safety: the pointer is used only to copy from, inside the closure.
        self = octets.withUnsafeBufferPointer { Array($0) }
    }
}
