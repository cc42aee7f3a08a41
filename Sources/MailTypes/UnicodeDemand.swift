// SPDX-License-Identifier: Apache-2.0

/// What a message has to do with SMTPUTF8 (RFC 6531), as it travels from the client to the next server.
///
/// An address beyond ASCII needs that extension whatever is said here. A header beyond ASCII needs it only if the sender
/// has asked for it: programs that know nothing of it have put other octets into headers ever since, and every server
/// passes them on.
package enum UnicodeDemand: UInt8, Hashable, Sendable, CaseIterable {
    /// The sender has not asked for it.
    case none = 0
    /// He has, and the header is ASCII.
    case asked = 1
    /// He has, and the header is not ASCII.
    case inHeader = 2

    private static let askedWord = Array("smtputf8".utf8)
    private static let headerWord = Array("smtputf8-header".utf8)

    /// Reads what `octets` writes.
    package init?(octets: some Collection<UInt8>) {
        if octets.isEmpty {
            self = .none
        } else if octets.elementsEqual(Self.askedWord) {
            self = .asked
        } else if octets.elementsEqual(Self.headerWord) {
            self = .inHeader
        } else {
            return nil
        }
    }

    /// A word for frames and exports; empty if nothing was asked.
    package var octets: [UInt8] {
        switch self {
        case .none: []
        case .asked: Self.askedWord
        case .inHeader: Self.headerWord
        }
    }

    /// The same, once it is known whether the header is ASCII.
    package func with(unicodeHeader isUnicode: Bool) -> UnicodeDemand {
        self != .none && isUnicode ? .inHeader : self
    }
}
