// SPDX-License-Identifier: Apache-2.0

import LookupCore
import MailTypes

/// Any file of aliases, and everything that it says asked.
enum AliasesBody {
    private struct Users: RecipientDirectory {
        mutating func finding(of name: [UInt8]) -> UserFinding {
            switch name.first {
            case 0x61: .exists
            case 0x72: .superuser
            case 0x75: .unknownNow
            default: .absent
            }
        }
    }

    static func run(_ octets: [UInt8]) throws(Breach) {
        let file = AliasFile(octets: octets, AliasFile.Terms(includes: true, programs: true, files: true))
        try hold(file.faults.count <= AliasFile.faultCountMax, "\(file.faults.count) faults")
        let host = Array("mx.example.org".utf8)
        let resolver = RecipientResolver(
            rules: RecipientResolver.Rules(localDomains: [Array("example.org".utf8), host], hostname: host),
            aliases: file)
        for circle in resolver.circles() { try hold(circle.line > 0, "a circle nowhere") }
        var users = Users()
        var asked: [ForwardPath] = [.postmaster]
        for name in file.entries.keys.prefix(50) {
            try hold(name.count <= AliasFile.nameOctetCountMax, "a name of \(name.count) octets")
            let path = ForwardPath(octets: name + Array("@example.org".utf8), alphabet: .unicodeLocalPart)
            if let path { asked.append(path) }
        }
        for path in asked {
            let verdict = resolver.check(path, in: &users)
            guard case .targets(let targets) = resolver.resolve(path, in: &users) else { continue }
            try hold(
                !targets.isEmpty && targets.count <= RecipientResolver.expansionCountMax, "\(targets.count) targets")
            try hold(Set(targets).count == targets.count, "a target twice")
            try hold(verdict != .remote, "an alias that is not ours")
            for target in targets {
                try hold(target.route != .bounce, "an alias leads to the bounce agent")
                try hold(Route(octets: target.route.octets) == target.route, "a route is lost")
                let survivor = ForwardPath(octets: target.forwardPath.octets, alphabet: .unicodeLocalPart)
                try hold(survivor == target.forwardPath, "a target is lost")
            }
        }
    }
}
