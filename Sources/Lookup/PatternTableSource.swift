// SPDX-License-Identifier: Apache-2.0

package import LookupCore
package import MailTypes
import Unix

/// A table of patterns as its file has it now; changes are seen without a restart.
package struct PatternTableSource {
    private var watched: WatchedFile
    private let make: @Sendable ([UInt8]) -> any PatternTable
    private var table: (any PatternTable)?

    package init(path: String, _ make: @escaping @Sendable ([UInt8]) -> any PatternTable) {
        self.watched = WatchedFile(path: path)
        self.make = make
    }

    /// Looks whether the file has changed, and reads it then. A file with a mistake does not take the place of a good one.
    package mutating func refresh(uptime: Duration, now: Timestamp) {
        switch self.watched.news(uptime: uptime, now: now, octetCountMax: TextTable.octetCountMax) {
        case .changed(let octets):
            let table = self.make(octets)
            for fault in table.faults { self.watched.log("table-fault", line: fault.line, reason: fault.text) }
            guard table.faults.isEmpty else { return }
            self.table = table
            self.watched.log("table-read", count: table.count)
        case .unreadable(let reason): self.watched.log("table-unreadable", reason: reason)
        case .unchanged: break
        }
    }

    package func finding(of key: [UInt8]) -> TableFinding {
        guard let table = self.table else {
            return .unknownNow(reason: "the table \(self.watched.path) is not in order")
        }
        return table.finding(of: key).map { .found($0.value, place: "\(self.watched.path):\($0.line)") } ?? .absent
    }
}
