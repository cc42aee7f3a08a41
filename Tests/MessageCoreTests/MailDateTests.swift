// SPDX-License-Identifier: Apache-2.0

import MailTypes
import MessageCore
import Testing

@Suite("MailDate")
struct MailDateTests {
    @Test(
        "writes a date of RFC 5322 in UTC",
        arguments: [
            (0, "Thu, 01 Jan 1970 00:00:00 +0000"),
            (1_795_446_231, "Mon, 23 Nov 2026 15:03:51 +0000"),
            (951_782_399, "Mon, 28 Feb 2000 23:59:59 +0000"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 +0000"),
            (951_868_800, "Wed, 01 Mar 2000 00:00:00 +0000"),
            (4_107_542_399, "Sun, 28 Feb 2100 23:59:59 +0000"),
            (4_107_542_400, "Mon, 01 Mar 2100 00:00:00 +0000"),
            (1_735_689_599, "Tue, 31 Dec 2024 23:59:59 +0000"),
            (253_402_300_799, "Fri, 31 Dec 9999 23:59:59 +0000"),
        ] as [(UInt64, String)])
    func dates(seconds: UInt64, text: String) {
        let date = MailDate(Timestamp(microseconds: seconds * 1_000_000 + 999_999))
        #expect(String(decoding: date.octets, as: UTF8.self) == text)
    }

    @Test("has a date for every instant that can be represented")
    func farFuture() {
        let octets = MailDate(Timestamp(microseconds: .max)).octets
        #expect(String(decoding: octets, as: UTF8.self).hasSuffix(" 586524 08:01:49 +0000"))
    }

    @Test("the days of four hundred years follow each other")
    func everyDay() {
        let lengths = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]
        let months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
        let weekdays = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"]
        var day = 0
        for year in 1970..<2370 {
            let isLeap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
            for month in 0..<12 {
                for dayOfMonth in 1...(month == 1 && isLeap ? 29 : lengths[month]) {
                    let number = dayOfMonth < 10 ? "0\(dayOfMonth)" : "\(dayOfMonth)"
                    let expected = "\(weekdays[day % 7]), \(number) \(months[month]) \(year) 00:00:00 +0000"
                    let octets = MailDate(Timestamp(microseconds: UInt64(day) * 86_400_000_000)).octets
                    if octets != Array(expected.utf8) {
                        Issue.record("day \(day): \(String(decoding: octets, as: UTF8.self)) is not \(expected)")
                        return
                    }
                    day += 1
                }
            }
        }
    }
}
