// SPDX-License-Identifier: Apache-2.0
//
// The keys of the databases. Numbers are written with the most significant octet first, so that LMDB's order of octets
// is the order of numbers.

import MailTypes
import QueueCore

/// `message`: the id.
func messageKey(_ id: MessageID) -> InlineArray<8, UInt8> {
    var key = InlineArray<8, UInt8>(repeating: 0)
    for place in 0..<8 { key[place] = octet(id.rawValue, place) }
    return key
}

/// `recipient` and `content`: the id and a number.
func numberedKey(_ id: MessageID, _ number: UInt32) -> InlineArray<12, UInt8> {
    var key = InlineArray<12, UInt8>(repeating: 0)
    for place in 0..<8 { key[place] = octet(id.rawValue, place) }
    for place in 0..<4 { key[8 + place] = octet(UInt64(number), 4 + place) }
    return key
}

/// `due`: the time, the id and the recipient's number.
func dueKey(_ key: DueKey) -> InlineArray<20, UInt8> {
    var octets = InlineArray<20, UInt8>(repeating: 0)
    for place in 0..<8 { octets[place] = octet(key.time.microseconds, place) }
    for place in 0..<8 { octets[8 + place] = octet(key.recipient.message.rawValue, place) }
    for place in 0..<4 { octets[16 + place] = octet(UInt64(key.recipient.number), 4 + place) }
    return octets
}

private func octet(_ number: UInt64, _ place: Int) -> UInt8 {
    UInt8(truncatingIfNeeded: number >> UInt64(8 * (7 - place)))
}

/// The id of a `message` key, or of the front of a `recipient` or `content` key.
func messageID(_ key: Span<UInt8>) -> MessageID? {
    guard key.count >= 8 else { return nil }
    return MessageID(rawValue: number(key, 0, 8))
}

func recipientKey(_ key: Span<UInt8>) -> RecipientKey? {
    guard key.count == 12 else { return nil }
    return RecipientKey(
        message: MessageID(rawValue: number(key, 0, 8)), number: UInt32(truncatingIfNeeded: number(key, 8, 4)))
}

func dueKey(_ key: Span<UInt8>) -> DueKey? {
    guard key.count == 20 else { return nil }
    return DueKey(
        time: Timestamp(microseconds: number(key, 0, 8)),
        recipient: RecipientKey(
            message: MessageID(rawValue: number(key, 8, 8)), number: UInt32(truncatingIfNeeded: number(key, 16, 4))))
}

/// `count` octets from `start` as a number; the caller has checked that they are there.
private func number(_ octets: Span<UInt8>, _ start: Int, _ count: Int) -> UInt64 {
    var value: UInt64 = 0
    for place in start..<(start + count) { value = value << 8 | UInt64(octets[place]) }
    return value
}

/// Keys of the unnamed database that are not names of databases.
enum MainKey {
    static let lastMessageID: [UInt8] = Array("last-id".utf8)
    /// Followed by the id of a message whose content is arriving.
    static let unfinished: [UInt8] = Array("unfinished".utf8)

    static func unfinished(_ id: MessageID) -> [UInt8] {
        let key = messageKey(id)
        var octets = Self.unfinished
        for place in 0..<8 { octets.append(key[place]) }
        return octets
    }
}
