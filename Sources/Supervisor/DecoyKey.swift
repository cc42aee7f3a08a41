// SPDX-License-Identifier: Apache-2.0

import Glibc
import Settings
import Unix

/// What apus-vault makes the salts of users from who do not exist. It lasts: with a new one at each start those salts alone would
/// change, and so tell who exists. Whoever has it can tell that too, and nothing else.
enum DecoyKey {
    /// Its file.
    static func path(in directory: String) -> String { "\(directory)/decoy-key" }

    /// The key of this state directory, made when there is none; nil, which is told in the log, if that cannot be done: then
    /// apus-vault makes one for itself.
    static func find(in directory: String) -> String? {
        let path = Self.path(in: directory)
        do throws(SystemError) {
            if let key = try Self.read(path) { return key }
            return try Self.make(path)
        } catch {
            var line = LogLine("secret-unread")
            line.add("file", path)
            line.add("reason", error.text)
            line.write()
            return nil
        }
    }

    /// Nil if there is none, or one that was not written to its end.
    private static func read(_ path: String) throws(SystemError) -> String? {
        do throws(SystemError) {
            return Settings.secret(try Descriptor.readFile(path, octetCountMax: Settings.secretFileOctetCountMax))
        } catch {
            guard error.code == ENOENT else { throw error }
            return nil
        }
    }

    /// Makes one, for our own user alone.
    private static func make(_ path: String) throws(SystemError) -> String {
        var random = SystemRandomNumberGenerator()
        let digits = Array("0123456789abcdef".utf8)
        let key = (0..<64).map { _ in digits[Int(random.next(upperBound: UInt(16)))] }
        let file = try Descriptor.open(path, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW, mode: 0o600)
        defer { file.close() }
        try file.write(key + [0x0A])
        return String(decoding: key, as: UTF8.self)
    }
}
