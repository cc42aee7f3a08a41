// SPDX-License-Identifier: Apache-2.0

package import Glibc

/// A system user as the password database has it.
package struct UserAccount: Equatable, Sendable {
    package let name: String
    package let uid: uid_t
    package let gid: gid_t
    package let home: String
    /// All groups of the user, the first one included.
    package let groups: [gid_t]

    /// Looks a user up; nil if there is none, a throw if the database could not be asked.
    package static func named(_ name: String) throws(SystemError) -> UserAccount? {
        var capacity = 4_096
        while true {
            var entry = passwd()
            var found: UnsafeMutablePointer<passwd>?
            // Safety: the strings of the entry live in this buffer, which outlives their copying.
            let buffer = UnsafeMutablePointer<CChar>.allocate(capacity: capacity)
            defer { buffer.deallocate() }
            let code = getpwnam_r(name, &entry, buffer, capacity, &found)
            let account = code == 0 && found != nil ? UserAccount(entry) : nil
            switch code {
            case 0: return account
            case EINTR: continue
            case ERANGE where capacity < 1 << 20: capacity *= 4
            // Why no other code means "not found", as getpwnam(3) would have it: with glibc that is 0 without an entry. A
            // code is what the last service of nsswitch.conf left that could not be asked: of LDAP that is down, ENOENT.
            default: throw SystemError("getpwnam", name, code: code)
            }
        }
    }

    private init?(_ entry: passwd) {
        guard let name = entry.pw_name, let home = entry.pw_dir else { return nil }
        self.name = String(cString: name)
        self.uid = entry.pw_uid
        self.gid = entry.pw_gid
        self.home = String(cString: home)
        var count: CInt = 256
        var groups = [gid_t](repeating: entry.pw_gid, count: Int(count))
        var found = getgrouplist(name, entry.pw_gid, &groups, &count)
        if found < 0, count > groups.count {
            // It has said how many there are.
            groups = [gid_t](repeating: entry.pw_gid, count: Int(count))
            found = getgrouplist(name, entry.pw_gid, &groups, &count)
        }
        self.groups = found >= 0 ? Array(groups.prefix(Int(count))) : [entry.pw_gid]
    }
}

/// Giving up root for good.
package enum Privileges {
    package static var isRoot: Bool { geteuid() == 0 }

    /// Becomes `user`, after changing the root directory if one is given.
    ///
    /// First thing in `main`, before any thread. The supplementary groups become the user's primary group alone, or all of
    /// the user's with `keepsGroups`.
    package static func drop(
        to user: String, rootDirectory: String? = nil, keepsGroups: Bool = false
    ) throws(SystemError) {
        guard let account = try UserAccount.named(user) else { throw SystemError("no such user", user, code: ENOENT) }
        guard account.uid != 0 else { throw SystemError("refusing to run as", user, code: EPERM) }
        if let rootDirectory {
            guard chdir(rootDirectory) == 0 else { throw SystemError("chdir", rootDirectory) }
            guard chroot(".") == 0 else { throw SystemError("chroot", rootDirectory) }
        }
        let groups = keepsGroups ? account.groups : [account.gid]
        guard setgroups(groups.count, groups) == 0 else { throw SystemError("setgroups", user) }
        guard setgid(account.gid) == 0 else { throw SystemError("setgid", user) }
        guard setuid(account.uid) == 0 else { throw SystemError("setuid", user) }
        guard setuid(0) != 0, geteuid() == account.uid, getuid() == account.uid else {
            throw SystemError("setuid could be undone", user, code: EPERM)
        }
    }
}
