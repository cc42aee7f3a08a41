// SPDX-License-Identifier: Apache-2.0

import MailTypes
import PipeCore
import QueueCore

/// Where answers about a submission go.
protocol SubmissionHome: AnyObject {
    func submission(_ submission: Submission, queued id: MessageID)
    func submission(_ submission: Submission, refused refusal: Refusal)
    /// So many octets more may come.
    func submission(_ submission: Submission, granted octetCount: Int)
    /// A forwarded message is complete, and waits for what it is committed with.
    func submission(_ submission: Submission, ready message: NewMessage)
}

extension SubmissionHome {
    func submission(_ submission: Submission, ready message: NewMessage) {}
}

/// A message on its way into the queue: from `mail` until `queued` or `refused`.
final class Submission {
    /// The channel on its link.
    let channel: UInt32
    let mail: MailRequest
    /// The delivery that this report is about, or whose mail is forwarded; nil for ordinary mail.
    let reported: DeliveryID?
    let isForward: Bool
    /// Of a forward, the route of the delivery whose mail goes on.
    let source: Route?
    /// Set if each recipient's copy of it has a reverse-path of its own, whatever the settings say.
    let verp: VERPDelimiter?
    weak var home: (any SubmissionHome)?

    struct Recipient {
        let path: ForwardPath
        let dsn: RecipientDSN
        /// Nil: asked.
        var resolution: Resolution?
    }

    private(set) var recipients: [Recipient] = []
    private(set) var pendingCount = 0
    /// Content that has not been handed to the store.
    private(set) var content: [UInt8] = []
    private(set) var octetCount: UInt64 = 0
    /// Content that has.
    private(set) var spilledCount: UInt64 = 0
    private var credit: UInt64
    private let memory: ContentMemory
    /// Content that is in memory: here, or on its way to stable storage.
    private var heldOctetCount = 0
    var id: MessageID?
    var commit: CommitRequest?
    /// Its acceptance has been handed to the committer.
    var isCommitting = false
    /// Answered or given up: what comes still is ignored.
    private(set) var isEnded = false

    init(
        channel: UInt32, mail: MailRequest, reported: DeliveryID?, source: Route? = nil, verp: VERPDelimiter? = nil,
        credit: Int, memory: ContentMemory, home: any SubmissionHome
    ) {
        self.memory = memory
        self.verp = verp
        self.isForward = source != nil
        self.source = source
        self.channel = channel
        self.mail = mail
        self.reported = reported
        self.credit = UInt64(credit)
        self.home = home
    }

    /// Adds a recipient and answers its place.
    func add(_ path: ForwardPath, _ dsn: RecipientDSN) -> Int {
        self.recipients.append(Recipient(path: path, dsn: dsn))
        self.pendingCount += 1
        return self.recipients.count - 1
    }

    func resolved(_ place: Int, _ resolution: Resolution) {
        guard self.recipients[place].resolution == nil else { return }
        self.recipients[place].resolution = resolution
        self.pendingCount -= 1
    }

    /// Takes content in; throws if the other side had no credit for it.
    func append(_ octets: ArraySlice<UInt8>) throws(FrameFault) {
        self.octetCount += UInt64(octets.count)
        guard self.octetCount <= self.credit else { throw FrameFault(.creditExceeded, .data) }
        guard !self.isEnded else { return }
        self.heldOctetCount += octets.count
        self.memory.add(octets.count)
        if self.content.isEmpty { self.content.reserveCapacity(max(octets.count, 5_120)) }
        self.content += octets
    }

    func grant(_ octetCount: Int) { self.credit += UInt64(octetCount) }

    /// Hands out the whole chunks of the content, and where they begin.
    func takeChunks(of size: Int) -> (offset: UInt64, octets: [UInt8]) {
        let count = self.content.count / size * size
        let offset = self.spilledCount
        // Why a new array for the rest: the old one would keep its size, for a message that may not go on.
        let rest = Array(self.content[count...])
        var octets = rest
        swap(&octets, &self.content)
        octets.removeLast(rest.count)
        self.spilledCount += UInt64(count)
        return (offset, octets)
    }

    /// So much of what was handed out is on stable storage.
    func stored(_ octetCount: Int) {
        guard !self.isEnded else { return }
        self.heldOctetCount -= octetCount
        self.memory.remove(octetCount)
    }

    func takeRest() -> [UInt8] {
        defer { self.content = [] }
        return self.content
    }

    /// Gives its memory back.
    func end() {
        self.isEnded = true
        self.content = []
        self.memory.remove(self.heldOctetCount)
        self.heldOctetCount = 0
    }
}

extension Submission {
    /// What the recipients' answers make of the message.
    enum Verdict {
        case accepted([RecipientRecord])
        case refused(Refusal)
    }

    /// Makes the records of the recipients, aliases expanded, duplicates merged.
    ///
    /// A recipient that turns out not to exist is stored as failed, so that the sender is told; if it is the only one
    /// and the client still waits, it is refused. One in whose place several addresses get the mail is reported as
    /// expanded, if that is wished (RFC 3461 §5.2.7.3).
    ///
    /// - Parameter priority: what the settings make of the submitter's wish.
    func verdict(recipientCountMax: Int, priority: MailPriority, now: Timestamp) -> Verdict {
        let flow = MailFlow(self.mail.reversePath, priority)
        var records: [RecipientRecord] = []
        var seen: Set<Resolution.Target> = []
        let isSingle = self.recipients.count == 1
        var ended: [(path: ForwardPath, dsn: RecipientDSN, state: RecipientRecord.State)] = []
        for recipient in self.recipients {
            switch recipient.resolution {
            case nil, .later: return .refused(Refusals.lookupAway(recipient.path))
            case .unknown(let status, let text):
                if isSingle, self.reported == nil { return .refused(Refusals.unknown(status, text)) }
                // The failure of a report is told to the postmaster, though no sender can want it.
                guard self.mail.reversePath == .null || recipient.dsn.wants(.failure) else { continue }
                let failure = DeliveryOutcome(
                    .failed, code: 550, status: status, reporter: Array("apus-lookup".utf8), text: text)
                ended.append((recipient.path, recipient.dsn, .failed(failure)))
            case .targets(let found):
                let targets = self.withoutSource(found)
                let isExpanded = targets.count > 1
                if isExpanded, recipient.dsn.wants(.success), self.mail.reversePath != .null {
                    ended.append((recipient.path, recipient.dsn, .reporting(.expanded, Self.expansion)))
                }
                for target in targets where (isSingle && targets.count == 1) || seen.insert(target).inserted {
                    records.append(
                        RecipientRecord(
                            number: UInt32(records.count), forwardPath: target.forwardPath,
                            originalPath: target.forwardPath == recipient.path ? nil : recipient.path,
                            route: target.route, flow: flow, state: .queued(last: nil), due: now,
                            dsn: isExpanded ? recipient.dsn.ofExpansion : recipient.dsn))
                }
            }
            guard records.count + ended.count <= recipientCountMax else {
                return .refused(Refusals.tooManyRecipients)
            }
        }
        for (path, dsn, state) in ended {
            records.append(
                RecipientRecord(
                    number: UInt32(records.count), forwardPath: path, originalPath: nil,
                    // Nobody delivers it: the state leads to the bounce agent.
                    route: .local(user: Array("nobody".utf8)), flow: flow, state: state, due: now,
                    lastAttempt: now, dsn: dsn))
        }
        // None exists, and the sender does not want to hear of any: the client does.
        guard !records.isEmpty else { return .refused(Refusals.unknown(EnhancedStatus(.permanent, 1, 1), [])) }
        return .accepted(records)
    }

    /// Leaves out the alias that has just been done. One that names itself by an address of another domain of ours leads to the
    /// user behind it and to itself, and its programs would be run twice.
    private func withoutSource(_ targets: [Resolution.Target]) -> [Resolution.Target] {
        guard let source = self.source, case .alias = source, targets.count > 1 else { return targets }
        return targets.filter { $0.route != source }
    }

    private static let expansion = DeliveryOutcome(
        .delivered, code: 0, status: EnhancedStatus(.success, 0, 0), reporter: "apus-lookup",
        text: "sent on to the addresses behind this one")
}

/// Every refusal that the queue can give, in the order of codes.
enum Refusals {
    /// Names the recipient: without it neither side could tell which of many is in the way.
    static func lookupAway(_ path: ForwardPath) -> Refusal {
        Refusal(451, EnhancedStatus(.transient, 3, 0), "cannot look up <\(path.octets.printableText)> now")
    }

    static let broken = Refusal(451, EnhancedStatus(.transient, 3, 0), "the queue has a fault")
    static let miscounted = Refusal(451, EnhancedStatus(.transient, 3, 0), "the content did not arrive whole")
    static let stopping = Refusal(451, EnhancedStatus(.transient, 3, 2), "the queue is stopping")
    static let full = Refusal(452, EnhancedStatus(.transient, 3, 1), "the queue is full")
    static let crowded = Refusal(452, EnhancedStatus(.transient, 3, 1), "too much mail is arriving")
    static let tooManyRecipients = Refusal(452, EnhancedStatus(.transient, 5, 3), "too many recipients")
    static let tooLarge = Refusal(552, EnhancedStatus(.permanent, 3, 4), "the message is too large")

    static func unknown(_ status: EnhancedStatus, _ text: [UInt8]) -> Refusal {
        Refusal(550, status, text.isEmpty ? "no such recipient" : text.printableText)
    }
}
