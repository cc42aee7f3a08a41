// SPDX-License-Identifier: Apache-2.0

import PipeCore
import PipeDrivers
import Unix

/// apus-vault: holds what is kept of passwords, and says who somebody is. It can read the secrets and has no network;
/// whoever has the network cannot read the secrets.
package enum VaultProgram {
    package static func main() -> Never {
        let program = Program.start(
            Program.Description(
                name: "apus-vault", purpose: "Holds secrets, and says whether a client's credentials are right.",
                mainLink: (.vault, "apus-smtpd"), mayUseNetwork: false, keepsGroups: true))
        do throws(SettingsFault) {
            let settings = try VaultSettings(program.settings)
            program.run { program, eventLoop in VaultServer(program, settings, eventLoop) }
        } catch {
            var line = LogLine("settings-wrong")
            line.add("reason", error.description)
            line.write()
            ExitStatus.configuration.exit()
        }
    }
}
