// SPDX-License-Identifier: Apache-2.0

import Cryptography
import MailTypes
import PipeCore
import SASLCore
import Unix

/// The password file; changes are seen without a restart.
final class FileSource: CredentialSource, PasswordChecker {
    private var secret: SecretFile
    private let workers: Workers
    private let cryptography = Cryptography()
    /// Makes the keys of those who do not exist the same each time, and unpredictable.
    private let decoySecret: [UInt8]
    private var file: PasswordFile?

    /// - Parameter decoyKey: nil: one for as long as this process lives.
    init(path: String, decoyKey: String?, workers: Workers) {
        self.secret = SecretFile(
            path: path, octetCountMax: PasswordFile.octetCountMax, complaintEvent: "passwords-unusable")
        self.workers = workers
        self.decoySecret = decoyKey.map { Array($0.utf8) } ?? self.cryptography.randomOctets(32)
        self.refresh()
    }

    let possibleMechanisms: [SASLMechanism] = [.scramSHA256Plus, .scramSHA256, .external, .plain, .login]

    /// Clients that can do SCRAM prefer it, and do not try PLAIN after it has failed; so it is offered if everybody has
    /// keys for it.
    var suitableMechanisms: [SASLMechanism] {
        self.possibleMechanisms.filter { mechanism in
            switch mechanism {
            case .scramSHA256Plus, .scramSHA256: self.file?.hasOnlySCRAM == true
            case .external: self.file?.hasCertificates == true
            default: true
            }
        }
    }

    func makeExchange(
        _ beginning: ExchangeBeginning, _ offered: [SASLMechanism], _ answer: @escaping (VaultAnswer) -> Void
    ) -> any Exchange {
        OwnExchange(beginning, self, offered, answer)
    }

    func close() { self.workers.close() }

    // MARK: The file

    func refresh() {
        switch self.secret.look() {
        case .unchanged: break
        case .changed(let octets): self.take(PasswordFile(octets: octets))
        case .unusable: self.file = nil
        }
    }

    private func take(_ file: PasswordFile) {
        self.secret.report("password-fault", file.faults)
        self.file = file
        var line = LogLine("passwords-read")
        line.add("file", self.secret.path)
        line.add("users", file.entries.count)
        line.write()
    }

    // MARK: Checks

    var trouble: String? { self.file == nil ? "\(self.secret.path) cannot be used" : nil }

    func check(user: [UInt8], password: [UInt8], _ done: @escaping (PasswordVerdict) -> Void) {
        guard let file = self.file else { return done(.later(self.trouble ?? "")) }
        let known = file.entries[user]?.password
        let exists = known != nil && known != .locked
        let hash = exists ? known : self.decoy(for: user, file)
        let cryptography = self.cryptography
        self.workers.run(
            {
                // The same work for everybody; whether the user exists decides only afterwards.
                let isRight = hash.map { cryptography.isRight(password, for: $0) } ?? false
                return isRight && exists ? .right : .wrong
            }, done)
    }

    /// What a user who does not exist is checked against: the hash of somebody who does, the same one each time. So
    /// those who do not exist take as long as those who do, in the same proportions if there are several schemes.
    private func decoy(for user: [UInt8], _ file: PasswordFile) -> PasswordHash? {
        guard !file.hashes.isEmpty else { return nil }
        let code = self.cryptography.authenticationCode(key: self.decoySecret, user)
        let number = code.prefix(4).reduce(0) { $0 << 8 | Int($1) }
        return file.hashes[number % file.hashes.count]
    }

    func keys(of user: [UInt8]) -> SCRAMKeys? {
        guard let file = self.file else { return nil }
        if case .scram(let keys)? = file.entries[user]?.password { return keys }
        var iterationCount = SCRAMKeys.iterationCounts.lowerBound
        var saltOctetCount = 16
        if case .scram(let keys)? = file.hashes.first(where: { if case .scram = $0 { true } else { false } }) {
            (iterationCount, saltOctetCount) = (keys.iterationCount, keys.salt.count)
        }
        func code(_ purpose: String) -> [UInt8] {
            self.cryptography.authenticationCode(key: self.decoySecret, Array(purpose.utf8) + user)
        }
        let salt = (code("salt ") + code("more salt ")).prefix(saltOctetCount)
        return SCRAMKeys(
            iterationCount: iterationCount, salt: Array(salt), storedKey: code("stored "), serverKey: code("server "))
    }

    func owner(of certificate: [UInt8], claimed: [UInt8]?) -> [UInt8]? {
        guard let file = self.file, let user = claimed ?? file.owner(of: certificate),
            let entry = file.entries[user], entry.certificates.contains(certificate), entry.password != .locked
        else { return nil }
        return user
    }
}
