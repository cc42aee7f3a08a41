// SPDX-License-Identifier: Apache-2.0

package import LookupCore
package import MailTypes
import Unix

/// The table of senders as the file has it now; changes are seen without a restart.
package struct SenderSource {
    private let path: String?
    /// Nil if it cannot be read: then nobody can be told what he may send as.
    package private(set) var table: SenderTable?
    private var mark: FileMark?
    private var lookedAt: Duration?
    private var complaint = ""

    private static let lookTime = Duration.seconds(1)

    package init(path: String?) {
        self.path = path
        self.table = path == nil ? SenderTable() : nil
    }

    /// Looks whether the file has changed, and reads it then.
    package mutating func refresh(uptime: Duration, now: Timestamp) {
        guard let path = self.path else { return }
        if let lookedAt, uptime - lookedAt < Self.lookTime { return }
        let isFirst = self.lookedAt == nil
        self.lookedAt = uptime
        do throws(SystemError) {
            let mark = try FileMark(path)
            guard mark != self.mark else { return }
            // A file that was changed a moment ago may still be being written.
            let isFresh = mark.modified <= now && now.elapsed(since: mark.modified) < .seconds(1)
            guard isFirst || !isFresh else { return }
            let table = SenderTable(octets: try Descriptor.readFile(path, octetCountMax: SenderTable.octetCountMax))
            self.mark = mark
            self.table = table
            self.complaint = ""
            for fault in table.faults {
                var line = LogLine("sender-fault")
                line.add("file", path)
                line.add("line", fault.line)
                line.add("reason", fault.text)
                line.write()
            }
            var line = LogLine("senders-read")
            line.add("file", path)
            line.add("users", table.userCount)
            line.write()
        } catch {
            // What was read before still holds.
            guard self.complaint != error.text else { return }
            self.complaint = error.text
            var line = LogLine("senders-unreadable")
            line.add("file", path)
            line.add("reason", error.text)
            line.write()
        }
    }
}
