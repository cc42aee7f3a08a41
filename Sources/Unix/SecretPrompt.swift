// SPDX-License-Identifier: Apache-2.0

import CUnix
import Glibc
import MailTypes

/// Asks at the terminal for what is not to be seen there.
package enum SecretPrompt {
    /// Whether standard input is a terminal to ask at.
    package static var isPossible: Bool { isatty(STDIN_FILENO) == 1 }

    /// Longer lines are cut, as the terminal cuts them.
    private static let lineOctetCountMax = 4_096

    /// The lines that were typed, one for each question. The terminal shows again what is typed when this returns, and before
    /// a signal, such as that of Ctrl-C or Ctrl-Z, ends or stops the process. For a process with one thread.
    package static func answers(to questions: [String]) throws(SystemError) -> [[UInt8]] {
        var terminal = termios()
        guard tcgetattr(STDIN_FILENO, &terminal) == 0 else { throw SystemError("tcgetattr") }
        var silent = terminal
        silent.c_lflag &= ~tcflag_t(ECHO)
        // A signal is waited for beside the answer: whoever it ends cannot put the terminal right afterwards.
        var before = sigset_t()
        sigprocmask(SIG_BLOCK, nil, &before)
        let numbers = [SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP]
        let signals = Descriptor(try SystemError.check(apus_signal_descriptor(numbers, numbers.count), "signalfd"))
        tcsetattr(STDIN_FILENO, TCSAFLUSH, &silent)
        defer {
            tcsetattr(STDIN_FILENO, TCSAFLUSH, &terminal)
            signals.close()
            sigprocmask(SIG_SETMASK, &before, nil)
        }
        var answers: [[UInt8]] = []
        for question in questions {
            try? Descriptor.error.write(Array(question.utf8))
            defer { try? Descriptor.error.write([ASCII.lineFeed]) }
            while let number = try Self.signalBeforeAnswer(signals) {
                var waiting = sigset_t()
                tcsetattr(STDIN_FILENO, TCSAFLUSH, &terminal)
                sigprocmask(SIG_SETMASK, &before, &waiting)
                raise(number)
                // It was one that is ignored, or the process was stopped and goes on.
                sigprocmask(SIG_SETMASK, &waiting, nil)
                tcsetattr(STDIN_FILENO, TCSAFLUSH, &silent)
                try? Descriptor.error.write(Array(question.utf8))
            }
            // A terminal gives a line at a time.
            let line = try Descriptor.input.read(upTo: Self.lineOctetCountMax)
            answers.append(Array(line.prefix { $0 != ASCII.lineFeed }))
        }
        return answers
    }

    /// Waits; nil if an answer has come, or the signal that came first.
    private static func signalBeforeAnswer(_ signals: Descriptor) throws(SystemError) -> CInt? {
        var watched = [STDIN_FILENO, signals.number].map { pollfd(fd: $0, events: Int16(POLLIN), revents: 0) }
        while true {
            guard poll(&watched, nfds_t(watched.count), -1) >= 0 || errno == EINTR else { throw SystemError("poll") }
            if watched[1].revents != 0 {
                let number = apus_next_signal(signals.number)
                if number > 0 { return number }
            }
            if watched[0].revents != 0 { return nil }
        }
    }
}
