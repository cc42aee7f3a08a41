// SPDX-License-Identifier: Apache-2.0

import Foundation
import LMDBQueueStore
import QueueCore
import Simulation
import Testing

/// A directory that goes with the test.
final class Scratch {
    let path: String

    init() throws {
        self.path = NSTemporaryDirectory() + "apus-store-" + UUID().uuidString
        try FileManager.default.createDirectory(atPath: self.path, withIntermediateDirectories: true)
    }

    deinit { try? FileManager.default.removeItem(atPath: self.path) }
}

@Suite struct LMDBStoreConformanceTests {
    @Test("the store in LMDB keeps the rules of every store", arguments: StoreConformance.allCases)
    func conformance(_ rule: StoreConformance) throws {
        let scratch = try Scratch()
        let store = try LMDBQueueStore(directory: scratch.path, sizeMax: 1 << 30, sizeReserve: 1 << 24)
        let faults = try rule.faults(store)
        #expect(faults == [])
    }
}
