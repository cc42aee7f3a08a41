// SPDX-License-Identifier: Apache-2.0

import Glibc
import MailTypes
import MessageCore
import SMTPCore
import Unix

/// What the local apus-smtpd has said of itself.
struct LocalServer {
    let hasEightBitMIME: Bool
    /// RFC 6531.
    let hasUnicode: Bool
    /// RFC 3461.
    private(set) var hasDSN = false
    private(set) var hasVERP = false
    /// What addresses without a domain are completed with: `XORIGIN example.org`; its name if it says nothing.
    private(set) var origin: [UInt8]

    init(_ hello: PeerReply) {
        let capabilities = Capabilities(hello)
        self.hasEightBitMIME = capabilities.hasEightBitMIME
        self.hasUnicode = capabilities.hasUnicode
        let lines = hello.text.split(separator: ASCII.lineFeed, omittingEmptySubsequences: false)
        self.origin = lines.first.map { Array($0.prefix { $0 != ASCII.space }) } ?? []
        for line in lines.dropFirst() {
            let words = line.split(separator: ASCII.space)
            if words.first?.equalsIgnoringCase(Array("DSN".utf8)) == true { self.hasDSN = true }
            if words.first?.equalsIgnoringCase(Array("XVERP".utf8)) == true { self.hasVERP = true }
            guard words.count == 2, words[0].equalsIgnoringCase(Array("XORIGIN".utf8)) else { continue }
            self.origin = Array(words[1])
        }
    }
}

/// Who calls.
struct Account {
    let origin: [UInt8]
    private let name: [UInt8]
    /// Of the password database.
    private let fullName: [UInt8]

    init(origin: [UInt8]) {
        self.origin = origin
        let uid = getuid()
        let entry = getpwuid(uid)
        self.name = entry?.pointee.pw_name.map { Array(String(cString: $0).utf8) } ?? Array("uid\(uid)".utf8)
        let gecos = entry?.pointee.pw_gecos.map { Array(String(cString: $0).utf8) } ?? []
        // The field has more in it, divided by commas; an ampersand stands for the login name.
        var fullName: [UInt8] = []
        for octet in gecos.prefix(while: { $0 != 0x2C }) {
            if octet == 0x26 { fullName += self.name } else { fullName.append(octet) }
        }
        self.fullName = fullName
    }

    var address: [UInt8] { self.qualified(self.name) }

    /// An address without a domain is one of here.
    func qualified(_ address: [UInt8]) -> [UInt8] {
        address.contains(ASCII.at) ? address : address + [ASCII.at] + self.origin
    }

    func author(_ sender: [UInt8], fullName: String?) -> OutgoingHeader.Author {
        let now = WallClock.now()
        var left: [UInt8] = []
        left.append(decimal: now.microseconds)
        left.append(ASCII.dot)
        left.append(decimal: UInt64(UInt32(bitPattern: getpid())))
        return OutgoingHeader.Author(
            address: sender.isEmpty ? self.address : sender, name: fullName.map { Array($0.utf8) } ?? self.fullName,
            date: now, messageID: (left, self.origin))
    }
}

/// `apus`, beside this program: shows and changes the queue. Who may is decided there.
enum OperatorCommand {
    static func become(_ words: [String]) -> Never {
        let directory = (try? ThisProcess.directoryOfExecutable()) ?? "/usr/bin"
        let path = "\(directory)/apus"
        var arguments: [UnsafeMutablePointer<CChar>?] = (["apus"] + words).map { strdup($0) }
        arguments.append(nil)
        execv(path, &arguments)
        try? Descriptor.error.write(Array("sendmail: \(SystemError("exec", path).text)\n".utf8))
        ExitStatus.unavailable.exit()
    }
}

/// `-bs`: standard input and output are the session.
enum Pump {
    static func run(_ path: String) -> Never {
        let socket: SubmissionSocket
        do throws(SubmissionSocket.Fault) {
            socket = try SubmissionSocket(path: path, isVerbose: false)
        } catch {
            // Whoever speaks SMTP to us is told in SMTP.
            try? Descriptor.output.write(Array("421 4.3.2 \(error.text)\r\n".utf8))
            error.status.exit()
        }
        var isInputOpen = true
        while true {
            var watched = [
                pollfd(fd: socket.descriptor.number, events: Int16(POLLIN), revents: 0),
                pollfd(fd: isInputOpen ? 0 : -1, events: Int16(POLLIN), revents: 0),
            ]
            guard poll(&watched, 2, -1) > 0 || errno == EINTR else { ExitStatus.system.exit() }
            do throws(SystemError) {
                if watched[0].revents != 0 {
                    let octets = try socket.descriptor.read(upTo: 65_536)
                    if octets.isEmpty { ExitStatus.ok.exit() }
                    try Descriptor.output.write(octets)
                }
                if watched[1].revents != 0 {
                    let octets = try Descriptor.input.read(upTo: 65_536)
                    if octets.isEmpty {
                        isInputOpen = false
                        shutdown(socket.descriptor.number, CInt(SHUT_WR))
                    } else {
                        try socket.descriptor.write(octets)
                    }
                }
            } catch { ExitStatus.temporary.exit() }
        }
    }
}
