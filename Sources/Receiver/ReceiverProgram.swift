// SPDX-License-Identifier: Apache-2.0
//
// apus-smtpd as a program: listeners, links, settings, stop.

import Glibc
import NIOCore
import PipeCore
import PipeDrivers
import SMTPDrivers
import TLSEngine
package import Unix

/// The SMTP server.
package final class ReceiverProgram: LoopProgram {
    private let program: Program
    private let eventLoop: any EventLoop
    private let desk: ReceptionDesk
    private var listeners: [ServerListener] = []
    private var isStopping = false

    /// Starts and runs to the end of the process.
    package static func main() -> Never {
        let description = Program.Description(
            name: "apus-smtpd", purpose: "Takes mail by SMTP and hands it to apus-queue.",
            mainLink: (.submit, "apus-queue"))
        Program.start(description).run { ReceiverProgram($0, on: $1) }
    }

    private init(_ program: Program, on eventLoop: any EventLoop) {
        self.program = program
        self.eventLoop = eventLoop
        do throws(SettingsFault) {
            let settings = try ReceiverSettings(program.settings, isByHand: !program.isSupervised)
            self.desk = ReceptionDesk(
                settings: settings,
                register: ServerRegister(eventLoop: eventLoop), queue: QueueClient(eventLoop: eventLoop),
                lookup: LookupClient(eventLoop: eventLoop), certificates: ReceiverCertificates(),
                authentication: AuthenticationDesk(
                    vault: VaultClient(program: "apus-smtpd", eventLoop: eventLoop), eventLoop: eventLoop,
                    terms: settings.authentication),
                processNumber: UInt32(bitPattern: getpid()))
        } catch {
            Self.log(error)
            ExitStatus.configuration.exit()
        }
    }

    private static func log(_ fault: SettingsFault) {
        var line = LogLine("settings-fault")
        line.add("name", fault.name)
        line.add("reason", fault.text)
        line.write()
    }

    package func begin() {
        self.takeCertificates()
        for ends in self.program.links { self.use(ends) }
        for listener in self.program.listeners { self.serve(listener) }
        guard !self.program.isSupervised else { return }
        for listen in self.desk.settings.listen { self.bind(listen) }
        // Run by hand, the end of the queue is the end of our task (pipes.md §1).
        self.desk.queue.linksGone = { [weak self] in self?.stop() }
    }

    package func handle(_ event: ControlEvent) {
        switch event {
        case .settings(let table): self.reload(table)
        case .listen(let listener): self.serve(listener)
        case .certificates(let files): self.desk.certificates.replace(files, self.desk.settings)
        case .tickets(let keys): self.desk.certificates.ticketKeys.replace(keys)
        case .unlisten(let address): self.stopListening(address)
        case .link(let ends): self.use(ends)
        case .start: break
        case .status(let channel): self.program.answerStatus(channel, self.rows)
        case .stop: self.stop()
        }
    }

    private func takeCertificates() {
        guard !self.program.isSupervised else {
            self.desk.certificates.ticketKeys.replace(self.program.ticketKeys)
            return self.desk.certificates.replace(self.program.certificates, self.desk.settings)
        }
        guard !self.desk.settings.certificates.isEmpty else { return }
        // One process, and one key for as long as it lives.
        var random = SystemRandomNumberGenerator()
        self.desk.certificates.ticketKeys.replace([
            (0..<TLSTicketKeys.octetCount).map { _ in UInt8.random(in: .min ... .max, using: &random) }
        ])
        do throws(TLSError) {
            try self.desk.certificates.read(self.desk.settings)
        } catch {
            Self.log(SettingsFault("certificate", error.text))
            ExitStatus.configuration.exit()
        }
    }

    private func use(_ ends: LinkEnds) {
        switch ends.dialect {
        case .submit: self.desk.queue.use(ends)
        case .ask: self.desk.lookup.use(ends)
        case .vault: self.desk.authentication.vault.use(ends)
        case .deliver, .operate:
            var line = LogLine("link-unwanted")
            line.add("dialect", ends.dialect.rawValue)
            line.add("peer", ends.peer)
            line.write()
            ends.input.close()
            if ends.output != ends.input { ends.output.close() }
        }
    }

    /// Sessions that have begun keep the settings that they began with.
    private func reload(_ table: SettingsTable) {
        do throws(SettingsFault) {
            self.desk.settings = try ReceiverSettings(table, isByHand: !self.program.isSupervised)
            self.desk.authentication.replace(self.desk.settings.authentication)
            LogLine("settings-replaced").write()
        } catch {
            Self.log(error)
        }
        // Whatever changed, apus-lookup may answer otherwise now.
        self.desk.lookup.forgetAll()
    }

    // MARK: Listeners

    private func serve(_ listener: Listener) {
        let desk = self.desk
        self.keep(
            ServerListener.serve(
                descriptor: listener.descriptor.number, address: listener.address, register: desk.register,
                on: self.eventLoop,
                welcome: { desk.welcome($0, role: listener.role, listener.tls, listener.address) }),
            listener.address)
    }

    private func bind(_ listen: ListenAddress) {
        let desk = self.desk
        self.keep(
            ServerListener.bind(
                to: listen.address, register: desk.register, on: self.eventLoop,
                welcome: { desk.welcome($0, role: listen.role, listen.tls, listen.text) }),
            listen.text)
    }

    private func keep(_ listener: EventLoopFuture<ServerListener>, _ address: String) {
        listener.assumeIsolated().whenComplete { result in
            switch result {
            case .success(let listener):
                if self.isStopping { return listener.close() }
                self.listeners.append(listener)
                var line = LogLine("listen")
                line.add("address", address)
                line.write()
            case .failure(let error):
                var line = LogLine("listen-failed")
                line.add("address", address)
                line.add("reason", "\(error)")
                line.write()
                // By hand nobody else would notice; apusd opens its sockets itself.
                if !self.program.isSupervised { ExitStatus.unavailable.exit() }
            }
        }
    }

    private func stopListening(_ address: String) {
        for listener in self.listeners where listener.address == address { listener.close() }
        self.listeners.removeAll { $0.address == address }
    }

    // MARK: Status and stop

    private var rows: [(name: String, value: String)] {
        let register = self.desk.register
        return [
            ("sessions", "\(register.count)"),
            ("sessions-total", "\(register.totals.connectionCount)"),
            ("turned-away", "\(register.totals.turnedAwayCount)"),
            ("messages", "\(self.desk.totals.messageCount)"),
            ("tls-sessions", "\(self.desk.totals.encryptedCount)"),
            ("refusals", "\(self.desk.totals.refusalCount)"),
            ("queue-link", self.desk.queue.isAvailable ? "up" : "away"),
            ("authenticated", "\(self.desk.authentication.grantedCount)"),
            ("auth-failed", "\(self.desk.authentication.failedCount)"),
            ("vault-link", self.desk.authentication.vault.isAvailable ? "up" : "away"),
            ("lookup-link", self.desk.lookup.isAvailable ? "up" : "away"),
        ]
    }

    /// Accepts no more, lets mail under way come to its end for as long as the settings allow, and exits.
    private func stop() {
        guard !self.isStopping else { return }
        self.isStopping = true
        for listener in self.listeners { listener.close() }
        let eventLoop = self.eventLoop.assumeIsolated()
        eventLoop.scheduleTask(in: self.desk.settings.stopTimeout) {
            var line = LogLine("stop-timeout")
            line.add("sessions", self.desk.register.count)
            line.write()
            ExitStatus.ok.exit()
        }
        // Through the loop once more: what the links still have to send goes out at the end of this turn.
        self.desk.register.stop { eventLoop.execute { ExitStatus.ok.exit() } }
    }
}
