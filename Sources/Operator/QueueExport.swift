// SPDX-License-Identifier: Apache-2.0
//
// A queue to and from a file (Documentation/queue-export.md).

import ArgumentParser
import Glibc
import MailTypes
import PipeCore
import Unix

extension QueueCommand {
    struct Export: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Writes messages to a file that any later Apus can import.",
            discussion:
                "The queue goes on meanwhile: pause it, or stop Apus, if what is exported shall be delivered elsewhere."
        )

        @Argument(help: "The file, which must not exist; without it, standard output.") var file: String?
        @OptionGroup(title: "Only what matches") var filter: FilterOptions
        @Flag(help: "Write the totals as JSON; with a file only.") var json = false
        @OptionGroup var common: CommonOptions

        func validate() throws {
            guard !self.json || self.file != nil else { throw ValidationError("With --json, name a file.") }
        }

        func run() throws {
            guard self.file != nil || isatty(1) == 0 else {
                Terminal.complain("an export is no text for a terminal; name a file")
                throw ExitCode(ExitStatus.usage.rawValue)
            }
            var connection = try self.common.connectToQueue()
            defer { connection.close() }
            var unreadable: [String] = []
            let counts: ExportCounts
            do throws(ApusdConnection.Fault) {
                var writer = try ExportWriter(path: self.file)
                try connection.export(
                    filter: self.filter, { part throws(ApusdConnection.Fault) in try writer.take(part) }
                ) {
                    unreadable += $0.filter { $0.name == "unreadable" }.map(\.value)
                }
                counts = try writer.finish()
            } catch { throw CommonOptions.exit(error) }
            for id in unreadable {
                Terminal.complain("message \(id) cannot be read as a whole and is not, or not all, in the export")
            }
            if self.json {
                Terminal.write(
                    "{\"messages\":\(counts.messages),\"recipients\":\(counts.recipients),\"octets\":\(counts.octets),"
                        + "\"unreadable\":\(unreadable.count)}\n")
            } else {
                Terminal.complain(
                    "exported \(counts.messages) messages, \(counts.recipients) recipients, \(counts.octets) octets")
            }
            if !unreadable.isEmpty { throw ExitCode(1) }
        }
    }

    struct Import: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Takes the messages of an export into the queue.",
            discussion:
                "What is in the queue already is skipped, so that an import that was interrupted can be repeated.")

        @Argument(help: "The file; without it, standard input.") var file: String?
        @Flag(help: "Write JSON.") var json = false
        @OptionGroup var common: CommonOptions

        func run() throws {
            let input: Descriptor
            do throws(SystemError) {
                input = try self.file.map { path throws(SystemError) in try Descriptor.open(path, O_RDONLY) } ?? .input
            } catch {
                Terminal.complain(error.text)
                throw ExitCode(ExitStatus.badInput.rawValue)
            }
            let source = ExportSource(input)
            // Before anything is asked of the queue: is it an export at all?
            do throws(ExportFault) { try source.readHeader() } catch {
                Terminal.complain("\(self.file ?? "standard input"): \(error.text)")
                throw ExitCode(ExitStatus.badInput.rawValue)
            }
            let sender = ImportSender(try self.common.connectToQueue())
            defer { sender.connection.close() }
            var refusal: (text: String, status: ExitStatus)?
            do {
                try sender.send(source)
            } catch let fault as ExportFault {
                refusal = ("\(self.file ?? "standard input"): \(fault.text)", .badInput)
            } catch let fault as ApusdConnection.Fault {
                refusal = (fault.text, fault.status)
            }
            self.tell(sender)
            guard let refusal else { return }
            Terminal.complain(refusal.text)
            throw ExitCode(refusal.status.rawValue)
        }

        private func tell(_ sender: ImportSender) {
            guard !self.json else {
                return Terminal.write(
                    "{\"imported\":\(sender.importedCount),\"skipped\":\(sender.skippedCount),"
                        + "\"renamed\":\(sender.renamed.count)}\n")
            }
            for (given, id) in sender.renamed { Terminal.write("\(given) is in this queue as \(id)\n") }
            let skipped =
                sender.skippedCount > 0 ? ", \(sender.skippedCount) skipped that are in the queue already" : ""
            Terminal.write("\(sender.importedCount) messages imported\(skipped)\n")
        }
    }
}

/// Writes a file of frames.
private struct ExportWriter {
    private let output: Descriptor
    private let path: String?
    private var reader = ExportReader()
    private var octets: [UInt8] = []

    init(path: String?) throws(ApusdConnection.Fault) {
        do throws(SystemError) {
            // It holds other people's mail.
            self.output =
                try path.map { path throws(SystemError) in
                    try Descriptor.open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, mode: 0o600)
                } ?? .output
        } catch { throw ApusdConnection.Fault(text: error.text, status: .system) }
        self.path = path
        try self.take(
            .header(
                major: ExportFormat.major, minor: ExportFormat.minor, program: Array("apus".utf8),
                time: WallClock.now()))
    }

    mutating func take(_ part: ExportPart) throws(ApusdConnection.Fault) {
        let start = self.octets.count
        part.append(to: &self.octets, channel: 0)
        // What is written here must be readable there.
        var decoder = FrameDecoder()
        decoder.append(Array(self.octets[start...]))
        do {
            while let frame = try decoder.next() { _ = try self.reader.receive(frame) }
        } catch {
            throw ApusdConnection.Fault(text: "the queue answers what is no export: \(error)", status: .software)
        }
        if self.octets.count >= 262_144 { try self.flush() }
    }

    private mutating func flush() throws(ApusdConnection.Fault) {
        do throws(SystemError) { try self.output.write(self.octets) } catch {
            throw ApusdConnection.Fault(text: "\(self.path ?? "standard output"): \(error.text)", status: .inputError)
        }
        self.octets.removeAll(keepingCapacity: true)
    }

    /// Writes the end; the file is on stable storage.
    mutating func finish() throws(ApusdConnection.Fault) -> ExportCounts {
        let counts = self.reader.counts
        try self.take(.end(counts))
        try self.flush()
        if let path, fsync(self.output.number) != 0 {
            throw ApusdConnection.Fault(text: SystemError("fsync", path).text, status: .inputError)
        }
        return counts
    }
}

/// Reads a file of frames.
private final class ExportSource {
    private let input: Descriptor
    private var decoder = FrameDecoder()
    private var reader = ExportReader()

    init(_ input: Descriptor) { self.input = input }

    func readHeader() throws(ExportFault) {
        guard try self.next() != nil else { throw ExportFault("it is empty") }
    }

    /// The next part; nil behind the end. A file that ends before its end is a fault.
    func next() throws(ExportFault) -> ExportPart? {
        while true {
            do {
                if let frame = try self.decoder.next() { return try self.reader.receive(frame) }
            } catch let fault as ExportFault {
                throw fault
            } catch {
                let reason = (error as? FrameFault)?.text ?? "\(error)"
                throw ExportFault(
                    self.reader == ExportReader() ? "this is no export of a queue" : "it is damaged: \(reason)")
            }
            let octets: [UInt8]
            do throws(SystemError) { octets = try self.input.read(upTo: 65_536) } catch {
                throw ExportFault(error.text)
            }
            if octets.isEmpty {
                guard !self.reader.isAtEnd || self.decoder.isInsideFrame else { return nil }
                guard self.reader != ExportReader() else { throw ExportFault("this is no export of a queue") }
                throw ExportFault("it ends before its end: what was read of it up to there is whole")
            }
            self.decoder.append(octets)
        }
    }
}

/// Hands the messages of a file to apus-queue, within its credit.
private final class ImportSender {
    var connection: ApusdConnection
    private(set) var importedCount = 0
    private(set) var skippedCount = 0
    /// Messages that have another id here.
    private(set) var renamed: [(given: String, id: String)] = []
    private var credit = FrameLimits.creditOctetCount
    private var unansweredCount = 0
    private var isEnded = false

    private static let unansweredCountMax = 200

    init(_ connection: ApusdConnection) { self.connection = connection }

    /// Sends everything and waits for the answers. What was sent before a fault of the file is still waited for.
    func send(_ source: ExportSource) throws {
        try self.connection.send { $0.appendFrame(.import, 1) }
        var fault: ExportFault?
        do throws(ExportFault) {
            while let part = try source.next() { try self.hand(part) }
        } catch { fault = error }
        if let failure = self.failure { throw failure }
        try self.connection.send { $0.appendFrame(.commit, 1) }
        while !self.isEnded { try self.hear() }
        if let fault { throw fault }
    }

    /// What has gone wrong on the way to apus-queue.
    private var failure: ApusdConnection.Fault?

    private func hand(_ part: ExportPart) throws(ExportFault) {
        do throws(ApusdConnection.Fault) {
            switch part {
            case .header, .end: return
            case .data(let octets):
                self.credit -= octets.count
                while self.credit < 0 { try self.hear() }
            case .whole: self.unansweredCount += 1
            case .message: while self.unansweredCount >= Self.unansweredCountMax { try self.hear() }
            case .recipient, .gone: break
            }
            try self.connection.send { part.append(to: &$0, channel: 1) }
        } catch {
            self.failure = error
            throw ExportFault("")
        }
    }

    private func hear() throws(ApusdConnection.Fault) {
        let frame = try self.connection.answer()
        switch frame.verb {
        case .more where frame.fieldCount == 1:
            self.credit += Int(frame[0].decimal(limit: 1 << 32) ?? 0)
        case .row:
            let object = AnswerObject(pairs: ApusdConnection.pairs(frame))
            self.unansweredCount -= 1
            guard object.value("result") == "imported" else {
                self.skippedCount += 1
                return
            }
            self.importedCount += 1
            if object.value("as") != object.value("id") {
                self.renamed.append((object.value("id"), object.value("as")))
            }
        case .end: self.isEnded = true
        default:
            throw ApusdConnection.Fault(
                text: "apus-queue answers what was not asked: \(frame.verb.rawValue)", status: .software)
        }
    }
}
