// SPDX-License-Identifier: Apache-2.0
//
// The asking side of the dialect `ask` (pipes.md §4), for the question `check` only.

import MailTypes
import NIOCore
import PipeCore
import PipeDrivers
import Unix

/// What is known of a recipient.
enum RecipientCheck: Equatable {
    /// Ours, and exists.
    case local
    /// Not ours.
    case remote
    /// Ours, and does not exist.
    case unknown(EnhancedStatus, text: [UInt8])
    /// Cannot be told now, for a reason that is for the log.
    case later(reason: [UInt8])
    /// There is nobody to ask.
    case unavailable
}

/// Somebody who asked about a recipient.
protocol Asker: AnyObject {
    func checked(_ check: RecipientCheck)
}

/// The link to apus-lookup, with the questions that are under way, and the answers of the last moment.
///
/// Answers are kept for a breath only: a list server that sends a hundred messages to one address in a
/// second asks once. Refusals are not kept, so that a mailbox just made is found at the next attempt.
final class LookupClient: LinkReceiver {
    private struct Entry {
        let link: Link
        let asker: any Asker
        /// Under which the answer is remembered; nil: it is not.
        let path: [UInt8]?
    }

    private struct KnownCheck {
        let check: RecipientCheck
        let until: NIODeadline
    }

    private static let knownTime = TimeAmount.seconds(2)
    private static let knownCountMax = 4_096

    private let eventLoop: any EventLoop
    private var link: Link?
    private var entries: [UInt32: Entry] = [:]
    private var nextChannel: UInt32 = 1
    private var known: [[UInt8]: KnownCheck] = [:]

    init(eventLoop: any EventLoop) { self.eventLoop = eventLoop }

    var isAvailable: Bool { self.link != nil }

    /// Asks over a new link from now on. What was asked over the old one is told to be unavailable.
    func use(_ ends: LinkEnds) {
        let old = self.link
        self.link = Link(ends, program: "apus-smtpd", receiver: self, on: self.eventLoop)
        self.forgetAll()
        old?.close()
    }

    /// The tables may have changed: what is known counts no more.
    func forgetAll() { self.known.removeAll() }

    /// The answer if it is at hand, or the channel of the question, to which `asker` gets the answer later.
    enum Asked {
        case answered(RecipientCheck)
        case waiting(UInt32)
    }

    func check(_ path: ForwardPath, for asker: any Asker) -> Asked {
        let octets = path.octets
        if let known = self.known[octets], known.until > .now() { return .answered(known.check) }
        return self.ask(.check(path), remembering: octets, for: asker)
    }

    /// Whether a user of this machine may send as an address: `local` if so, `remote` if not.
    func checkOwner(_ path: ForwardPath, uid: UInt32, for asker: any Asker) -> Asked {
        self.ask(.owner(path, uid: uid), remembering: nil, for: asker)
    }

    /// Whether a user who has authenticated himself may send as an address: `local` if so, `remote` if not.
    func checkSender(_ path: ForwardPath, user: [UInt8], for asker: any Asker) -> Asked {
        self.ask(.sender(path, user: user), remembering: nil, for: asker)
    }

    private func ask(_ question: AskQuestion, remembering path: [UInt8]?, for asker: any Asker) -> Asked {
        guard let link = self.link else { return .answered(.unavailable) }
        var channel = self.nextChannel
        while channel == 0 || self.entries[channel] != nil { channel &+= 1 }
        self.nextChannel = channel &+ 1
        self.entries[channel] = Entry(link: link, asker: asker, path: path)
        link.send { question.append(to: &$0, channel: channel) }
        return .waiting(channel)
    }

    /// The answer is not wanted any more.
    func cancel(_ channel: UInt32) { self.entries[channel] = nil }

    // MARK: LinkReceiver

    func linkOpened(_ link: Link, hello: Hello) {}

    func linkReceived(_ frame: Frame, from link: Link) {
        do throws(FrameFault) {
            let check: RecipientCheck
            switch try AskAnswer(frame) {
            case .local: check = .local
            case .remote: check = .remote
            case .unknown(let status, let text): check = .unknown(status, text: text)
            case .later(let text): check = .later(reason: text)
            case .target, .resolved, .step: throw FrameFault(.outOfPlace, frame.verb)
            }
            try self.receive(check, frame, link)
        } catch {
            link.close(because: error)
        }
    }

    private func receive(_ check: RecipientCheck, _ frame: Frame, _ link: Link) throws(FrameFault) {
        guard let entry = self.entries[frame.channel] else {
            guard frame.channel < self.nextChannel else { throw FrameFault(.badChannel, frame.verb) }
            return
        }
        guard entry.link === link else { throw FrameFault(.badChannel, frame.verb) }
        self.entries[frame.channel] = nil
        if let path = entry.path, check == .local || check == .remote {
            if self.known.count >= Self.knownCountMax { self.known.removeAll(keepingCapacity: true) }
            self.known[path] = KnownCheck(check: check, until: .now() + Self.knownTime)
        }
        entry.asker.checked(check)
    }

    func linkClosed(_ link: Link) {
        if self.link === link { self.link = nil }
        let lost = self.entries.filter { $0.value.link === link }
        for channel in lost.keys { self.entries[channel] = nil }
        for entry in lost.values { entry.asker.checked(.unavailable) }
    }
}
