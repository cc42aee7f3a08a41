// SPDX-License-Identifier: Apache-2.0

import NIOCore
import NIOPosix

/// Threads for what takes long: hashes, which are slow on purpose, and programs that are waited for.
///
/// As many wait as can be done in a few seconds; above that the answer is not now, which costs whoever tries passwords
/// more than it costs us.
final class Workers {
    private let eventLoop: any EventLoop
    private let pool: NIOThreadPool
    private var pendingCount = 0

    static let threadCount = 4
    static let pendingCountMax = 200

    init(eventLoop: any EventLoop) {
        self.eventLoop = eventLoop
        self.pool = NIOThreadPool(numberOfThreads: Self.threadCount)
        self.pool.start()
    }

    /// Does something elsewhere and tells the result here.
    func run(
        _ work: @escaping @Sendable () -> PasswordVerdict, _ done: @escaping (PasswordVerdict) -> Void
    ) {
        guard self.pendingCount < Self.pendingCountMax else {
            return done(.later("too many passwords to be checked at once"))
        }
        self.pendingCount += 1
        self.pool.runIfActive(eventLoop: self.eventLoop, work).assumeIsolated().whenComplete { result in
            self.pendingCount -= 1
            switch result {
            case .success(let verdict): done(verdict)
            case .failure(let error): done(.later("\(error)"))
            }
        }
    }

    /// What has begun is finished.
    func close() { self.pool.shutdownGracefully { _ in } }
}
