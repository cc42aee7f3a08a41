// SPDX-License-Identifier: Apache-2.0

import Settings
import Unix

/// The command line of apusd.
struct DaemonOptions {
    var configuration = Settings.fileDefault

    private static let help = """
        usage: apusd [--config FILE]

        Starts and supervises the programs of Apus, in the foreground. FILE is \(Settings.fileDefault) by default.
        Started as root, each program gets a user of its own (etc/accounts makes them); otherwise all run as the
        user that starts apusd.

        Signals: SIGTERM and SIGINT finish what is in flight and end, a second one ends at once; SIGHUP reads the
        settings again.

        """

    /// Reads the arguments, or says what is wrong and exits.
    static func read(_ arguments: [String]) -> DaemonOptions {
        var options = DaemonOptions()
        var rest = arguments[...]
        while let word = rest.popFirst() {
            if word == "--help" || word == "-h" {
                try? Descriptor.output.write(Array(Self.help.utf8))
                ExitStatus.ok.exit()
            } else if word == "--config", let value = rest.popFirst() {
                options.configuration = value
            } else if word.hasPrefix("--config=") {
                options.configuration = String(word.dropFirst("--config=".count))
            } else {
                try? Descriptor.error.write(Array("apusd: unknown argument \(word)\n\n\(Self.help)".utf8))
                ExitStatus.usage.exit()
            }
        }
        return options
    }
}
