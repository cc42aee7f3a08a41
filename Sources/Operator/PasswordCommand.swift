// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import Cryptography
import Glibc
import MailTypes
import PipeCore
import SASLCore
import Settings
import Unix

extension Cryptography.Scheme: ExpressibleByArgument {}

/// `apus passwd`: makes and changes the entries of the password file.
struct PasswordCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "passwd", abstract: "Makes, changes or deletes the password of a user.",
        discussion:
            "The file is auth.passwords of the settings, or the one that is named. A new file belongs to root and the "
            + "group apus-vault if root makes it. apus-vault notices the change by itself.")

    @OptionGroup var common: CommonOptions
    @Argument(help: "The user, as he names himself to the server.") var user: String
    @Option(help: "The password file.") var file: String?
    @Option(help: "How the password is kept: yescrypt, sha512, bcrypt or scram-sha-256.") var scheme:
        Cryptography.Scheme?
    @Flag(help: "Read the password from standard input, one line, instead of asking for it.") var stdin = false
    @Flag(help: "Delete the user.") var delete = false

    func run() throws {
        guard let user = CredentialText.user(Array(self.user.utf8)) else {
            throw Terminal.exit("\"\(self.user)\" cannot be the name of a user", .usage)
        }
        let path = try self.path()
        do {
            try self.change(user, path)
        } catch let error as SystemError {
            throw Terminal.exit(error.text, error.code == EACCES ? .noPermission : .system)
        }
    }

    private func path() throws -> String {
        if let file = self.file { return file }
        guard let settings = Settings.readAnyway(file: self.common.config) else {
            throw Terminal.exit("\(self.common.config) cannot be read; name the file with --file", .configuration)
        }
        guard let path = settings.table(for: .vault).text("passwords") else {
            throw Terminal.exit("auth.passwords is not set in \(self.common.config)", .configuration)
        }
        return path
    }

    /// Reads, changes and writes the file, alone: a second command waits for the lock.
    ///
    /// - Throws: a `SystemError`, or an `ExitCode` of what has been told already.
    private func change(_ user: [UInt8], _ name: String) throws {
        let path = try Self.target(name)
        let parts = path.split(separator: "/", omittingEmptySubsequences: false)
        let folder = parts.count > 1 ? parts.dropLast().joined(separator: "/") + "/" : "."
        let directory = try Descriptor.open(folder, O_RDONLY | O_DIRECTORY)
        defer { directory.close() }
        guard flock(directory.number, LOCK_EX) == 0 else { throw SystemError("lock", folder) }

        var status = stat()
        let exists = stat(path, &status) == 0
        guard exists || errno == ENOENT else { throw SystemError("stat", path) }
        let before = exists ? try Descriptor.readFile(path, octetCountMax: PasswordFile.octetCountMax) : []
        let hash = self.delete ? nil : try self.readHash(before)
        guard let after = PasswordFile.text(before, settingPasswordOf: user, to: hash) else {
            throw Terminal.exit("there is no user \(self.user) in \(name)", .badInput)
        }
        try Self.write(after, String(parts.last ?? ""), directory, exists ? status : nil)
        Terminal.write("\(name): \(self.delete ? "deleted" : "set the password of") \(self.user)\n")
    }

    /// The file itself, if a symbolic link leads to it: a file in the place of the link would leave the other as it was.
    private static func target(_ path: String) throws(SystemError) -> String {
        var status = stat()
        guard lstat(path, &status) == 0, status.st_mode & S_IFMT == S_IFLNK else { return path }
        guard let resolved = realpath(path, nil) else { throw SystemError("resolve", path) }
        defer { free(resolved) }
        return String(cString: resolved)
    }

    /// Under another name first: whoever reads the file sees the old or the new one.
    private static func write(
        _ octets: [UInt8], _ name: String, _ directory: Descriptor, _ old: stat?
    ) throws(SystemError) {
        let temporary = ".\(name).new"
        try directory.unlink(temporary)
        let file = try directory.open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, mode: 0o600)
        do throws(SystemError) {
            var owner = geteuid()
            var group = getegid()
            var mode: mode_t = 0o600
            if let old {
                (owner, group, mode) = (old.st_uid, old.st_gid, old.st_mode & 0o777)
            } else if Privileges.isRoot, let vault = try UserAccount.named("apus-vault") {
                (group, mode) = (vault.gid, 0o640)
            }
            if owner != geteuid() || group != getegid() {
                guard fchown(file.number, owner, group) == 0 else { throw SystemError("chown", temporary) }
            }
            guard fchmod(file.number, mode) == 0 else { throw SystemError("chmod", temporary) }
            try file.write(octets)
            try file.sync()
            try directory.rename(temporary, name)
            try directory.sync()
            file.close()
        } catch {
            file.close()
            _ = try? directory.unlink(temporary)
            throw error
        }
    }

    // MARK: The password

    private func readHash(_ before: [UInt8]) throws -> [UInt8] {
        let octets = try self.stdin ? Self.readLine() : self.ask()
        guard let password = CredentialText.password(octets) else {
            throw Terminal.exit(
                "a password has 1 to \(SASLLimits.passwordOctetCountMax) octets of text without control characters",
                .badInput)
        }
        let cryptography = Cryptography()
        // Whoever has chosen SCRAM for all others wants it for this one too: with one that cannot, it is not offered.
        let isSCRAM = self.scheme == nil && PasswordFile(octets: before).hasOnlySCRAM
        let schemes = isSCRAM ? [.scramSHA256] : self.scheme.map { [$0] } ?? [.yescrypt, .sha512]
        guard schemes == [.scramSHA256] || password.count <= SASLLimits.cryptPasswordOctetCountMax else {
            throw Terminal.exit(
                "crypt(3) takes at most \(SASLLimits.cryptPasswordOctetCountMax) octets, and --scheme scram-sha-256 "
                    + "\(SASLLimits.passwordOctetCountMax)", .badInput)
        }
        for scheme in schemes { if let entry = cryptography.entry(password, scheme) { return entry } }
        throw Terminal.exit("crypt(3) of this system has no such scheme", .usage)
    }

    private static func readLine() throws(SystemError) -> [UInt8] {
        let octets = try Descriptor.input.readAll(octetCountMax: 65_536)
        return Array(octets.prefix { $0 != ASCII.lineFeed })
    }

    private func ask() throws -> [UInt8] {
        guard SecretPrompt.isPossible else {
            throw Terminal.exit("there is no terminal to ask at; use --stdin", .usage)
        }
        let answers = try SecretPrompt.answers(to: ["New password for \(self.user): ", "Once more: "])
        guard let first = answers.first, answers.allSatisfy({ $0 == first }) else {
            throw Terminal.exit("the two are not the same", .badInput)
        }
        return first
    }
}
