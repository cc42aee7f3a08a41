// SPDX-License-Identifier: Apache-2.0

package import MailTypes
package import QueueCore

/// What happened outside of the queue, where no crash can undo it: the truth that the checkers hold the queue against.
package struct Ledger: Sendable {
    /// Recipients of messages whose acceptance is on the disk, whether or not the submitter heard of it.
    package var offered: Set<RecipientKey> = []
    /// Recipients of messages whose submitter was told that they are queued.
    package var acknowledged: Set<RecipientKey> = []
    /// How often a recipient's mail reached the mailbox.
    package var deliveryCounts: [RecipientKey: Int] = [:]
    /// How often a report about a recipient came into the queue. A report counts when its transaction is whole.
    package var reportCounts: [RecipientKey: Int] = [:]
    /// Recipients that a peer or the queue's patience has failed.
    package var failed: Set<RecipientKey> = []
    /// Failed recipients of messages without a sender to tell.
    package var dropped: Set<RecipientKey> = []
    /// Recipients that the operator took out.
    package var removed: Set<RecipientKey> = []
    /// Messages without a reverse-path.
    package var reports: Set<MessageID> = []
    /// Recipients whose delivery was cut off by a crash or a lost agent, so that a second one is lawful.
    package var cutOff: Set<RecipientKey> = []

    package init() {}
}

/// One rule about the whole, in one sentence; `faults` names every breach of it.
package protocol Checker: Sendable {
    /// - Parameter isAtRest: whether everything that could be done has been done.
    func faults(_ ledger: Ledger, _ store: MemoryQueueStore, isAtRest: Bool) throws(StoreFault) -> [String]
}
