// SPDX-License-Identifier: Apache-2.0

package import MailTypes
package import Unix

/// A file of the administrator whose changes are seen without a restart.
package struct WatchedFile {
    package enum News {
        case unchanged
        /// The file has changed; it is read, but for what is longer than the limit.
        case octets([UInt8])
        /// Told once for each reason.
        case unreadable(SystemError)
    }

    package let path: String
    private let octetCountMax: Int
    private var mark: FileMark?
    private var lookedAt: Duration?
    /// What was said last of a file that cannot be read, so that it is not said every second.
    private var complaint = ""

    /// The file is looked at no more often than this.
    private static let lookTime = Duration.seconds(1)

    package init(path: String, octetCountMax: Int) {
        self.path = path
        self.octetCountMax = octetCountMax
    }

    /// Looks whether the file has changed, and reads it then.
    package mutating func news(uptime: Duration, now: Timestamp) -> News {
        if let lookedAt, uptime - lookedAt < Self.lookTime { return .unchanged }
        let isFirst = self.lookedAt == nil
        self.lookedAt = uptime
        do throws(SystemError) {
            let mark = try FileMark(self.path)
            guard mark != self.mark else { return .unchanged }
            // Why: a file that was changed a moment ago may still be being written, and half a file makes mail bounce.
            let isFresh = mark.modified <= now && now.elapsed(since: mark.modified) < .seconds(1)
            guard isFirst || !isFresh else { return .unchanged }
            let octets = try Descriptor.readFile(self.path, octetCountMax: self.octetCountMax)
            self.mark = mark
            self.complaint = ""
            return .octets(octets)
        } catch {
            guard self.complaint != error.text else { return .unchanged }
            self.complaint = error.text
            return .unreadable(error)
        }
    }

    /// A line in the log about the file.
    package func log(_ event: StaticString, line number: Int? = nil, reason: String) {
        var line = LogLine(event)
        line.add("file", self.path)
        if let number { line.add("line", number) }
        line.add("reason", reason)
        line.write()
    }
}
