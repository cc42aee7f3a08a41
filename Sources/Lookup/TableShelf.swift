// SPDX-License-Identifier: Apache-2.0

package import LookupCore
package import MailTypes
package import NIOCore

/// A question to a server of tables.
package struct TableQuestion: Hashable, Sendable {
    package let place: SocketmapPlace
    package let key: [UInt8]
}

/// All tables that the settings name, open.
package struct TableShelf {
    private let places: [TableRole: [TablePlace]]
    private let timeLimit: TimeAmount
    private var textTables: [String: TextTableSource] = [:]
    private var patternTables: [TablePlace: PatternTableSource] = [:]
    private var compiledTables: [String: CompiledTableSource] = [:]
    private var clients: [SocketmapPlace.Server: SocketmapClient] = [:]

    /// - Parameters:
    ///   - places: for each role, in the order in which they are asked.
    ///   - timeLimit: how long a server may take for an answer.
    package init(_ places: [TableRole: [TablePlace]], timeLimit: TimeAmount, eventLoop: any EventLoop) {
        self.places = places
        self.timeLimit = timeLimit
        for place in places.values.joined() {
            switch place {
            case .text(let path): self.textTables[path] = TextTableSource(path: path)
            case .regexp(let path):
                self.patternTables[place] = PatternTableSource(path: path) { RegexpTable(octets: $0) }
            case .prefix(let path):
                self.patternTables[place] = PatternTableSource(path: path) { PrefixTable(octets: $0) }
            case .lmdb(let path): self.compiledTables[path] = CompiledTableSource(path: path)
            case .socketmap(let place):
                guard self.clients[place.server] == nil else { continue }
                self.clients[place.server] = SocketmapClient(
                    place.server, timeLimit: timeLimit, eventLoop: eventLoop)
            }
        }
    }

    /// Whether these are the tables that the settings name now.
    package func isMade(of places: [TableRole: [TablePlace]], timeLimit: TimeAmount) -> Bool {
        self.places == places && self.timeLimit == timeLimit
    }

    /// Answers what is under way with a failure.
    package func close() { for client in self.clients.values { client.close() } }

    package mutating func refresh(uptime: Duration, now: Timestamp) {
        for path in self.textTables.keys { self.textTables[path]?.refresh(uptime: uptime, now: now) }
        for place in self.patternTables.keys { self.patternTables[place]?.refresh(uptime: uptime, now: now) }
        for path in self.compiledTables.keys { self.compiledTables[path]?.refresh(uptime: uptime, now: now) }
    }

    /// What the first of the tables says that knows the key. One that cannot tell ends the search.
    ///
    /// - Parameter known: what a server has answered, or what stands for that.
    package func finding(
        of key: [UInt8], in role: TableRole, known: (TableQuestion) -> TableFinding
    ) -> TableFinding {
        for place in self.places[role] ?? [] {
            let finding =
                switch place {
                case .text(let path): self.textTables[path]?.finding(of: key) ?? .absent
                case .regexp, .prefix: self.patternTables[place]?.finding(of: key) ?? .absent
                case .lmdb(let path): self.compiledTables[path]?.finding(of: key) ?? .absent
                case .socketmap(let place): known(TableQuestion(place: place, key: key))
                }
            guard finding == .absent else { return finding }
        }
        return .absent
    }

    /// Asks a server; the answer comes later.
    package func ask(_ question: TableQuestion, _ answer: @escaping (TableFinding) -> Void) {
        self.clients[question.place.server]?.ask(question.place, question.key, answer)
    }
}

/// Everything that the resolver asks: the users of the system, the tables, and files that aliases include.
///
/// What a server of tables has to be asked first is noted in `unanswered`; whoever has the answer puts it into `answers`, and
/// lets the resolver begin anew.
package struct LookupDirectory: RecipientDirectory {
    package var users: SystemUsers
    package var tables: TableShelf
    private var lists = AliasListShelf()
    /// What servers have answered about the address that is looked for.
    private var answers: [TableQuestion: TableFinding] = [:]
    /// What has to be asked before the address can be told, at most `unansweredCountMax` at a time.
    package private(set) var unanswered: Set<TableQuestion> = []

    /// One alias has many targets: others want their answers too.
    private static let unansweredCountMax = 200

    package init(users: SystemUsers, tables: TableShelf) {
        self.users = users
        self.tables = tables
    }

    /// Begins to look for an address.
    package mutating func begin(answers: [TableQuestion: TableFinding]) {
        self.answers = answers
        self.unanswered = []
    }

    package mutating func finding(of name: [UInt8]) -> UserFinding { self.users.finding(of: name) }

    package mutating func finding(ofList path: String) -> AliasListFinding { self.lists.finding(of: path) }

    package mutating func finding(of key: [UInt8], in role: TableRole) -> TableFinding {
        var unanswered: TableQuestion?
        let answers = self.answers
        let finding = self.tables.finding(of: key, in: role) { question in
            if let answer = answers[question] { return answer }
            unanswered = question
            return .unknownNow(reason: "it is being asked for")
        }
        if let unanswered, self.unanswered.count < Self.unansweredCountMax { self.unanswered.insert(unanswered) }
        return finding
    }
}
