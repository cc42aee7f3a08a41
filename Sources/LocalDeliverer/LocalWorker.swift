// SPDX-License-Identifier: Apache-2.0

import MailTypes
import PipeCore
import Unix

/// The process that writes one user's mailbox, as that user. Started by `LocalSwitch`, and by nobody else.
///
/// Its input is not believed more than any other program's, and what it answers is not believed by the switch: the
/// user may have got hold of it.
enum LocalWorker {
    /// The first argument; then come the parent's pid, the user, the home directory, and the settings of apus-local,
    /// each name with its value behind it.
    static let option = "--worker"

    static func arguments(
        user: String, home: String, settings: LocalDelivererProgram.Settings
    ) -> [String] {
        ["apus-local", Self.option, "\(ThisProcess.pid)", user, home]
            + settings.table.pairs.flatMap { [$0.name, $0.value] }
    }

    static func main(_ arguments: [String]) -> Never {
        ThisProcess.openStandardDescriptors()
        Log.setProgram("apus-local")
        ThisProcess.forbidTracing()
        ThisProcess.ignoreBrokenPipes()
        ThisProcess.ignoreFileSizeSignal()
        guard arguments.count >= 3, arguments.count % 2 == 1, let parent = Int32(arguments[0]) else {
            Self.fail("wrong arguments", .usage)
        }
        guard !Privileges.isRoot else { Self.fail("a worker will not run as root", .noPermission) }
        // A worker must not outlive its switch: the next one's workers may be at the same mail.
        guard ThisProcess.endWithParent(parent) else { ExitStatus.ok.exit() }
        var table = SettingsTable()
        for place in stride(from: 3, to: arguments.count, by: 2) {
            table.append(arguments[place], arguments[place + 1])
        }
        guard let settings = try? LocalDelivererProgram.Settings(table) else { Self.fail("wrong settings", .usage) }
        let rules = settings.rules(user: Array(arguments[1].utf8), home: arguments[2])
        guard var server = try? MailboxServer(.input, .output, rules: rules) else { Self.fail("no pipe", .system) }
        while true {
            var poll = Poll()
            let (link, limit) = server.watch(in: &poll)
            poll.wait(limit)
            if !server.serve(isReadable: link.isReadable(poll)) { ExitStatus.ok.exit() }
        }
    }

    private static func fail(_ reason: String, _ status: ExitStatus) -> Never {
        var line = LogLine("start-failed")
        line.add("reason", reason)
        line.write()
        status.exit()
    }
}
