// SPDX-License-Identifier: Apache-2.0
//
// Certificates for apus-smtpd, which has no file of its own: apusd reads them, looks whether they will do, and hands them on.

import Settings
import TLSEngine
import Unix

/// The certificates in use, when they were read, and the keys of session tickets.
struct CertificateShelf {
    private struct Entry {
        let files: CertificateFiles
        let octets: [UInt8]
        let marks: [FileMark]
    }

    /// How often the files are looked at; a look is a stat(2) of each.
    static let lookInterval: Duration = .seconds(5)
    /// How long one key makes tickets. It opens them for as long again, twice.
    static let ticketKeyTime: Duration = .seconds(8 * 3_600)

    private var entries: [Entry]
    /// The state of changed files that were found not to do, so that it is said once.
    private var refusedMarks: [FileMark] = []
    /// The newest first.
    private(set) var ticketKeys: [[UInt8]] = []
    private var nextLook: Duration = .zero
    private var nextKey: Duration = .zero
    private var random = SystemRandomNumberGenerator()

    /// Reads all of them; throws what is wrong with one.
    init(_ files: [CertificateFiles]) throws(TLSError) { self.entries = try Self.read(files) }

    private static func read(_ files: [CertificateFiles]) throws(TLSError) -> [Entry] {
        var entries: [Entry] = []
        for files in files {
            // The marks first: what changes afterwards is read again.
            let marks = Self.marks(files)
            let octets = try files.read().octets
            entries.append(Entry(files: files, octets: octets, marks: marks))
        }
        return entries
    }

    private static func marks(_ files: CertificateFiles) -> [FileMark] {
        [files.chain, files.key].compactMap { try? FileMark($0) }
    }

    var isEmpty: Bool { self.entries.isEmpty }

    /// When `look` or `turnTicketKeys` has something to do; nil if there is no certificate.
    var nextDeadline: Duration? { self.isEmpty ? nil : min(self.nextLook, self.nextKey) }

    mutating func replace(_ other: CertificateShelf) {
        self.entries = other.entries
        self.refusedMarks = []
        self.nextLook = .zero
    }

    /// What a look at the files has found.
    enum Look {
        case same
        /// Others are in use from now on.
        case replaced
        /// They have changed and will not do; those that were read before stay in use.
        case refused(TLSError)
    }

    mutating func look(now: Duration) -> Look {
        guard !self.isEmpty, self.nextLook <= now else { return .same }
        self.nextLook = now + Self.lookInterval
        let marks = self.entries.flatMap { Self.marks($0.files) }
        guard marks != self.entries.flatMap(\.marks), marks != self.refusedMarks else { return .same }
        do throws(TLSError) {
            self.entries = try Self.read(self.entries.map(\.files))
            self.refusedMarks = []
            return .replaced
        } catch {
            // Perhaps one of two files is written and the other is not yet: looked at again when anything changes.
            self.refusedMarks = marks
            return .refused(error)
        }
    }

    /// - Returns: whether there is a new key.
    mutating func turnTicketKeys(now: Duration) -> Bool {
        guard !self.isEmpty, self.nextKey <= now else { return false }
        self.nextKey = now + Self.ticketKeyTime
        let key = (0..<TLSTicketKeys.octetCount).map { _ in UInt8.random(in: .min ... .max, using: &self.random) }
        self.ticketKeys = Array(([key] + self.ticketKeys).prefix(TLSTicketKeys.countMax))
        return true
    }

    /// As apus-smtpd is given them. The caller closes the descriptors.
    func memoryFiles() throws(SystemError) -> [CertificateFile] {
        var files: [CertificateFile] = []
        do throws(SystemError) {
            for entry in self.entries {
                files.append(
                    CertificateFile(
                        listener: entry.files.listener, name: entry.files.chain,
                        descriptor: try Descriptor.memoryFile("certificate", entry.octets)))
            }
        } catch {
            for file in files { file.descriptor.close() }
            throw error
        }
        return files
    }
}

extension ApusDaemon {
    /// The certificates of new settings; nil if one will not do, which is said.
    func certificates(of settings: Settings) -> CertificateShelf? {
        do throws(TLSError) {
            return try CertificateShelf(settings.certificates)
        } catch {
            Self.log([Remark(file: self.configuration, line: 0, error.text)])
            return nil
        }
    }

    func lookAfterCertificates(now: Duration) {
        self.turnTicketKeys(now: now)
        switch self.certificates.look(now: now) {
        case .same: break
        case .replaced:
            LogLine("certificates-replaced").write()
            for part in self.processes.keys where part.program == .smtpd { self.tellCertificates(part) }
        case .refused(let error):
            var line = LogLine("certificates-refused")
            line.add("reason", error.text)
            line.add("note", "those that were read before stay in use")
            line.write()
        }
    }

    private func turnTicketKeys(now: Duration) {
        guard self.certificates.turnTicketKeys(now: now) else { return }
        let keys = self.certificates.ticketKeys
        for part in self.processes.keys where part.program == .smtpd {
            self.tell(part) { process throws(SystemError) in try process.send(ticketKeys: keys) }
        }
    }

    /// Hands a process of apus-smtpd all certificates and the keys of tickets.
    func tellCertificates(_ part: Part) {
        do throws(SystemError) {
            // Before the first of them: no session is to be begun with tickets that nobody else can open.
            self.turnTicketKeys(now: self.now)
            let keys = self.certificates.ticketKeys
            let files = try self.certificates.memoryFiles()
            defer { for file in files { file.descriptor.close() } }
            self.tell(part) { process throws(SystemError) in
                try process.send(ticketKeys: keys)
                try process.send(files)
            }
        } catch {
            self.misbehaved(part, error.text)
        }
    }
}
