// SPDX-License-Identifier: Apache-2.0

import QueueCore

/// How a world behaves.
package struct WorldRules: Sendable {
    package var seed: UInt64
    /// Steps with faults, before the world heals and comes to rest.
    package var stepCount: Int
    /// How likely each event is, in a hundred; faults that are switched off never happen.
    package var crashWeight: Int
    package var agentLossWeight: Int
    package var storeFullWeight: Int
    package var operatorWeight: Int
    package var clockJumpWeight: Int
    /// Agents that repeat, leave out or cut off their frames.
    package var frameFaultWeight: Int
    /// Times in which one destination answers everything with 4xx.
    package var stormWeight: Int
    /// Commits that fail without telling whether the disk has them.
    package var commitErrorWeight: Int
    /// Of a hundred answers of peers, so many are temporary and so many permanent failures.
    package var deferredWeight: Int
    package var failedWeight: Int
    /// Of a hundred deliveries of local mail, so many go on to others.
    package var forwardWeight: Int
    /// Pauses, other settings, and stops in order.
    package var changeWeight: Int
    /// A crash exactly before this point; for the exhaustive mode.
    package var crashPoint: Int?
    /// The canary: the commit with this number claims success and does nothing.
    package var skippedCommit: Int?
    /// A broken world, which one of the checkers must find.
    package var canary: Canary?
    /// Messages handed in before the first step, and whether more follow.
    package var firstMessageRecipientCount: Int?

    /// Some faults are left out by chance, so that rare combinations happen.
    package init(seed: UInt64, stepCount: Int = 1_500) {
        var random = SeededGenerator(seed: seed)
        func weight(_ most: Int) -> Int { Int.random(in: 0...3, using: &random) == 0 ? 0 : most }
        self.seed = seed
        self.stepCount = stepCount
        self.crashWeight = weight(2)
        self.agentLossWeight = weight(2)
        self.storeFullWeight = weight(2)
        self.operatorWeight = weight(4)
        self.clockJumpWeight = weight(1)
        self.frameFaultWeight = weight(3)
        self.stormWeight = weight(3)
        self.commitErrorWeight = weight(1)
        self.deferredWeight = weight(40)
        self.failedWeight = weight(20)
        self.forwardWeight = weight(40)
        self.changeWeight = weight(3)
    }

    /// One message, no chance, no faults but a crash at `crashPoint`.
    package init(recipientCount: Int, crashPoint: Int?) {
        self.init(seed: 1, stepCount: 0)
        self.crashWeight = 0
        self.agentLossWeight = 0
        self.storeFullWeight = 0
        self.operatorWeight = 0
        self.clockJumpWeight = 0
        self.frameFaultWeight = 0
        self.stormWeight = 0
        self.commitErrorWeight = 0
        self.changeWeight = 0
        self.deferredWeight = 30
        self.failedWeight = 40
        self.forwardWeight = 40
        self.crashPoint = crashPoint
        self.firstMessageRecipientCount = recipientCount
    }
}

/// One rule broken on purpose: a checker that does not find it proves nothing.
package enum Canary: String, Sendable, CaseIterable {
    /// A commit claims success and does nothing.
    case skippedCommit = "NothingLost"
    /// Somebody gets a message that was never handed in.
    case inventedDelivery = "NothingInvented"
    /// The report and what it reports are two transactions, and a crash may come between.
    case halvedExchange = "OneReportPerFailure"
    /// The bounce agent reports whatever it is given.
    case reportedReport = "NoReportForReport"
    /// The queue forgets what the sender wished about reports.
    case lostWish = "ReportsAsWished"
    /// The mail that goes on and the settlement of its recipient are two transactions.
    case halvedForward = "ForwardedOnce"
    /// A delivery is handed to two agents.
    case doubledDispatch = "DuplicateOnlyAfterCrash"
    /// The scheduler believes in wider windows than it was given.
    case widenedWindow = "WindowRespected"
    /// The scheduler knows of no pace.
    case hastyStart = "PaceRespected"
    /// The scheduler believes in more memory than it was given.
    case boundlessMemory = "BoundedMemory"
    /// An entry of the due index is lost while its recipient stays.
    case lostDueEntry = "StatesLegal"

    /// The checker that must find it.
    package var checkerName: String { self.rawValue }
}
