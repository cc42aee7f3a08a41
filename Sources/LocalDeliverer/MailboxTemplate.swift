// SPDX-License-Identifier: Apache-2.0

package import PipeCore
import Unix

/// Where each user's mail goes, as the setting `mailbox` says: `maildir:~/Maildir`, `maildir:/srv/mail/%{user}`,
/// `mbox:~/mbox`, `discard:`.
///
/// `~/` is the home directory, which is never made; `%{user}` (also `%u`) is the user's name. Of what follows the home
/// directory or the root directory, every directory that is missing is made.
package struct MailboxTemplate: Hashable, Sendable {
    private enum Base: Hashable, Sendable {
        case home
        case root
    }

    private enum Kind: String, CaseIterable, Sendable {
        case maildir
        case mbox
        case discard
    }

    private let kind: Kind
    private let base: Base
    private let components: [String]

    /// The setting's value if there is none.
    package static let defaultText = "maildir:~/Maildir"

    package init(_ text: String) throws(SettingsFault) {
        let octets = Array(text.utf8)
        guard let kind = Kind.allCases.first(where: { octets.starts(with: "\($0.rawValue):".utf8) }) else {
            throw SettingsFault("mailbox", "\(text) does not begin with maildir:, mbox: or discard:")
        }
        self.kind = kind
        var path = octets[(kind.rawValue.utf8.count + 1)...]
        guard kind != .discard else {
            guard path.isEmpty else { throw SettingsFault("mailbox", "\(text) has something behind discard:") }
            self.base = .root
            self.components = []
            return
        }
        if path.starts(with: "~/".utf8) {
            self.base = .home
            path = path.dropFirst(2)
        } else if path.first == 0x2F {
            self.base = .root
        } else {
            throw SettingsFault("mailbox", "\(text) has neither ~/ nor an absolute path behind \(kind.rawValue):")
        }
        let components = path.split(separator: 0x2F).map { String(decoding: $0, as: UTF8.self) }
        guard !components.isEmpty else { throw SettingsFault("mailbox", "\(text) names nothing") }
        guard !components.contains(where: { $0 == ".." || $0 == "." || $0.utf8.contains(0) }) else {
            throw SettingsFault("mailbox", "\(text) has . or .. in its path")
        }
        self.components = components
    }

    /// What is to be done with the mail of a user.
    ///
    /// - Parameters:
    ///   - user: a name that `Route.isUserName` accepts, so that it cannot be `.` or `..` or have a slash in it.
    ///   - home: an absolute path.
    package func instruction(user: String, home: String) -> LocalInstruction {
        let place = MailboxPlace(
            base: self.base == .home ? home : "/",
            components: self.components.map { Self.filled($0, user: user) })
        return switch self.kind {
        case .maildir: .maildir(place)
        case .mbox: .mbox(place)
        case .discard: .discard
        }
    }

    private static func filled(_ component: String, user: String) -> String {
        var result: [UInt8] = []
        var rest = Array(component.utf8)[...]
        let long = Array("%{user}".utf8)
        let short = Array("%u".utf8)
        while let first = rest.first {
            if rest.starts(with: long) {
                result += user.utf8
                rest = rest.dropFirst(long.count)
            } else if rest.starts(with: short) {
                result += user.utf8
                rest = rest.dropFirst(short.count)
            } else {
                result.append(first)
                rest = rest.dropFirst()
            }
        }
        return String(decoding: result, as: UTF8.self)
    }
}

/// Where a mailbox is: the directory of a Maildir, or the file of an mbox.
package struct MailboxPlace: Hashable, Sendable {
    /// A directory that must be there already.
    package let base: String
    /// What follows; directories that are missing are made.
    package let components: [String]

    package init(base: String, components: [String]) {
        self.base = base
        self.components = components
    }

    /// The whole path.
    package var path: String {
        let rest = self.components.joined(separator: "/")
        return self.base == "/" ? "/" + rest : self.base + "/" + rest
    }

    /// Opens the directory, and makes what is missing of it in a way that survives a crash.
    func openDirectory() throws(SystemError) -> Descriptor {
        var directory = try Descriptor.openDirectory(self.base)
        do throws(SystemError) {
            for component in self.components {
                if try directory.makeDirectory(component, mode: 0o700) { try directory.sync() }
                let next = try directory.openDirectory(component)
                directory.close()
                directory = next
            }
        } catch {
            directory.close()
            throw error
        }
        return directory
    }
}
