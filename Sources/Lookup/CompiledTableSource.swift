// SPDX-License-Identifier: Apache-2.0

import LMDB
package import LookupCore
package import MailTypes
import Unix

/// A compiled table as its file is now; another file in its place is seen without a restart.
package struct CompiledTableSource {
    private var watched: WatchedFile
    private var table: TableFile?

    package init(path: String) { self.watched = WatchedFile(path: path) }

    /// Looks whether there is another file, and opens it then. One that is no table does not take the place of a good one.
    package mutating func refresh(uptime: Duration, now: Timestamp) {
        let news = self.watched.news(uptime: uptime, now: now) { path throws(WatchedFile.Fault) in
            do throws(TableFile.Fault) { return try TableFile(path: path) } catch {
                throw WatchedFile.Fault(text: error.text)
            }
        }
        switch news {
        case .changed(let table):
            self.table = table
            self.watched.log("table-read", count: table.count)
        case .unreadable(let reason): self.watched.log("table-unreadable", reason: reason)
        case .unchanged: break
        }
    }

    package func finding(of key: [UInt8]) -> TableFinding {
        guard let table = self.table else {
            return .unknownNow(reason: "the table \(self.watched.path) cannot be read")
        }
        do throws(LMDBError) {
            guard let value = try table.value(of: key) else { return .absent }
            return .found(value, place: "lmdb:\(self.watched.path)")
        } catch { return .unknownNow(reason: "the table \(self.watched.path): \(error.text)") }
    }
}
