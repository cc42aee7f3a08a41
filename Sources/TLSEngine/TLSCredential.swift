// SPDX-License-Identifier: Apache-2.0

import COpenSSL
package import MailTypes

/// A private key in memory.
///
/// All of Apus that touches one goes through here: a key that lives elsewhere, in a program that only signs, would be another
/// way to make this value (an EVP_PKEY of an OpenSSL provider that asks that program).
package final class TLSPrivateKey {
    let handle: OpaquePointer

    /// Reads the first private key of a PEM text; without a password.
    package init(pem: [UInt8]) throws(TLSError) {
        ERR_clear_error()
        let handle = withMemoryBIO(pem) { apus_read_key($0) }
        guard let handle else {
            ERR_clear_error()
            // Why: what OpenSSL notes here depends on its version. The word stands in both forms of such a key.
            guard !String(decoding: pem, as: UTF8.self).contains("ENCRYPTED") else {
                throw TLSError("the private key is encrypted with a password")
            }
            throw TLSError("there is no private key in it")
        }
        self.handle = handle
    }

    deinit { EVP_PKEY_free(self.handle) }

    /// `RSA`, `EC`, `ED25519`: a context has one certificate of each.
    var kind: String { EVP_PKEY_get0_type_name(self.handle).map { String(cString: $0) } ?? "?" }

    /// As `openssl` counts them: 2048 for RSA, 256 for P-256.
    var bitCount: Int { Int(EVP_PKEY_get_bits(self.handle)) }
}

/// A certificate with the chain that goes with it and its private key, as certbot writes them.
package final class TLSCredential {
    /// What an administrator should know of it.
    package enum Finding: Equatable, Sendable {
        /// OpenSSL refuses to use it.
        case unusable(String)
        /// Who verifies certificates will not believe it.
        case fault(String)
        case advice(String)
    }

    let leaf: OpaquePointer
    /// Those behind the leaf.
    private let issuers: [OpaquePointer]
    let key: TLSPrivateKey
    /// The DNS names that it is for, in small letters; `*.example.org` among them.
    package let names: [String]
    package let validFrom: Timestamp
    package let validUntil: Timestamp

    /// A chain file has few.
    private static let certificateCountMax = 20
    private static let nameCountMax = 1_000

    /// Reads the certificates of one PEM text, the leaf first, and the key of another, which may be the same text.
    ///
    /// Throws if one of them cannot be read, or the key is not that of the leaf.
    package init(chain: [UInt8], key: [UInt8]) throws(TLSError) {
        let certificates = try Self.certificates(chain)
        do throws(TLSError) {
            guard let leaf = certificates.first else { throw TLSError("there is no certificate in it") }
            let key = try TLSPrivateKey(pem: key)
            ERR_clear_error()
            guard X509_check_private_key(leaf, key.handle) == 1 else {
                ERR_clear_error()
                throw TLSError("the private key does not belong to the certificate")
            }
            guard let from = Self.timestamp(X509_get0_notBefore(leaf)),
                let until = Self.timestamp(X509_get0_notAfter(leaf))
            else { throw TLSError("the certificate has no readable dates") }
            self.leaf = leaf
            self.issuers = Array(certificates.dropFirst())
            self.key = key
            self.names = Self.names(leaf)
            self.validFrom = from
            self.validUntil = until
        } catch {
            for certificate in certificates { X509_free(certificate) }
            throw error
        }
    }

    deinit {
        X509_free(self.leaf)
        for issuer in self.issuers { X509_free(issuer) }
    }

    private static func certificates(_ pem: [UInt8]) throws(TLSError) -> [OpaquePointer] {
        ERR_clear_error()
        var certificates: [OpaquePointer] = []
        withMemoryBIO(pem) { bio in
            while certificates.count < Self.certificateCountMax, let certificate = apus_read_certificate(bio) {
                certificates.append(certificate)
            }
        }
        // The end of the text is told as an error, too.
        guard apus_is_pem_end(ERR_peek_last_error()) != 0 || ERR_peek_last_error() == 0 else {
            for certificate in certificates { X509_free(certificate) }
            throw TLSError.drained("certificate \(certificates.count + 1) cannot be read")
        }
        ERR_clear_error()
        return certificates
    }

    private static func names(_ leaf: OpaquePointer) -> [String] {
        var names: [String] = []
        if let list = X509_get_ext_d2i(leaf, NID_subject_alt_name, nil, nil) {
            let general = OpaquePointer(list)
            for place in 0..<min(apus_names_count(general), CInt(Self.nameCountMax)) {
                var count: CInt = 0
                guard let octets = apus_name_at(general, place, &count) else { continue }
                names.append(String(decoding: UnsafeBufferPointer(start: octets, count: Int(count)), as: UTF8.self))
            }
            GENERAL_NAMES_free(general)
        }
        if names.isEmpty, let name = commonName(leaf) { names = [name] }
        return names.map { $0.lowercased() }
    }

    private static func timestamp(_ time: UnsafePointer<ASN1_TIME>?) -> Timestamp? {
        var broken = tm()
        guard let time, ASN1_TIME_to_tm(time, &broken) == 1 else { return nil }
        return Timestamp(microseconds: UInt64(max(0, timegm(&broken))) &* 1_000_000)
    }

    /// Everything that is wrong or odd about it at that time.
    package func findings(now: Timestamp) -> [Finding] {
        var findings: [Finding] = []
        let day: UInt64 = 86_400_000_000
        if now.microseconds > self.validUntil.microseconds {
            let days = (now.microseconds - self.validUntil.microseconds) / day
            findings.append(.fault("the certificate has expired \(days == 0 ? "today" : "\(days) days ago")"))
        } else if now.microseconds < self.validFrom.microseconds {
            findings.append(.fault("the certificate is not valid yet"))
        } else if self.validUntil.microseconds - now.microseconds < 14 * day {
            let days = (self.validUntil.microseconds - now.microseconds) / day
            findings.append(.advice("the certificate expires in \(days) days"))
        }
        var subject = self.leaf
        for (place, issuer) in self.issuers.enumerated() {
            if X509_check_issued(issuer, subject) != X509_V_OK {
                findings.append(
                    .fault("certificate \(place + 2) of the chain is not the issuer of the one before it"))
                break
            }
            subject = issuer
        }
        if self.issuers.isEmpty, X509_check_issued(self.leaf, self.leaf) != X509_V_OK {
            findings.append(
                .advice("the certificate comes without that of its issuer, which many clients need to verify it"))
        }
        if self.key.kind == "RSA", self.key.bitCount < 2_048 {
            findings.append(.unusable("an RSA key of \(self.key.bitCount) bits is too weak"))
        } else if self.names.isEmpty {
            findings.append(.advice("the certificate names no host"))
        }
        return findings
    }

    /// Makes it the one that a context uses for keys of its kind.
    func use(in context: OpaquePointer) throws(TLSError) {
        ERR_clear_error()
        guard let chain = apus_certificates_new() else { throw TLSError("out of memory") }
        defer { apus_certificates_free(chain) }
        for issuer in self.issuers { _ = apus_certificates_push(chain, issuer) }
        guard apus_context_set_chain(context, self.leaf, self.key.handle, chain) != 0 else {
            throw TLSError.drained("the certificate cannot be used")
        }
    }

    /// Whether it is for that name, in small letters.
    func covers(_ name: String) -> Bool {
        if self.names.contains(name) { return true }
        guard let dot = name.firstIndex(of: ".") else { return false }
        return self.names.contains("*\(name[dot...])")
    }
}

/// The common name of a certificate's subject; it may be any text of its issuer.
func commonName(_ certificate: OpaquePointer) -> String? {
    var buffer = [CChar](repeating: 0, count: 256)
    let count = X509_NAME_get_text_by_NID(
        X509_get_subject_name(certificate), NID_commonName, &buffer, CInt(buffer.count))
    guard count > 0 else { return nil }
    return String(decoding: buffer.prefix(Int(count)).map { UInt8(bitPattern: $0) }, as: UTF8.self)
}

/// The SHA-256 of a whole certificate, in hexadecimal digits, small letters.
func fingerprint(_ certificate: OpaquePointer) -> String {
    var digest = [UInt8](repeating: 0, count: Int(EVP_MAX_MD_SIZE))
    var count: CUnsignedInt = 0
    guard X509_digest(certificate, EVP_sha256(), &digest, &count) == 1 else { return "" }
    let digits = Array("0123456789abcdef".utf8)
    var text: [UInt8] = []
    for octet in digest.prefix(Int(count)) { text += [digits[Int(octet >> 4)], digits[Int(octet & 15)]] }
    return String(decoding: text, as: UTF8.self)
}

/// Lets OpenSSL read octets.
private func withMemoryBIO<Result>(_ octets: [UInt8], _ body: (OpaquePointer?) -> Result) -> Result {
    octets.withUnsafeBytes { buffer in
        let bio = BIO_new_mem_buf(buffer.baseAddress, CInt(clamping: buffer.count))
        defer { BIO_free(bio) }
        return body(bio)
    }
}
