// SPDX-License-Identifier: Apache-2.0

import IDN
package import LookupCore
import MailTypes
import Unix

/// The files that aliases include, as they are now; each is read when it is first asked for.
package struct AliasListShelf {
    private struct Entry {
        var watched: WatchedFile
        /// What was in order last.
        var list: AliasList?
    }

    private var entries: [String: Entry] = [:]

    /// Only the administrator's own files name others, but these may name more.
    private static let entryCountMax = 1_000

    package init() {}

    /// The targets in a file. One that is not in order does not take the place of what was read before.
    package mutating func finding(of path: String) -> AliasListFinding {
        if self.entries[path] == nil {
            guard self.entries.count < Self.entryCountMax else {
                return .unknownNow(reason: "more than \(Self.entryCountMax) files are included")
            }
            self.entries[path] = Entry(watched: WatchedFile(path: path))
        }
        guard var entry = self.entries[path] else { return .unknownNow(reason: path) }
        let news = entry.watched.news(
            uptime: ThisProcess.uptime, now: WallClock.now()
        ) { path throws(WatchedFile.Fault) in
            do throws(SystemError) {
                return try Descriptor.readRegularFile(path, octetCountMax: AliasList.octetCountMax)
            } catch { throw WatchedFile.Fault(text: error.text) }
        }
        switch news {
        case .changed(let octets):
            let list = AliasList(octets: octets, domains: .idna2008)
            for fault in list.faults { entry.watched.log("alias-fault", line: fault.line, reason: fault.text) }
            if list.faults.isEmpty { entry.list = list }
        case .unreadable(let reason): entry.watched.log("aliases-unreadable", reason: reason)
        case .unchanged: break
        }
        self.entries[path] = entry
        return entry.list.map { .targets($0.targets) }
            ?? .unknownNow(reason: "\(path), which an alias includes, is not in order")
    }
}
