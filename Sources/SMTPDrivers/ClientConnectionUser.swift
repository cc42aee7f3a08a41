// SPDX-License-Identifier: Apache-2.0
//
// What a connection to a server is given, and who uses it.

package import SMTPCore
package import TLSEngine

/// How long each answer of a server is waited for (RFC 5321 §4.5.3.2).
package struct ClientTimeLimits: Hashable, Sendable {
    package var connection: Duration
    package var greeting: Duration
    package var hello: Duration
    package var mail: Duration
    package var recipient: Duration
    package var data: Duration
    /// For the server to take what was written of the content.
    package var content: Duration
    package var finalReply: Duration
    /// How long a connection is kept for a next message.
    package var idle: Duration
    package var quit: Duration

    package init(
        connection: Duration, greeting: Duration, hello: Duration, mail: Duration, recipient: Duration, data: Duration,
        content: Duration, finalReply: Duration, idle: Duration, quit: Duration
    ) {
        self.connection = connection
        self.greeting = greeting
        self.hello = hello
        self.mail = mail
        self.recipient = recipient
        self.data = data
        self.content = content
        self.finalReply = finalReply
        self.idle = idle
        self.quit = quit
    }

    subscript(stage: ClientSession.Stage) -> Duration {
        switch stage {
        case .connection: self.connection
        case .greeting: self.greeting
        // Each is an answer to what opens a session.
        case .hello, .startTLS, .handshake, .authentication: self.hello
        case .mail: self.mail
        case .recipient: self.recipient
        case .data: self.data
        case .content: self.content
        case .finalReply: self.finalReply
        case .idle: self.idle
        case .quit, .closed: self.quit
        }
    }
}

/// Who uses a connection. Everything is called on its event loop.
package protocol ClientConnectionUser: AnyObject {
    /// The server knows us: `begin` may be called.
    func connectionBecameReady(_ connection: ClientConnection)
    /// We are to say who we are, with a mechanism of the server's: call `prove`.
    func connectionWantsProof(_ connection: ClientConnection)
    /// The server has answered with a challenge: call `prove`.
    func connectionWasChallenged(_ connection: ClientConnection, _ challenge: [UInt8])
    /// Octets of the content are wanted: hand exactly these to `provide`, in any number of parts. One wish at a time.
    func connectionWantsContent(_ connection: ClientConnection, offset: UInt64, octetCount: Int)
    /// The transaction is over, or none will begin. If `isReady` is false, no other can.
    func connectionConcluded(_ connection: ClientConnection, _ conclusion: ClientSession.Conclusion)
    /// The connection is gone. Called exactly once, after everything else.
    func connectionClosed(_ connection: ClientConnection)
}

/// What a connection has to do with TLS.
package struct ClientEncryption {
    package var kind: ClientSession.Encryption
    package var context: TLSClientContext
    /// Told to the server, so that it shows the right certificate.
    package var serverName: String?
    /// With a strict context, the certificate must be for one of these, or for the address if there is none.
    package var names: [String]
    package var address: String
    /// Of an earlier connection.
    package var session: TLSSession?
    /// Called with a session for a later connection.
    package var keepSession: (TLSSession) -> Void

    package init(
        kind: ClientSession.Encryption, context: TLSClientContext, serverName: String?, names: [String],
        address: String,
        session: TLSSession?, keepSession: @escaping (TLSSession) -> Void
    ) {
        self.kind = kind
        self.context = context
        self.serverName = serverName
        self.names = names
        self.address = address
        self.session = session
        self.keepSession = keepSession
    }
}
