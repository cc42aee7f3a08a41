// SPDX-License-Identifier: Apache-2.0

import MailTypes
import SMTPCore
import SMTPDrivers
import Unix

/// What all sessions of the process share: the settings of the moment, the links, and what is counted.
final class ReceptionDesk {
    /// Counts since the start, for `apus status`.
    struct Totals {
        var messageCount: UInt64 = 0
        var refusalCount: UInt64 = 0
        var encryptedCount: UInt64 = 0
    }

    var settings: ReceiverSettings
    let register: ServerRegister
    let queue: QueueClient
    let lookup: LookupClient
    let certificates: ReceiverCertificates
    let authentication: AuthenticationDesk
    var totals = Totals()
    private var lastSessionMicroseconds: UInt64 = 0
    private let processNumber: UInt64

    init(
        settings: ReceiverSettings, register: ServerRegister, queue: QueueClient, lookup: LookupClient,
        certificates: ReceiverCertificates, authentication: AuthenticationDesk, processNumber: UInt32
    ) {
        self.settings = settings
        self.register = register
        self.queue = queue
        self.lookup = lookup
        self.certificates = certificates
        self.authentication = authentication
        self.processNumber = UInt64(processNumber) & 0xFFFFF
    }

    /// Decides whether a client gets a session at all.
    func welcome(
        _ origin: ServerListener.Origin, role: String, _ tls: ListenerTLS, _ listener: String
    ) -> ServerListener.Welcome {
        let settings = self.settings
        let client = origin.address
        var uid: UInt32?
        if case .local(let user) = origin { uid = user }
        let mayRelay = uid != nil || settings.mayRelay(client)
        let rules = settings.terms.rules
        if self.register.count >= settings.sessionCountMax {
            self.logTurnedAway(client, "sessions-max")
            return .turnedAway(rules.tooManySessions)
        }
        // Our own machines may come as often as they like.
        if !mayRelay, self.register.count(of: client) >= settings.sessionCountPerClientMax {
            self.logTurnedAway(client, "sessions-per-client-max")
            return .turnedAway(rules.tooManySessionsOfClient)
        }
        guard let encryption = self.certificates.encryption(tls, listener) else {
            // It would be plain text where clients expect TLS.
            self.logTurnedAway(client, "no certificate")
            return .turnedAway(rules.shuttingDown)
        }
        let reception = Reception(
            desk: self, settings: settings, client: client, uid: uid, mayRelay: mayRelay,
            isSubmission: role == "submission", sessionID: self.makeSessionID())
        reception.logConnect(origin, role: role)
        return .session(settings.terms(role: uid == nil ? role : "local"), encryption, reception)
    }

    private func logTurnedAway(_ client: IPAddress, _ limit: String) {
        var line = LogLine("turned-away")
        line.add("client", client.octets)
        line.add("limit", limit)
        line.write()
    }

    /// A word for the log that two sessions share neither within a process nor among several: the time in
    /// microseconds, never the same twice, and the process number.
    private func makeSessionID() -> [UInt8] {
        self.lastSessionMicroseconds = max(WallClock.now().microseconds, self.lastSessionMicroseconds &+ 1)
        return MessageID(rawValue: self.lastSessionMicroseconds << 20 | self.processNumber).octets
    }
}
