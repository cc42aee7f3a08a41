// SPDX-License-Identifier: Apache-2.0

package import PipeCore

/// Where each user's mail goes, as the setting `mailbox` says: `maildir:~/Maildir`, `maildir:/srv/mail/%{user}`.
///
/// `~/` is the home directory, which is never made; `%{user}` (also `%u`) is the user's name. Of what follows the home
/// directory or the root directory, every directory that is missing is made.
package struct MailboxTemplate: Hashable, Sendable {
    private enum Base: Hashable, Sendable {
        case home
        case root
    }

    private let base: Base
    private let components: [String]

    /// The setting's value if there is none.
    package static let defaultText = "maildir:~/Maildir"

    package init(_ text: String) throws(SettingsFault) {
        let octets = Array(text.utf8)
        let kind = Array("maildir:".utf8)
        guard octets.starts(with: kind) else {
            throw SettingsFault("mailbox", "\(text) does not begin with maildir:")
        }
        var path = octets[kind.count...]
        if path.starts(with: "~/".utf8) {
            self.base = .home
            path = path.dropFirst(2)
        } else if path.first == 0x2F {
            self.base = .root
        } else {
            throw SettingsFault("mailbox", "\(text) has neither ~/ nor an absolute path behind maildir:")
        }
        let components = path.split(separator: 0x2F).map { String(decoding: $0, as: UTF8.self) }
        guard !components.isEmpty else { throw SettingsFault("mailbox", "\(text) names no directory") }
        guard !components.contains(where: { $0 == ".." || $0 == "." || $0.utf8.contains(0) }) else {
            throw SettingsFault("mailbox", "\(text) has . or .. in its path")
        }
        self.components = components
    }

    /// The mailbox of a user.
    ///
    /// - Parameters:
    ///   - user: a name that `Route.isUserName` accepts, so that it cannot be `.` or `..` or have a slash in it.
    ///   - home: an absolute path.
    package func place(user: String, home: String) -> MailboxPlace {
        MailboxPlace(
            base: self.base == .home ? home : "/",
            components: self.components.map { Self.filled($0, user: user) })
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

/// A directory that holds a mailbox.
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
}
