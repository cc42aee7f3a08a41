// SPDX-License-Identifier: Apache-2.0

import Glibc
import IDN
import LookupCore
import MailTypes
import PipeCore
import Unix

extension Surroundings {
    /// Looks whether apus-vault may read the passwords of the system's accounts, if it is to check them.
    func checkSystemAccounts(_ settings: Settings, _ remarks: inout [Remark]) {
        let path = "/etc/shadow"
        var status = stat()
        guard settings.table(for: .vault).text("system") == "true", Privileges.isRoot, stat(path, &status) == 0,
            let account = try? UserAccount.named(ProgramName.vault.rawValue), !Self.canRead(status, account)
        else { return }
        remarks.append(
            Remark(
                .advice, file: settings.file, line: 0,
                "auth.system: \(path) cannot be read by the user \(account.name), and nobody gets in",
                hint: "usermod -a -G shadow \(account.name), and restart apusd"))
    }

    /// Looks whether somebody reads the postmaster's mail who is not the postmaster himself.
    func checkPostmaster(_ settings: Settings, _ remarks: inout [Remark]) {
        let table = settings.table(for: .lookup)
        guard let text = table.text("postmaster"), let address = MailAddress(octets: Array(text.utf8)),
            address.unquotedLocalPart.equalsIgnoringCase("postmaster".utf8)
        else { return }
        let ours = [table.text("hostname") ?? ""] + table.texts("local-domain")
        guard ours.contains(where: { address.domain.equalsIgnoringCase($0.utf8) }),
            !Self.hasPostmaster(settings)
        else { return }
        remarks.append(
            Remark(
                .advice, file: settings.file, line: 0,
                "bounce.postmaster: \(text) is the very address whose reader is to be named; its mail waits",
                hint: "name the user who reads it, or write an alias: postmaster: joe"))
    }

    /// Whether an alias or a user says who the postmaster is; true as well if that cannot be told.
    private static func hasPostmaster(_ settings: Settings) -> Bool {
        let name = Array("postmaster".utf8)
        for file in settings.files {
            guard case .aliases(let terms) = file.form else { continue }
            guard let octets = try? Descriptor.readFile(file.path, octetCountMax: AliasFile.octetCountMax) else {
                return true
            }
            let aliases = AliasFile(octets: octets, terms, domains: .idna2008)
            if aliases.entries[name] != nil { return true }
        }
        do throws(SystemError) { return try UserAccount.named("postmaster") != nil } catch { return true }
    }
}
