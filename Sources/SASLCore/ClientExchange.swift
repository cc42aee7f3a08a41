// SPDX-License-Identifier: Apache-2.0
//
// One exchange of credentials seen from the client (RFC 4422 §3): we prove to another server who we are.

package import MailTypes

/// An exchange as a machine: each event gives exactly one action.
///
/// SCRAM is not bound to the TLS connection here: who verifies the server's certificate, as is demanded for it, gains
/// little by it.
package struct ClientExchange: Sendable {
    package enum Event: Equatable, Sendable {
        case begun
        /// The server's challenge, decoded.
        case challenged([UInt8])
        /// The answer to `salt`: `PBKDF2(password, salt, iterationCount)`.
        case salted([UInt8])
    }

    package enum Action: Equatable, Sendable {
        /// For the server; nil: the mechanism has it speak first. Only if `isLast`, success may be believed then.
        case respond([UInt8]?, isLast: Bool)
        case salt(salt: [UInt8], iterationCount: Int)
        /// The server does not keep to the mechanism, or does not know the password itself.
        case giveUp(Denial)
    }

    private enum Phase: Sendable {
        case fresh
        /// LOGIN: the name was asked for. → `ended`
        case naming
        /// SCRAM: the server's first message is waited for. → `salting`
        case opening
        /// → `proving`
        case salting
        /// The server has to prove that it knows the password as well. → `ended`
        case proving(serverSignature: [UInt8])
        case ended
    }

    /// The best first; the others show the password, or need what is not ours.
    package static let mechanisms: [SASLMechanism] = [.scramSHA256, .plain, .login]
    /// More rounds of hashing are not done for any server: 100,000 take some 40 ms.
    package static let iterationCountMax = 100_000

    package let mechanism: SASLMechanism
    private let user: [UInt8]
    private let password: [UInt8]
    private let nonce: [UInt8]
    private var phase = Phase.fresh
    private var serverFirst: [UInt8] = []
    private var fullNonce: [UInt8] = []

    /// - Parameters:
    ///   - offered: what the server can do.
    ///   - nonce: printable without commas, never the same twice.
    /// - Returns: nil if there is nothing among it that we can do.
    package init?(_ offered: [SASLMechanism], user: [UInt8], password: [UInt8], nonce: [UInt8]) {
        guard let mechanism = Self.mechanisms.first(where: offered.contains) else { return nil }
        self.mechanism = mechanism
        self.user = user
        self.password = password
        self.nonce = nonce
    }

    package mutating func receive(_ event: Event, _ cryptography: some SASLCryptography) -> Action {
        switch (self.phase, event) {
        case (.fresh, .begun): return self.begin()
        case (.naming, .challenged):
            // Servers ask in words of their own; what counts is the order.
            self.phase = .ended
            return .respond(self.password, isLast: true)
        case (.opening, .challenged(let message)):
            if self.mechanism == .login {
                self.phase = .naming
                return .respond(self.user, isLast: false)
            }
            return self.readServerFirst(message)
        case (.salting, .salted(let password)): return self.prove(password, cryptography)
        case (.proving(let signature), .challenged(let message)):
            guard message.starts(with: "v=".utf8), let claimed = Base64.decode(message.dropFirst(2)),
                cryptography.areEqual(claimed, signature)
            else { return self.giveUp(.credentials) }
            self.phase = .ended
            return .respond([], isLast: true)
        case (.fresh, _), (.naming, _), (.opening, _), (.salting, _), (.proving, _), (.ended, _):
            return self.giveUp(.malformed)
        }
    }

    private mutating func begin() -> Action {
        self.phase = .opening
        switch self.mechanism {
        case .login:
            return .respond(nil, isLast: false)
        case .plain:
            self.phase = .ended
            return .respond([ASCII.nul] + self.user + [ASCII.nul] + self.password, isLast: true)
        default:
            return .respond(Array("n,,".utf8) + self.clientFirstBare, isLast: false)
        }
    }

    private mutating func giveUp(_ denial: Denial) -> Action {
        self.phase = .ended
        return .giveUp(denial)
    }

    // MARK: SCRAM (RFC 5802 §3)

    private var clientFirstBare: [UInt8] {
        var name: [UInt8] = []
        for octet in self.user {
            switch octet {
            case 0x2C: name.append(text: "=2C")
            case ASCII.equals: name.append(text: "=3D")
            default: name.append(octet)
            }
        }
        return Array("n=".utf8) + name + Array(",r=".utf8) + self.nonce
    }

    private mutating func readServerFirst(_ message: [UInt8]) -> Action {
        let parts = message.split(separator: 0x2C, omittingEmptySubsequences: false)
        // `m=` would be an extension that we have to understand, and do not.
        guard parts.count >= 3, parts[0].starts(with: "r=".utf8), parts[1].starts(with: "s=".utf8),
            parts[2].starts(with: "i=".utf8), let salt = Base64.decode(parts[1].dropFirst(2)),
            (1...1_024).contains(salt.count),
            let count = parts[2].dropFirst(2).decimal(limit: UInt64(Self.iterationCountMax)),
            // RFC 7677 §4: fewer rounds would let a server that is none ask for a proof that is easily guessed from.
            count >= SCRAMKeys.iterationCounts.lowerBound
        else { return self.giveUp(.malformed) }
        self.fullNonce = Array(parts[0].dropFirst(2))
        guard self.fullNonce.starts(with: self.nonce), self.fullNonce.count > self.nonce.count else {
            return self.giveUp(.malformed)
        }
        self.serverFirst = message
        self.phase = .salting
        return .salt(salt: salt, iterationCount: Int(count))
    }

    private mutating func prove(_ salted: [UInt8], _ cryptography: some SASLCryptography) -> Action {
        let clientKey = cryptography.authenticationCode(key: salted, Array("Client Key".utf8))
        let serverKey = cryptography.authenticationCode(key: salted, Array("Server Key".utf8))
        // `biws` is `n,,`.
        let withoutProof = Array("c=biws,r=".utf8) + self.fullNonce
        let comma: [UInt8] = [0x2C]
        let spoken = self.clientFirstBare + comma + self.serverFirst + comma + withoutProof
        let signature = cryptography.authenticationCode(key: cryptography.digest(clientKey), spoken)
        let proof = zip(clientKey, signature).map { $0 ^ $1 }
        self.phase = .proving(serverSignature: cryptography.authenticationCode(key: serverKey, spoken))
        return .respond(withoutProof + Array(",p=".utf8) + Base64.encode(proof), isLast: false)
    }
}
