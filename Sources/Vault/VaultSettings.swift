// SPDX-License-Identifier: Apache-2.0

import MailTypes
import PipeCore

/// The settings of apus-vault.
///
/// | name | value |
/// |---|---|
/// | `passwords` | the path of the password file |
/// | `decoy-key` | what the salts of users who do not exist are made from; apusd has one that lasts |
/// | `system` | `true`: the accounts of this machine, by getspnam(3) |
/// | `checkpassword` | a program and its arguments, one value each |
/// | `dovecot` | the path of a socket of Dovecot's |
/// | `remote-passwords` | the path of the file of our own accounts at other servers |
/// | `failures-per-client-max`, `failures-per-user-max` | how often a client may fail, and clients as one user |
/// | `failure-time` | seconds for which failures are counted |
/// | `mechanism` | a mechanism that may be offered; any number; without any, what works for everybody |
///
/// Of the first four there is one, or none: who is not asked cannot contradict.
struct VaultSettings {
    enum Source: Equatable {
        case passwordFile(path: String, decoyKey: String?)
        case system
        case checkpassword([String])
        case dovecot(path: String)
        case none
    }

    let source: Source
    /// nil: we have none.
    let accounts: String?
    /// nil: what works for everybody.
    let mechanisms: [SASLMechanism]?
    let failureCountPerClientMax: Int
    let failureCountPerUserMax: Int
    let failureSpan: Duration

    init(_ table: SettingsTable) throws(SettingsFault) {
        var sources: [Source] = []
        if let path = table.text("passwords") {
            sources.append(.passwordFile(path: path, decoyKey: table.text("decoy-key")))
        }
        if try table.boolean("system", default: false) { sources.append(.system) }
        let words = table.texts("checkpassword")
        if !words.isEmpty { sources.append(.checkpassword(words)) }
        if let path = table.text("dovecot") {
            // The room of sun_path.
            guard path.utf8.count <= 107 else { throw SettingsFault("dovecot", "is longer than the path of a socket") }
            sources.append(.dovecot(path: path))
        }
        guard sources.count <= 1 else {
            throw SettingsFault("passwords", "only one of passwords, system, checkpassword and dovecot can be set")
        }
        self.source = sources.first ?? .none
        self.accounts = table.text("remote-passwords")
        let mechanisms = try table.values("mechanism", "a mechanism") { SASLMechanism(octets: Array($0.utf8)) }
        self.mechanisms = mechanisms.isEmpty ? nil : mechanisms
        self.failureCountPerClientMax = try table.integer("failures-per-client-max", in: 1...100_000, default: 10)
        self.failureCountPerUserMax = try table.integer("failures-per-user-max", in: 1...100_000, default: 50)
        self.failureSpan = try table.duration("failure-time", in: 1...604_800, default: .seconds(600))
    }
}
