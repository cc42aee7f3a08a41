/* SPDX-License-Identifier: Apache-2.0 */
/*
 * OpenSSL for Swift: its headers, functions for those of its macros that TLSEngine needs, and the callbacks that OpenSSL
 * calls on its own, where Swift would need as many unsafe lines and a table of objects.
 */
#ifndef APUS_COPENSSL_H
#define APUS_COPENSSL_H

#include <limits.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

/* --- One connection in memory ---------------------------------------------------------------------------------
 *
 * What BIO_s_mem would do, without keeping anything: input is the caller's own octets, for as long as one call
 * lasts; OpenSSL takes all of it (a part of a record waits in its own buffer, which it frees with
 * SSL_MODE_RELEASE_BUFFERS). Output gathers here until it is taken, and its memory is given back then. */

struct apus_tls_wire {
    const uint8_t *input; /* the caller's; valid during a call */
    size_t input_count;
    uint8_t *output; /* malloc'ed, or NULL */
    size_t output_count;
    size_t output_capacity;
    SSL_SESSION *session; /* the newest that the peer has given a client, owned; or NULL */
};

static inline int apus_wire_read(BIO *bio, char *octets, int count) {
    struct apus_tls_wire *wire = (struct apus_tls_wire *)BIO_get_data(bio);
    BIO_clear_retry_flags(bio);
    if (count <= 0) return 0;
    if (wire->input_count == 0) {
        BIO_set_retry_read(bio);
        return -1;
    }
    size_t taken = (size_t)count < wire->input_count ? (size_t)count : wire->input_count;
    memcpy(octets, wire->input, taken);
    wire->input += taken;
    wire->input_count -= taken;
    return (int)taken;
}

static inline int apus_wire_write(BIO *bio, const char *octets, int count) {
    struct apus_tls_wire *wire = (struct apus_tls_wire *)BIO_get_data(bio);
    BIO_clear_retry_flags(bio);
    if (count <= 0) return 0;
    size_t needed = wire->output_count + (size_t)count;
    if (needed > wire->output_capacity) {
        size_t capacity = wire->output_capacity < 1024 ? 1024 : wire->output_capacity;
        while (capacity < needed) capacity *= 2;
        uint8_t *grown = (uint8_t *)realloc(wire->output, capacity);
        if (grown == NULL) return -1;
        wire->output = grown;
        wire->output_capacity = capacity;
    }
    memcpy(wire->output + wire->output_count, octets, (size_t)count);
    wire->output_count = needed;
    return count;
}

static inline long apus_wire_control(BIO *bio, int command, long number, void *pointer) {
    (void)bio, (void)number, (void)pointer;
    return command == BIO_CTRL_FLUSH || command == BIO_CTRL_DUP;
}

static inline int apus_wire_create(BIO *bio) {
    BIO_set_init(bio, 1);
    return 1;
}

/* The kind of BIO that reads and writes a struct apus_tls_wire. Made once; NULL if there is no memory. */
static inline BIO_METHOD *apus_wire_method(void) {
    BIO_METHOD *method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "apus wire");
    if (method == NULL) return NULL;
    BIO_meth_set_read(method, apus_wire_read);
    BIO_meth_set_write(method, apus_wire_write);
    BIO_meth_set_ctrl(method, apus_wire_control);
    BIO_meth_set_create(method, apus_wire_create);
    return method;
}

/* A connection with a wire of its own; NULL if there is no memory. */
static inline SSL *apus_tls_new(SSL_CTX *context, const BIO_METHOD *method) {
    struct apus_tls_wire *wire = (struct apus_tls_wire *)calloc(1, sizeof *wire);
    SSL *ssl = wire == NULL ? NULL : SSL_new(context);
    BIO *bio = ssl == NULL ? NULL : BIO_new(method);
    if (bio == NULL) {
        SSL_free(ssl);
        free(wire);
        return NULL;
    }
    BIO_set_data(bio, wire);
    SSL_set_ex_data(ssl, 0, wire);
    SSL_set_bio(ssl, bio, bio);
    return ssl;
}

static inline struct apus_tls_wire *apus_tls_get_wire(const SSL *ssl) {
    return (struct apus_tls_wire *)SSL_get_ex_data(ssl, 0);
}

/* Hands over what was put out, wire->output_count octets before; the caller frees it. */
static inline uint8_t *apus_wire_take(struct apus_tls_wire *wire) {
    uint8_t *output = wire->output;
    wire->output = NULL;
    wire->output_count = 0;
    wire->output_capacity = 0;
    return output;
}

static inline void apus_tls_free(SSL *ssl) {
    struct apus_tls_wire *wire = apus_tls_get_wire(ssl);
    SSL_free(ssl);
    free(wire->output);
    SSL_SESSION_free(wire->session);
    free(wire);
}

/* --- Session tickets -------------------------------------------------------------------------------------------- */

#define APUS_TICKET_KEY_SIZE 80 /* a name of 16 octets, a key for AES-256 and one for HMAC-SHA-256 */
#define APUS_TICKET_KEY_COUNT 3

/* The first key makes tickets, all of them open some. */
struct apus_ticket_keys {
    size_t count;
    uint8_t keys[APUS_TICKET_KEY_COUNT][APUS_TICKET_KEY_SIZE];
};

/* SSL_CTX_set_tlsext_ticket_key_evp_cb(3). */
static inline int apus_ticket_key(
    SSL *ssl, unsigned char *name, unsigned char *iv, EVP_CIPHER_CTX *cipher, EVP_MAC_CTX *mac, int makes) {
    const struct apus_ticket_keys *keys =
        (const struct apus_ticket_keys *)SSL_CTX_get_ex_data(SSL_get_SSL_CTX(ssl), 0);
    if (keys == NULL || keys->count == 0) return 0;
    size_t index = 0;
    if (makes) {
        if (RAND_bytes(iv, 16) != 1) return -1;
        memcpy(name, keys->keys[0], 16);
    } else {
        while (index < keys->count && CRYPTO_memcmp(name, keys->keys[index], 16) != 0) index += 1;
        if (index == keys->count) return 0;
    }
    const uint8_t *key = keys->keys[index];
    char digest[] = "SHA256";
    OSSL_PARAM parameters[3];
    parameters[0] = OSSL_PARAM_construct_octet_string(OSSL_MAC_PARAM_KEY, (void *)(uintptr_t)(key + 48), 32);
    parameters[1] = OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, 0);
    parameters[2] = OSSL_PARAM_construct_end();
    if (EVP_MAC_CTX_set_params(mac, parameters) != 1) return -1;
    int done = makes ? EVP_EncryptInit_ex(cipher, EVP_aes_256_cbc(), NULL, key + 16, iv)
                     : EVP_DecryptInit_ex(cipher, EVP_aes_256_cbc(), NULL, key + 16, iv);
    if (done != 1) return -1;
    /* Whoever comes with an older key gets a ticket of the newest. */
    return makes || index == 0 ? 1 : 2;
}

/* The keys belong to the caller and must outlive the context. */
static inline int apus_context_use_ticket_keys(SSL_CTX *context, struct apus_ticket_keys *keys) {
    return SSL_CTX_set_ex_data(context, 0, keys) == 1
        && SSL_CTX_set_tlsext_ticket_key_evp_cb(context, apus_ticket_key) == 1;
}

/* --- The sessions of a client ----------------------------------------------------------------------------------- */

static inline int apus_new_session(SSL *ssl, SSL_SESSION *session) {
    struct apus_tls_wire *wire = apus_tls_get_wire(ssl);
    SSL_SESSION_free(wire->session);
    wire->session = session;
    return 1; /* the session is ours now */
}

static inline void apus_context_keep_sessions(SSL_CTX *context) {
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(context, apus_new_session);
}

static inline void apus_context_keep_no_sessions(SSL_CTX *context) {
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
}

/* --- Which certificate -------------------------------------------------------------------------------------------*/

/* Returns the context for the name that the client wants, or NULL to stay. */
typedef SSL_CTX *(*apus_choose)(void *chooser, const char *name);

static inline int apus_server_name(SSL *ssl, int *alert, void *pointer) {
    (void)alert;
    struct { apus_choose choose; void *chooser; } *argument = pointer;
    const char *name = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
    if (name == NULL) return SSL_TLSEXT_ERR_NOACK;
    SSL_CTX *context = argument->choose(argument->chooser, name);
    if (context != NULL) SSL_set_SSL_CTX(ssl, context);
    return SSL_TLSEXT_ERR_OK;
}

/* The caller's `argument` (a function and its first argument) must outlive the context. */
static inline int apus_context_choose(SSL_CTX *context, void *argument) {
    return SSL_CTX_set_tlsext_servername_callback(context, apus_server_name) == 1
        && SSL_CTX_set_tlsext_servername_arg(context, argument) == 1;
}

/* Any certificate will do: who trusts which is decided by the caller, who looks at it afterwards. */
static inline int apus_accept_any(int is_good, X509_STORE_CTX *store) {
    (void)is_good, (void)store;
    return 1;
}

/* Asks clients for a certificate, and takes any or none. */
static inline void apus_context_ask_certificate(SSL_CTX *context) {
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER | SSL_VERIFY_CLIENT_ONCE, apus_accept_any);
}

/* A server whose certificate does not verify, or has none of the names, is no server for us. */
static inline void apus_context_require_certificate(SSL_CTX *context) {
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER, NULL);
}

/* --- Macros ----------------------------------------------------------------------------------------------------- */

static inline int apus_context_set_minimum(SSL_CTX *context, int version) {
    return SSL_CTX_set_min_proto_version(context, version) == 1;
}
static inline int apus_context_set_groups(SSL_CTX *context, const char *list) {
    return SSL_CTX_set1_groups_list(context, list) == 1;
}
static inline int apus_context_set_chain(SSL_CTX *context, X509 *leaf, EVP_PKEY *key, STACK_OF(X509) *chain) {
    return SSL_CTX_use_cert_and_key(context, leaf, key, chain, 1) == 1;
}
static inline int apus_tls_set_server_name(SSL *ssl, const char *name) {
    return SSL_set_tlsext_host_name(ssl, name) == 1;
}
static inline uint64_t apus_server_options(void) {
    return SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION | SSL_OP_CIPHER_SERVER_PREFERENCE
        | SSL_OP_PRIORITIZE_CHACHA;
}
static inline uint64_t apus_client_options(void) { return SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION; }
/* Nothing but what is in the chain file is sent, and buffers live only while something is in them. */
static inline void apus_context_set_modes(SSL_CTX *context) {
    SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_NO_AUTO_CHAIN);
}

/* The octets of a memory BIO, and how many. */
static inline long apus_bio_octets(BIO *bio, const char **octets) {
    char *pointer = NULL;
    long count = BIO_get_mem_data(bio, &pointer);
    *octets = pointer;
    return count;
}

static inline STACK_OF(X509) *apus_certificates_new(void) { return sk_X509_new_null(); }
static inline int apus_certificates_push(STACK_OF(X509) *list, X509 *certificate) {
    return sk_X509_push(list, certificate) > 0;
}
/* Without the certificates in it. */
static inline void apus_certificates_free(STACK_OF(X509) *list) { sk_X509_free(list); }

/* The DNS name at a place of the subjectAltName, and its length; NULL if there is another kind of name. */
static inline const unsigned char *apus_name_at(GENERAL_NAMES *names, int place, int *count) {
    GENERAL_NAME *name = sk_GENERAL_NAME_value(names, place);
    if (name == NULL || name->type != GEN_DNS) return NULL;
    *count = ASN1_STRING_length(name->d.dNSName);
    return ASN1_STRING_get0_data(name->d.dNSName);
}
static inline int apus_names_count(GENERAL_NAMES *names) { return sk_GENERAL_NAME_num(names); }

/* Nobody is there to type a password. */
static inline int apus_no_password(char *buffer, int size, int writes, void *pointer) {
    (void)buffer, (void)size, (void)writes, (void)pointer;
    return -1;
}
static inline EVP_PKEY *apus_read_key(BIO *bio) { return PEM_read_bio_PrivateKey(bio, NULL, apus_no_password, NULL); }
static inline X509 *apus_read_certificate(BIO *bio) { return PEM_read_bio_X509_AUX(bio, NULL, apus_no_password, NULL); }

static inline int apus_is_pem_end(unsigned long code) {
    return ERR_GET_LIB(code) == ERR_LIB_PEM && ERR_GET_REASON(code) == PEM_R_NO_START_LINE;
}

#endif
