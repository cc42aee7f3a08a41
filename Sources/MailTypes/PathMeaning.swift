// SPDX-License-Identifier: Apache-2.0

/// What a forward-path means to which an alias leads.
///
/// Why it is told: an alias of this machine names others without a domain, and that of the address which it is written as need
/// not be a local one; and `\name` means the user, whatever the aliases say.
package enum PathMeaning: String, Hashable, Sendable, CaseIterable {
    /// What it means to everybody.
    case address
    /// Its local part is the name of an alias or of a user of this machine, whatever its domain.
    case name
    /// Its local part is the name of a user of this machine; aliases are passed over.
    case user

    package init?(octets: some Collection<UInt8>) {
        guard let meaning = Self.allCases.first(where: { octets.elementsEqual($0.rawValue.utf8) }) else { return nil }
        self = meaning
    }

    package var octets: [UInt8] { Array(self.rawValue.utf8) }
}
