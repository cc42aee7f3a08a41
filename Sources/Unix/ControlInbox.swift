// SPDX-License-Identifier: Apache-2.0

import Glibc
import Synchronization

/// Control events for a program that waits with `Poll` in a thread of its own.
///
/// `descriptor` becomes readable when events have come.
package final class ControlInbox: Sendable {
    package let descriptor: Descriptor
    private let bell: Descriptor
    private let events = Mutex<[ControlEvent]>([])

    package init() throws(SystemError) {
        let ends = try Descriptor.pipe()
        self.descriptor = ends.reading
        self.bell = ends.writing
        try ends.reading.setNonBlocking(true)
        try ends.writing.setNonBlocking(true)
    }

    /// What has come since the last time.
    package func take() -> [ControlEvent] {
        // The octets carry nothing; a bell that was rung twice is answered once.
        while let octets = try? self.descriptor.read(upTo: 64), octets.count == 64 {}
        return self.events.withLock { events in
            defer { events = [] }
            return events
        }
    }

    package func put(_ event: ControlEvent) {
        self.events.withLock { $0.append(event) }
        // A pipe that is full has rung enough.
        try? self.bell.write([1])
    }
}

extension Program {
    /// Runs `work` in a thread of its own; the main thread listens to apusd and puts its events into the inbox.
    ///
    /// `work` says `ready` when it serves and ends the process itself.
    package consuming func runThread(_ work: @escaping @Sendable (Program, ControlInbox) -> Never) -> Never {
        guard let inbox = try? ControlInbox() else { ExitStatus.system.exit() }
        let program = self
        guard WorkThread.start({ work(program, inbox) }) else { ExitStatus.system.exit() }
        self.run { inbox.put($0) }
    }
}

/// A detached thread.
private enum WorkThread {
    private final class Body {
        let run: @Sendable () -> Void
        init(_ run: @escaping @Sendable () -> Void) { self.run = run }
    }

    /// False if the system has no thread for us.
    static func start(_ run: @escaping @Sendable () -> Void) -> Bool {
        // Safety: the new thread takes over the one reference made here; if there is none, it is released below.
        let body = Unmanaged.passRetained(Body(run))
        var thread = pthread_t()
        let code = pthread_create(
            &thread, nil,
            { argument in
                if let argument { Unmanaged<Body>.fromOpaque(argument).takeRetainedValue().run() }
                return nil
            }, body.toOpaque())
        guard code == 0 else {
            body.release()
            return false
        }
        pthread_detach(thread)
        return true
    }
}
