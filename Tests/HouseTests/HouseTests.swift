// SPDX-License-Identifier: Apache-2.0
//
// The rules of the house, held against the sources. A rule that needs an exception has it here, with its reason.

import Foundation
import Testing

/// The tree as text.
enum Tree {
    static let root = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent()

    static func files(_ folder: String, _ suffix: String) -> [URL] {
        let base = self.root.appending(path: folder)
        let found = FileManager.default.enumerator(at: base, includingPropertiesForKeys: nil)
        return (found?.compactMap { $0 as? URL } ?? []).filter { $0.path().hasSuffix(suffix) }.sorted {
            $0.path() < $1.path()
        }
    }

    static func lines(_ file: URL) -> [String] {
        ((try? String(contentsOf: file, encoding: .utf8)) ?? "").components(separatedBy: "\n")
    }

    static func name(_ file: URL) -> String {
        String(file.path().dropFirst(self.root.path().count)).trimmingCharacters(in: CharacterSet(charactersIn: "/"))
    }

    /// The code of a line, without its comment.
    static func code(_ line: String) -> String {
        let text = line.trimmingCharacters(in: .whitespaces)
        if text.hasPrefix("//") { return "" }
        return text.range(of: " // ").map { String(text[..<$0.lowerBound]) } ?? text
    }
}

/// DESIGN's floors: what each target under Sources/ may import, besides the standard library.
private let importTable: [String: Set<String>] = {
    let nio: Set<String> = ["NIOCore", "NIOPosix"]
    var table: [String: Set<String>] = [
        // Floors 1 and 2: values and cores.
        "MailTypes": [],
        "SMTPCore": ["MailTypes"],
        "MessageCore": ["MailTypes"],
        "DNSCore": ["MailTypes"],
        "PipeCore": ["MailTypes"],
        "QueueCore": ["MailTypes"],
        "LookupCore": ["MailTypes"],
        "SASLCore": ["MailTypes"],
        "TOML": ["MailTypes"],
        "Simulation": ["MailTypes", "QueueCore"],
        // Floor 3: hands.
        "Unix": ["CUnix", "Glibc", "Synchronization", "MailTypes", "PipeCore"],
        "TLSEngine": ["COpenSSL", "MailTypes"],
        "Settings": [
            "Glibc", "MailTypes", "MessageCore", "PipeCore", "Unix", "LookupCore", "TOML", "TLSEngine", "IDN",
        ],
        "IDN": ["CIDN", "MailTypes"],
        "LMDB": ["CLMDB", "Glibc", "Synchronization"],
        "Cryptography": ["CCryptography", "MailTypes", "SASLCore", "PipeCore"],
        "ChannelOutlet": nio.union(["Glibc"]),
        // Floor 4: drivers.
        "PipeDrivers": nio.union(["Unix", "MailTypes", "PipeCore", "ChannelOutlet"]),
        "SMTPDrivers": nio.union([
            "Unix", "Glibc", "MailTypes", "SMTPCore", "DNSCore", "TLSEngine", "ChannelOutlet",
        ]),
        "LMDBQueueStore": ["MailTypes", "QueueCore", "LMDB", "Glibc"],
        // Floor 5: programs.
        "Supervisor": ["Glibc", "CUnix", "MailTypes", "PipeCore", "Unix", "Settings", "TLSEngine"],
        "Receiver": nio.union([
            "Glibc", "MailTypes", "SASLCore", "SMTPCore", "MessageCore", "PipeCore", "Unix", "TLSEngine", "IDN",
            "PipeDrivers", "SMTPDrivers",
        ]),
        "QueueManager": nio.union([
            "Glibc", "Synchronization", "MailTypes", "QueueCore", "PipeCore", "Unix", "Cryptography", "PipeDrivers",
            "LMDBQueueStore",
        ]),
        "RemoteSender": nio.union([
            "Glibc", "MailTypes", "SMTPCore", "DNSCore", "PipeCore", "Unix", "TLSEngine", "PipeDrivers", "SMTPDrivers",
        ]),
        "LocalDeliverer": ["Glibc", "CUnix", "MailTypes", "MessageCore", "PipeCore", "LookupCore", "Unix", "IDN"],
        "LocalSubmitter": ["Glibc", "MailTypes", "SMTPCore", "MessageCore", "TOML", "Unix"],
        "Bouncer": ["Glibc", "MailTypes", "MessageCore", "PipeCore", "Unix"],
        "Lookup": nio.union([
            "Glibc", "MailTypes", "PipeCore", "Unix", "LMDB", "IDN", "PipeDrivers", "LookupCore", "Cryptography",
        ]),
        "Vault": nio.union([
            "Glibc", "CUnix", "MailTypes", "SASLCore", "PipeCore", "Unix", "Cryptography", "PipeDrivers",
        ]),
        "Operator": [
            "Glibc", "Synchronization", "MailTypes", "SASLCore", "LookupCore", "PipeCore", "Unix", "Settings", "LMDB",
            "Cryptography", "ArgumentParser", "IDN",
        ],
        // Floor 6: executables.
        "apusd": ["Supervisor"],
        "apus-smtpd": ["Receiver"],
        "apus-queue": ["QueueManager"],
        "apus-remote": ["RemoteSender"],
        "apus-local": ["LocalDeliverer"],
        "apus-bounce": ["Bouncer"],
        "apus-lookup": ["Lookup"],
        "apus-vault": ["Vault"],
        "apus": ["Operator"],
        "sendmail": ["LocalSubmitter"],
        // Not shipped: the world in which the queue is proven.
        "simulate": ["Simulation", "Glibc"],
        // Not shipped: what a fuzzer does with the decoders.
        "FuzzTargets": [
            "MailTypes", "SMTPCore", "MessageCore", "DNSCore", "PipeCore", "QueueCore", "LookupCore", "Settings",
            "LMDBQueueStore", "TLSEngine", "SASLCore", "TOML",
        ],
    ]
    return table
}()

@Suite struct ImportTests {
    @Test("a target imports only what the floors allow it")
    func floors() {
        var targets: Set<String> = []
        for file in Tree.files("Sources", ".swift") {
            let target = Tree.name(file).components(separatedBy: "/")[1]
            targets.insert(target)
            guard let allowed = importTable[target] else {
                Issue.record("\(target) is not in the import table")
                continue
            }
            for line in Tree.lines(file) {
                let words = Tree.code(line).components(separatedBy: " ").filter { $0 != "package" && $0 != "internal" }
                guard words.first == "import", words.count > 1 else { continue }
                #expect(allowed.contains(words[words.count - 1]), "\(Tree.name(file)): \(line)")
            }
        }
        #expect(targets.isSuperset(of: importTable.keys.filter { $0.hasPrefix("apus") }), "a program is missing")
    }

    @Test("an executable is main and nothing else")
    func executables() {
        for target in importTable.keys where target.hasPrefix("apus") {
            let files = Tree.files("Sources/\(target)", ".swift")
            #expect(files.map(\.lastPathComponent) == ["main.swift"])
            for file in files { #expect(Tree.lines(file).count <= 20, "\(Tree.name(file)) is more than main") }
        }
    }
}

@Suite struct SourceTests {
    /// What must not occur in Sources/, and where it may all the same.
    private static let banned: [(pattern: String, why: String, allowed: Set<String>)] = [
        (#"\btry!"#, "a forced try is a crash that the world can cause", []),
        (#"\bas!"#, "a forced cast is a crash", []),
        (#"\bfork\("#, "Swift must not run between fork and exec; CUnix does that", []),
        (#"@unchecked Sendable"#, "shared state must be proven", []),
        // LMDB's handles are pointers, which Swift cannot share; the file says what makes each of them safe.
        (#"nonisolated\(unsafe\)"#, "shared state must be proven", ["Sources/LMDB/Environment.swift"]),
        (#"\bprint\("#, "print is buffered and lost in a crash; use LogLine", []),
        (#"\bfatalError\("#, "a fault of ours is a precondition with its reason", []),
        (#"\bimport (Foundation|FoundationEssentials|Dispatch)\b"#, "70 MB and a slow start", []),
        (#"-Ounchecked"#, "preconditions stay", []),
    ]

    @Test("nothing banned occurs in the sources")
    func bannedWords() throws {
        for (pattern, why, allowed) in Self.banned {
            let expression = try Regex(pattern)
            for file in Tree.files("Sources", ".swift") where !allowed.contains(Tree.name(file)) {
                for (index, line) in Tree.lines(file).enumerated() where Tree.code(line).contains(expression) {
                    Issue.record("\(Tree.name(file)):\(index + 1): \(pattern): \(why)")
                }
            }
        }
    }

    @Test("every use of unsafe in a core has a reason beside it")
    func unsafeReasons() {
        for file in Tree.files("Sources", ".swift") {
            let lines = Tree.lines(file)
            for (index, line) in lines.enumerated() where Tree.code(line).contains(/\bunsafe\b/) {
                let above = lines[max(0, index - 6)...index]
                #expect(
                    above.contains { $0.contains("Safety:") }, "\(Tree.name(file)):\(index + 1): no Safety: comment")
            }
        }
    }

    @Test("async is not on the path of a message: no program uses it")
    func noAsync() {
        for file in Tree.files("Sources", ".swift") {
            for (index, line) in Tree.lines(file).enumerated()
            where Tree.code(line).contains(/\b(await|Task\s*\{|Task\.detached)/) {
                Issue.record("\(Tree.name(file)):\(index + 1): \(line)")
            }
        }
    }

    @Test("every source file begins with its licence")
    func licences() {
        for file in Tree.files("Sources", ".swift") + Tree.files("Tests", ".swift") {
            #expect(Tree.lines(file).first == "// SPDX-License-Identifier: Apache-2.0", "\(Tree.name(file))")
        }
    }

    @Test("no file of the sources is longer than 500 lines")
    func lengths() {
        for file in Tree.files("Sources", ".swift") {
            let count = Tree.lines(file).count
            #expect(count <= 500, "\(Tree.name(file)) has \(count) lines")
        }
    }

    @Test("no note to ourselves is left in the sources, and no path of a machine")
    func leftovers() {
        for folder in ["Sources", "Tests", "Documentation", "etc", "man"] {
            for file in Tree.files(folder, "") where !file.path().contains("HouseTests") && !file.hasDirectoryPath {
                for (index, line) in Tree.lines(file).enumerated()
                where line.contains(/\bTODO\b|\bFIXME\b|\/work\/(main|wt)/) {
                    Issue.record("\(Tree.name(file)):\(index + 1): \(line)")
                }
            }
        }
    }

    @Test("systemd starts apusd with no command in front of it that could keep it from starting")
    func systemdUnit() {
        let lines = Tree.lines(Tree.root.appending(path: "etc/systemd/apus.service"))
        #expect(lines.contains { $0.hasPrefix("ExecStart=") })
        #expect(!lines.contains { $0.hasPrefix("ExecStartPre=") || $0.hasPrefix("ExecCondition=") })
    }

    @Test("every program has a man page and every man page a program or a format")
    func manPages() {
        let pages = Set(Tree.files("man", "").map(\.lastPathComponent).filter { $0.contains(".") })
        for target in importTable.keys where target.hasPrefix("apus") {
            #expect(pages.contains("\(target).8"), "\(target) has no man page")
        }
        for page in pages {
            let name = page.components(separatedBy: ".").dropLast().joined(separator: ".")
            #expect(importTable[name] != nil || page.hasSuffix(".5"), "\(page) is about nothing")
        }
    }
}

@Suite struct LinkTests {
    /// The daemons of the build that these tests belong to.
    private static let daemons = importTable.keys.filter { $0.hasPrefix("apus") && $0 != "apus" }.sorted()

    private static var buildFolder: URL? {
        // The test bundle lies in the folder of the executables.
        let candidates = [Bundle.main.bundleURL, Bundle.main.executableURL?.deletingLastPathComponent()].compactMap {
            $0
        }
        let fallback = Tree.root.appending(path: ".build/debug")
        return (candidates + [fallback]).first {
            FileManager.default.fileExists(atPath: $0.appending(path: "apusd").path())
        }
    }

    @Test("no linked daemon holds Foundation, dynamically or in itself", arguments: daemons)
    func noFoundation(_ daemon: String) throws {
        let folder = try #require(Self.buildFolder, "the executables have not been built")
        let image = try Data(contentsOf: folder.appending(path: daemon))
        for word in [
            "libFoundation", "libFoundationEssentials", "lib_FoundationICU", "$s20FoundationEssentials4DataV",
            "$s10Foundation4DataV",
        ] {
            #expect(image.range(of: Data(word.utf8)) == nil, "\(daemon) holds \(word)")
        }
    }
}
