/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The few functions of libcrypto and of crypt(3) that passwords need. TLS is not among them: apus-vault, which holds
 * the secrets, links none.
 */
#ifndef APUS_CCRYPTOGRAPHY_H
#define APUS_CCRYPTOGRAPHY_H

#include <crypt.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>

enum { APUS_SHA256_SIZE = 32, APUS_CRYPT_SIZE = CRYPT_OUTPUT_SIZE };

/* Both return 1, or 0 if libcrypto fails, which is for want of memory only. */
static inline int apus_sha256(const uint8_t *octets, size_t count, uint8_t *digest) {
    return EVP_Digest(octets, count, digest, NULL, EVP_sha256(), NULL) == 1;
}
static inline int apus_hmac_sha256(
    const uint8_t *key, size_t key_count, const uint8_t *octets, size_t count, uint8_t *code) {
    unsigned size = 0;
    return HMAC(EVP_sha256(), key, (int)key_count, octets, count, code, &size) != NULL && size == APUS_SHA256_SIZE;
}

/* crypt(3) into `hash`, which has room for APUS_CRYPT_SIZE; 0 if the setting is none that this crypt knows. */
static inline int apus_crypt(const char *password, const char *setting, char *hash) {
    struct crypt_data *data = (struct crypt_data *)calloc(1, sizeof *data);
    if (data == NULL) return 0;
    const char *result = crypt_r(password, setting, data);
    int is_good = result != NULL && result[0] != '*' && strlen(result) < APUS_CRYPT_SIZE;
    if (is_good) strcpy(hash, result);
    OPENSSL_cleanse(data, sizeof *data);
    free(data);
    return is_good;
}

/* A new setting for crypt(3) into `setting`, which has room for APUS_CRYPT_SIZE; 0 if there is no such method. */
static inline int apus_crypt_setting(const char *prefix, unsigned long cost, char *setting) {
    return crypt_gensalt_rn(prefix, cost, NULL, 0, setting, APUS_CRYPT_SIZE) != NULL;
}

#endif
