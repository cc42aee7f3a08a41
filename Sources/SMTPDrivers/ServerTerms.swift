// SPDX-License-Identifier: Apache-2.0

package import NIOCore
package import SMTPCore
package import TLSEngine

/// What a connection has to do with TLS.
package enum ServerEncryption {
    case none
    case offered(TLSServerContext)
    case required(TLSServerContext)
    case implicit(TLSServerContext)

    var kind: ServerTLS {
        switch self {
        case .none: .none
        case .offered: .offered
        case .required: .required
        case .implicit: .implicit
        }
    }

    var context: TLSServerContext? {
        switch self {
        case .none: nil
        case .offered(let context), .required(let context), .implicit(let context): context
        }
    }
}

/// What a session is held to: its rules, and how long things may take. A session keeps those it began with.
package final class ServerTerms: Sendable {
    package let rules: ServerRules
    /// How long a client may be silent between commands (RFC 5321 §4.5.3.2.7 asks for five minutes).
    package let commandTimeout: TimeAmount
    /// How long a client may be silent within the content, likewise.
    package let dataTimeout: TimeAmount
    /// Octets of content in a second, on an average over `dataTimeout`; zero: any number.
    package let contentRateMin: Int
    /// So many octets behind are too many.
    let contentDebtMax: Int
    /// How long we wait for our own programs before the client is told to come again.
    package let answerTimeout: TimeAmount
    /// How long the greeting is held back to see who speaks before it; zero for not at all.
    package let greetingDelay: TimeAmount

    /// How long a TLS handshake may take, all of it.
    package let handshakeTimeout: TimeAmount

    package init(
        rules: ServerRules, commandTimeout: TimeAmount, dataTimeout: TimeAmount, contentRateMin: Int,
        answerTimeout: TimeAmount, greetingDelay: TimeAmount, handshakeTimeout: TimeAmount
    ) {
        self.rules = rules
        self.commandTimeout = commandTimeout
        self.dataTimeout = dataTimeout
        self.contentRateMin = contentRateMin
        self.contentDebtMax = contentRateMin * Int(dataTimeout.nanoseconds / 1_000_000_000)
        self.answerTimeout = answerTimeout
        self.greetingDelay = greetingDelay
        self.handshakeTimeout = handshakeTimeout
    }

    /// The same times for sessions with other rules.
    package func with(_ rules: ServerRules, greetingDelay: TimeAmount? = nil) -> ServerTerms {
        ServerTerms(
            rules: rules, commandTimeout: self.commandTimeout, dataTimeout: self.dataTimeout,
            contentRateMin: self.contentRateMin, answerTimeout: self.answerTimeout,
            greetingDelay: greetingDelay ?? self.greetingDelay,
            handshakeTimeout: self.handshakeTimeout)
    }
}
