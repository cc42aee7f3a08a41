// SPDX-License-Identifier: Apache-2.0
//
// One exchange of credentials seen from the server (RFC 4422 §3). It decides; whoever holds the secrets acts.

package import MailTypes

/// Why an exchange ends without a user. For the log; the client is told no more than that it failed.
package enum Denial: String, Equatable, Sendable {
    /// What came breaks the grammar of the mechanism.
    case malformed
    /// No such user, or not his secret; nobody but us can tell which.
    case credentials
    /// The client wants to act for another user.
    case authorization
    /// The client and we do not see the same TLS connection: somebody may be between us.
    case binding
    /// The client has ended the exchange.
    case cancelled
}

/// What the connection is known to be, as far as mechanisms care.
package struct ConnectionFacts: Equatable, Sendable {
    /// `tls-exporter` of RFC 9266; empty if there is none.
    package var exporterBinding: [UInt8]
    /// `tls-server-end-point` of RFC 5929; empty if there is none.
    package var endPointBinding: [UInt8]
    /// Whether the client was offered SCRAM-SHA-256-PLUS.
    package var offersBinding: Bool

    package init(exporterBinding: [UInt8] = [], endPointBinding: [UInt8] = [], offersBinding: Bool = false) {
        self.exporterBinding = exporterBinding
        self.endPointBinding = endPointBinding
        self.offersBinding = offersBinding
    }
}

/// An exchange as a machine: each event gives exactly one action.
package enum ServerExchange: Sendable {
    case plain(PlainServer)
    case login(LoginServer)
    case scram(SCRAMServer)
    case external(ExternalServer)

    package enum Event: Equatable, Sendable {
        /// The client has chosen the mechanism, with its first response if it had one at hand.
        case begun(initialResponse: [UInt8]?)
        case responded([UInt8])
        /// The answer to `checkPassword`.
        case checked(Bool)
        /// The answer to `findOwner`: nil if it is nobody, or not he who was claimed.
        case ownerFound([UInt8]?)
        /// The answer to `findKeys`. There are always keys: those of a user who does not exist open nothing.
        case keysFound(SCRAMKeys)
    }

    package enum Action: Equatable, Sendable {
        case challenge([UInt8])
        case checkPassword(user: [UInt8], password: [UInt8])
        case findKeys(user: [UInt8])
        /// Whether the client's certificate is one of the user who is claimed; nil: of whom it is.
        case findOwner(claimed: [UInt8]?)
        case grant(user: [UInt8])
        case deny(Denial)
    }

    /// - Parameter nonce: printable without commas, never the same twice; SCRAM alone uses it.
    /// - Returns: nil for the mechanisms that are only handed on.
    package init?(_ mechanism: SASLMechanism, facts: ConnectionFacts, nonce: [UInt8]) {
        switch mechanism {
        case .plain: self = .plain(PlainServer())
        case .login: self = .login(LoginServer())
        case .scramSHA256: self = .scram(SCRAMServer(isBound: false, facts: facts, nonce: nonce))
        case .scramSHA256Plus: self = .scram(SCRAMServer(isBound: true, facts: facts, nonce: nonce))
        case .external: self = .external(ExternalServer())
        case .oauthBearer, .xoauth2: return nil
        }
    }

    package mutating func receive(_ event: Event, _ cryptography: some SASLCryptography) -> Action {
        switch self {
        case .plain(var server):
            defer { self = .plain(server) }
            return server.receive(event)
        case .login(var server):
            defer { self = .login(server) }
            return server.receive(event)
        case .scram(var server):
            defer { self = .scram(server) }
            return server.receive(event, cryptography)
        case .external(let server): return server.receive(event)
        }
    }
}

/// The strings of credentials.
///
/// RFC 4013 (SASLprep) is applied as far as it concerns ASCII: control characters are refused, all else stands for
/// itself. Beyond ASCII the text must be UTF-8 and is taken as it came, without normalisation: whoever has an accent in
/// his password and two keyboards that compose it differently has two passwords.
package enum CredentialText {
    /// The name of a user in the form in which it is looked up, ASCII letters in lower case; nil if it can be none.
    package static func user(_ octets: some Collection<UInt8>) -> [UInt8]? {
        guard (1...SASLLimits.userOctetCountMax).contains(octets.count), Self.isText(octets),
            !octets.contains(ASCII.colon), octets.first != 0x23
        else { return nil }
        return octets.lowercasedOctets
    }

    package static func password(_ octets: some Collection<UInt8>) -> [UInt8]? {
        guard (1...SASLLimits.passwordOctetCountMax).contains(octets.count), Self.isText(octets) else { return nil }
        return Array(octets)
    }

    private static func isText(_ octets: some Collection<UInt8>) -> Bool {
        octets.allSatisfy { $0 >= 0x20 && $0 != 0x7F } && String(validating: octets, as: UTF8.self) != nil
    }
}
