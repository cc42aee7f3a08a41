// SPDX-License-Identifier: Apache-2.0

import Glibc

/// Where a file is mapped into this process, as the kernel tells.
///
/// The pages of a map that were looked at count as the process's memory until the kernel wants them back. Letting them
/// go costs little, for the file's cache keeps them, and makes the process's size independent of the file's.
struct MapPlace: Sendable {
    private let start: UInt
    private let octetCount: Int

    /// Looks the map of a file up; nil if there is none, more than one, or no /proc.
    init?(file: String) {
        var attributes = stat()
        guard stat(file, &attributes) == 0, let maps = Self.readMaps() else { return nil }
        var found: [(UInt, Int)] = []
        for line in maps.split(separator: 0x0A) {
            // start-end permissions offset device inode path
            let words = line.split(separator: 0x20, maxSplits: 5, omittingEmptySubsequences: true)
            guard words.count == 6, words[4].elementsEqual(String(attributes.st_ino).utf8),
                words[5].suffix(9).elementsEqual("/data.mdb".utf8), words[2].allSatisfy({ $0 == 0x30 })
            else { continue }
            let ends = words[0].split(separator: 0x2D)
            guard ends.count == 2, let start = UInt(String(decoding: ends[0], as: UTF8.self), radix: 16),
                let end = UInt(String(decoding: ends[1], as: UTF8.self), radix: 16), end > start
            else { continue }
            found.append((start, Int(end - start)))
        }
        guard found.count == 1 else { return nil }
        (self.start, self.octetCount) = found[0]
    }

    private static func readMaps() -> [UInt8]? {
        let descriptor = open("/proc/self/maps", O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { return nil }
        defer { close(descriptor) }
        var octets: [UInt8] = []
        var part = [UInt8](repeating: 0, count: 16_384)
        while octets.count < 4 << 20 {
            let count = read(descriptor, &part, part.count)
            guard count >= 0 else { return nil }
            if count == 0 { return octets }
            octets += part[..<count]
        }
        return nil
    }

    /// Lets go of the pages; they come back from the file's cache when they are looked at.
    func letGo() {
        // Safety: the range is a shared, read-only map of the data file, so that nothing in it can be lost; the place
        // is looked up anew whenever LMDB maps the file again, under the same lock as this call.
        _ = madvise(UnsafeMutableRawPointer(bitPattern: self.start), self.octetCount, MADV_DONTNEED)
    }
}
