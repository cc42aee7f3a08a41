// SPDX-License-Identifier: Apache-2.0

import MailTypes
import PipeCore
import Unix

/// One delivery: a message on its way into the mailbox of some recipients, who are one user.
struct LocalJob {
    enum Phase: Equatable {
        /// → `head`
        case envelope
        /// The first octets are asked for. → `body`, `ended`
        case head
        /// The file is being written. → `complete`, `ended`
        case body
        /// All is written, but not durable. → `ended`
        case complete
        /// The message is there whole; mailboxes and programs get it one after the other. → `ended`
        case running
        /// `done` was sent.
        case ended

        /// Whether more of the message is to come.
        var isReceiving: Bool { self == .envelope || self == .head || self == .body }
    }

    struct Published {
        let recipient: DeliveryRecipient
        /// By an earlier attempt.
        let isEarlier: Bool
    }

    let delivery: Delivery
    /// What is done with it, for every recipient; nil: what the alias says to which it goes.
    let instruction: LocalInstruction?
    var recipients: [DeliveryRecipient] = []
    var phase = Phase.envelope
    /// The beginning of the content, until the file is begun.
    var head: [UInt8] = []
    var receivedCount: UInt64 = 0
    /// Up to where the content was asked for.
    var wantedEnd: UInt64 = .max
    /// Recipients who have no outcome yet; the file is the first one's.
    var copies: [DeliveryRecipient] = []
    var mailbox: OpenMaildir?
    var file: MaildirFile?
    /// What is done for each recipient, if it is not the same for all.
    var plans: [LocalPlan]?
    /// Numbers of recipients whose mail is tried again although it is in all their mailboxes.
    var owed: Set<UInt32> = []
    /// Of Maildirs that plans led to.
    var planWitnesses: [LocalRun.Witness] = []
    /// The message as it comes, if it does not go into a Maildir.
    var content: ContentFile?
    /// Why the file is not on stable storage, after `syncFile`; nil if it is.
    private(set) var syncFault: SystemError?
    /// Where the content begins in the file.
    var contentOffset: UInt64 = 0
    /// Recipients whose mail is in `new`, but for whom that is not yet durable.
    var published: [Published] = []
    /// Names of files whose witnesses are to be removed when the outcomes are committed.
    var witnesses: [String] = []

    init(_ delivery: Delivery, _ instruction: LocalInstruction?) {
        self.delivery = delivery
        self.instruction = instruction
    }

    /// Step 2 of `Maildir.swift` for the file, if there is one.
    mutating func syncFile() {
        do throws(SystemError) { try self.file?.sync() } catch { self.syncFault = error }
    }

    /// Takes back what was written of it.
    mutating func dropFile() {
        self.file?.discard()
        self.file?.close()
        self.file = nil
    }

    /// Step 6 of `Maildir.swift`, but for mail that is tried again: its witnesses must keep it from being there twice.
    func removeWitnesses() {
        for witness in self.planWitnesses where !self.owed.contains(witness.number) {
            MaildirFile.removeWitness(witness.name, in: witness.mailbox.maildir)
        }
        guard let mailbox = self.mailbox else { return }
        for name in self.witnesses { MaildirFile.removeWitness(name, in: mailbox.maildir) }
    }
}

extension Delivery {
    /// The fields that final delivery puts in front (RFC 5321 §4.4), with LF line ends.
    ///
    /// - Parameter sender: nil: as the delivery says.
    func lines(for recipient: DeliveryRecipient, from sender: ReversePath? = nil) -> [UInt8] {
        var lines: [UInt8] = []
        lines.append(text: "Return-Path: <")
        lines += (sender ?? self.reversePath).octets
        lines.append(text: ">\n")
        if let original = recipient.originalForwardPath {
            lines.append(text: "X-Original-To: ")
            lines += original.octets
            lines.append(ASCII.lineFeed)
        }
        lines.append(text: "Delivered-To: ")
        lines += recipient.forwardPath.octets
        lines.append(ASCII.lineFeed)
        return lines
    }
}

/// What can become of a recipient here.
enum LocalFate {
    case delivered
    case deliveredEarlier
    /// The message has been in this mailbox before.
    case loop
    case world(SystemError, LocalJob)

    static let reporter = "apus-local"

    var outcome: DeliveryOutcome {
        switch self {
        case .delivered:
            return Self.outcome(.delivered, EnhancedStatus(.success, 0, 0), "in the mailbox")
        case .deliveredEarlier:
            return Self.outcome(
                .delivered, EnhancedStatus(.success, 0, 0), "an earlier attempt had put it into the mailbox")
        case .loop:
            return Self.outcome(
                .failed, EnhancedStatus(.permanent, 4, 6), "mail loop: it has been delivered to this address before")
        case .world(let error, let job):
            Self.log(error, job)
            return Self.outcome(of: error)
        }
    }

    static var tooManyForwards: DeliveryOutcome {
        Self.outcome(
            .deferred, EnhancedStatus(.transient, 3, 2), "it goes on to many addresses, and those of others come first")
    }

    static var discarded: DeliveryOutcome {
        Self.outcome(.delivered, EnhancedStatus(.success, 0, 0), "discarded, as the settings say")
    }

    static func outcome(_ kind: DeliveryOutcome.Kind, _ status: EnhancedStatus, _ text: String) -> DeliveryOutcome {
        DeliveryOutcome(kind, code: 0, status: status, reporter: Self.reporter, text: text)
    }

    /// A file that says what becomes of the mail is not in order: the mail waits until somebody has seen to it.
    static func wait(_ text: String) -> DeliveryOutcome {
        Self.outcome(.deferred, EnhancedStatus(.transient, 3, 5), text)
    }

    /// What a fault of the system means for the mail. Only what can never succeed fails.
    static func outcome(of error: SystemError) -> DeliveryOutcome {
        switch error.code {
        case Errno.fileTooBig:
            outcome(.failed, EnhancedStatus(.permanent, 2, 3), "larger than a file of this user may be: \(error.text)")
        case Errno.overQuota:
            outcome(.deferred, EnhancedStatus(.transient, 2, 2), "the mailbox is over its quota: \(error.text)")
        case Errno.noSpace:
            outcome(.deferred, EnhancedStatus(.transient, 3, 1), "no space for the mailbox: \(error.text)")
        case Errno.wouldBlock where error.operation == "lock":
            outcome(.deferred, EnhancedStatus(.transient, 2, 0), "another attempt is at this delivery")
        case _ where error.operation == "use":
            outcome(
                .deferred, EnhancedStatus(.transient, 2, 0),
                "\(error.subject) is not a file of this user alone: a link, somebody else's, or no file at all")
        case _ where Errno.ofMailbox.contains(error.code):
            outcome(.deferred, EnhancedStatus(.transient, 2, 0), "the mailbox cannot be written: \(error.text)")
        case _ where Errno.ofSystem.contains(error.code):
            outcome(.deferred, EnhancedStatus(.transient, 3, 2), "the system is short of something: \(error.text)")
        default:
            outcome(.deferred, EnhancedStatus(.transient, 3, 0), "the mailbox cannot be written: \(error.text)")
        }
    }

    private static func log(_ error: SystemError, _ job: LocalJob) {
        var line = LogLine("mailbox-fault")
        line.add("id", job.delivery.id)
        if case .maildir(let place)? = job.instruction { line.add("mailbox", place.path) }
        line.add("reason", error.text)
        line.write()
    }
}
