// SPDX-License-Identifier: Apache-2.0

import LookupCore
import MailTypes

/// Any text as a table of each kind, its first line as an expression, and what a server of tables may say.
enum TablesBody {
    static func run(_ octets: [UInt8]) throws(Breach) {
        let end = octets.firstIndex(of: ASCII.lineFeed) ?? octets.count
        let rest = Array(octets[min(end + 1, octets.count)...])
        try Self.lookUp(octets, key: Array(octets[..<end]))
        try Self.match(Array(octets[..<end]), rest)
        try Self.hear(octets)
        let list = AliasList(octets: octets)
        try hold(list.faults.count <= AliasFile.faultCountMax, "\(list.faults.count) faults")
        try hold(!list.targets.isEmpty || !list.faults.isEmpty, "a list of nothing")
    }

    private static func lookUp(_ octets: [UInt8], key word: [UInt8]) throws(Breach) {
        // As good a mapping as any: the tables of the real one are not what is tested.
        let domains = DomainMapping { $0.map { $0 < 0x80 ? $0 : 0x78 } }
        let table = TextTable(octets: octets, domains: domains)
        try hold(table.faults.count <= TextTable.faultCountMax, "\(table.faults.count) faults")
        for (key, entry) in table.entries {
            try hold(TableKey.key(key, .none) == key, "a key is written in two ways")
            try hold(key.count <= TableKey.octetCountMax, "a key of \(key.count) octets")
            try hold(!entry.value.contains(ASCII.lineFeed), "a value of two lines")
        }
        let key = TableKey.key(word, domains) ?? word
        for table: any PatternTable in [RegexpTable(octets: octets), PrefixTable(octets: octets)] {
            try hold(table.faults.count <= TextTable.faultCountMax, "\(table.faults.count) faults")
            guard let (value, line) = table.finding(of: key) else { continue }
            try hold(line > 0 && !value.contains(ASCII.lineFeed), "a value of two lines")
        }
    }

    private static func match(_ pattern: [UInt8], _ text: [UInt8]) throws(Breach) {
        guard let expression = try? RegularExpression(pattern) else { return }
        guard let groups = expression.match(Array(text.prefix(500))) else { return }
        try hold(groups.count == expression.groupCount + 1, "\(groups.count) groups")
        guard let whole = groups[0] else { throw Breach(text: "a match without octets") }
        for case .some(let group) in groups {
            try hold(group.startIndex >= whole.startIndex && group.endIndex <= whole.endIndex, "a group outside")
        }
    }

    /// Netstrings are the same, whole or octet by octet.
    private static func hear(_ octets: [UInt8]) throws(Breach) {
        var whole = NetstringDecoder(octetCountMax: 1_000)
        whole.append(octets)
        var single = NetstringDecoder(octetCountMax: 1_000)
        var heard: [[UInt8]] = []
        var isFaulty = false
        for octet in octets where !isFaulty {
            single.append([octet])
            do throws(NetstringDecoder.Fault) {
                while let next = try single.next() { heard.append(next) }
            } catch { isFaulty = true }
        }
        var count = 0
        do throws(NetstringDecoder.Fault) {
            while let next = try whole.next() {
                guard count < heard.count, heard[count] == next else {
                    throw NetstringDecoder.Fault()
                }
                count += 1
                _ = SocketmapReply(octets: next)
            }
        } catch { try hold(isFaulty, "cutting hides a fault, or changes a netstring") }
        try hold(count == heard.count, "cutting changes how many netstrings there are")
    }
}
