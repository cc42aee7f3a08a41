// SPDX-License-Identifier: Apache-2.0

import CUnix
import Glibc
package import MailTypes

/// The wall clock, for header fields, message ids and the age of mail. Waiting uses the event loop's own clock.
package enum WallClock {
    /// When the machine was started.
    package static func boot() -> Timestamp {
        var time = timespec()
        clock_gettime(CLOCK_BOOTTIME, &time)
        return self.now().advanced(by: .zero - .seconds(time.tv_sec))
    }

    package static func now() -> Timestamp {
        var time = timespec()
        clock_gettime(CLOCK_REALTIME, &time)
        return Timestamp(microseconds: UInt64(max(time.tv_sec, 0)) * 1_000_000 + UInt64(time.tv_nsec / 1_000))
    }
}
