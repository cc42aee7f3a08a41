// SPDX-License-Identifier: Apache-2.0

import MailTypes
import NIOCore
import PipeCore
import PipeDrivers
import SASLCore
import SMTPCore
import Unix

/// What all sessions share about who is who: the vault, who has failed lately, and how much each user has sent.
final class AuthenticationDesk {
    /// What the settings say.
    struct Terms: Sendable {
        /// Whether clients of this machine may show passwords without TLS.
        var loopbackWithoutTLS = false
        var failureDelay = TimeAmount.seconds(2)
        var failureCountPerSessionMax = 3
        var failureCountPerClientMax = 10
        var failureCountPerUserMax = 50
        var failureSpan = Duration.seconds(600)
        /// Whether clients are asked for certificates, which may say who they are.
        var asksForCertificate = false
        var tellsClientAddress = true
        var messageCountPerHourMax: Int?
        var recipientCountPerHourMax: Int?
    }

    let vault: VaultClient
    let eventLoop: any EventLoop
    var failures: AuthenticationFailures
    private var messages = RecentCounts<[UInt8]>(span: .seconds(3_600), keyCountMax: 50_000)
    private var recipients = RecentCounts<[UInt8]>(span: .seconds(3_600), keyCountMax: 50_000)
    var grantedCount: UInt64 = 0
    var failedCount: UInt64 = 0

    init(vault: VaultClient, eventLoop: any EventLoop, terms: Terms) {
        self.vault = vault
        self.eventLoop = eventLoop
        self.failures = AuthenticationFailures(
            clientCountMax: terms.failureCountPerClientMax, userCountMax: terms.failureCountPerUserMax,
            span: terms.failureSpan)
        vault.othersSpent = { [weak self] expense in self?.count(expense) }
    }

    /// What was counted under other settings counts on.
    func replace(_ terms: Terms) {
        self.failures.clientCountMax = terms.failureCountPerClientMax
        self.failures.userCountMax = terms.failureCountPerUserMax
        self.failures.span = terms.failureSpan
    }

    /// Why a user may not send another message now; nil if he may.
    func messageRefusal(_ user: [UInt8], _ terms: Terms) -> Reply? {
        guard let limit = terms.messageCountPerHourMax,
            self.messages.count(of: user, now: ThisProcess.uptime) >= limit
        else { return nil }
        return .tooManyMessages(limit: limit)
    }

    /// Why a user may not have another recipient now; nil if he may.
    func recipientRefusal(_ user: [UInt8], _ terms: Terms) -> Reply? {
        guard let limit = terms.recipientCountPerHourMax,
            self.recipients.count(of: user, now: ThisProcess.uptime) >= limit
        else { return nil }
        return .tooManyHourlyRecipients(limit: limit)
    }

    func noteMessage(of user: [UInt8], _ terms: Terms) {
        if terms.messageCountPerHourMax != nil { self.spend(UserExpense(user: user, messageCount: 1)) }
    }

    func noteRecipient(of user: [UInt8], _ terms: Terms) {
        if terms.recipientCountPerHourMax != nil { self.spend(UserExpense(user: user, recipientCount: 1)) }
    }

    private func spend(_ expense: UserExpense) {
        self.count(expense)
        self.vault.tell(expense)
    }

    private func count(_ expense: UserExpense) {
        let now = ThisProcess.uptime
        if expense.messageCount > 0 { self.messages.add(expense.messageCount, to: expense.user, now: now) }
        if expense.recipientCount > 0 { self.recipients.add(expense.recipientCount, to: expense.user, now: now) }
    }
}
