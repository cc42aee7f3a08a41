// SPDX-License-Identifier: Apache-2.0

import MailTypes
import PipeCore
import Settings
import Unix

extension ApusDaemon {
    /// What a program is handed: the settings, and what only apusd knows.
    func table(for part: Part) -> SettingsTable {
        var table = self.settings.table(for: part.program)
        if part.program == .lookup, let name = self.installation.singleUser { table.append("single-user", name) }
        if part.program == .vault, table.text("passwords") != nil, let key = self.installation.decoyKey {
            table.append("decoy-key", key)
        }
        if part.program == .bounce { self.appendTemplates(to: &table) }
        if [.queue, .lookup].contains(part.program), table.text("srs-domain") != nil { self.appendSecret(to: &table) }
        return table
    }

    /// The secret of rewritten senders, so that its file can stay root's.
    private func appendSecret(to table: inout SettingsTable) {
        guard let path = self.settings.secretFile?.path else { return }
        do throws(SystemError) {
            let octets = try Descriptor.readFile(path, octetCountMax: Settings.secretFileOctetCountMax)
            if let secret = Settings.secret(octets) { table.append("srs-secret", secret) }
        } catch {
            var line = LogLine("secret-unread")
            line.add("file", path)
            line.add("reason", error.text)
            line.write()
        }
    }

    /// The words of reports, line by line, as apus-bounce may read no file.
    private func appendTemplates(to table: inout SettingsTable) {
        for (index, template) in self.settings.templates.enumerated() {
            do throws(SystemError) {
                let octets = try Descriptor.readFile(template.path, octetCountMax: Settings.templateOctetCountMax)
                for line in octets.split(separator: ASCII.lineFeed, omittingEmptySubsequences: false) {
                    table.append("template", "\(index + 1)|\(String(decoding: line, as: UTF8.self))")
                }
            } catch {
                var line = LogLine("template-unread")
                line.add("file", template.path)
                line.add("reason", error.text)
                line.write()
            }
        }
    }
}
