/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Counts the calls of malloc and its kin in one process, for tests and Benchmarks/profile. Loaded in front of the C
 * library (LD_PRELOAD). APUS_ALLOCATIONS names a file; it begins with two numbers of 64 bits that go up: the
 * allocations so far, and the octets that were asked for. A realloc counts as an allocation.
 *
 * The file is mapped before main, so that a process that changes its root or its user goes on counting.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);

struct counts {
    uint64_t calls;
    uint64_t octets;
};

static struct counts unread;
static struct counts *counts = &unread;

static void count(size_t octets) {
    __atomic_add_fetch(&counts->calls, 1, __ATOMIC_RELAXED);
    __atomic_add_fetch(&counts->octets, octets, __ATOMIC_RELAXED);
}

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("APUS_ALLOCATIONS");
    if (!path) return;
    int file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (file < 0) return;
    void *place = MAP_FAILED;
    if (ftruncate(file, sizeof(struct counts)) == 0)
        place = mmap(NULL, sizeof(struct counts), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (place != MAP_FAILED) counts = place;
}

void *malloc(size_t size) {
    count(size);
    return __libc_malloc(size);
}

void *calloc(size_t number, size_t size) {
    count(number * size);
    return __libc_calloc(number, size);
}

void *realloc(void *old, size_t size) {
    count(size);
    return __libc_realloc(old, size);
}

void *memalign(size_t alignment, size_t size) {
    count(size);
    return __libc_memalign(alignment, size);
}

void *aligned_alloc(size_t alignment, size_t size) { return memalign(alignment, size); }

int posix_memalign(void **result, size_t alignment, size_t size) {
    void *found = memalign(alignment, size);
    if (!found) return ENOMEM;
    *result = found;
    return 0;
}
