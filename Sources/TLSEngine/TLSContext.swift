// SPDX-License-Identifier: Apache-2.0
//
// What many connections share: certificates, policy, tickets. OpenSSL's objects are used by one thread, that of the
// event loop that made them.

import COpenSSL

/// What servers and clients have in common.
package class TLSContext {
    /// For octets that are decrypted and handed on at once: the largest record of TLS.
    let scratch = UnsafeMutableRawBufferPointer.allocate(byteCount: 16_384, alignment: 16)
    let method: OpaquePointer

    fileprivate init() throws(TLSError) {
        guard let method = apus_wire_method() else {
            self.scratch.deallocate()
            throw TLSError("out of memory")
        }
        self.method = method
    }

    deinit {
        self.scratch.deallocate()
        BIO_meth_free(self.method)
    }

    /// Of TLS 1.3. AES-128 comes first: nobody breaks it, and processors have instructions for its SHA-256 but not for the
    /// SHA-384 of AES-256, which is a tenth of a handshake.
    private static let suites = "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"
    /// Of TLS 1.2, with what those of TLS 1.3 all have: forward secrecy and authenticated encryption.
    fileprivate static let ciphers = "ECDHE+AESGCM+AES128:ECDHE+AESGCM:ECDHE+CHACHA20"
    /// For a server that would otherwise be spoken to in plain text: anything that still is encryption.
    fileprivate static let lenientCiphers =
        "ECDHE+AESGCM+AES128:ECDHE+AESGCM:ECDHE+CHACHA20:DHE+AESGCM:DHE+CHACHA20:ECDHE+AES:DHE+AES:RSA+AESGCM:RSA+AES:@SECLEVEL=1"
    private static let groups = "X25519:P-256:P-384:P-521"

    fileprivate static func make(
        _ method: OpaquePointer?, _ minimum: TLSVersion, ciphers: String
    ) throws(TLSError) -> OpaquePointer {
        ERR_clear_error()
        guard let context = SSL_CTX_new(method) else { throw TLSError.drained("TLS is not available") }
        apus_context_set_modes(context)
        guard apus_context_set_minimum(context, minimum.number) != 0,
            SSL_CTX_set_ciphersuites(context, Self.suites) == 1, SSL_CTX_set_cipher_list(context, ciphers) == 1,
            apus_context_set_groups(context, Self.groups) != 0
        else {
            SSL_CTX_free(context)
            throw TLSError.drained("the ciphers cannot be set")
        }
        return context
    }
}

/// The keys that session tickets are encrypted with. All processes that serve one name have the same ones.
package final class TLSTicketKeys {
    /// Octets of one key.
    package static let octetCount = Int(APUS_TICKET_KEY_SIZE)
    /// The newest makes tickets; these many open them.
    package static let countMax = Int(APUS_TICKET_KEY_COUNT)

    let keys: UnsafeMutablePointer<apus_ticket_keys>

    package init() {
        self.keys = .allocate(capacity: 1)
        self.keys.initialize(to: apus_ticket_keys())
    }

    deinit {
        OPENSSL_cleanse(self.keys, MemoryLayout<apus_ticket_keys>.size)
        self.keys.deallocate()
    }

    /// Puts others in their place, the newest first. What is no key is passed over; without any there are no tickets.
    package func replace(_ list: [[UInt8]]) {
        let good = list.filter { $0.count == Self.octetCount }.prefix(Self.countMax)
        OPENSSL_cleanse(self.keys, MemoryLayout<apus_ticket_keys>.size)
        self.keys.pointee.count = good.count
        withUnsafeMutableBytes(of: &self.keys.pointee.keys) { room in
            for (place, key) in good.enumerated() {
                for (index, octet) in key.enumerated() { room[place * Self.octetCount + index] = octet }
            }
        }
    }
}

/// A server's side: which certificate for which name, and who is asked for one.
package final class TLSServerContext: TLSContext {
    private let tickets: TLSTicketKeys
    private let set: ContextSet
    private let argument: UnsafeMutablePointer<Chooser>

    var main: OpaquePointer { self.set.main }

    /// As apus_context_choose takes it. The context is not retained: it holds this.
    private struct Chooser {
        var choose: @convention(c) (UnsafeMutableRawPointer?, UnsafePointer<CChar>?) -> OpaquePointer?
        var chooser: UnsafeMutableRawPointer?
    }

    /// - Parameters:
    ///   - credentials: at least one; the first is for clients that name no host, or one that no certificate has. Those of
    ///     another kind of key that are for a name of it stand beside it: clients choose.
    ///   - asksForCertificate: clients may show one, which `TLSSummary` then tells of.
    package init(
        _ credentials: [TLSCredential], minimum: TLSVersion, tickets: TLSTicketKeys, asksForCertificate: Bool
    ) throws(TLSError) {
        let set = try ContextSet(credentials) { context throws(TLSError) in
            try Self.prepare(context, tickets, asksForCertificate: asksForCertificate)
        } make: { () throws(TLSError) in
            try TLSContext.make(TLS_server_method(), minimum, ciphers: TLSContext.ciphers)
        }
        self.set = set
        self.tickets = tickets
        self.argument = .allocate(capacity: 1)
        self.argument.initialize(to: Chooser(choose: { TLSServerContext.choose($0, $1) }, chooser: nil))
        try super.init()
        self.argument.pointee.chooser = Unmanaged.passUnretained(self).toOpaque()
        for context in set.all { _ = apus_context_choose(context, self.argument) }
    }

    deinit {
        for context in self.set.all { SSL_CTX_free(context) }
        self.argument.deallocate()
    }

    private static func prepare(
        _ context: OpaquePointer, _ tickets: TLSTicketKeys, asksForCertificate: Bool
    ) throws(TLSError) {
        SSL_CTX_set_options(context, apus_server_options())
        // Sessions are in the tickets that clients keep, not here.
        apus_context_keep_no_sessions(context)
        SSL_CTX_set_num_tickets(context, 1)
        let identifier = Array("apus".utf8)
        guard SSL_CTX_set_session_id_context(context, identifier, CUnsignedInt(identifier.count)) == 1,
            apus_context_use_ticket_keys(context, tickets.keys) != 0
        else { throw TLSError.drained("session tickets cannot be used") }
        if asksForCertificate { apus_context_ask_certificate(context) }
    }

    /// Called by OpenSSL within a handshake, with what the client said.
    private static func choose(
        _ chooser: UnsafeMutableRawPointer?, _ name: UnsafePointer<CChar>?
    ) -> OpaquePointer? {
        guard let chooser, let name else { return nil }
        // Safety: the object holds the SSL_CTX that calls, and every engine holds the object.
        let context = Unmanaged<TLSServerContext>.fromOpaque(chooser).takeUnretainedValue()
        return context.set.context(for: String(cString: name).lowercased())
    }
}

/// OpenSSL's contexts of a server: one for each choice of certificates.
private struct ContextSet {
    /// For clients that name no host, or one that nobody is.
    private(set) var main: OpaquePointer
    /// Each once.
    private(set) var all: [OpaquePointer] = []
    /// By name, and by `*.example.org`.
    private var byName: [String: OpaquePointer] = [:]

    typealias Preparation = (OpaquePointer) throws(TLSError) -> Void
    typealias Maker = () throws(TLSError) -> OpaquePointer

    init(_ credentials: [TLSCredential], prepare: Preparation, make: Maker) throws(TLSError) {
        guard let first = credentials.first else { throw TLSError("there is no certificate") }
        var choices: [String: [Int]] = [:]
        for name in Set(credentials.flatMap(\.names)) {
            choices[name] = Self.places(credentials) { name.hasPrefix("*") ? $0.names.contains(name) : $0.covers(name) }
        }
        let mainChoice = Self.places(credentials) { $0 === first || first.names.contains(where: $0.covers) }
        var known: [[Int]: OpaquePointer] = [:]
        for places in Set(Array(choices.values) + [mainChoice]) {
            do throws(TLSError) {
                let context = try make()
                self.all.append(context)
                known[places] = context
                for place in places { try credentials[place].use(in: context) }
                try prepare(context)
            } catch {
                for context in self.all { SSL_CTX_free(context) }
                throw error
            }
        }
        guard let main = known[mainChoice] else { throw TLSError("there is no certificate") }
        self.main = main
        self.byName = choices.compactMapValues { known[$0] }
    }

    /// The places of those that do, the first of each kind of key.
    private static func places(_ credentials: [TLSCredential], _ does: (TLSCredential) -> Bool) -> [Int] {
        var kinds: Set<String> = []
        return credentials.indices.filter { does(credentials[$0]) && kinds.insert(credentials[$0].key.kind).inserted }
    }

    /// - Parameter name: in small letters.
    func context(for name: String) -> OpaquePointer? {
        if let context = self.byName[name] { return context }
        guard let dot = name.firstIndex(of: ".") else { return nil }
        return self.byName["*\(name[dot...])"]
    }
}

/// A client's side: what is asked of servers.
package final class TLSClientContext: TLSContext {
    let handle: OpaquePointer
    /// Whether a server that does not prove its name is refused.
    package let isStrict: Bool

    /// For servers of whom nothing is asked but that they encrypt.
    package override init() throws(TLSError) {
        self.handle = try Self.make(.tls12, ciphers: TLSContext.lenientCiphers)
        self.isStrict = false
        try super.init()
    }

    /// For servers that must prove their names.
    ///
    /// - Parameter authorities: the file of the certificates that are believed, in PEM.
    package init(authorities: String) throws(TLSError) {
        let handle = try Self.make(.tls12, ciphers: TLSContext.ciphers)
        guard SSL_CTX_load_verify_file(handle, authorities) == 1 else {
            SSL_CTX_free(handle)
            throw TLSError.drained("\(authorities) cannot be used as a list of authorities")
        }
        apus_context_require_certificate(handle)
        self.handle = handle
        self.isStrict = true
        try super.init()
    }

    private static func make(_ minimum: TLSVersion, ciphers: String) throws(TLSError) -> OpaquePointer {
        let context = try TLSContext.make(TLS_client_method(), minimum, ciphers: ciphers)
        SSL_CTX_set_options(context, apus_client_options())
        apus_context_keep_sessions(context)
        return context
    }

    deinit { SSL_CTX_free(self.handle) }
}

/// What a server has given a client so that the next handshake is shorter.
package final class TLSSession {
    let handle: OpaquePointer

    init(owned handle: OpaquePointer) { self.handle = handle }

    deinit { SSL_SESSION_free(self.handle) }
}
