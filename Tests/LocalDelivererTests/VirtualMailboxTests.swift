// SPDX-License-Identifier: Apache-2.0

import LocalDeliverer
import MailTypes
import PipeCore
import Testing

private func octets(_ text: String) -> [UInt8] { Array(text.utf8) }

private func name(_ local: String, _ domain: String = "example.org") throws -> MailboxName {
    try #require(MailboxName(domain: octets(domain), localPart: octets(local)))
}

@Suite("Mailboxes of virtual users")
struct VirtualMailboxTests {
    @Test(
        "are where the template says",
        arguments: [
            ("maildir:/srv/vmail/%{domain}/%{local}", "joe", "/srv/vmail/example.org/joe"),
            ("maildir:~/%{domain}/%{local}", "joe", "/home/vmail/example.org/joe"),
            ("maildir:/srv/%{domain}/%{local}/Maildir/", "joe+x", "/srv/example.org/joe+x/Maildir"),
            ("maildir:/srv/%{local}@%{domain}", "j.o", "/srv/j.o@example.org"),
            ("maildir:/srv/%{domain}/%{local}", "../../etc", "/srv/example.org/%2E.%2F..%2Fetc"),
            ("maildir:/srv/%{domain}/%{local}", "..", "/srv/example.org/%2E."),
            ("maildir:/srv/%{domain}/%{local}", "%{domain}", "/srv/example.org/%25%7Bdomain%7D"),
        ])
    func places(template: String, local: String, path: String) throws {
        let place = try VirtualMailboxTemplate(template).place(of: try name(local), home: "/home/vmail")
        #expect(place.path == path)
    }

    @Test(
        "need a template that keeps users apart and stays where it is",
        arguments: [
            "", "mbox:/srv/%{domain}/%{local}", "maildir:srv/%{domain}/%{local}", "maildir:/srv/%{domain}",
            "maildir:/srv/%{local}", "maildir:/srv/%{domain}/../%{local}", "maildir:/srv/./%{domain}/%{local}",
        ])
    func wrongTemplates(_ text: String) {
        #expect(throws: SettingsFault.self) { try VirtualMailboxTemplate(text) }
    }

    @Test(
        "are delivered to by their owner's agent alone",
        arguments: [
            ("mailbox:vmail:example.org/joe", true), ("mailbox:other:example.org/joe", false), ("local:vmail", true),
            ("local:other", false), ("remote:example.org", false), ("alias:vmail", false),
        ])
    func owners(route: String, isTaken: Bool) throws {
        var agent = LocalAgent(
            rules: LocalAgent.Rules(
                mailbox: try MailboxTemplate(MailboxTemplate.defaultText),
                virtualMailbox: try VirtualMailboxTemplate(VirtualMailboxTemplate.defaultText),
                hostname: octets("mx.example.org"), user: octets("vmail"), home: "/home/vmail"))
        var sent: [UInt8] = []
        DeliverRequest.deliver(
            Delivery(
                id: MessageID(rawValue: 1), reversePath: .null, octetCount: 1, bodyType: .sevenBit,
                route: try #require(Route(octets: octets(route))), arrival: Timestamp(microseconds: 1))
        ).append(to: &sent, channel: 1)
        var decoder = FrameDecoder()
        decoder.append(sent)
        let frame = try #require(try decoder.next())
        var isRefused = false
        do { try agent.receive(frame) } catch { isRefused = true }
        #expect(isRefused != isTaken)
        #expect(agent.isIdle != isTaken)
    }
}
