// SPDX-License-Identifier: Apache-2.0

/// What stands in front of the recipient in a reverse-path of his own (VERP).
package enum VERPDelimiter: UInt8, Hashable, Sendable, CaseIterable {
    /// `list+joe=example.net@example.org`, as Postfix has it.
    case plus = 1
    /// `list-owner-joe=example.net@example.org`, as dot-qmail(5) has it.
    case hyphen = 2

    fileprivate var octet: UInt8 {
        switch self {
        case .plus: 0x2B
        case .hyphen: ASCII.hyphen
        }
    }
}

extension ReversePath {
    /// The reverse-path of one recipient's copy (VERP): `list@example.org` for `joe@example.net` is
    /// `list+joe=example.net@example.org`, so that a report says by where it goes whom it is about.
    ///
    /// It is the path itself for the null path, for a recipient without a domain or with a quoted local part, and where
    /// the local part would become longer than one may be.
    package func variable(for recipient: ForwardPath, _ delimiter: VERPDelimiter = .plus) -> ReversePath {
        guard case .address(let sender) = self, case .address(let address) = recipient,
            address.octets.first != ASCII.quote, sender.octets.first != ASCII.quote, !address.isLiteral
        else { return self }
        var octets = Array(sender.localPart)
        octets.append(delimiter.octet)
        octets += address.localPart
        octets.append(ASCII.equals)
        octets += address.domain
        guard octets.count <= MailAddress.localPartOctetCountMax else { return self }
        octets.append(ASCII.at)
        octets += sender.domain
        return MailAddress(octets: octets).map { .address($0) } ?? self
    }
}
