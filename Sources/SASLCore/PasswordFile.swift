// SPDX-License-Identifier: Apache-2.0
//
// The file of users and what is kept of their passwords:
//
//     # a comment
//     alice:{SCRAM-SHA-256}4096,c2FsdA==,storedKeyInBase64,serverKeyInBase64
//     bob:{CRYPT}$y$j9T$...
//     carol:{CRYPT}!            nobody gets in as carol
//     alice:{CERTIFICATE}2f9a…  the SHA-256 fingerprint of a certificate of alice's

private import MailTypes

/// What is kept of a password.
package enum PasswordHash: Equatable, Sendable {
    /// A hash of crypt(3), which says its own method.
    case crypt([UInt8])
    case scram(SCRAMKeys)
    /// No password is right.
    case locked
}

/// One user of the file.
package struct PasswordEntry: Equatable, Sendable {
    package fileprivate(set) var password: PasswordHash?
    /// SHA-256 of certificates in DER, 32 octets each.
    package fileprivate(set) var certificates: Set<[UInt8]> = []
}

/// What is wrong with a line of a file of secrets; the others are good.
package struct SecretFileFault: Equatable, Sendable {
    package let line: Int
    package let text: String
}

/// The file, read and checked.
package struct PasswordFile: Equatable, Sendable {
    /// By the name in lower case.
    package private(set) var entries: [[UInt8]: PasswordEntry] = [:]
    package private(set) var faults: [SecretFileFault] = []
    /// What there is of passwords, in the order of the file: a user who does not exist costs what one of these costs.
    package private(set) var hashes: [PasswordHash] = []

    package static let octetCountMax = 64 << 20

    package init() {}

    package init(octets: [UInt8]) {
        let lines = octets.split(separator: ASCII.lineFeed, omittingEmptySubsequences: false)
        for (index, line) in lines.enumerated() {
            if let text = self.read(Self.trimmed(line)) {
                self.faults.append(SecretFileFault(line: index + 1, text: text))
            }
        }
    }

    /// Whether SCRAM would work for everybody who has a password.
    package var hasOnlySCRAM: Bool {
        self.hashes.contains { if case .scram = $0 { true } else { false } }
            && !self.hashes.contains { if case .crypt = $0 { true } else { false } }
    }

    package var hasCertificates: Bool { self.entries.values.contains { !$0.certificates.isEmpty } }

    /// Of whom a certificate is; nil if it is of nobody, or of several.
    package func owner(of certificate: [UInt8]) -> [UInt8]? {
        let owners = self.entries.filter { $0.value.certificates.contains(certificate) }
        return owners.count == 1 ? owners.first?.key : nil
    }

    private static func trimmed(_ line: ArraySlice<UInt8>) -> ArraySlice<UInt8> {
        var line = line
        while let last = line.last, last == ASCII.space || last == ASCII.tab || last == ASCII.carriageReturn {
            line = line.dropLast()
        }
        return line
    }

    /// - Returns: what is wrong with the line.
    private mutating func read(_ line: ArraySlice<UInt8>) -> String? {
        guard let first = line.first, first != 0x23 else { return nil }
        guard let colon = line.firstIndex(of: ASCII.colon) else { return "expected user:{scheme}hash" }
        guard let user = CredentialText.user(line[..<colon]) else { return "this is not the name of a user" }
        let (scheme, hash) = Self.scheme(line[(colon + 1)...])
        if scheme.equalsIgnoringCase("CERTIFICATE".utf8) {
            guard let fingerprint = Self.fingerprint(hash) else { return "a fingerprint has 64 hexadecimal digits" }
            self.entries[user, default: PasswordEntry()].certificates.insert(fingerprint)
            return nil
        }
        guard self.entries[user]?.password == nil else { return "this user has a password already" }
        switch Self.password(scheme, hash) {
        case .success(let password):
            self.entries[user, default: PasswordEntry()].password = password
            if password != .locked { self.hashes.append(password) }
            return nil
        case .failure(let fault): return fault.text
        }
    }

    private struct HashFault: Error { let text: String }

    /// `{CRYPT}$6$…` in its two parts; without braces it is of crypt(3).
    private static func scheme(_ text: ArraySlice<UInt8>) -> (ArraySlice<UInt8>, ArraySlice<UInt8>) {
        guard text.first == 0x7B, let end = text.firstIndex(of: 0x7D) else { return (ArraySlice("CRYPT".utf8), text) }
        return (text[(text.startIndex + 1)..<end], text[(end + 1)...])
    }

    /// The names that Dovecot gives to the methods of crypt(3), for files that come from there.
    private static let cryptSchemes = ["CRYPT", "SHA512-CRYPT", "SHA256-CRYPT", "BLF-CRYPT", "YESCRYPT"]
    /// Methods that are slow enough to be kept: sha256-crypt, sha512-crypt, bcrypt, yescrypt and its kin, scrypt.
    private static let cryptPrefixes = ["$5$", "$6$", "$2a$", "$2b$", "$2y$", "$y$", "$gy$", "$7$"]

    private static func password(
        _ scheme: ArraySlice<UInt8>, _ hash: ArraySlice<UInt8>
    ) -> Result<PasswordHash, HashFault> {
        if hash.isEmpty { return .failure(HashFault(text: "there is no password")) }
        // What passwd -l makes of a hash, and what stands for none in /etc/shadow.
        if hash.first == 0x21 || hash.first == 0x2A { return .success(.locked) }
        if scheme.equalsIgnoringCase("SCRAM-SHA-256".utf8) {
            guard let keys = SCRAMKeys(text: hash) else {
                return .failure(HashFault(text: "expected {SCRAM-SHA-256}iterations,salt,stored key,server key"))
            }
            return .success(.scram(keys))
        }
        guard Self.cryptSchemes.contains(where: { scheme.equalsIgnoringCase($0.utf8) }) else {
            return .failure(HashFault(text: "the scheme \(scheme.printableText) is not known"))
        }
        guard Self.isCryptHash(hash) else {
            return .failure(HashFault(text: "the hash is of no method of crypt(3) that is good enough"))
        }
        return .success(.crypt(Array(hash)))
    }

    /// Whether it is a hash of crypt(3) that Apus checks a password against.
    package static func isCryptHash(_ hash: ArraySlice<UInt8>) -> Bool {
        self.cryptPrefixes.contains { hash.starts(with: $0.utf8) } && hash.count <= 384
            && hash.allSatisfy { (0x21...0x7E).contains($0) && $0 != ASCII.colon }
    }

    private static func fingerprint(_ text: ArraySlice<UInt8>) -> [UInt8]? {
        let digits = text.filter { $0 != ASCII.colon }
        guard digits.count == 64 else { return nil }
        var octets: [UInt8] = []
        for place in stride(from: 0, to: 64, by: 2) {
            guard let high = self.digit(digits[place]), let low = self.digit(digits[place + 1]) else { return nil }
            octets.append(high << 4 | low)
        }
        return octets
    }

    private static func digit(_ octet: UInt8) -> UInt8? {
        switch octet.lowercased {
        case let octet where octet.isDigit: octet - 0x30
        case let octet where (0x61...0x66).contains(octet): octet - 0x57
        default: nil
        }
    }
}

extension SCRAMKeys {
    /// `iterations,salt,stored key,server key`, as Dovecot writes it too.
    package init?(text: ArraySlice<UInt8>) {
        let parts = text.split(separator: 0x2C, omittingEmptySubsequences: false)
        guard parts.count == 4, let count = parts[0].decimal(limit: 1 << 30), let salt = Base64.decode(parts[1]),
            let storedKey = Base64.decode(parts[2]), let serverKey = Base64.decode(parts[3])
        else { return nil }
        self.init(iterationCount: Int(count), salt: salt, storedKey: storedKey, serverKey: serverKey)
    }

    package var text: [UInt8] {
        var text: [UInt8] = []
        text.append(decimal: self.iterationCount)
        for part in [self.salt, self.storedKey, self.serverKey] {
            text.append(0x2C)
            text += Base64.encode(part)
        }
        return text
    }
}

extension PasswordFile {
    /// The text of the file with another password for a user, or without him; all else stays as it is, comments
    /// included.
    ///
    /// - Parameter hash: `{CRYPT}…` and so on; nil takes the user out, with his certificates.
    /// - Returns: nil if there is no such user to be taken out.
    package static func text(_ octets: [UInt8], settingPasswordOf user: [UInt8], to hash: [UInt8]?) -> [UInt8]? {
        var lines = octets.split(separator: ASCII.lineFeed, omittingEmptySubsequences: false).map { Array($0) }
        if lines.last?.isEmpty == true { lines.removeLast() }
        var result: [[UInt8]] = []
        var isFound = false
        for line in lines {
            guard line.first != 0x23, let colon = line.firstIndex(of: ASCII.colon),
                line[..<colon].equalsIgnoringCase(user)
            else {
                result.append(line)
                continue
            }
            let isCertificate = line[(colon + 1)...].lowercasedOctets.starts(with: "{certificate}".utf8)
            if let hash {
                if isCertificate {
                    result.append(line)
                } else if !isFound {
                    result.append(user + [ASCII.colon] + hash)
                }
                isFound = isFound || !isCertificate
            } else {
                isFound = true
            }
        }
        if !isFound {
            guard let hash else { return nil }
            result.append(user + [ASCII.colon] + hash)
        }
        return Array(result.map { $0 + [ASCII.lineFeed] }.joined())
    }
}
