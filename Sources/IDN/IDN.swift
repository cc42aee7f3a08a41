// SPDX-License-Identifier: Apache-2.0
//
// Internationalised domain names (RFC 5891) by the system's libidn2, which has the tables of characters.

import CIDN
package import MailTypes

extension DomainMapping {
    /// By IDNA2008 with the mappings of UTS #46, non-transitional: `Bücher.example` is `xn--bcher-kva.example`. It reads
    /// no file and asks nobody, and so works where there is nothing to read.
    package static let idna2008 = DomainMapping { domain in
        // Safety: the array ends with the only NUL in it; what comes back ends with one too, and is ours until it is
        // freed.
        guard !domain.contains(0), let ascii = apus_idn_ascii(domain.map { CChar(bitPattern: $0) } + [0]) else {
            return nil
        }
        defer { idn2_free(ascii) }
        return Array(String(cString: ascii).utf8)
    }
}
