// SPDX-License-Identifier: Apache-2.0

import MailTypes
import PipeCore
import Testing

private func octets(_ text: String) -> [UInt8] { Array(text.utf8) }

private func frame(_ octets: [UInt8]) throws -> Frame {
    var decoder = FrameDecoder()
    decoder.append(octets)
    return try #require(try decoder.next())
}

@Suite("The dialect vault")
struct VaultTests {
    @Test("says what users have sent, on channel 0, in both directions")
    func spent() throws {
        let expense = UserExpense(user: octets("joe"), messageCount: 1, recipientCount: 20)
        var sent: [UInt8] = []
        VaultRequest.spent(expense).append(to: &sent, channel: 0)
        #expect(try VaultRequest(frame(sent)) == .spent(expense))
        #expect(try VaultAnswer(frame(sent)) == .spent(expense))
    }

    @Test("says of an exchange that is given up whether the vault was too slow", arguments: [true, false])
    func cancel(isOverdue: Bool) throws {
        var sent: [UInt8] = []
        VaultRequest.cancel(isOverdue: isOverdue).append(to: &sent, channel: 3)
        #expect(try VaultRequest(frame(sent)) == .cancel(isOverdue: isOverdue))
        #expect(try frame(sent).fieldCount == (isOverdue ? 1 : 0))
    }

    @Test("refuses other words behind cancel")
    func wrongCancel() throws {
        for fields in [["late"], ["overdue", "overdue"], [""]] {
            var sent: [UInt8] = []
            sent.appendFrame(.cancel, 3, fields.map { octets($0) })
            let frame = try frame(sent)
            #expect(throws: FrameFault.self) { try VaultRequest(frame) }
        }
    }

    @Test(
        "refuses counts that are none, users without a name, and other channels",
        arguments: [
            (0, ["joe", "1"]), (0, ["joe", "1", "2", "3"]), (0, ["", "1", "1"]), (0, ["joe", "-1", "1"]),
            (0, ["joe", "1", "1000001"]), (0, ["joe", "99999999999999999999", "1"]), (0, ["joe", "", "1"]),
            (7, ["joe", "1", "1"]), (0, [String(repeating: "x", count: 1_000), "1", "1"]),
        ] as [(UInt32, [String])])
    func wrong(_ channel: UInt32, _ fields: [String]) throws {
        var sent: [UInt8] = []
        sent.appendFrame(.spent, channel, fields.map { octets($0) })
        let frame = try frame(sent)
        #expect(throws: FrameFault.self) { try VaultRequest(frame) }
        #expect(throws: FrameFault.self) { try VaultAnswer(frame) }
    }
}
