// SPDX-License-Identifier: Apache-2.0

package import MailTypes
package import PipeCore

extension SenderRewriting {
    /// As the settings `srs-domain` and `srs-secret` say; nil without the first.
    package init?(_ table: SettingsTable) throws(SettingsFault) {
        guard let domain = table.text("srs-domain") else { return nil }
        guard MailAddress.isDomainName(Array(domain.utf8)) else {
            throw SettingsFault("srs-domain", "is no domain name")
        }
        let secret = Array(try table.required("srs-secret").utf8)
        guard secret.count >= Self.secretOctetCountMin else {
            throw SettingsFault("srs-secret", "must have at least \(Self.secretOctetCountMin) octets")
        }
        self.init(domain: Array(domain.utf8)) { Cryptography().authenticationCode(key: secret, $0) }
    }
}
