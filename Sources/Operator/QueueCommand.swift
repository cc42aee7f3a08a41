// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import PipeCore
import Unix

/// `apus queue …`: shows and changes what is in the queue.
struct QueueCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "queue", abstract: "Shows and changes the queue.",
        subcommands: [
            Count.self, List.self, Show.self, Flush.self, Hold.self, Release.self, Remove.self, Bounce.self,
            Reroute.self, Export.self, Import.self, Check.self,
        ])
}

/// Asks apus-queue, and ends the process with a clear text if there is no answer.
///
/// - Parameter needsApusd: whether an apus-queue of its own would be of no use.
func ask(
    _ common: CommonOptions, _ verb: Verb, _ fields: [String], filter: FilterOptions? = nil, needsApusd: Bool = false,
    _ row: (ApusdConnection.Pairs) -> Void
) throws {
    var connection = try common.connectToQueue(needsApusd: needsApusd)
    defer { connection.close() }
    do throws(ApusdConnection.Fault) {
        _ = try connection.ask(verb, fields.map { Array($0.utf8) }, filter: filter, row)
    } catch { throw CommonOptions.exit(error) }
}

extension QueueCommand {
    struct Count: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Counts the messages: the first word is the number.")

        @OptionGroup var common: CommonOptions
        @Flag(help: "Write JSON.") var json = false

        func run() throws {
            var objects: [AnswerObject] = []
            try ask(self.common, .count, []) { AnswerObject.append($0, to: &objects) }
            guard let object = objects.first else { return }
            if self.json { return Terminal.write(object.json() + "\n") }
            Terminal.write(object.pairs.map { "\($0.value) \($0.name)" }.joined(separator: ", ") + "\n")
        }
    }

    struct List: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Lists the messages, the oldest first.")

        @OptionGroup var common: CommonOptions
        @OptionGroup(title: "Only what matches") var filter: FilterOptions
        @Option(help: "At most so many; 0 for all.") var limit = 0
        @Flag(help: "Write JSON.") var json = false

        func run() throws {
            // A queue may be larger than memory should be: JSON goes out as it comes, a table by the thousand.
            var printer = ListPrinter(isJSON: self.json, isFiltered: !self.filter.isEmpty)
            try ask(self.common, .list, [String(max(self.limit, 0))], filter: self.filter) { printer.take($0) }
            printer.finish()
        }
    }

    struct Show: ParsableCommand {
        static let configuration = CommandConfiguration(abstract: "Shows a message with all its recipients.")

        @Argument(help: "The id of the message.") var id: String
        @OptionGroup var common: CommonOptions
        @Flag(help: "Write JSON.") var json = false

        func run() throws {
            var objects: [AnswerObject] = []
            try ask(self.common, .show, [self.id]) { AnswerObject.append($0, to: &objects) }
            guard var message = objects.first else { return }
            let recipients = objects.dropFirst()
            guard !self.json else {
                message.pairs.removeAll { $0.name == "recipients" }
                let list = recipients.map { $0.json() }.joined(separator: ",\n ")
                return Terminal.write(message.json(extra: "\"recipients\":[\(list)]") + "\n")
            }
            Terminal.write(Self.text(message))
            for recipient in recipients { Terminal.write("\n" + Self.text(recipient)) }
        }

        /// One `name  value` a line, times readable, without what is not set.
        private static func text(_ object: AnswerObject) -> String {
            var text = ""
            for pair in object.pairs where !pair.value.isEmpty || pair.name == "from" {
                var value = pair.value
                switch pair.name {
                case "arrival", "expiry", "next", "last": value = Readable.instant(object.number(pair.name))
                case "from", "to", "original": value = "<\(value)>"
                default: break
                }
                text += pair.name + String(repeating: " ", count: max(12 - pair.name.count, 1)) + value + "\n"
            }
            return text
        }
    }
}

/// Writes the objects of a list while they come.
private struct ListPrinter {
    let isJSON: Bool
    let isFiltered: Bool
    private var objects: [AnswerObject] = []
    private var count = 0
    private let now = WallClock.now()

    init(isJSON: Bool, isFiltered: Bool) {
        self.isJSON = isJSON
        self.isFiltered = isFiltered
    }

    /// Rows of one object come one after the other, so all but the last object are complete.
    mutating func take(_ row: ApusdConnection.Pairs) {
        AnswerObject.append(row, to: &self.objects)
        if self.objects.count > 1_000, let last = self.objects.popLast() {
            self.write()
            self.objects = [last]
        }
    }

    mutating func finish() {
        self.write()
        if self.isJSON {
            Terminal.write(self.count == 0 ? "[]\n" : "]\n")
        } else if self.count == 0 {
            Terminal.write(self.isFiltered ? "Nothing matches.\n" : "The queue is empty.\n")
        }
    }

    private mutating func write() {
        defer { self.count += self.objects.count }
        guard !self.objects.isEmpty else { return }
        if self.isJSON {
            var text = ""
            for (index, object) in self.objects.enumerated() {
                text += self.count + index == 0 ? "[" : ",\n "
                text += object.json()
            }
            return Terminal.write(text)
        }
        var table = TextTable(["ID", "SIZE", "AGE", "NEXT", "STATUS", "FROM", "TO", "REASON"])
        for object in self.objects {
            let matching = object.number("matching") ?? 1
            let more = matching - min(matching, 1)
            table.append([
                object.value("id"), Readable.size(object.number("size")),
                Readable.age(object.number("arrival"), now: self.now),
                Readable.until(object.number("next"), now: self.now), object.value("status"),
                "<\(object.value("from"))>", "<\(object.value("to"))>" + (more > 0 ? " and \(more) more" : ""),
                object.value("reason"),
            ])
        }
        Terminal.write(table.text)
    }
}
