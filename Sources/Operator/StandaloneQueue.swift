// SPDX-License-Identifier: Apache-2.0

import Glibc
import PipeCore
import Settings
import Unix

/// An apus-queue that is started for one command, because apusd is not running: it opens the queue, delivers nothing, and
/// ends with the command. The lock of the queue keeps it and any other apus-queue apart.
enum StandaloneQueue {
    /// Starts it.
    ///
    /// - Parameter file: the settings file.
    static func start(settings file: String) throws(ApusdConnection.Fault) -> (pipe: FramePipe, pid: Int32) {
        guard let settings = Settings.readAnyway(file: file) else {
            throw ApusdConnection.Fault(text: "\(file) cannot be read", status: .configuration)
        }
        let directory = "\(settings.stateDirectory)/queue"
        var spawn = Spawn(path: try Self.executable(), arguments: ["apus-queue"])
        if let user = try Self.user(of: directory) { spawn.arguments += ["--user", user] }
        spawn.arguments += ["--link", "operate:apus:0:1"]
        // Rewritten senders need the secret, which is no word for a command line; what is paused rewrites nothing.
        // Nor the local domains, of which there may be more than a command line can have.
        let pairs = settings.table(for: .queue).pairs.filter { !["srs-domain", "local-domain"].contains($0.name) }
        for pair in pairs + [("paused", "true")] {
            spawn.arguments += ["--setting", "\(pair.name)=\(pair.value)"]
        }
        spawn.environment = ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"]
        spawn.directory = "/"
        do throws(SystemError) {
            let questions = try Descriptor.pipe()
            let answers = try Descriptor.pipe()
            spawn.descriptors = [questions.reading, answers.writing, .error]
            let pid = try spawn.start()
            questions.reading.close()
            answers.writing.close()
            return (FramePipe(input: answers.reading, output: questions.writing), pid)
        } catch { throw ApusdConnection.Fault(text: error.text, status: .unavailable) }
    }

    /// It lies beside this program.
    private static func executable() throws(ApusdConnection.Fault) -> String {
        let path: String
        do throws(SystemError) { path = "\(try ThisProcess.directoryOfExecutable())/apus-queue" } catch {
            throw ApusdConnection.Fault(text: error.text, status: .system)
        }
        guard access(path, X_OK) == 0 else {
            throw ApusdConnection.Fault(
                text: "apusd is not running, and \(path) is not there to open the queue without it",
                status: .unavailable)
        }
        return path
    }

    /// The user that the queue belongs to, if root is to become him; nil if this process is he.
    private static func user(of directory: String) throws(ApusdConnection.Fault) -> String? {
        var status = stat()
        guard stat(directory, &status) == 0 else {
            let error = SystemError("stat", directory)
            guard error.code == ENOENT else {
                throw ApusdConnection.Fault(text: error.text, status: .noPermission)
            }
            throw ApusdConnection.Fault(
                text: "apusd is not running, and there is no queue at \(directory)", status: .unavailable)
        }
        let own = geteuid()
        guard status.st_uid != own || own == 0 else { return nil }
        let name = getpwuid(status.st_uid).flatMap { $0.pointee.pw_name }.map { String(cString: $0) }
        guard own == 0 else {
            throw ApusdConnection.Fault(
                text: "apusd is not running, and the queue belongs to \(name ?? "user \(status.st_uid)"): "
                    + "only that user and root can open it", status: .noPermission)
        }
        guard status.st_uid != 0, let name else {
            throw ApusdConnection.Fault(
                text:
                    "apusd is not running, and \(directory) belongs to user \(status.st_uid), whom apus-queue cannot be",
                status: .configuration)
        }
        return name
    }
}
