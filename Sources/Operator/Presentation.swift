// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import Glibc
import MailTypes
import Synchronization
import Unix

/// Writes to the terminal, or whatever standard output is.
enum Terminal {
    private static let outputHasFailed = Atomic(false)

    /// The rest of a command is carried out even if nobody can be told of it; `status` tells at its end.
    static func write(_ text: String) {
        guard !self.outputHasFailed.load(ordering: .relaxed) else { return }
        do throws(SystemError) { try Descriptor.output.write(Array(text.utf8)) } catch {
            // A reader that has gone, such as head(1), has seen enough.
            guard error.code != EPIPE else { return }
            self.outputHasFailed.store(true, ordering: .relaxed)
            self.complain(SystemError("write", "to standard output", code: error.code).text)
        }
    }

    /// How a command ends that has found nothing else to complain about.
    static var status: ExitStatus { self.outputHasFailed.load(ordering: .relaxed) ? .inputError : .ok }

    static func complain(_ text: String) { try? Descriptor.error.write(Array("apus: \(text)\n".utf8)) }

    /// Says why a command ends; what is returned is to be thrown.
    static func exit(_ text: String, _ status: ExitStatus) -> ExitCode {
        Self.complain(text)
        return ExitCode(status.rawValue)
    }
}

/// A table of columns as wide as they must be.
struct TextTable {
    private var rows: [[String]] = []

    init(_ titles: [String]) { self.rows = [titles] }

    mutating func append(_ row: [String]) { self.rows.append(row) }

    var text: String {
        var widths: [Int] = []
        for row in self.rows {
            for (index, cell) in row.enumerated() {
                if index == widths.count { widths.append(0) }
                // The last column is as wide as it likes.
                widths[index] = max(widths[index], min(cell.count, 48))
            }
        }
        var text = ""
        for row in self.rows {
            var line = ""
            for (index, cell) in row.enumerated() {
                line += cell
                if index < row.count - 1 {
                    line += String(repeating: " ", count: max(widths[index] - cell.count, 0) + 2)
                }
            }
            while line.last == " " { line.removeLast() }
            text += line + "\n"
        }
        return text
    }
}

/// An object of an answer: names and values, a name as often as it has values.
struct AnswerObject {
    var pairs: ApusdConnection.Pairs

    func value(_ name: String) -> String { self.pairs.first { $0.name == name }?.value ?? "" }

    func number(_ name: String) -> UInt64? { Array(self.value(name).utf8).decimal() }

    /// Gathers rows: several with the same first pair are one object.
    static func append(_ row: ApusdConnection.Pairs, to objects: inout [AnswerObject]) {
        guard let first = row.first else { return }
        if let last = objects.last?.pairs.first, last == first {
            objects[objects.count - 1].pairs += row.dropFirst()
        } else {
            objects.append(AnswerObject(pairs: row))
        }
    }

    /// `{"id":"…","size":4211}`.
    func json(extra: String = "") -> String {
        var names: [String] = []
        for pair in self.pairs where !names.contains(pair.name) { names.append(pair.name) }
        var members = names.map { name in
            let values = self.pairs.filter { $0.name == name }.map { JSON.value(name, $0.value) }
            let isList = values.count > 1 || JSON.listNames.contains(name)
            return "\(JSON.string(name)):\(isList ? "[\(values.joined(separator: ","))]" : values[0])"
        }
        if !extra.isEmpty { members.append(extra) }
        return "{\(members.joined(separator: ","))}"
    }
}

/// The little of JSON (RFC 8259) that answers need.
enum JSON {
    /// These are text whatever they look like.
    private static let textNames: Set<String> = [
        "id", "from", "to", "original", "route", "reason", "reporter", "client", "dsn", "hostname", "config", "program",
        "state", "status", "listen", "mode", "body", "text", "kind", "action", "subject", "place", "verdict", "address",
        "priority", "ret", "envid", "utf8", "notify", "orcpt", "report",
        "destination", "tls", "tls-place", "user", "user-place",
    ]

    /// These may stand more than once.
    static let listNames: Set<String> = ["listen"]

    static func value(_ name: String, _ value: String) -> String {
        if self.textNames.contains(name) { return self.string(value) }
        if value.isEmpty { return "null" }
        if value == "true" || value == "false" { return value }
        // Instants in microseconds are below 2^53, up to where every reader of JSON has whole numbers.
        let isNumber =
            value.utf8.allSatisfy(\.isDigit) && value.utf8.decimal(limit: 1 << 53) != nil
            && (value == "0" || value.utf8.first != 0x30)
        return isNumber ? value : self.string(value)
    }

    static func string(_ text: String) -> String {
        var result = "\""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\"": result += "\\\""
            case "\\": result += "\\\\"
            case _ where scalar.value < 0x20:
                let digits = String(scalar.value, radix: 16)
                result += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
            default: result.unicodeScalars.append(scalar)
            }
        }
        return result + "\""
    }
}

/// Numbers as people read them.
enum Readable {
    /// `3 min`, `2 h`, `5 d`.
    static func span(seconds: UInt64) -> String {
        switch seconds {
        case ..<120: "\(seconds) s"
        case ..<7_200: "\(seconds / 60) min"
        case ..<172_800: "\(seconds / 3_600) h"
        default: "\(seconds / 86_400) d"
        }
    }

    /// How long ago an instant in microseconds was.
    static func age(_ microseconds: UInt64?, now: Timestamp) -> String {
        guard let microseconds else { return "" }
        let age = now.elapsed(since: Timestamp(microseconds: microseconds))
        return self.span(seconds: UInt64(clamping: age.components.seconds))
    }

    /// How far away an instant in microseconds is: `in 4 min`, `now`.
    static func until(_ microseconds: UInt64?, now: Timestamp) -> String {
        guard let microseconds else { return "" }
        let wait = Timestamp(microseconds: microseconds).elapsed(since: now)
        guard wait >= .seconds(1) else { return "now" }
        return "in \(self.span(seconds: UInt64(clamping: wait.components.seconds)))"
    }

    static func size(_ octets: UInt64?) -> String {
        guard let octets else { return "" }
        switch octets {
        case ..<10_000: return "\(octets) B"
        case ..<10_000_000: return "\(octets / 1_000) kB"
        default: return "\(octets / 1_000_000) MB"
        }
    }

    /// UTC, `2026-11-23 15:04:05`.
    static func instant(_ microseconds: UInt64?) -> String {
        guard let microseconds else { return "" }
        let seconds = microseconds / 1_000_000
        let (year, month, day) = self.date(days: seconds / 86_400)
        func two(_ value: UInt64) -> String { value < 10 ? "0\(value)" : "\(value)" }
        let rest = seconds % 86_400
        return "\(year)-\(two(month))-\(two(day)) \(two(rest / 3_600)):\(two(rest / 60 % 60)):\(two(rest % 60)) UTC"
    }

    /// The date of a day since 1970, by counting in eras of 400 years that begin in March.
    private static func date(days: UInt64) -> (UInt64, UInt64, UInt64) {
        let shifted = days + 719_468
        let era = shifted / 146_097
        let dayOfEra = shifted % 146_097
        let yearOfEra = (dayOfEra - dayOfEra / 1_460 + dayOfEra / 36_524 - dayOfEra / 146_096) / 365
        let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
        let shiftedMonth = (5 * dayOfYear + 2) / 153
        let day = dayOfYear - (153 * shiftedMonth + 2) / 5 + 1
        let month = shiftedMonth < 10 ? shiftedMonth + 3 : shiftedMonth - 9
        return (yearOfEra + era * 400 + (month <= 2 ? 1 : 0), month, day)
    }
}
