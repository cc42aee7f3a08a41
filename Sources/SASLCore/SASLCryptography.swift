// SPDX-License-Identifier: Apache-2.0

/// The cryptography that mechanisms need, given by whoever has it. All digests are SHA-256, of 32 octets.
package protocol SASLCryptography {
    func digest(_ octets: [UInt8]) -> [UInt8]
    func authenticationCode(key: [UInt8], _ octets: [UInt8]) -> [UInt8]
    /// Whether both are the same, in a time that tells nothing about where they differ. That of their lengths is told.
    func areEqual(_ left: [UInt8], _ right: [UInt8]) -> Bool
}

/// The stored half of a SCRAM-SHA-256 secret (RFC 5802 §3): who has it can check a proof, and cannot make one.
package struct SCRAMKeys: Equatable, Sendable {
    package let iterationCount: Int
    package let salt: [UInt8]
    /// 32 octets.
    package let storedKey: [UInt8]
    /// 32 octets.
    package let serverKey: [UInt8]

    /// RFC 7677 §4 asks for 4096 at least; the most bounds what one entry of a file can cost.
    package static let iterationCounts = 4_096...10_000_000
    package static let saltOctetCounts = 1...64

    package init?(iterationCount: Int, salt: [UInt8], storedKey: [UInt8], serverKey: [UInt8]) {
        guard Self.iterationCounts.contains(iterationCount), Self.saltOctetCounts.contains(salt.count),
            storedKey.count == 32, serverKey.count == 32
        else { return nil }
        self.iterationCount = iterationCount
        self.salt = salt
        self.storedKey = storedKey
        self.serverKey = serverKey
    }

    /// From the salted password: `PBKDF2(password, salt, iterationCount)`.
    package init?(iterationCount: Int, salt: [UInt8], saltedPassword: [UInt8], _ cryptography: some SASLCryptography) {
        let clientKey = cryptography.authenticationCode(key: saltedPassword, Array("Client Key".utf8))
        self.init(
            iterationCount: iterationCount, salt: salt, storedKey: cryptography.digest(clientKey),
            serverKey: cryptography.authenticationCode(key: saltedPassword, Array("Server Key".utf8)))
    }
}
