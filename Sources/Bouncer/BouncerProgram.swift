// SPDX-License-Identifier: Apache-2.0

import MailTypes
import MessageCore
package import PipeCore
import Unix

/// apus-bounce: composes reports about what became of mail.
///
/// | setting | |
/// |---|---|
/// | `hostname` | required |
/// | `postmaster` | an address; without it a report that fails is dropped |
/// | `double-bounces` | `postmaster` or `discard` |
/// | `template` | `NUMBER\|LINE`: a line of the template with that number; any number of them, in order |
/// | `language` | that of those of whom nothing else is known |
/// | `language-of` | `DOMAIN LANGUAGE`, any number; the first that matches counts |
/// | `returned-size-max` | in octets |
/// | `reports-per-sender-max`, `reports-per-minute-max` | numbers; 0: no limit |
package enum BouncerProgram {
    package static func main() -> Never {
        let program = Program.start(
            Program.Description(
                name: "apus-bounce",
                purpose: "Composes the reports about what became of mail (RFC 3464).",
                mainLink: (.deliver, "apus-queue")))
        program.runThread { program, inbox in
            do throws(SettingsFault) {
                var bouncer = Bouncer(program: program, inbox: inbox, rules: try Self.rules(program.settings))
                bouncer.run()
            } catch {
                var line = LogLine("settings-wrong")
                line.add("reason", error.description)
                line.write()
                ExitStatus.configuration.exit()
            }
        }
    }

    /// Reads the settings.
    package static func rules(_ settings: SettingsTable) throws(SettingsFault) -> BounceAgent.Rules {
        let hostname = Array(try settings.required("hostname").utf8)
        guard MailAddress.isDomainName(hostname) else { throw SettingsFault("hostname", "is no domain name") }
        let doubles = settings.text("double-bounces", default: "postmaster")
        guard ["postmaster", "discard"].contains(doubles) else {
            throw SettingsFault("double-bounces", "must be postmaster or discard")
        }
        let perSender = try settings.integer("reports-per-sender-max", in: 0...1_000_000, default: 1_000)
        let perMinute = try settings.integer("reports-per-minute-max", in: 0...1_000_000, default: 0)
        return BounceAgent.Rules(
            hostname: hostname, postmaster: doubles == "discard" ? nil : try Self.postmaster(settings, hostname),
            languages: try Self.languages(settings),
            returnedOctetCountMax: try settings.integer(
                "returned-size-max", in: 0...returnedOctetCountLimit, default: 51_200),
            limits: ReportLimits(
                perAddressPerHour: perSender == 0 ? nil : perSender, perMinute: perMinute == 0 ? nil : perMinute))
    }

    /// What a report can return at most: it must fit into the queue with all else that it says.
    private static let returnedOctetCountLimit = 524_288

    private static func languages(_ settings: SettingsTable) throws(SettingsFault) -> ReportLanguages {
        var texts: [(number: Substring, text: [UInt8])] = []
        for value in settings.texts("template") {
            guard let bar = value.firstIndex(of: "|") else { throw SettingsFault("template", "is no NUMBER|LINE") }
            let number = value[..<bar]
            if texts.last?.number != number { texts.append((number, [])) }
            texts[texts.count - 1].text += Array(value[value.index(after: bar)...].utf8) + [ASCII.lineFeed]
        }
        var templates: [ReportTemplate] = []
        for (number, text) in texts {
            do throws(ReportTemplate.Fault) { templates.append(try ReportTemplate(octets: text)) } catch {
                throw SettingsFault("template", "\(number), line \(error.line): \(error.text)")
            }
        }
        let rules = try settings.values("language-of", "a domain and a language") {
            (text: String) -> ReportLanguages.Rule? in
            let words = text.split(separator: " ")
            guard words.count == 2 else { return nil }
            return DomainPattern(text: String(words[0])).map {
                ReportLanguages.Rule(pattern: $0, language: Array(words[1].utf8).lowercasedOctets)
            }
        }
        let standard = Array(settings.text("language", default: "en").utf8).lowercasedOctets
        let languages = ReportLanguages(templates: templates, rules: rules, standard: standard)
        for language in rules.map(\.language) + [standard] where !languages.has(language) {
            throw SettingsFault("language", "there is no template of the language \(language.printableText)")
        }
        return languages
    }

    private static func postmaster(
        _ settings: SettingsTable, _ hostname: [UInt8]
    ) throws(SettingsFault) -> MailAddress? {
        guard let text = settings.text("postmaster") else { return nil }
        // A name without a domain is a local user's. Apus-lookup knows him by this address, whatever domains are local.
        let role = text.utf8.contains(ASCII.at) ? Array(text.utf8) : Array("postmaster@".utf8) + hostname
        guard let address = MailAddress(octets: role, alphabet: .unicodeLocalPart) else {
            throw SettingsFault("postmaster", "\(text) is not a mail address")
        }
        return address
    }
}

/// The running program: its link to the queue, and what apusd says.
private struct Bouncer {
    private let program: Program
    private let inbox: ControlInbox
    private var rules: BounceAgent.Rules
    private var link: (pipe: PolledPipe, agent: BounceAgent, hasHello: Bool)?
    private var isStopping = false

    init(program: Program, inbox: ControlInbox, rules: BounceAgent.Rules) {
        self.program = program
        self.inbox = inbox
        self.rules = rules
    }

    mutating func run() -> Never {
        for ends in self.program.links where ends.dialect == .deliver { self.open(ends) }
        self.program.ready()
        while true {
            if self.isStopping, self.link?.agent.isIdle ?? true { ExitStatus.ok.exit() }
            var poll = Poll()
            let control = poll.add(self.inbox.descriptor, reading: true)
            var reading: Int?
            var writing: Int?
            if let link = self.link {
                // A queue that does not read our reports gets no further ones.
                let isBehind = link.pipe.unwrittenOctetCount > FrameLimits.exchangeOctetCountMax
                reading = poll.add(link.pipe.input, reading: !isBehind)
                if link.pipe.unwrittenOctetCount > 0 {
                    writing = poll.add(link.pipe.output, reading: false, writing: true)
                }
            }
            poll.wait(nil)
            if poll.isReadable(control) { for event in self.inbox.take() { self.handle(event) } }
            let isReadable = reading.map { poll.isReadable($0) } ?? false
            if isReadable || (writing.map { poll.isWritable($0) } ?? false) { self.serve(isReadable: isReadable) }
        }
    }

    private mutating func open(_ ends: LinkEnds) {
        self.link?.pipe.close()
        do throws(SystemError) {
            var pipe = try PolledPipe(input: ends.input, output: ends.output)
            pipe.send {
                Hello(.deliver, program: "apus-bounce", capacity: UInt32(BounceAgent.capacity)).append(to: &$0)
            }
            self.link = (pipe, BounceAgent(rules: self.rules), false)
        } catch {
            self.fail(error.text)
        }
    }

    private mutating func handle(_ event: ControlEvent) {
        switch event {
        case .settings(let table):
            do throws(SettingsFault) {
                self.rules = try BouncerProgram.rules(table)
                self.link?.agent.rules = self.rules
            } catch {
                var line = LogLine("settings-wrong")
                line.add("reason", error.description)
                line.write()
            }
        case .link(let ends): self.open(ends)
        case .status(let channel):
            let agent = self.link?.agent
            self.program.answerStatus(
                channel,
                [
                    ("linked", self.link == nil ? "false" : "true"), ("reports", "\(agent?.reportCount ?? 0)"),
                    ("withheld", "\(agent?.withheldCount ?? 0)"),
                ])
        case .stop: self.isStopping = true
        case .listen, .unlisten, .certificates, .tickets, .start: break
        }
    }

    private mutating func serve(isReadable: Bool) {
        guard var (pipe, agent, hasHello) = self.link else { return }
        // The link holds the state alone while it changes.
        self.link = nil
        do throws(FramePipe.Fault) {
            let progress = isReadable ? try pipe.read() : .none
            while let frame = try pipe.next() {
                do throws(FrameFault) {
                    if hasHello {
                        var answers: [UInt8] = []
                        let salt = UInt64.random(in: 0...UInt64.max)
                        try agent.receive(frame, now: WallClock.now(), salt: salt, answers: &answers)
                        pipe.send { $0 += answers }
                    } else {
                        guard try Hello(frame).dialect == .deliver else { throw FrameFault(.badField, .hello) }
                        hasHello = true
                    }
                } catch { throw .frame(error) }
            }
            try pipe.flush()
            guard progress == .ended else {
                self.link = (pipe, agent, hasHello)
                return
            }
        } catch {
            self.fail(error.text)
        }
        pipe.close()
        // By hand there will be no other link.
        if !self.program.isSupervised { ExitStatus.ok.exit() }
    }

    private func fail(_ reason: String) {
        var line = LogLine("link-fault")
        line.add("peer", "apus-queue")
        line.add("reason", reason)
        line.write()
    }
}
