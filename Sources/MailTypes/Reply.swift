// SPDX-License-Identifier: Apache-2.0

/// An SMTP reply (RFC 5321 §4.2) with its enhanced status (RFC 2034), complete and safe to send.
///
/// The text is made printable ASCII on the way in, so that no peer's words can start a line of ours.
package struct Reply: Hashable, Sendable {
    /// 200…599.
    package let code: UInt16
    /// Nil for the replies that RFC 2034 §4 leaves without one (the greeting, EHLO, 354).
    /// Otherwise its class is the first digit of `code`.
    package let status: EnhancedStatus?
    /// One entry a line, at least one; each is printable ASCII of at most 480 octets.
    package let lines: [[UInt8]]

    /// - Precondition: `code` is 200…599 and agrees with the class of `status`; `lines` is not empty.
    package init(_ code: UInt16, _ status: EnhancedStatus?, lines: [[UInt8]]) {
        precondition((200...599).contains(code) && !lines.isEmpty)
        precondition(status.map { UInt16($0.statusClass.rawValue) == code / 100 } ?? true)
        self.code = code
        self.status = status
        self.lines = lines.map { line in line.prefix(480).map { $0.isPrintable ? $0 : 0x3F } }
    }

    package init(_ code: UInt16, _ status: EnhancedStatus?, _ text: String) {
        self.init(code, status, lines: [Array(text.utf8)])
    }

    /// 4xx or 5xx.
    package var isRefusal: Bool { self.code >= 400 }

    /// The octets on the wire, each line with its code, its status and CR LF.
    package var octets: [UInt8] {
        var octets: [UInt8] = []
        self.append(to: &octets)
        return octets
    }

    /// Appends what `octets` is.
    package func append(to octets: inout [UInt8]) {
        for (index, line) in self.lines.enumerated() {
            octets.append(decimal: self.code)
            octets.append(index == self.lines.count - 1 ? ASCII.space : ASCII.hyphen)
            if let status = self.status {
                octets.append(contentsOf: status.octets)
                octets.append(ASCII.space)
            }
            octets.append(contentsOf: line)
            octets.append(ASCII.carriageReturn)
            octets.append(ASCII.lineFeed)
        }
    }
}
