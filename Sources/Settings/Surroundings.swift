// SPDX-License-Identifier: Apache-2.0

import Glibc
import IDN
import LookupCore
import MailTypes
import MessageCore
import PipeCore
package import Unix

/// Looks whether the machine is as the settings need it: files, directories, addresses, and as root the users.
package struct Surroundings {
    /// Addresses that our own running apusd listens on: these being in use is as it should be.
    private let ownAddresses: Set<SocketAddress>
    /// Whether the question is if Apus can run at all.
    private let isStarting: Bool

    /// - Parameter isStarting: an expired certificate is no mistake then, as mail without it would be worse off.
    package init(ownAddresses: Set<SocketAddress> = [], isStarting: Bool = false) {
        self.ownAddresses = ownAddresses
        self.isStarting = isStarting
    }

    /// Everything that would keep Apus from running with these settings here.
    package func remarks(on settings: Settings) -> [Remark] {
        var remarks: [Remark] = []
        self.checkState(settings, &remarks)
        self.checkFiles(settings, &remarks)
        self.checkTemplates(settings, &remarks)
        self.checkSecret(settings, &remarks)
        for certificate in settings.certificates {
            remarks += certificate.remarks(file: settings.file, now: WallClock.now(), isStarting: self.isStarting)
        }
        self.checkUsers(settings, &remarks)
        self.checkAliasUser(settings, &remarks)
        self.checkSystemAccounts(settings, &remarks)
        self.checkPostmaster(settings, &remarks)
        self.checkAddresses(settings, &remarks)
        return remarks.sorted {
            ($0.file == settings.file ? 0 : 1, $0.line) < ($1.file == settings.file ? 0 : 1, $1.line)
        }
    }

    // MARK: Directories and files

    private func checkState(_ settings: Settings, _ remarks: inout [Remark]) {
        let path = settings.stateDirectory
        func add(_ text: String, _ hint: String) {
            remarks.append(Remark(file: settings.file, line: settings.stateLine, text, hint: hint))
        }
        // The longer one of the names of the two sockets there.
        let socketOctetCount = path.utf8.count + "/control".utf8.count
        if socketOctetCount > UnixSocket.pathOctetCountMax {
            add(
                "state: the path of the socket \(path)/control has \(socketOctetCount) octets, and can have "
                    + "\(UnixSocket.pathOctetCountMax)", "name a directory with a shorter path")
        }
        var status = stat()
        if stat(path, &status) == 0 {
            if status.st_mode & S_IFMT != S_IFDIR {
                add("state: \(path) is not a directory", "name a directory")
            } else if access(path, W_OK | X_OK) != 0, errno != EACCES || geteuid() == status.st_uid {
                add("state: \(path) cannot be written: \(SystemError("access").text)", "")
            }
            return
        }
        guard errno == ENOENT else { return add("state: \(SystemError("stat", path).text)", "") }
        let parent = Self.parent(of: path)
        guard stat(parent, &status) == 0, status.st_mode & S_IFMT == S_IFDIR else {
            return add("state: \(path) is not there and neither is \(parent)", "make it: mkdir -p \(parent)")
        }
    }

    /// Whether a file that this user may not read can be in order: root, who will start Apus, may read it.
    private func isUnknown(_ error: SystemError) -> Bool {
        error.code == EACCES && !self.isStarting && !Privileges.isRoot
    }

    static func parent(of path: String) -> String {
        let parts = path.split(separator: "/").dropLast()
        return "/" + parts.joined(separator: "/")
    }

    private func checkFiles(_ settings: Settings, _ remarks: inout [Remark]) {
        for (program, words) in settings.replacements.sorted(by: { $0.key.rawValue < $1.key.rawValue }) {
            guard let path = words.first, access(path, X_OK) != 0 else { continue }
            let text = "in the place of \(program.rawValue): \(SystemError("execute", path).text)"
            remarks.append(Remark(file: settings.file, line: 0, text))
        }
        for file in settings.files {
            var status = stat()
            let problem: SystemError?
            do throws(SystemError) {
                try Descriptor.open(file.path, O_RDONLY).close()
                problem = nil
            } catch { problem = error }
            if let problem {
                // What only apus-vault may read, whoever checks the settings of a server that root starts may not.
                let isUnknown = file.program == .vault && self.isUnknown(problem)
                let hint = problem.code == ENOENT ? "make it, or leave the key out" : isUnknown ? "root can tell" : ""
                remarks.append(
                    Remark(
                        isUnknown ? .advice : .mistake, file: settings.file, line: file.line, problem.text, hint: hint))
            } else if stat(file.path, &status) == 0, status.st_mode & S_IFMT != S_IFREG {
                remarks.append(Remark(file: settings.file, line: file.line, "\(file.path) is not a file"))
            } else if let remark = self.unreadable(file.path, status, by: file.program, settings.file, file.line) {
                remarks.append(remark)
            } else if file.program == .vault, status.st_mode & 0o007 != 0 {
                remarks.append(
                    Remark(
                        file: settings.file, line: file.line, "\(file.path) can be read or changed by every user",
                        hint: "chmod o= \(file.path)"))
            } else {
                self.checkContent(file, &remarks)
            }
        }
    }

    /// Mail for an entry that cannot be understood waits, so these keep nothing from starting.
    private func checkContent(_ file: Settings.File, _ remarks: inout [Remark]) {
        func add(_ path: String, _ line: Int, _ text: String) {
            remarks.append(Remark(.advice, file: path, line: line, text))
        }
        switch file.form {
        case .aliases(let terms):
            let octets = try? Descriptor.readFile(file.path, octetCountMax: AliasFile.octetCountMax)
            guard let octets else { return }
            let aliases = AliasFile(octets: octets, terms, domains: .idna2008)
            for fault in aliases.faults { add(file.path, fault.line, fault.text) }
            for entry in aliases.entries.values.sorted(by: { $0.line < $1.line }) {
                for case .list(let path) in entry.targets {
                    do throws(SystemError) {
                        let list = AliasList(
                            octets: try Descriptor.readRegularFile(path, octetCountMax: AliasList.octetCountMax),
                            domains: .idna2008)
                        for fault in list.faults { add(path, fault.line, fault.text) }
                    } catch { add(file.path, entry.line, error.text) }
                }
            }
        case .table(let place):
            let octets = try? Descriptor.readFile(file.path, octetCountMax: TextTable.octetCountMax)
            let faults: [LineFault] =
                switch place {
                case .text: octets.map { TextTable(octets: $0, domains: .idna2008).faults } ?? []
                case .regexp: octets.map { RegexpTable(octets: $0).faults } ?? []
                case .prefix: octets.map { PrefixTable(octets: $0).faults } ?? []
                case .lmdb, .socketmap: []
                }
            for fault in faults { add(file.path, fault.line, fault.text) }
        case .other: break
        }
    }

    /// A report in no language can be sent to nobody.
    private func checkTemplates(_ settings: Settings, _ remarks: inout [Remark]) {
        var templates: [ReportTemplate] = []
        for (path, line) in settings.templates {
            let octets: [UInt8]
            do throws(SystemError) {
                octets = try Descriptor.readFile(path, octetCountMax: Settings.templateOctetCountMax)
            } catch {
                remarks.append(Remark(file: settings.file, line: line, "bounce.templates: \(error.text)"))
                continue
            }
            do throws(ReportTemplate.Fault) { templates.append(try ReportTemplate(octets: octets)) } catch {
                remarks.append(Remark(file: path, line: error.line, error.text))
            }
        }
        guard templates.count == settings.templates.count else { return }
        let languages = ReportLanguages(templates: templates)
        for (tag, line) in settings.languages where !languages.has(Array(tag.utf8)) {
            remarks.append(
                Remark(
                    file: settings.file, line: line, "there is no template of the language \"\(tag)\"",
                    hint: "name its file in bounce.templates"))
        }
    }

    /// Without a secret, senders that are to be rewritten cannot be.
    private func checkSecret(_ settings: Settings, _ remarks: inout [Remark]) {
        guard let rewriting = settings.rewriting else { return }
        guard let file = settings.secretFile else {
            remarks.append(
                Remark(
                    file: settings.file, line: rewriting.line, "forwarding.srs-domain needs a secret",
                    hint: "srs-secret = \"/etc/apus/srs-secret\", made by: openssl rand -hex 32"))
            return
        }
        do throws(SystemError) {
            let octets = try Descriptor.readFile(file.path, octetCountMax: Settings.secretFileOctetCountMax)
            var status = stat()
            if Settings.secret(octets) == nil {
                remarks.append(
                    Remark(
                        file: file.path, line: 1, "has no secret of 16 printable characters or more",
                        hint: "openssl rand -hex 32 >\(file.path)"))
            } else if stat(file.path, &status) == 0, status.st_mode & 0o007 != 0 {
                remarks.append(
                    Remark(
                        .advice, file: settings.file, line: file.line, "\(file.path) can be read by every user",
                        hint: "chmod 600 \(file.path)"))
            }
        } catch {
            let isUnknown = self.isUnknown(error)
            remarks.append(
                Remark(
                    isUnknown ? .advice : .mistake, file: settings.file, line: file.line, error.text,
                    hint: isUnknown ? "root can tell" : ""))
        }
    }

    private func checkUsers(_ settings: Settings, _ remarks: inout [Remark]) {
        guard Privileges.isRoot else { return }
        if let owner = settings.table(for: .lookup).text("virtual-owner") {
            var isThere = true
            do throws(SystemError) { isThere = try UserAccount.named(owner).map { $0.uid != 0 } ?? false } catch {}
            if !isThere {
                remarks.append(
                    Remark(
                        .advice, file: settings.file, line: 0,
                        "virtual.owner: there is no user \(owner), or it is root",
                        hint: "mail for virtual users waits until there is: useradd -r -m \(owner)"))
            }
        }
        let programs: [ProgramName] = [.smtpd, .lookup, .vault, .queue, .remote, .bounce]
        let missing = programs.map(\.rawValue).filter { name in
            // A database that cannot be asked is no reason to say that somebody is missing.
            do { return try UserAccount.named(name) == nil } catch { return false }
        }
        guard !missing.isEmpty else { return }
        remarks.append(
            Remark(
                .advice, file: settings.file, line: 0, "there is no user \(missing.joined(separator: ", "))",
                hint: "apusd needs them when root starts it; run etc/accounts"))
    }

    /// As root everything can be read, but the program that reads it is not root.
    private func unreadable(
        _ path: String, _ status: stat, by program: ProgramName, _ file: String, _ line: Int
    ) -> Remark? {
        guard Privileges.isRoot, let account = try? UserAccount.named(program.rawValue) else { return nil }
        if let directory = Self.closedDirectory(above: path, account) {
            // It may be open to the program by a list of access rights.
            return Remark(
                .advice, file: file, line: line,
                "\(path) cannot be read by the user \(account.name): the directory \(directory) is closed to it",
                hint: "chgrp \(account.name) \(directory); chmod g+x \(directory)")
        }
        guard !Self.canRead(status, account) else { return nil }
        return Remark(
            file: file, line: line, "\(path) cannot be read by the user \(account.name)",
            hint: "chgrp \(account.name) \(path); chmod g+r \(path)")
    }

    /// The first directory on the way to a file through which a user cannot go.
    static func closedDirectory(above path: String, _ account: UserAccount) -> String? {
        var directory = ""
        for name in path.split(separator: "/").dropLast() {
            directory += "/\(name)"
            var status = stat()
            guard stat(directory, &status) == 0 else { return nil }
            guard Self.allows(status, account, (S_IXUSR, S_IXGRP, S_IXOTH)) else { return directory }
        }
        return nil
    }

    /// Whether the bits of a file's mode allow a user to read it.
    static func canRead(_ status: stat, _ account: UserAccount) -> Bool {
        Self.allows(status, account, (S_IRUSR, S_IRGRP, S_IROTH))
    }

    /// Whether the bit is set that counts for a user: the owner's, the group's or that of others.
    private static func allows(
        _ status: stat, _ account: UserAccount, _ bits: (owner: mode_t, group: mode_t, other: mode_t)
    ) -> Bool {
        let bit =
            status.st_uid == account.uid
            ? bits.owner : account.groups.contains(status.st_gid) ? bits.group : bits.other
        return status.st_mode & bit != 0
    }

    // MARK: Addresses

    private func checkAddresses(_ settings: Settings, _ remarks: inout [Remark]) {
        let all = settings.listenAddresses.map(\.address)
        for listen in settings.listenAddresses {
            if let text = ListeningSocket.obstacle(to: listen.address, among: all, own: self.ownAddresses) {
                // Who checks before he restarts has made no mistake; a reload cannot take it.
                remarks.append(
                    Remark(
                        self.isStarting ? .mistake : .advice, file: settings.file, line: listen.line,
                        "listen.address: \(text)", hint: "a reload cannot do it, restart apusd"))
                continue
            }
            guard !self.ownAddresses.contains(listen.address) else { continue }
            do throws(SystemError) {
                try ListeningSocket.tryOut(listen.address, among: all)
            } catch {
                // Somebody who checks the settings of a server that root will start cannot tell.
                if error.code == EACCES || error.code == EPERM { continue }
                remarks.append(Self.remark(error, listen, file: settings.file))
            }
        }
    }

    /// Why an address cannot be listened on, in the words of the administrator.
    package static func remark(_ error: SystemError, _ listen: Settings.ListenAddress, file: String) -> Remark {
        let hint =
            switch error.code {
            case EADDRINUSE:
                "ss -ltnp 'sport = :\(listen.address.port)' shows by which program"
            case EADDRNOTAVAIL: "no interface of this machine has the address; ip address shows them"
            case EACCES, EPERM: "ports below 1024 are for root alone; start apusd as root"
            case EAFNOSUPPORT: "this machine has no IPv6"
            default: ""
            }
        var remark = Remark(file: file, line: listen.line, "listen.address: \(error.text)", hint: hint)
        remark.isPassing = error.code == EADDRINUSE || error.code == EADDRNOTAVAIL
        return remark
    }
}
