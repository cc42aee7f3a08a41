// SPDX-License-Identifier: Apache-2.0
//
// The asking side of the dialect `vault` (pipes.md §7).

package import MailTypes
package import NIOCore
package import PipeCore
package import Unix

/// Somebody who carries an exchange of credentials between the vault and a client, or a server.
package protocol CredentialCarrier: AnyObject {
    /// - Parameter answer: nil if the vault is lost.
    func vaultAnswered(_ answer: VaultAnswer?)
}

/// The link to apus-vault, with the exchanges that are under way.
package final class VaultClient: LinkReceiver {
    private struct Entry {
        let link: Link
        let carrier: any CredentialCarrier
        /// A challenge or a proof was passed on; the vault waits for the other side.
        var isClientsTurn = false
    }

    private let program: String
    private let eventLoop: any EventLoop
    private var link: Link?
    private var entries: [UInt32: Entry] = [:]
    private var nextChannel: UInt32 = 1
    /// What can be offered, as the vault said last; while it is away, what it will be able to do again in a moment.
    package private(set) var mechanisms: [SASLMechanism] = []
    /// Told of what users have sent through other processes.
    package var othersSpent: ((UserExpense) -> Void)?

    /// - Parameter program: who asks.
    package init(program: String, eventLoop: any EventLoop) {
        self.program = program
        self.eventLoop = eventLoop
    }

    package var isAvailable: Bool { self.link != nil }

    /// Asks over a new link from now on. What goes on over the old one is lost.
    package func use(_ ends: LinkEnds) {
        let old = self.link
        self.link = Link(ends, program: self.program, receiver: self, on: self.eventLoop)
        old?.close()
    }

    /// Begins an exchange; nil if the vault is away.
    package func begin(_ beginning: ExchangeBeginning, for carrier: any CredentialCarrier) -> UInt32? {
        self.open(.begin(beginning), for: carrier)
    }

    /// Begins an exchange in which we are the client; nil if the vault is away.
    package func login(_ login: AccountLogin, for carrier: any CredentialCarrier) -> UInt32? {
        self.open(.login(login), for: carrier)
    }

    private func open(_ request: VaultRequest, for carrier: any CredentialCarrier) -> UInt32? {
        guard let link = self.link else { return nil }
        var channel = self.nextChannel
        while channel == 0 || self.entries[channel] != nil { channel &+= 1 }
        self.nextChannel = channel &+ 1
        self.entries[channel] = Entry(link: link, carrier: carrier)
        link.send { request.append(to: &$0, channel: channel) }
        return channel
    }

    /// What the client has answered to a challenge, or the challenge of a server.
    package func answer(_ response: [UInt8], on channel: UInt32) {
        guard let entry = self.entries[channel] else { return }
        self.entries[channel]?.isClientsTurn = false
        entry.link.send { VaultRequest.answer(response).append(to: &$0, channel: channel) }
    }

    /// The exchange is given up.
    ///
    /// - Parameter isOverdue: because the vault has not answered in time.
    /// - Returns: whether the vault had the word.
    @discardableResult
    package func cancel(_ channel: UInt32, isOverdue: Bool = false) -> Bool {
        guard let entry = self.entries.removeValue(forKey: channel) else { return false }
        entry.link.send { VaultRequest.cancel(isOverdue: isOverdue).append(to: &$0, channel: channel) }
        return !entry.isClientsTurn
    }

    /// Tells the other processes what a user has sent through this one. While the vault is away nobody is told.
    package func tell(_ expense: UserExpense) {
        guard let link = self.link, link.isWritable else { return }
        link.send { VaultRequest.spent(expense).append(to: &$0, channel: 0) }
    }

    // MARK: LinkReceiver

    package func linkOpened(_ link: Link, hello: Hello) {}

    package func linkReceived(_ frame: Frame, from link: Link) {
        do throws(FrameFault) {
            try self.receive(try VaultAnswer(frame), frame, link)
        } catch {
            link.close(because: error)
        }
    }

    private func receive(_ answer: VaultAnswer, _ frame: Frame, _ link: Link) throws(FrameFault) {
        if case .mechanisms(let mechanisms) = answer {
            guard frame.channel == 0 else { throw FrameFault(.badChannel, frame.verb) }
            if link === self.link { self.mechanisms = mechanisms }
            return
        }
        if case .spent(let expense) = answer {
            if link === self.link { self.othersSpent?(expense) }
            return
        }
        guard let entry = self.entries[frame.channel] else {
            // An answer to what was given up meanwhile.
            guard frame.channel < self.nextChannel else { throw FrameFault(.badChannel, frame.verb) }
            return
        }
        guard entry.link === link, !entry.isClientsTurn else { throw FrameFault(.outOfPlace, frame.verb) }
        switch answer {
        case .challenge, .proof: self.entries[frame.channel]?.isClientsTurn = true
        case .mechanisms, .spent, .granted, .denied, .later: self.entries[frame.channel] = nil
        }
        entry.carrier.vaultAnswered(answer)
    }

    package func linkClosed(_ link: Link) {
        if self.link === link { self.link = nil }
        let lost = self.entries.filter { $0.value.link === link }
        for channel in lost.keys { self.entries[channel] = nil }
        for entry in lost.values { entry.carrier.vaultAnswered(nil) }
    }
}
