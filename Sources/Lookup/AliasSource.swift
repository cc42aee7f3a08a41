// SPDX-License-Identifier: Apache-2.0

import IDN
package import LookupCore
package import MailTypes
import Unix

/// The aliases as the file has them now; changes are seen without a restart.
package struct AliasSource {
    private var watched: WatchedFile?
    private let terms: AliasFile.Terms
    /// What was read last.
    package private(set) var file: AliasFile

    /// Reads the file. If that fails, nobody is unknown until it succeeds.
    package init(path: String?, _ terms: AliasFile.Terms) {
        self.terms = terms
        self.watched = path.map { WatchedFile(path: $0) }
        self.file = path == nil ? AliasFile() : .unreadable
    }

    /// Looks whether the file has changed, and reads it then. A file that has a line without a name that can be read
    /// does not take the place of a good one.
    ///
    /// - Returns: whether `file` is another now.
    package mutating func refresh(uptime: Duration, now: Timestamp) -> Bool {
        switch self.watched?.news(uptime: uptime, now: now, octetCountMax: AliasFile.octetCountMax) {
        case .changed(let octets): return self.take(AliasFile(octets: octets, self.terms, domains: .idna2008))
        case .unreadable(let reason):
            self.watched?.log("aliases-unreadable", reason: reason)
            return false
        case .unchanged, nil: return false
        }
    }

    private mutating func take(_ new: AliasFile) -> Bool {
        guard let watched = self.watched else { return false }
        for fault in new.faults { watched.log("alias-fault", line: fault.line, reason: fault.text) }
        if new.hasUnreadableLine, !self.file.hasUnreadableLine {
            watched.log("aliases-kept", reason: "the new file has lines that cannot be read; the old one stays")
            return false
        }
        self.file = new
        watched.log("aliases-read", count: new.entries.count)
        return true
    }
}
