// SPDX-License-Identifier: Apache-2.0
//
// SCRAM-SHA-256 and SCRAM-SHA-256-PLUS (RFC 5802, RFC 7677). The password never comes over the wire, and what we keep
// of it is not enough to log in with.

private import MailTypes

/// The server's side.
package struct SCRAMServer: Sendable {
    private enum Phase: Equatable {
        /// → `finding`
        case fresh
        /// The keys of the user are looked for. → `proving`
        case finding
        /// The client has to prove that it knows the password. → `confirming`
        case proving
        /// It has, and has now to take note that we know it too. → the end
        case confirming
    }

    private let isBound: Bool
    private let facts: ConnectionFacts
    private let nonce: [UInt8]
    private var phase: Phase = .fresh
    private var user: [UInt8] = []
    /// What `c=` of the client's last message must stand for: the header, and the binding if there is one.
    private var binding: [UInt8] = []
    private var clientFirstBare: [UInt8] = []
    private var fullNonce: [UInt8] = []
    private var serverFirst: [UInt8] = []
    private var keys: SCRAMKeys?

    package init(isBound: Bool, facts: ConnectionFacts, nonce: [UInt8]) {
        self.isBound = isBound
        self.facts = facts
        self.nonce = nonce
    }

    package mutating func receive(
        _ event: ServerExchange.Event, _ cryptography: some SASLCryptography
    ) -> ServerExchange.Action {
        switch (self.phase, event) {
        case (.fresh, .begun(nil)): return .challenge([])
        case (.fresh, .begun(let message?)), (.fresh, .responded(let message)): return self.readFirst(message)
        case (.finding, .keysFound(let keys)): return self.offer(keys)
        case (.proving, .responded(let message)): return self.readFinal(message, cryptography)
        case (.confirming, .responded(let message)):
            return message.isEmpty ? .grant(user: self.user) : .deny(.malformed)
        case (.fresh, _), (.finding, _), (.proving, _), (.confirming, _): return .deny(.malformed)
        }
    }

    // MARK: client-first-message

    private mutating func readFirst(_ message: [UInt8]) -> ServerExchange.Action {
        let parts = message.split(separator: 0x2C, maxSplits: 2, omittingEmptySubsequences: false)
        guard parts.count == 3 else { return .deny(.malformed) }
        if let denial = self.readBindingFlag(parts[0]) { return .deny(denial) }
        let header = Array(message[..<parts[2].startIndex])
        self.binding = header + self.binding

        let attributes = parts[2].split(separator: 0x2C, omittingEmptySubsequences: false)
        // `m=`, an extension that must be understood, would stand first.
        guard attributes.count >= 2, let name = Self.value(of: "n", attributes[0]),
            let nonce = Self.value(of: "r", attributes[1]), (1...256).contains(nonce.count),
            nonce.allSatisfy({ (0x21...0x7E).contains($0) }), let decoded = Self.decodeName(name),
            let user = CredentialText.user(decoded)
        else { return .deny(.malformed) }
        if !parts[1].isEmpty {
            guard let other = Self.value(of: "a", parts[1]).flatMap(Self.decodeName) else { return .deny(.malformed) }
            guard CredentialText.user(other) == user else { return .deny(.authorization) }
        }
        self.user = user
        self.clientFirstBare = Array(parts[2])
        self.fullNonce = Array(nonce) + self.nonce
        self.phase = .finding
        return .findKeys(user: user)
    }

    /// RFC 5802 §6. A client that could bind and believes that we cannot (`y`) was lied to about what we offer.
    private mutating func readBindingFlag(_ flag: ArraySlice<UInt8>) -> Denial? {
        if flag.elementsEqual("n".utf8) { return self.isBound ? .malformed : nil }
        if flag.elementsEqual("y".utf8) { return self.isBound ? .malformed : self.facts.offersBinding ? .binding : nil }
        guard let kind = Self.value(of: "p", flag) else { return .malformed }
        guard self.isBound else { return .binding }
        if kind.elementsEqual("tls-exporter".utf8) {
            self.binding = self.facts.exporterBinding
        } else if kind.elementsEqual("tls-server-end-point".utf8) {
            self.binding = self.facts.endPointBinding
        }
        return self.binding.isEmpty ? .binding : nil
    }

    // MARK: server-first-message

    private mutating func offer(_ keys: SCRAMKeys) -> ServerExchange.Action {
        self.keys = keys
        var message: [UInt8] = []
        message.append(text: "r=")
        message += self.fullNonce
        message.append(text: ",s=")
        message += Base64.encode(keys.salt)
        message.append(text: ",i=")
        message.append(decimal: keys.iterationCount)
        self.serverFirst = message
        self.phase = .proving
        return .challenge(message)
    }

    // MARK: client-final-message

    private mutating func readFinal(
        _ message: [UInt8], _ cryptography: some SASLCryptography
    ) -> ServerExchange.Action {
        let attributes = message.split(separator: 0x2C, omittingEmptySubsequences: false)
        guard attributes.count >= 3, let keys = self.keys, let last = attributes.last,
            let binding = Self.value(of: "c", attributes[0]).flatMap({ Base64.decode($0) }),
            let nonce = Self.value(of: "r", attributes[1]),
            let proof = Self.value(of: "p", last).flatMap({ Base64.decode($0) }), proof.count == 32
        else { return .deny(.malformed) }
        guard cryptography.areEqual(binding, self.binding) else { return .deny(.binding) }
        guard cryptography.areEqual(Array(nonce), self.fullNonce) else { return .deny(.malformed) }
        let withoutProof = message[..<(last.startIndex - 1)]
        let comma: [UInt8] = [0x2C]
        let spoken = self.clientFirstBare + comma + self.serverFirst + comma + withoutProof
        let signature = cryptography.authenticationCode(key: keys.storedKey, spoken)
        let clientKey = zip(proof, signature).map { $0 ^ $1 }
        guard cryptography.areEqual(cryptography.digest(clientKey), keys.storedKey) else { return .deny(.credentials) }
        self.phase = .confirming
        let answer = Base64.encode(cryptography.authenticationCode(key: keys.serverKey, spoken))
        return .challenge(Array("v=".utf8) + answer)
    }

    // MARK: Grammar

    private static func value(of name: String, _ attribute: ArraySlice<UInt8>) -> ArraySlice<UInt8>? {
        attribute.starts(with: "\(name)=".utf8) ? attribute.dropFirst(2) : nil
    }

    /// `=2C` is a comma, `=3D` an equals sign, any other `=` a mistake.
    private static func decodeName(_ name: ArraySlice<UInt8>) -> [UInt8]? {
        var octets: [UInt8] = []
        var rest = name
        while let octet = rest.popFirst() {
            if octet != ASCII.equals {
                octets.append(octet)
            } else if rest.starts(with: "2C".utf8) {
                octets.append(0x2C)
                rest = rest.dropFirst(2)
            } else if rest.starts(with: "3D".utf8) {
                octets.append(ASCII.equals)
                rest = rest.dropFirst(2)
            } else {
                return nil
            }
        }
        return octets
    }
}
