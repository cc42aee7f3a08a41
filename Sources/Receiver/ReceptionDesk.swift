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
    /// Sessions of users of this machine, but root's.
    private var localCounts = OpenCounts<UInt32>()

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
            return self.turnAway(client, "sessions-max", rules.tooManySessions, tls)
        }
        // Nor may one user of this machine keep everybody out.
        if let uid, uid != 0, self.localCounts[uid] >= max(1, settings.sessionCountMax / 4) {
            return self.turnAway(client, "sessions-max", rules.tooManySessionsOfClient, tls, uid)
        }
        // Our own machines may come as often as they like.
        if !mayRelay, self.register.count(of: client) >= settings.sessionCountPerClientMax {
            return self.turnAway(client, "sessions-per-client-max", rules.tooManySessionsOfClient, tls)
        }
        guard let encryption = self.certificates.encryption(tls, listener) else {
            // It would be plain text where clients expect TLS.
            return self.turnAway(client, "no certificate", rules.shuttingDown, tls)
        }
        let reception = Reception(
            desk: self, settings: settings, client: client, uid: uid, mayRelay: mayRelay,
            isSubmission: role == "submission", sessionID: self.makeSessionID())
        if let uid, uid != 0 { self.localCounts.open(uid) }
        reception.logConnect(origin, role: role)
        return .session(settings.terms(role: uid == nil ? role : "local"), encryption, reception)
    }

    /// A session is over.
    func noteEnd(uid: UInt32?) {
        if let uid { self.localCounts.close(uid) }
    }

    private func turnAway(
        _ client: IPAddress, _ limit: String, _ reply: Reply, _ tls: ListenerTLS, _ uid: UInt32? = nil
    ) -> ServerListener.Welcome {
        var line = LogLine("turned-away")
        if let uid { line.add("uid", uid) } else { line.add("client", client.octets) }
        line.add("limit", limit)
        line.write()
        // Where TLS comes first, plain text is a broken handshake to the client; a handshake would cost us more than
        // we want to spend on it.
        return .turnedAway(tls == .implicit ? nil : reply)
    }

    /// A word for the log that two sessions share neither within a process nor among several: the time in
    /// microseconds, never the same twice, and the process number.
    private func makeSessionID() -> [UInt8] {
        self.lastSessionMicroseconds = max(WallClock.now().microseconds, self.lastSessionMicroseconds &+ 1)
        return MessageID(rawValue: self.lastSessionMicroseconds << 20 | self.processNumber).octets
    }
}
