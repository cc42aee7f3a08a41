// SPDX-License-Identifier: Apache-2.0
//
// What can be done to files by name.

import CUnix
import Glibc
package import MailTypes

/// What tells one state of a file from another: two marks that are the same are of the same content.
package struct FileMark: Equatable, Sendable {
    private let device: UInt64
    private let node: UInt64
    private let size: Int64
    private let changedNanoseconds: Int64
    /// When the content was last changed.
    package let modified: Timestamp

    /// The mark of the file of that path now, links followed.
    package init(_ path: String) throws(SystemError) {
        var status = stat()
        guard stat(path, &status) == 0 else { throw SystemError("stat", path) }
        self.device = UInt64(truncatingIfNeeded: status.st_dev)
        self.node = UInt64(truncatingIfNeeded: status.st_ino)
        self.size = Int64(status.st_size)
        self.changedNanoseconds = Int64(status.st_ctim.tv_sec) &* 1_000_000_000 &+ Int64(status.st_ctim.tv_nsec)
        let microseconds = UInt64(max(0, status.st_mtim.tv_sec)) &* 1_000_000 &+ UInt64(status.st_mtim.tv_nsec / 1_000)
        self.modified = Timestamp(microseconds: microseconds)
    }

    /// So long after its last change a file may still be being written.
    package static let freshTime = Duration.seconds(1)

    /// Whether the file was changed a moment ago.
    package func isFresh(now: Timestamp) -> Bool {
        self.modified <= now && now.elapsed(since: self.modified) < Self.freshTime
    }
}

/// Of a file, without its content.
package struct FileStatus: Equatable, Sendable {
    /// How many names (links) it has.
    package let nameCount: Int
    /// When it, or the count of its names, was last changed; in whole seconds.
    package let changed: Timestamp
}

/// What decides whether a file of a user is to be trusted.
package struct FileFacts: Equatable, Sendable {
    package let owner: UInt32
    /// The permission bits.
    package let mode: UInt32
    package let isRegular: Bool
    package let isDirectory: Bool
    package let isSymbolicLink: Bool
    package let nameCount: Int
    package let size: UInt64
    /// When its content was last changed.
    package let modified: Timestamp

    fileprivate init(_ status: stat) {
        self.owner = status.st_uid
        self.mode = status.st_mode & 0o7777
        let kind = status.st_mode & S_IFMT
        self.isRegular = kind == S_IFREG
        self.isDirectory = kind == S_IFDIR
        self.isSymbolicLink = kind == S_IFLNK
        self.nameCount = Int(status.st_nlink)
        self.size = UInt64(clamping: status.st_size)
        self.modified = Timestamp(microseconds: UInt64(max(0, status.st_mtim.tv_sec)) &* 1_000_000)
    }
}

/// O_TMPFILE, which is no plain number in C.
private let unnamedFile: CInt = 0o20000000 | O_DIRECTORY

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
    ///
    /// On a file system without locks there is nothing to take.
    package func tryLock() -> Bool { flock(self.number, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK }

    /// Opens a file of this directory for reading, without waiting for a FIFO; links that lead out of the directory are
    /// not followed (EXDEV). Nil: there is none.
    package func openBeneath(_ name: String) throws(SystemError) -> Descriptor? {
        let result = apus_open_beneath(self.number, name, O_RDONLY | O_NONBLOCK | O_NOCTTY)
        if result == -ENOENT || result == -ENOTDIR || result == -ENAMETOOLONG { return nil }
        return Descriptor(try SystemError.check(result, "open", name))
    }

    /// Takes the lock of fcntl(2) on the whole file, which other programs take on mailboxes; false if another process
    /// has it. It is lost when any descriptor of the file is closed.
    package func tryRecordLock() throws(SystemError) -> Bool {
        let result = apus_lock_record(self.number)
        if result == -EAGAIN { return false }
        try SystemError.check(result, "lock")
        return true
    }

    /// A new file without a name, for reading and writing.
    package static func temporaryFile(in directory: String) throws(SystemError) -> Descriptor {
        do throws(SystemError) {
            return try Descriptor.open(directory, unnamedFile | O_RDWR, mode: 0o600)
        } catch  where [EOPNOTSUPP, EISDIR, EINVAL, ENOENT].contains(error.code) {
            // A file system without files that have no name.
            var template = Array("\(directory)/apus.XXXXXX".utf8CString)
            let number = mkstemp(&template)
            guard number >= 0 else { throw SystemError("open", directory) }
            _ = Glibc.unlink(template)
            _ = apus_fcntl(number, F_SETFD, FD_CLOEXEC)
            return Descriptor(number)
        }
    }

    /// The size of the file, in octets.
    package func size() throws(SystemError) -> UInt64 { UInt64(clamping: try self.fileStatus().st_size) }

    /// Cuts the file off behind so many octets.
    package func truncate(to octetCount: UInt64) throws(SystemError) {
        guard ftruncate(self.number, off_t(clamping: octetCount)) == 0 else { throw SystemError("truncate") }
    }

    /// Sets the place at which the next reading and writing happens.
    package func seek(to offset: UInt64) throws(SystemError) {
        guard lseek(self.number, off_t(clamping: offset), SEEK_SET) >= 0 else { throw SystemError("seek") }
    }

    /// Of the open file.
    package func facts() throws(SystemError) -> FileFacts { FileFacts(try self.fileStatus()) }

    /// Of a file by that name, a link not followed; nil if there is none.
    package func facts(of name: String) throws(SystemError) -> FileFacts? {
        var status = stat()
        guard fstatat(self.number, name, &status, AT_SYMLINK_NOFOLLOW) == 0 else {
            if errno == ENOENT { return nil }
            throw SystemError("stat", name)
        }
        return FileFacts(status)
    }

    /// Reads a file whose path somebody else may have chosen, so that it may be anything: what is no regular file is an
    /// error at once, and is never waited for.
    package static func readRegularFile(_ path: String, octetCountMax: Int) throws(SystemError) -> [UInt8] {
        let file = try Descriptor.open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY)
        defer { file.close() }
        guard FileFacts(try file.fileStatus()).isRegular else { throw SystemError("read", path, code: EINVAL) }
        do throws(SystemError) { return try file.readAll(octetCountMax: octetCountMax) } catch {
            throw SystemError("read", path, code: error.code)
        }
    }

    private func fileStatus() throws(SystemError) -> stat {
        var status = stat()
        guard fstat(self.number, &status) == 0 else { throw SystemError("stat") }
        return status
    }

    /// A file in memory that nobody can change, for another process to read.
    package static func memoryFile(_ name: String, _ octets: [UInt8]) throws(SystemError) -> Descriptor {
        let number = octets.withUnsafeBytes { apus_memory_file(name, $0.baseAddress, $0.count) }
        return Descriptor(try SystemError.check(number, "memfd_create"))
    }

    /// Reads from a place in the file, without moving; empty at its end.
    package func read(at offset: UInt64, upTo octetCountMax: Int) throws(SystemError) -> [UInt8] {
        var result = 0
        var code: CInt = 0
        let octets = [UInt8](unsafeUninitializedCapacity: octetCountMax) { buffer, count in
            repeat {
                result = pread(self.number, buffer.baseAddress, octetCountMax, off_t(clamping: offset))
            } while result < 0 && errno == EINTR
            code = errno
            count = max(result, 0)
        }
        guard result >= 0 else { throw SystemError("read", code: code) }
        return octets
    }

    /// What is known of a file by that name, a link not followed; nil if nothing can be told.
    package func status(of name: String) -> FileStatus? {
        var status = stat()
        guard fstatat(self.number, name, &status, AT_SYMLINK_NOFOLLOW) == 0 else { return nil }
        let changed = Timestamp(microseconds: UInt64(max(0, status.st_ctim.tv_sec)) &* 1_000_000)
        return FileStatus(nameCount: Int(status.st_nlink), changed: changed)
    }

    /// Whether a name is there, of whatever kind; a link is not followed.
    package func hasEntry(_ name: String) throws(SystemError) -> Bool {
        guard faccessat(self.number, name, F_OK, AT_SYMLINK_NOFOLLOW) != 0 else { return true }
        guard errno == ENOENT else { throw SystemError("access", name) }
        return false
    }

    /// Whether there is surely nothing by that path. False if it could not be looked at.
    package static func isAbsent(_ path: String) -> Bool {
        faccessat(AT_FDCWD, path, F_OK, AT_SYMLINK_NOFOLLOW) != 0 && errno == ENOENT
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
