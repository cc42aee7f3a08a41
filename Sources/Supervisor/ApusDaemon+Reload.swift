// SPDX-License-Identifier: Apache-2.0

import Settings
import Unix

/// SIGHUP: the settings are read again. Either all of them are taken, or none.
extension ApusDaemon {
    func reload() {
        self.notifier.reloading(now: self.now)
        defer { self.notifier.ready(self.statusLine) }
        var (settings, remarks) = Settings.read(file: self.configuration)
        if let fresh = settings, fresh.stateDirectory != self.settings.stateDirectory {
            remarks.append(
                Remark(
                    file: self.configuration, line: fresh.stateLine, "state cannot be changed while Apus runs",
                    hint: "restart apusd"))
            settings = nil
        }
        let own = Set(self.settings.listenAddresses.map(\.address))
        if let fresh = settings {
            let found = Surroundings(ownAddresses: own, isStarting: true).remarks(on: fresh)
            remarks += found
            if found.contains(where: { $0.weight == .mistake }) { settings = nil }
        }
        Self.log(remarks)
        guard let settings, let certificates = self.certificates(of: settings),
            let listeners = self.openListeners(settings)
        else {
            var line = LogLine("reload-refused")
            line.add("reason", "the settings are wrong, see above; the old ones stay in force")
            line.write()
            return
        }
        self.certificates.replace(certificates)
        self.take(settings, listeners)
        LogLine("reloaded").write()
    }

    /// The listeners of the new settings: those that are open already, and new ones. Nil if one cannot be opened.
    private func openListeners(_ settings: Settings) -> [Listener]? {
        let all = settings.listenAddresses.map(\.address)
        var listeners: [Listener] = []
        var opened: [Descriptor] = []
        for address in settings.listenAddresses {
            let known = self.listeners.first { SocketAddress(text: $0.address) == address.address }
            do throws(SystemError) {
                let descriptor: Descriptor
                if let known {
                    descriptor = known.descriptor
                } else {
                    descriptor = try ListeningSocket.open(address.address, among: all)
                    opened.append(descriptor)
                }
                listeners.append(
                    Listener(role: address.role, address: address.text, tls: address.tls, descriptor: descriptor))
            } catch {
                Self.log([Surroundings.remark(error, address, file: self.configuration)])
                for descriptor in opened { descriptor.close() }
                return nil
            }
        }
        return listeners + [self.localListener]
    }

    private func take(_ settings: Settings, _ listeners: [Listener]) {
        let old = self.listeners
        let changed = Set(
            (Set(settings.replacements.keys).union(self.settings.replacements.keys)).filter {
                settings.replacements[$0] != self.settings.replacements[$0]
            })
        self.settings = settings
        self.listeners = listeners
        self.supervision.limits.stopTimeout = settings.stopTimeout
        for part in self.processes.keys {
            let table = self.table(for: part)
            self.tell(part) { process throws(SystemError) in try process.send(settings: table) }
            guard part.program == .smtpd else { continue }
            self.tellCertificates(part)
            // A listener whose role or spelling has changed is taken away and handed over anew; the socket stays
            // open meanwhile, and who connects waits in it.
            for listener in old where !listeners.contains(listener) {
                self.tell(part) { process throws(SystemError) in try process.sendUnlisten(listener.address) }
            }
            for listener in listeners where !old.contains(listener) {
                self.tell(part) { process throws(SystemError) in try process.send(listener) }
            }
        }
        for listener in old where !listeners.contains(where: { $0.descriptor == listener.descriptor }) {
            listener.descriptor.close()
        }
        self.events.append(.workerCount(settings.workerCount))
        self.events.append(.replaced(changed, foreign: Set(settings.replacements.keys)))
    }
}
