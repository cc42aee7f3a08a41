// SPDX-License-Identifier: Apache-2.0

import MailTypes
import PipeCore

/// One thing that is done with a message for a recipient.
package enum LocalInstruction: Hashable, Sendable {
    case maildir(MailboxPlace)
    case mbox(MailboxPlace)
    case program(ProgramCommand)
    case discard
}

/// A program that takes messages on its standard input.
package struct ProgramCommand: Hashable, Sendable {
    /// What its exit statuses mean.
    package enum Dialect: Hashable, Sendable {
        /// Those of sysexits.h.
        case sysexits
        /// Those of qmail-command(8). The message has no fields in front, they are in the environment.
        case qmail
    }

    /// Its path and its arguments, in which `%{sender}` and the like stand for words of the delivery.
    package let arguments: [String]
    package let dialect: Dialect
    /// What its environment has besides the words of the delivery, `NAME=value`.
    package let environment: [String]

    /// - Parameter arguments: at least one; the first is an absolute path.
    package init?(_ arguments: [String], dialect: Dialect = .sysexits, environment: [String] = []) {
        self.environment = environment
        guard let path = arguments.first, path.utf8.first == 0x2F else { return nil }
        guard arguments.allSatisfy({ !$0.utf8.contains(0) }) else { return nil }
        self.arguments = arguments
        self.dialect = dialect
    }
}

/// What a program is told of a delivery: the words for its environment and for `%{…}` in its arguments.
///
/// Much of it comes from the sender, who may hope for a program that hands it to a shell: every octet that is neither a
/// letter, a digit nor one of `!@%-_=+:,./` is `_` instead, and a word does not make an argument begin with a hyphen.
struct DeliveryWords {
    private let sender: [UInt8]
    private let recipient: [UInt8]
    private let original: [UInt8]
    private let localPart: [UInt8]
    private let domain: [UInt8]
    private let `extension`: [UInt8]
    private let user: String
    private let home: String

    init(_ recipient: DeliveryRecipient, from sender: ReversePath, route: Route, user: String, home: String) {
        self.sender = Self.tame(sender.octets)
        self.recipient = Self.tame(recipient.forwardPath.octets)
        self.original = Self.tame((recipient.originalForwardPath ?? recipient.forwardPath).octets)
        self.user = user
        self.home = home
        switch recipient.forwardPath {
        case .address(let address):
            let local = address.unquotedLocalPart
            self.localPart = Self.tame(local)
            self.domain = Self.tame(Array(address.domain))
            self.extension = Self.tame(Self.tag(of: local, user: Self.name(route, user)))
        case .postmaster:
            self.localPart = Array("postmaster".utf8)
            self.domain = []
            self.extension = []
        }
    }

    /// The name behind which a tag can stand.
    private static func name(_ route: Route, _ user: String) -> String {
        if case .alias(let name) = route { name.printableText } else { user }
    }

    /// What stands behind the user's name and the character that parts them; empty if the name is another one.
    static func tag(of localPart: [UInt8], user: String) -> [UInt8] {
        let name = Array(user.utf8)
        guard localPart.count > name.count, localPart.prefix(name.count).equalsIgnoringCase(name),
            !localPart[name.count].isLetterOrDigit
        else { return [] }
        return Array(localPart[(name.count + 1)...])
    }

    static func tame(_ octets: [UInt8]) -> [UInt8] {
        octets.prefix(1_000).map { octet in
            octet.isLetterOrDigit || "!@%-_=+:,./".utf8.contains(octet) ? octet : 0x5F
        }
    }

    private var pairs: [(name: String, octets: [UInt8])] {
        [
            ("sender", self.sender), ("recipient", self.recipient), ("original-recipient", self.original),
            ("local", self.localPart), ("domain", self.domain), ("extension", self.extension),
        ]
    }

    /// The whole environment of the program.
    var environment: [String] {
        var environment = [
            "HOME=\(self.home)", "USER=\(self.user)", "LOGNAME=\(self.user)", "PATH=/usr/local/bin:/usr/bin:/bin",
            "SHELL=/bin/sh",
        ]
        for (name, octets) in self.pairs {
            let upper = String(decoding: name.utf8.map { $0 == ASCII.hyphen ? 0x5F : $0.uppercased }, as: UTF8.self)
            environment.append("\(upper)=\(octets.printableText)")
        }
        return environment
    }

    /// An argument with the words in it.
    func filled(_ argument: String) -> String {
        let octets = Array(argument.utf8)
        var result: [UInt8] = []
        var rest = octets[...]
        let words = self.pairs + [("user", Array(self.user.utf8)), ("home", Array(self.home.utf8))]
        while let first = rest.first {
            if let word = words.first(where: { rest.starts(with: "%{\($0.name)}".utf8) }) {
                result += word.octets
                rest = rest.dropFirst(word.name.utf8.count + 3)
            } else {
                result.append(first)
                rest = rest.dropFirst()
            }
        }
        // Why: what a sender chooses must not become an option.
        if result.first == ASCII.hyphen, octets.first != ASCII.hyphen { result[0] = 0x5F }
        return String(decoding: result, as: UTF8.self)
    }
}
