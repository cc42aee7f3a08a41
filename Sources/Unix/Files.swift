// SPDX-License-Identifier: Apache-2.0
//
// What can be done to files by name, relative to an open directory.

import CUnix
import Glibc

extension Descriptor {
    /// Makes a directory; one that is there already is fine, anything else of that name is found out later.
    ///
    /// - Returns: whether it was made now.
    @discardableResult
    package func makeDirectory(_ name: String, mode: UInt32) throws(SystemError) -> Bool {
        guard mkdirat(self.number, name, mode) != 0 else { return true }
        guard errno == EEXIST else { throw SystemError("mkdir", name) }
        return false
    }

    /// Gives a file another name in one step; what had that name is gone.
    package func rename(_ old: String, _ new: String) throws(SystemError) {
        guard renameat(self.number, old, self.number, new) == 0 else { throw SystemError("rename", new) }
    }

    /// Gives a file a second name; throws EEXIST if something has it.
    package func link(_ old: String, _ new: String) throws(SystemError) {
        guard linkat(self.number, old, self.number, new, 0) == 0 else { throw SystemError("link", new) }
    }

    /// Removes a name.
    ///
    /// - Returns: whether it was there.
    @discardableResult
    package func unlink(_ name: String) throws(SystemError) -> Bool {
        guard unlinkat(self.number, name, 0) != 0 else { return true }
        guard errno == ENOENT else { throw SystemError("unlink", name) }
        return false
    }

    /// Waits until what was written to the file, or changed in the directory, is on stable storage.
    package func sync() throws(SystemError) {
        guard fsync(self.number) == 0 else { throw SystemError("fsync") }
    }

    /// Asks the system to begin writing the file's octets to storage, without waiting: `sync` will be shorter.
    package func startWriting() { _ = apus_start_writing(self.number) }

    /// Takes the lock on the whole file, for as long as the file is open here; false if another process has it.
    package func tryLock() -> Bool { flock(self.number, LOCK_EX | LOCK_NB) == 0 }

    /// Whether a name is there, of whatever kind; a link is not followed.
    package func hasEntry(_ name: String) throws(SystemError) -> Bool {
        guard faccessat(self.number, name, F_OK, AT_SYMLINK_NOFOLLOW) != 0 else { return true }
        guard errno == ENOENT else { throw SystemError("access", name) }
        return false
    }

    /// The names in this directory, without `.` and `..`, handed out one by one.
    package func forEachName(_ body: (String) -> Void) throws(SystemError) {
        let copy = try self.open(".", O_RDONLY | O_DIRECTORY)
        guard let stream = fdopendir(copy.number) else {
            let code = errno
            copy.close()
            throw SystemError("opendir", code: code)
        }
        defer { closedir(stream) }
        while true {
            errno = 0
            guard let entry = readdir(stream) else {
                guard errno == 0 else { throw SystemError("readdir") }
                return
            }
            // Safety: d_name is a C string inside the entry, which is valid until the next readdir.
            let name = withUnsafePointer(to: &entry.pointee.d_name) { pointer in
                pointer.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
            }
            if name != ".", name != ".." { body(name) }
        }
    }
}
