// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import Glibc
import MailTypes
import PipeCore
import Settings
import Unix

/// `apus`: one command for the people who run Apus.
struct OperatorCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "apus", abstract: "Checks and operates Apus, the mail transfer agent.",
        subcommands: [
            CheckCommand.self, StatusCommand.self, QueueCommand.self, ExplainCommand.self, SettingsCommand.self,
            StatusCodesCommand.self,
            PasswordCommand.self, TableCommand.self,
        ])

}

/// The way into this library.
package enum OperatorTool {
    /// Runs the command that the arguments say, and ends the process.
    package static func run() -> Never {
        ThisProcess.openStandardDescriptors()
        signal(SIGPIPE, SIG_IGN)
        OperatorCommand.main()
        Terminal.status.exit()
    }
}

/// What every subcommand takes.
struct CommonOptions: ParsableArguments {
    @Option(help: "The settings file.") var config = Settings.fileDefault

    /// Connects to the apusd of these settings, or says why not and ends the process.
    func connect() throws -> ApusdConnection {
        do {
            return try ApusdConnection(stateDirectory: try Settings.stateDirectory(file: self.config))
        } catch let error as SystemError {
            throw Terminal.exit(error.text, .configuration)
        } catch let fault as ApusdConnection.Fault {
            throw Self.exit(fault)
        }
    }

    /// Connects to apus-queue, or says why not and ends the process. If apusd is not running, an apus-queue is started
    /// for this command.
    func connectToQueue(needsApusd: Bool = false) throws -> ApusdConnection {
        do {
            var connection = try ApusdConnection(stateDirectory: try Settings.stateDirectory(file: self.config))
            try connection.enterQueue()
            return connection
        } catch let error as SystemError {
            throw Terminal.exit(error.text, .configuration)
        } catch let fault as ApusdConnection.Fault {
            guard fault.isAbsence, !needsApusd else { throw Self.exit(fault) }
        }
        do throws(ApusdConnection.Fault) {
            let connection = try ApusdConnection(standaloneSettings: self.config)
            Terminal.complain("apusd is not running; this command opens the queue itself")
            return connection
        } catch { throw Self.exit(error) }
    }

    /// Says a fault; what is returned is to be thrown.
    static func exit(_ fault: ApusdConnection.Fault) -> ExitCode {
        Terminal.exit(fault.text, fault.status)
    }
}

/// `apus check`: every mistake in the settings, with file, line and a hint.
struct CheckCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "check", abstract: "Shows all mistakes in the settings; exit status 1 if there are any.")

    @OptionGroup var common: CommonOptions

    func run() throws {
        var (settings, remarks) = Settings.read(file: self.common.config)
        if let settings {
            let surroundings = Surroundings(ownAddresses: Self.ownAddresses(settings))
            remarks += surroundings.remarks(on: settings)
        } else if let settings = Settings.readAnyway(file: self.common.config) {
            // Of what the file does name; a default may stand where the mistake is.
            let surroundings = Surroundings(ownAddresses: Self.ownAddresses(settings))
            remarks += surroundings.remarks(on: settings).filter { $0.line > 0 }
        }
        for remark in remarks { Terminal.write(remark.description + "\n") }
        let count = remarks.filter { $0.weight == .mistake }.count
        guard count == 0 else {
            Terminal.complain(count == 1 ? "one mistake" : "\(count) mistakes")
            throw ExitCode(1)
        }
        Terminal.write("\(self.common.config): OK\n")
    }

    /// The addresses that an apusd with these settings listens on now: they are in use, and rightly so.
    private static func ownAddresses(_ settings: Settings) -> Set<SocketAddress> {
        do throws(ApusdConnection.Fault) {
            var connection = try ApusdConnection(stateDirectory: settings.stateDirectory)
            defer { connection.close() }
            var addresses: Set<SocketAddress> = []
            try connection.status { pairs in
                for pair in pairs where pair.name == "listen" {
                    let word = pair.value.split(separator: " ").first.map(String.init) ?? ""
                    if let address = SocketAddress(text: word) { addresses.insert(address) }
                }
            }
            return addresses
        } catch {
            // An apusd that does not talk to us is running; whether the addresses are its own cannot be told.
            return error.isPermission ? Set(settings.listenAddresses.map(\.address)) : []
        }
    }
}

/// `apus status`: the programs and the queue.
struct StatusCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "status", abstract: "Shows the programs, the connections and the queue.")

    @OptionGroup var common: CommonOptions
    @Flag(help: "Write JSON.") var json = false

    func run() throws {
        var objects: [AnswerObject] = []
        var connection = try self.common.connect()
        do throws(ApusdConnection.Fault) {
            try connection.status { AnswerObject.append($0, to: &objects) }
        } catch { throw CommonOptions.exit(error) }
        connection.close()
        let queue = self.queue()
        if self.json {
            let programs = objects.map { $0.json() }.joined(separator: ",\n ")
            Terminal.write("{\"programs\":[\(programs)],\n\"queue\":\(queue?.json() ?? "null")}\n")
            return
        }
        var table = TextTable(["PROGRAM", "STATE", "PID", "UP", "RESTARTS", ""])
        let columns: Set<String> = ["program", "state", "pid", "uptime", "restarts"]
        for object in objects {
            let rest = object.pairs.filter { !columns.contains($0.name) }.map { "\($0.name)=\($0.value)" }
            table.append([
                object.value("program"), object.value("state"), object.value("pid"),
                object.number("uptime").map { Readable.span(seconds: $0) } ?? "", object.value("restarts"),
                rest.joined(separator: " "),
            ])
        }
        Terminal.write(table.text)
        if let queue {
            Terminal.write("\nqueue: " + queue.pairs.map { "\($0.value) \($0.name)" }.joined(separator: ", ") + "\n")
        }
    }

    /// The figures of the queue; nil if it does not answer.
    private func queue() -> AnswerObject? {
        var objects: [AnswerObject] = []
        do throws(ApusdConnection.Fault) {
            guard let state = try? Settings.stateDirectory(file: self.common.config) else { return nil }
            var connection = try ApusdConnection(stateDirectory: state)
            defer { connection.close() }
            try connection.enterQueue()
            _ = try connection.ask(.count, []) { AnswerObject.append($0, to: &objects) }
        } catch { return nil }
        return objects.first
    }
}

/// `apus status-codes`: what the enhanced status codes of Apus mean.
struct StatusCodesCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "status-codes", abstract: "Shows by which status codes the programs say that something has failed."
    )

    @Argument(help: "Only codes that begin with this.") var code: String?
    @Flag(help: "Write the table of Documentation/status-codes.md.") var markdown = false

    func run() throws {
        guard !self.markdown else { return Terminal.write(StatusRegister.markdown) }
        for row in StatusRegister.all {
            let status = row.status.octets.printableText
            guard self.code.map({ status.hasPrefix($0) }) ?? true else { continue }
            Terminal.write("\(row.code == 0 ? "   " : String(row.code)) \(status)  \(row.program): \(row.about)\n")
        }
    }
}

/// `apus settings`: the reference of apus.toml.
struct SettingsCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "settings", abstract: "Shows every key of apus.toml with its default and its meaning.")

    @Argument(help: "Only keys whose name holds this.") var word: String?
    @Flag(help: "Write the tables of Documentation/settings.md.") var markdown = false

    func run() throws {
        guard !self.markdown else { return Terminal.write(SettingsReference.markdown) }
        for row in SettingsReference.rows {
            let path = row.table.isEmpty ? row.name : "\(row.table).\(row.name)"
            guard self.word.map({ path.contains($0) }) ?? true else { continue }
            Terminal.write("\(path)  (\(row.value); \(row.defaultText))\n    \(row.about)\n")
        }
    }
}
