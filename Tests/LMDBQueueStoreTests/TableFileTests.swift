// SPDX-License-Identifier: Apache-2.0

import Foundation
import LMDB
import Testing

private func octets(_ text: String) -> [UInt8] { Array(text.utf8) }

@Suite("A compiled table")
final class TableFileTests {
    private let path = NSTemporaryDirectory() + "apus-table-\(UUID().uuidString)"

    deinit { try? FileManager.default.removeItem(atPath: self.path) }

    @Test("has what was put into it, and nothing else", arguments: [0, 1, 1_000, 50_000])
    func roundTrip(count: Int) throws {
        var entries: [[UInt8]: [UInt8]] = [:]
        for number in 0..<count {
            let size = number % 97 == 0 ? 6_000 : number % 13
            entries[octets("user\(number)@example.org")] = [UInt8](repeating: UInt8(number % 251), count: size)
        }
        entries[[UInt8](repeating: 0x78, count: 511)] = octets("long")
        try TableFileWriter.write(entries, path: self.path)
        let table = try TableFile(path: self.path)
        #expect(table.count == entries.count)
        for (key, value) in entries { #expect(try table.value(of: key) == value) }
        for key in ["", "user", "user-1@example.org", "\u{0}", String(repeating: "x", count: 512)] {
            #expect(try table.value(of: octets(key)) == nil)
        }
        // What takes its place changes nothing for who has it open.
        try FileManager.default.removeItem(atPath: self.path)
        try TableFileWriter.write([octets("a"): octets("b")], path: self.path)
        #expect(table.count == entries.count)
        for (key, value) in entries.prefix(100) { #expect(try table.value(of: key) == value) }
        #expect(try TableFile(path: self.path).value(of: octets("a")) == octets("b"))
    }

    @Test("is not read where the file is something else, or cut short anywhere")
    func others() throws {
        #expect(throws: TableFile.Fault.self) { try TableFile(path: self.path) }
        for content in [[], octets("joe@example.org x\n"), [UInt8](repeating: 0x61, count: 100_000)] {
            try Data(content).write(to: URL(filePath: self.path))
            #expect(throws: TableFile.Fault.self) { try TableFile(path: self.path) }
        }
        try FileManager.default.removeItem(atPath: self.path)
        let entries = Dictionary(uniqueKeysWithValues: (0..<500).map { (octets("user\($0)@example.org"), octets("x")) })
        try TableFileWriter.write(entries, path: self.path)
        let whole = try Data(contentsOf: URL(filePath: self.path))
        for end in stride(from: 0, to: whole.count, by: 1_000) {
            try whole.prefix(end).write(to: URL(filePath: self.path))
            #expect(throws: TableFile.Fault.self) { try TableFile(path: self.path) }
        }
        try whole.write(to: URL(filePath: self.path))
        #expect(try TableFile(path: self.path).count == 500)
    }

    @Test("is made by nobody but its writer")
    func queues() throws {
        let folder = self.path
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        _ = try Environment(
            directory: folder, databaseCountMax: 1, sizeStart: 1 << 20, sizeMax: 1 << 20, sizeReserve: 0)
        #expect(throws: TableFile.Fault.noTable) { try TableFile(path: folder + "/data.mdb") }
    }
}
