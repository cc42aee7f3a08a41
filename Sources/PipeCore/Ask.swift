// SPDX-License-Identifier: Apache-2.0
//
// The dialect `ask` (pipes.md §4): questions to apus-lookup.

package import MailTypes

/// A question; its channel ends with its answer.
package enum AskQuestion: Equatable, Sendable {
    /// Is it ours, and does it exist?
    case check(ForwardPath)
    /// Where does it go, aliases followed to the end?
    case resolve(ForwardPath, PathMeaning)
    /// The same, with the steps of the way.
    case explain(ForwardPath)
    /// May the user of this number send as this address?
    case owner(ForwardPath, uid: UInt32)
    /// May the user of this name, who has authenticated himself, send as this address?
    case sender(ForwardPath, user: [UInt8])

    package init(_ frame: Frame) throws(FrameFault) {
        guard [.check, .resolve, .explain, .owner, .sender].contains(frame.verb) else {
            throw FrameFault(.outOfPlace, frame.verb)
        }
        switch frame.verb {
        case .owner, .sender: try frame.expectFields(2)
        case .resolve: try frame.expectFields(1...2)
        default: try frame.expectFields(1)
        }
        let path = try frame.value(ForwardPath(octets: frame[0], alphabet: .unicodeLocalPart))
        switch frame.verb {
        case .check: self = .check(path)
        case .explain: self = .explain(path)
        case .sender:
            guard (1...SASLLimits.userOctetCountMax).contains(frame[1].count) else {
                throw FrameFault(.badField, .sender)
            }
            self = .sender(path, user: Array(frame[1]))
        case .owner:
            self = .owner(path, uid: UInt32(truncatingIfNeeded: try frame.number(1, limit: UInt64(UInt32.max))))
        default:
            let meaning = frame.fieldCount > 1 ? try frame.value(PathMeaning(octets: frame[1])) : .address
            self = .resolve(path, meaning)
        }
    }

    package func append(to octets: inout [UInt8], channel: UInt32) {
        let verb: Verb
        let path: ForwardPath
        switch self {
        case .check(let asked): (verb, path) = (.check, asked)
        case .resolve(let asked, _): (verb, path) = (.resolve, asked)
        case .explain(let asked): (verb, path) = (.explain, asked)
        case .owner(let asked, _): (verb, path) = (.owner, asked)
        case .sender(let asked, _): (verb, path) = (.sender, asked)
        }
        let start = octets.beginFrame(verb, channel)
        octets.appendField(path.octets)
        if case .owner(_, let uid) = self { octets.appendField(number: uid) }
        if case .sender(_, let user) = self { octets.appendField(user) }
        if case .resolve(_, let meaning) = self, meaning != .address { octets.appendField(meaning.octets) }
        octets.endFrame(start)
    }
}

/// An answer, or a part of one.
package enum AskAnswer: Equatable, Sendable {
    /// Ours, and exists; or he may.
    case local
    /// Not ours; or he may not.
    case remote
    /// Ours, and does not exist.
    case unknown(EnhancedStatus, text: [UInt8])
    /// Cannot be told now.
    case later(text: [UInt8])
    /// One of the places where it goes; more answers follow.
    case target(ForwardPath, Route)
    /// One step of the way there: its kind, what is looked at, what was found, and the setting or line that says so.
    case step(kind: [UInt8], subject: [UInt8], text: [UInt8], place: [UInt8])
    /// That were all targets.
    case resolved(count: Int)

    package init(_ frame: Frame) throws(FrameFault) {
        switch frame.verb {
        case .local:
            try frame.expectFields(0)
            self = .local
        case .remote:
            try frame.expectFields(0)
            self = .remote
        case .unknown:
            try frame.expectFields(2)
            self = .unknown(try frame.value(EnhancedStatus(octets: frame[0])), text: Array(frame[1]))
        case .later:
            try frame.expectFields(1)
            self = .later(text: Array(frame[0]))
        case .target:
            try frame.expectFields(2)
            self = .target(
                try frame.value(ForwardPath(octets: frame[0], alphabet: .unicodeLocalPart)),
                try frame.value(Route(octets: frame[1])))
        case .step:
            try frame.expectFields(4)
            self = .step(
                kind: Array(frame[0]), subject: Array(frame[1]), text: Array(frame[2]), place: Array(frame[3]))
        case .resolved:
            try frame.expectFields(1)
            self = .resolved(count: Int(try frame.number(0, limit: UInt64(UInt32.max))))
        default:
            throw FrameFault(.outOfPlace, frame.verb)
        }
    }

    package func append(to octets: inout [UInt8], channel: UInt32) {
        switch self {
        case .local: octets.appendFrame(.local, channel)
        case .remote: octets.appendFrame(.remote, channel)
        case .unknown(let status, let text): octets.appendFrame(.unknown, channel, [status.octets, Self.line(text)])
        case .later(let text): octets.appendFrame(.later, channel, [Self.line(text)])
        case .target(let path, let route): octets.appendFrame(.target, channel, [path.octets, route.octets])
        case .step(let kind, let subject, let text, let place):
            octets.appendFrame(
                .step, channel, [Self.line(kind), Self.line(subject), Self.line(text), Self.line(place)])
        case .resolved(let count):
            let start = octets.beginFrame(.resolved, channel)
            octets.appendField(number: count)
            octets.endFrame(start)
        }
    }

    private static func line(_ text: [UInt8]) -> [UInt8] { Array(text.prefix(DeliveryOutcome.textOctetCountMax)) }
}
