// SPDX-License-Identifier: Apache-2.0

import Cryptography
import Glibc
import MailTypes
import PipeCore
import SASLCore
import Unix

/// The password file; changes are seen without a restart.
final class FileSource: CredentialSource, PasswordChecker {
    private let path: String
    private let workers: Workers
    private let cryptography = Cryptography()
    /// Makes the keys of those who do not exist the same each time, and unpredictable.
    private let decoySecret: [UInt8]
    private var file: PasswordFile?
    private var mark: FileMark?
    private var lookedAt: Duration?
    /// What was said last of a file that cannot be used, so that it is not said every second.
    private var complaint = ""

    /// The file is looked at no more often than this.
    private static let lookTime = Duration.seconds(1)

    init(path: String, workers: Workers) {
        self.path = path
        self.workers = workers
        self.decoySecret = self.cryptography.randomOctets(32)
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
        let uptime = ThisProcess.uptime
        if let lookedAt, uptime - lookedAt < Self.lookTime { return }
        let isFirst = self.lookedAt == nil
        self.lookedAt = uptime
        do throws(SystemError) {
            let mark = try FileMark(self.path)
            guard mark != self.mark else { return }
            // A file that was changed a moment ago may still be being written.
            let now = WallClock.now()
            let isFresh = mark.modified <= now && now.elapsed(since: mark.modified) < .seconds(1)
            guard isFirst || !isFresh else { return self.lookedAt = nil }
            let descriptor = try Descriptor.open(self.path, O_RDONLY)
            defer { descriptor.close() }
            try Self.checkMode(descriptor, self.path)
            let octets = try descriptor.readAll(octetCountMax: PasswordFile.octetCountMax)
            self.mark = mark
            self.take(PasswordFile(octets: octets))
        } catch {
            // Nobody gets in by a file that anybody could have read; and nobody is told that his password is wrong.
            self.file = nil
            self.mark = nil
            self.complain(error.text)
        }
    }

    private static func checkMode(_ descriptor: Descriptor, _ path: String) throws(SystemError) {
        var status = stat()
        guard fstat(descriptor.number, &status) == 0 else { throw SystemError("stat", path) }
        guard status.st_mode & S_IFMT == S_IFREG else { throw SystemError("is not a file:", path, code: EINVAL) }
        guard status.st_mode & 0o007 == 0 else {
            throw SystemError("others than its owner and its group have rights at", path, code: EPERM)
        }
        guard status.st_uid == 0 || status.st_uid == geteuid() else {
            throw SystemError("neither root nor apus-vault owns", path, code: EPERM)
        }
    }

    private func take(_ file: PasswordFile) {
        self.complaint = ""
        for fault in file.faults {
            var line = LogLine("password-fault")
            line.add("file", self.path)
            line.add("line", fault.line)
            line.add("reason", fault.text)
            line.write()
        }
        self.file = file
        var line = LogLine("passwords-read")
        line.add("file", self.path)
        line.add("users", file.entries.count)
        line.write()
    }

    private func complain(_ reason: String) {
        guard self.complaint != reason else { return }
        self.complaint = reason
        var line = LogLine("passwords-unusable")
        line.add("file", self.path)
        line.add("reason", reason)
        line.write()
    }

    // MARK: Checks

    func check(user: [UInt8], password: [UInt8], _ done: @escaping (PasswordVerdict) -> Void) {
        guard let file = self.file else { return done(.later("\(self.path) cannot be used")) }
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
