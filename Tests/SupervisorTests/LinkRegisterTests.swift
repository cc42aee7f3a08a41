// SPDX-License-Identifier: Apache-2.0

import PipeCore
import Settings
import Supervisor
import Testing

@Suite("The register of links")
struct LinkRegisterTests {
    static let smtpd = Part(.smtpd)
    static let queue = Part(.queue)
    static let lookup = Part(.lookup)
    static let local = Part(.local)

    /// A register with one link, number 1, between processes 10 and 20.
    private func register(_ plan: LinkPlan) -> LinkRegister {
        var register = LinkRegister()
        #expect(register.nextNumber() == 1)
        register.add(plan, 1, from: 10, to: 20, patience: .seconds(1))
        return register
    }

    @Test(
        "A link that both processes outlive costs one of them its place, whoever told of its end",
        arguments: [
            (LinkPlan(.submit, from: smtpd, to: queue), smtpd), (LinkPlan(.ask, from: smtpd, to: lookup), smtpd),
            (LinkPlan(.ask, from: queue, to: lookup), lookup), (LinkPlan(.deliver, from: queue, to: local), local),
        ])
    func cut(_ plan: LinkPlan, _ lesser: Part) {
        for teller in [plan.from, plan.to] {
            var register = self.register(plan)
            register.ended(1, toldBy: teller, now: .seconds(5))
            #expect(register.nextDeadline == .seconds(6))
            #expect(register.takeCut(now: .milliseconds(5_999)).isEmpty)
            #expect(register.takeCut(now: .seconds(6)).map(\.part) == [lesser])
            #expect(register.takeCut(now: .seconds(7)).isEmpty)
            #expect(register.nextDeadline == nil)
        }
    }

    @Test("A link that ended with one of its processes is forgotten with it", arguments: [10, 20] as [Int32])
    func ended(_ pid: Int32) {
        var register = self.register(LinkPlan(.submit, from: Self.smtpd, to: Self.queue))
        register.ended(1, toldBy: Self.smtpd, now: .zero)
        register.remove(pid)
        #expect(register.takeCut(now: .seconds(9)).isEmpty)
    }

    @Test("A part can tell nothing about links that are not its own")
    func strangers() {
        var register = self.register(LinkPlan(.deliver, from: Self.queue, to: Self.local))
        register.ended(1, toldBy: Self.smtpd, now: .zero)
        register.ended(2, toldBy: Self.queue, now: .zero)
        #expect(register.nextDeadline == nil)
        #expect(register.takeCut(now: .seconds(9)).isEmpty)
    }
}
