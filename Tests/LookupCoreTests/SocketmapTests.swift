// SPDX-License-Identifier: Apache-2.0

import LookupCore
import MailTypes
import Testing

private func octets(_ text: String) -> [UInt8] { Array(text.utf8) }

@Suite("Tables of other programs")
struct SocketmapTests {
    @Test(
        "are named by a socket or a port of this machine, and a name",
        arguments: [
            "unix:/run/tables:users", "unix:/run/a:b:users", "inet:127.0.0.1:9999:users", "inet:[::1]:9999:users",
        ])
    func places(text: String) throws {
        let place = try #require(TablePlace("socketmap:\(text)"))
        #expect(place.text == "socketmap:\(text)")
        #expect(TablePlace(place.text) == place)
    }

    @Test(
        "have no other name",
        arguments: [
            "", "unix:/run/tables", "unix:/run/tables:", "unix:run/tables:users", "inet:127.0.0.1:users",
            "inet:127.0.0.1:0:users", "inet:127.0.0.1:65536:users", "inet:192.0.2.1:99:users",
            "inet:localhost:99:users",
            "inet::99:users", "unix:/run/tables:a b", "tcp:127.0.0.1:99:users",
            "unix:/\(String(repeating: "x", count: 107)):users",
        ])
    func noPlaces(text: String) { #expect(TablePlace("socketmap:\(text)") == nil) }

    @Test("are asked with a netstring of the name and the key")
    func request() throws {
        let place = try #require(SocketmapPlace("unix:/run/tables:users"))
        #expect(place.request(octets("joe@example.org")) == octets("21:users joe@example.org,"))
    }

    @Test(
        "answer that they have it, that they do not, or that they cannot tell",
        arguments: [
            ("OK joe@example.org", SocketmapReply.found(octets("joe@example.org"))), ("OK ", .found([])),
            ("OK", .found([])), ("OK  two words", .found(octets(" two words"))), ("NOTFOUND ", .absent),
            ("NOTFOUND", .absent),
            ("TEMP the database is away", .failed(octets("TEMP the database is away"))),
            ("TIMEOUT ", .failed(octets("TIMEOUT "))), ("PERM no such map", .failed(octets("PERM no such map"))),
        ])
    func replies(text: String, reply: SocketmapReply) { #expect(SocketmapReply(octets: octets(text)) == reply) }

    @Test("and nothing else is an answer", arguments: ["", " ", "ok x", "OKAY", "NOTFOUNDx", "500 x", "FOUND x"])
    func noReplies(text: String) { #expect(SocketmapReply(octets: octets(text)) == nil) }

    @Test("are heard whole, however what they say is cut")
    func cuts() throws {
        let stream = octets("0:,9:NOTFOUND ,12:OK a@b.test,,")
        let wanted = [[], octets("NOTFOUND "), octets("OK a@b.test,")]
        for first in 0...stream.count {
            for second in first...stream.count {
                var decoder = NetstringDecoder(octetCountMax: 100)
                var found: [[UInt8]] = []
                for part in [stream[..<first], stream[first..<second], stream[second...]] {
                    decoder.append(part)
                    while let octets = try decoder.next() { found.append(octets) }
                }
                #expect(found == wanted)
            }
        }
    }

    @Test(
        "are not heard on when they speak something else or too long",
        arguments: ["x", ":", "3abc", "3:abcd", "101:", "03:abc,", "9999999999", "-1:", "220 mx ESMTP\r\n"])
    func faults(text: String) {
        var decoder = NetstringDecoder(octetCountMax: 100)
        decoder.append(octets(text))
        #expect(throws: NetstringDecoder.Fault.self) { while try decoder.next() != nil {} }
    }
}
