// SPDX-License-Identifier: Apache-2.0
//
// The queue on disk: five LMDB databases that change only together, in synced transactions.

import LMDB
import MailTypes
package import QueueCore

/// The queue in an LMDB environment (Documentation/queue.md).
///
/// One thread commits; another may read meanwhile.
package final class LMDBQueueStore: QueueStore, Sendable {
    let environment: Environment
    let messages: Database
    let contents: Database
    let recipients: Database
    let dues: Database
    let suspensions: Database
    let main: Database
    private let marker: MarkerFile

    /// Content is cut into values that fill whole pages: an overflow page has a header of 16 octets. Chunks of one page
    /// are never short of adjoining free pages, however the file has been used.
    package let contentChunkOctetCount: Int

    private static let formatText = Array("apus queue, format 3, LMDB 0.9\n".utf8)
    /// A queue of this format is taken over as it is: its records are read, and written anew when they change.
    private static let formatTextBefore = Array("apus queue, format 2, LMDB 0.9\n".utf8)

    /// Why a queue cannot be opened.
    package struct OpenFault: Error, Hashable, Sendable {
        package let text: String
        /// Another process has it open; trying again later may help.
        package let isInUse: Bool
    }

    /// Opens or creates the queue in an existing directory that belongs to us alone.
    ///
    /// - Parameters:
    ///   - sizeMax: octets that the file may grow to by new mail.
    ///   - sizeReserve: octets beyond that which are kept for noting what becomes of queued mail.
    ///   - sizeStart: the first size of the map; for tests of its growth.
    package init(
        directory: String, sizeMax: Int, sizeReserve: Int, sizeStart: Int = 64 << 20
    ) throws(OpenFault) {
        do throws(MarkerFile.Fault) {
            self.marker = try MarkerFile(
                path: directory + "/format", text: Self.formatText, before: Self.formatTextBefore)
        } catch {
            switch error {
            case .inUse: throw OpenFault(text: "\(directory): another process has this queue open", isInUse: true)
            case .differs(let found):
                throw OpenFault(
                    text: "\(directory)/format says \"\(found.printableText)\": not a queue of this version",
                    isInUse: false)
            case .failed(let operation, let code):
                throw OpenFault(
                    text: "\(directory)/format: \(LMDBError(operation, code).text)", isInUse: false)
            }
        }
        do throws(LMDBError) {
            self.environment = try Environment(
                directory: directory, databaseCountMax: 8, sizeStart: sizeStart, sizeMax: sizeMax,
                sizeReserve: sizeReserve)
            self.messages = try self.environment.database("message")
            self.contents = try self.environment.database("content")
            self.recipients = try self.environment.database("recipient")
            self.dues = try self.environment.database("due")
            self.suspensions = try self.environment.database("destination")
            self.main = try self.environment.mainDatabase()
        } catch {
            throw OpenFault(text: "\(directory): \(error.text)", isInUse: false)
        }
        do throws(MarkerFile.Fault) { try syncDirectory(directory) } catch {
            throw OpenFault(text: "\(directory): cannot be synced", isInUse: false)
        }
        self.contentChunkOctetCount = self.environment.pageOctetCount - 16
    }

    /// How much more the queue can hold: what the file system takes, and what the file has that is not in use, up to its
    /// largest size with the reserve. The file never shrinks, so a queue that was full once lives on what is not in use. Nil
    /// if the file system does not say.
    package func roomOctetCount() throws(StoreFault) -> UInt64? {
        guard let free = self.environment.diskFreeOctetCount else { return nil }
        do throws(LMDBError) {
            let unused = try self.environment.unusedOctetCount(self.databases)
            let growth = self.environment.sizeLimit.subtractingReportingOverflow(self.environment.fileOctetCount)
            return (growth.overflow ? 0 : min(free, growth.partialValue)).addingReportingOverflow(unused).partialValue
        } catch { throw Self.fault(error) }
    }

    private var databases: [Database] {
        [self.messages, self.contents, self.recipients, self.dues, self.suspensions, self.main]
    }

    /// Throws if new mail would take pages that are kept for the rest: outcomes must always find some, or the queue could
    /// not get emptier.
    private func spareReserve(_ operations: [StoreOperation]) throws(StoreFault) {
        guard self.environment.isInReserve else { return }
        var neededCount = UInt64(2 * self.environment.pageOctetCount * operations.count)
        for operation in operations where operation.isNewMail { neededCount += UInt64(operation.contentOctetCount) }
        let unusedCount: UInt64
        do throws(LMDBError) {
            unusedCount = try self.environment.unusedOctetCount(self.databases)
        } catch { throw Self.fault(error) }
        let usedCount = self.environment.fileOctetCount - min(unusedCount, self.environment.fileOctetCount)
        guard usedCount + neededCount <= UInt64(self.environment.sizeMax) else {
            throw .full("the queue is as large as size-max allows")
        }
    }

    /// The size of the data file in octets.
    package var fileOctetCount: UInt64 { self.environment.fileOctetCount }

    package func commit(_ operations: [StoreOperation]) throws(StoreFault) -> CommitReport {
        // Mail that is already the queue's duty may use the reserve.
        let isEssential = !operations.contains { $0.isNewMail }
        if !isEssential { try self.spareReserve(operations) }
        // A page that is looked at brings its neighbours with it.
        self.environment.noteTouched(65_536)
        do throws(LMDBError) {
            return try self.environment.write(isEssential: isEssential) { transaction throws(LMDBError) in
                var writer = Writer(self)
                let cursor = try transaction.cursor(self.recipients)
                let contentCursor = try transaction.cursor(self.contents)
                for operation in operations {
                    try writer.apply(operation, transaction, cursor, contentCursor)
                }
                try writer.finish(transaction)
                return writer.report
            }
        } catch {
            throw Self.fault(error)
        }
    }

    static func fault(_ error: LMDBError) -> StoreFault { error.isFull ? .full(error.text) : .broken(error.text) }

    /// Runs a read transaction, with errors in the store's words.
    func read<Result>(_ body: (borrowing ReadTransaction) throws(LMDBError) -> Result) throws(StoreFault) -> Result {
        do throws(LMDBError) { return try self.environment.read(body) } catch { throw Self.fault(error) }
    }
}
