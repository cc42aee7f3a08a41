// SPDX-License-Identifier: Apache-2.0

import Foundation
import LocalDeliverer
import LookupCore
import MailTypes
import PipeCore
import Testing
import Unix

private func octets(_ text: String) -> [UInt8] { Array(text.utf8) }

/// A directory with a file of aliases, and an agent that does what it says.
private final class Place {
    let path: String
    var agent: LocalAgent
    private let content = octets("Subject: hi\r\n\r\nline\r\n")

    init(_ aliases: String, programs: Bool = true) throws {
        self.path = NSTemporaryDirectory() + "apus-alias-\(UUID().uuidString)"
        try FileManager.default.createDirectory(atPath: self.path, withIntermediateDirectories: true)
        var rules = LocalAgent.Rules(
            mailbox: try MailboxTemplate("maildir:~/Maildir"), hostname: octets("mx.l.example"),
            user: octets("someone"), home: "/nonexistent")
        var terms = LocalAgent.AliasRules()
        terms.path = self.path + "/aliases"
        terms.terms = AliasFile.Terms(includes: true, programs: programs, files: true)
        terms.owners = [0, geteuid()]
        rules.aliases = terms
        self.agent = LocalAgent(rules: rules)
        try self.write("aliases", aliases.replacing("HERE", with: self.path))
    }

    deinit { try? FileManager.default.removeItem(atPath: self.path) }

    /// Writes a file that has been left alone for a while.
    func write(_ name: String, _ text: String, mode: Int = 0o644) throws {
        let file = self.path + "/" + name
        try Data(text.utf8).write(to: URL(filePath: file))
        try FileManager.default.setAttributes(
            [.modificationDate: Date(timeIntervalSinceNow: -10), .posixPermissions: mode], ofItemAtPath: file)
    }

    func text(_ name: String) -> String {
        String(decoding: FileManager.default.contents(atPath: self.path + "/" + name) ?? Data(), as: UTF8.self)
    }

    private func send(_ requests: [DeliverRequest]) throws {
        var sent: [UInt8] = []
        for request in requests { request.append(to: &sent, channel: 1) }
        var decoder = FrameDecoder()
        decoder.append(sent)
        while let frame = try decoder.next() { try self.agent.receive(frame) }
    }

    /// What becomes of a message for an alias: the outcome, then where it goes on to.
    ///
    /// - Parameter isOwed: whether the queue says in the end that it cannot go on now.
    func deliver(
        _ name: String, from sender: String = "a@b.example", to: String? = nil, isOwed: Bool = false
    ) throws -> [String] {
        try self.send([
            .deliver(
                Delivery(
                    id: MessageID(rawValue: 1_700_000_000_000_000),
                    reversePath: try #require(ReversePath(octets: octets(sender))),
                    octetCount: UInt64(self.content.count), bodyType: .sevenBit,
                    route: try #require(Route(octets: octets("alias:\(name)"))), arrival: Timestamp(microseconds: 1))),
            .rcpt(
                DeliveryRecipient(
                    number: 0, forwardPath: try #require(ForwardPath(octets: octets(to ?? "\(name)@l.example"))),
                    originalForwardPath: nil)), .go,
        ])
        var outcome: [String] = []
        var forwards: [String] = []
        let limit = ThisProcess.uptime + .seconds(30)
        while ThisProcess.uptime < limit {
            var decoder = FrameDecoder()
            decoder.append(self.agent.answers)
            self.agent.answers = []
            while let frame = try decoder.next() {
                switch try DeliverAnswer(frame) {
                case .want(let offset, let count):
                    try self.send([.data(self.content[Int(offset)..<Int(offset) + count])])
                case .outcome(_, let told):
                    outcome = ["\(told.kind.rawValue) \(told.status.octets.printableText) \(told.text.printableText)"]
                case .forward(_, let forward):
                    let paths = [forward.reversePath.octets, forward.forwardPath.octets].map(\.printableText)
                    forwards.append("\(paths[0])>\(paths[1]) \(forward.meaning.rawValue)")
                case .done:
                    try self.send(isOwed ? [.owed(number: 0), .noted] : [.noted])
                    return outcome + forwards
                case .exchange: Issue.record("an exchange")
                }
            }
            self.agent.commit()
            self.agent.advance(ThisProcess.uptime, clock: WallClock.now())
        }
        return ["no answer"]
    }
}

@Suite("Delivery to an alias")
struct AliasDeliveryTests {
    private static let aliases = """
        plain: bob, Joe <joe@away.example>, \\carol, plain
        list: bob, list@L.example, list@away.example
        owner-list: alice
        twice: bob, Bob, bob@l.example, :include:HERE/list, :include:HERE/list
        run: "|cat > HERE/taken; echo $SENDER $RECIPIENT $EXTENSION $USER > HERE/env"
        owner-run: alice
        fail: |exit 67, bob
        wait: bob, |exit 75
        box: HERE/box, HERE/dir/, /dev/null, bob
        copy: HERE/dir/, bob
        missing: :include:HERE/none
        faulty: :include:HERE/faulty
        broken: b c d
        many: :include:HERE/many
        itself: :include:HERE/itself
        """

    private func place(_ aliases: String = Self.aliases, programs: Bool = true) throws -> Place {
        let place = try Place(aliases, programs: programs)
        try place.write("list", "# members\ndave@away.example\n:include:\(place.path)/more\n")
        try place.write("more", ":include:\(place.path)/list\nbob\n")
        try place.write("faulty", "bob\n|/bin/sh\n")
        try place.write("itself", "bob, itself\n")
        try place.write("many", (0...1_000).map { "u\($0)@away.example\n" }.joined())
        return place
    }

    @Test("what could not go on is tried again without a second copy in a Maildir, wherever the first one is")
    func owed() throws {
        let place = try self.place()
        let folder = place.path + "/dir"
        func names(_ part: String) throws -> [String] {
            try FileManager.default.contentsOfDirectory(atPath: "\(folder)/\(part)")
        }
        _ = try place.deliver("copy", isOwed: true)
        let name = try #require(try names("new").first)
        try FileManager.default.moveItem(atPath: "\(folder)/new/\(name)", toPath: "\(folder)/cur/\(name):2,S")
        for isOwed in [true, false] {
            #expect(try place.deliver("copy", isOwed: isOwed).count == 2)
            #expect(try names("new") == [])
            #expect(try names("cur").count == 1)
        }
        // It is done, and nothing is left to tell of it.
        #expect(try names("tmp") == [])
    }

    static let cases: [(String, [String])] = [
        (
            "plain",
            [
                "delivered 2.0.0 sent on to 3 addresses", "a@b.example>bob@l.example name",
                "a@b.example>joe@away.example address", "a@b.example>carol@l.example user",
            ]
        ),
        (
            "list",
            [
                "delivered 2.0.0 sent on to 2 addresses", "owner-list@l.example>bob@l.example name",
                "owner-list@l.example>list@away.example address",
            ]
        ),
        (
            "twice",
            [
                "delivered 2.0.0 sent on to 3 addresses", "a@b.example>bob@l.example name",
                "a@b.example>bob@l.example address", "a@b.example>dave@away.example address",
            ]
        ),
        ("fail", ["failed 5.1.1 sh ended with status 67"]),
        ("wait", ["deferred 4.3.0 sh ended with status 75"]),
        ("box", ["delivered 2.0.0 sent on to another address", "a@b.example>bob@l.example name"]),
        ("gone", ["deferred 4.3.5 the aliases have no gone any more"]),
    ]

    @Test("does what stands behind the name", arguments: cases)
    func entries(name: String, wanted: [String]) throws {
        #expect(try self.place().deliver(name) == wanted)
    }

    @Test(
        "waits, with the reason, as long as its entry or a file that it includes is not in order",
        arguments: [
            ("missing", "/none"), ("faulty", "/faulty:2: \"|/bin/sh\": programs"), ("broken", "not in order"),
            ("many", "more than 1000 addresses"), ("itself", "/itself names the alias"),
        ])
    func mistakes(name: String, word: String) throws {
        let told = try self.place().deliver(name)
        #expect(told.count == 1)
        #expect(told.first?.hasPrefix("deferred 4.3.5 ") == true)
        #expect(told.first?.contains(word) == true, "\(told)")
    }

    @Test("keeps a report a report, and tells files and programs the owner as sender")
    func senders() throws {
        let place = try self.place()
        #expect(try place.deliver("list", from: "").dropFirst().allSatisfy { $0.hasPrefix(">") })
        #expect(try place.deliver("run", to: "run+tag@l.example") == ["delivered 2.0.0 sh has taken it"])
        let user = try #require(ThisProcess.user()?.name)
        #expect(
            ["someone", user].contains { place.text("env") == "owner-run@l.example run+tag@l.example tag \($0)\n" })
        #expect(place.text("taken").hasPrefix("Return-Path: <owner-run@l.example>\nDelivered-To: run+tag@l.example\n"))
        _ = try place.deliver("box")
        #expect(place.text("box").hasPrefix("From a@b.example "))
        #expect(try FileManager.default.contentsOfDirectory(atPath: place.path + "/dir/new").count == 1)
    }

    @Test("runs nothing where the settings do not allow it")
    func refused() throws {
        let place = try self.place(programs: false)
        #expect(try place.deliver("run").first?.hasPrefix("deferred 4.3.5 ") == true)
        #expect(place.text("taken") == "")
    }

    @Test("believes no file that somebody else can write, and sees a change")
    func trust() throws {
        let place = try self.place("list: bob\n")
        #expect(try place.deliver("list").count == 2)
        try place.write("aliases", "list: bob, carol\n", mode: 0o666)
        #expect(try place.deliver("list").first?.hasSuffix("can be written by everybody") == true)
        try place.write("aliases", "list: bob, carol\n")
        #expect(try place.deliver("list").count == 3)
        place.agent.rules.aliases?.owners = []
        try place.write("aliases", "list: bob\n")
        #expect(try place.deliver("list").first?.hasSuffix("somebody else's than root's") == true)
        try FileManager.default.removeItem(atPath: place.path + "/aliases")
        #expect(try place.deliver("list").first?.hasPrefix("deferred 4.3.5 ") == true)
    }

    @Test("is taken by the process alone that does aliases")
    func others() throws {
        let place = try self.place()
        place.agent.rules.aliases = nil
        #expect(throws: FrameFault.self) { try place.deliver("list") }
    }
}
