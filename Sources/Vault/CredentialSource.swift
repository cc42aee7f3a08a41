// SPDX-License-Identifier: Apache-2.0

import Cryptography
import MailTypes
import PipeCore
import SASLCore

/// Where it is known who is who. Everything is called on the event loop.
protocol CredentialSource: AnyObject {
    /// What would work for some user.
    var possibleMechanisms: [SASLMechanism] { get }
    /// What works for everybody, so that a client may choose any of it.
    var suitableMechanisms: [SASLMechanism] { get }
    /// Looks whether the source has changed.
    func refresh()
    /// - Parameter answer: called for each challenge, and once at the end; not after `Exchange.cancel`.
    func makeExchange(
        _ beginning: ExchangeBeginning, _ offered: [SASLMechanism], _ answer: @escaping (VaultAnswer) -> Void
    ) -> any Exchange
    /// The source is not needed any more; its exchanges end with `later`.
    func close()
}

extension CredentialSource {
    func refresh() {}
    func close() {}
}

/// One exchange with a client.
protocol Exchange: AnyObject {
    /// Whether it works on an answer: no response can come now.
    var isBusy: Bool { get }
    func begin()
    func respond(_ response: [UInt8])
    /// Nobody wants an answer any more.
    func cancel()
}

/// How the answer to a password came out.
enum PasswordVerdict: Equatable, Sendable {
    case right
    case wrong
    case later(String)
}

/// A source that is asked about passwords, and maybe more, while the mechanisms run here.
protocol PasswordChecker: AnyObject {
    func check(user: [UInt8], password: [UInt8], _ done: @escaping (PasswordVerdict) -> Void)
    /// Why it can be asked neither for keys nor for owners now; nil if it can. Nobody is told then that he is wrong.
    var trouble: String? { get }
    /// The keys of a user; of one who does not exist, or has none, keys that open nothing.
    func keys(of user: [UInt8]) -> SCRAMKeys?
    /// The user whose certificate it is, and who is claimed if somebody is.
    func owner(of certificate: [UInt8], claimed: [UInt8]?) -> [UInt8]?
}

extension PasswordChecker {
    var trouble: String? { nil }
    func keys(of user: [UInt8]) -> SCRAMKeys? { nil }
    func owner(of certificate: [UInt8], claimed: [UInt8]?) -> [UInt8]? { nil }
}

/// An exchange whose mechanism runs here: it carries out what `ServerExchange` decides.
final class OwnExchange: Exchange {
    private let beginning: ExchangeBeginning
    private let checker: any PasswordChecker
    private let cryptography = Cryptography()
    private var server: ServerExchange?
    private var answer: ((VaultAnswer) -> Void)?
    private var responseCount = 0
    /// Whom the client wants to be.
    private var user: [UInt8] = []
    private(set) var isBusy = false

    init(
        _ beginning: ExchangeBeginning, _ checker: any PasswordChecker, _ offered: [SASLMechanism],
        _ answer: @escaping (VaultAnswer) -> Void
    ) {
        self.beginning = beginning
        self.checker = checker
        self.answer = answer
        let hasBinding = !beginning.exporterBinding.isEmpty || !beginning.endPointBinding.isEmpty
        let facts = ConnectionFacts(
            exporterBinding: beginning.exporterBinding, endPointBinding: beginning.endPointBinding,
            offersBinding: hasBinding && offered.contains(.scramSHA256Plus))
        self.server = ServerExchange(
            beginning.mechanism, facts: facts, nonce: Base64.encode(self.cryptography.randomOctets(18)))
    }

    func begin() { self.feed(.begun(initialResponse: self.beginning.initialResponse)) }

    func respond(_ response: [UInt8]) {
        self.responseCount += 1
        guard self.responseCount <= SASLLimits.responseCountMax else { return self.end(.deny(.malformed)) }
        self.feed(.responded(response))
    }

    func cancel() { self.answer = nil }

    private func feed(_ event: ServerExchange.Event) {
        guard self.answer != nil else { return }
        guard let action = self.server?.receive(event, self.cryptography) else { return self.end(.deny(.malformed)) }
        switch action {
        case .challenge(let challenge):
            self.answer?(.challenge(challenge))
        case .checkPassword(let user, let password):
            self.user = user
            self.isBusy = true
            self.checker.check(user: user, password: password) { verdict in
                self.isBusy = false
                switch verdict {
                case .right: self.feed(.checked(true))
                case .wrong: self.feed(.checked(false))
                case .later(let text): self.finish(.later(text: Array(text.utf8)))
                }
            }
        case .findKeys(let user):
            self.user = user
            if let trouble = self.checker.trouble { return self.finish(.later(text: Array(trouble.utf8))) }
            guard let keys = self.checker.keys(of: user) else { return self.end(.deny(.credentials)) }
            self.feed(.keysFound(keys))
        case .findOwner(let claimed):
            self.user = claimed ?? []
            if let trouble = self.checker.trouble { return self.finish(.later(text: Array(trouble.utf8))) }
            let certificate = self.beginning.certificate
            let owner = certificate.isEmpty ? nil : self.checker.owner(of: certificate, claimed: claimed)
            self.feed(.ownerFound(owner))
        case .grant, .deny:
            self.end(action)
        }
    }

    private func end(_ action: ServerExchange.Action) {
        switch action {
        case .grant(let user): self.finish(.granted(user: user))
        case .deny(let denial): self.finish(.denied(reason: Array(denial.rawValue.utf8), user: self.user))
        case .challenge, .checkPassword, .findKeys, .findOwner: preconditionFailure("This is no end.")
        }
    }

    private func finish(_ last: VaultAnswer) {
        let answer = self.answer
        self.answer = nil
        answer?(last)
    }
}

/// Without a source nobody can be told.
final class NoSource: CredentialSource {
    let possibleMechanisms: [SASLMechanism] = []
    let suitableMechanisms: [SASLMechanism] = []

    func makeExchange(
        _ beginning: ExchangeBeginning, _ offered: [SASLMechanism], _ answer: @escaping (VaultAnswer) -> Void
    ) -> any Exchange {
        preconditionFailure("Nothing is offered, so nothing begins.")
    }
}
