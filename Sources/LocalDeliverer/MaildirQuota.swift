// SPDX-License-Identifier: Apache-2.0
//
// The quota of Maildir++: a file `maildirsize` in the Maildir, whose first line is the limit (`1000000S,1000C`) and whose others
// add up to what is in it, an octet count and a message count each. Whoever puts a message in or takes one out appends
// a line; whoever finds the file too long, or the limit passed by figures that may be old, counts anew.

import Glibc
import MailTypes
import Unix

/// How much may be in a mailbox.
package struct MailboxLimit: Hashable, Sendable {
    /// 0: any number.
    package var octetCount: UInt64
    /// 0: any number.
    package var messageCount: UInt64

    package init(octetCount: UInt64, messageCount: UInt64 = 0) {
        self.octetCount = octetCount
        self.messageCount = messageCount
    }

    fileprivate var text: String {
        [
            self.octetCount > 0 ? "\(self.octetCount)S" : nil, self.messageCount > 0 ? "\(self.messageCount)C" : nil,
        ].compactMap { $0 }.joined(separator: ",")
    }
}

/// What `maildirsize` says.
struct MaildirSize: Equatable {
    let limit: MailboxLimit
    var octetCount: Int64 = 0
    var messageCount: Int64 = 0
    var lineCount = 0

    /// A file that is longer is counted anew.
    static let fileOctetCountMax = 5_120

    init(_ limit: MailboxLimit) { self.limit = limit }

    /// Nil if the octets are not such a file, or no limit is in it.
    init?(_ octets: [UInt8]) {
        guard octets.count <= Self.fileOctetCountMax, octets.last == ASCII.lineFeed else { return nil }
        let lines = octets.split(separator: ASCII.lineFeed)
        guard let first = lines.first else { return nil }
        var limit = MailboxLimit(octetCount: 0)
        for part in first.split(separator: 0x2C) {
            guard let unit = part.last, let number = part.dropLast().decimal() else { return nil }
            switch unit {
            case 0x53: limit.octetCount = number
            case 0x43: limit.messageCount = number
            // Limits that are not known yet are not ours to keep.
            default: continue
            }
        }
        self.limit = limit
        for line in lines.dropFirst() {
            let words = line.split(whereSeparator: { $0 == ASCII.space || $0 == ASCII.tab })
            guard words.count == 2, let octets = Self.number(words[0]), let count = Self.number(words[1]) else {
                return nil
            }
            self.octetCount &+= octets
            self.messageCount &+= count
            self.lineCount += 1
        }
    }

    private static func number(_ octets: ArraySlice<UInt8>) -> Int64? {
        let isNegative = octets.first == ASCII.hyphen
        guard let number = (isNegative ? octets.dropFirst() : octets).decimal(limit: 1 << 60) else { return nil }
        return isNegative ? -Int64(number) : Int64(number)
    }

    /// Whether so much more is too much.
    func isExceeded(by octetCount: UInt64, _ messageCount: UInt64) -> Bool {
        Self.isExceeded(self.limit.octetCount, self.octetCount, octetCount)
            || Self.isExceeded(self.limit.messageCount, self.messageCount, messageCount)
    }

    private static func isExceeded(_ limit: UInt64, _ there: Int64, _ more: UInt64) -> Bool {
        guard limit > 0 else { return false }
        let there = UInt64(max(0, there))
        return there > limit || more > limit - there
    }

    /// The line that says that so much has come.
    static func line(_ octetCount: UInt64, _ messageCount: UInt64) -> [UInt8] {
        Array("\(octetCount) \(messageCount)\n".utf8)
    }

    /// A message's size as its name has it: `…,S=1234` in front of the flags.
    static func octetCount(inName name: String) -> UInt64? {
        let octets = Array(name.utf8)
        let base = octets.prefix { $0 != ASCII.colon }
        for field in base.split(separator: 0x2C).dropFirst() where field.starts(with: "S=".utf8) {
            return field.dropFirst(2).decimal()
        }
        return nil
    }

    /// Whether a name has the flag of what is to be deleted, which does not count.
    static func isTrashed(_ name: String) -> Bool {
        let octets = Array(name.utf8)
        guard let colon = octets.lastIndex(of: ASCII.colon) else { return false }
        return octets[colon...].starts(with: ":2,".utf8) && octets[colon...].dropFirst(3).contains(0x54)
    }
}

extension Maildir {
    private static let sizeFile = "maildirsize"
    /// Figures of this age are not believed when they say that there is no room.
    private static let sizeAge = Duration.seconds(900)

    /// How full the Maildir is; nil if it has no limit.
    ///
    /// - Parameters:
    ///   - limit: what the settings say; nil: what the file says, if there is one.
    ///   - octetCount: what is to come: with it, the figures are looked at twice before there is no room.
    func size(_ limit: MailboxLimit?, for octetCount: UInt64, _ messageCount: UInt64, now: Timestamp)
        throws(SystemError) -> MaildirSize?
    {
        let found = try self.readSize()
        guard let wanted = limit ?? found?.size?.limit, wanted.octetCount > 0 || wanted.messageCount > 0 else {
            return nil
        }
        guard let found, let size = found.size, size.limit == wanted else { return try self.countAnew(wanted) }
        guard size.isExceeded(by: octetCount, messageCount) else { return size }
        // Nothing was appended since it was counted, and that was not long ago.
        if size.lineCount <= 1, now.elapsed(since: found.changed) < Self.sizeAge { return size }
        return try self.countAnew(wanted)
    }

    private func readSize() throws(SystemError) -> (size: MaildirSize?, changed: Timestamp)? {
        guard let file = try self.directory.openBeneath(Self.sizeFile) else { return nil }
        defer { file.close() }
        let facts = try file.facts()
        guard facts.isRegular, facts.size <= MaildirSize.fileOctetCountMax else { return (nil, facts.modified) }
        return (MaildirSize(try file.readAll(octetCountMax: 65_536)), facts.modified)
    }

    /// Counts what is there, and writes the file.
    private func countAnew(_ limit: MailboxLimit) throws(SystemError) -> MaildirSize {
        var size = MaildirSize(limit)
        var folders = ["."]
        try self.directory.forEachName { name in
            // Folders of Maildir++ begin with a dot; what is in the trash does not count.
            if name.utf8.first == ASCII.dot, name != ".Trash" { folders.append(name) }
        }
        for folder in folders {
            for part in ["new", "cur"] {
                guard let place = try? self.directory.openDirectory("\(folder)/\(part)") else { continue }
                defer { place.close() }
                try place.forEachName { name in
                    guard !MaildirSize.isTrashed(name) else { return }
                    let octets = MaildirSize.octetCount(inName: name) ?? (try? place.facts(of: name))??.size ?? 0
                    size.octetCount &+= Int64(clamping: octets)
                    size.messageCount += 1
                }
            }
        }
        size.lineCount = 1
        let name = "tmp/\(Self.sizeFile).\(ThisProcess.pid)"
        _ = try? self.directory.unlink(name)
        let file = try self.directory.open(name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, mode: 0o600)
        defer { file.close() }
        let text = "\(limit.text)\n\(size.octetCount) \(size.messageCount)\n"
        do throws(SystemError) {
            try file.write(Array(text.utf8))
            try self.directory.rename(name, Self.sizeFile)
        } catch {
            _ = try? self.directory.unlink(name)
            throw error
        }
        return size
    }

    /// Notes that a message has come. A note that is lost is made good by the next counting.
    func addToSize(_ octetCount: UInt64) {
        let flags = O_WRONLY | O_APPEND | O_NOFOLLOW | O_NONBLOCK
        guard let file = try? self.directory.open(Self.sizeFile, flags) else { return }
        defer { file.close() }
        guard (try? file.facts().isRegular) == true else { return }
        try? file.write(MaildirSize.line(octetCount, 1))
    }
}
