// SPDX-License-Identifier: Apache-2.0

extension ReversePath {
    /// The reverse-path of one recipient's copy (VERP): `list@example.org` for `joe@example.net` is
    /// `list+joe=example.net@example.org`, so that a report says by where it goes whom it is about.
    ///
    /// It is the path itself for the null path, for a recipient without a domain or with a quoted local part, and where
    /// the local part would become longer than one may be.
    package func variable(for recipient: ForwardPath) -> ReversePath {
        guard case .address(let sender) = self, case .address(let address) = recipient,
            address.octets.first != ASCII.quote, sender.octets.first != ASCII.quote, !address.isLiteral
        else { return self }
        var octets = Array(sender.localPart)
        octets.append(0x2B)
        octets += address.localPart
        octets.append(ASCII.equals)
        octets += address.domain
        guard octets.count <= MailAddress.localPartOctetCountMax else { return self }
        octets.append(ASCII.at)
        octets += sender.domain
        return MailAddress(octets: octets).map { .address($0) } ?? self
    }
}
