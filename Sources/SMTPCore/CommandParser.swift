// SPDX-License-Identifier: Apache-2.0
//
// The grammar of commands (RFC 5321 §4.1.1 to §4.1.3). Pure functions of one line; nothing is repaired,
// and what is taken from a line is copied, so that no octet of a peer is held longer than its command.

private import MailTypes

/// Reads one command line.
package enum CommandParser {
    /// Reads a line without its CR LF.
    ///
    /// Liberal where others are: verbs in any case (RFC 5321 §2.4), blanks behind the line, and blanks between
    /// `FROM:` or `TO:` and the path, which the RFC forbids and clients write.
    package static func parse(_ line: Span<UInt8>) -> Result<Command, CommandFault> {
        var isUnicode = false
        for index in line.indices where !line[index].isPrintable && line[index] != ASCII.tab {
            guard line[index] >= 0x80 else { return .failure(.notPrintable) }
            isUnicode = true
        }
        if isUnicode {
            guard Self.takesUnicode(line), Self.copy(line, 0..<line.count).isAddressText else {
                return .failure(.notPrintable)
            }
        }
        var end = line.count
        while end > 0, Self.isBlank(line[end - 1]) { end -= 1 }
        // The one verb that is longer than four letters.
        if let rest = Self.rest(line, end, after: Self.startTLS) { return Self.alone(.startTLS, rest) }
        guard end >= 4, end == 4 || Self.isBlank(line[4]) else { return .failure(.unknownCommand) }
        let verb = (0..<4).reduce(UInt32(0)) { $0 << 8 | UInt32(line[$1].uppercased) }
        var start = 4
        while start < end, Self.isBlank(line[start]) { start += 1 }
        let argument = start..<end

        // The verbs as four ASCII letters in one number: one comparison each, no allocation.
        switch verb {
        case 0x4548_4C4F: return Self.hello(line, argument, Command.extendedHello)  // EHLO
        case 0x4845_4C4F: return Self.hello(line, argument, Command.hello)  // HELO
        case 0x4D41_494C: return Self.mail(line, argument)  // MAIL
        case 0x5243_5054: return Self.recipient(line, argument)  // RCPT
        case 0x4441_5441: return Self.alone(.data, argument)  // DATA
        case 0x5253_4554: return Self.alone(.reset, argument)  // RSET
        case 0x5155_4954: return Self.alone(.quit, argument)  // QUIT
        case 0x4E4F_4F50: return .success(.noOperation)  // NOOP
        case 0x4845_4C50: return .success(.help)  // HELP
        case 0x4155_5448: return Self.authenticate(line, argument)  // AUTH
        case 0x5652_4659: return Self.verify(line, argument)  // VRFY
        case 0x4558_504E: return argument.isEmpty ? .failure(.missingArgument) : .success(.expand)  // EXPN
        default: return .failure(.unknownCommand)
        }
    }

    /// Whether the verb is one that has addresses behind it (RFC 6531 §3.3).
    private static func takesUnicode(_ line: Span<UInt8>) -> Bool {
        guard line.count > 4 else { return false }
        switch (0..<4).reduce(UInt32(0), { $0 << 8 | UInt32(line[$1].uppercased) }) {
        case 0x4D41_494C, 0x5243_5054, 0x5652_4659: return true
        default: return false
        }
    }

    private static let startTLS: [UInt8] = Array("STARTTLS".utf8)

    /// The argument behind a verb, if that is the verb.
    private static func rest(_ line: Span<UInt8>, _ end: Int, after verb: [UInt8]) -> Range<Int>? {
        guard end >= verb.count, end == verb.count || Self.isBlank(line[verb.count]) else { return nil }
        for index in verb.indices where line[index].uppercased != verb[index] { return nil }
        return verb.count..<end
    }

    private static func isBlank(_ octet: UInt8) -> Bool { octet == ASCII.space || octet == ASCII.tab }

    private static func alone(_ command: Command, _ argument: Range<Int>) -> Result<Command, CommandFault> {
        argument.isEmpty ? .success(command) : .failure(.unexpectedArgument)
    }

    /// RFC 5321 §4.1.4: a server must not refuse a client for the name it gives itself, and old devices give
    /// strange ones. It goes into the log and the Received field, both of which make it harmless.
    private static func hello(
        _ line: Span<UInt8>, _ argument: Range<Int>, _ command: ([UInt8]) -> Command
    ) -> Result<Command, CommandFault> {
        guard !argument.isEmpty, argument.count <= MailAddress.domainOctetCountMax else {
            return .failure(.helloSyntax)
        }
        return .success(command(Self.copy(line, argument)))
    }

    /// RFC 4954 §4.
    private static func authenticate(_ line: Span<UInt8>, _ argument: Range<Int>) -> Result<Command, CommandFault> {
        let words = Self.copy(line, argument).split(whereSeparator: Self.isBlank)
        guard (1...2).contains(words.count), words[0].count <= 20 else { return .failure(.authenticateSyntax) }
        let response: ServerSession.InitialResponse = words.count == 2 ? .base64(Array(words[1])) : .none
        return .success(.authenticate(Array(words[0]), response))
    }

    // MARK: MAIL and RCPT

    private static func mail(_ line: Span<UInt8>, _ argument: Range<Int>) -> Result<Command, CommandFault> {
        guard let start = Self.pathStart(line, argument, after: Self.from) else { return .failure(.mailSyntax) }
        guard let end = Self.pathEnd(line, start..<argument.upperBound) else { return .failure(.senderAddress) }
        guard let inner = Self.mailbox(line, (start + 1)..<(end - 1)),
            let path = ReversePath(octets: inner, alphabet: .unicode)
        else { return .failure(.senderAddress) }
        var parameters = MailParameters()
        if end < argument.upperBound {
            guard Self.isBlank(line[end]) else { return .failure(.mailSyntax) }
            if let fault = Self.read(line, end..<argument.upperBound, into: &parameters) { return .failure(fault) }
        }
        return .success(.mail(path, parameters))
    }

    private static func recipient(_ line: Span<UInt8>, _ argument: Range<Int>) -> Result<Command, CommandFault> {
        guard let start = Self.pathStart(line, argument, after: Self.to) else { return .failure(.recipientSyntax) }
        guard let end = Self.pathEnd(line, start..<argument.upperBound) else { return .failure(.recipientAddress) }
        guard let inner = Self.mailbox(line, (start + 1)..<(end - 1)),
            let path = ForwardPath(octets: inner, alphabet: .unicode)
        else { return .failure(.recipientAddress) }
        var dsn = RecipientDSN()
        if end < argument.upperBound {
            guard Self.isBlank(line[end]) else { return .failure(.recipientSyntax) }
            if let fault = Self.read(line, end..<argument.upperBound, into: &dsn) { return .failure(fault) }
        }
        return .success(.recipient(path, dsn))
    }

    private static let from: [UInt8] = Array("FROM:".utf8)
    private static let to: [UInt8] = Array("TO:".utf8)

    /// Where the `<` is that follows the keyword.
    private static func pathStart(_ line: Span<UInt8>, _ argument: Range<Int>, after keyword: [UInt8]) -> Int? {
        guard argument.count > keyword.count else { return nil }
        for offset in keyword.indices where line[argument.lowerBound + offset].uppercased != keyword[offset] {
            return nil
        }
        var start = argument.lowerBound + keyword.count
        while start < argument.upperBound, Self.isBlank(line[start]) { start += 1 }
        guard start < argument.upperBound, line[start] == ASCII.less else { return nil }
        return start
    }

    /// The place after the `>` that closes the path; a `>` within quotes is part of the local part.
    private static func pathEnd(_ line: Span<UInt8>, _ range: Range<Int>) -> Int? {
        var isQuoted = false
        var index = range.lowerBound + 1
        while index < range.upperBound {
            let octet = line[index]
            if isQuoted, octet == ASCII.backslash {
                index += 1
            } else if octet == ASCII.quote {
                isQuoted.toggle()
            } else if octet == ASCII.greater, !isQuoted {
                return index + 1
            }
            index += 1
        }
        return nil
    }

    /// The path without its source route, which is checked for form and ignored (RFC 5321 §3.6.1, appendix C).
    private static func mailbox(_ line: Span<UInt8>, _ path: Range<Int>) -> [UInt8]? {
        guard !path.isEmpty, line[path.lowerBound] == ASCII.at else { return Self.copy(line, path) }
        var start = path.lowerBound
        while true {
            guard start < path.upperBound, line[start] == ASCII.at else { return nil }
            start += 1
            var end = start
            var isLiteral = false
            while end < path.upperBound, isLiteral || (line[end] != 0x2C && line[end] != ASCII.colon) {
                if line[end] == 0x5B { isLiteral = true }
                if line[end] == 0x5D { isLiteral = false }
                end += 1
            }
            guard end < path.upperBound, MailAddress.isDomain(Self.copy(line, start..<end)) else { return nil }
            start = end + 1
            if line[end] == ASCII.colon {
                // A route leads to a mailbox, never to the null path or to a bare postmaster.
                let rest = Self.copy(line, start..<path.upperBound)
                return MailAddress(octets: rest, alphabet: .unicode) == nil ? nil : rest
            }
        }
    }

    // MARK: Parameters

    private static let size: [UInt8] = Array("SIZE".utf8)
    private static let body: [UInt8] = Array("BODY".utf8)
    private static let auth: [UInt8] = Array("AUTH".utf8)
    private static let returned: [UInt8] = Array("RET".utf8)
    private static let envelopeID: [UInt8] = Array("ENVID".utf8)
    private static let unicode: [UInt8] = Array("SMTPUTF8".utf8)
    private static let verp: [UInt8] = Array("XVERP".utf8)
    private static let verpDelimiters: [UInt8] = Array("+=".utf8)
    private static let notify: [UInt8] = Array("NOTIFY".utf8)
    private static let originalRecipient: [UInt8] = Array("ORCPT".utf8)

    /// The next ` KEYWORD=VALUE` (RFC 5321 §4.1.2); nil at the end of the range. Without `=` the value is empty.
    private static func nextParameter(
        _ line: Span<UInt8>, at index: inout Int, before limit: Int
    ) -> (keyword: ArraySlice<UInt8>, value: ArraySlice<UInt8>)? {
        while index < limit, Self.isBlank(line[index]) { index += 1 }
        guard index < limit else { return nil }
        let start = index
        while index < limit, !Self.isBlank(line[index]) { index += 1 }
        let parameter = Self.copy(line, start..<index)
        let equals = parameter.firstIndex(of: ASCII.equals) ?? parameter.count
        return (parameter[..<equals], parameter[min(equals + 1, parameter.count)...])
    }

    /// Reads the parameters of RCPT (RFC 3461 §4.1, §4.2).
    private static func read(
        _ line: Span<UInt8>, _ range: Range<Int>, into dsn: inout RecipientDSN
    ) -> CommandFault? {
        var index = range.lowerBound
        while let (keyword, value) = Self.nextParameter(line, at: &index, before: range.upperBound) {
            if keyword.equalsIgnoringCase(Self.notify) {
                guard dsn.notify == nil, let conditions = NotifyConditions(octets: value) else {
                    return .parameterValue
                }
                dsn.notify = conditions
            } else if keyword.equalsIgnoringCase(Self.originalRecipient) {
                guard dsn.originalRecipient.isEmpty, RecipientDSN.isOriginalRecipient(value, allowsUnicode: true) else {
                    return .parameterValue
                }
                dsn.originalRecipient = Array(value)
            } else {
                return .unknownParameter
            }
        }
        return nil
    }

    /// Reads the parameters of MAIL, any number of them (RFC 5321 §4.1.2, Mail-parameters).
    private static func read(
        _ line: Span<UInt8>, _ range: Range<Int>, into parameters: inout MailParameters
    ) -> CommandFault? {
        var isSizeSeen = false
        var isBodySeen = false
        var isAuthSeen = false
        var index = range.lowerBound
        while let (keyword, value) = Self.nextParameter(line, at: &index, before: range.upperBound) {
            if keyword.equalsIgnoringCase(Self.size) {
                guard !isSizeSeen, !value.isEmpty, value.count <= 20, value.allSatisfy(\.isDigit) else {
                    return .parameterValue
                }
                isSizeSeen = true
                // RFC 1870 §3 gives it up to twenty digits, which is more than 64 bits hold.
                parameters.declaredOctetCount = value.decimal() ?? .max
            } else if keyword.equalsIgnoringCase(Self.body) {
                guard !isBodySeen, let bodyType = BodyType.allCases.first(where: { Self.isNamed($0, value) }) else {
                    return .parameterValue
                }
                isBodySeen = true
                parameters.bodyType = bodyType
            } else if keyword.equalsIgnoringCase(Self.auth) {
                // RFC 4954 §5: who first submitted the message. Nobody here trusts others to say so, so it counts as
                // `<>`, but has to be what the grammar wants.
                guard !isAuthSeen, !value.isEmpty, value.count <= 500, Xtext.decode(value) != nil else {
                    return .parameterValue
                }
                isAuthSeen = true
            } else if keyword.equalsIgnoringCase(Self.returned) {
                guard parameters.dsn.returned == nil, let returned = ReturnedContent(octets: value) else {
                    return .parameterValue
                }
                parameters.dsn.returned = returned
            } else if keyword.equalsIgnoringCase(Self.envelopeID) {
                guard parameters.dsn.envelopeID.isEmpty, MessageDSN.isEnvelopeID(value) else { return .parameterValue }
                parameters.dsn.envelopeID = Array(value)
            } else if keyword.equalsIgnoringCase(Self.unicode) {
                // RFC 6531 §3.4: it takes no value, and so no `=`.
                guard !parameters.isUnicode, value.startIndex == keyword.endIndex else { return .parameterValue }
                parameters.isUnicode = true
            } else if keyword.equalsIgnoringCase(Self.verp) {
                // There are only these delimiters here.
                guard !parameters.isVERP, value.isEmpty || value.elementsEqual(Self.verpDelimiters) else {
                    return .parameterValue
                }
                parameters.isVERP = true
            } else {
                return .unknownParameter
            }
        }
        return nil
    }

    private static func isNamed(_ bodyType: BodyType, _ value: ArraySlice<UInt8>) -> Bool {
        value.equalsIgnoringCase(bodyType.rawValue.utf8)
    }

    // MARK: VRFY

    private static func verify(_ line: Span<UInt8>, _ argument: Range<Int>) -> Result<Command, CommandFault> {
        guard !argument.isEmpty else { return .failure(.missingArgument) }
        let (argument, isUnicode) = Self.withoutUnicodeWord(line, argument)
        guard isUnicode || Self.copy(line, argument).isASCII else { return .failure(.unicodeNotAsked) }
        let isBracketed = line[argument.lowerBound] == ASCII.less && line[argument.upperBound - 1] == ASCII.greater
        let inner =
            isBracketed && argument.count >= 2
            ? Self.copy(line, (argument.lowerBound + 1)..<(argument.upperBound - 1)) : Self.copy(line, argument)
        return .success(.verify(ForwardPath(octets: inner, alphabet: isUnicode ? .unicode : .ascii)))
    }

    /// The argument of VRFY without ` SMTPUTF8` at its end, and whether that stood there.
    private static func withoutUnicodeWord(
        _ line: Span<UInt8>, _ argument: Range<Int>
    ) -> (argument: Range<Int>, isUnicode: Bool) {
        let start = argument.upperBound - Self.unicode.count
        guard start - 1 > argument.lowerBound, Self.isBlank(line[start - 1]),
            Self.copy(line, start..<argument.upperBound).equalsIgnoringCase(Self.unicode)
        else { return (argument, false) }
        var end = start - 1
        while end > argument.lowerBound + 1, Self.isBlank(line[end - 1]) { end -= 1 }
        return (argument.lowerBound..<end, true)
    }

    private static func copy(_ line: Span<UInt8>, _ range: Range<Int>) -> [UInt8] {
        var octets: [UInt8] = []
        octets.reserveCapacity(range.count)
        for index in range { octets.append(line[index]) }
        return octets
    }
}
