// SPDX-License-Identifier: Apache-2.0

import Foundation
import MailTypes
import Testing

/// What a program says and what is said of it.
private struct Said: Hashable, CustomStringConvertible {
    let program: String
    let status: String
    let code: String

    var description: String { "\(self.program) \(self.status) \(self.code)" }
}

@Suite struct StatusTests {
    private static let programs = [
        "DNSCore": "apus-remote", "RemoteSender": "apus-remote", "LocalDeliverer": "apus-local",
        "LookupCore": "apus-lookup", "Lookup": "apus-lookup", "QueueCore": "apus-queue", "QueueManager": "apus-queue",
        "Bouncer": "apus-bounce", "Receiver": "apus-smtpd",
    ]

    private static func program(_ file: URL) -> String? {
        let target = Tree.name(file).components(separatedBy: "/")[1]
        guard ["SMTPCore", "SMTPDrivers"].contains(target) else { return Self.programs[target] }
        return file.lastPathComponent.hasPrefix("Client") ? "apus-remote" : "apus-smtpd"
    }

    /// The statuses of failures that the sources name, each with the reply code in front of it.
    private static func said(in text: String, by program: String) -> Set<Said> {
        var said: Set<Said> = []
        let literal = /(?:([0-9]+),\s*(?:status: )?)?EnhancedStatus\(\.(permanent|transient), ([0-9]+), ([0-9]+)\)/
        for match in text.matches(of: literal) {
            let code = match.1.map(String.init) ?? "0"
            let statusClass = match.2 == "permanent" ? "5" : "4"
            said.insert(Said(program: program, status: "\(statusClass).\(match.3).\(match.4)", code: code))
        }
        for match in text.matches(of: /Self\.failed\(([0-9]+), ([0-9]+), ([0-9]+),/) {
            said.insert(Said(program: program, status: "5.\(match.2).\(match.3)", code: String(match.1)))
        }
        return said
    }

    @Test("every failure that a program can tell is in the register, and every one in the register can be told")
    func register() {
        var said: Set<Said> = []
        for file in Tree.files("Sources", ".swift") {
            guard let program = Self.program(file) else { continue }
            let text = Tree.lines(file).map(Tree.code).joined(separator: " ")
            said.formUnion(Self.said(in: text, by: program))
            // A status that is put together out of sight of this test would not be in the register.
            let made = text.matches(of: /EnhancedStatus\(\.(permanent|transient),/).count
            let literal = text.matches(of: /EnhancedStatus\(\.(permanent|transient), [0-9]+, [0-9]+\)/).count
            let isHelper = Tree.name(file) == "Sources/DNSCore/MailExchangers.swift"
            #expect(made == literal || isHelper && made == literal + 1, "\(Tree.name(file))")
        }
        let registered = Set(
            StatusRegister.all.map {
                Said(program: $0.program, status: $0.status.octets.printableText, code: String($0.code))
            })
        #expect(said.subtracting(registered).map(\.description).sorted() == [], "are not in the register")
        #expect(registered.subtracting(said).map(\.description).sorted() == [], "are nowhere told")
        #expect(registered.count == StatusRegister.all.count, "a failure is in the register twice")
    }

    @Test("Documentation/status-codes.md is as the register makes it")
    func documentation() throws {
        let page = try String(contentsOf: Tree.root.appending(path: "Documentation/status-codes.md"), encoding: .utf8)
        #expect(page.hasSuffix(StatusRegister.markdown))
    }
}
