// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import PipeCore
import Unix

extension QueueCommand {
    struct Check: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Holds the queue against its rules; exit status 1 if one does not hold.",
            discussion: """
                With --repair, what can be put right without losing mail is put right; the rest is named and left to a \
                person. The queue may be running.
                """)

        @Flag(help: "Put right what can be put right without losing mail.") var `repair` = false
        @Flag(help: "Write JSON.") var json = false
        @OptionGroup var common: CommonOptions

        func run() throws {
            var faultCount = 0
            var totals: [AnswerObject] = []
            try ask(self.common, .check, self.repair ? ["repair"] : []) { row in
                guard row.first?.name == "fault" else { return AnswerObject.append(row, to: &totals) }
                var object = AnswerObject(pairs: row)
                object.pairs.removeFirst()
                self.tell(object, isFirst: faultCount == 0)
                faultCount += 1
            }
            guard let total = totals.first else { return }
            if self.json {
                Terminal.write((faultCount == 0 ? "{\"faults\":[" : "") + "]," + total.json().dropFirst() + "\n")
            } else {
                let looked = ["messages", "recipients", "due", "contents", "destinations"].map {
                    "\(total.value($0)) \($0)"
                }
                let found = faultCount == 0 ? "no fault" : faultCount == 1 ? "1 fault" : "\(faultCount) faults"
                let repaired = self.repair ? ", \(total.value("repaired")) repaired" : ""
                Terminal.write("\(found)\(repaired); looked at \(looked.joined(separator: ", "))\n")
            }
            if faultCount > 0 { throw ExitCode(1) }
        }

        private func tell(_ fault: AnswerObject, isFirst: Bool) {
            guard !self.json else {
                return Terminal.write((isFirst ? "{\"faults\":[" : ",\n ") + fault.json())
            }
            var place = fault.value("id")
            if !fault.value("recipient").isEmpty { place += " recipient \(fault.value("recipient"))" }
            let action =
                switch fault.value("action") {
                case "repaired": "repaired"
                case "repairable": "apus queue check --repair puts it right"
                default: "left to you"
                }
            let words = [place, fault.value("kind"), fault.value("text")].filter { !$0.isEmpty }
            Terminal.write("\(words.joined(separator: ": ")) (\(action))\n")
        }
    }
}
