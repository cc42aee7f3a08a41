// SPDX-License-Identifier: Apache-2.0

package import MailTypes

/// A file that an alias includes (`:include:/path`): targets as in a file of aliases, in lines or separated by commas.
/// Programs and files are none.
///
/// Empty lines and lines whose first character is `#` are passed over. A target may be another `:include:`.
package struct AliasList: Hashable, Sendable {
    package private(set) var targets: [AliasFile.Target] = []
    /// In the order of their lines. With any, the list is not to be used.
    package private(set) var faults: [LineFault] = []

    /// A file larger than this is not read.
    package static let octetCountMax = 4_194_304

    /// Reads a file of at most `octetCountMax` octets; a longer one is a fault.
    ///
    /// - Parameter domains: how those beyond ASCII are written.
    package init(octets: [UInt8], domains: DomainMapping = .none) {
        guard octets.count <= Self.octetCountMax else {
            self.note(1, "the file is larger than \(Self.octetCountMax) octets; nothing of it was read")
            return
        }
        for (index, line) in octets.split(separator: ASCII.lineFeed, omittingEmptySubsequences: false).enumerated() {
            let text = line.last == ASCII.carriageReturn ? line.dropLast() : line
            guard let first = text.first(where: { $0 != ASCII.space && $0 != ASCII.tab }), first != 0x23 else {
                continue
            }
            let (targets, reasons) = AliasFile.targets(text, in: .included, domains)
            for reason in reasons { self.note(index + 1, reason.text) }
            guard self.targets.count + targets.count <= AliasFile.targetCountMax else {
                self.note(index + 1, "more than \(AliasFile.targetCountMax) targets")
                return
            }
            self.targets += targets
        }
        if self.targets.isEmpty, self.faults.isEmpty { self.note(1, "there is no target in the file") }
    }

    private mutating func note(_ line: Int, _ text: String) {
        guard self.faults.count < AliasFile.faultCountMax else { return }
        self.faults.append(LineFault(line: line, text: text))
    }
}

/// What is known of a file that an alias includes.
package enum AliasListFinding: Hashable, Sendable {
    case targets([AliasFile.Target])
    /// It cannot be read, or is not in order.
    case unknownNow(reason: String)
}

/// Files that aliases include: what a resolver asks, and somebody else reads.
package protocol AliasListDirectory {
    /// - Parameter path: absolute.
    mutating func finding(ofList path: String) -> AliasListFinding
}

extension AliasListDirectory {
    /// For who includes nothing.
    package mutating func finding(ofList path: String) -> AliasListFinding {
        .unknownNow(reason: "\(path) cannot be read here")
    }
}
