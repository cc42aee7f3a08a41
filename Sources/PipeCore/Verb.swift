// SPDX-License-Identifier: Apache-2.0

import MailTypes

/// The first word of a frame. `Documentation/pipes.md` says which dialect has which.
package enum Verb: String, Sendable, CaseIterable {
    case hello
    // submit, and the exchange of a bounce
    case mail, rcpt, data, commit, abort, more, queued, refused
    // deliver
    case deliver, fate, go, want, outcome, forward, done, owed, noted
    // ask
    case check, resolve, owner, sender, local, remote, unknown, later, target, resolved
    // vault
    case mechanisms, begin, login, answer, cancel, challenge, proof, denied, spent
    // operate
    case count, list, show, flush, hold, release, remove, bounce, row, end, failed
    case filter, reroute, export, `import`, message, recipient, whole, gone, explain, step
    // control
    case setting, listen, unlisten, link, start, status, stop, ready, operate, granted, unlinked
    case certificate, certificates, tickets
    case settingsEnd = "settings-end"

    /// The octets on the wire.
    package var octets: [UInt8] { Array(self.rawValue.utf8) }

    /// Verbs by the length of their word, so that a look-up compares two or three short words and hashes nothing.
    private static let byCount: [[(word: [UInt8], verb: Verb)]] = (0...12).map { count in
        Verb.allCases.compactMap { verb in
            verb.rawValue.utf8.count == count ? (Array(verb.rawValue.utf8), verb) : nil
        }
    }

    package init?(octets: ArraySlice<UInt8>) {
        guard octets.count < Self.byCount.count else { return nil }
        for (word, verb) in Self.byCount[octets.count] where octets.elementsEqual(word) {
            self = verb
            return
        }
        return nil
    }
}
