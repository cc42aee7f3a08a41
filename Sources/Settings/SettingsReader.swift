// SPDX-License-Identifier: Apache-2.0

import MailTypes
import TOML

/// Holds a document against the schema: what is known is read, everything else becomes a remark.
///
/// Pure: looks at nothing but the text.
struct SettingsReader {
    /// One value as the programs are handed it, and where it stands.
    struct Value: Equatable {
        let text: String
        let line: Int
    }

    /// One table of several of its name: a `[[listen]]`.
    struct RepeatedTable {
        let line: Int
        /// By the names of its keys.
        var values: [String: Value] = [:]
    }

    let file: String
    private(set) var remarks: [Remark] = []
    private(set) var values: [String: [Value]] = [:]
    private var repeatedTables: [String: [RepeatedTable]] = [:]
    /// Keys that stand in the file but could not be read: they are not missing.
    private var unread: Set<String> = []

    init(file: String, octets: [UInt8]) {
        self.file = file
        let (table, faults) = TOMLReader.read(octets)
        for fault in faults { self.remark(fault.line, fault.text) }
        self.readTable(table, path: "")
        // A line that could not be read may have been the one that seems to be missing.
        if faults.isEmpty { self.checkMissing() }
        self.checkTogether()
        self.remarks.sort { $0.line < $1.line }
    }

    /// All tables `[[name]]`, in the order of the file.
    func tables(_ name: String) -> [RepeatedTable] { self.repeatedTables[name] ?? [] }

    mutating func remark(_ line: Int, _ text: String, hint: String = "", weight: Remark.Weight = .mistake) {
        self.remarks.append(Remark(weight, file: self.file, line: line, text, hint: hint))
    }

    // MARK: One key after the other

    private mutating func readTable(_ table: TOMLTable, path: String) {
        for entry in table.entries {
            let full = path.isEmpty ? entry.key : "\(path).\(entry.key)"
            if let key = SettingsSchema.key(full) {
                self.readKey(key, entry)
            } else if SettingsSchema.repeatedTables.contains(full) {
                self.readRepeated(full, entry)
            } else if SettingsSchema.tables.contains(full) {
                guard case .table(let inner) = entry.value else {
                    self.remark(entry.line, "\(full) must be a table, not \(entry.value.kind)", hint: "write [\(full)]")
                    continue
                }
                self.readTable(inner, path: full)
            } else {
                self.remarkUnknown(entry, path: path)
            }
        }
    }

    private mutating func readKey(_ key: SettingKey, _ entry: TOMLTable.Entry) {
        switch key.count {
        case .list, .words: self.readList(key, entry)
        case .optional, .required:
            if let value = self.read(key, entry.value, line: entry.line) { self.values[key.path] = [value] }
        }
    }

    private mutating func readList(_ key: SettingKey, _ entry: TOMLTable.Entry) {
        guard case .array(let elements) = entry.value else {
            let hint: String =
                if case .string(let text) = entry.value { "write \(key.name) = [\"\(text)\"]" } else {
                    "write it in [ ]"
                }
            self.remark(entry.line, "\(key.path) must be a list, not \(entry.value.kind)", hint: hint)
            return
        }
        var values: [Value] = []
        // Lists may have tens of thousands of domains.
        var lines: [String: Int] = [:]
        for element in elements {
            guard let value = self.read(key, element.value, line: element.line) else { continue }
            if case .list = key.count {
                if let line = lines[value.text] {
                    self.remark(
                        value.line, "\(key.path) has \"\(value.text)\" already in line \(line)", weight: .advice)
                    continue
                }
                lines[value.text] = value.line
            }
            values.append(value)
        }
        self.values[key.path] = values
    }

    private mutating func read(_ key: SettingKey, _ value: TOMLValue, line: Int) -> Value? {
        do throws(SettingKind.Fault) {
            return Value(text: try key.kind.read(value), line: line)
        } catch {
            self.unread.insert(key.path)
            self.remark(line, key.isLater ? error.text : "\(key.path): \(error.text)", hint: error.hint)
            return nil
        }
    }

    private mutating func readRepeated(_ name: String, _ entry: TOMLTable.Entry) {
        guard case .array(let elements) = entry.value else {
            self.remark(entry.line, "\(name) must be a list of tables", hint: "write [[\(name)]]")
            self.unread.insert(name)
            return
        }
        for element in elements {
            guard case .table(let table) = element.value else {
                self.remark(element.line, "\(name) must be a list of tables", hint: "write [[\(name)]]")
                self.unread.insert(name)
                continue
            }
            var read = RepeatedTable(line: element.line)
            for entry in table.entries {
                guard let key = SettingsSchema.key("\(name).\(entry.key)") else {
                    self.remarkUnknown(entry, path: name)
                    continue
                }
                read.values[key.name] = self.read(key, entry.value, line: entry.line)
            }
            for key in SettingsSchema.keys where key.table == name {
                guard case .required = key.count, table[key.name] == nil else { continue }
                self.remark(element.line, "this [[\(name)]] has no \(key.name)", hint: Self.example(key))
            }
            self.repeatedTables[name, default: []].append(read)
        }
    }

    private mutating func remarkUnknown(_ entry: TOMLTable.Entry, path: String) {
        let isTable = if case .table = entry.value { true } else { false }
        let place = path.isEmpty ? "" : " in [\(path)]"
        let siblings = SettingsSchema.keys.filter { $0.table == path && !$0.isLater }.map(\.name)
        let tables = path.isEmpty ? SettingsSchema.tables.sorted() : []
        var hint = ""
        if let name = Spelling.nearest(to: entry.key, among: isTable ? tables + siblings : siblings + tables) {
            hint = tables.contains(name) ? "did you mean [\(name)]?" : "did you mean \"\(name)\"?"
        } else if let key = SettingsSchema.keys.first(where: { $0.name == entry.key && !$0.isLater }) {
            hint =
                key.table.isEmpty ? "it belongs to the top, before the first [table]" : "it belongs to [\(key.table)]"
        }
        self.remark(entry.line, "unknown \(isTable ? "table" : "key") \"\(entry.key)\"\(place)", hint: hint)
    }

    // MARK: What is not there

    private mutating func checkMissing() {
        for key in SettingsSchema.keys where !SettingsSchema.repeatedTables.contains(key.table) {
            guard case .required = key.count, self.values[key.path] == nil, !self.unread.contains(key.path) else {
                continue
            }
            self.remark(0, "\(key.path) is not set", hint: Self.example(key))
        }
        if self.tables("listen").isEmpty, !self.unread.contains("listen") {
            self.remark(
                0, "there is no [[listen]]", hint: "add [[listen]] with address = \"127.0.0.1:25\" and role = \"mx\"")
        }
    }

    private static func example(_ key: SettingKey) -> String {
        switch key.kind {
        case .hostname: "add \(key.name) = \"mx.example.org\""
        case .socketAddress: "add \(key.name) = \"127.0.0.1:25\""
        case .domainPattern: "add \(key.name) = \"example.org\""
        case .word(let words): "add \(key.name) = \(words.map { "\"\($0)\"" }.joined(separator: " or "))"
        default: "add \(key.name)"
        }
    }

    // MARK: What does not fit together

    private mutating func checkTogether() {
        self.checkListeners()
        self.checkCertificates()
        self.checkSmarthost()
        self.checkDestinations()
        self.checkRetries()
        self.checkRecipientCounts()
        self.checkAuthentication()
        self.checkVirtualDomains()
        self.checkVariableReversePaths()
        for key in SettingsSchema.keys {
            guard case .words = key.count, let words = self.values[key.path], words.first?.text.hasPrefix("/") != true
            else { continue }
            self.remark(
                words.first?.line ?? 0, "\(key.path) must begin with the absolute path of a program",
                hint: "\(key.name) = [\"/usr/local/libexec/program\", \"argument\"]")
        }
        if let hostname = self.values["hostname"]?.first, !hostname.text.contains(".") {
            self.remark(
                hostname.line, "hostname \"\(hostname.text)\" is not fully qualified",
                hint: "other servers may refuse it; write a name such as \"mx.example.org\"", weight: .advice)
        }
        for network in self.values["domains.relay-from"] ?? [] where network.text.hasSuffix("/0") {
            self.remark(
                network.line, "relay-from = \"\(network.text)\" lets everybody send mail through this server",
                hint: "spammers find such a server within hours", weight: .advice)
        }
        if let resolvers = self.values["dns.resolvers"], resolvers.count > 16 {
            self.remark(resolvers[16].line, "dns.resolvers: more than 16 are too many")
        }
    }

    private mutating func checkListeners() {
        var seen: [SocketAddress: Int] = [:]
        for listen in self.tables("listen") {
            guard let value = listen.values["address"], let address = SocketAddress(text: value.text) else { continue }
            if let line = seen[address] {
                self.remark(value.line, "listen.address: \"\(value.text)\" is already in line \(line)")
            } else {
                seen[address] = value.line
            }
        }
        if let smarthost = self.values["remote.smarthost"]?.first,
            let nextHop = NextHop(octets: Array(smarthost.text.utf8)), case .address(let address) = nextHop.target,
            let line = seen[SocketAddress(address: address, port: nextHop.port ?? self.remotePort)]
        {
            self.remark(
                smarthost.line, "remote.smarthost: \"\(smarthost.text)\" is this server itself (line \(line))",
                hint: "mail would go round in circles")
        }
    }

    private mutating func checkCertificates() {
        let tls = self.values["tls.certificate"]?.first
        if let key = self.values["tls.private-key"]?.first, tls == nil {
            self.remark(
                key.line, "tls.private-key without tls.certificate", hint: "add certificate = \"…/fullchain.pem\"")
        }
        let others = self.tables("certificate")
        if tls == nil, let first = others.first {
            self.remark(
                first.line, "[[certificate]] without tls.certificate",
                hint: "put the certificate that most clients see into [tls]")
        }
        for listen in self.tables("listen") {
            if let key = listen.values["private-key"], listen.values["certificate"] == nil {
                self.remark(key.line, "listen.private-key without listen.certificate")
            }
            guard let word = listen.values["tls"], word.text == "implicit" || word.text == "require", tls == nil,
                listen.values["certificate"] == nil, !self.unread.contains("tls.certificate")
            else { continue }
            self.remark(
                word.line, "listen.tls = \"\(word.text)\" needs a certificate",
                hint: "add [tls] with certificate = \"…/fullchain.pem\" and private-key = \"…/privkey.pem\"")
        }
        for listen in self.tables("listen") where listen.values["tls"]?.text == "require" {
            guard listen.values["role"]?.text == "mx", let word = listen.values["tls"] else { continue }
            self.remark(
                word.line, "listen.tls = \"require\" refuses mail of servers without TLS",
                hint: "RFC 3207 forbids it for a server that the world delivers to", weight: .advice)
        }
        if let smarthost = self.values["remote.smarthost"]?.first, smarthost.text.hasSuffix(":465"),
            self.values["remote.tls"]?.first?.text != "implicit",
            !self.tables("destination").contains(where: { $0.values["tls"]?.text == "implicit" })
        {
            self.remark(
                smarthost.line, "remote.smarthost: servers on port 465 expect TLS before the greeting",
                hint: "add tls = \"implicit\" to [remote]", weight: .advice)
        }
    }

    /// Without a port it would be taken for this very server, and all mail would be returned.
    private mutating func checkSmarthost() {
        guard let smarthost = self.values["remote.smarthost"]?.first,
            let nextHop = NextHop(octets: Array(smarthost.text.utf8)), nextHop.port == nil,
            self.remotePort == 25
        else { return }
        let isHere =
            switch nextHop.target {
            case .address(let address): address.isLoopback
            case .domain(let name): name.elementsEqual("localhost".utf8)
            case .host, .socket: false
            }
        guard isHere else { return }
        self.remark(
            smarthost.line, "remote.smarthost: \"\(smarthost.text)\" is this server itself",
            hint: "for another one on this machine write its port, such as 127.0.0.1:2526")
    }

    private mutating func checkDestinations() {
        var seen: [String: Int] = [:]
        for table in self.tables("destination") {
            guard let match = table.values["match"] else { continue }
            if let line = seen[match.text] ?? seen["*"] {
                self.remark(
                    match.line, "this [[destination]] is never used: the one in line \(line) comes first",
                    hint: "put the more special one in front", weight: .advice)
            }
            seen[match.text] = match.line
            if table.values.count == 1 {
                self.remark(
                    table.line, "this [[destination]] says nothing about \(match.text)",
                    hint: "add connections-max = 5, for instance", weight: .advice)
            }
        }
    }

    /// Who is asked about a user cannot be contradicted by somebody else.
    private mutating func checkAuthentication() {
        let sources = ["auth.passwords", "auth.system", "auth.checkpassword", "auth.dovecot"].filter { path in
            self.values[path]?.first.map { $0.text != "false" } == true
        }
        guard sources.count > 1, let second = self.values[sources[1]]?.first else { return }
        self.remark(
            second.line, "\(sources.joined(separator: " and ")) are set together", hint: "only one of them can be")
    }

    /// The address that a report comes back to is that of the list with a tag behind `+`.
    private mutating func checkVariableReversePaths() {
        guard let sender = self.values["bounce.verp-senders"]?.first,
            let delimiter = self.values["local.recipient-delimiter"]?.first, !delimiter.text.contains("+")
        else { return }
        self.remark(
            sender.line, "bounce.verp-senders: what comes back is for list+tag@…, and + parts no tag here",
            hint: "add + to recipient-delimiter in line \(delimiter.line)", weight: .advice)
    }

    private mutating func checkVirtualDomains() {
        let local = Dictionary(
            (self.values["domains.local"] ?? []).map { ($0.text.lowercased(), $0.line) },
            uniquingKeysWith: { first, _ in first })
        for domain in self.values["virtual.domains"] ?? [] {
            guard let line = local[domain.text.lowercased()] else { continue }
            self.remark(
                domain.line, "virtual.domains: \"\(domain.text)\" is in domains.local too (line \(line))",
                hint: "its recipients are either users of this machine or virtual users")
        }
        if let owner = self.values["virtual.owner"]?.first, owner.text == "root" {
            self.remark(owner.line, "virtual.owner: mail is never written as root", hint: "make a user for it: vmail")
        }
        if let user = self.values["local.alias-user"]?.first, user.text == "root" {
            self.remark(
                user.line, "local.alias-user: nothing that an alias says is done as root", hint: "leave it out: nobody")
        }
        if let mailboxes = self.values["virtual.mailboxes"]?.first, self.values["virtual.owner"] == nil,
            self.values["virtual.lmtp"] == nil, !self.unread.contains("virtual.owner"),
            !self.unread.contains("virtual.lmtp")
        {
            self.remark(
                mailboxes.line, "virtual.mailboxes needs virtual.owner, the user who owns the mailboxes",
                hint: "add owner = \"vmail\", or name the server that has the mailboxes in virtual.lmtp")
        }
    }

    private var remotePort: UInt16 { self.values["remote.port"]?.first.flatMap { UInt16($0.text) } ?? 25 }

    /// The queue refuses a message with too many recipients as a whole, where apus-smtpd lets those beyond come again.
    private mutating func checkRecipientCounts() {
        guard let most = self.values["queue.recipients-max"]?.first, let queue = Int(most.text) else { return }
        let smtp = self.values["smtp.recipients-max"]?.first.flatMap { Int($0.text) } ?? 1_000
        guard queue < smtp else { return }
        self.remark(
            most.line, "queue.recipients-max (\(queue)) is less than smtp.recipients-max (\(smtp))",
            hint: "a message with more than \(queue) recipients is taken for none of them", weight: .advice)
    }

    private mutating func checkRetries() {
        func seconds(_ path: String, default value: Int) -> (seconds: Int, line: Int) {
            guard let found = self.values[path]?.first else { return (value, 0) }
            return (Int(found.text) ?? value, found.line)
        }
        let least = seconds("queue.retry-min", default: 300)
        let most = seconds("queue.retry-max", default: 14_400)
        if least.seconds > most.seconds {
            let place = most.line > 0 ? "line \(most.line)" : "its default"
            self.remark(
                least.line > 0 ? least.line : most.line,
                "queue.retry-min (\(least.seconds) s) is longer than queue.retry-max (\(most.seconds) s, \(place))")
        }
        let lifetime = seconds("queue.lifetime", default: 432_000)
        if lifetime.line > 0, lifetime.seconds < least.seconds {
            self.remark(
                lifetime.line, "queue.lifetime (\(lifetime.seconds) s) is shorter than queue.retry-min",
                hint: "there will be no second attempt", weight: .advice)
        }
    }
}
