// SPDX-License-Identifier: Apache-2.0
//
// What an alias of the file says that is more than addresses: programs, files, and lists that send in the name of their
// owner. The queue names the alias; what it means is read here, by the user as whom it is done.

import IDN
import LookupCore
import MailTypes
import PipeCore
import Unix

extension LocalPlan {
    /// What the alias says, for one recipient.
    static func find(
        alias name: [UInt8], _ delivery: Delivery, _ recipient: DeliveryRecipient, _ rules: LocalAgent.Rules,
        _ shelf: AliasShelf
    ) -> Finding {
        guard let aliases = rules.aliases else { return .outcome(LocalFate.wait("aliases are done elsewhere")) }
        do throws(AliasShelf.Fault) {
            let file = try shelf.file(aliases)
            guard let entry = file.entries[name] else {
                throw AliasShelf.Fault(text: "the aliases have no \(name.printableText) any more")
            }
            guard !entry.isBroken else {
                throw AliasShelf.Fault(
                    text: "the alias \(name.printableText) is not in order (\(aliases.path ?? ""):\(entry.line))")
            }
            var reading = AliasReading(name, recipient, rules.hostname)
            try reading.take(entry.targets)
            return .plan(reading.plan(delivery, recipient, owner: file.owner(of: name)))
        } catch {
            return .outcome(LocalFate.wait(error.text))
        }
    }
}

/// The targets of one alias on their way into a plan.
private struct AliasReading {
    private let name: [UInt8]
    /// That of names without one.
    private let domain: [UInt8]
    private var instructions: [LocalInstruction] = []
    private var paths: [(path: ForwardPath, meaning: PathMeaning)] = []
    private var known: Set<[UInt8]> = []
    /// Included files that are still to be read; the next one is the last.
    private var lists: [String] = []
    private var opened: Set<String> = []

    init(_ name: [UInt8], _ recipient: DeliveryRecipient, _ hostname: [UInt8]) {
        self.name = name
        switch recipient.forwardPath {
        case .address(let address): self.domain = Array(address.domain)
        case .postmaster: self.domain = hostname
        }
    }

    /// Takes all targets, and those in files that they include; each file once.
    mutating func take(_ targets: [AliasFile.Target]) throws(AliasShelf.Fault) {
        // The user behind the alias has the mail already: apus-lookup has seen to it.
        for target in targets where !self.isSelf(target) { try self.take(target) }
        while let path = self.lists.popLast() {
            let list: AliasList
            do throws(SystemError) {
                list = AliasList(
                    octets: try Descriptor.readRegularFile(path, octetCountMax: AliasList.octetCountMax),
                    domains: .idna2008)
            } catch {
                throw AliasShelf.Fault(text: "\(error.text), which the alias \(self.name.printableText) includes")
            }
            if let fault = list.faults.first { throw AliasShelf.Fault(text: "\(path):\(fault.line): \(fault.text)") }
            for target in list.targets {
                guard !self.isSelf(target) else {
                    throw AliasShelf.Fault(text: "\(path) names the alias that includes it")
                }
                try self.take(target)
            }
        }
    }

    private func isSelf(_ target: AliasFile.Target) -> Bool { AliasFile.isSelf(target, of: self.name, at: self.domain) }

    private mutating func take(_ target: AliasFile.Target) throws(AliasShelf.Fault) {
        switch target {
        case .program(let command):
            guard let program = ProgramCommand(["/bin/sh", "-c", command]) else { return }
            try self.append(.program(program))
        case .file("/dev/null"): try self.append(.discard)
        case .file(let path):
            let place = MailboxPlace(base: "/", components: path.split(separator: "/").map(String.init))
            try self.append(path.hasSuffix("/") ? .maildir(place) : .mbox(place))
        case .name(let written):
            try self.append(local: written.lowercasedOctets, .name)
        case .user(let user): try self.append(local: user.lowercasedOctets, .user)
        case .address(let address): try self.append(address, .address)
        case .list(let path):
            guard self.opened.insert(path).inserted else { return }
            self.lists.append(path)
        }
    }

    private mutating func append(_ instruction: LocalInstruction) throws(AliasShelf.Fault) {
        guard self.instructions.count < DotFile.entryCountMax else {
            throw AliasShelf.Fault(text: "the alias \(self.name.printableText) has too many programs and files")
        }
        self.instructions.append(instruction)
    }

    private mutating func append(local name: [UInt8], _ meaning: PathMeaning) throws(AliasShelf.Fault) {
        guard let address = TableKey.address(of: name, at: self.domain) else {
            throw AliasShelf.Fault(text: "\(name.printableText) cannot be written as an address")
        }
        try self.append(address, meaning)
    }

    private mutating func append(_ address: MailAddress, _ meaning: PathMeaning) throws(AliasShelf.Fault) {
        guard self.known.insert(meaning.octets + [ASCII.space] + address.octets).inserted else { return }
        guard self.paths.count < LocalAgent.forwardCountMax else {
            throw AliasShelf.Fault(
                text: "the alias \(self.name.printableText) leads to more than \(LocalAgent.forwardCountMax) addresses")
        }
        self.paths.append((.address(address), meaning))
    }

    /// - Parameter owner: the alias to which reports about the mail go. Mail without a reverse-path is a report itself, and
    ///   gets none.
    func plan(_ delivery: Delivery, _ recipient: DeliveryRecipient, owner: [UInt8]?) -> LocalPlan {
        var reversePath = delivery.reversePath
        if let owner, reversePath != .null,
            let address = TableKey.address(of: owner, at: self.domain)
        {
            reversePath = .address(address)
        }
        return LocalPlan(
            recipient: recipient, instructions: self.instructions,
            forwards: self.paths.map { Forward(reversePath, $0.path, $0.meaning) },
            forwardCounts: self.instructions.map { _ in self.paths.count }, sender: reversePath)
    }
}
