// SPDX-License-Identifier: Apache-2.0

import COpenSSL

/// What a handshake has agreed on.
package struct TLSSummary: Equatable, Sendable {
    /// `TLSv1.3`.
    package let version: String
    /// The name of the IANA: `TLS_AES_128_GCM_SHA256`.
    package let cipher: String
    /// Whether an earlier session was taken up again.
    package let isResumed: Bool
    /// Whether the other side has proven one of the names that it was asked for, to an authority that is believed.
    package let isVerified: Bool
    /// The certificate of the other side, if it has shown one.
    package let peer: Peer?

    package struct Peer: Equatable, Sendable {
        /// The common name of its subject; whatever its issuer has written there.
        package let name: String?
        /// SHA-256 of all of it, 64 hexadecimal digits in small letters.
        package let fingerprint: String
    }
}

/// What mechanisms of authentication bind to a connection.
package struct TLSBindings: Equatable, Sendable {
    /// `tls-exporter` (RFC 9266), of TLS 1.3. Empty if there is none.
    package let exporter: [UInt8]
    /// `tls-server-end-point` (RFC 5929 §4), at a server. Empty if there is none.
    package let endPoint: [UInt8]

    /// Whether there is anything to bind to.
    package var isEmpty: Bool { self.exporter.isEmpty && self.endPoint.isEmpty }
}

/// One TLS connection without input or output: ciphertext goes in and comes out, and so does plain text.
///
/// After a call that throws, what `takeOutput` gives (an alert) is to be sent, and the engine is of no more use.
package final class TLSEngine {
    /// Each names those that it may become.
    package enum State: Equatable, Sendable {
        /// → `established`, `failed`
        case handshaking
        /// → `ended`, `failed`
        case established
        /// The other side has said that it will send no more. What is sent still reaches it. → `failed`
        case ended
        case failed
    }

    private let ssl: OpaquePointer
    private let wire: UnsafeMutablePointer<apus_tls_wire>
    /// OpenSSL's objects point into it.
    private let context: TLSContext
    private let isStrict: Bool
    package private(set) var state = State.handshaking

    private init(_ ssl: OpaquePointer?, _ context: TLSContext, isStrict: Bool) throws(TLSError) {
        guard let ssl, let wire = apus_tls_get_wire(ssl) else { throw TLSError.drained("out of memory") }
        self.ssl = ssl
        self.wire = wire
        self.context = context
        self.isStrict = isStrict
    }

    /// A server's side of a connection.
    package convenience init(server context: TLSServerContext) throws(TLSError) {
        try self.init(apus_tls_new(context.main, context.method), context, isStrict: false)
        SSL_set_accept_state(self.ssl)
    }

    /// A client's side of a connection; `start` begins it.
    ///
    /// - Parameters:
    ///   - serverName: told to the server, so that it shows the right certificate; nil if it has no name.
    ///   - names: with a strict context, the certificate must be for one of these host names, or for the address.
    ///   - address: an IP address, if that is all that is known of the server.
    ///   - session: of an earlier connection to the same server, under the same terms.
    package convenience init(
        client context: TLSClientContext, serverName: String?, names: [String], address: String? = nil,
        session: TLSSession? = nil
    ) throws(TLSError) {
        try self.init(apus_tls_new(context.handle, context.method), context, isStrict: context.isStrict)
        SSL_set_connect_state(self.ssl)
        if let serverName { _ = apus_tls_set_server_name(self.ssl, serverName) }
        if context.isStrict {
            guard !names.isEmpty || address != nil else { throw TLSError("there is no name to verify") }
            SSL_set_hostflags(self.ssl, CUnsignedInt(X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS))
            for name in names {
                guard SSL_add1_host(self.ssl, name) == 1 else { throw TLSError.drained("\(name) cannot be verified") }
            }
            if names.isEmpty, let address {
                guard X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(self.ssl), address) == 1 else {
                    throw TLSError.drained("\(address) cannot be verified")
                }
            }
        }
        if let session { SSL_set_session(self.ssl, session.handle) }
    }

    deinit {
        // Why: to OpenSSL the session of a connection that ends without a farewell is spoilt; SMTP says QUIT instead.
        if self.state != .failed { SSL_set_shutdown(self.ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN) }
        apus_tls_free(self.ssl)
    }

    // MARK: Coming in

    /// Begins the handshake of a client.
    package func start() throws(TLSError) {
        guard self.state == .handshaking else { return }
        try self.shakeHands()
    }

    /// Takes octets of the other side, whole records or not.
    ///
    /// - Parameter plaintext: called with what they hold, piece by piece; the octets are valid during the call.
    package func receive(
        _ ciphertext: UnsafeRawBufferPointer, plaintext: (UnsafeRawBufferPointer) -> Void
    ) throws(TLSError) {
        self.wire.pointee.input = ciphertext.baseAddress?.assumingMemoryBound(to: UInt8.self)
        self.wire.pointee.input_count = ciphertext.count
        defer {
            self.wire.pointee.input = nil
            self.wire.pointee.input_count = 0
        }
        if self.state == .handshaking { try self.shakeHands() }
        while self.state == .established {
            ERR_clear_error()
            let scratch = self.context.scratch
            let count = SSL_read(self.ssl, scratch.baseAddress, CInt(scratch.count))
            if count > 0 {
                plaintext(UnsafeRawBufferPointer(rebasing: scratch[..<Int(count)]))
                continue
            }
            switch SSL_get_error(self.ssl, count) {
            case SSL_ERROR_WANT_READ: return
            case SSL_ERROR_ZERO_RETURN: self.state = .ended
            default: throw self.fail("TLS")
            }
        }
    }

    /// The other side's octets have come to their end. Throws if that is in the middle of the handshake; a connection
    /// that ends without a farewell is not worth more, as SMTP has an end of its own for all that counts.
    package func receiveEnd() throws(TLSError) {
        guard self.state == .handshaking else {
            if self.state == .established { self.state = .ended }
            return
        }
        self.state = .failed
        throw TLSError("the other side closed the connection during the TLS handshake")
    }

    private func shakeHands() throws(TLSError) {
        ERR_clear_error()
        let result = SSL_do_handshake(self.ssl)
        if result == 1 {
            self.state = .established
            return
        }
        guard SSL_get_error(self.ssl, result) == SSL_ERROR_WANT_READ else { throw self.fail("TLS handshake") }
    }

    private func fail(_ doing: String) -> TLSError {
        self.state = .failed
        let verdict = SSL_get_verify_result(self.ssl)
        let error = TLSError.drained(doing)
        guard self.isStrict, verdict != CLong(X509_V_OK) else { return error }
        let reason = String(cString: X509_verify_cert_error_string(verdict))
        return TLSError("the certificate of the server cannot be verified: \(reason)")
    }

    // MARK: Going out

    /// Encrypts octets; only while `established` or `ended`.
    package func send(_ plaintext: UnsafeRawBufferPointer) throws(TLSError) {
        guard self.state == .established || self.state == .ended else { throw TLSError("TLS is not established") }
        guard !plaintext.isEmpty else { return }
        ERR_clear_error()
        var count = 0
        guard SSL_write_ex(self.ssl, plaintext.baseAddress, plaintext.count, &count) == 1, count == plaintext.count
        else { throw self.fail("TLS") }
    }

    /// Says that no more will be sent.
    package func close() {
        guard self.state == .established || self.state == .ended else { return }
        ERR_clear_error()
        _ = SSL_shutdown(self.ssl)
    }

    /// Whether what a server puts out when its handshake is done can wait: with TLS 1.3 that is a ticket for another time,
    /// with TLS 1.2 the client waits for it.
    package var isLastFlightIdle: Bool { SSL_version(self.ssl) == TLS1_3_VERSION && SSL_is_server(self.ssl) == 1 }

    /// Octets that `takeOutput` will hand over.
    package var outputOctetCount: Int { Int(self.wire.pointee.output_count) }

    package var hasOutput: Bool { self.wire.pointee.output_count > 0 }

    /// Hands over what is to be sent to the other side, if anything; the octets are valid during the call.
    package func takeOutput(_ body: (UnsafeRawBufferPointer) -> Void) {
        guard self.hasOutput else { return }
        let count = self.wire.pointee.output_count
        // Why before the call: it may lead back to here.
        let output = apus_wire_take(self.wire)
        defer { free(output) }
        body(UnsafeRawBufferPointer(start: output, count: count))
    }

    // MARK: What was agreed

    /// Nil before the handshake is done.
    package var summary: TLSSummary? {
        guard self.state != .handshaking, let cipher = SSL_get_current_cipher(self.ssl) else { return nil }
        let certificate = SSL_get0_peer_certificate(self.ssl)
        return TLSSummary(
            version: String(cString: SSL_get_version(self.ssl)),
            cipher: String(cString: SSL_CIPHER_standard_name(cipher)),
            isResumed: SSL_session_reused(self.ssl) == 1,
            isVerified: self.isStrict && SSL_get_verify_result(self.ssl) == CLong(X509_V_OK),
            peer: certificate.map { TLSSummary.Peer(name: commonName($0), fingerprint: fingerprint($0)) })
    }

    /// To be asked once the handshake is done; made anew each time.
    package var bindings: TLSBindings { TLSBindings(exporter: self.exporterBinding, endPoint: self.endPointBinding) }

    private var exporterBinding: [UInt8] {
        guard SSL_version(self.ssl) == TLS1_3_VERSION else { return [] }
        let label = Array("EXPORTER-Channel-Binding".utf8)
        var octets = [UInt8](repeating: 0, count: 32)
        // Safety: the label is as long as it is said to be; it is octets to OpenSSL, char or not.
        let result = label.withUnsafeBytes { label in
            SSL_export_keying_material(
                self.ssl, &octets, octets.count, label.bindMemory(to: CChar.self).baseAddress, label.count, nil, 0, 0)
        }
        return result == 1 ? octets : []
    }

    /// The digest of our certificate, by the hash of its signature, or SHA-256 where that is MD5 or SHA-1.
    private var endPointBinding: [UInt8] {
        guard SSL_is_server(self.ssl) == 1, let certificate = SSL_get_certificate(self.ssl) else { return [] }
        var hash: CInt = 0
        guard X509_get_signature_info(certificate, &hash, nil, nil, nil) == 1, hash != NID_undef else { return [] }
        let isWeak = hash == NID_md5 || hash == NID_sha1
        guard let method = isWeak ? EVP_sha256() : EVP_get_digestbyname(OBJ_nid2sn(hash)) else { return [] }
        var digest = [UInt8](repeating: 0, count: Int(EVP_MAX_MD_SIZE))
        var count: CUnsignedInt = 0
        guard X509_digest(certificate, method, &digest, &count) == 1 else { return [] }
        return Array(digest.prefix(Int(count)))
    }

    /// The newest session that the server has given, once.
    package func takeSession() -> TLSSession? {
        guard let session = self.wire.pointee.session else { return nil }
        self.wire.pointee.session = nil
        return TLSSession(owned: session)
    }
}
