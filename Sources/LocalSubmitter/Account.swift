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
