// SPDX-License-Identifier: Apache-2.0
//
// The command line of sendmail(8), as programs of forty years write it.

/// What a call of `sendmail`, `mailq` or `newaliases` asks for.
struct SendmailArguments: Equatable {
    enum Mode: Equatable {
        /// A message on standard input.
        case send
        /// SMTP on standard input and output.
        case smtp
        /// Show the queue.
        case queue
        /// Try the queue now.
        case flush
        /// Rebuild the aliases.
        case aliases
        /// Say where addresses lead.
        case verify
    }

    /// What is wrong with the command line.
    struct Fault: Error, Equatable {
        let text: String
    }

    var mode = Mode.send
    /// `-t`: the header's recipients, too.
    var takesRecipients = false
    /// `-i`: a line with a dot alone does not end the message.
    var ignoresDots = false
    /// `-v`: what is said and answered is shown.
    var isVerbose = false
    /// `-G`: mail that is passed on; nothing is added to its header.
    var isRelayed = false
    /// `-f`: as it was given.
    var sender: String?
    /// `-F`: the name of a person.
    var fullName: String?
    /// `-N`, `-R`, `-V`: for a server that can (RFC 3461).
    var notify: String?
    var returned: String?
    var envelopeID: String?
    /// `-XV`: a reverse-path for each recipient.
    var isVERP = false
    /// `-O smtputf8=yes`, `=no`: whether SMTPUTF8 is asked for (RFC 6531); nil: if an address needs it.
    var isUnicode: Bool?
    var recipients: [String] = []

    /// Options with a value, attached or as the next word, that change nothing here.
    private static let ignoredWithValue: Set<Character> = [
        "A", "C", "D", "d", "h", "L", "M", "p", "r", "X", "x", "B",
    ]
    /// Options without a value, or with an attached one, that change nothing here.
    private static let ignored: Set<Character> = ["n", "m", "U", "e", "s", "E", "J", "T", "W", "c"]

    /// - Parameters:
    ///   - name: by which the program was called, without its path.
    ///   - words: what followed.
    init(name: String, _ words: [String]) throws(Fault) {
        if name == "mailq" { self.mode = .queue }
        if name == "newaliases" { self.mode = .aliases }
        var rest = words[...]
        while let word = rest.popFirst() {
            if word == "--" {
                self.recipients += rest
                break
            }
            guard word.first == "-", word.count > 1 else {
                self.recipients.append(word)
                continue
            }
            try self.take(word.dropFirst(), &rest)
        }
    }

    private mutating func take(_ option: Substring, _ rest: inout ArraySlice<String>) throws(Fault) {
        var letters = option
        while let letter = letters.popFirst() {
            switch letter {
            case "t": self.takesRecipients = true
            case "i": self.ignoresDots = true
            case "v": self.isVerbose = true
            case "G": self.isRelayed = true
            case "I": self.mode = .aliases
            case "b": return try self.setMode(letters)
            case "o": return self.setOld(letters, &rest)
            case "q": return self.mode = .flush
            case "f", "r": return self.sender = try Self.value(letter, letters, &rest)
            case "F": return self.fullName = try Self.value(letter, letters, &rest)
            case "N": return self.notify = try Self.value(letter, letters, &rest)
            case "R": return self.returned = try Self.value(letter, letters, &rest)
            case "V": return self.envelopeID = try Self.value(letter, letters, &rest)
            case "O": return self.setLong(try Self.value(letter, letters, &rest))
            case "X" where letters == "V": return self.isVERP = true
            case _ where Self.ignoredWithValue.contains(letter):
                _ = try Self.value(letter, letters, &rest)
                return
            case _ where Self.ignored.contains(letter): return
            default: throw Fault(text: "unknown option -\(letter)")
            }
        }
    }

    private mutating func setMode(_ letters: Substring) throws(Fault) {
        switch letters {
        case "m": self.mode = .send
        case "s": self.mode = .smtp
        case "p": self.mode = .queue
        case "i": self.mode = .aliases
        case "v": self.mode = .verify
        case "d", "D": throw Fault(text: "-b\(letters): Apus is started by apusd")
        default: throw Fault(text: "-b\(letters) is not supported")
        }
    }

    /// `-oi` and the like; the others concern a sendmail that delivers by itself.
    private mutating func setOld(_ letters: Substring, _ rest: inout ArraySlice<String>) {
        // As getopt(3) has it: what belongs to an option may be the next word.
        let letters = letters.isEmpty ? Substring(rest.popFirst() ?? "") : letters
        if letters == "i" { self.ignoresDots = true }
        if letters == "v" { self.isVerbose = true }
    }

    /// `-O name=value`; the others concern a sendmail that delivers by itself.
    private mutating func setLong(_ option: String) {
        switch option.lowercased() {
        case "smtputf8=yes": self.isUnicode = true
        case "smtputf8=no": self.isUnicode = false
        default: break
        }
    }

    private static func value(
        _ letter: Character, _ attached: Substring, _ rest: inout ArraySlice<String>
    ) throws(Fault) -> String {
        if !attached.isEmpty { return String(attached) }
        guard let next = rest.popFirst() else { throw Fault(text: "option -\(letter) needs a value") }
        return next
    }
}
