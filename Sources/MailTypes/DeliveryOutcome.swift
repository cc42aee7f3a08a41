// SPDX-License-Identifier: Apache-2.0

/// What became of one recipient in one delivery attempt. Not an error: the fate of mail is a value.
package struct DeliveryOutcome: Hashable, Sendable {
    /// The three ends of an attempt.
    package enum Kind: String, Hashable, Sendable, CaseIterable {
        /// In the mailbox, or the next host has answered 250 to it.
        case delivered
        /// Not now; the queue tries again.
        case deferred
        /// Never; the sender is told.
        case failed
    }

    package let kind: Kind
    /// Three digits, as an SMTP server would say it (RFC 5321 §4.2); 0 where no reply was given.
    package let code: UInt16
    /// RFC 3463. Its class agrees with `kind`.
    package let status: EnhancedStatus
    /// Who said so: a host with its address (`mx.example.org[192.0.2.1]`) or one of our programs.
    package let reporter: [UInt8]
    /// One line of printable text, never empty, at most `textOctetCountMax` octets.
    package let text: [UInt8]
    /// Whether the next server has taken over what the sender wishes about reports (RFC 3461 §5.2.1).
    package var hasPassedOnDSN = false
    /// Of a deferral: whether the host has answered about this recipient or message, so that nothing is to be made of it for
    /// other mail to the same destination.
    package var hasAnswered = false
    /// Whether the mail went on to other addresses (RFC 3461 §5.2.7). The queue's own mark: no agent can set it.
    package var forwarding = Forwarding.none

    /// To how many addresses mail goes on, of mail that takes the sender's wishes about reports along.
    package enum Forwarding: Hashable, Sendable {
        case none
        case one
        case several
    }

    /// Longer texts of remote servers are cut here.
    package static let textOctetCountMax = 500

    /// Makes an outcome whose text and reporter are safe in a log, a header field or a report:
    /// every octet outside printable ASCII becomes `?`, and an empty text is replaced by a plain word.
    ///
    /// A status whose class does not agree with `kind` is replaced by `X.0.0` of the right class.
    package init(
        _ kind: Kind, code: UInt16, status: EnhancedStatus, reporter: ArraySlice<UInt8>,
        text: ArraySlice<UInt8>
    ) {
        self.kind = kind
        self.code = code <= 599 ? code : 0
        let wanted: EnhancedStatus.Class =
            switch kind {
            case .delivered: .success
            case .deferred: .transient
            case .failed: .permanent
            }
        self.status = status.statusClass == wanted ? status : EnhancedStatus(wanted, 0, 0)
        self.reporter = Self.line(reporter, otherwise: "apus")
        self.text = Self.line(text, otherwise: kind.rawValue)
    }

    /// The same for whole arrays.
    package init(_ kind: Kind, code: UInt16, status: EnhancedStatus, reporter: [UInt8], text: [UInt8]) {
        self.init(kind, code: code, status: status, reporter: reporter[...], text: text[...])
    }

    /// The same with texts of ours.
    package init(_ kind: Kind, code: UInt16, status: EnhancedStatus, reporter: String, text: String) {
        self.init(kind, code: code, status: status, reporter: Array(reporter.utf8), text: Array(text.utf8))
    }

    private static func line(_ octets: ArraySlice<UInt8>, otherwise: String) -> [UInt8] {
        guard !octets.isEmpty else { return Array(otherwise.utf8) }
        return Array(printable: octets.prefix(Self.textOctetCountMax))
    }
}
