// SPDX-License-Identifier: Apache-2.0

import Glibc
import IDN
import LookupCore
import MailTypes
import Unix

/// The file of aliases, as the process that does what they say reads it: kept as long as it stays the same.
final class AliasShelf {
    /// Why nothing can be done with it now.
    struct Fault: Error {
        let text: String
    }

    private var kept: (mark: FileMark, terms: AliasFile.Terms, file: AliasFile)?

    /// The file as it is now. It must be a regular one of root's, or of one of `owners`, that not everybody may write: who
    /// can change it says what runs here.
    ///
    /// A file that was changed a moment ago is waited for, at most a second and a little.
    func file(_ rules: LocalAgent.AliasRules) throws(Fault) -> AliasFile {
        guard let path = rules.path else { throw Fault(text: "there is no file of aliases here (local.aliases)") }
        let content: Content?
        do throws(SystemError) { content = try self.read(path, rules.terms) } catch {
            throw Fault(text: error.code == EAGAIN ? "\(path) is just being changed" : error.text)
        }
        guard let content else { return self.kept?.file ?? AliasFile() }
        if let reason = Self.distrust(content.facts, rules.owners) { throw Fault(text: "\(path) \(reason)") }
        let file = AliasFile(octets: content.octets, rules.terms, domains: .idna2008)
        self.kept = (content.mark, rules.terms, file)
        return file
    }

    private struct Content {
        let mark: FileMark
        let facts: FileFacts
        let octets: [UInt8]
    }

    /// Nil: it is as it was.
    private func read(_ path: String, _ terms: AliasFile.Terms) throws(SystemError) -> Content? {
        var mark = try FileMark(path)
        if let kept, kept.mark == mark, kept.terms == terms { return nil }
        // Half a list is none.
        if mark.isFresh(now: WallClock.now()) {
            var poll = Poll()
            poll.wait(FileMark.freshTime)
            mark = try FileMark(path)
        }
        let file = try Descriptor.open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY)
        defer { file.close() }
        let facts = try file.facts()
        let octets = facts.isRegular ? try file.readAll(octetCountMax: AliasFile.octetCountMax + 1) : []
        guard !mark.isFresh(now: WallClock.now()), try FileMark(path) == mark else {
            throw SystemError("read", path, code: EAGAIN)
        }
        return Content(mark: mark, facts: facts, octets: octets)
    }

    private static func distrust(_ facts: FileFacts, _ owners: Set<UInt32>) -> String? {
        guard facts.isRegular else { return "is not a file" }
        guard owners.contains(facts.owner) else { return "is somebody else's than root's" }
        return facts.mode & 0o002 == 0 ? nil : "can be written by everybody"
    }
}
