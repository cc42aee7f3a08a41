// SPDX-License-Identifier: Apache-2.0
//
// The files in a user's home directory that say what becomes of the mail, as this process may read them: it is the user.

import Glibc
import IDN
import LookupCore
import MailTypes
import PipeCore
import Unix

/// What is to be done with a message for one recipient.
struct LocalPlan {
    let recipient: DeliveryRecipient
    /// Up to the first that does not succeed.
    var instructions: [LocalInstruction]
    /// Where the mail goes on to when they are done.
    var forwards: [Forward] = []
    /// How many of `forwards` count if an instruction is the last.
    var forwardCounts: [Int] = []
    /// What files and programs are told of the sender.
    var sender: ReversePath
}

/// Which files are looked for.
package enum DotFileKind: String, CaseIterable, Sendable {
    case none
    case forward
    case qmail
}

extension LocalPlan {
    /// What was found for a recipient.
    enum Finding {
        /// No file, or one that says nothing.
        case mailbox
        case plan(LocalPlan)
        /// The mail can go nowhere, or waits until somebody has seen to the file.
        case outcome(DeliveryOutcome)
    }

    /// Looks for the user's file.
    static func find(_ delivery: Delivery, _ recipient: DeliveryRecipient, _ rules: LocalAgent.Rules) -> Finding {
        // The owner of virtual users' mailboxes has no say about their mail.
        guard rules.dotFiles != .none, let user = rules.user, case .local = delivery.route else { return .mailbox }
        let search = DotFileSearch(delivery, recipient, user, rules)
        // Most users have no file: that is one call for each message, instead of three. With .qmail the home directory's own
        // mode says something.
        if rules.dotFiles == .forward, let name = search.onlyName, Descriptor.isAbsent("\(rules.home)/\(name)") {
            return .mailbox
        }
        do throws(SystemError) {
            let home = try Descriptor.openDirectory(rules.home)
            defer { home.close() }
            return try search.find(in: home)
        } catch {
            // Without a home the mailbox may still be somewhere else.
            if error.code == ENOENT { return .mailbox }
            return .outcome(LocalFate.outcome(of: error))
        }
    }
}

/// The search for one recipient.
private struct DotFileSearch {
    private let delivery: Delivery
    private let recipient: DeliveryRecipient
    private let user: [UInt8]
    private let rules: LocalAgent.Rules
    private let localPart: [UInt8]
    private let domain: [UInt8]
    private let tag: [UInt8]

    init(
        _ delivery: Delivery, _ recipient: DeliveryRecipient, _ user: [UInt8], _ rules: LocalAgent.Rules
    ) {
        self.delivery = delivery
        self.recipient = recipient
        self.user = user
        self.rules = rules
        switch recipient.forwardPath {
        case .address(let address):
            self.localPart = address.unquotedLocalPart
            self.domain = Array(address.domain)
        case .postmaster:
            self.localPart = user
            self.domain = rules.hostname
        }
        self.tag = DeliveryWords.tag(of: self.localPart, user: user.printableText)
    }

    /// What may be there, the first before the others.
    private var names: [String] {
        self.rules.dotFiles == .qmail ? DotFile.qmailNames(extension: self.tag) : self.forwardNames
    }

    /// The one name without which the mail goes into the mailbox; nil if there are several, or none does.
    var onlyName: String? { self.tag.isEmpty ? self.names.first : nil }

    func find(in home: Descriptor) throws(SystemError) -> LocalPlan.Finding {
        let isQmail = self.rules.dotFiles == .qmail
        // dot-qmail(5): the owner is just changing something, which may be a file that is away for a moment.
        if isQmail, try home.facts().mode & 0o1000 != 0 {
            return .outcome(LocalFate.wait("the home directory is sticky"))
        }
        for name in self.names {
            guard let file = try self.open(name, in: home) else { continue }
            defer { file.close() }
            let facts = try file.facts()
            if let reason = self.distrust(try home.facts(), isHome: true) {
                return .outcome(LocalFate.wait("the home directory \(reason)"))
            }
            if let reason = self.distrust(facts, isHome: false) {
                return .outcome(LocalFate.wait("~/\(name) \(reason)"))
            }
            guard facts.size <= DotFile.octetCountMax else { return .outcome(LocalFate.wait("~/\(name) is too large")) }
            let octets = try file.readAll(octetCountMax: 2 * DotFile.octetCountMax)
            do throws(DotFile.Fault) {
                let dotFile =
                    isQmail
                    ? try DotFile.qmail(
                        octets, domain: self.domain, isForwardOnly: facts.mode & 0o100 != 0, domains: .idna2008)
                    : try DotFile.forward(octets, user: self.user, domain: self.domain, domains: .idna2008)
                // dot-qmail(5): only a file of no octets stands for the mailbox. One of comments says that nothing is to be done.
                let isDefault = isQmail ? octets.isEmpty : dotFile.isEmpty
                return isDefault ? .mailbox : try self.plan(dotFile, name, in: home)
            } catch {
                return .outcome(LocalFate.wait("~/\(name):\(error.line): \(error.text)"))
            }
        }
        guard isQmail, !self.tag.isEmpty else { return .mailbox }
        return .outcome(
            LocalFate.outcome(.failed, EnhancedStatus(.permanent, 1, 1), "no mailbox here by that name"))
    }

    private func open(_ name: String, in home: Descriptor) throws(SystemError) -> Descriptor? {
        do throws(SystemError) { return try home.openBeneath(name) } catch {
            throw SystemError("open", "~/\(name)", code: error.code)
        }
    }

    /// `.forward+tag` in front of `.forward`, as Postfix has it.
    private var forwardNames: [String] {
        let safe = self.tag.map(\.lowercased)
        guard !safe.isEmpty, safe.count <= 200, safe.allSatisfy({ $0 > 0x20 && $0 != 0x2F && $0 < 0x7F }) else {
            return [".forward"]
        }
        let delimiter = self.localPart[self.user.count]
        return [".forward\(String(decoding: [delimiter] + safe, as: UTF8.self))", ".forward"]
    }

    /// Why something is not to be believed: it is not the user's, or others can write it.
    private func distrust(_ facts: FileFacts, isHome: Bool) -> String? {
        guard isHome ? facts.isDirectory : facts.isRegular else { return "is not a file" }
        guard facts.owner == geteuid() || facts.owner == 0 else { return "is somebody else's" }
        return facts.mode & 0o002 == 0 ? nil : "can be written by everybody"
    }

    // MARK: Plans

    private func plan(
        _ file: DotFile, _ name: String, in home: Descriptor
    ) throws(DotFile.Fault) -> LocalPlan.Finding {
        let isQmail = self.rules.dotFiles == .qmail
        let (reversePath, isVERP) = isQmail ? self.newSender(home) : (self.delivery.reversePath, false)
        var instructions: [LocalInstruction] = []
        for instruction in file.instructions {
            switch instruction {
            case .mailbox: instructions.append(self.rules.instruction(for: self.user))
            case .mbox("/dev/null"): instructions.append(.discard)
            case .mbox(let path): instructions.append(.mbox(self.place(path)))
            case .maildir(let path): instructions.append(.maildir(self.place(path)))
            case .command(let text):
                guard self.rules.hasDotPrograms else {
                    return .outcome(LocalFate.wait("~/\(name): programs are not allowed here (local.dot-programs)"))
                }
                let environment = isQmail ? self.environment(name, reversePath) : []
                guard
                    let command = ProgramCommand(
                        ["/bin/sh", "-c", text], dialect: isQmail ? .qmail : .sysexits, environment: environment)
                else { continue }
                instructions.append(.program(command))
            }
        }
        return .plan(
            LocalPlan(
                recipient: self.recipient, instructions: instructions,
                forwards: file.forwards.map { Forward(reversePath, $0, isVERP: isVERP) },
                forwardCounts: file.forwardCounts, sender: self.delivery.reversePath))
    }

    private func place(_ path: String) -> MailboxPlace {
        let isInHome = path.hasPrefix("./")
        let components = path.split(separator: "/").map(String.init)
        return MailboxPlace(
            base: isInHome ? self.rules.home : "/", components: isInHome ? Array(components.dropFirst()) : components)
    }

    /// The list's owner, if the file of that name says that there is one, and whether each address gets its mail from an
    /// address of its own, as a second file says; a report's sender stays null.
    private func newSender(_ home: Descriptor) -> (ReversePath, isVERP: Bool) {
        let owner = (DotFile.qmailNames(extension: self.tag).first ?? ".qmail") + "-owner"
        guard self.delivery.reversePath != .null, (try? home.hasEntry(owner)) == true,
            let path = ReversePath(
                octets: self.localPart + Array("-owner@".utf8) + self.domain, alphabet: .unicodeLocalPart)
        else { return (self.delivery.reversePath, false) }
        return (path, (try? home.hasEntry(owner + "-default")) == true)
    }

    /// As qmail-command(8) lists it, besides what every program is told.
    private func environment(_ name: String, _ newSender: ReversePath) -> [String] {
        var pairs: [(String, [UInt8])] = [
            ("HOST", self.domain), ("EXT", self.tag), ("NEWSENDER", newSender.octets),
        ]
        var tag = self.tag[...]
        for number in 2...4 {
            tag = tag.firstIndex(of: ASCII.hyphen).map { tag[($0 + 1)...] } ?? []
            pairs.append(("EXT\(number)", Array(tag)))
        }
        var host = self.domain[...]
        for number in 2...4 {
            host = host.lastIndex(of: ASCII.dot).map { host[..<$0] } ?? host
            pairs.append(("HOST\(number)", Array(host)))
        }
        // What stands in the place of `default` in the file's name.
        if name.hasSuffix("default") {
            let count = max(0, name.utf8.count - ".qmail-default".utf8.count)
            pairs.append(("DEFAULT", Array(self.tag.dropFirst(count))))
        }
        let sender = DeliveryWords.tame(self.delivery.reversePath.octets)
        let recipient = DeliveryWords.tame(self.recipient.forwardPath.octets)
        return pairs.map { "\($0.0)=\(DeliveryWords.tame($0.1).printableText)" } + [
            "RPLINE=Return-Path: <\(sender.printableText)>\n", "DTLINE=Delivered-To: \(recipient.printableText)\n",
            "UFLINE=From \(sender.isEmpty ? "MAILER-DAEMON" : sender.printableText) "
                + "\(Self.date(self.delivery.arrival))\n",
        ]
    }

    private static func date(_ time: Timestamp) -> String { MboxFile.date(time).printableText }
}
