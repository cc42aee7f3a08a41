// SPDX-License-Identifier: Apache-2.0
//
// AUTH in a session (RFC 4954): what may be said when. Whether the credentials are right is somebody else's word.

import MailTypes

extension ServerSession {
    mutating func authenticate(_ name: [UInt8], _ response: InitialResponse) -> Action {
        guard !self.authentication.mechanisms.isEmpty else { return self.refuse(.authenticateUnknown) }
        if self.isAuthenticated { return self.refuse(.authenticatedAlready) }
        switch self.phase {
        case .fresh: return self.refuse(.helloFirst)
        case .collecting: return self.refuse(.authenticateInMail)
        // HELO announces nothing.
        case .idle where !self.isExtended: return self.refuse(.helloFirst)
        case .idle: break
        case .askingSender, .askingRecipient, .verifying, .askingCredentials, .expectingResponse, .receivingContent,
            .committing, .securing, .closed:
            preconditionFailure("A command was fed while none can be taken.")
        }
        guard self.tls != .required || self.isSecured else { return self.refuse(.encryptionNeeded) }
        guard let mechanism = SASLMechanism(octets: name) else { return self.refuse(.mechanismUnknown) }
        if let fault = self.authentication.fault(of: mechanism, isSecured: self.isSecured) { return self.refuse(fault) }
        guard let initialResponse = response.decoded() else { return self.refuse(.notBase64) }
        self.phase = .askingCredentials
        return .authenticate(mechanism, initialResponse: initialResponse)
    }

    mutating func takeResponse(_ line: [UInt8], isFollowed: Bool) -> Action {
        // What follows would have been sent without knowing whether the client is let in.
        if isFollowed { return self.close(.spokenTooSoon) }
        if line == [0x2A] { return self.giveUpCredentials(.authenticationCancelled) }
        guard let response = Base64.decode(line), response.count <= SASLLimits.messageOctetCountMax else {
            return self.giveUpCredentials(.notBase64)
        }
        self.phase = .askingCredentials
        return .respond(response)
    }

    mutating func giveUpCredentials(_ reply: Reply) -> Action {
        self.phase = .idle
        switch self.refuse(reply) {
        case .reply(let reply): return .giveUpCredentialsThenReply(reply)
        case let action: return action
        }
    }
}
