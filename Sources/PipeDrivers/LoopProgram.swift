// SPDX-License-Identifier: Apache-2.0

package import NIOCore
import NIOPosix
package import Unix

/// A program that lives on one event loop. Everything is called there.
package protocol LoopProgram: AnyObject {
    /// Serves the listeners and links that the program was started with. Called once.
    func begin()
    /// What apusd says later: new settings, links, listeners, a question of status, the wish to stop.
    ///
    /// After `.stop` the program finishes what is in flight and calls `ExitStatus.ok.exit()` itself.
    func handle(_ event: ControlEvent)
}

extension Program {
    /// Runs a program on one event loop in a thread of its own; the main thread listens to apusd.
    ///
    /// - Parameter make: makes the program's object, on the event loop.
    package consuming func run(_ make: @escaping @Sendable (Program, any EventLoop) -> any LoopProgram) -> Never {
        let eventLoop = MultiThreadedEventLoopGroup(numberOfThreads: 1).next()
        // Log lines of one turn go out in one write.
        Log.setDeferred { eventLoop.execute { Log.flush() } }
        let program = self
        let begun = eventLoop.submit {
            let object = make(program, eventLoop)
            object.begin()
            return NIOLoopBound(object, eventLoop: eventLoop)
        }
        guard let object = try? begun.wait() else { ExitStatus.software.exit() }
        self.ready()
        self.run { event in eventLoop.execute { object.value.handle(event) } }
    }
}
