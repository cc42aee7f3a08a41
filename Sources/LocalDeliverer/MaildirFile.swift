// SPDX-License-Identifier: Apache-2.0

import Glibc
package import MailTypes
package import Unix

/// One message on its way into a Maildir: the steps that `Maildir.swift` describes.
package struct MaildirFile {
    /// The name that it has in `new`, without a size.
    package let name: String
    private let directory: Descriptor
    private let file: Descriptor
    private var conversion = LineEndConversion()
    /// Octets that have not been written.
    private var pending: [UInt8] = []
    /// Whether this attempt has made the witness.
    private var hasWitness = false
    /// What has been written.
    private(set) var octetCount: UInt64 = 0
    /// Whether the name in `new` is to tell the size, as counting the mailbox for a quota is cheaper then.
    var isSizeInName = false

    private var finalName: String { self.isSizeInName ? "\(self.name),S=\(self.octetCount)" : self.name }

    private var temporary: String { "tmp/\(self.name)" }
    private var witness: String { "tmp/\(self.name)\(MaildirName.witnessSuffix)" }

    /// Above this many octets, they are written.
    private static let pendingOctetCountMax = 65_536

    /// What step 1 has found.
    package enum Beginning {
        /// The file is open, and ours.
        case file(MaildirFile)
        /// An earlier attempt has delivered it.
        case earlier
    }

    /// Step 1. Throws EWOULDBLOCK if another process is at the same delivery.
    package static func begin(_ name: String, in maildir: Maildir) throws(SystemError) -> Beginning {
        let directory = maildir.directory
        let path = "tmp/\(name)"
        // Why before the file is made: with both names there, the next attempt could not tell.
        let witness = path + MaildirName.witnessSuffix
        if try directory.hasEntry(witness), try !directory.hasEntry(path) {
            if Self.isTrue(directory.status(of: witness), boot: WallClock.boot()) { return .earlier }
            try directory.unlink(witness)
        }
        let flags = O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW
        let file: Descriptor
        do throws(SystemError) {
            file = try directory.open(path, flags, mode: 0o600)
        } catch {
            guard error.code == EEXIST else { throw error }
            try Self.removeRemains(path, directory)
            file = try directory.open(path, flags, mode: 0o600)
        }
        guard file.tryLock() else {
            file.close()
            throw SystemError("lock", path, code: EWOULDBLOCK)
        }
        return .file(MaildirFile(name: name, directory: directory, file: file))
    }

    /// Whether a witness that stands alone proves that the mail was delivered.
    package static func isTrue(_ witness: FileStatus?, boot: Timestamp) -> Bool {
        guard let witness else { return false }
        return witness.nameCount > 1 || witness.changed >= boot
    }

    private init(name: String, directory: Descriptor, file: Descriptor) {
        self.name = name
        self.directory = directory
        self.file = file
    }

    /// Removes what an attempt has left that did not deliver.
    private static func removeRemains(_ path: String, _ directory: Descriptor) throws(SystemError) {
        // Whatever has the name (a FIFO, a link) is not waited for and not followed.
        let file = try directory.open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK)
        defer { file.close() }
        guard file.tryLock() else { throw SystemError("lock", path, code: EWOULDBLOCK) }
        if try directory.unlink(path + MaildirName.witnessSuffix) {
            let tmp = try directory.openDirectory("tmp")
            defer { tmp.close() }
            try tmp.sync()
        }
        try directory.unlink(path)
    }

    /// Appends octets as they are: lines of ours, which end in LF.
    package mutating func append(lines: [UInt8]) { self.pending += lines }

    /// Appends content, with each CR LF as LF.
    package mutating func append(content: ArraySlice<UInt8>) throws(SystemError) {
        self.conversion.convert(content, into: &self.pending)
        if self.pending.count >= Self.pendingOctetCountMax { try self.write() }
    }

    /// Appends content whose line ends are right already.
    package mutating func append(converted octets: [UInt8]) throws(SystemError) {
        self.pending += octets
        if self.pending.count >= Self.pendingOctetCountMax { try self.write() }
    }

    private mutating func write() throws(SystemError) {
        defer { self.pending.removeAll(keepingCapacity: true) }
        try self.file.write(self.pending)
        self.octetCount += UInt64(self.pending.count)
    }

    /// The end of the content: writes what is left, and has the system begin to store it.
    package mutating func end() throws(SystemError) {
        self.conversion.end(into: &self.pending)
        try self.write()
        self.pending = []
        self.file.startWriting()
    }

    /// What was written, from a place on; empty at the end.
    package func written(from offset: UInt64, upTo octetCountMax: Int) throws(SystemError) -> [UInt8] {
        try self.file.read(at: offset, upTo: octetCountMax)
    }

    /// Step 2.
    package func sync() throws(SystemError) { try self.file.sync() }

    /// Steps 3 and 4. After a throw, nothing was delivered, and `discard` is due.
    package mutating func publish() throws(SystemError) {
        do throws(SystemError) {
            try self.directory.link(self.temporary, self.witness)
            self.hasWitness = true
        } catch {
            switch error.code {
            case EPERM, EOPNOTSUPP, ENOSYS, EMLINK:
                // A file system without links.
                if try self.isInMailbox() {
                    try self.directory.unlink(self.temporary)
                    return
                }
            default: throw error
            }
        }
        try self.directory.rename(self.temporary, "new/\(self.finalName)")
    }

    private func isInMailbox() throws(SystemError) -> Bool {
        if try self.directory.hasEntry("new/\(self.finalName)") { return true }
        let cur = try self.directory.openDirectory("cur")
        defer { cur.close() }
        var isFound = false
        // A reader appends `:2,` and flags, or `,S=` and a size before them.
        try cur.forEachName { name in
            guard name.utf8.starts(with: self.name.utf8) else { return }
            let next = name.utf8.dropFirst(self.name.utf8.count).first
            if next == nil || next == 0x3A || next == 0x2C { isFound = true }
        }
        return isFound
    }

    /// Lets go of the file, and with it of the lock. After the last step, whatever it was.
    package func close() { self.file.close() }

    /// Takes back what has been done before step 4; `close` is still due.
    package func discard() {
        // In this order: the witness must not be left alone.
        if self.hasWitness, (try? self.directory.unlink(self.witness)) == nil { return }
        _ = try? self.directory.unlink(self.temporary)
    }

    /// Step 6. A witness that stays is only in the way of the disk's space, and is removed later.
    package static func removeWitness(_ name: String, in maildir: Maildir) {
        _ = try? maildir.directory.unlink("tmp/\(name)\(MaildirName.witnessSuffix)")
    }
}

extension Descriptor {
    /// Opens a directory by its path.
    static func openDirectory(_ path: String) throws(SystemError) -> Descriptor {
        try Descriptor.open(path, O_RDONLY | O_DIRECTORY)
    }

    /// Opens a directory in this one.
    func openDirectory(_ name: String) throws(SystemError) -> Descriptor {
        try self.open(name, O_RDONLY | O_DIRECTORY)
    }
}

/// The errno values that deliveries tell apart, for files that do not import the C library.
enum Errno {
    static let noEntry = ENOENT
    static let wouldBlock = EWOULDBLOCK
    static let noSpace = ENOSPC
    static let overQuota = EDQUOT
    static let fileTooBig = EFBIG
    static let ofMailbox: Set<CInt> = [
        EACCES, EPERM, ENOENT, ENOTDIR, EEXIST, ELOOP, EISDIR, EROFS, ENAMETOOLONG, ENXIO, ENODEV, EXDEV, EMLINK,
    ]
    static let ofSystem: Set<CInt> = [EMFILE, ENFILE, ENOMEM, EAGAIN, EINTR]
}
