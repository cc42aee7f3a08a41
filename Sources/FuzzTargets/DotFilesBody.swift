// SPDX-License-Identifier: Apache-2.0

import LookupCore
import MailTypes

/// Any file of a user as `.forward` and as `.qmail`, and any extension as a part of a file's name.
enum DotFilesBody {
    static func run(_ octets: [UInt8]) throws(Breach) {
        let domain = Array("example.org".utf8)
        let (forward, qmail, addresses) = (
            try? DotFile.forward(octets, user: Array("joe".utf8), domain: domain, domains: .none),
            try? DotFile.qmail(octets, domain: domain, isForwardOnly: false, domains: .none),
            try? DotFile.qmail(octets, domain: domain, isForwardOnly: true, domains: .none)
        )
        for file in [forward, qmail, addresses].compactMap(\.self) { try Self.check(file) }
        try hold(addresses?.instructions.isEmpty ?? true, "an instruction where only addresses are allowed")
        try hold(addresses == nil || qmail != nil, "what is allowed with less is not allowed with more")
        for name in DotFile.qmailNames(extension: octets) {
            try hold(name.hasPrefix(".qmail"), "the file \(name)")
            try hold(!name.utf8.contains(0x2F) && !name.utf8.contains(0) && name.utf8.count < 256, "the name \(name)")
        }
    }

    private static func check(_ file: DotFile) throws(Breach) {
        let count = file.instructions.count + file.forwards.count
        try hold(count <= DotFile.entryCountMax, "\(count) entries")
        try hold(file.forwardCounts.count == file.instructions.count, "an instruction without its place")
        try hold(
            file.forwardCounts == file.forwardCounts.sorted() && (file.forwardCounts.last ?? 0) <= file.forwards.count,
            "the places \(file.forwardCounts)")
        for instruction in file.instructions {
            switch instruction {
            case .mbox(let path), .maildir(let path):
                try hold(path.hasPrefix("/") || path.hasPrefix("./"), "the path \(path)")
                try hold(!path.split(separator: "/").contains(".."), "the path \(path) leads up")
                try hold(!path.utf8.contains(0), "a path with a NUL")
            case .command(let text): try hold(!text.utf8.contains(0), "a command with a NUL")
            case .mailbox: break
            }
        }
        for path in file.forwards {
            try hold(ForwardPath(octets: path.octets, alphabet: .unicodeLocalPart) == path, "an address is lost")
        }
    }
}
