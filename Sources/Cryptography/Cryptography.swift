// SPDX-License-Identifier: Apache-2.0
//
// What is kept of passwords is made and checked here, with libcrypto and crypt(3).

import CCryptography
package import SASLCore

/// libcrypto, as the mechanisms want it.
package struct Cryptography: SASLCryptography {
    package static let digestOctetCount = 32

    package init() {}

    package func digest(_ octets: [UInt8]) -> [UInt8] {
        Self.octets { apus_sha256(octets, octets.count, $0) }
    }

    package func authenticationCode(key: [UInt8], _ octets: [UInt8]) -> [UInt8] {
        Self.octets { apus_hmac_sha256(key, key.count, octets, octets.count, $0) }
    }

    package func areEqual(_ left: [UInt8], _ right: [UInt8]) -> Bool {
        left.count == right.count && CRYPTO_memcmp(left, right, left.count) == 0
    }

    /// PBKDF2 with HMAC-SHA-256, which RFC 5802 calls Hi(): slow on purpose.
    package func saltedPassword(_ password: [UInt8], salt: [UInt8], iterationCount: Int) -> [UInt8] {
        // Safety: a password is octets to libcrypto, char or not; it reads so many.
        password.withUnsafeBytes { password in
            Self.octets { result in
                PKCS5_PBKDF2_HMAC(
                    password.bindMemory(to: CChar.self).baseAddress, CInt(clamping: password.count), salt,
                    CInt(clamping: salt.count), CInt(clamping: iterationCount), EVP_sha256(),
                    CInt(Self.digestOctetCount), result)
            }
        }
    }

    /// Octets that nobody can guess.
    package func randomOctets(_ count: Int) -> [UInt8] {
        [UInt8](unsafeUninitializedCapacity: count) { buffer, filledCount in
            // Without randomness there are no secrets, and nothing that could be done instead.
            precondition(RAND_bytes(buffer.baseAddress, CInt(clamping: count)) == 1, "libcrypto has no randomness")
            filledCount = count
        }
    }

    private static func octets(_ fill: (UnsafeMutablePointer<UInt8>?) -> CInt) -> [UInt8] {
        [UInt8](unsafeUninitializedCapacity: self.digestOctetCount) { buffer, filledCount in
            precondition(fill(buffer.baseAddress) == 1, "libcrypto has no memory")
            filledCount = self.digestOctetCount
        }
    }
}

extension Cryptography {
    /// Whether a password is the one that a hash was made of. Takes as long as the hash was made to take.
    package func isRight(_ password: [UInt8], for hash: PasswordHash) -> Bool {
        switch hash {
        case .locked:
            return false
        case .crypt(let hash):
            guard let made = Self.crypt(password, setting: hash) else { return false }
            return self.areEqual(made, hash)
        case .scram(let keys):
            let salted = self.saltedPassword(password, salt: keys.salt, iterationCount: keys.iterationCount)
            let made = SCRAMKeys(
                iterationCount: keys.iterationCount, salt: keys.salt, saltedPassword: salted, self)
            return self.areEqual(made?.storedKey ?? [], keys.storedKey)
        }
    }

    /// nil if the setting is none of this system's crypt(3), or the password holds a NUL.
    private static func crypt(_ password: [UInt8], setting: [UInt8]) -> [UInt8]? {
        guard !password.contains(0), !setting.contains(0) else { return nil }
        var hash = [UInt8](repeating: 0, count: APUS_CRYPT_SIZE)
        let isMade = Self.withCString(password) { password in
            Self.withCString(setting) { setting in
                // Safety: the buffer has the size that apus_crypt wants, and holds a NUL at the end.
                hash.withUnsafeMutableBytes {
                    apus_crypt(password, setting, $0.bindMemory(to: CChar.self).baseAddress) == 1
                }
            }
        }
        return isMade ? Array(hash.prefix { $0 != 0 }) : nil
    }

    private static func withCString<Result>(_ octets: [UInt8], _ body: (UnsafePointer<CChar>?) -> Result) -> Result {
        // Safety: the copy ends with a NUL and outlives the call.
        (octets + [0]).withUnsafeBytes { body($0.bindMemory(to: CChar.self).baseAddress) }
    }

    /// How a password may be kept in the file.
    package enum Scheme: String, CaseIterable, Sendable {
        case yescrypt
        case sha512
        case bcrypt
        case scramSHA256 = "scram-sha-256"
    }

    /// The entry of the file for a password, `{scheme}hash`; nil if this system's crypt(3) has no such method.
    package func entry(_ password: [UInt8], _ scheme: Scheme) -> [UInt8]? {
        switch scheme {
        case .yescrypt: return self.cryptEntry(password, prefix: "$y$", cost: 0)
        // What others call half a second was thought of for 2007; this takes about as long as yescrypt.
        case .sha512: return self.cryptEntry(password, prefix: "$6$", cost: 100_000)
        case .bcrypt: return self.cryptEntry(password, prefix: "$2b$", cost: 10)
        case .scramSHA256:
            let salt = self.randomOctets(16)
            let salted = self.saltedPassword(password, salt: salt, iterationCount: Self.iterationCount)
            return SCRAMKeys(
                iterationCount: Self.iterationCount, salt: salt, saltedPassword: salted, self
            ).map { Array("{SCRAM-SHA-256}".utf8) + $0.text }
        }
    }

    /// What a client has to compute at each log in: about 10 ms of a phone's processor.
    private static let iterationCount = 15_000

    private func cryptEntry(_ password: [UInt8], prefix: String, cost: UInt) -> [UInt8]? {
        var setting = [UInt8](repeating: 0, count: APUS_CRYPT_SIZE)
        // Safety: the buffer has the size that crypt_gensalt_rn is told.
        let isMade = setting.withUnsafeMutableBytes {
            apus_crypt_setting(prefix, cost, $0.bindMemory(to: CChar.self).baseAddress) == 1
        }
        guard isMade, let hash = Self.crypt(password, setting: Array(setting.prefix { $0 != 0 })) else { return nil }
        return Array("{CRYPT}".utf8) + hash
    }
}
