// SPDX-License-Identifier: Apache-2.0

import MailTypes
import PipeCore
import Unix

/// One delivery as the switch sees it.
struct SwitchJob {
    enum Phase: Equatable {
        case envelope
        /// Complete, without a worker.
        case waiting
        /// With the pid of the worker that has it.
        case assigned(Int32)
        /// `done` was sent; with the worker that waits to hear that it is noted, if there is one.
        case ended(Int32?)
    }

    /// As whom it is delivered.
    let user: [UInt8]
    /// What to tell if `user`, whom the settings name and not the recipient, is nobody as whom mail can be delivered.
    let wrongUser: DeliveryOutcome?
    let octetCount: UInt64
    /// The frames of the envelope, until a worker has them.
    var envelope: [UInt8] = []
    /// Numbers of the recipients who have no outcome.
    var recipients: Set<UInt32> = []
    /// In whose name the mail of recipients goes on, and to how many addresses in all.
    var senders: [UInt32: Sender] = [:]
    var forwardCount = 0
    /// Octets that the worker wants and has not been sent.
    var wantedCount = 0
    var phase = Phase.envelope

    /// What must be the same for all addresses that a recipient's mail goes on to.
    struct Sender: Equatable {
        let reversePath: ReversePath
        let isVERP: Bool
    }

    init(_ delivery: Delivery, user: [UInt8]) {
        self.user = user
        self.wrongUser =
            switch delivery.route {
            case .mailbox: Self.wrongOwner
            case .alias: Self.wrongAliasUser
            case .local, .remote, .bounce: nil
            }
        self.octetCount = delivery.octetCount
    }

    private static let wrongOwner = LocalFate.outcome(
        .deferred, EnhancedStatus(.transient, 3, 5),
        "the owner of virtual users' mailboxes is nobody as whom mail can be written")

    private static let wrongAliasUser = LocalFate.outcome(
        .deferred, EnhancedStatus(.transient, 3, 5),
        "local.alias-user is nobody as whom mail can be delivered")
}

/// A worker as the switch sees it.
struct SwitchWorker {
    let pid: Int32
    let user: [UInt8]
    var pipe: PolledPipe
    /// Becomes readable when the process has ended.
    let watch: Descriptor
    var hasHello = false
    /// Deliveries that it has, up to their `noted`.
    var channels: Set<UInt32> = []
    /// When it last said something, or since when it owes a word or has nothing to do.
    var lastWord: Duration
    /// Since when its pipes are closed, or it was killed.
    private(set) var leavingSince: Duration?
    private(set) var isKilled = false
    /// There are newer settings than its own: it gets nothing more to do.
    var isOutdated = false
    /// It was killed, and does not end.
    var isStuck = false

    var isLeaving: Bool { self.leavingSince != nil }

    /// Closes its pipes: it ends by itself.
    mutating func leave(_ now: Duration) {
        self.pipe.close()
        self.leavingSince = now
    }

    mutating func wasKilled(_ now: Duration) {
        self.isKilled = true
        self.leavingSince = now
    }

    /// Why no worker can be had.
    struct Fault: Error {
        let outcome: DeliveryOutcome
    }

    /// Starts a worker as that user; what to tell the recipients if that cannot be.
    static func start(
        user: [UInt8], settings: LocalDelivererProgram.Settings
    ) -> Result<SwitchWorker, Fault> {
        let name = String(decoding: user, as: UTF8.self)
        do throws(SystemError) {
            guard let account = try UserAccount.named(name) else {
                // Why: the postmaster's mail is always taken (RFC 5321 §4.5.1); it waits until somebody is named.
                guard !user.equalsIgnoringCase(Array("postmaster".utf8)) else {
                    return .failure(
                        Fault(
                            .deferred, EnhancedStatus(.transient, 3, 5),
                            "nobody reads the postmaster's mail: an alias or the setting postmaster must say who"))
                }
                return .failure(Fault(.failed, EnhancedStatus(.permanent, 1, 1), "no such user here"))
            }
            guard account.uid != 0 else {
                return .failure(
                    Fault(.failed, EnhancedStatus(.permanent, 7, 1), "mail is never delivered as the superuser"))
            }
            return .success(try SwitchWorker(account, user: user, settings: settings))
        } catch {
            var line = LogLine("worker-not-started")
            line.add("user", user)
            line.add("reason", error.text)
            line.write()
            return .failure(
                Fault(.deferred, EnhancedStatus(.transient, 3, 0), "the mailbox cannot be written now"))
        }
    }

    private init(
        _ account: UserAccount, user: [UInt8], settings: LocalDelivererProgram.Settings
    ) throws(SystemError) {
        let (input, ours) = try Descriptor.pipe()
        defer { input.close() }
        let answers: (reading: Descriptor, writing: Descriptor)
        do throws(SystemError) { answers = try Descriptor.pipe() } catch {
            ours.close()
            throw error
        }
        defer { answers.writing.close() }
        var spawn = Spawn(
            path: ThisProcess.executablePath,
            arguments: LocalWorker.arguments(
                user: String(decoding: user, as: UTF8.self), home: account.home, settings: settings))
        spawn.environment = [
            "HOME=\(account.home)", "USER=\(account.name)", "LOGNAME=\(account.name)", "PATH=/usr/bin:/bin",
            "SWIFT_BACKTRACE=enable=no",
        ]
        spawn.directory = "/"
        spawn.descriptors = [input, answers.writing, .error]
        spawn.account = account
        spawn.umask = 0o077
        do throws(SystemError) {
            self.pipe = try PolledPipe(input: answers.reading, output: ours)
            self.pid = try spawn.start()
        } catch {
            ours.close()
            answers.reading.close()
            throw error
        }
        self.user = user
        self.lastWord = ThisProcess.uptime
        do throws(SystemError) {
            self.watch = try ChildProcess.watch(self.pid)
        } catch {
            ChildProcess.kill(self.pid)
            _ = ChildProcess.end(of: self.pid, isWaiting: true)
            self.pipe.close()
            throw error
        }
        self.pipe.send { Hello(.deliver, program: "apus-local", capacity: UInt32(LocalAgent.capacity)).append(to: &$0) }
    }
}

extension SwitchWorker.Fault {
    fileprivate init(_ kind: DeliveryOutcome.Kind, _ status: EnhancedStatus, _ text: String) {
        self.outcome = LocalFate.outcome(kind, status, text)
    }
}
