// SPDX-License-Identifier: Apache-2.0

import COpenSSL

/// What went wrong, in OpenSSL's words where it has some.
package struct TLSError: Error, Equatable, Sendable {
    /// Printable ASCII but for what a file's name brings in; for a log or an administrator.
    package let text: String

    package init(_ text: String) { self.text = text }

    /// What OpenSSL has noted since the last time, the first cause first, behind what was being done.
    static func drained(_ doing: String) -> TLSError {
        var reasons: [String] = []
        while true {
            let code = ERR_get_error()
            guard code != 0 else { break }
            let reason = ERR_reason_error_string(code).map { String(cString: $0) } ?? "error \(code)"
            // One cause is often noted on several levels.
            if !reasons.contains(reason), reasons.count < 3 { reasons.append(reason) }
        }
        return TLSError(reasons.isEmpty ? doing : "\(doing): \(reasons.joined(separator: ", "))")
    }
}

/// The versions that may be spoken.
package enum TLSVersion: String, Sendable, CaseIterable {
    case tls12 = "1.2"
    case tls13 = "1.3"

    var number: CInt { self == .tls12 ? TLS1_2_VERSION : TLS1_3_VERSION }
}
