// SPDX-License-Identifier: Apache-2.0

import MailTypes
import Unix

/// Opens the Maildirs of a process, and remembers which were in order.
final class MaildirShelf {
    /// At most `countMax`.
    private var checked: Set<MailboxPlace> = []
    private static let countMax = 1_000

    /// Opens a Maildir; what is missing of it is made, and leftovers are removed, when it is met for the first time.
    func open(_ place: MailboxPlace) throws(SystemError) -> OpenMaildir {
        let isChecked = self.checked.contains(place)
        let mailbox = OpenMaildir(try Maildir.open(place, isChecked: isChecked))
        if !isChecked {
            mailbox.maildir.removeLeftovers(now: WallClock.now())
            if self.checked.count >= Self.countMax { self.checked = [] }
            self.checked.insert(place)
        }
        return mailbox
    }
}

/// A Maildir that closes itself when no delivery uses it any more.
final class OpenMaildir {
    let maildir: Maildir
    /// What is on its way into it and is not in its `maildirsize` yet.
    private var reserved: (octetCount: UInt64, messageCount: UInt64) = (0, 0)
    /// Nil until it is known.
    private var hasLimit: Bool?

    init(_ maildir: Maildir) { self.maildir = maildir }

    /// Takes room for so many messages of that size each; false if there is none.
    ///
    /// - Parameter limit: what the settings say.
    func reserve(
        _ octetCount: UInt64, _ messageCount: Int, _ limit: MailboxLimit?, now: Timestamp
    ) throws(SystemError) -> Bool {
        guard self.hasLimit != false else { return true }
        let octets = self.reserved.octetCount + octetCount * UInt64(messageCount)
        let messages = self.reserved.messageCount + UInt64(messageCount)
        let size = try self.maildir.size(limit, for: octets, messages, now: now)
        self.hasLimit = size != nil
        guard size?.isExceeded(by: octets, messages) != true else { return false }
        self.reserved = (octets, messages)
        return true
    }

    /// Steps 3 and 4 of `Maildir.swift`. After a throw nothing is left of the file.
    ///
    /// - Parameter fault: of the file's sync.
    func publish(_ file: inout MaildirFile, _ fault: SystemError?) throws(SystemError) {
        do throws(SystemError) {
            if let fault { throw fault }
            file.isSizeInName = self.hasLimit == true
            try file.publish()
        } catch {
            file.discard()
            throw error
        }
        if self.hasLimit == true { self.maildir.addToSize(file.octetCount) }
    }

    /// Steps 2 to 4, with a message that is there whole. After a throw nothing is left of the file.
    ///
    /// - Parameter appendContent: appends what stands behind the lines.
    func put(
        _ file: inout MaildirFile, behind lines: [UInt8],
        _ appendContent: (inout MaildirFile) throws(SystemError) -> Void
    ) throws(SystemError) {
        do throws(SystemError) {
            file.append(lines: lines)
            try appendContent(&file)
            try file.end()
            try file.sync()
        } catch {
            file.discard()
            throw error
        }
        try self.publish(&file, nil)
    }

    deinit { self.maildir.close() }

    /// Makes its deliveries durable; what went wrong, or nil.
    func syncFault() -> SystemError? {
        do throws(SystemError) {
            try self.maildir.syncNew()
            return nil
        } catch {
            return error
        }
    }
}
