// SPDX-License-Identifier: Apache-2.0

import CUnix
import Glibc
import Settings
import Unix

/// What apusd needs on the machine before it can start anything: executables, users, directories, the lock.
struct Installation {
    /// Why there is no starting.
    struct Fault: Error {
        let text: String
        let status: ExitStatus

        init(_ text: String, _ status: ExitStatus = .configuration) {
            self.text = text
            self.status = status
        }
    }

    /// Where apusd itself is, and the programs beside it.
    let executableDirectory: String
    let stateDirectory: String
    /// Whether every program gets its own user. Otherwise all run as the one that apusd runs as.
    let hasOwnUsers: Bool
    /// The name of that one user, if it has a name.
    let singleUser: String?
    /// For apus-vault; see there.
    private(set) var decoyKey: String?
    /// Held as long as this process lives: one apusd for one state directory.
    let lock: Descriptor

    var queueDirectory: String { "\(self.stateDirectory)/queue" }
    /// An empty directory, the root of apus-smtpd.
    var emptyDirectory: String { "\(self.stateDirectory)/empty" }
    var controlSocketPath: String { "\(self.stateDirectory)/control" }
    /// Where the programs of this machine hand in mail.
    var submitSocketPath: String { "\(self.stateDirectory)/submit" }

    func executable(_ program: ProgramName) -> String { "\(self.executableDirectory)/\(program.rawValue)" }

    /// The programs with a user of their own; apus-local is root itself, and becomes each recipient.
    private static let ownUsers: [ProgramName] = [.smtpd, .lookup, .vault, .queue, .remote, .bounce]

    /// Looks and makes; throws what is missing.
    init(_ settings: Settings) throws(Fault) {
        self.hasOwnUsers = Privileges.isRoot
        self.singleUser = self.hasOwnUsers ? nil : Self.nameOfUser()
        self.stateDirectory = settings.stateDirectory
        self.executableDirectory = try Self.directoryOfExecutable()
        for program in ProgramName.allCases where settings.replacements[program] == nil {
            let path = "\(self.executableDirectory)/\(program.rawValue)"
            guard access(path, X_OK) == 0 else {
                throw Fault("\(path) is not there or cannot be executed", .unavailable)
            }
        }
        var queueUser: UserAccount?
        if self.hasOwnUsers { queueUser = try Self.accounts(settings) }
        do throws(SystemError) {
            try Self.makeDirectory(self.stateDirectory, mode: 0o755, owner: nil)
            self.lock = try Descriptor.open("\(self.stateDirectory)/lock", O_RDWR | O_CREAT, mode: 0o600)
        } catch { throw Fault(error.text, .system) }
        guard flock(self.lock.number, LOCK_EX | LOCK_NB) == 0 else {
            throw Fault("another apusd is running with the state directory \(self.stateDirectory)", .temporary)
        }
        do throws(SystemError) {
            try Self.makeDirectory(self.queueDirectory, mode: 0o700, owner: queueUser)
            try Self.makeDirectory(self.emptyDirectory, mode: 0o755, owner: nil)
        } catch { throw Fault(error.text, .system) }
        self.decoyKey = DecoyKey.find(in: self.stateDirectory)
        try Self.checkQueueFiles(in: self.queueDirectory, queueUser)
    }

    /// A queue that another user has made, for instance before root started Apus for the first time, cannot be opened
    /// by apus-queue; said here once, instead of by each of its starts.
    private static func checkQueueFiles(in directory: String, _ account: UserAccount?) throws(Fault) {
        guard let account else { return }
        for name in ["format", "data.mdb", "lock.mdb"] {
            let path = "\(directory)/\(name)"
            var status = stat()
            guard lstat(path, &status) == 0, status.st_uid != account.uid else { continue }
            throw Fault(
                "\(path) does not belong to the user \(account.name); chown -R \(account.name): \(directory)",
                .configuration)
        }
    }

    private static func directoryOfExecutable() throws(Fault) -> String {
        do throws(SystemError) { return try ThisProcess.directoryOfExecutable() } catch {
            throw Fault(error.text, .system)
        }
    }

    private static func nameOfUser() -> String? {
        guard let entry = getpwuid(geteuid()), let name = entry.pointee.pw_name else { return nil }
        return String(cString: name)
    }

    /// The user of the queue; throws if one of the users is missing.
    private static func accounts(_ settings: Settings) throws(Fault) -> UserAccount? {
        var missing: [String] = []
        var queueUser: UserAccount?
        let foreign = Set(settings.replacements.keys)
        do throws(SystemError) {
            for program in Self.ownUsers + (foreign.contains(.local) ? [.local] : []) {
                let account = try UserAccount.named(program.rawValue)
                if account == nil { missing.append(program.rawValue) }
                if program == .queue { queueUser = account }
            }
        } catch { throw Fault(error.text, .system) }
        guard missing.isEmpty else {
            throw Fault(
                "started as root, but there is no user \(missing.joined(separator: ", ")); run etc/accounts to make them",
                .configuration)
        }
        return queueUser
    }

    /// Makes a directory, or gives the one that is there its mode and its owner.
    private static func makeDirectory(_ path: String, mode: mode_t, owner: UserAccount?) throws(SystemError) {
        guard mkdir(path, mode) == 0 || errno == EEXIST else { throw SystemError("mkdir", path) }
        let directory = try Descriptor.open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW)
        defer { directory.close() }
        var status = stat()
        guard fstat(directory.number, &status) == 0 else { throw SystemError("stat", path) }
        if let owner, status.st_uid != owner.uid || status.st_gid != owner.gid {
            guard fchown(directory.number, owner.uid, owner.gid) == 0 else { throw SystemError("chown", path) }
        }
        guard status.st_uid == geteuid() || geteuid() == 0 else { return }
        if status.st_mode & 0o7777 != mode, owner != nil || mode == 0o700 {
            guard fchmod(directory.number, mode) == 0 else { throw SystemError("chmod", path) }
        }
    }
}
