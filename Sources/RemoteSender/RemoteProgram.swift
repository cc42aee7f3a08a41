// SPDX-License-Identifier: Apache-2.0

import NIOCore
import PipeCore
import PipeDrivers
import Unix

/// apus-remote: an agent of the dialect `deliver` that hands mail to other servers by SMTP.
package enum RemoteProgram {
    /// Starts the program; never returns.
    package static func main() -> Never {
        let program = Program.start(
            Program.Description(
                name: "apus-remote", purpose: "Delivers mail of the queue to other servers by SMTP.",
                mainLink: (.deliver, "apus-queue")))
        let settings: RemoteSettings
        do throws(SettingsFault) {
            settings = try RemoteSettings(program.settings)
        } catch {
            RemoteAgent.log(error)
            ExitStatus.configuration.exit()
        }
        program.run { program, eventLoop in RemoteAgent(program, settings, eventLoop) }
    }
}

/// The running program: its links to the queue and the sender that serves them.
private final class RemoteAgent: LoopProgram {
    private let program: Program
    private let eventLoop: any EventLoop
    private let sender: Sender
    private var links: [ObjectIdentifier: QueueLink] = [:]
    /// Whether the process ends when all is finished.
    private var isEnding = false

    init(_ program: Program, _ settings: RemoteSettings, _ eventLoop: any EventLoop) {
        self.program = program
        self.eventLoop = eventLoop
        self.sender = Sender(settings, eventLoop: eventLoop)
    }

    func begin() {
        self.sender.onEnd = { [unowned self] in self.somethingEnded() }
        for link in self.program.links { self.open(link) }
    }

    func handle(_ event: ControlEvent) {
        switch event {
        case .settings(let table):
            do throws(SettingsFault) {
                self.sender.reload(try RemoteSettings(table))
            } catch {
                // What was right before stays.
                Self.log(error)
            }
        case .link(let ends): self.open(ends)
        case .listen(let listener): listener.descriptor.close()
        case .unlisten, .certificates, .tickets, .start: break
        case .status(let channel):
            self.program.answerStatus(
                channel,
                [
                    ("deliveries", "\(self.sender.attemptCount)"),
                    ("connections", "\(self.sender.connectionCount)"),
                    ("idle-connections", "\(self.sender.idleConnectionCount)"),
                    ("waiting-for-connection", "\(self.sender.waitingCount)"),
                ])
        case .stop:
            self.isEnding = true
            self.sender.stop()
            self.somethingEnded()
        }
    }

    private func open(_ ends: LinkEnds) {
        if ends.dialect == .vault { return self.sender.authentication.use(ends) }
        guard ends.dialect == .deliver else {
            var line = LogLine("link-fault")
            line.add("peer", ends.peer)
            line.add("dialect", ends.dialect.rawValue)
            line.add("reason", "apus-remote speaks deliver, and vault")
            line.write()
            ends.input.close()
            if ends.output != ends.input { ends.output.close() }
            return
        }
        let link = QueueLink(
            ends, capacity: self.sender.settings.deliveryCountMax, sender: self.sender, eventLoop: self.eventLoop)
        self.links[ObjectIdentifier(link)] = link
    }

    private func somethingEnded() {
        for (key, link) in self.links where link.isClosed { self.links[key] = nil }
        // Under apusd a new queue brings a new link. By hand, the end of the input is the end.
        if self.links.isEmpty, !self.program.isSupervised, !self.isEnding {
            self.isEnding = true
            self.sender.stop()
        }
        guard self.isEnding, self.sender.isFinished, self.links.values.allSatisfy({ !$0.hasUnnoted }) else { return }
        ExitStatus.ok.exit()
    }

    static func log(_ fault: SettingsFault) {
        var line = LogLine("settings-fault")
        line.add("setting", fault.name)
        line.add("reason", fault.text)
        line.write()
    }
}
