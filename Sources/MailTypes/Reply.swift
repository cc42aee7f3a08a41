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
    /// The octets on the wire, each line with its code, its status and CR LF. Made once: most replies are constants.
    package let octets: [UInt8]

    /// - Precondition: `code` is 200…599 and agrees with the class of `status`; `lines` is not empty.
    package init(_ code: UInt16, _ status: EnhancedStatus?, lines: [[UInt8]]) {
        precondition((200...599).contains(code) && !lines.isEmpty)
        precondition(status.map { UInt16($0.statusClass.rawValue) == code / 100 } ?? true)
        self.code = code
        self.status = status
        self.lines = lines.map { [UInt8](printable: $0.prefix(480)) }
        self.octets = Self.octets(code, status, self.lines)
    }

    package init(_ code: UInt16, _ status: EnhancedStatus?, _ text: String) {
        self.init(code, status, lines: [Array(text.utf8)])
    }

    /// A 334 of AUTH (RFC 4954 §4), which is longer than other replies may be.
    ///
    /// - Parameter text: base64.
    package init(challenge text: [UInt8]) {
        self.code = 334
        self.status = nil
        self.lines = [[UInt8](printable: text[...])]
        self.octets = Self.octets(334, nil, self.lines)
    }

    /// 4xx or 5xx.
    package var isRefusal: Bool { self.code >= 400 }

    private static func octets(_ code: UInt16, _ status: EnhancedStatus?, _ lines: [[UInt8]]) -> [UInt8] {
        var octets: [UInt8] = []
        octets.reserveCapacity(64)
        for (index, line) in lines.enumerated() {
            octets.append(decimal: code)
            octets.append(index == lines.count - 1 ? ASCII.space : ASCII.hyphen)
            if let status {
                status.append(to: &octets)
                octets.append(ASCII.space)
            }
            octets.append(contentsOf: line)
            octets.append(ASCII.carriageReturn)
            octets.append(ASCII.lineFeed)
        }
        return octets
    }
}
