// SPDX-License-Identifier: Apache-2.0

package import LookupCore
package import MailTypes

/// All tables that the settings name, open.
package struct TableShelf {
    private var places: [TableRole: [TablePlace]]
    private var textTables: [String: TextTableSource] = [:]

    /// - Parameter places: for each role, in the order in which they are asked.
    package init(_ places: [TableRole: [TablePlace]]) {
        self.places = places
        for place in places.values.joined() {
            switch place {
            case .text(let path): self.textTables[path] = TextTableSource(path: path)
            }
        }
    }

    /// Whether these are the tables that the settings name now.
    package func isMade(of places: [TableRole: [TablePlace]]) -> Bool { self.places == places }

    package mutating func refresh(uptime: Duration, now: Timestamp) {
        for path in self.textTables.keys { self.textTables[path]?.refresh(uptime: uptime, now: now) }
    }

    /// What the first of the tables says that knows the key. One that cannot tell ends the search.
    package func finding(of key: [UInt8], in role: TableRole) -> TableFinding {
        for place in self.places[role] ?? [] {
            let finding = self.finding(of: key, in: place)
            guard finding == .absent else { return finding }
        }
        return .absent
    }

    private func finding(of key: [UInt8], in place: TablePlace) -> TableFinding {
        switch place {
        case .text(let path): self.textTables[path]?.finding(of: key) ?? .absent
        }
    }
}

/// Everything that the resolver asks: the users of the system and the tables.
package struct LookupDirectory: RecipientDirectory {
    package var users: SystemUsers
    package var tables: TableShelf

    package init(users: SystemUsers, tables: TableShelf) {
        self.users = users
        self.tables = tables
    }

    package mutating func finding(of name: [UInt8]) -> UserFinding { self.users.finding(of: name) }

    package mutating func finding(of key: [UInt8], in role: TableRole) -> TableFinding {
        self.tables.finding(of: key, in: role)
    }
}
