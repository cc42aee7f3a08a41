// SPDX-License-Identifier: Apache-2.0

package import MailTypes
import Unix

/// A file of the administrator whose changes are seen without a restart.
package struct WatchedFile {
    /// What is new about the file.
    package enum News<Content> {
        case unchanged
        case changed(Content)
        /// With the reason; told once for each.
        case unreadable(String)
    }

    /// Why a file cannot be read, in one line.
    package struct Fault: Error {
        let text: String
    }

    package let path: String
    private var mark: FileMark?
    private var lookedAt: Duration?
    /// What was said last of a file that cannot be read, so that it is not said every second.
    private var complaint = ""

    /// The file is looked at no more often than this.
    private static let lookTime = Duration.seconds(1)

    package init(path: String) { self.path = path }

    /// Looks whether the file has changed, and reads it then.
    ///
    /// - Parameter octetCountMax: what is behind so many octets is not read.
    package mutating func news(uptime: Duration, now: Timestamp, octetCountMax: Int) -> News<[UInt8]> {
        self.news(uptime: uptime, now: now) { path throws(Fault) in
            do throws(SystemError) { return try Descriptor.readFile(path, octetCountMax: octetCountMax) } catch {
                throw Fault(text: error.text)
            }
        }
    }

    /// Looks whether the file has changed, and lets `read` read it then; anew each time until it succeeds.
    package mutating func news<Content>(
        uptime: Duration, now: Timestamp, _ read: (String) throws(Fault) -> Content
    ) -> News<Content> {
        if let lookedAt, uptime - lookedAt < Self.lookTime { return .unchanged }
        let isFirst = self.lookedAt == nil
        self.lookedAt = uptime
        do throws(Fault) {
            let mark = try Self.mark(of: self.path)
            guard mark != self.mark else { return .unchanged }
            // Why: a file that was changed a moment ago may still be being written, and half a file makes mail bounce.
            guard isFirst || !mark.isFresh(now: now) else { return .unchanged }
            let content = try read(self.path)
            self.mark = mark
            self.complaint = ""
            return .changed(content)
        } catch {
            guard self.complaint != error.text else { return .unchanged }
            self.complaint = error.text
            return .unreadable(error.text)
        }
    }

    private static func mark(of path: String) throws(Fault) -> FileMark {
        do throws(SystemError) { return try FileMark(path) } catch { throw Fault(text: error.text) }
    }

    /// A line in the log that it was read, and how many entries it has.
    package func log(_ event: StaticString, count: Int) {
        var line = LogLine(event)
        line.add("file", self.path)
        line.add("count", count)
        line.write()
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
