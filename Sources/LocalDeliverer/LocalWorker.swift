// SPDX-License-Identifier: Apache-2.0

import MailTypes
import PipeCore
import Unix

/// The process that writes one user's mailbox, as that user. Started by `LocalSwitch`, and by nobody else.
///
/// Its input is not believed more than any other program's, and what it answers is not believed by the switch: the
/// user may have got hold of it.
enum LocalWorker {
    /// The first argument; then come the parent's pid, the user, the home directory, the mailbox and the host name.
    static let option = "--worker"

    static func arguments(
        user: String, home: String, settings: LocalDelivererProgram.Settings
    ) -> [String] {
        ["apus-local", Self.option, "\(ThisProcess.pid)", user, home, settings.mailboxText, settings.hostname]
    }

    static func main(_ arguments: [String]) -> Never {
        Log.setProgram("apus-local")
        ThisProcess.forbidTracing()
        ThisProcess.ignoreBrokenPipes()
        guard arguments.count == 5, let parent = Int32(arguments[0]) else { Self.fail("wrong arguments", .usage) }
        guard !Privileges.isRoot else { Self.fail("a worker will not run as root", .noPermission) }
        // A worker must not outlive its switch: the next one's workers may be at the same mail.
        guard ThisProcess.endWithParent(parent) else { ExitStatus.ok.exit() }
        guard let mailbox = try? MailboxTemplate(arguments[3]) else { Self.fail("wrong mailbox", .usage) }
        let rules = LocalAgent.Rules(
            mailbox: mailbox, hostname: Array(arguments[4].utf8), user: Array(arguments[1].utf8), home: arguments[2])
        guard var server = try? MailboxServer(.input, .output, rules: rules) else { Self.fail("no pipe", .system) }
        while true {
            var poll = Poll()
            let watch = LinkWatch(server.pipe, in: &poll)
            poll.wait(nil)
            if watch.isReady(poll), !server.serve(isReadable: watch.isReadable(poll)) { ExitStatus.ok.exit() }
        }
    }

    private static func fail(_ reason: String, _ status: ExitStatus) -> Never {
        var line = LogLine("start-failed")
        line.add("reason", reason)
        line.write()
        status.exit()
    }
}
