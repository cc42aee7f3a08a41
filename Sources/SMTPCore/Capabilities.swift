// SPDX-License-Identifier: Apache-2.0

package import MailTypes

/// What a server offers in its answer to EHLO (RFC 5321 §4.1.1.1), as far as the client uses it.
package struct Capabilities: Hashable, Sendable {
    /// RFC 2920.
    package var hasPipelining = false
    /// RFC 6152.
    package var hasEightBitMIME = false
    /// SMTPUTF8 (RFC 6531).
    package var hasUnicode = false
    /// RFC 3207.
    package var hasStartTLS = false
    /// RFC 3461.
    package var hasDSN = false
    /// RFC 4954, as far as Apus knows them.
    package var mechanisms: [SASLMechanism] = []
    /// RFC 1870. Nil: not offered. 0: offered without a fixed limit.
    package var sizeMax: UInt64?

    /// Of a server that knows HELO alone: nothing.
    package init() {}

    /// Reads the answer. Keywords come in any case of letters; what is not known, or not well formed, is passed over.
    package init(_ reply: PeerReply) {
        // The first line greets; keywords begin with the second.
        for line in reply.text.split(separator: ASCII.lineFeed, omittingEmptySubsequences: false).dropFirst() {
            let words = line.split(separator: ASCII.space)
            guard let keyword = words.first else { continue }
            if Self.equals(keyword, "PIPELINING") {
                self.hasPipelining = true
            } else if Self.equals(keyword, "8BITMIME") {
                self.hasEightBitMIME = true
            } else if Self.equals(keyword, "SMTPUTF8") {
                self.hasUnicode = true
            } else if Self.equals(keyword, "STARTTLS") {
                self.hasStartTLS = true
            } else if Self.equals(keyword, "DSN") {
                self.hasDSN = true
            } else if Self.equals(keyword, "AUTH") {
                self.add(words.dropFirst())
            } else if Self.equals(keyword.prefix(5), "AUTH=") {
                // Why: what servers said before RFC 2554, and say still for old clients.
                self.add([keyword.dropFirst(5)] + words.dropFirst())
            } else if Self.equals(keyword, "SIZE") {
                self.sizeMax = words.count > 1 ? words[1].decimal() ?? 0 : 0
            } else if let equals = keyword.firstIndex(of: ASCII.equals), Self.equals(keyword[..<equals], "SIZE") {
                // Why: "SIZE=1000" was never right, and is what some appliances say.
                self.sizeMax = keyword[(equals + 1)...].decimal() ?? 0
            }
        }
    }

    private mutating func add(_ names: some Sequence<ArraySlice<UInt8>>) {
        for mechanism in names.compactMap({ SASLMechanism(octets: $0) }) where !self.mechanisms.contains(mechanism) {
            self.mechanisms.append(mechanism)
        }
    }

    private static func equals(_ word: ArraySlice<UInt8>, _ keyword: StaticString) -> Bool {
        word.equalsIgnoringCase(Array(keyword.description.utf8))
    }
}
