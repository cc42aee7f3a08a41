// SPDX-License-Identifier: Apache-2.0

import Cryptography
import MailTypes
import PipeCore
import SASLCore
import Unix

/// Our own accounts at other servers, from a file; changes are seen without a restart.
final class Accounts {
    private struct Salting: Hashable {
        let password: [UInt8]
        let salt: [UInt8]
        let iterationCount: Int
    }

    private var secret: SecretFile
    private let cryptography = Cryptography()
    private var file: AccountFile?
    /// What was hashed before: a server asks with the same salt each time.
    private var salted: [Salting: [UInt8]] = [:]

    private static let saltedCountMax = 100

    init(path: String) {
        self.secret = SecretFile(
            path: path, octetCountMax: AccountFile.octetCountMax, complaintEvent: "accounts-unusable")
    }

    /// - Returns: nil, and a reason, if the file cannot be used or has no such account.
    func exchange(_ login: AccountLogin) -> Result<ClientExchange, AccountFault> {
        self.refresh()
        guard let file = self.file else { return .failure(AccountFault("\(self.secret.path) cannot be used")) }
        guard let password = file.password(host: login.host, user: login.user) else {
            return .failure(
                AccountFault(
                    "\(self.secret.path) has no password for \(login.user.printableText) at \(login.host.printableText)"
                ))
        }
        let nonce = Base64.encode(self.cryptography.randomOctets(18))
        guard let exchange = ClientExchange(login.mechanisms, user: login.user, password: password, nonce: nonce)
        else { return .failure(AccountFault("the server offers no mechanism that Apus knows")) }
        return .success(exchange)
    }

    func saltedPassword(_ login: AccountLogin, salt: [UInt8], iterationCount: Int) -> [UInt8] {
        let password = self.file?.password(host: login.host, user: login.user) ?? []
        let salting = Salting(password: password, salt: salt, iterationCount: iterationCount)
        if let salted = self.salted[salting] { return salted }
        if self.salted.count >= Self.saltedCountMax { self.salted = [:] }
        let salted = self.cryptography.saltedPassword(password, salt: salt, iterationCount: iterationCount)
        self.salted[salting] = salted
        return salted
    }

    private func refresh() {
        switch self.secret.look() {
        case .unchanged: return
        case .changed(let octets): self.take(AccountFile(octets: octets))
        case .unusable: self.file = nil
        }
        self.salted = [:]
    }

    private func take(_ file: AccountFile) {
        self.secret.report("account-fault", file.faults)
        self.file = file
        var line = LogLine("accounts-read")
        line.add("file", self.secret.path)
        line.add("accounts", file.count)
        line.write()
    }
}

/// Why we cannot prove who we are.
struct AccountFault: Error {
    let text: String

    init(_ text: String) { self.text = text }
}

/// An exchange in which we are the client; apus-remote carries it.
final class AccountExchange: Exchange {
    private let login: AccountLogin
    private let accounts: Accounts?
    private let cryptography = Cryptography()
    private var client: ClientExchange?
    private var answer: ((VaultAnswer) -> Void)?
    let isBusy = false

    init(_ login: AccountLogin, _ accounts: Accounts?, _ answer: @escaping (VaultAnswer) -> Void) {
        self.login = login
        self.accounts = accounts
        self.answer = answer
    }

    func begin() {
        guard let accounts = self.accounts else { return self.end("remote.passwords is not set") }
        switch accounts.exchange(self.login) {
        case .success(let client):
            self.client = client
            self.feed(.begun)
        case .failure(let fault): self.end(fault.text)
        }
    }

    func respond(_ response: [UInt8]) { self.feed(.challenged(response)) }

    func cancel() { self.answer = nil }

    private func feed(_ event: ClientExchange.Event) {
        guard let client = self.client else { return }
        var action = self.client?.receive(event, self.cryptography)
        if case .salt(let salt, let iterationCount) = action, let accounts = self.accounts {
            let salted = accounts.saltedPassword(self.login, salt: salt, iterationCount: iterationCount)
            action = self.client?.receive(.salted(salted), self.cryptography)
        }
        switch action {
        case .respond(let response, let isLast):
            self.answer?(.proof(client.mechanism, response: response, isLast: isLast))
        case .giveUp(.credentials): self.end("the server does not know the password itself")
        case .giveUp, .salt, nil: self.end("the server does not keep to \(client.mechanism.rawValue)")
        }
    }

    private func end(_ reason: String) {
        let answer = self.answer
        self.answer = nil
        self.client = nil
        answer?(.denied(reason: Array(reason.utf8), user: self.login.user))
    }
}
