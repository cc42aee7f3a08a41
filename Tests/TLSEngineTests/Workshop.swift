// SPDX-License-Identifier: Apache-2.0
//
// Certificates for the tests, made by the openssl command.

import Foundation
import TLSEngine
import Testing

/// An authority of our own with some certificates, made once for all tests.
struct Workshop: Sendable {
    static let shared = try? Workshop()

    let folder: URL

    /// The file of that name.
    func path(_ name: String) -> String { self.folder.appending(path: name).path() }

    func octets(_ name: String) throws -> [UInt8] { Array(try Data(contentsOf: self.folder.appending(path: name))) }

    func credential(_ name: String) throws -> TLSCredential {
        try TLSCredential(chain: self.octets("\(name).pem"), key: self.octets("\(name).key"))
    }

    private init() throws {
        self.folder = FileManager.default.temporaryDirectory.appending(path: "apus-tls-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: self.folder, withIntermediateDirectories: true)
        try self.openssl(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -subj /CN=Authority -keyout ca.key -out ca.pem"
        )
        try self.issue("ec", "ec -pkeyopt ec_paramgen_curve:P-256", "DNS:mx.example.org,DNS:*.example.net")
        try self.issue("rsa", "rsa:2048", "DNS:mx.example.org")
        try self.issue("other", "ec -pkeyopt ec_paramgen_curve:P-256", "DNS:other.example")
        try self.issue("weak", "rsa:1024", "DNS:weak.example")
        try self.issue("old", "ec -pkeyopt ec_paramgen_curve:P-256", "DNS:old.example", days: "-1")
        try self.openssl("ec -in ec.key -aes128 -passout pass:secret -out locked.key")
    }

    private func issue(_ name: String, _ key: String, _ names: String, days: String = "365") throws {
        try self.openssl("req -newkey \(key) -nodes -subj /CN=\(name) -keyout \(name).key -out \(name).csr")
        try "subjectAltName=\(names)\n".write(
            to: self.folder.appending(path: "names"), atomically: true, encoding: .utf8)
        try self.openssl(
            "x509 -req -in \(name).csr -CA ca.pem -CAkey ca.key -CAcreateserial -days \(days) -extfile names -out \(name).crt"
        )
        try (self.octets("\(name).crt") + self.octets("ca.pem")).withUnsafeBytes {
            try Data($0).write(to: self.folder.appending(path: "\(name).pem"))
        }
    }

    private func openssl(_ words: String) throws {
        let process = Process()
        process.executableURL = URL(filePath: "/usr/bin/openssl")
        process.arguments = words.components(separatedBy: " ")
        process.currentDirectoryURL = self.folder
        process.standardError = FileHandle.nullDevice
        process.standardOutput = FileHandle.nullDevice
        try process.run()
        process.waitUntilExit()
        guard process.terminationStatus == 0 else { throw Failure(text: words) }
    }

    struct Failure: Error { let text: String }
}

/// A client and a server with the wires between them in the test's hands.
final class Pair {
    let client: TLSEngine
    let server: TLSEngine
    var heardByClient: [UInt8] = []
    var heardByServer: [UInt8] = []
    /// What is on its way.
    var toServer: [UInt8] = []
    var toClient: [UInt8] = []

    init(_ client: TLSEngine, _ server: TLSEngine) {
        self.client = client
        self.server = server
    }

    /// Carries everything to and fro, in pieces of at most so many octets, until nobody has anything to say.
    func run(pieces: Int = .max) throws {
        repeat {
            self.collect()
            while !self.toServer.isEmpty {
                let piece = Array(self.toServer.prefix(pieces))
                self.toServer.removeFirst(piece.count)
                try self.server.feed(piece) { self.heardByServer += $0 }
            }
            self.collect()
            while !self.toClient.isEmpty {
                let piece = Array(self.toClient.prefix(pieces))
                self.toClient.removeFirst(piece.count)
                try self.client.feed(piece) { self.heardByClient += $0 }
            }
            self.collect()
        } while !self.toServer.isEmpty || !self.toClient.isEmpty
    }

    func collect() {
        self.client.takeOutput { self.toServer += $0 }
        self.server.takeOutput { self.toClient += $0 }
    }
}

extension TLSEngine {
    func feed(_ octets: [UInt8], _ heard: ([UInt8]) -> Void) throws(TLSError) {
        // Why copied: typed throws do not pass through withUnsafeBytes of this toolchain without a detour.
        let room = UnsafeMutableRawBufferPointer.allocate(byteCount: octets.count, alignment: 1)
        defer { room.deallocate() }
        room.copyBytes(from: octets)
        try self.receive(UnsafeRawBufferPointer(room)) { heard(Array($0)) }
    }

    func say(_ octets: [UInt8]) throws(TLSError) {
        let room = UnsafeMutableRawBufferPointer.allocate(byteCount: octets.count, alignment: 1)
        defer { room.deallocate() }
        room.copyBytes(from: octets)
        try self.send(UnsafeRawBufferPointer(room))
    }
}
