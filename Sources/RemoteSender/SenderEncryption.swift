// SPDX-License-Identifier: Apache-2.0

import DNSCore
import MailTypes
import PipeCore
import SMTPCore
import SMTPDrivers
import TLSEngine
import Unix

/// On which terms a host is spoken to, and what earlier connections to it have left behind.
///
/// What a domain publishes about its hosts (DANE, MTA-STS) would be asked here, beside what the settings say of it.
final class SenderEncryption {
    /// Sessions of hosts that are kept; each takes one or two KiB.
    private static let sessionCountMax = 2_000

    private var settings: RemoteSettings
    private var lenient: TLSClientContext?
    private var strict: TLSClientContext?
    /// The file of authorities as it was read.
    private var authoritiesMark: FileMark?
    private var sessions: [SessionKey: TLSSession] = [:]

    /// A session counts as verified for the names of its connection only.
    private struct SessionKey: Hashable {
        let host: MailExchangers.Candidate
        let names: [String]
        let isStrict: Bool
    }

    init(_ settings: RemoteSettings) { self.settings = settings }

    func reload(_ settings: RemoteSettings) {
        if settings.authorities != self.settings.authorities {
            self.strict = nil
            self.forgetVerified()
        }
        self.settings = settings
    }

    /// What the old authorities have vouched for is not vouched for by the new ones, and nobody is asked for a certificate
    /// when a session is resumed.
    private func forgetVerified() { self.sessions = self.sessions.filter { !$0.key.isStrict } }

    /// Nil for plain text. Throws if what is demanded cannot be had on this machine.
    func terms(
        _ demand: TLSDemand, _ nextHop: NextHop, _ candidate: MailExchangers.Candidate
    ) throws(TLSError) -> ClientEncryption? {
        let kind: ClientSession.Encryption
        switch demand {
        case .off: return nil
        case .may: kind = .opportunistic
        case .require, .verify: kind = .required
        case .implicit: kind = .implicit
        }
        let key = Self.key(demand, nextHop, candidate)
        let context = key.isStrict ? try self.strictContext() : try self.lenientContext()
        return ClientEncryption(
            kind: kind, context: context, serverName: Self.name(candidate), names: key.names,
            address: String(decoding: candidate.address.octets, as: UTF8.self),
            session: self.sessions[key], keepSession: { [weak self] in self?.keep($0, key, of: context) })
    }

    /// The name of a host; nil if the next hop is an address.
    private static func name(_ candidate: MailExchangers.Candidate) -> String? {
        candidate.name.isEmpty ? nil : String(decoding: candidate.name, as: UTF8.self)
    }

    /// What sessions with a host are kept under, and the names that its certificate may be for.
    private static func key(
        _ demand: TLSDemand, _ nextHop: NextHop, _ candidate: MailExchangers.Candidate
    ) -> SessionKey {
        let isStrict = demand == .verify || demand == .implicit
        var names: [String] = []
        if isStrict {
            // A certificate for the domain itself is worth more than one for the host that DNS has named for it.
            if case .domain(let domain) = nextHop.target { names.append(String(decoding: domain, as: UTF8.self)) }
            if let name = Self.name(candidate), !names.contains(name) { names.append(name) }
        }
        return SessionKey(host: candidate, names: names, isStrict: isStrict)
    }

    /// A handshake has failed: what it began with, if that was an earlier session, must not begin the next.
    func forget(_ demand: TLSDemand, _ nextHop: NextHop, _ candidate: MailExchangers.Candidate) {
        self.sessions[Self.key(demand, nextHop, candidate)] = nil
    }

    private func keep(_ session: TLSSession, _ key: SessionKey, of context: TLSClientContext) {
        guard context === (key.isStrict ? self.strict : self.lenient) else { return }
        // Any of them will do: what is lost is a shorter handshake.
        if self.sessions[key] == nil, self.sessions.count >= Self.sessionCountMax, let other = self.sessions.keys.first
        {
            self.sessions[other] = nil
        }
        self.sessions[key] = session
    }

    private func lenientContext() throws(TLSError) -> TLSClientContext {
        if let context = self.lenient { return context }
        let context = try TLSClientContext()
        self.lenient = context
        return context
    }

    /// The authorities are read when they are first needed, and anew when the file has changed.
    private func strictContext() throws(TLSError) -> TLSClientContext {
        let mark = try? FileMark(self.settings.authorities)
        if let context = self.strict, mark == self.authoritiesMark { return context }
        let context = try TLSClientContext(authorities: self.settings.authorities)
        if self.strict != nil { self.forgetVerified() }
        self.strict = context
        self.authoritiesMark = mark
        return context
    }
}
