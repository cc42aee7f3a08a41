// SPDX-License-Identifier: Apache-2.0

import Foundation
import LocalDeliverer
import MailTypes
import PipeCore
import Testing
import Unix

private func octets(_ text: String) -> [UInt8] { Array(text.utf8) }

/// A home directory that goes away with the test.
private final class Home {
    let path: String

    init() throws {
        self.path = NSTemporaryDirectory() + "apus-local-\(UUID().uuidString)"
        try FileManager.default.createDirectory(atPath: self.path, withIntermediateDirectories: true)
    }

    deinit { try? FileManager.default.removeItem(atPath: self.path) }

    func names(_ folder: String) -> [String] {
        ((try? FileManager.default.contentsOfDirectory(atPath: self.path + "/Maildir/" + folder)) ?? []).sorted()
    }

    func text(_ name: String) throws -> String {
        String(
            decoding: try #require(FileManager.default.contents(atPath: self.path + "/Maildir/" + name)), as: UTF8.self)
    }

    func move(_ old: String, _ new: String) throws {
        try FileManager.default.moveItem(atPath: self.path + "/Maildir/" + old, toPath: self.path + "/Maildir/" + new)
    }

    func remove(_ name: String) throws { try FileManager.default.removeItem(atPath: self.path + "/Maildir/" + name) }

    func write(_ name: String, _ text: String) throws {
        let path = self.path + "/Maildir/" + name
        try FileManager.default.createDirectory(
            atPath: (path as NSString).deletingLastPathComponent, withIntermediateDirectories: true)
        try Data(text.utf8).write(to: URL(filePath: path))
    }
}

/// The queue's side of a link to the agent.
private struct Queue {
    var agent: LocalAgent
    let home: Home

    init(_ home: Home, mailbox: String = "maildir:~/Maildir", user: String? = "joe") throws {
        self.home = home
        self.agent = LocalAgent(
            rules: LocalAgent.Rules(
                mailbox: try MailboxTemplate(mailbox), hostname: octets("mx.example.org"),
                user: user.map { octets($0) },
                home: home.path))
    }

    mutating func send(_ requests: [DeliverRequest], channel: UInt32 = 1) throws {
        var sent: [UInt8] = []
        for request in requests { request.append(to: &sent, channel: channel) }
        var decoder = FrameDecoder()
        decoder.append(sent)
        while let frame = try decoder.next() { try self.agent.receive(frame) }
    }

    /// What the agent has answered since the last time.
    mutating func answers() throws -> [(channel: UInt32, answer: DeliverAnswer)] {
        var decoder = FrameDecoder()
        decoder.append(self.agent.answers)
        self.agent.answers = []
        var answers: [(UInt32, DeliverAnswer)] = []
        while let frame = try decoder.next() { answers.append((frame.channel, try DeliverAnswer(frame))) }
        return answers
    }

    /// Answers what the agent wants until it wants nothing more, without committing.
    mutating func feed(_ content: [UInt8], channel: UInt32 = 1) throws {
        while true {
            var wanted: (UInt64, Int)?
            for (_, answer) in try self.answers() {
                if case .want(let offset, let count) = answer { wanted = (offset, count) } else { return }
            }
            guard let (offset, count) = wanted else { return }
            try self.send([.data(content[Int(offset)..<Int(offset) + count])], channel: channel)
        }
    }

    /// A whole delivery; the outcomes as `number kind status`.
    mutating func deliver(
        _ content: [UInt8], to recipients: [(String, String?)] = [("joe@example.org", nil)],
        id: UInt64 = 1_700_000_000_000_000,
        isNoted: Bool = true
    ) throws -> [String] {
        try self.send(try envelope(content, to: recipients, id: id))
        var outcomes: [String] = []
        while true {
            let answers = try self.answers()
            for (_, answer) in answers {
                switch answer {
                case .want(let offset, let count):
                    // In frames of odd sizes, so that line ends are cut.
                    var rest = content[Int(offset)..<Int(offset) + count]
                    while !rest.isEmpty {
                        try self.send([.data(rest.prefix(777))])
                        rest = rest.dropFirst(777)
                    }
                case .outcome(let number, let outcome):
                    outcomes.append("\(number) \(outcome.kind.rawValue) \(outcome.status.octets.printableText)")
                case .done:
                    if isNoted { try self.send([.noted]) }
                    return outcomes
                case .exchange, .forward: Issue.record("an exchange")
                }
            }
            if answers.isEmpty { self.agent.commitIfDue(.zero) }
        }
    }
}

private func envelope(
    _ content: [UInt8], to recipients: [(String, String?)], id: UInt64 = 1_700_000_000_000_000,
    route: String = "local:joe",
    from: String = "alice@a.example"
) throws -> [DeliverRequest] {
    var requests: [DeliverRequest] = [
        .deliver(
            Delivery(
                id: MessageID(rawValue: id), reversePath: try #require(ReversePath(octets: octets(from))),
                octetCount: UInt64(content.count), bodyType: .sevenBit,
                route: try #require(Route(octets: octets(route))),
                arrival: Timestamp(microseconds: id)))
    ]
    for (number, (path, original)) in recipients.enumerated() {
        requests.append(
            .rcpt(
                DeliveryRecipient(
                    number: UInt32(number), forwardPath: try #require(ForwardPath(octets: octets(path))),
                    originalForwardPath: try original.map { try #require(ForwardPath(octets: octets($0))) })))
    }
    return requests + [.go]
}

private let name = "1700000000.A\(MessageID(rawValue: 1_700_000_000_000_000).text)N0.mx.example.org"
private let content = octets("Subject: hi\r\n\r\nline\r\n..\r\n\r\nend\r\n")
private let front = "Return-Path: <alice@a.example>\nDelivered-To: joe@example.org\n"
private let delivered = ["0 delivered 2.0.0"]

@Suite("Delivery into a Maildir")
struct MaildirDeliveryTests {
    @Test("makes the Maildir and puts the message into new, with its fields in front and LF line ends")
    func plain() throws {
        let home = try Home()
        var queue = try Queue(home)
        #expect(try queue.deliver(content) == delivered)
        #expect(home.names("new") == [name])
        #expect(home.names("tmp") == [])
        #expect(home.names("cur") == [])
        #expect(try home.text("new/\(name)") == front + "Subject: hi\n\nline\n..\n\nend\n")
        #expect(queue.agent.isIdle)
        let attributes = try FileManager.default.attributesOfItem(atPath: home.path + "/Maildir/new/\(name)")
        #expect(attributes[.posixPermissions] as? Int == 0o600)
        let folder = try FileManager.default.attributesOfItem(atPath: home.path + "/Maildir/new")
        #expect(folder[.posixPermissions] as? Int == 0o700)
    }

    static let contents: [(String, String)] = [
        ("", ""), ("x", "x"), ("\r", "\r"), ("\r\n", "\n"), ("\n", "\n"), ("a\r\r\nb", "a\r\nb"),
        ("a\rb\r\n", "a\rb\n"),
        ("\r\n\r\n", "\n\n"), ("a\r\n\r", "a\n\r"),
    ]

    @Test("changes CR LF to LF and nothing else, wherever the content is cut", arguments: contents)
    func lineEnds(text: String, wanted: String) throws {
        let home = try Home()
        for padding in [0, 776, 777, 778, 65_535, 65_536, 400_000] {
            var queue = try Queue(home)
            let filler = String(repeating: "y", count: padding)
            let id = 1_700_000_000_000_000 + UInt64(padding)
            #expect(try queue.deliver(octets(filler + text), id: id) == delivered)
            let file = "1700000000.A\(MessageID(rawValue: id).text)N0.mx.example.org"
            #expect(try home.text("new/\(file)") == front + filler + wanted)
        }
    }

    @Test("gives each recipient of one mailbox a copy of his own, and says where an alias led from")
    func severalRecipients() throws {
        let home = try Home()
        var queue = try Queue(home)
        let large = octets("Subject: x\r\n\r\n" + String(repeating: "line\r\n", count: 50_000))
        let outcomes = try queue.deliver(
            large, to: [("joe@example.org", nil), ("joe+tag@example.org", nil), ("joe@b.example", "team@example.org")])
        #expect(outcomes.map { $0.dropFirst(2) } == Array(repeating: "delivered 2.0.0", count: 3))
        let texts = try home.names("new").map { try home.text("new/\($0)") }
        let body = "Subject: x\n\n" + String(repeating: "line\n", count: 50_000)
        #expect(
            texts == [
                front + body, "Return-Path: <alice@a.example>\nDelivered-To: joe+tag@example.org\n" + body,
                "Return-Path: <alice@a.example>\nX-Original-To: team@example.org\nDelivered-To: joe@b.example\n" + body,
            ])
        #expect(home.names("tmp") == [])
    }

    @Test("refuses a message that has been delivered to this address before, and only for it")
    func loops() throws {
        let home = try Home()
        var queue = try Queue(home)
        let looped = octets("Delivered-To: x@b.example\r\nDELIVERED-to:  JOE@example.org \r\n\r\nDelivered-To: y\r\n")
        #expect(try queue.deliver(looped) == ["0 failed 5.4.6"])
        #expect(
            try queue.deliver(looped, to: [("joe@example.org", nil), ("joe+a@example.org", nil)])
                == ["0 failed 5.4.6", "1 delivered 2.0.0"])
        #expect(home.names("new").count == 1)
        // In the body, or as another address, it means nothing.
        #expect(try queue.deliver(octets("A: b\r\n\r\nDelivered-To: joe@example.org\r\n"), id: 5) == delivered)
    }

    @Test("delivers messages that come interleaved, in one batch")
    func interleaved() throws {
        let home = try Home()
        var queue = try Queue(home)
        for channel in 1...20 as ClosedRange<UInt32> {
            try queue.send(
                try envelope(content, to: [("joe@example.org", nil)], id: 1_700_000_000_000_000 + UInt64(channel)),
                channel: channel)
        }
        for channel in 1...20 as ClosedRange<UInt32> { try queue.send([.data(content[..<5])], channel: channel) }
        for channel in (1...20 as ClosedRange<UInt32>).reversed() {
            try queue.send([.data(content[5...])], channel: channel)
        }
        _ = try queue.answers()
        #expect(home.names("new") == [])
        queue.agent.commit()
        let answers = try queue.answers()
        #expect(answers.filter { $0.answer == .done }.count == 20)
        #expect(home.names("new").count == 20)
        #expect(home.names("tmp").count == 20)
        for channel in 1...20 as ClosedRange<UInt32> { try queue.send([.noted], channel: channel) }
        #expect(home.names("tmp") == [])
    }

    @Test("has a message wait a moment for one whose content is on its way, and no message that comes alone")
    func patience() throws {
        let home = try Home()
        var queue = try Queue(home)
        let isDone = { (queue: inout Queue) in try queue.answers().contains { $0.answer == .done } }
        for channel in 1...3 as ClosedRange<UInt32> {
            try queue.send(
                try envelope(content, to: [("joe@example.org", nil)], id: 1_700_000_000_000_000 + UInt64(channel)),
                channel: channel)
        }
        // The last octet of the second brings both; that of the third is late.
        try queue.send([.data(content[...])], channel: 1)
        queue.agent.commitIfDue(.seconds(9))
        #expect(try !isDone(&queue))
        try queue.send([.data(content[...])], channel: 2)
        queue.agent.commitIfDue(.seconds(9) + LocalAgent.patience - .microseconds(1))
        #expect(try !isDone(&queue))
        #expect(home.names("new") == [])
        queue.agent.commitIfDue(.seconds(9) + LocalAgent.patience)
        #expect(try queue.answers().filter { $0.answer == .done }.map(\.channel) == [1, 2])
        #expect(home.names("new").count == 2)
        // Nothing is on its way behind the third.
        try queue.send([.data(content[...])], channel: 3)
        queue.agent.commitIfDue(.seconds(9))
        #expect(try isDone(&queue))
    }

    @Test("puts each user's mail where the template says")
    func templates() throws {
        let home = try Home()
        var queue = try Queue(home, mailbox: "maildir:~/Maildir/a/%{user}/x-%u", user: nil)
        #expect(try queue.deliver(content) == delivered)
        #expect(home.names("a/joe/x-joe/new") == [name])
        for wrong in [
            "mbox:", "mail:~/x", "discard:x", "maildir:", "maildir:~/", "maildir:x", "maildir:/", "maildir:~/../x",
            "maildir:/a/./b",
        ] {
            #expect(throws: SettingsFault.self) { _ = try MailboxTemplate(wrong) }
        }
    }

    @Test("takes back what is incomplete when the link ends")
    func abandoned() throws {
        let home = try Home()
        var queue = try Queue(home)
        let large = [UInt8](repeating: 0x78, count: 200_000)
        try queue.send(try envelope(large, to: [("joe@example.org", nil)]))
        try queue.send([.data(large[..<65_536])])
        #expect(home.names("tmp").count == 1)
        queue.agent.abandon()
        #expect(home.names("tmp") == [])
        #expect(home.names("new") == [])
        #expect(queue.agent.isIdle)
    }

    @Test("closes the link on frames that are out of place")
    func outOfPlace() throws {
        let home = try Home()
        let start = try envelope(content, to: [("joe@example.org", nil)])
        let others = try envelope(content, to: [("joe@example.org", nil)], route: "local:mary")
        let remote = try envelope(content, to: [("joe@example.org", nil)], route: "remote:b.example")
        for requests: [DeliverRequest] in [
            [.go], [.noted], [.data(content[...])], [start[0], .go], [start[0], start[0]], start + [.noted],
            start + [.data(content[...]), .data(content[...])], [others[0]], [remote[0]],
            start + [.data(([0] + content)[...])],
        ] {
            var queue = try Queue(home)
            #expect(throws: FrameFault.self) { try queue.send(requests) }
            queue.agent.abandon()
        }
    }
}

@Suite("A delivery that is repeated after a crash")
struct MaildirRepetitionTests {
    /// Each is what a crash can leave in tmp and new, by the steps of Maildir.swift; and how many mails there must be
    /// in all after the delivery is repeated.
    @Test(
        "starts anew if the crash came before the instant of delivery",
        arguments: [
            (["tmp/\(name)"], "while the file was written"),
            (["tmp/\(name)", "tmp/\(name).d"], "after the witness was made"),
        ])
    func before(left: [String], point: String) throws {
        let home = try Home()
        for folder in ["new", "cur"] {
            try FileManager.default.createDirectory(
                atPath: home.path + "/Maildir/" + folder, withIntermediateDirectories: true)
        }
        for file in left { try home.write(file, "half of it") }
        var queue = try Queue(home)
        #expect(try queue.deliver(content) == delivered, "\(point)")
        #expect(home.names("new") == [name])
        #expect(try home.text("new/\(name)").hasPrefix(front))
        #expect(home.names("tmp") == [])
    }

    @Test("finds its copy wherever the reader has put it, until the queue has noted the outcome")
    func after() throws {
        for fate in ["in new", "in cur", "deleted"] {
            let home = try Home()
            var queue = try Queue(home)
            #expect(try queue.deliver(content, isNoted: false) == delivered)
            #expect(home.names("tmp") == ["\(name).d"])
            switch fate {
            case "in cur": try home.move("new/\(name)", "cur/\(name):2,S")
            case "deleted": try home.remove("new/\(name)")
            default: break
            }
            let before = (home.names("new"), home.names("cur"))
            // The program was killed; another one gets the same delivery, and is killed as well.
            for _ in 0..<2 {
                var again = try Queue(home)
                #expect(try again.deliver(content, isNoted: false) == delivered, "\(fate)")
            }
            var last = try Queue(home)
            #expect(try last.deliver(content) == delivered, "\(fate)")
            #expect(home.names("new") == before.0, "\(fate)")
            #expect(home.names("cur") == before.1, "\(fate)")
            #expect(home.names("tmp") == [], "\(fate)")
        }
    }

    @Test("does not believe a witness from before a crash of the machine, unless the mail is there")
    func machineCrash() throws {
        let home = try Home()
        var queue = try Queue(home)
        #expect(try queue.deliver(content, isNoted: false) == delivered)
        // A witness cannot be made older than it is: the clock of this test is the machine's start instead.
        let tmp = try Descriptor.open(home.path + "/Maildir/tmp", 0)
        defer { tmp.close() }
        let status = try #require(tmp.status(of: "\(name).d"))
        #expect(status.nameCount == 2)
        #expect(MaildirFile.isTrue(status, boot: status.changed.advanced(by: .seconds(5))))
        try home.remove("new/\(name)")
        let alone = try #require(tmp.status(of: "\(name).d"))
        #expect(!MaildirFile.isTrue(alone, boot: alone.changed.advanced(by: .seconds(5))))
        #expect(MaildirFile.isTrue(alone, boot: alone.changed.advanced(by: .seconds(-5))))
        #expect(!MaildirFile.isTrue(nil, boot: alone.changed))
    }

    @Test("repeats only for the recipients who have no copy yet")
    func severalRecipients() throws {
        let home = try Home()
        let recipients: [(String, String?)] = [
            ("joe@example.org", nil), ("joe+b@example.org", nil), ("joe+c@example.org", nil),
        ]
        var first = try Queue(home)
        _ = try first.deliver(content, to: recipients, isNoted: false)
        let names = home.names("new")
        #expect(names.count == 3)
        // As if the crash had come before the second was delivered.
        try home.remove("new/\(names[1])")
        try home.remove("tmp/\(names[1]).d")
        try home.move("new/\(names[0])", "cur/\(names[0]):2,")
        var second = try Queue(home)
        let outcomes = try second.deliver(content, to: recipients)
        #expect(outcomes.sorted() == ["0 delivered 2.0.0", "1 delivered 2.0.0", "2 delivered 2.0.0"])
        #expect(home.names("new") == [names[1], names[2]])
        #expect(home.names("cur") == ["\(names[0]):2,"])
        #expect(home.names("tmp") == [])
    }

    @Test("does not touch what another process is writing")
    func locked() throws {
        let home = try Home()
        var queue = try Queue(home)
        try home.write("tmp/\(name)", "")
        for folder in ["new", "cur"] { try home.write("\(folder)/x", "") }
        let other = try Descriptor.open(home.path + "/Maildir/tmp/\(name)", 0)
        #expect(other.tryLock())
        #expect(try queue.deliver(content) == ["0 deferred 4.2.0"])
        #expect(home.names("tmp") == [name])
        other.close()
        #expect(try queue.deliver(content, id: 1_700_000_000_000_000) == delivered)
    }
}

@Suite("A mailbox that cannot be written")
struct MailboxFaultTests {
    @Test(
        "defers the mail, and nothing traps, whatever is in the mailbox's place",
        arguments: [
            "home is missing", "home is a file", "Maildir is a file", "Maildir is a FIFO", "new is a file",
            "tmp is a file",
            "tmp is a dangling link", "the name is a directory",
        ])
    func faults(what: String) throws {
        let home = try Home()
        let manager = FileManager.default
        switch what {
        case "home is missing": try manager.removeItem(atPath: home.path)
        case "home is a file":
            try manager.removeItem(atPath: home.path)
            try Data().write(to: URL(filePath: home.path))
        case "Maildir is a file": try Data().write(to: URL(filePath: home.path + "/Maildir"))
        case "Maildir is a FIFO": #expect(mkfifo(home.path + "/Maildir", 0o600) == 0)
        case "new is a file": try home.write("new", "")
        case "tmp is a file": try home.write("tmp", "")
        case "tmp is a dangling link":
            try home.write("cur/x", "")
            try manager.createSymbolicLink(atPath: home.path + "/Maildir/tmp", withDestinationPath: "/nonexistent/x")
        default:
            try home.write("tmp/\(name)/x", "")
            try home.write("new/x", "")
            try home.write("cur/x", "")
        }
        var queue = try Queue(home)
        let outcomes = try queue.deliver(content, to: [("joe@example.org", nil), ("joe+a@example.org", nil)])
        #expect(outcomes.map { String($0.dropFirst(2).prefix(10)) } == ["deferred 4", "deferred 4"], "\(what)")
        #expect(queue.agent.isIdle)
    }

    @Test("is looked for again at the next delivery")
    func recovery() throws {
        let home = try Home()
        try FileManager.default.removeItem(atPath: home.path)
        var queue = try Queue(home)
        #expect(try queue.deliver(content) == ["0 deferred 4.2.0"])
        try FileManager.default.createDirectory(atPath: home.path, withIntermediateDirectories: true)
        #expect(try queue.deliver(content) == delivered)
        // The owner moves it away while we run: the next mail is not put into the old one.
        try FileManager.default.moveItem(atPath: home.path + "/Maildir", toPath: home.path + "/Old")
        #expect(try queue.deliver(content, id: 1_700_000_000_000_001) == delivered)
        #expect(home.names("new").count == 1)
    }
}
