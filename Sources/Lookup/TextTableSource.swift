// SPDX-License-Identifier: Apache-2.0

import IDN
package import LookupCore
package import MailTypes
import Unix

/// A table as its text file has it now; changes are seen without a restart.
package struct TextTableSource {
    private var watched: WatchedFile
    private var table = TextTable.unreadable

    package init(path: String) { self.watched = WatchedFile(path: path) }

    /// Looks whether the file has changed, and reads it then. A file that has a line whose key cannot be read does not
    /// take the place of a good one, and neither does one that cannot be read at all.
    package mutating func refresh(uptime: Duration, now: Timestamp) {
        switch self.watched.news(uptime: uptime, now: now, octetCountMax: TextTable.octetCountMax) {
        case .changed(let octets): self.take(TextTable(octets: octets, domains: .idna2008))
        case .unreadable(let reason): self.watched.log("table-unreadable", reason: reason)
        case .unchanged: break
        }
    }

    private mutating func take(_ new: TextTable) {
        for fault in new.faults { self.watched.log("table-fault", line: fault.line, reason: fault.text) }
        guard !new.hasUnreadableLine || self.table.hasUnreadableLine else {
            self.watched.log("table-kept", reason: "the new file has lines that cannot be read; the old one stays")
            return
        }
        self.table = new
        self.watched.log("table-read", count: new.entries.count)
    }

    package func finding(of key: [UInt8]) -> TableFinding {
        if let entry = self.table.finding(of: key) {
            return .found(entry.value, place: "\(self.watched.path):\(entry.line)")
        }
        // Why: a line that could not be read may be the very entry.
        return self.table.hasUnreadableLine
            ? .unknownNow(reason: "the table \(self.watched.path) is not in order") : .absent
    }
}
