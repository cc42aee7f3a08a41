// SPDX-License-Identifier: Apache-2.0

import Glibc
import IDN
import LookupCore
import MailTypes
import PipeCore
import Unix

extension Surroundings {
    /// Looks whether the user who does what aliases say is there, and may read what he needs. Mail waits until he can.
    func checkAliasUser(_ settings: Settings, _ remarks: inout [Remark]) {
        guard Privileges.isRoot else { return }
        for file in settings.files {
            guard case .aliases(let terms) = file.form,
                let octets = try? Descriptor.readFile(file.path, octetCountMax: AliasFile.octetCountMax)
            else { continue }
            let aliases = AliasFile(octets: octets, terms, domains: .idna2008)
            let delivered = aliases.entries.filter { !$1.isBroken && aliases.isDelivered($0, $1) }
            guard !delivered.isEmpty || settings.table(for: .local).text("alias-user") != nil else { continue }
            self.checkAliasUser(settings, file, delivered.values.sorted { $0.line < $1.line }, &remarks)
        }
    }

    private func checkAliasUser(
        _ settings: Settings, _ file: Settings.File, _ entries: [AliasFile.Entry], _ remarks: inout [Remark]
    ) {
        let user = settings.table(for: .local).text("alias-user", default: "nobody")
        let found: UserAccount?
        // A database that cannot be asked is no reason to say that somebody is missing.
        do throws(SystemError) { found = try UserAccount.named(user) } catch { return }
        guard let account = found, account.uid != 0 else {
            remarks.append(
                Remark(
                    .advice, file: settings.file, line: file.line,
                    "local.alias-user: there is no user \(user), or it is root",
                    hint: "mail for aliases with programs, files or an owner waits until there is: useradd -r \(user)"))
            return
        }
        func note(_ path: String, _ line: Int, _ text: String, _ hint: String) {
            remarks.append(Remark(.advice, file: path, line: line, text, hint: hint))
        }
        var status = stat()
        guard !entries.isEmpty, stat(file.path, &status) == 0 else { return }
        if status.st_uid != 0 || status.st_mode & 0o002 != 0 {
            note(
                settings.file, file.line, "\(file.path) must be root's, and not be writable by everybody",
                "mail for aliases with programs, files or an owner waits until then")
        } else if !Self.canRead(status, account) {
            note(settings.file, file.line, "\(file.path) cannot be read by the user \(user)", "chmod o+r \(file.path)")
        }
        for entry in entries {
            for case .list(let path) in entry.targets
            where stat(path, &status) == 0 && !Self.canRead(status, account) {
                note(file.path, entry.line, "\(path) cannot be read by the user \(user)", "chmod o+r \(path)")
            }
        }
    }
}
