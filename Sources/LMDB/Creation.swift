// SPDX-License-Identifier: Apache-2.0

import CLMDB
import Glibc

/// Makes the data file of an environment if there is none.
///
/// LMDB writes the first two pages of a new file in place, and a file that has only one of them is not opened again. So
/// the file is made and synced in a directory of its own, and then given its name: a power cut leaves all of it or none.
func createDataFile(_ directory: String) throws(LMDBError) {
    var attributes = stat()
    if stat(directory + "/data.mdb", &attributes) == 0 { return }
    let place = directory + "/new"
    // What an earlier attempt has left.
    unlink(place + "/data.mdb")
    unlink(place + "/lock.mdb")
    guard mkdir(place, 0o700) == 0 || errno == EEXIST else { throw LMDBError("mkdir", errno) }
    try writeDataFile(place)
    guard rename(place + "/data.mdb", directory + "/data.mdb") == 0 else { throw LMDBError("rename", errno) }
    unlink(place + "/lock.mdb")
    rmdir(place)
    do throws(MarkerFile.Fault) { try syncDirectory(directory) } catch {
        if case .failed(let operation, let code) = error { throw LMDBError(operation, code) }
        throw LMDBError("fsync", EIO)
    }
}

private func writeDataFile(_ place: String) throws(LMDBError) {
    var created: OpaquePointer?
    try check(mdb_env_create(&created), "mdb_env_create")
    guard let handle = created else { throw LMDBError("mdb_env_create", ENOMEM) }
    defer { mdb_env_close(handle) }
    try check(mdb_env_open(handle, place, 0, 0o600), "mdb_env_open")
    // With force: an empty environment has no transaction that would sync it.
    try check(mdb_env_sync(handle, 1), "mdb_env_sync")
}
