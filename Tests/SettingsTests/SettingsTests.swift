// SPDX-License-Identifier: Apache-2.0

import PipeCore
import Settings
import Testing
import Unix

private let smallest = """
    hostname = "mx.example.org"
    [[listen]]
    address = "127.0.0.1:2525"
    role = "mx"

    """

private func remarks(_ text: String) -> [String] {
    Settings.read(octets: Array(text.utf8), file: "apus.toml").remarks.map(\.description)
}

@Suite struct SettingsTests {
    @Test("The example of the plan is read, and each program gets its own settings only")
    func example() throws {
        let text = """
            hostname = "mx.example.org"
            state = "/var/lib/apus"
            [[listen]]
            address = "127.0.0.1:2525"
            role = "mx"
            [[listen]]
            address = "[::1]:587"
            role = "submission"
            [domains]
            local = ["example.org", "example.net"]
            relay-from = ["127.0.0.0/8", "::1/128"]
            [local]
            mailbox = "maildir:~/Maildir"
            aliases = "/etc/apus/aliases"
            [remote]
            smarthost = "127.0.0.1:2526"
            [queue]
            paused = false
            lifetime = "5d"
            """
        let (settings, remarks) = Settings.read(octets: Array(text.utf8), file: "apus.toml")
        #expect(remarks.isEmpty)
        let found = try #require(settings)
        #expect(found.hostname == "mx.example.org")
        #expect(found.listenAddresses.map(\.text) == ["127.0.0.1:2525", "[::1]:587"])
        #expect(found.listenAddresses.map(\.role) == ["mx", "submission"])
        #expect(found.table(for: .lookup).texts("local-domain") == ["example.org", "example.net"])
        #expect(found.table(for: .lookup).text("smarthost") == "127.0.0.1:2526")
        #expect(found.table(for: .smtpd).texts("relay-from") == ["127.0.0.0/8", "::1/128"])
        #expect(found.table(for: .queue).text("lifetime") == "432000")
        #expect(found.table(for: .queue).text("paused") == "false")
        #expect(found.table(for: .queue).text("directory") == "/var/lib/apus/queue")
        #expect(found.table(for: .bounce) == SettingsTable([("hostname", "mx.example.org")]))
    }

    @Test(
        "Sessions and deliveries have their share of the time for a stop",
        arguments: [(1, 0, 1), (30, 12, 24), (3_600, 1_440, 2_880)])
    func stopTimeout(_ seconds: Int, _ sessions: Int, _ deliveries: Int) throws {
        let found = try #require(
            Settings.read(octets: Array("stop-timeout = \"\(seconds)s\"\n\(smallest)".utf8), file: "apus.toml").settings
        )
        #expect(found.table(for: .smtpd).text("stop-timeout") == String(sessions))
        #expect(found.table(for: .queue).text("stop-timeout") == String(deliveries))
    }

    @Test(
        "A mistake is told with its line and a way out",
        arguments: [
            ("hostnam = \"mx.example.org\"", "apus.toml:5: unknown key \"hostnam\"; did you mean \"hostname\"?"),
            ("smarthost = \"a.example\"", "apus.toml:5: unknown key \"smarthost\"; it belongs to [remote]"),
            ("frobnicate = 1", "apus.toml:5: unknown key \"frobnicate\""),
            ("[queu]", "apus.toml:5: unknown table \"queu\"; did you mean [queue]?"),
            ("[smtp]\nsize_max = 1", "apus.toml:6: unknown key \"size_max\" in [smtp]; did you mean \"size-max\"?"),
            (
                "queue.paused = \"no\"",
                "apus.toml:5: queue.paused: must be true or false, not a string; write true or false without quotation marks"
            ),
            (
                "domains.local = \"example.org\"",
                "apus.toml:5: domains.local must be a list, not a string; write local = [\"example.org\"]"
            ),
            (
                "domains.local = [\n\"a.example\",\n\"@b.example\"]",
                "apus.toml:7: domains.local: \"@b.example\" is not a domain; only what stands after the @"
            ),
            (
                "domains.local = [\"*.example\"]",
                "apus.toml:5: domains.local: \"*.example\" is not a domain; list each domain by itself"
            ),
            (
                "domains.relay-from = [\"10.0.0.1/8\"]",
                "apus.toml:5: domains.relay-from: \"10.0.0.1/8\" has bits beyond its length; did you mean \"10.0.0.0/8\"?"
            ),
            (
                "domains.relay-from = [\"localhost\"]",
                "apus.toml:5: domains.relay-from: \"localhost\" is not a network; write \"192.0.2.0/24\", \"2001:db8::/32\" or one address"
            ),
            (
                "smtp.size-max = \"50 apples\"",
                "apus.toml:5: smtp.size-max: \"50 apples\" is not a size; write octets, or \"50MB\", \"50MiB\""
            ),
            (
                "bounce.postmaster = \"Postmaster\"",
                "apus.toml:5: bounce.postmaster: \"Postmaster\" is who is to be named; write who reads the postmaster's mail"
            ),
            (
                "local.mailbox = \"maildir:~/\"",
                "apus.toml:5: local.mailbox: \"maildir:~/\" names the directory itself and nothing in it; write \"maildir:~/Maildir\""
            ),
            (
                "local.mailbox = \"mbox:/\"",
                "apus.toml:5: local.mailbox: \"mbox:/\" names the directory itself and nothing in it; write \"maildir:~/Maildir\""
            ),
            (
                "local.mailbox = \"maildir:/srv/mail/%user\"",
                "apus.toml:5: local.mailbox: \"maildir:/srv/mail/%user\" has a % that is not %{user}; write \"maildir:/srv/mail/%{user}\""
            ),
            (
                "auth.dovecot = \"/\(String(repeating: "d", count: 107))\"",
                "apus.toml:5: auth.dovecot: \"/\(String(repeating: "d", count: 107))\" is longer than the path of a socket can be; at most 107 octets"
            ),
            (
                "bounce.verp-senders = [\"list@example.org\"]\nlocal.recipient-delimiter = \"-\"",
                "apus.toml:5: advice: bounce.verp-senders: what comes back is for list+tag@…, and + parts no tag here; add + to recipient-delimiter in line 6"
            ),
            (
                "remote.smarthost = \"[::1]\"",
                "apus.toml:5: remote.smarthost: \"[::1]\" is this server itself; for another one on this machine write its port, such as 127.0.0.1:2526"
            ),
            ("smtp.size-max = 1", "apus.toml:5: smtp.size-max: 1 is out of range; from 65536 to 1099511627776 octets"),
            (
                "queue.lifetime = \"5 days\"",
                "apus.toml:5: queue.lifetime: \"5 days\" is not a span of time; write seconds, or \"90s\", \"5m\", \"4h\", \"5d\", \"1w\""
            ),
            (
                "queue.retry-min = \"1d\"\nqueue.retry-max = \"1h\"",
                "apus.toml:5: queue.retry-min (86400 s) is longer than queue.retry-max (3600 s, line 6)"
            ),
            (
                "queue.recipients-max = 500",
                "apus.toml:5: advice: queue.recipients-max (500) is less than smtp.recipients-max (1000); a message with more than 500 recipients is taken for none of them"
            ),
            (
                "remote.smarthost = \"a b\"",
                "apus.toml:5: remote.smarthost: \"a b\" is not a next host; write \"example.org\" (its MX), \"[mail.example.org]:587\" (that host) or \"192.0.2.1:25\""
            ),
            (
                "remote.smarthost = \"127.0.0.1:2525\"",
                "apus.toml:5: remote.smarthost: \"127.0.0.1:2525\" is this server itself (line 3); mail would go round in circles"
            ),
            (
                "dns.resolvers = [\"dns.example\"]",
                "apus.toml:5: dns.resolvers: \"dns.example\" is not the address of a resolver; write \"127.0.0.1\" or \"127.0.0.1:5353\""
            ),
            (
                "local.mailbox = \"~/Maildir\"",
                "apus.toml:5: local.mailbox: \"~/Maildir\" is not a mailbox; write \"maildir:~/Maildir\" or \"mbox:~/mbox\""
            ),
            (
                "local.aliases = \"aliases\"",
                "apus.toml:5: local.aliases: \"aliases\" is not an absolute path; begin it with /"
            ),
            (
                "[tls]\nprivate-key = \"/x\"",
                "apus.toml:6: tls.private-key without tls.certificate; add certificate = \"…/fullchain.pem\""
            ),
            (
                "[[listen]]\naddress = \"[::]:465\"\nrole = \"mx\"\ntls = \"implicit\"",
                "apus.toml:8: listen.tls = \"implicit\" needs a certificate; add [tls] with certificate = \"…/fullchain.pem\" and private-key = \"…/privkey.pem\""
            ),
            (
                "[[certificate]]\ncertificate = \"/x\"",
                "apus.toml:5: [[certificate]] without tls.certificate; put the certificate that most clients see into [tls]"
            ),
            (
                "domains.relay-certificates = [\"AB:CD\"]",
                "apus.toml:5: domains.relay-certificates: \"AB:CD\" is not the SHA-256 of a certificate; openssl x509 -in FILE -noout -fingerprint -sha256 prints it"
            ),
            (
                "remote.smarthost = \"[mail.example.org]:465\"",
                "apus.toml:5: advice: remote.smarthost: servers on port 465 expect TLS before the greeting; add tls = \"implicit\" to [remote]"
            ),
            (
                "remote.tls = \"must\"",
                "apus.toml:5: remote.tls: \"must\" is not one of \"off\", \"may\", \"require\", \"verify\", \"implicit\""
            ),
            ("hostname = \"other.example\"", "apus.toml:5: hostname is already set in line 1"),
            (
                "[[listen]]\naddress = \"127.0.0.1:2525\"\nrole = \"mx\"",
                "apus.toml:6: listen.address: \"127.0.0.1:2525\" is already in line 3"
            ),
            (
                "[[listen]]\naddress = \"localhost:25\"\nrole = \"mx\"",
                "apus.toml:6: listen.address: \"localhost:25\" is not an address with a port; write \"127.0.0.1:25\", and \"[::1]:25\" in a second [[listen]]"
            ),
            (
                "[[listen]]\naddress = \"::1:25\"\nrole = \"mx\"",
                "apus.toml:6: listen.address: \"::1:25\" is not an address with a port; the port is missing: \"[::1:25]:25\""
            ),
            (
                "[[listen]]\naddress = \"*:25\"\nrole = \"mx\"",
                "apus.toml:6: listen.address: \"*:25\" is not an address with a port; write \"[::]:25\" for all addresses of this machine"
            ),
            (
                "[[listen]]\naddress = \"[::]:25\"\nrole = \"submision\"",
                "apus.toml:7: listen.role: \"submision\" is not one of \"mx\", \"submission\"; did you mean \"submission\"?"
            ),
            (
                "[[listen]]\naddress = \"[::]:25\"",
                "apus.toml:5: this [[listen]] has no role; add role = \"mx\" or \"submission\""
            ),
        ])
    func mistake(text: String, expected: String) {
        // Keys of the top must stand before the first header; either way the listener is in line 3.
        let head = "hostname = \"mx.example.org\"\n"
        let table = "[[listen]]\naddress = \"127.0.0.1:2525\"\nrole = \"mx\"\n"
        let list = "listen = [\n{ address = \"127.0.0.1:2525\", role = \"mx\" },\n]\n"
        #expect(remarks(head + (text.hasPrefix("[[") ? table : list) + text + "\n") == [expected])
    }

    @Test("All mistakes are told at once, in the order of the file")
    func allAtOnce() {
        let found = remarks("hostname = 5\nstat = \"/x\"\n[[listen]]\nrole = \"mx\"\n[smtp]\nsize-max = true\n")
        #expect(
            found == [
                "apus.toml:1: hostname: must be a string, not an integer; put it into quotation marks",
                "apus.toml:2: unknown key \"stat\"; did you mean \"state\"?",
                "apus.toml:3: this [[listen]] has no address; add address = \"127.0.0.1:25\"",
                "apus.toml:6: smtp.size-max: must be a size, not true or false; write octets, or \"50MB\", \"50MiB\"",
            ])
    }

    @Test(
        "A running Apus takes another list of addresses unless an open socket would be in the way or would have to change",
        arguments: [
            ("127.0.0.1:25", "127.0.0.1:25 127.0.0.2:25", true),
            ("127.0.0.1:25", "0.0.0.0:26", true),
            ("127.0.0.1:25", "0.0.0.0:25", false),
            ("0.0.0.0:25", "127.0.0.1:25", false),
            ("127.0.0.1:25", "[::1]:25", true),
            ("[::1]:25", "[::]:25", false),
            ("[::]:25", "[::]:25 0.0.0.0:26", true),
            ("[::]:25", "[::]:25 0.0.0.0:25", false),
            ("[::]:25 0.0.0.0:25", "[::]:25", false),
            ("[::]:25 0.0.0.0:25", "0.0.0.0:25", true),
            ("[::]:25 0.0.0.0:25", "[::1]:25 0.0.0.0:25", false),
            ("[::]:25 192.0.2.1:25", "[::]:25 192.0.2.2:25", true),
            ("[::]:25", "0.0.0.0:25", false),
            ("", "[::]:25", true),
        ])
    func listenerChanges(before: String, after: String, isPossible: Bool) {
        let own = Set(before.split(separator: " ").compactMap { SocketAddress(text: String($0)) })
        let addresses = after.split(separator: " ").compactMap { SocketAddress(text: String($0)) }
        let obstacles = addresses.compactMap { ListeningSocket.obstacle(to: $0, among: addresses, own: own) }
        #expect(obstacles.isEmpty == isPossible, "\(obstacles)")
    }

    @Test("An empty file says what is missing")
    func empty() {
        #expect(
            remarks("") == [
                "apus.toml: hostname is not set; add hostname = \"mx.example.org\"",
                "apus.toml: there is no [[listen]]; add [[listen]] with address = \"127.0.0.1:25\" and role = \"mx\"",
            ])
    }

    @Test("What is not TOML is told without guesses at what is missing")
    func notTOML() {
        #expect(remarks("hostname = mx.example.org\n").count == 1)
    }

    @Test("Twice as many domains take about twice as long to read")
    func manyDomains() {
        func time(_ count: Int) -> Duration {
            let local = (0..<count).map { "\"d\($0).example\"" }.joined(separator: ",\n")
            let virtual = (0..<count).map { "\"v\($0).example\"" }.joined(separator: ",\n")
            let text = smallest + "[domains]\nlocal = [\(local)]\n[virtual]\ndomains = [\(virtual)]\n"
            return ContinuousClock().measure {
                #expect(Settings.read(octets: Array(text.utf8), file: "apus.toml").settings != nil)
            }
        }
        // What is quadratic takes 64 times as long.
        let few = (0..<3).map { _ in time(1_000) }.min() ?? .zero
        #expect(time(8_000) < few * 24)
    }

    @Test("Advice does not keep the settings from being used")
    func advice() {
        let text =
            "hostname = \"mx\"\ndomains.relay-from = [\"0.0.0.0/0\", \"::1\", \"::1\"]\n" + smallest.dropFirst(28)
        let (settings, remarks) = Settings.read(octets: Array(text.utf8), file: "apus.toml")
        #expect(settings != nil)
        #expect(remarks.map(\.weight) == [.advice, .advice, .advice])
        #expect(settings?.table(for: .smtpd).texts("relay-from") == ["0.0.0.0/0", "::1"])
    }

    @Test(
        "Spans of time and sizes have units",
        arguments: [
            ("queue.lifetime = 90", "90"), ("queue.lifetime = \"1h30m\"", "5400"),
            ("queue.lifetime = \"2W\"", "1209600"),
            ("queue.lifetime = \"5d\"", "432000"),
        ])
    func duration(text: String, expected: String) {
        let (settings, _) = Settings.read(octets: Array((text + "\n" + smallest).utf8), file: "apus.toml")
        #expect(settings?.table(for: .queue).text("lifetime") == expected)
    }

    @Test(
        "Sizes have units",
        arguments: [("100000", "100000"), ("\"50MB\"", "50000000"), ("\"1 MiB\"", "1048576"), ("\"70kb\"", "70000")])
    func size(text: String, expected: String) {
        let (settings, _) = Settings.read(
            octets: Array(("smtp.size-max = \(text)\n" + smallest).utf8), file: "apus.toml")
        #expect(settings?.table(for: .smtpd).text("size-max") == expected)
    }

    @Test(
        "No text of an administrator traps the reader",
        arguments: [
            "queue.lifetime = \"99999999999999999999d\"", "queue.lifetime = -9223372036854775808",
            "smtp.size-max = \"9999999999TiB\"", "queue.lifetime = \"9999999999999w9999999999999w\"",
            "domains.relay-from = [\"1.2.3.4/99999999999\"]", "domains.relay-from = [\"::1/-1\"]",
            "domains.relay-from = [\"10.0.0.1/99\"]", "listen = 5", "listen = [5]", "queue = 5", "state = []",
        ])
    func bounded(text: String) {
        #expect(!remarks(text + "\n").isEmpty)
    }
}

@Suite struct InternationalSettingsTests {
    @Test("domains beyond ASCII may be written as they are read, and are handed over in ASCII")
    func domains() throws {
        let text =
            smallest + """
                [domains]
                local = ["Bücher.example", "xn--strae-oqa.example"]
                [bounce]
                postmaster = "jörg@bücher.example"
                verp-senders = ["@*.bücher.example", "jörg@bücher.example"]
                [[destination]]
                match = "*.bücher.example"
                connections-max = 5
                """
        let found = Settings.read(octets: Array(text.utf8), file: "apus.toml")
        #expect(found.remarks.map(\.description) == [])
        let settings = try #require(found.settings)
        #expect(
            settings.table(for: .lookup).texts("local-domain") == ["xn--bcher-kva.example", "xn--strae-oqa.example"])
        #expect(settings.table(for: .bounce).text("postmaster") == "jörg@xn--bcher-kva.example")
        #expect(
            settings.table(for: .queue).texts("verp-sender") == [
                "@*.xn--bcher-kva.example", "jörg@xn--bcher-kva.example",
            ])
        #expect(!remarks(smallest + "[domains]\nlocal = [\"ü..example\"]\n").isEmpty)
    }
}

@Suite struct ReferenceTests {
    @Test("Documentation/settings.md has every key as the schema says it")
    func documentation() throws {
        // A test may read the tree that it was built from.
        let folder = #filePath.split(separator: "/").dropLast(3).joined(separator: "/")
        let page = try Descriptor.readFile("/\(folder)/Documentation/settings.md", octetCountMax: 1 << 20)
        #expect(String(decoding: page, as: UTF8.self).hasSuffix(SettingsReference.markdown))
    }

    @Test("The man page of a program has every setting that the program is handed")
    func manPages() throws {
        let folder = #filePath.split(separator: "/").dropLast(3).joined(separator: "/")
        for use in SettingsSchema.keys.flatMap(\.uses) {
            let page = try Descriptor.readFile("/\(folder)/man/\(use.program.rawValue).8", octetCountMax: 1 << 20)
            // mdoc(7) or man(7), with lines that go on.
            let text = String(decoding: page, as: UTF8.self).replacing("\\-", with: "-").replacing("\\\n", with: "")
            let names = text.split(separator: "\n").filter { $0.hasPrefix(".It Cm ") || $0.hasPrefix(".B ") }
                .flatMap { $0.split { !$0.isLetter && !$0.isNumber && $0 != "-" } }
            #expect(names.contains { $0 == use.name }, "\(use.program.rawValue).8 lacks \(use.name)")
        }
    }

    @Test("The sample settings are without a mistake, and so are the defaults that they show")
    func sample() throws {
        let folder = #filePath.split(separator: "/").dropLast(3).joined(separator: "/")
        let sample = try Descriptor.readFile("/\(folder)/etc/apus.toml", octetCountMax: 1 << 20)
        #expect(Settings.read(octets: sample, file: "apus.toml").remarks == [])
        // `# key = value` are the defaults; a remark is `# Sentence`.
        let text = String(decoding: sample, as: UTF8.self).split(separator: "\n", omittingEmptySubsequences: false).map
        {
            line in
            guard line.hasPrefix("# "), line.dropFirst(2).first?.isLowercase == true, line.contains(" = ") else {
                return String(line)
            }
            return String(line.dropFirst(2))
        }.joined(separator: "\n")
        #expect(Settings.read(octets: Array(text.utf8), file: "apus.toml").remarks == [])
    }
}
