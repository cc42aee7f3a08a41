// SPDX-License-Identifier: Apache-2.0

import PipeCore
import Settings
import Supervisor
import Testing

private let lookup = Part(.lookup)
private let vault = Part(.vault)
private let remote = Part(.remote)
private let local = Part(.local)
private let bounce = Part(.bounce)
private let queue = Part(.queue)
private let smtpd = Part(.smtpd)
private let all = [lookup, vault, remote, local, bounce, queue, smtpd]

/// All processes serve since second 0.
private func serving(workerCount: Int = 1, foreign: Set<ProgramName> = []) -> Supervision {
    var supervision = Supervision(workerCount: workerCount, foreign: foreign)
    _ = supervision.receive(.timePassed, now: .zero)
    for part in all { _ = supervision.receive(.ready(part), now: .zero) }
    for number in 1..<max(workerCount, 2) { _ = supervision.receive(.ready(Part(.smtpd, number)), now: .zero) }
    return supervision
}

@Suite struct SupervisionTests {
    @Test(
        "At the start all are started, linked and told to begin; apus-smtpd once those it asks serve, then ready is said"
    )
    func start() {
        var supervision = Supervision(workerCount: 1)
        #expect(
            supervision.receive(.timePassed, now: .zero) == [
                .spawn(lookup), .spawn(vault), .spawn(remote), .spawn(local), .spawn(bounce), .spawn(queue),
                .link(LinkPlan(.ask, from: queue, to: lookup)), .link(LinkPlan(.vault, from: remote, to: vault)),
                .link(LinkPlan(.deliver, from: queue, to: remote)),
                .link(LinkPlan(.deliver, from: queue, to: local)), .link(LinkPlan(.deliver, from: queue, to: bounce)),
                .start(lookup), .start(vault), .start(remote), .start(local), .start(bounce), .start(queue),
            ])
        for part in [lookup, vault, remote, local, bounce] {
            #expect(supervision.receive(.ready(part), now: .seconds(1)) == [])
        }
        #expect(
            supervision.receive(.ready(queue), now: .seconds(1)) == [
                .spawn(smtpd), .link(LinkPlan(.submit, from: smtpd, to: queue)),
                .link(LinkPlan(.ask, from: smtpd, to: lookup)), .link(LinkPlan(.vault, from: smtpd, to: vault)),
                .start(smtpd),
            ])
        #expect(supervision.receive(.ready(smtpd), now: .seconds(1)) == [.announceReady])
        #expect(supervision.nextDeadline == nil)
    }

    @Test("A queue that cannot begin does not keep apus-smtpd from saying so to its clients")
    func startWithoutQueue() {
        var supervision = Supervision(workerCount: 1)
        _ = supervision.receive(.timePassed, now: .zero)
        for part in [lookup, vault, remote, local, bounce] { _ = supervision.receive(.ready(part), now: .zero) }
        #expect(supervision.receive(.exited(queue), now: .seconds(1)).contains(.spawn(smtpd)))
    }

    @Test(
        "Who dies is started at once, gets its links anew, and nobody else is touched",
        arguments: [
            (lookup, [LinkPlan(.ask, from: smtpd, to: lookup), LinkPlan(.ask, from: queue, to: lookup)]),
            (remote, [LinkPlan(.vault, from: remote, to: vault), LinkPlan(.deliver, from: queue, to: remote)]),
            (vault, [LinkPlan(.vault, from: smtpd, to: vault), LinkPlan(.vault, from: remote, to: vault)]),
            (
                smtpd,
                [
                    LinkPlan(.submit, from: smtpd, to: queue), LinkPlan(.ask, from: smtpd, to: lookup),
                    LinkPlan(.vault, from: smtpd, to: vault),
                ]
            ),
            (
                queue,
                [
                    LinkPlan(.submit, from: smtpd, to: queue), LinkPlan(.ask, from: queue, to: lookup),
                    LinkPlan(.deliver, from: queue, to: remote), LinkPlan(.deliver, from: queue, to: local),
                    LinkPlan(.deliver, from: queue, to: bounce),
                ]
            ),
        ])
    func restart(part: Part, links: [LinkPlan]) {
        var supervision = serving()
        let actions = supervision.receive(.exited(part), now: .seconds(5))
        #expect(actions == [.spawn(part)] + links.map { .link($0) } + [.start(part)])
        #expect(supervision.state(of: part).restartCount == 1)
    }

    @Test("Dying again and again waits longer each time, up to the limit; a stable minute makes good")
    func backOff() {
        var supervision = serving()
        var now: Duration = .seconds(5)
        var waits: [Duration] = []
        for _ in 0..<8 {
            let actions = supervision.receive(.exited(remote), now: now)
            let due = actions.contains(.spawn(remote)) ? now : (supervision.nextDeadline ?? .zero)
            waits.append(due - now)
            if due > now {
                #expect(supervision.receive(.timePassed, now: due - .milliseconds(1)) == [])
                #expect(supervision.receive(.timePassed, now: due).first == .spawn(remote))
            }
            now = due + .milliseconds(10)
            _ = supervision.receive(.ready(remote), now: now)
        }
        #expect(waits == [0, 1, 2, 4, 8, 16, 30, 30].map { .seconds($0) })
        now += .seconds(60)
        #expect(supervision.receive(.exited(remote), now: now).first == .spawn(remote))
    }

    @Test("Who does not get ready in time is killed and counts as dead")
    func notReady() {
        var supervision = serving()
        _ = supervision.receive(.exited(queue), now: .seconds(5))
        #expect(supervision.nextDeadline == .seconds(125))
        #expect(supervision.receive(.timePassed, now: .seconds(125)) == [.kill(queue)])
        #expect(supervision.receive(.timePassed, now: .seconds(126)) == [])
        _ = supervision.receive(.exited(queue), now: .seconds(126))
        #expect(supervision.receive(.timePassed, now: .seconds(127)).first == .spawn(queue))
    }

    @Test("Who breaks the rules is killed, then started again")
    func misbehaved() {
        var supervision = serving()
        #expect(supervision.receive(.misbehaved(bounce), now: .seconds(1)) == [.kill(bounce)])
        #expect(supervision.receive(.exited(bounce), now: .seconds(1)).first == .spawn(bounce))
    }

    @Test("A link is made when the second of two dead ones lives again")
    func bothDead() {
        var supervision = serving()
        _ = supervision.receive(.exited(queue), now: .seconds(1))
        _ = supervision.receive(.exited(queue), now: .seconds(1))
        #expect(
            supervision.receive(.exited(remote), now: .seconds(1)) == [
                .spawn(remote), .link(LinkPlan(.vault, from: remote, to: vault)), .start(remote),
            ])
        #expect(
            supervision.receive(.timePassed, now: .seconds(2)).contains(
                .link(LinkPlan(.deliver, from: queue, to: remote))))
    }

    @Test("Stopping goes in order: nothing new, then what is in flight, then the agents")
    func stop() {
        var supervision = serving(workerCount: 2)
        let second = Part(.smtpd, 1)
        #expect(supervision.receive(.stop, now: .seconds(100)) == [.stop(smtpd), .stop(second)])
        #expect(supervision.receive(.exited(smtpd), now: .seconds(101)) == [])
        #expect(supervision.receive(.exited(second), now: .seconds(101)) == [.stop(queue)])
        #expect(
            supervision.receive(.exited(queue), now: .seconds(102)) == [
                .stop(lookup), .stop(vault), .stop(remote), .stop(local), .stop(bounce),
            ])
        for part in [lookup, vault, remote, local] {
            #expect(supervision.receive(.exited(part), now: .seconds(103)) == [])
        }
        #expect(supervision.receive(.exited(bounce), now: .seconds(103)) == [.finish])
    }

    @Test("Nothing is started while stopping, and who dies then is not missed")
    func deathWhileStopping() {
        var supervision = serving()
        _ = supervision.receive(.exited(remote), now: .seconds(99))
        _ = supervision.receive(.exited(remote), now: .seconds(99))
        #expect(supervision.receive(.stop, now: .seconds(100)) == [.stop(smtpd)])
        #expect(supervision.receive(.exited(queue), now: .seconds(100)) == [])
        #expect(
            supervision.receive(.exited(smtpd), now: .seconds(101)) == [
                .stop(lookup), .stop(vault), .stop(local), .stop(bounce),
            ])
    }

    @Test("Stopping never takes longer than its limit")
    func stopTimeout() {
        var supervision = serving()
        _ = supervision.receive(.stop, now: .seconds(100))
        #expect(supervision.nextDeadline == .seconds(115))
        #expect(supervision.receive(.timePassed, now: .seconds(115)) == [.kill(smtpd)])
        #expect(supervision.receive(.exited(smtpd), now: .seconds(115)) == [.stop(queue)])
        #expect(supervision.nextDeadline == .seconds(127))
        #expect(supervision.receive(.timePassed, now: .seconds(127)) == [.kill(queue)])
        _ = supervision.receive(.exited(queue), now: .seconds(127))
        #expect(supervision.nextDeadline == .seconds(130))
        #expect(
            supervision.receive(.timePassed, now: .seconds(130)) == [
                .kill(lookup), .kill(vault), .kill(remote), .kill(local), .kill(bounce),
            ])
    }

    @Test("The second signal kills at once")
    func kill() {
        var supervision = serving()
        _ = supervision.receive(.stop, now: .seconds(100))
        #expect(supervision.receive(.kill, now: .seconds(100)) == all.map { .kill($0) })
        for part in all.dropLast() { #expect(supervision.receive(.exited(part), now: .seconds(100)) == []) }
        #expect(supervision.receive(.exited(smtpd), now: .seconds(100)) == [.finish])
        #expect(supervision.receive(.stop, now: .seconds(101)) == [])
    }

    @Test("More workers are started and linked; workers too many are stopped and not missed")
    func workers() {
        var supervision = serving()
        let second = Part(.smtpd, 1)
        #expect(
            supervision.receive(.workerCount(2), now: .seconds(1)) == [
                .spawn(second), .link(LinkPlan(.submit, from: second, to: queue)),
                .link(LinkPlan(.ask, from: second, to: lookup)), .link(LinkPlan(.vault, from: second, to: vault)),
                .start(second),
            ])
        #expect(supervision.receive(.workerCount(1), now: .seconds(2)) == [.stop(second)])
        #expect(supervision.receive(.exited(second), now: .seconds(3)) == [])
        #expect(supervision.knownParts == all)
    }

    @Test("A worker that is wanted again while it stops is started again without waiting")
    func workerWantedAgain() {
        var supervision = serving(workerCount: 2)
        let second = Part(.smtpd, 1)
        _ = supervision.receive(.workerCount(1), now: .seconds(1))
        #expect(supervision.receive(.workerCount(2), now: .seconds(2)) == [])
        #expect(supervision.receive(.exited(second), now: .seconds(3)).first == .spawn(second))
    }

    @Test("Another's program is started after the queue, and started anew with a new queue")
    func foreign() {
        var supervision = Supervision(workerCount: 1, foreign: [.local])
        let first = supervision.receive(.timePassed, now: .zero)
        #expect(first.firstIndex(of: .spawn(local)) ?? 0 > first.firstIndex(of: .spawn(queue)) ?? 99)
        for part in all where part != local { _ = supervision.receive(.ready(part), now: .zero) }
        let actions = supervision.receive(.exited(queue), now: .seconds(5))
        #expect(actions.first == .stop(local))
        #expect(actions.contains(.spawn(queue)))
        #expect(!actions.contains(.link(LinkPlan(.deliver, from: queue, to: local))))
        #expect(
            supervision.receive(.exited(local), now: .seconds(6)) == [
                .spawn(local), .link(LinkPlan(.deliver, from: queue, to: local)), .start(local),
            ])
    }

    @Test("Another's program waits for a queue that is not there")
    func foreignWithoutQueue() {
        var supervision = serving(foreign: [.local])
        _ = supervision.receive(.exited(queue), now: .seconds(5))
        _ = supervision.receive(.exited(queue), now: .seconds(5))
        #expect(supervision.receive(.exited(local), now: .seconds(5)) == [])
        #expect(supervision.nextDeadline == .seconds(6))
        let actions = supervision.receive(.timePassed, now: .seconds(6))
        #expect(actions.contains(.spawn(local)))
        #expect(actions.contains(.link(LinkPlan(.deliver, from: queue, to: local))))
    }

    @Test("Whatever happens in whatever order, what lives is linked once, and stopping ends")
    func everyOrder() {
        for seed in UInt64(1)...300 {
            var random = SmallRandom(state: seed)
            var supervision = Supervision(workerCount: 2, foreign: seed % 3 == 0 ? [.remote] : [])
            var living: Set<Part> = []
            var now: Duration = .zero
            var isFinished = false
            func carryOut(_ actions: [Supervision.Action]) {
                for action in actions {
                    switch action {
                    case .spawn(let part): #expect(living.insert(part).inserted, "seed \(seed): started twice")
                    case .link(let link):
                        #expect(
                            living.contains(link.from) && living.contains(link.to), "seed \(seed): link to the dead")
                    case .start(let part), .stop(let part), .kill(let part):
                        #expect(living.contains(part), "seed \(seed): \(action)")
                    case .announceReady: break
                    case .finish: isFinished = true
                    }
                }
            }
            carryOut(supervision.receive(.timePassed, now: now))
            for step in 0..<200 where !isFinished {
                now += .milliseconds(Int(random.next() % 3_000))
                let some = living.sorted { $0.name < $1.name }
                let chosen = some.isEmpty ? lookup : some[Int(random.next() % UInt64(some.count))]
                switch random.next() % 8 {
                case 0, 1: carryOut(supervision.receive(.ready(chosen), now: now))
                case 2, 3: if living.remove(chosen) != nil { carryOut(supervision.receive(.exited(chosen), now: now)) }
                case 4: carryOut(supervision.receive(.misbehaved(chosen), now: now))
                case 5: carryOut(supervision.receive(.workerCount(Int(random.next() % 4)), now: now))
                case 6 where step > 150: carryOut(supervision.receive(.stop, now: now))
                default: carryOut(supervision.receive(.timePassed, now: now))
                }
            }
            carryOut(supervision.receive(.stop, now: now))
            var rounds = 0
            while !isFinished, rounds < 20 {
                rounds += 1
                now += .seconds(31)
                carryOut(supervision.receive(.timePassed, now: now))
                for part in living.sorted(by: { $0.name < $1.name }) {
                    living.remove(part)
                    carryOut(supervision.receive(.exited(part), now: now))
                }
            }
            #expect(isFinished, "seed \(seed): stopping does not end")
            #expect(living.isEmpty, "seed \(seed): \(living)")
        }
    }
}

/// A small generator (SplitMix64), so that a failure can be repeated by its seed.
private struct SmallRandom {
    var state: UInt64

    mutating func next() -> UInt64 {
        self.state &+= 0x9E37_79B9_7F4A_7C15
        var value = self.state
        value = (value ^ (value >> 30)) &* 0xBF58_476D_1CE4_E5B9
        value = (value ^ (value >> 27)) &* 0x94D0_49BB_1331_11EB
        return value ^ (value >> 31)
    }
}
