// SPDX-License-Identifier: Apache-2.0

package import LookupCore
package import MailTypes
import Unix

/// The aliases as the file has them now; changes are seen without a restart.
package struct AliasSource {
    private let path: String?
    /// What was read last.
    package private(set) var file: AliasFile
    private var mark: FileMark?
    private var lookedAt: Duration?
    /// What was said last of a file that cannot be read, so that it is not said every second.
    private var complaint = ""

    /// The file is looked at no more often than this.
    private static let lookTime = Duration.seconds(1)

    /// Reads the file. If that fails, nobody is unknown until it succeeds.
    package init(path: String?) {
        self.path = path
        self.file = path == nil ? AliasFile() : .unreadable
    }

    /// Looks whether the file has changed, and reads it then. A file that has a line without a name that can be read
    /// does not take the place of a good one.
    ///
    /// - Returns: whether `file` is another now.
    package mutating func refresh(uptime: Duration, now: Timestamp) -> Bool {
        guard let path = self.path else { return false }
        if let lookedAt, uptime - lookedAt < Self.lookTime { return false }
        let isFirst = self.lookedAt == nil
        self.lookedAt = uptime
        do throws(SystemError) {
            let mark = try FileMark(path)
            guard mark != self.mark else { return false }
            // Why: a file that was changed a moment ago may still be being written, and half a file makes mail bounce.
            let isFresh = mark.modified <= now && now.elapsed(since: mark.modified) < .seconds(1)
            guard isFirst || !isFresh else { return false }
            let octets = try Descriptor.readFile(path, octetCountMax: AliasFile.octetCountMax)
            self.mark = mark
            return self.take(AliasFile(octets: octets), path)
        } catch {
            self.complain("aliases-unreadable", path, error.text)
            return false
        }
    }

    private mutating func take(_ new: AliasFile, _ path: String) -> Bool {
        self.complaint = ""
        for fault in new.faults {
            var line = LogLine("alias-fault")
            line.add("file", path)
            line.add("line", fault.line)
            line.add("reason", fault.text)
            line.write()
        }
        if new.hasUnreadableLine, !self.file.hasUnreadableLine {
            self.complain("aliases-kept", path, "the new file has lines that cannot be read; the old one stays")
            return false
        }
        self.file = new
        var line = LogLine("aliases-read")
        line.add("file", path)
        line.add("count", new.entries.count)
        line.write()
        return true
    }

    private mutating func complain(_ event: StaticString, _ path: String, _ reason: String) {
        guard self.complaint != reason else { return }
        self.complaint = reason
        var line = LogLine(event)
        line.add("file", path)
        line.add("reason", reason)
        line.write()
    }
}
