// SPDX-License-Identifier: Apache-2.0

/// Who has a mailbox on this system: what a resolver asks, and somebody else answers.
package protocol UserDirectory {
    /// - Parameter name: in lower case, of the form that `Route.isUserName` accepts.
    mutating func finding(of name: [UInt8]) -> UserFinding
}

/// What is known of a user's name.
package enum UserFinding: Hashable, Sendable {
    /// A user who can be delivered to.
    case exists
    /// The superuser: no mail is ever delivered as him, so that somebody else must read it.
    case superuser
    case absent
    /// The user database could not be asked.
    case unknownNow
}
