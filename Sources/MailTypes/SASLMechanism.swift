// SPDX-License-Identifier: Apache-2.0

/// A way in which a client can prove who it is (RFC 4422), as far as Apus knows it.
///
/// In the order in which they are offered: clients that take the first one they know take the best.
package enum SASLMechanism: String, CaseIterable, Sendable {
    /// RFC 7677, bound to the TLS connection.
    case scramSHA256Plus = "SCRAM-SHA-256-PLUS"
    /// RFC 7677.
    case scramSHA256 = "SCRAM-SHA-256"
    /// The client's certificate (RFC 4422 appendix A).
    case external = "EXTERNAL"
    /// RFC 7628.
    case oauthBearer = "OAUTHBEARER"
    /// Google's, before RFC 7628.
    case xoauth2 = "XOAUTH2"
    /// RFC 4616.
    case plain = "PLAIN"
    /// Never a standard, and still what many clients speak.
    case login = "LOGIN"

    /// RFC 4422 §3.1: names are compared without regard to case here, as old clients write them in lower case.
    package init?(octets: some Collection<UInt8>) {
        guard let mechanism = Self.allCases.first(where: { octets.equalsIgnoringCase($0.rawValue.utf8) }) else {
            return nil
        }
        self = mechanism
    }

    /// Whether it shows the secret itself to whoever listens, so that it needs an encrypted connection.
    package var showsSecret: Bool {
        switch self {
        case .plain, .login, .oauthBearer, .xoauth2: true
        case .scramSHA256Plus, .scramSHA256, .external: false
        }
    }
}

/// Limits of an exchange of credentials (RFC 4954 §4).
package enum SASLLimits {
    /// One challenge or response in base64, CR LF included.
    package static let lineOctetCountMax = 12_288
    /// One challenge or response, decoded.
    package static let messageOctetCountMax = 9_216
    package static let userOctetCountMax = 255
    package static let passwordOctetCountMax = 1_024
    /// What crypt(3) takes of it, whatever the scheme: CRYPT_MAX_PASSPHRASE_SIZE without the NUL at the end.
    package static let cryptPasswordOctetCountMax = 511
    /// More responses than any mechanism needs.
    package static let responseCountMax = 8
}
