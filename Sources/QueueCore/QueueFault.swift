// SPDX-License-Identifier: Apache-2.0
//
// What a check of the queue can find (Documentation/queue.md §7).

package import MailTypes

/// Something on the disk that is not as Documentation/queue.md says.
package struct QueueFault: Hashable, Sendable {
    /// The rule that does not hold.
    package enum Kind: String, Hashable, Sendable, CaseIterable {
        case messageUnreadable = "message-unreadable"
        case messageWithoutRecipients = "message-without-recipients"
        case contentIncomplete = "content-incomplete"
        case recipientUnreadable = "recipient-unreadable"
        case recipientWithoutMessage = "recipient-without-message"
        case dueMissing = "due-missing"
        case dueStray = "due-stray"
        case dueDestination = "due-destination"
        case contentStray = "content-stray"
        case contentUnreadable = "content-unreadable"
        case unfinishedStray = "unfinished-stray"
        case lastIDBehind = "last-id-behind"
        case destinationUnreadable = "destination-unreadable"

        /// Whether putting it right can lose no mail: the rest is for a person.
        package var isRepairable: Bool {
            switch self {
            case .dueMissing, .dueStray, .dueDestination, .contentStray, .unfinishedStray, .lastIDBehind,
                .destinationUnreadable:
                true
            case .messageUnreadable, .messageWithoutRecipients, .contentIncomplete, .recipientUnreadable,
                .recipientWithoutMessage, .contentUnreadable:
                false
            }
        }
    }

    package let kind: Kind
    /// In the database that the kind is about.
    package let key: [UInt8]
    /// Nil if none can be told.
    package let message: MessageID?
    package let number: UInt32?
    /// More about it, in words.
    package let text: String

    package init(_ kind: Kind, key: [UInt8], message: MessageID? = nil, number: UInt32? = nil, _ text: String) {
        self.kind = kind
        self.key = key
        self.message = message
        self.number = number
        self.text = text
    }
}

/// How far a check has come: it goes through the databases one after the other, in the order of keys.
package struct CheckPlace: Hashable, Sendable {
    package enum Database: Int, Hashable, Sendable, CaseIterable {
        case message, recipient, due, content, destination, main
    }

    package var database = Database.message
    /// The last key that was looked at.
    package var after: [UInt8]?

    package init() {}

    /// The beginning of the next database; nil behind the last.
    package var nextDatabase: CheckPlace? {
        Database(rawValue: self.database.rawValue + 1).map { database in
            var place = CheckPlace()
            place.database = database
            return place
        }
    }
}

/// What one slice of a check has found, all of it in one state of the queue.
package struct CheckSlice: Hashable, Sendable {
    package var faults: [QueueFault] = []
    /// Records that were looked at: of content, messages that have some.
    package var count = 0
    /// Where the next slice begins; nil: all has been looked at.
    package var next: CheckPlace?

    package init() {}
}
