// SPDX-License-Identifier: Apache-2.0

private import MailTypes

/// PLAIN (RFC 4616): everything in one message.
package struct PlainServer: Sendable {
    private var user: [UInt8] = []

    package init() {}

    package mutating func receive(_ event: ServerExchange.Event) -> ServerExchange.Action {
        switch event {
        case .begun(nil): return .challenge([])
        case .begun(let message?), .responded(let message): return self.read(message)
        case .checked(let isRight): return isRight ? .grant(user: self.user) : .deny(.credentials)
        case .keysFound, .ownerFound: return .deny(.malformed)
        }
    }

    /// `[authzid] NUL authcid NUL passwd`.
    private mutating func read(_ message: [UInt8]) -> ServerExchange.Action {
        let parts = message.split(separator: ASCII.nul, omittingEmptySubsequences: false)
        guard parts.count == 3, let user = CredentialText.user(parts[1]),
            let password = CredentialText.password(parts[2])
        else { return .deny(.malformed) }
        guard parts[0].isEmpty || CredentialText.user(parts[0]) == user else { return .deny(.authorization) }
        self.user = user
        return .checkPassword(user: user, password: password)
    }
}

/// LOGIN: the name, then the password.
package struct LoginServer: Sendable {
    private var user: [UInt8]?

    package init() {}

    package mutating func receive(_ event: ServerExchange.Event) -> ServerExchange.Action {
        switch event {
        case .begun(nil):
            return .challenge(Array("Username:".utf8))
        case .begun(let message?):
            return self.readUser(message)
        case .responded(let message):
            guard let user = self.user else { return self.readUser(message) }
            guard let password = CredentialText.password(message) else { return .deny(.malformed) }
            return .checkPassword(user: user, password: password)
        case .checked(let isRight):
            guard isRight, let user = self.user else { return .deny(.credentials) }
            return .grant(user: user)
        case .keysFound, .ownerFound:
            return .deny(.malformed)
        }
    }

    private mutating func readUser(_ message: [UInt8]) -> ServerExchange.Action {
        guard let user = CredentialText.user(message) else { return .deny(.malformed) }
        self.user = user
        return .challenge(Array("Password:".utf8))
    }
}

/// EXTERNAL (RFC 4422 appendix A): the client's certificate says who it is, or who it may be.
package struct ExternalServer: Sendable {
    package init() {}

    package func receive(_ event: ServerExchange.Event) -> ServerExchange.Action {
        switch event {
        case .begun(nil):
            return .challenge([])
        case .begun(let message?), .responded(let message):
            if message.isEmpty { return .findOwner(claimed: nil) }
            guard let user = CredentialText.user(message) else { return .deny(.malformed) }
            return .findOwner(claimed: user)
        case .ownerFound(let user):
            guard let user else { return .deny(.credentials) }
            return .grant(user: user)
        case .checked, .keysFound:
            return .deny(.malformed)
        }
    }
}
