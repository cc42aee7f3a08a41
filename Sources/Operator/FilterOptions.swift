// SPDX-License-Identifier: Apache-2.0

import ArgumentParser
import IDN
import MailTypes
import PipeCore

/// Which messages and recipients are meant. Several of one option are alternatives; different options must all hold.
struct FilterOptions: ParsableArguments {
    @Option(help: "Recipients: an address, @DOMAIN, or a pattern with *.") var to: [String] = []
    @Option(help: "Senders: an address, @DOMAIN, a pattern with *, or <>.") var from: [String] = []
    @Option(help: "Recipients that go to a domain or host, or by a route as the list shows it.")
    var destination: [String] = []
    @Option(help: "Messages older than this: 90s, 30m, 12h, 5d.") var older: String?
    @Option(help: "Recipients that are queued, deferred, delivering, held or failed.") var status: [String] = []

    var isEmpty: Bool {
        self.to.isEmpty && self.from.isEmpty && self.destination.isEmpty && self.older == nil && self.status.isEmpty
    }

    func validate() throws {
        if let older, Self.seconds(older) == nil {
            throw ValidationError("\"\(older)\" is no span of time: write 90s, 30m, 12h or 5d")
        }
    }

    /// The frames that come before a question.
    func append(to octets: inout [UInt8], channel: UInt32) {
        var terms: [(String, String)] = self.to.map { ("to", $0) } + self.from.map { ("from", $0) }
        terms += self.destination.map { ("destination", $0) } + self.status.map { ("status", $0) }
        if let older, let seconds = Self.seconds(older) { terms.append(("older", String(seconds))) }
        for (name, value) in terms {
            // A longer one would end the connection; it can match nothing, and is refused as no address.
            let cut = Array(DomainMapping.idna2008.asciiPattern(value).utf8.prefix(FrameLimits.fieldOctetCountMax))
            octets.appendFrame(.filter, channel, [Array(name.utf8), cut])
        }
    }

    /// The seconds of `90s`, `30m` or `30min`, `12h`, `5d`, `2w`; of a plain number too.
    static func seconds(_ text: String) -> UInt64? {
        let units: [(name: String, seconds: UInt64)] = [
            ("min", 60), ("s", 1), ("m", 60), ("h", 3_600), ("d", 86_400), ("w", 604_800),
        ]
        let unit = units.first { text.hasSuffix($0.name) }
        let digits = text.utf8.dropLast(unit?.name.utf8.count ?? 0)
        guard let number = digits.decimal(limit: 1 << 31) else { return nil }
        return number * (unit?.seconds ?? 1)
    }
}
