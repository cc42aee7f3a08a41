// SPDX-License-Identifier: Apache-2.0

import MailTypes

extension SettingKind {
    /// A template of mailboxes that keeps virtual users apart.
    static func virtualMailbox(_ text: String) throws(Fault) -> String {
        let hint = "write \"maildir:/srv/vmail/%{domain}/%{local}\""
        let octets = Array(text.utf8)
        let path = octets.dropFirst(8)
        guard octets.starts(with: "maildir:".utf8), path.first == 0x2F || path.starts(with: "~/".utf8) else {
            throw Fault("\"\(text)\" is not a mailbox of virtual users", hint: hint)
        }
        try Self.checkComponents(path, of: text)
        let names = ["{domain}", "{local}"]
        for name in names where !text.contains("%" + name) {
            throw Fault("\"\(text)\" has no %\(name), so that users would share a mailbox", hint: hint)
        }
        for piece in text.split(separator: "%", omittingEmptySubsequences: false).dropFirst()
        where !names.contains(where: { piece.hasPrefix($0) }) {
            throw Fault("\"\(text)\" has a % that is neither %{domain} nor %{local}", hint: hint)
        }
        return text
    }

    /// A template of the mailboxes of users, or `discard:`.
    static func mailbox(_ text: String) throws(Fault) -> String {
        if text == "discard:" { return text }
        let octets = Array(text.utf8)
        guard let prefix = ["maildir:", "mbox:"].first(where: { octets.starts(with: $0.utf8) }),
            octets.count > prefix.utf8.count
        else {
            throw Fault("\"\(text)\" is not a mailbox", hint: "write \"maildir:~/Maildir\" or \"mbox:~/mbox\"")
        }
        let path = octets[prefix.utf8.count...]
        guard path.first == 0x2F || path.starts(with: "~/".utf8) else {
            throw Fault("the path in \"\(text)\" is not absolute", hint: "write \"maildir:~/Maildir\"")
        }
        try Self.checkComponents(path, of: text)
        // A name that is filled in is either known or a slip, after which all users would share one mailbox.
        for piece in text.split(separator: "%", omittingEmptySubsequences: false).dropFirst()
        where !piece.hasPrefix("{user}") && !Self.isShortUser(piece) {
            throw Fault("\"\(text)\" has a % that is not %{user}", hint: "write \"maildir:/srv/mail/%{user}\"")
        }
        return text
    }

    /// `%u`, but not the beginning of `%user`, whose rest would go into the name of everybody's mailbox.
    private static func isShortUser(_ piece: Substring) -> Bool {
        guard piece.first == "u" else { return false }
        return piece.utf8.dropFirst().first.map { !$0.isLetterOrDigit } ?? true
    }

    /// Checks what stands behind the kind of a mailbox.
    private static func checkComponents(_ path: ArraySlice<UInt8>, of text: String) throws(Fault) {
        let components = (path.first == 0x2F ? path : path.dropFirst(2)).split(separator: 0x2F)
        guard !components.isEmpty else {
            throw Fault("\"\(text)\" names the directory itself and nothing in it", hint: "write \"maildir:~/Maildir\"")
        }
        guard !components.contains(where: { $0.elementsEqual("..".utf8) || $0.elementsEqual(".".utf8) }) else {
            throw Fault("the path in \"\(text)\" has . or .. in it")
        }
    }
}
