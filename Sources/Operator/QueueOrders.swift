// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import PipeCore
import Unix

/// Which messages an order is for.
struct OrderOptions: ParsableArguments {
    @Argument(help: "The ids of the messages, or `all`.") var ids: [String] = []
    @Flag(help: "All messages of the queue.") var all = false
    @Flag(help: "Write JSON.") var json = false
    @OptionGroup var common: CommonOptions

    func validate() throws {
        guard self.all || !self.ids.isEmpty else { throw ValidationError("Which messages? Give their ids, or all.") }
        guard !self.all || self.ids.isEmpty else { throw ValidationError("Either ids or --all, not both.") }
    }

    /// Gives the order, and says for each what was done.
    func give(_ verb: Verb, done: String) throws {
        var connection = try self.common.connect()
        defer { connection.close() }
        do throws(ApusdConnection.Fault) {
            try connection.enterQueue()
        } catch { throw CommonOptions.exit(error) }
        var refusal: ApusdConnection.Fault?
        for id in self.all ? ["all"] : self.ids {
            var objects: [AnswerObject] = []
            do throws(ApusdConnection.Fault) {
                _ = try connection.ask(verb, [Array(id.utf8)]) { AnswerObject.append($0, to: &objects) }
            } catch {
                Terminal.complain("\(id): \(error.text)")
                refusal = error
                continue
            }
            for object in objects { Terminal.write(self.text(object, done: done)) }
        }
        if let refusal { throw ExitCode(refusal.status.rawValue) }
    }

    private func text(_ object: AnswerObject, done: String) -> String {
        if self.json { return object.json() + "\n" }
        let changed = object.number("changed") ?? 0
        let messages = object.value("messages") == "1" ? "1 message" : "\(object.value("messages")) messages"
        let subject = object.value("id").isEmpty ? messages : object.value("id")
        var text = "\(subject): \(changed) \(changed == 1 ? "recipient" : "recipients") \(done)"
        if let underWay = object.number("under-way"), underWay > 0 {
            text += ", \(underWay) left alone because a delivery is under way"
        }
        return text + "\n"
    }
}

extension QueueCommand {
    struct Flush: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Tries messages now instead of at their next time.")
        @OptionGroup var options: OrderOptions
        func run() throws { try self.options.give(.flush, done: "to be tried now") }
    }

    struct Hold: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Keeps messages until they are released.")
        @OptionGroup var options: OrderOptions
        func run() throws { try self.options.give(.hold, done: "held") }
    }

    struct Release: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Lets held messages go on.")
        @OptionGroup var options: OrderOptions
        func run() throws { try self.options.give(.release, done: "released") }
    }

    struct Remove: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Removes messages; nobody is told.")
        @OptionGroup var options: OrderOptions
        func run() throws { try self.options.give(.remove, done: "removed") }
    }

    struct Bounce: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Sends messages back to their senders.")
        @OptionGroup var options: OrderOptions
        func run() throws { try self.options.give(.bounce, done: "to be returned to the sender") }
    }
}
