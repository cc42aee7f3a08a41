// SPDX-License-Identifier: Apache-2.0

import SMTPDrivers
import TLSEngine
import Unix

/// What the listeners show to clients. Sessions keep what they began with.
final class ReceiverCertificates {
    let ticketKeys = TLSTicketKeys()
    private var common: TLSServerContext?
    /// Of listeners with a certificate of their own, by address.
    private var byListener: [String: TLSServerContext] = [:]

    /// Takes others in the place of those that there are; closes the descriptors.
    func replace(_ files: [CertificateFile], _ settings: ReceiverSettings) {
        defer { for file in files { file.descriptor.close() } }
        do throws(TLSError) {
            var read: [(listener: String, credential: TLSCredential)] = []
            for file in files {
                let octets: [UInt8]
                do throws(SystemError) {
                    octets = try file.descriptor.read(at: 0, upTo: CertificateFile.octetCountMax)
                } catch { throw TLSError("\(file.name): \(error.text)") }
                read.append((file.listener, try TLSCredential(chain: octets, key: octets)))
            }
            try self.replace(read, settings)
        } catch {
            // apusd has looked at them with the same eyes; what there was stays.
            var line = LogLine("certificate-fault")
            line.add("reason", error.text)
            line.write()
        }
    }

    /// Reads the files that the settings of a program run by hand name, each a chain and its key.
    func read(_ settings: ReceiverSettings) throws(TLSError) {
        var read: [(listener: String, credential: TLSCredential)] = []
        for path in settings.certificates {
            let octets: [UInt8]
            do throws(SystemError) {
                octets = try Descriptor.readFile(path, octetCountMax: CertificateFile.octetCountMax)
            } catch { throw TLSError(error.text) }
            read.append(("", try TLSCredential(chain: octets, key: octets)))
        }
        try self.replace(read, settings)
    }

    private func replace(
        _ read: [(listener: String, credential: TLSCredential)], _ settings: ReceiverSettings
    ) throws(TLSError) {
        let all = read.filter { $0.listener.isEmpty }.map(\.credential)
        let common = all.isEmpty ? nil : try self.context(all, settings)
        var byListener: [String: TLSServerContext] = [:]
        for listener in Set(read.map(\.listener)) where !listener.isEmpty {
            let own = read.filter { $0.listener == listener }.map(\.credential)
            byListener[listener] = try self.context(own + all, settings)
        }
        self.common = common
        self.byListener = byListener
    }

    private func context(
        _ credentials: [TLSCredential], _ settings: ReceiverSettings
    ) throws(TLSError) -> TLSServerContext {
        try TLSServerContext(
            credentials, minimum: settings.minimumVersion, tickets: self.ticketKeys,
            asksForCertificate: !settings.relayCertificates.isEmpty || settings.authentication.asksForCertificate)
    }

    /// What a client of that listener gets; nil if it cannot be what the listener is for.
    func encryption(_ tls: ListenerTLS, _ listener: String) -> ServerEncryption? {
        let context = self.byListener[listener] ?? self.common
        switch (tls, context) {
        case (.off, _), (.offer, nil): return ServerEncryption.none
        case (.offer, .some(let context)): return .offered(context)
        case (.require, .some(let context)): return .required(context)
        case (.implicit, .some(let context)): return .implicit(context)
        case (.require, nil), (.implicit, nil): return nil
        }
    }
}
