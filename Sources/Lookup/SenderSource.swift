// SPDX-License-Identifier: Apache-2.0

import IDN
package import LookupCore
package import MailTypes
import Unix

/// The table of senders as the file has it now; changes are seen without a restart.
package struct SenderSource {
    private var watched: WatchedFile?
    /// Nil if it cannot be read: then nobody can be told what he may send as.
    package private(set) var table: SenderTable?

    package init(path: String?) {
        self.watched = path.map { WatchedFile(path: $0) }
        self.table = path == nil ? SenderTable() : nil
    }

    /// Looks whether the file has changed, and reads it then. If it cannot be read, what was read before still holds.
    package mutating func refresh(uptime: Duration, now: Timestamp) {
        guard let news = self.watched?.news(uptime: uptime, now: now, octetCountMax: SenderTable.octetCountMax),
            let watched = self.watched
        else { return }
        switch news {
        case .changed(let octets):
            let table = SenderTable(octets: octets, domains: .idna2008)
            self.table = table
            for fault in table.faults { watched.log("sender-fault", line: fault.line, reason: fault.text) }
            var line = LogLine("senders-read")
            line.add("file", watched.path)
            line.add("users", table.userCount)
            line.write()
        case .unreadable(let reason): watched.log("senders-unreadable", reason: reason)
        case .unchanged: break
        }
    }
}
