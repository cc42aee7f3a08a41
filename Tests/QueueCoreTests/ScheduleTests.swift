// SPDX-License-Identifier: Apache-2.0

import MailTypes
import QueueCore
import Simulation
import Testing

@Suite struct RetryScheduleTests {
    private static let schedule = RetrySchedule(minimum: .seconds(300), maximum: .seconds(14_400))

    @Test(
        "the wait doubles from the minimum to the maximum",
        arguments: [(1, 300), (2, 600), (3, 1_200), (6, 9_600), (7, 14_400), (8, 14_400), (4_000_000_000, 14_400)])
    func doubling(_ attemptCount: UInt32, _ seconds: Int) {
        // Half of the jitter's range is the plain value.
        #expect(Self.schedule.delay(attemptCount: attemptCount, random: 512) == .seconds(seconds))
    }

    @Test("jitter stays within an eighth above and below")
    func jitter() {
        for random in UInt64(0)...2_048 {
            let delay = Self.schedule.delay(attemptCount: 2, random: random)
            #expect(delay >= .seconds(525) && delay < .seconds(675))
        }
    }

    @Test("limits that make no sense are made sensible")
    func limits() {
        let schedule = RetrySchedule(minimum: .seconds(10), maximum: .seconds(1))
        #expect(schedule.maximum == .seconds(10))
        #expect(RetrySchedule(minimum: .zero, maximum: .zero).minimum > .zero)
    }
}

@Suite struct DestinationWindowTests {
    @Test("a window's worth of answers widens the window by one, up to its maximum")
    func growth() {
        var window = DestinationWindow(maximum: 7)
        var sizes: [Int] = []
        for _ in 0..<20 {
            window.started()
            let isDown = window.ended(.answered)
            #expect(!isDown)
            sizes.append(window.size)
        }
        #expect(sizes == [5, 5, 5, 5, 6, 6, 6, 6, 6, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7])
    }

    @Test("three failures of the host in a row mean that it is down; one answer between them does not")
    func down() {
        var window = DestinationWindow(maximum: 20)
        let feedback: [(DestinationWindow.Feedback, Bool)] = [
            (.failed, false), (.failed, false), (.answered, false), (.failed, false), (.failed, false), (.failed, true),
        ]
        for (told, isDown) in feedback {
            window.started()
            let found = window.ended(told)
            #expect(found == isDown)
        }
        #expect(window.size == 1)
    }

    @Test("a probe that fails says down at once, one that is answered opens the window")
    func probing() {
        var failing = DestinationWindow(maximum: 20, isProbing: true)
        #expect(failing.size == 1)
        failing.started()
        #expect(!failing.hasRoom)
        let isDown = failing.ended(.failed)
        #expect(isDown)
        var answered = DestinationWindow(maximum: 20, isProbing: true)
        answered.started()
        let isStillDown = answered.ended(.answered)
        #expect(!isStillDown && answered.size == 5)
    }

    @Test("a lost agent tells nothing about the destination")
    func loss() {
        var window = DestinationWindow(maximum: 1)
        window.started()
        #expect(!window.hasRoom)
        window.ended()
        #expect(window.hasRoom && window.size == 1)
    }
}

@Suite struct MessageNumberingTests {
    @Test("ids ascend strictly, whatever the clock does, and never fall back behind the store's last one")
    func ascent() {
        var numbering = MessageNumbering(last: MessageID(rawValue: 1_000))
        var last = numbering.last
        for now: UInt64 in [5, 999, 1_000, 1_001, 2_000, 2_000, 1, 3_000] {
            let id = numbering.next(now: Timestamp(microseconds: now))
            #expect(id > last && id.rawValue >= now)
            last = id
        }
    }
}
