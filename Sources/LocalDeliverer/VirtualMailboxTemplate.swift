// SPDX-License-Identifier: Apache-2.0

package import MailTypes
package import PipeCore

/// Where each virtual user's mail goes, as the setting `virtual-mailbox` says: `maildir:/srv/vmail/%{domain}/%{local}`.
///
/// `~/` is the home directory of the system user who owns the mailboxes. Both names must be in the path, so that no two
/// users can share a mailbox.
package struct VirtualMailboxTemplate: Hashable, Sendable {
    private let isInHome: Bool
    private let components: [[UInt8]]

    /// The setting's value if there is none.
    package static let defaultText = "maildir:~/%{domain}/%{local}"

    private static let domain: [UInt8] = Array("%{domain}".utf8)
    private static let local: [UInt8] = Array("%{local}".utf8)

    package init(_ text: String) throws(SettingsFault) {
        func fault(_ reason: String) -> SettingsFault { SettingsFault("virtual-mailbox", "\(text) \(reason)") }
        let octets = Array(text.utf8)
        let kind = Array("maildir:".utf8)
        guard octets.starts(with: kind) else { throw fault("does not begin with maildir:") }
        var path = octets[kind.count...]
        self.isInHome = path.starts(with: "~/".utf8)
        guard self.isInHome || path.first == 0x2F else {
            throw fault("has neither ~/ nor an absolute path behind maildir:")
        }
        path = path.dropFirst(self.isInHome ? 2 : 1)
        self.components = path.split(separator: 0x2F).map { Array($0) }
        guard !self.components.contains(where: { $0.elementsEqual("..".utf8) || $0 == [ASCII.dot] || $0.contains(0) })
        else { throw fault("has . or .. in its path") }
        for name in [Self.domain, Self.local] {
            guard self.components.contains(where: { $0.firstRange(of: name) != nil }) else {
                throw fault("has no \(name.printableText) in its path")
            }
        }
    }

    /// The mailbox of a virtual user.
    ///
    /// - Parameter home: that of the owner, an absolute path.
    package func place(of name: MailboxName, home: String) -> MailboxPlace {
        MailboxPlace(
            base: self.isInHome ? home : "/",
            components: self.components.map { component in
                String(
                    decoding: component.replacing(Self.domain, with: name.domainComponent)
                        .replacing(Self.local, with: name.localComponent), as: UTF8.self)
            })
    }
}
