// SPDX-License-Identifier: Apache-2.0

import Glibc
import Unix

/// The body of a message until all of it is there: in memory, and what is beyond that in a file without a name.
///
/// A program that writes a line now and then, such as a job of cron's whose output is mailed while it runs, would otherwise be
/// taken for a client that is silent, and its mail be refused in the middle.
struct KeptBody {
    private var octets: [UInt8] = []
    private var file: Descriptor?

    /// More goes into a file.
    private static let memoryOctetCountMax = 1 << 20
    private static let partOctetCount = 65_536

    /// Adds what was read next.
    mutating func append(_ part: [UInt8]) throws(SystemError) {
        if self.file == nil, self.octets.count + part.count > Self.memoryOctetCountMax {
            let file = try Self.openFile()
            self.file = file
            try file.write(self.octets)
            self.octets = []
        }
        if let file = self.file { try file.write(part) } else { self.octets += part }
    }

    /// Hands over everything, part by part.
    func forEachPart<Fault: Error>(
        _ take: ([UInt8]) throws(Fault) -> Void, failure: (SystemError) -> Fault
    ) throws(Fault) {
        guard let file = self.file else { return try take(self.octets) }
        do throws(SystemError) { try file.seek(to: 0) } catch { throw failure(error) }
        while true {
            let part: [UInt8]
            do throws(SystemError) { part = try file.read(upTo: Self.partOctetCount) } catch { throw failure(error) }
            guard !part.isEmpty else { return }
            try take(part)
        }
    }

    /// Where the caller wants temporary files, else where they may be large.
    private static func openFile() throws(SystemError) -> Descriptor {
        let wished = getenv("TMPDIR").map { String(cString: $0) }
        var fault = SystemError("open", code: ENOENT)
        for directory in [wished, "/var/tmp", "/tmp"].compactMap(\.self) where directory.hasPrefix("/") {
            do throws(SystemError) { return try Descriptor.temporaryFile(in: directory) } catch { fault = error }
        }
        throw fault
    }
}
