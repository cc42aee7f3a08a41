// SPDX-License-Identifier: Apache-2.0

import Glibc
import MailTypes
import TOML
import Unix

/// Where apus-smtpd listens for the programs of this machine: the socket `submit` of the state directory.
enum SubmissionPath {
    /// As the settings have them (`Settings`), which sendmail does not link.
    static let settingsFile = "/etc/apus/apus.toml"
    static let stateDirectoryDefault = "/var/lib/apus"
    static let settingsOctetCountMax = 4 << 20

    /// The variable is for tests and for several Apus on one machine; it gives nobody anything, as whoever answers there learns no
    /// more than the message. Settings that the caller may not read, or that have mistakes, are no reason to send nothing.
    static func find() -> String {
        if let given = getenv("APUS_SUBMIT_SOCKET") { return String(cString: given) }
        let octets = try? Descriptor.readFile(Self.settingsFile, octetCountMax: Self.settingsOctetCountMax)
        return Self.path(settings: octets)
    }

    /// - Parameter settings: the settings file; nil if it cannot be read.
    static func path(settings: [UInt8]?) -> String {
        guard let settings, case .string(let state)? = TOMLReader.read(settings).table["state"]?.value,
            state.hasPrefix("/")
        else { return "\(Self.stateDirectoryDefault)/submit" }
        return "\(state)/submit"
    }
}
