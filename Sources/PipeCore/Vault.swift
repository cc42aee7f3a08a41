// SPDX-License-Identifier: Apache-2.0
//
// The dialect `vault` (pipes.md §7): exchanges of credentials, carried to apus-vault by apus-smtpd for clients that prove
// to us who they are, and by apus-remote where we prove it to others.

package import MailTypes

/// What an exchange of credentials begins with.
package struct ExchangeBeginning: Equatable, Sendable {
    package var mechanism: SASLMechanism
    package var client: IPAddress
    package var isEncrypted: Bool
    /// Data of `tls-exporter` (RFC 9266); empty if there is none.
    package var exporterBinding: [UInt8] = []
    /// Data of `tls-server-end-point` (RFC 5929); empty if there is none.
    package var endPointBinding: [UInt8] = []
    /// SHA-256 of the client's certificate in DER; empty if it has shown none.
    package var certificate: [UInt8] = []
    package var initialResponse: [UInt8]?

    package init(mechanism: SASLMechanism, client: IPAddress, isEncrypted: Bool, initialResponse: [UInt8]?) {
        self.mechanism = mechanism
        self.client = client
        self.isEncrypted = isEncrypted
        self.initialResponse = initialResponse
    }
}

/// What an exchange begins with in which we are the client.
package struct AccountLogin: Equatable, Sendable {
    /// Whose server it is: the next hop's domain or address.
    package var host: [UInt8]
    package var user: [UInt8]
    /// What the server offers.
    package var mechanisms: [SASLMechanism]

    package init(host: [UInt8], user: [UInt8], mechanisms: [SASLMechanism]) {
        self.host = host
        self.user = user
        self.mechanisms = mechanisms
    }
}

/// What a user has sent through one of several processes, for the others to count as well.
package struct UserExpense: Equatable, Sendable {
    package var user: [UInt8]
    package var messageCount: Int
    package var recipientCount: Int

    /// More is told in several frames.
    package static let countMax = 1_000_000

    package init(user: [UInt8], messageCount: Int = 0, recipientCount: Int = 0) {
        self.user = user
        self.messageCount = messageCount
        self.recipientCount = recipientCount
    }

    fileprivate init(_ frame: Frame) throws(FrameFault) {
        guard frame.channel == 0 else { throw FrameFault(.badChannel, frame.verb) }
        try frame.expectFields(3)
        guard (1...SASLLimits.userOctetCountMax).contains(frame[0].count) else { throw FrameFault(.badField, .spent) }
        self.init(
            user: Array(frame[0]), messageCount: Int(try frame.value(frame[1].decimal(limit: UInt64(Self.countMax)))),
            recipientCount: Int(try frame.value(frame[2].decimal(limit: UInt64(Self.countMax)))))
    }

    fileprivate func append(to octets: inout [UInt8]) {
        octets.appendFrame(
            .spent, 0, [self.user, Array("\(self.messageCount)".utf8), Array("\(self.recipientCount)".utf8)])
    }
}

/// From the one who speaks with the client, or with the server. A channel is one exchange.
package enum VaultRequest: Equatable, Sendable {
    case begin(ExchangeBeginning)
    case login(AccountLogin)
    /// The client's response to a challenge; in a `login` the server's challenge.
    case answer([UInt8])
    /// The exchange is given up; there is no answer. It is overdue if the asker was tired of waiting for the vault, which
    /// is no fault of the client's.
    case cancel(isOverdue: Bool)
    /// On channel 0, without an answer: passed on to all others who ask.
    case spent(UserExpense)

    private static let overdue = Array("overdue".utf8)

    package init(_ frame: Frame) throws(FrameFault) {
        switch frame.verb {
        case .begin:
            try frame.expectFields(6...7)
            guard [0, 32].contains(frame[5].count), frame[3].count <= 128, frame[4].count <= 128,
                let protection = frame[2].first,
                frame[2].elementsEqual("tls".utf8) || frame[2].elementsEqual("none".utf8)
            else { throw FrameFault(.badField, .begin) }
            var beginning = ExchangeBeginning(
                mechanism: try frame.value(SASLMechanism(octets: frame[0])),
                client: try frame.value(IPAddress(octets: Array(frame[1]))), isEncrypted: protection == 0x74,
                initialResponse: frame.fieldCount == 7 ? Array(frame[6]) : nil)
            beginning.exporterBinding = Array(frame[3])
            beginning.endPointBinding = Array(frame[4])
            beginning.certificate = Array(frame[5])
            self = .begin(beginning)
        case .login:
            try frame.expectFields(3)
            guard (1...255).contains(frame[0].count), (1...SASLLimits.userOctetCountMax).contains(frame[1].count)
            else { throw FrameFault(.badField, .login) }
            self = .login(
                AccountLogin(
                    host: Array(frame[0]), user: Array(frame[1]),
                    mechanisms: frame[2].split(separator: ASCII.space).compactMap { SASLMechanism(octets: $0) }))
        case .answer:
            try frame.expectFields(1)
            self = .answer(Array(frame[0]))
        case .cancel:
            try frame.expectFields(0...1)
            guard frame.fieldCount == 0 || frame[0].elementsEqual(Self.overdue) else {
                throw FrameFault(.badField, .cancel)
            }
            self = .cancel(isOverdue: frame.fieldCount == 1)
        case .spent: self = .spent(try UserExpense(frame))
        default: throw FrameFault(.outOfPlace, frame.verb)
        }
    }

    package func append(to octets: inout [UInt8], channel: UInt32) {
        switch self {
        case .begin(let beginning):
            var fields = [
                Array(beginning.mechanism.rawValue.utf8), beginning.client.octets,
                Array((beginning.isEncrypted ? "tls" : "none").utf8), beginning.exporterBinding,
                beginning.endPointBinding, beginning.certificate,
            ]
            if let response = beginning.initialResponse { fields.append(response) }
            octets.appendFrame(.begin, channel, fields)
        case .login(let login):
            let mechanisms = login.mechanisms.map(\.rawValue).joined(separator: " ")
            octets.appendFrame(.login, channel, [login.host, login.user, Array(mechanisms.utf8)])
        case .answer(let response): octets.appendFrame(.answer, channel, [response])
        case .cancel(let isOverdue): octets.appendFrame(.cancel, channel, isOverdue ? [Self.overdue] : [])
        case .spent(let expense): expense.append(to: &octets)
        }
    }
}

/// From the one who holds the secrets.
package enum VaultAnswer: Equatable, Sendable {
    /// On channel 0, whenever it changes: what can be offered to clients, as far as their connections allow.
    case mechanisms([SASLMechanism])
    /// On channel 0: another process of the asker's kind has told it.
    case spent(UserExpense)
    /// For the client.
    case challenge([UInt8])
    /// For the server: the mechanism, and a response if it is our turn to speak. Only after the last one the server's
    /// word for success may be believed.
    case proof(SASLMechanism, response: [UInt8]?, isLast: Bool)
    /// The end: it is this user.
    case granted(user: [UInt8])
    /// The end: it is nobody. The reason is one word, for the log alone; the user is whom the client wanted to be, empty
    /// if that is not known.
    case denied(reason: [UInt8], user: [UInt8])
    /// The end: it cannot be told now, for a reason that is for the log.
    case later(text: [UInt8])

    /// The reason of a denial after too many failures, of the client or as the user: nothing is said of the credentials.
    package static let blocked = Array("blocked".utf8)

    package init(_ frame: Frame) throws(FrameFault) {
        switch frame.verb {
        case .mechanisms:
            var mechanisms: [SASLMechanism] = []
            for index in 0..<frame.fieldCount {
                // What a successor of ours may know and we do not is not offered.
                if let mechanism = SASLMechanism(octets: frame[index]) { mechanisms.append(mechanism) }
            }
            self = .mechanisms(mechanisms)
            return
        case .spent: self = .spent(try UserExpense(frame))
        case .challenge:
            try frame.expectFields(1)
            self = .challenge(Array(frame[0]))
        case .proof:
            try frame.expectFields(2...3)
            guard frame[1].elementsEqual("last".utf8) || frame[1].elementsEqual("more".utf8) else {
                throw FrameFault(.badField, .proof)
            }
            self = .proof(
                try frame.value(SASLMechanism(octets: frame[0])),
                response: frame.fieldCount == 3 ? Array(frame[2]) : nil,
                isLast: frame[1].elementsEqual("last".utf8))
        case .granted:
            try frame.expectFields(1)
            guard (1...SASLLimits.userOctetCountMax).contains(frame[0].count) else {
                throw FrameFault(.badField, .granted)
            }
            self = .granted(user: Array(frame[0]))
        case .denied:
            try frame.expectFields(2)
            guard frame[1].count <= SASLLimits.userOctetCountMax else { throw FrameFault(.badField, .denied) }
            self = .denied(reason: Array(frame[0]), user: Array(frame[1]))
        case .later:
            try frame.expectFields(1)
            self = .later(text: Array(frame[0]))
        default: throw FrameFault(.outOfPlace, frame.verb)
        }
    }

    package func append(to octets: inout [UInt8], channel: UInt32) {
        switch self {
        case .mechanisms(let mechanisms):
            octets.appendFrame(.mechanisms, channel, mechanisms.map { Array($0.rawValue.utf8) })
        case .spent(let expense): expense.append(to: &octets)
        case .challenge(let challenge): octets.appendFrame(.challenge, channel, [challenge])
        case .proof(let mechanism, let response, let isLast):
            var fields = [Array(mechanism.rawValue.utf8), Array((isLast ? "last" : "more").utf8)]
            if let response { fields.append(response) }
            octets.appendFrame(.proof, channel, fields)
        case .granted(let user): octets.appendFrame(.granted, channel, [user])
        case .denied(let reason, let user): octets.appendFrame(.denied, channel, [reason, user])
        case .later(let text):
            octets.appendFrame(.later, channel, [Array(text.prefix(DeliveryOutcome.textOctetCountMax))])
        }
    }
}
