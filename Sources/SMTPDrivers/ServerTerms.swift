// SPDX-License-Identifier: Apache-2.0

package import NIOCore
package import SMTPCore

/// What a session is held to: its rules, and how long things may take. A session keeps those it began with.
package final class ServerTerms: Sendable {
    package let rules: ServerRules
    /// How long a client may be silent between commands (RFC 5321 §4.5.3.2.7 asks for five minutes).
    package let commandTimeout: TimeAmount
    /// How long a client may be silent within the content, likewise.
    package let dataTimeout: TimeAmount
    /// How long we wait for our own programs before the client is told to come again.
    package let answerTimeout: TimeAmount
    /// How long the greeting is held back to see who speaks before it; zero for not at all.
    package let greetingDelay: TimeAmount

    /// How long a TLS handshake may take, all of it.
    package let handshakeTimeout: TimeAmount

    package init(
        rules: ServerRules, commandTimeout: TimeAmount, dataTimeout: TimeAmount, answerTimeout: TimeAmount,
        greetingDelay: TimeAmount, handshakeTimeout: TimeAmount
    ) {
        self.rules = rules
        self.commandTimeout = commandTimeout
        self.dataTimeout = dataTimeout
        self.answerTimeout = answerTimeout
        self.greetingDelay = greetingDelay
        self.handshakeTimeout = handshakeTimeout
    }

    /// The same times for sessions with other rules.
    package func with(_ rules: ServerRules, greetingDelay: TimeAmount? = nil) -> ServerTerms {
        ServerTerms(
            rules: rules, commandTimeout: self.commandTimeout, dataTimeout: self.dataTimeout,
            answerTimeout: self.answerTimeout, greetingDelay: greetingDelay ?? self.greetingDelay,
            handshakeTimeout: self.handshakeTimeout)
    }
}
