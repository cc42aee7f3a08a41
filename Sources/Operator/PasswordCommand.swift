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
        do throws(SystemError) {
            try self.change(user, path)
        } catch {
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
    private func change(_ user: [UInt8], _ path: String) throws(SystemError) {
        let parts = path.split(separator: "/", omittingEmptySubsequences: false)
        let name = String(parts.last ?? "")
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
            throw SystemError("there is no user \(self.user) in", path, code: ENOENT)
        }
        try Self.write(after, name, directory, exists ? status : nil)
        Terminal.write("\(path): \(self.delete ? "deleted" : "set the password of") \(self.user)\n")
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

    private func readHash(_ before: [UInt8]) throws(SystemError) -> [UInt8] {
        let octets = try self.stdin ? Self.readLine() : self.ask()
        guard let password = CredentialText.password(octets) else {
            throw SystemError(
                "a password has 1 to \(SASLLimits.passwordOctetCountMax) octets of text without control characters",
                code: EINVAL)
        }
        let cryptography = Cryptography()
        // Whoever has chosen SCRAM for all others wants it for this one too: with one that cannot, it is not offered.
        let isSCRAM = self.scheme == nil && PasswordFile(octets: before).hasOnlySCRAM
        let schemes = isSCRAM ? [.scramSHA256] : self.scheme.map { [$0] } ?? [.yescrypt, .sha512]
        for scheme in schemes { if let entry = cryptography.entry(password, scheme) { return entry } }
        throw SystemError("crypt(3) of this system has no such scheme", code: ENOSYS)
    }

    private static func readLine() throws(SystemError) -> [UInt8] {
        let octets = try Descriptor.input.readAll(octetCountMax: 65_536)
        return Array(octets.prefix { $0 != ASCII.lineFeed })
    }

    private func ask() throws(SystemError) -> [UInt8] {
        guard isatty(STDIN_FILENO) == 1 else {
            throw SystemError("there is no terminal to ask at; use --stdin", code: ENOTTY)
        }
        var terminal = termios()
        guard tcgetattr(STDIN_FILENO, &terminal) == 0 else { throw SystemError("tcgetattr") }
        var silent = terminal
        silent.c_lflag &= ~tcflag_t(ECHO)
        tcsetattr(STDIN_FILENO, TCSAFLUSH, &silent)
        defer { tcsetattr(STDIN_FILENO, TCSAFLUSH, &terminal) }
        let first = try Self.answer("New password for \(self.user): ")
        let second = try Self.answer("Once more: ")
        guard first == second else { throw SystemError("the two are not the same", code: EINVAL) }
        return first
    }

    private static func answer(_ question: String) throws(SystemError) -> [UInt8] {
        try? Descriptor.error.write(Array(question.utf8))
        defer { try? Descriptor.error.write([ASCII.lineFeed]) }
        // A terminal gives a line at a time.
        return try Descriptor.input.read(upTo: 4_096).prefix { $0 != ASCII.lineFeed }.map { $0 }
    }
}
