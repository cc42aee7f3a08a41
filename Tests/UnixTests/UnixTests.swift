// SPDX-License-Identifier: Apache-2.0

import Glibc
import MailTypes
import PipeCore
import Testing
import Unix

@Suite struct LogTests {
    @Test("nothing in a value can break a log line, forge a key or hide")
    func escaping() {
        var line = LogLine("queued")
        line.add("plain", "a@b.org")
        line.add("empty", "")
        line.add("blank", "a b")
        line.add("break", "x\r\n2026 apus forged=1")
        line.add("quote", "a\"b\\c")
        line.add("octet", [0xC3, 0xA4, 0x00, 0x7F] as [UInt8])
        line.add(path: "to", Array("u@h".utf8))
        line.add("n", -3)
        line.add("delay", Duration.milliseconds(1_234))
        #expect(
            line.text
                == #"queued plain=a@b.org empty="" blank="a b" break="x\x0d\x0a2026 apus forged=1" quote="a\"b\\c" octet="\xc3\xa4\x00\x7f" to=<u@h> n=-3 delay=1.234"#
        )
    }
}

@Suite struct SpawnTests {
    @Test("a started process has only the descriptors, the environment and the directory it was given")
    func bareProcess() throws {
        let (reading, writing) = try Descriptor.pipe()
        let (spare, other) = try Descriptor.pipe()
        defer { spare.close(); other.close() }
        var spawn = Spawn(
            path: "/bin/sh",
            arguments: [
                "sh", "-c", "ls /proc/self/fd | tr '\\n' ' '; env | grep -v ^_= | sort | tr '\\n' ' '; pwd; umask",
            ])
        spawn.environment = ["A=b"]
        spawn.directory = "/"
        spawn.descriptors = [nil, writing, .error]
        let pid = try spawn.start()
        writing.close()
        let output = try reading.readAll(octetCountMax: 10_000)
        var status: CInt = 0
        #expect(waitpid(pid, &status, 0) == pid && status == 0)
        // 3 is the directory that ls has open; PWD is the shell's own.
        #expect(String(decoding: output, as: UTF8.self) == "0 1 2 3 A=b PWD=/ /\n0077\n")
        reading.close()
    }

    @Test("a file that cannot be executed is told at once")
    func noFile() {
        #expect(throws: SystemError("start", "/nonexistent/program", code: ENOENT)) {
            try Spawn(path: "/nonexistent/program", arguments: ["program"]).start()
        }
    }
}

@Suite struct ControlSocketTests {
    @Test("descriptors arrive with the frames they belong to")
    func descriptors() throws {
        let (left, right) = try Descriptor.socketPair()
        let (reading, writing) = try Descriptor.pipe()
        let sender = ControlSocket(left)
        var receiver = ControlSocket(right)
        var octets: [UInt8] = []
        octets.appendFrame(.link, 0, [Array("submit".utf8), Array("apus-smtpd".utf8)])
        try sender.send(octets, [reading, writing])
        octets = []
        octets.appendFrame(.start, 0)
        try sender.send(octets)
        left.close()
        var arrivals: [ControlSocket.Arrival] = []
        while try receiver.read() {
            while let arrival = try receiver.next() { arrivals.append(arrival) }
        }
        #expect(arrivals.map(\.frame.verb) == [.link, .start])
        #expect(arrivals[0].descriptors.count == 2 && arrivals[1].descriptors.isEmpty)
        try arrivals[0].descriptors[1].write([1, 2, 3])
        #expect(try reading.read(upTo: 10) == [1, 2, 3])
        for descriptor in arrivals[0].descriptors + [right, reading, writing] { descriptor.close() }
    }

    @Test("a frame that should bring descriptors and does not is a fault")
    func missingDescriptors() throws {
        let (left, right) = try Descriptor.socketPair()
        defer { left.close(); right.close() }
        var octets: [UInt8] = []
        octets.appendFrame(.listen, 0, [Array("mx".utf8), Array("127.0.0.1:25".utf8), Array("offer".utf8)])
        try ControlSocket(left).send(octets)
        var receiver = ControlSocket(right)
        #expect(try receiver.read())
        #expect(throws: FramePipe.Fault.self) { try receiver.next() }
    }
}

@Suite struct FramePipeTests {
    @Test("frames go through a pipe, and an input that ends inside a frame is cut, not ended")
    func pipe() throws {
        let (reading, writing) = try Descriptor.pipe()
        var octets: [UInt8] = []
        octets.appendFrame(.go, 5)
        octets.appendFrame(.done, 6)
        try writing.write(octets.dropLast(2))
        writing.close()
        var pipe = FramePipe(input: reading, output: .error)
        #expect(try pipe.receive()?.verb == .go)
        #expect(throws: FramePipe.Fault.self) { try pipe.receive() }
        reading.close()
    }
}
