// SPDX-License-Identifier: Apache-2.0
//
// Sources that know passwords alone: the accounts of this machine, and programs in the manner of checkpassword.

import CUnix
import Cryptography
import Glibc
import MailTypes
import PipeCore
import SASLCore
import Unix

/// The accounts of this machine, by what the shadow file keeps of their passwords.
final class SystemSource: CredentialSource, PasswordChecker {
    private let workers: Workers
    /// What users who do not exist are checked against: made as the system makes its own.
    private let decoy: PasswordHash

    init(workers: Workers) {
        self.workers = workers
        let cryptography = Cryptography()
        let secret = Base64.encode(cryptography.randomOctets(16))
        let entry = cryptography.entry(secret, .yescrypt) ?? cryptography.entry(secret, .sha512)
        self.decoy = entry.map { .crypt(Array($0.dropFirst("{CRYPT}".utf8.count))) } ?? .locked
    }

    let possibleMechanisms: [SASLMechanism] = [.plain, .login]
    var suitableMechanisms: [SASLMechanism] { self.possibleMechanisms }

    func makeExchange(
        _ beginning: ExchangeBeginning, _ offered: [SASLMechanism], _ answer: @escaping (VaultAnswer) -> Void
    ) -> any Exchange {
        OwnExchange(beginning, self, offered, answer)
    }

    func close() { self.workers.close() }

    func check(user: [UInt8], password: [UInt8], _ done: @escaping (PasswordVerdict) -> Void) {
        let decoy = self.decoy
        self.workers.run(
            {
                do throws(SystemError) {
                    let shadow = try ShadowEntry.named(String(decoding: user, as: UTF8.self))
                    // root's password is nobody's business over a network.
                    let isUsable = shadow.map { !$0.isExpired && !$0.isRoot && PasswordFile.isCryptHash($0.hash[...]) }
                    let exists = isUsable == true
                    let hash: PasswordHash = exists ? .crypt(shadow?.hash ?? []) : decoy
                    let isRight = Cryptography().isRight(password, for: hash)
                    return isRight && exists ? .right : .wrong
                } catch { return .later(error.text) }
            }, done)
    }
}

/// An entry of shadow(5).
private struct ShadowEntry {
    let hash: [UInt8]
    let isExpired: Bool
    let isRoot: Bool

    /// nil if there is no such user; a throw if the shadow file may not be read or cannot be asked.
    static func named(_ name: String) throws(SystemError) -> ShadowEntry? {
        guard let account = try UserAccount.named(name) else {
            try Self.checkReadable()
            return nil
        }
        // Longer than any hash that is taken.
        var hash = [CChar](repeating: 0, count: 512)
        var expiry = 0
        guard try SystemError.check(apus_shadow(name, &hash, hash.count, &expiry), "getspnam", name) == 1 else {
            try Self.checkReadable()
            return nil
        }
        let today = Int(WallClock.now().seconds / 86_400)
        return ShadowEntry(
            hash: hash.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, isExpired: expiry >= 0 && expiry <= today,
            isRoot: account.uid == 0)
    }

    /// getspnam(3) says the same of a user who does not exist and of a file that it may not read, if another source of
    /// nsswitch.conf(5) is asked after it. Then nobody must be told that he is wrong.
    private static func checkReadable() throws(SystemError) {
        let path = "/etc/shadow"
        guard access(path, F_OK) == 0 else { return }
        try Descriptor.open(path, O_RDONLY).close()
    }
}

/// A program in the manner of checkpassword (cr.yp.to/checkpwd): user, password and a time, each with a NUL at its end,
/// on descriptor 3; status 0 if they are right and the program behind it has been run, which is `true` here.
final class CheckpasswordSource: CredentialSource, PasswordChecker {
    private let words: [String]
    private let workers: Workers

    /// Then it is killed.
    private static let patience: CInt = 30_000

    init(words: [String], workers: Workers) {
        self.words = words
        self.workers = workers
    }

    let possibleMechanisms: [SASLMechanism] = [.plain, .login]
    var suitableMechanisms: [SASLMechanism] { self.possibleMechanisms }

    func makeExchange(
        _ beginning: ExchangeBeginning, _ offered: [SASLMechanism], _ answer: @escaping (VaultAnswer) -> Void
    ) -> any Exchange {
        OwnExchange(beginning, self, offered, answer)
    }

    func close() { self.workers.close() }

    func check(user: [UInt8], password: [UInt8], _ done: @escaping (PasswordVerdict) -> Void) {
        let words = self.words
        self.workers.run(
            {
                do throws(SystemError) {
                    return try Self.run(words, user, password)
                } catch { return .later(error.text) }
            }, done)
    }

    private static func run(
        _ words: [String], _ user: [UInt8], _ password: [UInt8]
    ) throws(SystemError) -> PasswordVerdict {
        let (input, output) = try Descriptor.pipe()
        var isOutputOpen = true
        defer {
            input.close()
            if isOutputOpen { output.close() }
        }
        var spawn = Spawn(path: words.first ?? "", arguments: words + ["/bin/true"])
        spawn.environment = ["PATH=/usr/local/bin:/usr/bin:/bin", "LANG=C", "PROTO=TCP"]
        spawn.directory = "/"
        spawn.descriptors = [nil, nil, .error, input]
        let pid = try spawn.start()
        // Less than a pipe holds, so this waits for nobody; and if the program is gone, its status says why.
        try? output.write(user + [0] + password + [0] + Array("Y\(WallClock.now().seconds)".utf8) + [0])
        output.close()
        isOutputOpen = false
        return Self.verdict(Self.end(of: pid), words.first ?? "")
    }

    private static func end(of pid: Int32) -> ChildProcess.End? {
        if let watch = try? ChildProcess.watch(pid) {
            defer { watch.close() }
            var watched = pollfd(fd: watch.number, events: Int16(POLLIN), revents: 0)
            while poll(&watched, 1, Self.patience) < 0, errno == EINTR {}
            if watched.revents == 0 {
                ChildProcess.kill(pid)
                _ = ChildProcess.end(of: pid, isWaiting: true)
                return nil
            }
        }
        return ChildProcess.end(of: pid, isWaiting: true)
    }

    private static func verdict(_ end: ChildProcess.End?, _ name: String) -> PasswordVerdict {
        switch end {
        case .exited(0): .right
        case .exited(1): .wrong
        case .exited(let status): .later("\(name) ended with status \(status)")
        case .killed(let signal): .later("\(name) was killed by signal \(signal)")
        case .unknown: .later("\(name) has ended, and how is not known")
        case nil: .later("\(name) took too long")
        }
    }
}
