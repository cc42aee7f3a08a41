// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import PipeCore
import Unix

/// Which messages an order is for.
struct OrderOptions: ParsableArguments {
    @Argument(help: "The ids of the messages.") var ids: [String] = []
    @Flag(help: "All messages of the queue.") var all = false
    @OptionGroup(title: "Only what matches") var filter: FilterOptions
    @Flag(help: "Say what would change, and change nothing.") var dryRun = false
    @Flag(help: "Write JSON.") var json = false
    @OptionGroup var common: CommonOptions

    func validate() throws {
        guard self.all || !self.ids.isEmpty || !self.filter.isEmpty else {
            throw ValidationError("Which messages? Give their ids, --all, or what to filter by.")
        }
        // A word that stands where an id does is too easily there by mistake.
        guard !self.ids.contains("all") else { throw ValidationError("For all messages write --all.") }
        guard !self.all || self.ids.isEmpty else { throw ValidationError("Either ids or --all, not both.") }
    }

    /// Gives the order, and says for each what was done.
    ///
    /// - Parameter fields: what the verb takes behind the messages.
    func give(_ verb: Verb, _ fields: [String] = [], done: String) throws {
        var connection = try self.common.connectToQueue()
        defer { connection.close() }
        var refusal: ApusdConnection.Fault?
        for id in self.ids.isEmpty ? ["all"] : self.ids {
            let words = [id] + fields + (self.dryRun ? ["dry-run"] : [])
            var printer = OrderPrinter(options: self, done: done)
            do throws(ApusdConnection.Fault) {
                _ = try connection.ask(verb, words.map { Array($0.utf8) }, filter: self.filter) { printer.take($0) }
            } catch {
                Terminal.complain("\(id): \(error.text)")
                refusal = error
                continue
            }
            printer.finish()
        }
        if let refusal { throw ExitCode(refusal.status.rawValue) }
    }
}

/// Writes what an order has done, or with `--dry-run` would do: a line for each recipient as it comes, then the totals.
private struct OrderPrinter {
    let options: OrderOptions
    let done: String
    private var lineCount = 0
    private var totals: AnswerObject?

    init(options: OrderOptions, done: String) {
        self.options = options
        self.done = done
    }

    mutating func take(_ row: ApusdConnection.Pairs) {
        guard row.first?.name == "recipient" else {
            self.totals = AnswerObject(pairs: row)
            return
        }
        var object = AnswerObject(pairs: row)
        if self.options.json {
            object.pairs.removeFirst()
            // All on one line: with several ids there are several objects, and a script reads them line by line.
            Terminal.write((self.lineCount == 0 ? "{\"recipients\":[" : ",") + object.json())
        } else {
            let words = [object.value("id"), "<\(object.value("to"))>", object.value("route"), object.value("status")]
            Terminal.write(words.joined(separator: "  ") + "\n")
        }
        self.lineCount += 1
    }

    func finish() {
        guard let totals else { return }
        guard self.options.json else { return Terminal.write(self.text(totals)) }
        guard self.options.dryRun else { return Terminal.write(totals.json() + "\n") }
        Terminal.write((self.lineCount == 0 ? "{\"recipients\":[" : "") + "]," + totals.json().dropFirst() + "\n")
    }

    private func text(_ object: AnswerObject) -> String {
        let changed = object.number("changed") ?? 0
        let messages = object.value("messages") == "1" ? "1 message" : "\(object.value("messages")) messages"
        let subject = object.value("id").isEmpty ? messages : object.value("id")
        let would = self.options.dryRun ? "would be " : ""
        var text = "\(subject): \(changed) \(changed == 1 ? "recipient" : "recipients") \(would)\(self.done)"
        if let underWay = object.number("under-way"), underWay > 0 {
            text += ", \(underWay) when the delivery that is under way has ended"
        }
        return text + "\n"
    }
}

extension QueueCommand {
    struct Flush: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Tries messages now instead of at their next time.", aliases: ["retry"])
        @OptionGroup var options: OrderOptions
        func run() throws { try self.options.give(.flush, done: "made due now") }
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
        func run() throws { try self.options.give(.bounce, done: "given back to the sender") }
    }

    struct Reroute: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Sends messages another way.",
            discussion: """
                A route is remote:example.org (its MX hosts), remote:[mail.example.org] or remote:[192.0.2.1] (that host), \
                each with an optional :PORT, or local:USER. Failed recipients are not rerouted, held ones stay held.
                """)
        @Argument(help: "The route.") var route: String
        @OptionGroup var options: OrderOptions
        func run() throws { try self.options.give(.reroute, [self.route], done: "rerouted to \(self.route)") }
    }
}
