// SPDX-License-Identifier: Apache-2.0

import Glibc

/// How our programs end (the numbers of sysexits.h).
package enum ExitStatus: CInt, Sendable {
    case ok = 0
    /// A wrong command line.
    case usage = 64
    /// What was given as input is wrong.
    case badInput = 65
    /// The recipient's mailbox, or its host, is not known.
    case noUser = 67
    case noHost = 68
    /// Something that is needed is not there: apusd is not running.
    case unavailable = 69
    /// A fault of our own, or a broken link: the supervisor starts the program anew.
    case software = 70
    /// The operating system refused something.
    case system = 71
    /// Reading or writing failed (EX_IOERR).
    case inputError = 74
    /// Try again later.
    case temporary = 75
    case noPermission = 77
    /// Wrong settings: starting again does not help.
    case configuration = 78

    /// Ends the process, after the log has been written.
    package func exit() -> Never {
        Log.flush()
        Glibc.exit(self.rawValue)
    }
}
