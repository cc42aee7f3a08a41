// SPDX-License-Identifier: Apache-2.0

package import MailTypes

/// How a client of a session may prove who it is (RFC 4954): what is known, and what its connection allows of it.
package struct AuthenticationOffer: Hashable, Sendable {
    /// What those who hold the secrets can check. Empty: there is no AUTH here.
    package var mechanisms: [SASLMechanism]
    /// Whether a password may be shown without TLS: on this machine, if the settings say so.
    package var allowsClearText: Bool
    /// Whether the TLS connection can be bound to.
    package var hasBinding: Bool
    /// Whether the client has shown a certificate.
    package var hasCertificate: Bool

    package init(
        mechanisms: [SASLMechanism] = [], allowsClearText: Bool = false, hasBinding: Bool = false,
        hasCertificate: Bool = false
    ) {
        self.mechanisms = mechanisms
        self.allowsClearText = allowsClearText
        self.hasBinding = hasBinding
        self.hasCertificate = hasCertificate
    }

    /// What is announced.
    func offered(isSecured: Bool) -> [SASLMechanism] {
        self.mechanisms.filter { self.fault(of: $0, isSecured: isSecured) == nil }
    }

    /// Why a client cannot have a mechanism; nil if it can.
    func fault(of mechanism: SASLMechanism, isSecured: Bool) -> Reply? {
        guard self.mechanisms.contains(mechanism) else { return .mechanismUnknown }
        switch mechanism {
        case .plain, .login, .oauthBearer, .xoauth2:
            return isSecured || self.allowsClearText ? nil : .encryptionNeeded
        case .scramSHA256Plus: return isSecured && self.hasBinding ? nil : .mechanismUnknown
        case .external: return isSecured && self.hasCertificate ? nil : .mechanismUnknown
        case .scramSHA256: return nil
        }
    }
}

extension ServerSession {
    /// What stands behind AUTH: a response that comes with the command, if one does (RFC 4954 §4).
    package enum InitialResponse: Hashable, Sendable {
        case none
        /// In base64; `=` is the empty one.
        case base64([UInt8])

        /// nil if it is not base64.
        func decoded() -> [UInt8]?? {
            switch self {
            case .none: return .some(nil)
            case .base64(let text):
                if text == [ASCII.equals] { return [] }
                // A response of nothing is written `=`.
                guard !text.isEmpty, let octets = Base64.decode(text) else { return .none }
                return .some(octets)
            }
        }
    }
}

extension Reply {
    /// A challenge; RFC 2034 §4 gives no status for a 3yz reply. The reply holds any challenge: no line of base64 is
    /// cut, as those of text are.
    static func challenge(_ octets: [UInt8]) -> Reply { Reply(challenge: Base64.encode(octets)) }

    /// It is he.
    package static let authenticated = Reply(235, EnhancedStatus(.success, 7, 0), "Authentication successful")
    /// The client sent `*`.
    static let authenticationCancelled = Reply(501, EnhancedStatus(.permanent, 7, 0), "Authentication cancelled")
    static let notBase64 = Reply(501, EnhancedStatus(.permanent, 5, 2), "This is not base64")
    static let responseTooLong = Reply(
        500, EnhancedStatus(.permanent, 5, 6), "The authentication exchange line is too long")
    static let authenticateSyntax = Reply(
        501, EnhancedStatus(.permanent, 5, 4), "Syntax: AUTH mechanism [initial-response]")
    static let authenticateUnknown = Reply(502, EnhancedStatus(.permanent, 5, 1), "AUTH is not offered here")
    static let authenticatedAlready = Reply(503, EnhancedStatus(.permanent, 5, 1), "You are authenticated already")
    static let authenticateInMail = Reply(503, EnhancedStatus(.permanent, 5, 1), "Not within a mail")
    static let mechanismUnknown = Reply(504, EnhancedStatus(.permanent, 5, 4), "This mechanism is not offered here")
    /// To MAIL, where users have to say who they are.
    package static let authenticationRequired = Reply(530, EnhancedStatus(.permanent, 7, 0), "Authentication required")
    package static let authenticationFailed = Reply(
        535, EnhancedStatus(.permanent, 7, 8), "Authentication failed: wrong user name or password")
    static let encryptionNeeded = Reply(
        538, EnhancedStatus(.permanent, 7, 11), "Encryption is needed for this mechanism, say STARTTLS first")
    /// The credentials cannot be checked now; nothing is said about them.
    package static let authenticationUnavailable = Reply(
        454, EnhancedStatus(.transient, 7, 0), "Temporary authentication failure, try later")
    /// Too many failures: nothing was checked.
    package static let authenticationBlocked = Reply(
        454, EnhancedStatus(.transient, 7, 0), "Too many failed attempts to authenticate, try later")
    package static let authenticationFailedTooOften = Reply(
        421, EnhancedStatus(.transient, 7, 0), "Too many failed attempts to authenticate")
    /// To MAIL, from a user to whom the address does not belong.
    package static let senderNotOwned = Reply(
        553, EnhancedStatus(.permanent, 7, 1), "This sender address is not one of yours")
    /// RFC 5322 §3.6 has one From:; with two, mail programs and filters may see different ones.
    package static let fromTwice = Reply(
        550, EnhancedStatus(.permanent, 6, 0), "The message has more than one From: field")
    /// `submission.from`: the message says to be from somebody else.
    ///
    /// - Parameter field: `from` or `sender`.
    package static func authorNotOwned(field: String, _ address: MailAddress) -> Reply {
        var text = Self.shown(field)
        text.append(text: " may have your own addresses alone (submission.from), and has <")
        text.append(contentsOf: address.octets)
        text.append(text: ">")
        return Reply(550, EnhancedStatus(.permanent, 7, 1), lines: [text])
    }
    /// The same, where nobody can be sure whom it says to be from.
    package static func authorUnreadable(field: String) -> Reply {
        var text = Self.shown(field)
        text.append(text: " cannot be read as a list of addresses (RFC 5322 section 3.4)")
        return Reply(550, EnhancedStatus(.permanent, 6, 0), lines: [text])
    }
    private static func shown(_ field: String) -> [UInt8] {
        Array("\(field.prefix(1).uppercased())\(field.dropFirst()):".utf8)
    }
    package static func tooManyMessages(limit: Int) -> Reply {
        Reply(450, EnhancedStatus(.transient, 7, 1), "You may send \(limit) messages an hour, try later")
    }
    package static func tooManyHourlyRecipients(limit: Int) -> Reply {
        Reply(450, EnhancedStatus(.transient, 7, 1), "You may send to \(limit) recipients an hour, try later")
    }
}
