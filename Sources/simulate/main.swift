// SPDX-License-Identifier: Apache-2.0

import Glibc
import Simulation

guard let command = SimulationCommand(Array(CommandLine.arguments.dropFirst())) else {
    report(SimulationCommand.usage, to: STDERR_FILENO)
    exit(64)
}
let clock = ContinuousClock()
let begin = clock.now
// Seeds of a million worlds are side by side, and each call has others.
let result = command.run(start: UInt64.random(in: 0..<1_000_000_000) * 1_000_000) { seconds in
    clock.now - begin >= .seconds(seconds)
}
report(result.text, to: STDOUT_FILENO)
exit(result.isFinding ? 1 : 0)

private func report(_ text: String, to descriptor: Int32) {
    let octets = Array(text.utf8)
    _ = octets.withUnsafeBytes { write(descriptor, $0.baseAddress, $0.count) }
}
