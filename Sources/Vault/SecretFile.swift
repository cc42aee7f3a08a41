// SPDX-License-Identifier: Apache-2.0

import Glibc
import MailTypes
import SASLCore
import Unix

/// A file of secrets, which is looked at again and again, and used only if nobody else could have read or written it.
struct SecretFile {
    enum Look: Equatable {
        case unchanged
        case changed([UInt8])
        /// What was read before does not count any more.
        case unusable
    }

    let path: String
    private let octetCountMax: Int
    /// What is said in the log of a file that cannot be used.
    private let complaintEvent: StaticString
    private var mark: FileMark?
    private var lookedAt: Duration?
    /// What was said last, so that it is not said every second.
    private var complaint = ""

    /// The file is looked at no more often than this.
    private static let lookTime = Duration.seconds(1)

    init(path: String, octetCountMax: Int, complaintEvent: StaticString) {
        self.path = path
        self.octetCountMax = octetCountMax
        self.complaintEvent = complaintEvent
    }

    mutating func look() -> Look {
        let uptime = ThisProcess.uptime
        if let lookedAt, uptime - lookedAt < Self.lookTime { return .unchanged }
        let isFirst = self.lookedAt == nil
        self.lookedAt = uptime
        do throws(SystemError) {
            let mark = try FileMark(self.path)
            guard mark != self.mark else { return .unchanged }
            // A file that was changed a moment ago may still be being written.
            let now = WallClock.now()
            let isFresh = mark.modified <= now && now.elapsed(since: mark.modified) < .seconds(1)
            guard isFirst || !isFresh else {
                self.lookedAt = uptime - Self.lookTime
                return .unchanged
            }
            let descriptor = try Descriptor.open(self.path, O_RDONLY)
            defer { descriptor.close() }
            try Self.checkMode(descriptor, self.path)
            let octets = try descriptor.readAll(octetCountMax: self.octetCountMax)
            self.mark = mark
            self.complaint = ""
            return .changed(octets)
        } catch {
            // Nobody gets in by a file that anybody could have read; and nobody is told that his password is wrong.
            self.mark = nil
            self.complain(error.text)
            return .unusable
        }
    }

    private static func checkMode(_ descriptor: Descriptor, _ path: String) throws(SystemError) {
        var status = stat()
        guard fstat(descriptor.number, &status) == 0 else { throw SystemError("stat", path) }
        guard status.st_mode & S_IFMT == S_IFREG else { throw SystemError("is not a file:", path, code: EINVAL) }
        guard status.st_mode & 0o007 == 0 else {
            throw SystemError("others than its owner and its group have rights at", path, code: EPERM)
        }
        guard status.st_uid == 0 || status.st_uid == geteuid() else {
            throw SystemError("neither root nor apus-vault owns", path, code: EPERM)
        }
    }

    private mutating func complain(_ reason: String) {
        guard self.complaint != reason else { return }
        self.complaint = reason
        var line = LogLine(self.complaintEvent)
        line.add("file", self.path)
        line.add("reason", reason)
        line.write()
    }

    /// Tells what is wrong with its lines.
    func report(_ event: StaticString, _ faults: [SecretFileFault]) {
        for fault in faults {
            var line = LogLine(event)
            line.add("file", self.path)
            line.add("line", fault.line)
            line.add("reason", fault.text)
            line.write()
        }
    }
}
