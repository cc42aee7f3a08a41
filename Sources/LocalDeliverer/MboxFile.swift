// SPDX-License-Identifier: Apache-2.0
//
// A mailbox that is one file: messages behind one another, each with a From_ line in front, `>` in front of every line
// of its own that begins with any number of `>` and `From ` (mboxrd), and an empty line behind it.
//
// It is locked in both ways that other programs use: a file NAME.lock made with O_EXCL, and fcntl(2). What a write that
// fails has left is cut off again. Two copies are possible after a crash between the sync and the queue's commit; there
// is nowhere in an mbox where one could look for the first, short of reading all of it.

import Glibc
import MailTypes
import MessageCore
import Unix

/// An mbox that is locked by us.
struct MboxFile {
    /// Opened without O_APPEND, as network file systems cannot have it.
    private let file: Descriptor
    private let directory: Descriptor
    private let name: String
    /// Whether NAME.lock is ours.
    private let hasLockFile: Bool
    private let isNew: Bool

    /// A NAME.lock that nobody has touched for so long was left by a process that is no more.
    static let staleLockAge = Duration.seconds(600)

    /// Opens and locks it; nil if somebody else has the lock. The directories in front of it are made if they are missing.
    ///
    /// Throws EBADF, with `use` as the operation, if it is not a file of the user's with one name: a link, a FIFO, a
    /// device, or somebody else's.
    static func open(_ place: MailboxPlace, now: Timestamp) throws(SystemError) -> MboxFile? {
        guard let name = place.components.last else { throw SystemError("open", place.path, code: EISDIR) }
        let directory = try MailboxPlace(base: place.base, components: place.components.dropLast()).openDirectory()
        var hasLockFile = false
        do throws(SystemError) {
            switch try Self.makeLockFile("\(name).lock", directory, now) {
            case .made: hasLockFile = true
            case .impossible: break
            case .taken:
                directory.close()
                return nil
            }
            let isNew = try !directory.hasEntry(name)
            let flags = O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK
            let file = try directory.open(name, flags, mode: 0o600)
            do throws(SystemError) {
                let facts = try file.facts()
                guard facts.isRegular, facts.nameCount == 1, facts.owner == geteuid() else {
                    throw SystemError("use", place.path, code: EBADF)
                }
                if try file.tryRecordLock() {
                    return MboxFile(
                        file: file, directory: directory, name: name, hasLockFile: hasLockFile, isNew: isNew)
                }
                file.close()
            } catch {
                file.close()
                throw error
            }
        } catch {
            if hasLockFile { _ = try? directory.unlink("\(name).lock") }
            directory.close()
            throw error
        }
        if hasLockFile { _ = try? directory.unlink("\(name).lock") }
        directory.close()
        return nil
    }

    private enum LockFile {
        case made
        /// Somebody else has it.
        case taken
        /// Where we may neither make files nor remove what others have left (/var/mail of many systems), the other lock
        /// must do.
        case impossible
    }

    private static func makeLockFile(
        _ name: String, _ directory: Descriptor, _ now: Timestamp
    ) throws(SystemError) -> LockFile {
        for isFirst in [true, false] {
            do throws(SystemError) {
                let lock = try directory.open(name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, mode: 0o600)
                defer { lock.close() }
                _ = try? lock.write(Array("\(ThisProcess.pid)\n".utf8))
                return .made
            } catch {
                switch error.code {
                case EEXIST where isFirst:
                    guard let facts = try directory.facts(of: name),
                        now.elapsed(since: facts.modified) > Self.staleLockAge
                    else { return .taken }
                    guard try Self.removeStale(name, directory) else { return .impossible }
                case EEXIST: return .taken
                case EACCES, EPERM, EROFS: return .impossible
                default: throw error
                }
            }
        }
        return .taken
    }

    /// Removes what a process has left that is no more; false if we may not.
    private static func removeStale(_ name: String, _ directory: Descriptor) throws(SystemError) -> Bool {
        do throws(SystemError) {
            try directory.unlink(name)
            return true
        } catch {
            switch error.code {
            case EACCES, EPERM, EROFS: return false
            default: throw error
            }
        }
    }

    /// Appends a message and waits until it is on stable storage; after a throw the mailbox is as it was.
    ///
    /// - Parameters:
    ///   - heading: the From_ line and the fields in front, with LF line ends.
    func append(_ heading: [UInt8], _ content: ContentFile) throws(SystemError) {
        let size = try self.file.size()
        do throws(SystemError) {
            try self.file.seek(to: size)
            if size > 0 { try self.file.write(try self.separator(size)) }
            try self.file.write(heading)
            var quoting = MboxQuoting()
            try content.forEachPart { part throws(SystemError) in
                var octets: [UInt8] = []
                octets.reserveCapacity(part.count + 16)
                quoting.quote(part, into: &octets)
                try self.file.write(octets)
            }
            var end: [UInt8] = []
            quoting.end(into: &end)
            try self.file.write(end)
            try self.file.sync()
            if self.isNew { try self.directory.sync() }
        } catch {
            // Whoever reads it must not find half a message; if even this fails, the next message begins a line of its own.
            try? self.file.truncate(to: size)
            try? self.file.sync()
            throw error
        }
    }

    /// What is missing of an empty line at the end.
    private func separator(_ size: UInt64) throws(SystemError) -> [UInt8] {
        let end = try self.file.read(at: size - min(size, 2), upTo: 2)
        if end == [0x0A, 0x0A] { return [] }
        return end.last == 0x0A ? [0x0A] : [0x0A, 0x0A]
    }

    /// Gives the locks back.
    func close() {
        if self.hasLockFile { _ = try? self.directory.unlink("\(self.name).lock") }
        self.file.close()
        self.directory.close()
    }

    static func date(_ time: Timestamp) -> [UInt8] { MailDate(time).asctime }

    /// `From SENDER DATE`, as it is written for a thousand years: the date as of asctime(3), in UTC.
    static func fromLine(_ reversePath: ReversePath, _ now: Timestamp) -> [UInt8] {
        var line: [UInt8] = Array("From ".utf8)
        let sender = reversePath.octets.map { $0.isPrintable && $0 != ASCII.space ? $0 : ASCII.hyphen }
        line += sender.isEmpty ? Array("MAILER-DAEMON".utf8) : sender
        line.append(ASCII.space)
        line += Self.date(now)
        line.append(ASCII.lineFeed)
        return line
    }
}

/// The quoting of mboxrd, whatever the parts in which the content comes.
struct MboxQuoting {
    private enum State: Equatable {
        /// At the start of a line, behind nothing but `>`.
        case start
        /// The same, behind so many octets of `From `, which are not written yet.
        case from(Int)
        case inside
    }

    private static let mark: [UInt8] = Array("From ".utf8)
    private var state = State.start
    private var isAtLineStart = true

    mutating func quote(_ part: ArraySlice<UInt8>, into octets: inout [UInt8]) {
        var rest = part
        while let first = rest.first {
            guard self.state == .inside else {
                self.take(first, &octets)
                rest = rest.dropFirst()
                continue
            }
            let lineEnd = rest.firstIndex(of: 0x0A)
            let end = lineEnd.map { $0 + 1 } ?? rest.endIndex
            octets += rest[..<end]
            rest = rest[end...]
            guard lineEnd != nil else { return }
            self.state = .start
            self.isAtLineStart = true
        }
    }

    /// The end of the content, and an empty line behind it.
    mutating func end(into octets: inout [UInt8]) {
        if case .from(let count) = self.state { octets += Self.mark[..<count] }
        octets += self.isAtLineStart ? [0x0A] : [0x0A, 0x0A]
    }

    private mutating func take(_ octet: UInt8, _ octets: inout [UInt8]) {
        self.isAtLineStart = octet == 0x0A
        var count = 0
        if case .from(let seen) = self.state { count = seen }
        if octet == Self.mark[count] {
            self.state = .from(count + 1)
            guard count + 1 == Self.mark.count else { return }
            // Only `>` stands before it, so it does not matter where the new one goes.
            octets.append(ASCII.greater)
            octets += Self.mark
            self.state = .inside
            return
        }
        octets += Self.mark[..<count]
        octets.append(octet)
        if octet == 0x0A {
            self.state = .start
        } else {
            self.state = octet == ASCII.greater && count == 0 ? .start : .inside
        }
    }
}
