// SPDX-License-Identifier: Apache-2.0

import MailTypes
import NIOCore
import PipeCore
import PipeDrivers
import SMTPCore
import SMTPDrivers
import TLSEngine
import Unix

/// Who we are to other servers. The vault has the passwords and makes the proofs; here they are carried.
final class SenderAuthentication {
    /// One exchange: it ends when the connection is ready or closed.
    private final class Exchange: CredentialCarrier {
        let connection: ClientConnection
        let user: [UInt8]
        var channel: UInt32?

        init(_ connection: ClientConnection, user: [UInt8]) {
            self.connection = connection
            self.user = user
        }

        func vaultAnswered(_ answer: VaultAnswer?) {
            switch answer {
            case .proof(let mechanism, let response, let isLast):
                self.connection.prove(.response(mechanism, response, isLast: isLast))
            case .denied(let reason, _): self.refuse(reason.printableText)
            case .later(let text): self.refuse(text.printableText)
            case .mechanisms, .spent, .challenge, .granted: self.refuse("apus-vault does not keep to the dialect")
            case nil: self.refuse("apus-vault is away")
            }
        }

        private func refuse(_ reason: String) {
            self.channel = nil
            self.connection.prove(.none(reason))
        }
    }

    private let vault: VaultClient
    /// By the number of the connection.
    private var exchanges: [UInt64: Exchange] = [:]

    init(eventLoop: any EventLoop) { self.vault = VaultClient(program: "apus-remote", eventLoop: eventLoop) }

    func use(_ ends: LinkEnds) { self.vault.use(ends) }

    /// - Parameter isLocal: whether the server is on this machine, so that nobody is between us.
    func begin(_ connection: ClientConnection, user: [UInt8], nextHop: NextHop, isLocal: Bool) {
        // Whoever can stand in for the server would get the password, or what it can be guessed from.
        guard isLocal || connection.tls?.isVerified == true else {
            return connection.prove(
                .none("a password goes over TLS with a verified certificate only (tls = \"verify\" or \"implicit\")"))
        }
        let exchange = Exchange(connection, user: user)
        let login = AccountLogin(
            host: nextHop.name, user: user, mechanisms: connection.capabilities.mechanisms)
        guard let channel = self.vault.login(login, for: exchange) else {
            return connection.prove(.none("apus-vault is away"))
        }
        exchange.channel = channel
        self.exchanges[connection.number] = exchange
    }

    func challenged(_ connection: ClientConnection, _ challenge: [UInt8]) {
        guard let channel = self.exchanges[connection.number]?.channel else {
            return connection.prove(.none("the exchange is over"))
        }
        self.vault.answer(challenge, on: channel)
    }

    /// - Returns: as whom we were taken, if the connection is ready.
    func end(_ connection: ClientConnection) -> [UInt8]? {
        guard let exchange = self.exchanges.removeValue(forKey: connection.number) else { return nil }
        if let channel = exchange.channel { self.vault.cancel(channel) }
        return exchange.user
    }
}
