// SPDX-License-Identifier: Apache-2.0

import Foundation
import FuzzTargets
import Testing

/// The files of a folder beside the fuzzer.
private func files(_ folder: String, _ target: FuzzTarget) -> [URL] {
    let root = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
        .deletingLastPathComponent()
    let base = root.appending(path: "Fuzz/\(folder)/\(target.rawValue)")
    let found = try? FileManager.default.contentsOfDirectory(at: base, includingPropertiesForKeys: nil)
    return (found ?? []).sorted { $0.path() < $1.path() }
}

@Suite struct ReplayTests {
    @Test("what the fuzzer once found is not found again", arguments: FuzzTarget.allCases)
    func findings(_ target: FuzzTarget) throws {
        for file in files("Findings", target) {
            #expect(target.fault(Array(try Data(contentsOf: file))) == nil, "\(file.lastPathComponent)")
        }
    }

    @Test("every target holds for its seeds, at every length of them", arguments: FuzzTarget.allCases)
    func seeds(_ target: FuzzTarget) throws {
        let seeds = files("Seeds", target)
        #expect(!seeds.isEmpty)
        for file in seeds {
            let octets = Array(try Data(contentsOf: file))
            for count in 0...octets.count {
                #expect(target.fault(Array(octets.prefix(count))) == nil, "\(file.lastPathComponent), \(count) octets")
            }
        }
    }
}
