// SPDX-License-Identifier: Apache-2.0

import PipeCore
import Settings
import TOML

/// A settings file that somebody has put a cat on.
enum SettingsBody {
    static func run(_ octets: [UInt8]) throws(Breach) {
        let (_, faults) = TOMLReader.read(octets)
        try hold(faults.count <= TOMLReader.faultCountMax, "\(faults.count) faults")
        let lineCount = 1 + octets.count { $0 == 10 }
        for fault in faults { try hold((1...lineCount).contains(fault.line), "a fault in line \(fault.line)") }
        let (settings, remarks) = Settings.read(octets: octets, file: "apus.toml")
        try hold(settings != nil || remarks.contains { $0.weight == .mistake }, "refused without a word")
        try hold(settings == nil || faults.isEmpty, "taken with its faults")
        if let table = try? SettingsTable(fileOctets: octets) {
            for pair in table.pairs { try hold(!pair.name.isEmpty, "a setting without a name") }
        }
    }
}
