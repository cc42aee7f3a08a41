// SPDX-License-Identifier: Apache-2.0

import CUnix
import Glibc

/// A process to be started.
package struct Spawn {
    /// The executable; `arguments[0]` is its name.
    package var path: String
    package var arguments: [String]
    /// The whole environment, `NAME=value`.
    package var environment: [String] = []
    package var directory: String?
    /// `descriptors[i]` becomes descriptor i; nil is /dev/null. At least three; every other one is closed.
    package var descriptors: [Descriptor?] = [nil, nil, .error]
    /// Become this user with all his groups before the executable starts; needs root.
    package var account: UserAccount?
    package var umask: UInt32 = 0o077
    /// Whether it leads a session and a process group of its own, which `ChildProcess.killGroup` ends as a whole.
    package var isOwnSession = false
    /// Whether it is killed when the thread that starts it ends.
    package var diesWithParent = false
    package var limits = ResourceLimits()

    package init(path: String, arguments: [String]) {
        self.path = path
        self.arguments = arguments
    }

    /// Starts it; a failure to execute the file is thrown here too.
    package func start() throws(SystemError) -> Int32 {
        var result: Int32 = 0
        let descriptors = self.descriptors.map { $0?.number ?? -1 }
        let groups = self.account?.groups ?? []
        let limits = self.limits.list
        withCStrings(self.arguments) { arguments in
            withCStrings(self.environment) { environment in
                descriptors.withUnsafeBufferPointer { descriptors in
                    groups.withUnsafeBufferPointer { groups in
                        limits.withUnsafeBufferPointer { limits in
                            withCStrings([self.path, self.directory ?? ""]) { paths in
                                var what = apus_process()
                                what.path = UnsafePointer(paths[0])
                                what.argv = arguments
                                what.envp = environment
                                what.directory = self.directory == nil ? nil : UnsafePointer(paths[1])
                                what.descriptors = descriptors.baseAddress
                                what.descriptor_count = descriptors.count
                                what.changes_user = self.account == nil ? 0 : 1
                                what.uid = self.account?.uid ?? 0
                                what.gid = self.account?.gid ?? 0
                                what.groups = groups.baseAddress
                                what.group_count = groups.count
                                what.is_own_session = self.isOwnSession ? 1 : 0
                                what.dies_with_parent = self.diesWithParent ? 1 : 0
                                what.limits = limits.baseAddress
                                what.limit_count = limits.count
                                result = apus_spawn(&what, CInt(self.umask))
                            }
                        }
                    }
                }
            }
        }
        return try SystemError.check(result, "start", self.path)
    }
}

/// What a process and its children may use (setrlimit(2)); nil: as much as we may ourselves.
package struct ResourceLimits: Hashable, Sendable {
    /// Seconds of the processor, of each process.
    package var processorSeconds: UInt64?
    /// Octets of memory, of each process.
    package var memoryOctetCount: UInt64?
    /// Processes of the same user, all of them counted.
    package var processCount: UInt64?
    /// Octets of each file that is written.
    package var fileOctetCount: UInt64?

    package init() {}

    fileprivate var list: [apus_limit] {
        let pairs: [(CInt, UInt64?)] = [
            (CInt(RLIMIT_CPU.rawValue), self.processorSeconds), (CInt(RLIMIT_AS.rawValue), self.memoryOctetCount),
            (apus_limit_of_processes, self.processCount), (CInt(RLIMIT_FSIZE.rawValue), self.fileOctetCount),
            (CInt(RLIMIT_CORE.rawValue), 0),
        ]
        return pairs.compactMap { resource, value in
            value.map { apus_limit(resource: resource, value: $0) }
        }
    }
}

/// Calls `body` with a NULL-terminated vector of C strings.
private func withCStrings(_ strings: [String], _ body: (UnsafePointer<UnsafeMutablePointer<CChar>?>) -> Void) {
    // Safety: strdup's copies live until after `body`; a nil of an exhausted heap ends the vector early.
    var vector: [UnsafeMutablePointer<CChar>?] = strings.map { strdup($0) }
    vector.append(nil)
    vector.withUnsafeBufferPointer { buffer in
        if let base = buffer.baseAddress { body(base) }
    }
    for string in vector { free(string) }
}
