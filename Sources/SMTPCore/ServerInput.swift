// SPDX-License-Identifier: Apache-2.0

private import MailTypes

/// What a client sends, as commands and content.
///
/// It joins the framer, the parser and the decoder, and knows which of them the octets are for. A session
/// says when content begins; the final dot says when it ends.
package struct ServerInput: Sendable {
    /// What was found.
    package enum Token: Hashable, Sendable {
        case command(Command)
        case commandFault(CommandFault)
        /// A line of an exchange of credentials, as places in the octets given, without CR LF.
        case response(Range<Int>)
        case responseFault(LineFault)
        /// Content, as places in the octets given. Empty if the limit of the call leaves no room.
        case content(Range<Int>)
        /// Content: a CR LF that is not among the octets given, for a bare LF that was.
        case contentLineEnd
        /// The final dot of a message that may be taken.
        case contentEnd(octetCount: UInt64)
        /// The final dot of a message that is refused.
        case contentFault(DataFault)
        /// Nothing more to be had from these octets.
        case hungry
    }

    private let limits: ServerLimits
    private let repairsBareLineFeeds: Bool
    private var framer: LineFramer
    private var decoder: DataDecoder?
    /// The next line answers a challenge.
    private var isResponseNext = false

    /// - Parameter repairsBareLineFeeds: see `DataDecoder`.
    package init(limits: ServerLimits, repairsBareLineFeeds: Bool = false) {
        self.limits = limits
        self.repairsBareLineFeeds = repairsBareLineFeeds
        self.framer = LineFramer(lineOctetCountMax: limits.commandLineOctetCountMax)
    }

    /// From here on the octets are content.
    package mutating func beginContent() {
        self.decoder = DataDecoder(
            mailOctetCountMax: self.limits.mailOctetCountMax, lineOctetCountMax: self.limits.dataLineOctetCountMax,
            repairsBareLineFeeds: self.repairsBareLineFeeds)
    }

    /// The next line is no command: it answers a challenge, and may be longer (RFC 4954 §4).
    package mutating func beginResponse() {
        self.isResponseNext = true
        self.framer.lineOctetCountMax = SASLLimits.lineOctetCountMax
    }

    package var isInContent: Bool { self.decoder != nil }

    /// Whether the content under way is refused already; its end is awaited all the same.
    package var isContentFaulted: Bool { self.decoder?.fault != nil }

    /// Finds what comes next behind `index`, and moves `index` past it. What is not used comes first
    /// again the next time.
    ///
    /// - Parameter contentCountMax: the longest piece of content that can be taken now.
    package mutating func next(_ octets: Span<UInt8>, at index: inout Int, contentCountMax: Int) -> Token {
        guard self.decoder == nil else { return self.nextContent(octets, at: &index, contentCountMax) }
        if self.isResponseNext { return self.nextResponse(octets, at: &index) }
        switch self.framer.next(octets, at: &index) {
        case .hungry: return .hungry
        case .fault(let fault): return .commandFault(.line(fault))
        case .line(let range):
            switch CommandParser.parse(octets.extracting(range)) {
            case .success(let command): return .command(command)
            case .failure(let fault): return .commandFault(fault)
            }
        }
    }

    private mutating func nextResponse(_ octets: Span<UInt8>, at index: inout Int) -> Token {
        let step = self.framer.next(octets, at: &index)
        if step == .hungry { return .hungry }
        self.isResponseNext = false
        self.framer.lineOctetCountMax = self.limits.commandLineOctetCountMax
        switch step {
        case .hungry: return .hungry
        case .fault(let fault): return .responseFault(fault)
        case .line(let range): return .response(range)
        }
    }

    private mutating func nextContent(_ octets: Span<UInt8>, at index: inout Int, _ countMax: Int) -> Token {
        guard var decoder = self.decoder else { return .hungry }
        let step = decoder.next(octets, at: &index, countMax: countMax)
        switch step {
        case .run(let range):
            self.decoder = decoder
            return .content(range)
        case .repairedLineEnd:
            self.decoder = decoder
            return .contentLineEnd
        case .hungry:
            self.decoder = decoder
            return .hungry
        case .end:
            self.decoder = nil
            if let fault = decoder.fault { return .contentFault(fault) }
            return .contentEnd(octetCount: decoder.octetCount)
        }
    }
}
