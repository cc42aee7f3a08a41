// SPDX-License-Identifier: Apache-2.0

import CUnix
import Glibc

/// A system call that failed: what was being done, to what, and errno.
package struct SystemError: Error, Equatable, Sendable {
    /// The errno value.
    package let code: CInt
    /// What was being done, for a log line: `open`, `fdatasync`.
    package let operation: String
    /// A path or a name, if there is one that helps.
    package let subject: String

    package init(_ operation: String, _ subject: String = "", code: CInt = errno) {
        self.code = code
        self.operation = operation
        self.subject = subject
    }

    /// `open /etc/apus/aliases: Permission denied`.
    package var text: String {
        let reason = Self.reason(self.code)
        return self.subject.isEmpty ? "\(self.operation): \(reason)" : "\(self.operation) \(self.subject): \(reason)"
    }

    private static func reason(_ code: CInt) -> String {
        var buffer = [CChar](repeating: 0, count: 128)
        return String(cString: apus_error_text(code, &buffer, buffer.count))
    }

    /// Turns the negative errno of a function of CUnix into a throw.
    @discardableResult
    package static func check<Number: SignedInteger>(
        _ result: Number, _ operation: String, _ subject: String = ""
    ) throws(SystemError) -> Number {
        guard result >= 0 else { throw SystemError(operation, subject, code: CInt(-result)) }
        return result
    }
}
