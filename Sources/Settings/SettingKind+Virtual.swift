// SPDX-License-Identifier: Apache-2.0

extension SettingKind {
    /// A template of mailboxes that keeps virtual users apart.
    static func virtualMailbox(_ text: String) throws(Fault) -> String {
        let hint = "write \"maildir:/srv/vmail/%{domain}/%{local}\""
        let octets = Array(text.utf8)
        let path = octets.dropFirst(8)
        guard octets.starts(with: "maildir:".utf8), path.first == 0x2F || path.starts(with: "~/".utf8) else {
            throw Fault("\"\(text)\" is not a mailbox of virtual users", hint: hint)
        }
        guard
            !path.split(separator: 0x2F).contains(where: {
                $0.elementsEqual("..".utf8) || $0.elementsEqual(".".utf8)
            })
        else { throw Fault("the path in \"\(text)\" has . or .. in it") }
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
}
