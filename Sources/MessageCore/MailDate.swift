// SPDX-License-Identifier: Apache-2.0

package import MailTypes

/// An instant as header fields and reports write it (RFC 5322 §3.3): `Mon, 23 Nov 2026 15:03:51 +0000`.
///
/// Always in UTC: a mail server's dates are compared across hosts, and a core knows no time zone.
package struct MailDate: Hashable, Sendable {
    package let timestamp: Timestamp

    package init(_ timestamp: Timestamp) { self.timestamp = timestamp }

    /// The date as octets, 31 of them until the year 9999.
    package var octets: [UInt8] {
        var octets: [UInt8] = []
        octets.reserveCapacity(32)
        self.append(to: &octets)
        return octets
    }

    private static let weekdays: [UInt8] = Array("ThuFriSatSunMonTueWed".utf8)
    private static let months: [UInt8] = Array("JanFebMarAprMayJunJulAugSepOctNovDec".utf8)

    /// Appends what `octets` is.
    package func append(to octets: inout [UInt8]) {
        let seconds = self.timestamp.seconds
        let days = Int(seconds / 86_400)
        let secondOfDay = Int(seconds % 86_400)
        let (year, month, day) = Self.civil(days: days)

        // The first of January 1970 was a Thursday.
        Self.append(word: days % 7, of: Self.weekdays, to: &octets)
        octets.append(0x2C)
        octets.append(ASCII.space)
        Self.append(twoDigits: day, to: &octets)
        octets.append(ASCII.space)
        Self.append(word: month - 1, of: Self.months, to: &octets)
        octets.append(ASCII.space)
        octets.append(decimal: year)
        octets.append(ASCII.space)
        Self.append(clock: secondOfDay, to: &octets)
        for octet in Self.zone { octets.append(octet) }
    }

    /// As asctime(3) writes it, without the end of the line: `Mon Nov 23 15:03:51 2026`. Always 24 octets until 9999.
    package var asctime: [UInt8] {
        let seconds = self.timestamp.seconds
        let days = Int(seconds / 86_400)
        let secondOfDay = Int(seconds % 86_400)
        let (year, month, day) = Self.civil(days: days)
        var octets: [UInt8] = []
        Self.append(word: days % 7, of: Self.weekdays, to: &octets)
        octets.append(ASCII.space)
        Self.append(word: month - 1, of: Self.months, to: &octets)
        octets.append(ASCII.space)
        if day < 10 { octets.append(ASCII.space) }
        octets.append(decimal: day)
        octets.append(ASCII.space)
        Self.append(clock: secondOfDay, to: &octets)
        octets.append(ASCII.space)
        octets.append(decimal: year)
        return octets
    }

    private static func append(clock secondOfDay: Int, to octets: inout [UInt8]) {
        Self.append(twoDigits: secondOfDay / 3_600, to: &octets)
        octets.append(ASCII.colon)
        Self.append(twoDigits: secondOfDay / 60 % 60, to: &octets)
        octets.append(ASCII.colon)
        Self.append(twoDigits: secondOfDay % 60, to: &octets)
    }

    private static let zone: [UInt8] = Array(" +0000".utf8)

    private static func append(word place: Int, of words: [UInt8], to octets: inout [UInt8]) {
        for offset in 0..<3 { octets.append(words[3 * place + offset]) }
    }

    private static func append(twoDigits value: Int, to octets: inout [UInt8]) {
        octets.append(0x30 + UInt8(value / 10))
        octets.append(0x30 + UInt8(value % 10))
    }

    /// The Gregorian date of a day since 1970, by counting in years that begin in March, so that the
    /// leap day is the last of its year, and in eras of 400 years, which are all of the same length.
    private static func civil(days: Int) -> (year: Int, month: Int, day: Int) {
        let shifted = days + 719_468
        let era = shifted / 146_097
        let dayOfEra = shifted % 146_097
        let yearOfEra = (dayOfEra - dayOfEra / 1_460 + dayOfEra / 36_524 - dayOfEra / 146_096) / 365
        let dayOfYear = dayOfEra - (365 * yearOfEra + yearOfEra / 4 - yearOfEra / 100)
        let marchMonth = (5 * dayOfYear + 2) / 153
        let day = dayOfYear - (153 * marchMonth + 2) / 5 + 1
        let month = marchMonth < 10 ? marchMonth + 3 : marchMonth - 9
        let year = yearOfEra + era * 400 + (month <= 2 ? 1 : 0)
        return (year, month, day)
    }
}
