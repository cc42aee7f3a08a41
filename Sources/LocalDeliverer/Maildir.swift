// SPDX-License-Identifier: Apache-2.0
//
// A Maildir, opened for some deliveries, and the files on their way into it.
//
// A delivery must survive a crash of any program and of the machine at every instant, without loss and without a
// second copy. U is the file's name, made from the message id and the recipient's number, so that every attempt at
// the same delivery has the same one. The steps:
//
//     1  open   tmp/U, if there is neither tmp/U nor tmp/U.d; lock it
//     2  write and sync it
//     3  link   tmp/U -> tmp/U.d       the witness
//     4  rename tmp/U -> new/U         the instant of delivery
//     5  sync   new/                   then the queue is told, and commits
//     6  unlink tmp/U.d                when the queue has said that it has committed
//
// What a later attempt finds tells how far the earlier one came:
//
//     after 1, 2  tmp/U                 not delivered: both names are removed, the witness first, and it starts anew
//     after 3     tmp/U and tmp/U.d     the same
//     after 4, 5  tmp/U.d alone         delivered, wherever the reader has moved the mail meanwhile, and even if
//                                       he has deleted it: new/ is synced and the queue is told
//     after 6     nothing               the queue has committed: there is no later attempt
//
// Step 4 is one change of the file system that makes the mail visible and takes tmp/U away. The witness is removed
// before tmp/U with a sync between them, so that tmp/U.d alone can never be left of an attempt that did not deliver.
// If the machine itself has crashed meanwhile, a file system without a journal may have kept the witness and lost the
// name in new/; so a witness from before the start of the machine counts only if the file has another name still.
//
// If step 5 fails, the witness is removed: a sync after a failed one proves nothing, so the next attempt delivers anew, and
// its rename puts the same name into new/.
//
// Witnesses of messages that the queue has dropped meanwhile are removed when nothing has touched them for a week.
//
// On a file system without links there is no witness; there new/ and cur/ are searched for U before step 4.

package import MailTypes
import PipeCore
package import Unix

/// A Maildir, opened: hold it no longer than one batch of deliveries, as its owner may replace it at any time.
package struct Maildir {
    /// The directory itself; names are `tmp/…`, `new/…` below it.
    package let directory: Descriptor
    private let new: Descriptor

    /// Opens a Maildir, and makes what is missing of it, in a way that survives a crash.
    ///
    /// - Parameter isChecked: whether its parts need not be looked at: they were there a while ago.
    package static func open(_ place: MailboxPlace, isChecked: Bool) throws(SystemError) -> Maildir {
        if !isChecked { try Self.make(place) }
        do throws(SystemError) {
            return try Maildir(place)
        } catch  where error.code == Errno.noEntry {
            try Self.make(place)
            return try Maildir(place)
        }
    }

    private init(_ place: MailboxPlace) throws(SystemError) {
        let directory = try Descriptor.openDirectory(place.path)
        do throws(SystemError) {
            self.new = try directory.openDirectory("new")
        } catch {
            directory.close()
            throw error
        }
        self.directory = directory
    }

    /// Makes the directories; the directory in which one was made is synced.
    private static func make(_ place: MailboxPlace) throws(SystemError) {
        let directory = try place.openDirectory()
        defer { directory.close() }
        var isNew = false
        for part in ["tmp", "new", "cur"] where try directory.makeDirectory(part, mode: 0o700) { isNew = true }
        if isNew { try directory.sync() }
    }

    package func close() {
        self.new.close()
        self.directory.close()
    }

    /// Makes the deliveries since the last time outlast a crash of the machine.
    package func syncNew() throws(SystemError) { try self.new.sync() }

    /// Removes files of ours from tmp that belong to deliveries that nobody will repeat: untouched for a week.
    package func removeLeftovers(now: Timestamp) {
        guard let tmp = try? self.directory.openDirectory("tmp") else { return }
        defer { tmp.close() }
        var old: [String] = []
        try? tmp.forEachName { name in
            guard old.count < 1_000, MaildirName.isOurs(Array(name.utf8)), let status = tmp.status(of: name),
                now.elapsed(since: status.changed) > .seconds(7 * 86_400)
            else { return }
            old.append(name)
        }
        for name in old { _ = try? tmp.unlink(name) }
    }
}

/// The name of a delivery's file: `SECONDS.A<message id>N<recipient number>.<host>`.
///
/// The seconds are those of the message id, so that names sort by arrival and are the same in every attempt.
package enum MaildirName {
    /// - Parameter hostname: octets that a file name of a Maildir must not have are written as `\057` and the like.
    /// - Parameter step: of a recipient whose file has several instructions, the place of this one; 0 otherwise.
    package static func name(_ id: MessageID, recipient: UInt32, step: Int = 0, hostname: [UInt8]) -> String {
        var name = self.mark(id.rawValue / 1_000_000)
        name += id.octets
        name.append(0x4E)
        name.append(decimal: recipient)
        if step > 0 {
            name.append(0x53)
            name.append(decimal: step)
        }
        name.append(ASCII.dot)
        for octet in hostname.prefix(120) {
            switch octet {
            case 0x2F: name.append(text: "\\057")
            case ASCII.colon: name.append(text: "\\072")
            case 0x2C: name.append(text: "\\054")
            default: name.append(octet.isPrintable && octet != ASCII.space ? octet : 0x5F)
            }
        }
        return String(decoding: name, as: UTF8.self)
    }

    private static func mark(_ seconds: UInt64) -> [UInt8] {
        var mark: [UInt8] = []
        mark.append(decimal: seconds)
        mark.append(ASCII.dot)
        mark.append(0x41)
        return mark
    }

    /// Whether a name was made here.
    static func isOurs(_ name: [UInt8]) -> Bool {
        let digits = name.prefix { $0.isDigit }
        let rest = name[digits.endIndex...]
        return !digits.isEmpty && rest.starts(with: [ASCII.dot, 0x41])
            && MessageID(octets: rest.dropFirst(2).prefix(13)) != nil
    }

    /// What the witness's name ends in.
    static let witnessSuffix = ".d"
}
