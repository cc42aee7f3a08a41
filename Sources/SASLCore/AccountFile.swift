// SPDX-License-Identifier: Apache-2.0
//
// The file of our own accounts at other servers:
//
//     # host            user               password, to the end of the line
//     relay.example.org shop@example.org   correct horse battery staple

private import MailTypes

/// The file, read and checked.
package struct AccountFile: Equatable, Sendable {
    private struct Key: Hashable {
        let host: [UInt8]
        let user: [UInt8]
    }

    private var passwords: [Key: [UInt8]] = [:]
    package private(set) var faults: [SecretFileFault] = []

    package static let octetCountMax = 1 << 20

    package init(octets: [UInt8]) {
        let lines = octets.split(separator: ASCII.lineFeed, omittingEmptySubsequences: false)
        for (index, line) in lines.enumerated() {
            if let text = self.read(line) { self.faults.append(SecretFileFault(line: index + 1, text: text)) }
        }
    }

    package var count: Int { self.passwords.count }

    /// - Parameter host: compared without regard to case; the user as he is written.
    package func password(host: [UInt8], user: [UInt8]) -> [UInt8]? {
        self.passwords[Key(host: host.lowercasedOctets, user: user)]
    }

    /// - Returns: what is wrong with the line.
    private mutating func read(_ line: ArraySlice<UInt8>) -> String? {
        var rest = line
        if rest.last == ASCII.carriageReturn { rest = rest.dropLast() }
        let host = Self.word(&rest)
        guard let first = host.first, first != 0x23 else { return nil }
        let user = Self.word(&rest)
        guard !user.isEmpty, !rest.isEmpty else { return "expected a host, a user and a password" }
        guard user.count <= SASLLimits.userOctetCountMax, CredentialText.password(user) != nil,
            CredentialText.password(rest) != nil
        else { return "the user or the password is too long, or has octets that are no text" }
        let key = Key(host: host.lowercasedOctets, user: Array(user))
        guard self.passwords[key] == nil else { return "this account has a line already" }
        self.passwords[key] = Array(rest)
        return nil
    }

    /// The next word, and the blanks behind it.
    private static func word(_ rest: inout ArraySlice<UInt8>) -> ArraySlice<UInt8> {
        func isBlank(_ octet: UInt8) -> Bool { octet == ASCII.space || octet == ASCII.tab }
        rest = rest.drop(while: isBlank)
        let word = rest.prefix { !isBlank($0) }
        rest = rest[word.endIndex...].drop(while: isBlank)
        return word
    }
}
