/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the system asks of anybody, and nothing else: the CPU of one process, in microseconds.
 *
 *   floor maildir FOLDER FILES OCTETS     a file in tmp/, synced, renamed into new/; eight at a time
 *   floor tls CERTIFICATE KEY TIMES       a server's full handshake of TLS 1.3, seven records each way, in memory
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static double spent(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return 1e6 * (double)t.tv_sec + (double)t.tv_nsec / 1e3;
}

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static void maildir(const char *folder, int files, size_t octets) {
    enum { AT_ONCE = 8 };
    char *content = calloc(1, octets), name[64];
    int file[AT_ONCE];
    if (content == NULL || chdir(folder) != 0 || mkdir("tmp", 0700) != 0 || mkdir("new", 0700) != 0) fail(folder);
    int tmp = open("tmp", O_RDONLY | O_DIRECTORY), new = open("new", O_RDONLY | O_DIRECTORY);
    double start = spent();
    for (int first = 0; first < files; first += AT_ONCE) {
        for (int i = 0; i < AT_ONCE; i += 1) {
            snprintf(name, sizeof name, "1790000000.M%06dP1Q%d.mx.example.org", first, i);
            file[i] = openat(tmp, name, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);
            if (file[i] < 0 || write(file[i], content, octets) != (ssize_t)octets) fail(name);
            sync_file_range(file[i], 0, 0, SYNC_FILE_RANGE_WRITE);
        }
        for (int i = 0; i < AT_ONCE; i += 1) {
            snprintf(name, sizeof name, "1790000000.M%06dP1Q%d.mx.example.org", first, i);
            if (fsync(file[i]) != 0 || renameat(tmp, name, new, name) != 0) fail(name);
            close(file[i]);
        }
        if (fsync(new) != 0) fail("new");
    }
    printf("%.1f\n", (spent() - start) / (files + AT_ONCE - 1 - (files + AT_ONCE - 1) % AT_ONCE));
}

/* What one side has written goes to the other. */
static void carry(BIO *from, BIO *to) {
    char octets[16384];
    int count;
    while ((count = BIO_read(from, octets, sizeof octets)) > 0) BIO_write(to, octets, count);
}

static void tls(const char *certificate, const char *key, int times) {
    SSL_CTX *here = SSL_CTX_new(TLS_server_method()), *there = SSL_CTX_new(TLS_client_method());
    if (SSL_CTX_use_certificate_chain_file(here, certificate) != 1 ||
        SSL_CTX_use_PrivateKey_file(here, key, SSL_FILETYPE_PEM) != 1) fail(certificate);
    SSL_CTX_set_ciphersuites(there, "TLS_AES_128_GCM_SHA256");
    SSL_CTX_set_session_cache_mode(here, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_num_tickets(here, 1);
    char octets[2048];
    memset(octets, 'x', sizeof octets);
    double total = 0;
    for (int time = 0; time < times; time += 1) {
        BIO *in = BIO_new(BIO_s_mem()), *out = BIO_new(BIO_s_mem());
        BIO *back = BIO_new(BIO_s_mem()), *forth = BIO_new(BIO_s_mem());
        SSL *client = SSL_new(there);
        SSL_set_connect_state(client);
        SSL_set_bio(client, back, forth);
        double start = spent();
        SSL *server = SSL_new(here);
        SSL_set_accept_state(server);
        SSL_set_bio(server, in, out);
        total += spent() - start;
        for (int round = 0; round < 9; round += 1) {
            if (!SSL_is_init_finished(client)) SSL_do_handshake(client);
            if (SSL_is_init_finished(client) && SSL_write(client, octets, round == 7 ? 1100 : 30) <= 0) fail("client");
            carry(forth, in);
            start = spent();
            if (!SSL_is_init_finished(server)) SSL_do_handshake(server);
            if (SSL_is_init_finished(server)) {
                while (SSL_read(server, octets, sizeof octets) > 0) {}
                SSL_write(server, octets, 40);
            }
            total += spent() - start;
            carry(out, back);
            if (SSL_is_init_finished(client)) while (SSL_read(client, octets, sizeof octets) > 0) {}
        }
        if (!SSL_is_init_finished(server)) fail("handshake");
        start = spent();
        SSL_free(server);
        total += spent() - start;
        SSL_free(client);
    }
    printf("%.1f\n", total / times);
}

int main(int count, char **words) {
    if (count == 5 && strcmp(words[1], "maildir") == 0) maildir(words[2], atoi(words[3]), (size_t)atol(words[4]));
    else if (count == 5 && strcmp(words[1], "tls") == 0) tls(words[2], words[3], atoi(words[4]));
    else return 64;
    return 0;
}
