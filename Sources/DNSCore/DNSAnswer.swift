// SPDX-License-Identifier: Apache-2.0

/// What is known of a question in the end.
package enum DNSAnswer: Hashable, Sendable {
    /// The values of the type asked for, at least one, aliases followed. `isAuthentic` is the resolver's AD bit.
    case values([DNSValue], isAuthentic: Bool)
    /// The name exists and has nothing of that type.
    case none
    /// NXDOMAIN.
    case noSuchName
    /// Cannot be told now.
    case later(DNSTrouble)
}

/// Why a question has no answer now.
package enum DNSTrouble: String, Hashable, Sendable {
    case timeout = "no resolver answered in time"
    case serverFailure = "the resolvers cannot answer it now"
    case aliasChainTooLong = "its aliases form too long a chain"
    case tooManyQuestions = "too many questions are under way"
}
