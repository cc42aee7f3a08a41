// SPDX-License-Identifier: Apache-2.0
//
// Dovecot's authentication, over the socket that it offers to other servers (Dovecot's auth protocol, version 1):
//
//     VERSION 1 2 | MECH PLAIN plaintext | … | DONE      it says what it can do
//     VERSION 1 1 | CPID 4711                            we say who we are
//     AUTH 1 PLAIN service=smtp … resp=AGE=              an exchange begins
//     CONT 1 …                                           a challenge, a response
//     OK 1 user=alice | FAIL 1 code=temp_fail            it ends
//
// The words of a line are separated by tabs.

import MailTypes
import NIOCore
import NIOPosix
import PipeCore
import SASLCore
import Unix

/// The connection to Dovecot, which is made again whenever it is lost.
final class DovecotSource: CredentialSource {
    private let path: String
    private let eventLoop: any EventLoop
    private let changed: () -> Void
    private var channel: (any Channel)?
    private var isReady = false
    private var isClosed = false
    private var received: [UInt8] = []
    private var exchanges: [UInt32: DovecotExchange] = [:]
    private var nextNumber: UInt32 = 1
    private var reading: [SASLMechanism] = []
    private var complaint = ""
    /// Until Dovecot has said what it can do, what it can nearly always do: it comes in a moment.
    private(set) var possibleMechanisms: [SASLMechanism] = [.plain, .login]

    private static let lineOctetCountMax = 65_536
    private static let retryTime = TimeAmount.seconds(1)

    init(path: String, on eventLoop: any EventLoop, changed: @escaping () -> Void) {
        self.path = path
        self.eventLoop = eventLoop
        self.changed = changed
        self.connect()
    }

    var suitableMechanisms: [SASLMechanism] { self.possibleMechanisms }

    func makeExchange(
        _ beginning: ExchangeBeginning, _ offered: [SASLMechanism], _ answer: @escaping (VaultAnswer) -> Void
    ) -> any Exchange {
        DovecotExchange(beginning, self, answer)
    }

    func close() {
        self.isClosed = true
        self.channel?.close(promise: nil)
        self.lost("the settings have changed")
    }

    // MARK: The connection

    private func connect() {
        guard !self.isClosed else { return }
        let source = NIOLoopBound(self, eventLoop: self.eventLoop)
        ClientBootstrap(group: self.eventLoop)
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    try channel.pipeline.syncOperations.addHandler(DovecotHandler(source.value))
                }
            }
            .connect(unixDomainSocketPath: self.path)
            .whenComplete { result in
                switch result {
                case .success(let channel): source.value.connected(channel)
                case .failure(let error): source.value.lost("\(error)")
                }
            }
    }

    private func connected(_ channel: any Channel) {
        guard !self.isClosed else { return channel.close(promise: nil) }
        self.channel = channel
        self.write("VERSION\t1\t1\nCPID\t\(ThisProcess.pid)\n")
    }

    fileprivate func lost(_ reason: String) {
        let wasReady = self.isReady
        self.channel = nil
        self.isReady = false
        self.received = []
        self.reading = []
        let exchanges = self.exchanges.values
        self.exchanges = [:]
        for exchange in exchanges { exchange.end(.later(text: Array("Dovecot is away: \(reason)".utf8))) }
        guard !self.isClosed else { return }
        if wasReady || self.complaint != reason {
            self.complaint = reason
            var line = LogLine("dovecot-away")
            line.add("socket", self.path)
            line.add("reason", reason)
            line.write()
        }
        self.eventLoop.assumeIsolated().scheduleTask(in: Self.retryTime) { [weak self] in self?.connect() }
    }

    private func write(_ text: String) { self.write(Array(text.utf8)) }

    private func write(_ octets: [UInt8]) {
        self.channel?.writeAndFlush(ByteBuffer(bytes: octets), promise: nil)
    }

    // MARK: What exchanges say

    /// - Returns: the number of the exchange; nil if Dovecot is away.
    fileprivate func begin(_ exchange: DovecotExchange, _ beginning: ExchangeBeginning) -> UInt32? {
        guard self.isReady else { return nil }
        var number = self.nextNumber
        while number == 0 || self.exchanges[number] != nil { number &+= 1 }
        self.nextNumber = number &+ 1
        self.exchanges[number] = exchange
        var line =
            "AUTH\t\(number)\t\(beginning.mechanism.rawValue)\tservice=smtp\tnologin\trip=\(beginning.client.text)"
        // What Dovecot lets nobody do without: our own rule about the connection has been applied already.
        line += "\tsecured"
        var octets = Array(line.utf8)
        if let response = beginning.initialResponse {
            octets += Array("\tresp=".utf8) + Base64.encode(response)
        }
        self.write(octets + [ASCII.lineFeed])
        return number
    }

    fileprivate func go(on number: UInt32, _ response: [UInt8]) {
        self.write(Array("CONT\t\(number)\t".utf8) + Base64.encode(response) + [ASCII.lineFeed])
    }

    fileprivate func cancel(_ number: UInt32) {
        guard self.exchanges.removeValue(forKey: number) != nil else { return }
        self.write("CANCEL\t\(number)\n")
    }

    // MARK: What Dovecot says

    fileprivate func receive(_ buffer: ByteBuffer) {
        self.received += buffer.readableBytesView
        var start = 0
        while let end = self.received[start...].firstIndex(of: ASCII.lineFeed) {
            let line = Array(self.received[start..<end])
            start = end + 1
            guard self.take(DovecotLine(line)) else { return self.breakOff() }
        }
        self.received.removeFirst(start)
        if self.received.count > Self.lineOctetCountMax { self.breakOff() }
    }

    private func breakOff() {
        var line = LogLine("dovecot-fault")
        line.add("socket", self.path)
        line.write()
        self.channel?.close(promise: nil)
    }

    /// - Returns: false if it is nothing that Dovecot would say.
    private func take(_ line: DovecotLine) -> Bool {
        switch line.verb {
        case "VERSION":
            return line.word(1) == "1"
        case "MECH":
            if let mechanism = SASLMechanism(octets: line.octets(1)), self.reading.count < 16 {
                // Bindings and certificates end with us, so that Dovecot could not check them.
                if mechanism != .scramSHA256Plus, mechanism != .external { self.reading.append(mechanism) }
            }
            return true
        case "DONE":
            self.possibleMechanisms = SASLMechanism.allCases.filter { self.reading.contains($0) }
            self.isReady = true
            self.complaint = ""
            var log = LogLine("dovecot-ready")
            log.add("mechanisms", self.possibleMechanisms.map(\.rawValue).joined(separator: " "))
            log.write()
            self.changed()
            return true
        case "CONT", "OK", "FAIL":
            guard let number = line.octets(1).decimal(limit: UInt64(UInt32.max)) else { return false }
            // The end of an exchange that was cancelled meanwhile.
            guard let exchange = self.exchanges[UInt32(number)] else { return true }
            // It may lose patience with a client, but has nothing else to say before the client has answered.
            guard exchange.isBusy || line.verb == "FAIL" else { return false }
            if line.verb != "CONT" { self.exchanges[UInt32(number)] = nil }
            return exchange.take(line)
        default:
            return true
        }
    }
}

/// One line of Dovecot's, as words.
struct DovecotLine {
    private let words: [[UInt8]]

    init(_ line: [UInt8]) {
        self.words = line.split(separator: ASCII.tab, omittingEmptySubsequences: false).map(Self.unescaped)
    }

    /// Octet 1 announces an octet that could not stand for itself.
    private static func unescaped(_ word: ArraySlice<UInt8>) -> [UInt8] {
        var octets: [UInt8] = []
        var isEscaped = false
        for octet in word {
            if isEscaped {
                switch octet {
                case 0x30: octets.append(0)
                case 0x31: octets.append(1)
                case 0x74: octets.append(ASCII.tab)
                case 0x72: octets.append(ASCII.carriageReturn)
                case 0x6E: octets.append(ASCII.lineFeed)
                default: octets.append(octet)
                }
                isEscaped = false
            } else if octet == 1 {
                isEscaped = true
            } else {
                octets.append(octet)
            }
        }
        return octets
    }

    var verb: String { self.word(0) }

    func word(_ index: Int) -> String { self.octets(index).printableText }

    func octets(_ index: Int) -> [UInt8] { index < self.words.count ? self.words[index] : [] }

    /// The value of `name=value`; empty for a name that stands alone; nil without it.
    func value(_ name: String) -> [UInt8]? {
        for word in self.words.dropFirst(2) where word.starts(with: name.utf8) {
            let rest = word.dropFirst(name.utf8.count)
            if rest.isEmpty { return [] }
            if rest.first == ASCII.equals { return Array(rest.dropFirst()) }
        }
        return nil
    }
}

/// An exchange that Dovecot has with the client; we carry.
final class DovecotExchange: Exchange {
    private let beginning: ExchangeBeginning
    private let source: DovecotSource
    private var answer: ((VaultAnswer) -> Void)?
    private var number: UInt32?
    private var responseCount = 0
    private(set) var isBusy = true
    /// How it has ended while the client had a challenge to answer: it is told then.
    private var outstanding: VaultAnswer?

    init(_ beginning: ExchangeBeginning, _ source: DovecotSource, _ answer: @escaping (VaultAnswer) -> Void) {
        self.beginning = beginning
        self.source = source
        self.answer = answer
    }

    func begin() {
        self.number = self.source.begin(self, self.beginning)
        if self.number == nil { self.end(.later(text: Array("Dovecot is away".utf8))) }
    }

    func respond(_ response: [UInt8]) {
        self.isBusy = true
        if let outstanding = self.outstanding { return self.end(outstanding) }
        guard let number = self.number else { return }
        self.responseCount += 1
        guard self.responseCount <= SASLLimits.responseCountMax else {
            self.source.cancel(number)
            return self.end(.denied(reason: Array(Denial.malformed.rawValue.utf8), user: []))
        }
        self.source.go(on: number, response)
    }

    func cancel() {
        self.answer = nil
        if let number = self.number { self.source.cancel(number) }
    }

    /// - Returns: false if the line is nothing that Dovecot would say.
    fileprivate func take(_ line: DovecotLine) -> Bool {
        switch line.verb {
        case "CONT":
            guard let challenge = Base64.decode(line.octets(2)),
                challenge.count <= SASLLimits.messageOctetCountMax
            else { return false }
            self.isBusy = false
            self.answer?(.challenge(challenge))
        case "OK":
            guard let user = line.value("user").flatMap({ CredentialText.user($0) }) else {
                self.end(.later(text: Array("Dovecot names no user".utf8)))
                return true
            }
            self.end(.granted(user: user))
        default:
            let isTemporary =
                line.value("temp") != nil || line.value("code").map { $0.elementsEqual("temp_fail".utf8) } == true
            if isTemporary {
                self.end(
                    .later(text: Array("Dovecot: \(line.value("reason")?.printableText ?? "temporary failure")".utf8)))
            } else {
                let user = line.value("user").flatMap { CredentialText.user($0) } ?? []
                self.end(.denied(reason: Array(Denial.credentials.rawValue.utf8), user: user))
            }
        }
        return true
    }

    /// Nothing but the client's answer may follow a challenge (pipes.md §7), so an end that comes before it has to wait.
    fileprivate func end(_ last: VaultAnswer) {
        // Dovecot has forgotten it, and may give its number to another one.
        self.number = nil
        guard self.isBusy else {
            self.outstanding = last
            return
        }
        let answer = self.answer
        self.answer = nil
        answer?(last)
    }
}

/// Carries octets between the connection and the source.
private final class DovecotHandler: ChannelInboundHandler {
    typealias InboundIn = ByteBuffer

    private let source: DovecotSource

    init(_ source: DovecotSource) { self.source = source }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) { self.source.receive(Self.unwrapInboundIn(data)) }

    func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }

    func channelInactive(context: ChannelHandlerContext) { self.source.lost("the connection has ended") }
}
