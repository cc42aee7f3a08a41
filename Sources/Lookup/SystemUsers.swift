// SPDX-License-Identifier: Apache-2.0

package import LookupCore
import Unix

/// The users that the system knows, or those that the settings name; what was found is remembered for seconds.
package struct SystemUsers: UserDirectory {
    /// In lower case; nil: the user database is asked.
    private let listed: Set<[UInt8]>?
    private var known: [[UInt8]: (finding: UserFinding, until: Duration)] = [:]

    /// How long a user is taken to exist without asking again.
    private static let existsTime = Duration.seconds(10)
    /// How long a name is taken to be nobody's: shorter, so that a new user gets mail soon.
    private static let absentTime = Duration.seconds(3)
    /// So many names are remembered at most.
    private static let knownCountMax = 10_000

    package init(listed: Set<[UInt8]>?) { self.listed = listed }

    package mutating func finding(of name: [UInt8]) -> UserFinding {
        if let listed { return listed.contains(name) ? .exists : .absent }
        let now = ThisProcess.uptime
        if let (finding, until) = self.known[name], now < until { return finding }
        let finding = Self.ask(name)
        if self.known.count >= Self.knownCountMax { self.known = [:] }
        if finding != .unknownNow {
            self.known[name] = (finding, now + (finding == .absent ? Self.absentTime : Self.existsTime))
        }
        return finding
    }

    private static func ask(_ name: [UInt8]) -> UserFinding {
        do throws(SystemError) {
            if let account = try UserAccount.named(String(decoding: name, as: UTF8.self)) {
                return account.uid == 0 ? .superuser : .exists
            }
            // Why: a database that does not even know root is not there now, and nobody's mail may bounce for that.
            return try UserAccount.named("root") == nil ? .unknownNow : .absent
        } catch {
            var line = LogLine("users-unknown")
            line.add("name", name)
            line.add("reason", error.text)
            line.write()
            return .unknownNow
        }
    }
}
