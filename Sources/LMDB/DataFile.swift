// SPDX-License-Identifier: Apache-2.0

import CLMDB
import Glibc

/// The data file of an environment, opened once more, to find out why a write to it has failed.
///
/// A disk that becomes full in the middle of a write makes it short, and LMDB calls that EIO, as it calls a disk that is
/// broken.
final class DataFile: Sendable {
    private let descriptor: Int32

    /// A file system that has so little left is full. It is more than what a short write leaves of its last page, and less
    /// than any file system has on which a write should have found room.
    private static let leastOctetCount = 262_144
    /// FALLOC_FL_KEEP_SIZE: the file does not become longer by it.
    private static let keepSize: Int32 = 1

    init(directory: String) throws(LMDBError) {
        self.descriptor = open(directory + "/data.mdb", O_RDWR | O_CLOEXEC)
        guard self.descriptor >= 0 else { throw LMDBError("open", errno) }
    }

    deinit { close(self.descriptor) }

    /// Whether the file system has no room for more of this file, and has lost nothing of it.
    ///
    /// Why the sync: an error of the disk is told to every descriptor that was open when it happened, whoever else has heard
    /// of it. What was to be written is given up with its transaction; this confirms no commit.
    var isOutOfRoom: Bool { !self.takesMore && fdatasync(self.descriptor) == 0 }

    private var takesMore: Bool {
        var attributes = stat()
        guard fstat(self.descriptor, &attributes) == 0 else { return true }
        var code: Int32 = 0
        repeat {
            let answer = fallocate64(
                self.descriptor, Self.keepSize, attributes.st_size, off_t(Self.leastOctetCount))
            code = answer == 0 ? 0 : errno
        } while code == EINTR
        switch code {
        case ENOSPC, EDQUOT: return false
        case EOPNOTSUPP, ENOSYS:
            var room = statvfs()
            guard fstatvfs(self.descriptor, &room) == 0 else { return true }
            return UInt64(room.f_bavail) * UInt64(room.f_frsize) >= UInt64(Self.leastOctetCount)
        default: return true
        }
    }
}
