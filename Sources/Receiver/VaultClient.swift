// SPDX-License-Identifier: Apache-2.0
//
// The asking side of the dialect `vault` (pipes.md §7).

import MailTypes
import NIOCore
import PipeCore
import PipeDrivers
import Unix

/// Somebody who carries an exchange of credentials between a client and the vault.
protocol CredentialCarrier: AnyObject {
    /// - Parameter answer: nil if the vault is lost.
    func vaultAnswered(_ answer: VaultAnswer?)
}

/// The link to apus-vault, with the exchanges that are under way.
final class VaultClient: LinkReceiver {
    private struct Entry {
        let link: Link
        let carrier: any CredentialCarrier
        /// A challenge was passed on; the vault waits for the client.
        var isClientsTurn = false
    }

    private let eventLoop: any EventLoop
    private var link: Link?
    private var entries: [UInt32: Entry] = [:]
    private var nextChannel: UInt32 = 1
    /// What can be offered, as the vault said last; while it is away, what it will be able to do again in a moment.
    private(set) var mechanisms: [SASLMechanism] = []

    init(eventLoop: any EventLoop) { self.eventLoop = eventLoop }

    var isAvailable: Bool { self.link != nil }

    /// Asks over a new link from now on. What goes on over the old one is lost.
    func use(_ ends: LinkEnds) {
        let old = self.link
        self.link = Link(ends, program: "apus-smtpd", receiver: self, on: self.eventLoop)
        old?.close()
    }

    /// Begins an exchange; nil if the vault is away.
    func begin(_ beginning: ExchangeBeginning, for carrier: any CredentialCarrier) -> UInt32? {
        guard let link = self.link else { return nil }
        var channel = self.nextChannel
        while channel == 0 || self.entries[channel] != nil { channel &+= 1 }
        self.nextChannel = channel &+ 1
        self.entries[channel] = Entry(link: link, carrier: carrier)
        link.send { VaultRequest.begin(beginning).append(to: &$0, channel: channel) }
        return channel
    }

    func answer(_ response: [UInt8], on channel: UInt32) {
        guard let entry = self.entries[channel] else { return }
        self.entries[channel]?.isClientsTurn = false
        entry.link.send { VaultRequest.answer(response).append(to: &$0, channel: channel) }
    }

    /// The exchange is given up.
    func cancel(_ channel: UInt32) {
        guard let entry = self.entries.removeValue(forKey: channel) else { return }
        entry.link.send { VaultRequest.cancel.append(to: &$0, channel: channel) }
    }

    // MARK: LinkReceiver

    func linkOpened(_ link: Link, hello: Hello) {}

    func linkReceived(_ frame: Frame, from link: Link) {
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
        guard let entry = self.entries[frame.channel] else {
            // An answer to what was given up meanwhile.
            guard frame.channel < self.nextChannel else { throw FrameFault(.badChannel, frame.verb) }
            return
        }
        guard entry.link === link, !entry.isClientsTurn else { throw FrameFault(.outOfPlace, frame.verb) }
        if case .challenge = answer {
            self.entries[frame.channel]?.isClientsTurn = true
        } else {
            self.entries[frame.channel] = nil
        }
        entry.carrier.vaultAnswered(answer)
    }

    func linkClosed(_ link: Link) {
        if self.link === link { self.link = nil }
        let lost = self.entries.filter { $0.value.link === link }
        for channel in lost.keys { self.entries[channel] = nil }
        for entry in lost.values { entry.carrier.vaultAnswered(nil) }
    }
}
