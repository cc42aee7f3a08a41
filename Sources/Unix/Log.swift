// SPDX-License-Identifier: Apache-2.0
//
// One line per event on standard error:
//
//     2026-11-23T15:03:51.123Z apus-queue queued id=1k9s3m5t7v9x1 from=<a@example.org> size=4211
//
// Time, program and event, then key=value. A value of other than plain printable octets is quoted and
// escaped, here and nowhere else, so that nothing a peer says can break a line or forge one.

import Glibc
package import MailTypes
import Synchronization

/// Where log lines go before they are written.
package enum Log {
    private struct State {
        var program: [UInt8] = Array("apus".utf8)
        var pending: [UInt8] = []
        /// Called when the first line waits; whoever is called must call `flush` soon.
        var scheduleFlush: (@Sendable () -> Void)?
        /// The second of `stamp`.
        var second: UInt64 = .max
        var stamp: [UInt8] = []
    }

    private static let state = Mutex(State())

    /// Above this many octets waiting, lines are written at once.
    private static let pendingOctetCountMax = 16_384

    /// The name in every line, set once at the start.
    package static func setProgram(_ name: String) {
        self.state.withLock { $0.program = Array(name.utf8) }
    }

    /// Gathers lines instead of writing each: `schedule` is called when a line begins to wait.
    package static func setDeferred(_ schedule: (@Sendable () -> Void)?) {
        self.state.withLock { $0.scheduleFlush = schedule }
    }

    /// Writes what waits.
    package static func flush() {
        let octets = self.state.withLock { state in
            defer { state.pending.removeAll(keepingCapacity: true) }
            return state.pending
        }
        self.write(octets)
    }

    fileprivate static func put(_ line: [UInt8], now: Timestamp) {
        let (octets, schedule): ([UInt8], (@Sendable () -> Void)?) = self.state.withLock { state in
            let isFirst = state.pending.isEmpty
            self.stamp(&state, now)
            state.pending += state.stamp
            let milliseconds = now.microseconds / 1_000 % 1_000
            state.pending.append(0x30 + UInt8(milliseconds / 100))
            state.pending.append(0x30 + UInt8(milliseconds / 10 % 10))
            state.pending.append(0x30 + UInt8(milliseconds % 10))
            state.pending.append(0x5A)
            state.pending.append(ASCII.space)
            state.pending += state.program
            state.pending += line
            state.pending.append(ASCII.lineFeed)
            if state.scheduleFlush != nil, state.pending.count < self.pendingOctetCountMax {
                return ([], isFirst ? state.scheduleFlush : nil)
            }
            defer { state.pending.removeAll(keepingCapacity: true) }
            return (state.pending, nil)
        }
        if !octets.isEmpty { self.write(octets) }
        schedule?()
    }

    private static func stamp(_ state: inout State, _ now: Timestamp) {
        guard state.second != now.seconds else { return }
        state.second = now.seconds
        var time = time_t(truncatingIfNeeded: now.seconds)
        var parts = tm()
        gmtime_r(&time, &parts)
        var stamp: [UInt8] = []
        func two(_ value: CInt, _ separator: UInt8) {
            stamp.append(0x30 + UInt8(truncatingIfNeeded: value / 10 % 10))
            stamp.append(0x30 + UInt8(truncatingIfNeeded: value % 10))
            stamp.append(separator)
        }
        stamp.append(decimal: parts.tm_year + 1900)
        stamp.append(ASCII.hyphen)
        two(parts.tm_mon + 1, ASCII.hyphen)
        two(parts.tm_mday, 0x54)
        two(parts.tm_hour, ASCII.colon)
        two(parts.tm_min, ASCII.colon)
        two(parts.tm_sec, ASCII.dot)
        state.stamp = stamp
    }

    private static func write(_ octets: [UInt8]) {
        // A log that cannot be written must not stop the mail.
        try? Descriptor.error.write(octets)
    }
}

/// One line of the log, built key by key.
package struct LogLine {
    private var octets: [UInt8]
    private let now: Timestamp

    /// - Parameter event: one word, such as `queued`.
    package init(_ event: StaticString, now: Timestamp = WallClock.now()) {
        self.octets = []
        self.octets.reserveCapacity(200)
        self.octets.append(ASCII.space)
        self.octets.append(text: event)
        self.now = now
    }

    private mutating func begin(_ key: StaticString) {
        self.octets.append(ASCII.space)
        self.octets.append(text: key)
        self.octets.append(ASCII.equals)
    }

    /// Adds octets of any origin.
    package mutating func add(_ key: StaticString, _ value: [UInt8]) { self.add(key, value[...]) }

    /// Adds an address.
    package mutating func add(_ key: StaticString, _ value: IPAddress) {
        self.begin(key)
        // Digits, dots and colons need no escape.
        value.append(to: &self.octets)
    }

    /// Adds an enhanced status.
    package mutating func add(_ key: StaticString, _ value: EnhancedStatus) {
        self.begin(key)
        value.append(to: &self.octets)
    }

    /// Adds octets of any origin.
    package mutating func add(_ key: StaticString, _ value: ArraySlice<UInt8>) {
        self.begin(key)
        self.appendEscaped(value)
    }

    /// Adds a path in angle brackets: `<a@example.org>`.
    package mutating func add(path key: StaticString, _ value: [UInt8]) {
        self.begin(key)
        let isPlain = Self.isPlain(value[...])
        if !isPlain { self.octets.append(ASCII.quote) }
        self.octets.append(ASCII.less)
        if isPlain { self.octets += value } else { self.appendQuoted(value[...]) }
        self.octets.append(ASCII.greater)
        if !isPlain { self.octets.append(ASCII.quote) }
    }

    package mutating func add(_ key: StaticString, _ value: String) { self.add(key, Array(value.utf8)) }

    @inlinable package mutating func add(_ key: StaticString, _ value: some BinaryInteger) {
        self.add(key, isNegative: value < 0, UInt64(value.magnitude))
    }

    /// Adds a number: all that is not generic of it.
    @usableFromInline package mutating func add(_ key: StaticString, isNegative: Bool, _ magnitude: UInt64) {
        self.begin(key)
        if isNegative { self.octets.append(ASCII.hyphen) }
        self.octets.append(digitsOf: magnitude)
    }

    package mutating func add(_ key: StaticString, _ value: MessageID) {
        self.begin(key)
        self.octets += value.octets
    }

    /// Adds a span of time in seconds with three decimals.
    package mutating func add(_ key: StaticString, _ value: Duration) {
        self.begin(key)
        let (seconds, attoseconds) = value.components
        self.octets.append(decimal: seconds)
        self.octets.append(ASCII.dot)
        let milliseconds = UInt64(max(attoseconds, 0)) / 1_000_000_000_000_000
        self.octets.append(0x30 + UInt8(milliseconds / 100 % 10))
        self.octets.append(0x30 + UInt8(milliseconds / 10 % 10))
        self.octets.append(0x30 + UInt8(milliseconds % 10))
    }

    private mutating func appendEscaped(_ value: ArraySlice<UInt8>) {
        if !value.isEmpty, Self.isPlain(value) {
            self.octets += value
            return
        }
        self.octets.append(ASCII.quote)
        self.appendQuoted(value)
        self.octets.append(ASCII.quote)
    }

    private static func isPlain(_ value: ArraySlice<UInt8>) -> Bool {
        for octet in value
        where octet <= 0x20 || octet >= 0x7F || octet == ASCII.quote || octet == ASCII.backslash { return false }
        return true
    }

    /// What stands between the quotes.
    private mutating func appendQuoted(_ value: ArraySlice<UInt8>) {
        // What needs no escape is copied run by run.
        var run = value.startIndex
        for index in value.indices {
            let octet = value[index]
            if octet.isPrintable, octet != ASCII.quote, octet != ASCII.backslash { continue }
            self.octets += value[run..<index]
            run = index + 1
            self.octets.append(ASCII.backslash)
            if octet.isPrintable {
                self.octets.append(octet)
            } else {
                self.octets.append(0x78)
                self.octets.append(Self.hexadecimal(octet >> 4))
                self.octets.append(Self.hexadecimal(octet & 15))
            }
        }
        self.octets += value[run...]
    }

    private static func hexadecimal(_ digit: UInt8) -> UInt8 { digit < 10 ? 0x30 + digit : 0x57 + digit }

    /// Hands the line over; one that ends the line's life.
    package func write() { Log.put(self.octets, now: self.now) }

    /// The line without time and program, for tests.
    package var text: String { String(decoding: self.octets.dropFirst(), as: UTF8.self) }
}
