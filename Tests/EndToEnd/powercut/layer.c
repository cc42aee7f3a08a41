// SPDX-License-Identifier: Apache-2.0
//
// Watches what a program asks of the disk, for the tests of a power cut. Loaded with LD_PRELOAD, it carries out every
// call and appends it to a trace: writes with their octets, syncs with their begin and their end, names made and taken
// away, and what leaves on pipes. `disk.py` computes from it what a disk may hold after a cut at any point.
//
//     APUS_TRACE      the trace; made if it is missing
//     APUS_TRACE_DIR  only files in this directory are watched (an absolute path without links in it)
//     APUS_FAULT      CALL:FAULT:WHICH, several with commas between them. CALL is sync, meta (a write through O_DSYNC), write,
//                     map (of data.mdb), pipe-write or pipe-read; FAULT is an errno number or `short`; WHICH is `N` (the Nth alone),
//                     `N+` (the Nth and all after it) or `%N` (each Nth)
//     APUS_BOOTED     as if the machine had been started so many seconds ago
//
// The order in the trace is the order of what happened: a lock is held over each call together with its record. Syncs
// are the exception, they take long: they have a record before and one after. What was written before the first is on the disk
// at the second, and nothing else is.
//
// A record is a line `KIND NUMBER... LENGTH` and then LENGTH octets and a line feed. Not modelled, and so recorded as
// `unknown`, which fails the tests: a shared writable map, and writes that the layer does not know the place of.

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

static int trace = -1;
static char root[PATH_MAX];
static size_t root_length;
static long booted = -1;
static pthread_mutex_t order = PTHREAD_MUTEX_INITIALIZER;

enum call { SYNC, META, WRITE, MAP, PIPE_WRITE, PIPE_READ, CALLS };
static const char *const call_names[CALLS] = {"sync", "meta", "write", "map", "pipe-write", "pipe-read"};
#define SHORT 100000
static struct fault { int call, fault; long which; char mode; } faults[8];
static int fault_count;
static long called[CALLS];

static void read_faults(const char *text) {
    while (text && *text && fault_count < 8) {
        struct fault *fault = &faults[fault_count];
        for (int i = 0; i < CALLS; i++) {
            size_t length = strlen(call_names[i]);
            if (strncmp(text, call_names[i], length) || text[length] != ':') continue;
            char *end;
            const char *rest = text + length + 1;
            fault->call = i;
            fault->fault = strncmp(rest, "short:", 6) ? (int)strtol(rest, &end, 10) : (end = (char *)rest + 5, SHORT);
            if (*end++ != ':') abort();
            if (*end == '%') fault->mode = *end++;
            fault->which = strtol(end, &end, 10);
            if (*end == '+') fault->mode = *end++;
            if (fault->which < 1) abort();
            fault_count++;
            text = end;
            break;
        }
        if (*text && *text++ != ',') abort();
    }
}

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("APUS_TRACE"), *directory = getenv("APUS_TRACE_DIR");
    if (getenv("APUS_BOOTED")) booted = atol(getenv("APUS_BOOTED"));
    if (!path || !directory) return;
    root_length = strlen(directory);
    if (root_length >= sizeof root) abort();
    memcpy(root, directory, root_length);
    read_faults(getenv("APUS_FAULT"));
    int opened = (int)syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (opened < 0) abort();
    // Far from the numbers that the tests hand over.
    trace = fcntl(opened, F_DUPFD_CLOEXEC, 700);
    if (trace < 0) abort();
    syscall(SYS_close, opened);
}

// The path of an open file below the root, without the root and its slash; the root itself is the empty path. NULL if it is elsewhere.
static const char *path_of(int fd, char *buffer) {
    char link[40];
    if (trace < 0) return NULL;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, buffer, PATH_MAX - 1);
    if (length < (ssize_t)root_length || memcmp(buffer, root, root_length)) return NULL;
    buffer[length] = 0;
    if (buffer[root_length] != 0 && buffer[root_length] != '/') return NULL;
    return buffer + root_length + (buffer[root_length] == '/');
}

// The path of a name that may or may not be there.
static const char *path_at(int directory, const char *name, char *buffer) {
    char parent[PATH_MAX];
    if (trace < 0) return NULL;
    const char *slash = strrchr(name, '/');
    size_t length = slash ? (size_t)(slash - name) : 0;
    if (length >= sizeof parent) return NULL;
    memcpy(parent, name, length);
    parent[length] = 0;
    const char *where = length ? parent : slash ? "/" : ".";
    int opened = (int)syscall(SYS_openat, directory, where, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (opened < 0) return NULL;
    const char *path = path_of(opened, buffer);
    syscall(SYS_close, opened);
    if (!path) return NULL;
    const char *last = slash ? slash + 1 : name;
    if (strlen(path) + strlen(last) + root_length + 3 > PATH_MAX) return NULL;
    if (*path) strcat(buffer, "/"), strcat(buffer, last);
    else buffer[root_length] = '/', strcpy(buffer + root_length + 1, last), path = buffer + root_length + 1;
    return path;
}

static void record(const struct iovec *parts, int count, size_t length, const char *format, ...) {
    char line[200];
    struct iovec out[66];
    va_list list;
    va_start(list, format);
    int used = vsnprintf(line, sizeof line - 24, format, list);
    va_end(list);
    used += snprintf(line + used, 24, " %zu\n", length);
    out[0] = (struct iovec){line, (size_t)used};
    int outs = 1;
    size_t left = length, total = (size_t)used + length + 1;
    for (int i = 0; i < count && left && outs < 65; i++) {
        size_t part = parts[i].iov_len < left ? parts[i].iov_len : left;
        out[outs++] = (struct iovec){parts[i].iov_base, part};
        left -= part;
    }
    out[outs++] = (struct iovec){"\n", 1};
    if (left || syscall(SYS_writev, trace, out, outs) != (ssize_t)total) abort();
}

static void record_text(const char *text, const char *kind, unsigned long long number) {
    struct iovec part = {(void *)text, strlen(text)};
    record(&part, 1, part.iov_len, "%s %llu", kind, number);
}

// The fault that this call is to have: an errno, SHORT or 0. With the lock held.
static int fault_of(enum call call) {
    called[call]++;
    for (int i = 0; i < fault_count; i++) {
        struct fault *f = &faults[i];
        if (f->call != (int)call) continue;
        if (f->mode == '%' ? called[call] % f->which == 0 : f->mode == '+' ? called[call] >= f->which : called[call] == f->which) {
            record_text(call_names[call], "fault", (unsigned)f->fault);
            return f->fault;
        }
    }
    return 0;
}

static size_t sum(const struct iovec *parts, int count) {
    size_t length = 0;
    for (int i = 0; i < count; i++) length += parts[i].iov_len;
    return length;
}

// MARK: Writing

static ssize_t put(int fd, const struct iovec *parts, int count, off_t offset, int is_placed) {
    if (!is_placed) return syscall(SYS_writev, fd, parts, count);
    return syscall(SYS_pwritev, fd, parts, count, (long)offset, 0L);
}

static ssize_t put_pipe(int fd, const struct iovec *parts, int count) {
    pthread_mutex_lock(&order);
    int fault = fault_of(PIPE_WRITE);
    struct iovec first = parts[0];
    if (fault == SHORT && count > 0) {
        first.iov_len = first.iov_len > 3 ? first.iov_len / 3 : first.iov_len;
        parts = &first, count = 1;
    }
    ssize_t done = fault && fault != SHORT ? (errno = fault, -1) : put(fd, parts, count, 0, 0);
    int code = errno;
    if (done > 0) record(parts, count, (size_t)done, "out %d", fd);
    pthread_mutex_unlock(&order);
    errno = code;
    return done;
}

// A write to a file: whole, or short by a fault, or failed by one.
static ssize_t put_file(int fd, const struct stat *status, const struct iovec *parts, int count, off_t offset, int is_placed) {
    int flags = fcntl(fd, F_GETFL), is_synced = (flags & O_DSYNC) != 0;
    pthread_mutex_lock(&order);
    int fault = fault_of(is_synced ? META : WRITE);
    off_t place = is_placed ? offset : flags & O_APPEND ? status->st_size : (off_t)syscall(SYS_lseek, fd, 0L, SEEK_CUR);
    struct iovec first = parts[0];
    if (fault == SHORT) {
        first.iov_len /= 2;
        parts = &first, count = 1;
    }
    size_t length = sum(parts, count);
    ssize_t done = -1;
    int code = fault;
    if (!fault || fault == SHORT) {
        // Before the call: it takes effect at some time from here on.
        record(parts, count, length, "%s %llu %lld", is_synced ? "meta" : "write", (unsigned long long)status->st_ino, (long long)place);
        if (is_synced) pthread_mutex_unlock(&order);
        done = put(fd, parts, count, place, is_placed);
        code = errno;
        if (is_synced) pthread_mutex_lock(&order);
        if (done != (ssize_t)length) record_text("a real fault of the disk", "unknown", 0);
        else if (is_synced) record(NULL, 0, 0, "meta-end %llu", (unsigned long long)status->st_ino);
    }
    pthread_mutex_unlock(&order);
    errno = code;
    return done;
}

static ssize_t put_any(int fd, const struct iovec *parts, int count, off_t offset, int is_placed) {
    struct stat status;
    char buffer[PATH_MAX];
    if (trace >= 0 && fd != trace && count > 0 && count < 65 && syscall(SYS_fstat, fd, &status) == 0) {
        if (S_ISFIFO(status.st_mode) && fd != STDERR_FILENO && !is_placed) return put_pipe(fd, parts, count);
        if (S_ISREG(status.st_mode) && path_of(fd, buffer)) return put_file(fd, &status, parts, count, offset, is_placed);
    }
    return put(fd, parts, count, offset, is_placed);
}

ssize_t write(int fd, const void *octets, size_t length) {
    struct iovec part = {(void *)octets, length};
    return put_any(fd, &part, 1, 0, 0);
}
ssize_t writev(int fd, const struct iovec *parts, int count) { return put_any(fd, parts, count, 0, 0); }
ssize_t pwrite(int fd, const void *octets, size_t length, off_t offset) {
    struct iovec part = {(void *)octets, length};
    return put_any(fd, &part, 1, offset, 1);
}
ssize_t pwrite64(int fd, const void *octets, size_t length, off_t offset) { return pwrite(fd, octets, length, offset); }
ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t offset) { return put_any(fd, parts, count, offset, 1); }

int ftruncate(int fd, off_t length) {
    struct stat status;
    char buffer[PATH_MAX];
    if (trace < 0 || syscall(SYS_fstat, fd, &status) || !path_of(fd, buffer)) return (int)syscall(SYS_ftruncate, fd, length);
    pthread_mutex_lock(&order);
    record(NULL, 0, 0, "truncate %llu %lld", (unsigned long long)status.st_ino, (long long)length);
    int done = (int)syscall(SYS_ftruncate, fd, length);
    pthread_mutex_unlock(&order);
    return done;
}
int ftruncate64(int fd, off_t length) { return ftruncate(fd, length); }

ssize_t read(int fd, void *octets, size_t length) {
    struct stat status;
    if (trace >= 0 && fault_count && syscall(SYS_fstat, fd, &status) == 0 && S_ISFIFO(status.st_mode)) {
        pthread_mutex_lock(&order);
        int fault = fault_of(PIPE_READ);
        pthread_mutex_unlock(&order);
        if (fault && fault != SHORT) return errno = fault, -1;
        if (fault == SHORT && length > 7) length = 7;
    }
    return syscall(SYS_read, fd, octets, length);
}

// MARK: Syncs

static int sync_any(int fd, long number) {
    static unsigned long long last;
    struct stat status;
    char buffer[PATH_MAX];
    if (trace < 0 || syscall(SYS_fstat, fd, &status) || !path_of(fd, buffer)) return (int)syscall(number, fd);
    pthread_mutex_lock(&order);
    unsigned long long id = ++last;
    int fault = fault_of(SYNC);
    record(NULL, 0, 0, "sync %llu %llu", (unsigned long long)status.st_ino, id);
    pthread_mutex_unlock(&order);
    int done = fault ? (errno = fault, -1) : (int)syscall(number, fd);
    int code = errno;
    pthread_mutex_lock(&order);
    record(NULL, 0, 0, "sync-end %llu %llu %d", (unsigned long long)status.st_ino, id, done < 0 ? code : 0);
    pthread_mutex_unlock(&order);
    errno = code;
    return done;
}
int fsync(int fd) { return sync_any(fd, SYS_fsync); }
int fdatasync(int fd) { return sync_any(fd, SYS_fdatasync); }

int msync(void *start, size_t length, int flags) {
    if (trace >= 0) {
        pthread_mutex_lock(&order);
        record_text("msync", "unknown", 0);
        pthread_mutex_unlock(&order);
    }
    return (int)syscall(SYS_msync, start, length, flags);
}

static int is_lock(const char *path) {
    const char *slash = strrchr(path, '/');
    return !strcmp(slash ? slash + 1 : path, "lock.mdb");
}

void *mmap(void *start, size_t length, int protection, int flags, int fd, off_t offset) {
    char buffer[PATH_MAX];
    const char *path = fd >= 0 && flags & MAP_SHARED ? path_of(fd, buffer) : NULL;
    if (path && !strcmp(path, "data.mdb")) {
        pthread_mutex_lock(&order);
        int fault = fault_of(MAP);
        pthread_mutex_unlock(&order);
        if (fault) return errno = fault, MAP_FAILED;
    }
    // LMDB's lock.mdb is mapped so; it is made anew by the first process after a start of the machine.
    if (path && protection & PROT_WRITE && !is_lock(path)) {
        pthread_mutex_lock(&order);
        record_text(path, "unknown", 0);
        pthread_mutex_unlock(&order);
    }
    return (void *)syscall(SYS_mmap, start, length, protection, flags, fd, offset);
}

// MARK: Names

static int open_any(int directory, const char *name, int flags, mode_t mode) {
    char buffer[PATH_MAX];
    struct stat status;
    const char *path = flags & (O_CREAT | O_TRUNC) ? path_at(directory, name, buffer) : NULL;
    if (!path) return (int)syscall(SYS_openat, directory, name, flags, mode);
    pthread_mutex_lock(&order);
    int is_new = syscall(SYS_newfstatat, directory, name, &status, AT_SYMLINK_NOFOLLOW) != 0;
    int fd = (int)syscall(SYS_openat, directory, name, flags, mode);
    int code = errno;
    if (fd >= 0 && syscall(SYS_fstat, fd, &status) == 0 && S_ISREG(status.st_mode)) {
        if (is_new) record_text(path, "create", status.st_ino);
        else if (flags & O_TRUNC) record(NULL, 0, 0, "truncate %llu 0", (unsigned long long)status.st_ino);
    }
    pthread_mutex_unlock(&order);
    errno = code;
    return fd;
}
#define MODE(flags, mode) do { \
        if (flags & (O_CREAT | O_TMPFILE)) { va_list list; va_start(list, flags); mode = va_arg(list, mode_t); va_end(list); } \
    } while (0)
int open(const char *name, int flags, ...) { mode_t mode = 0; MODE(flags, mode); return open_any(AT_FDCWD, name, flags, mode); }
int open64(const char *name, int flags, ...) { mode_t mode = 0; MODE(flags, mode); return open_any(AT_FDCWD, name, flags, mode); }
int openat(int at, const char *name, int flags, ...) { mode_t mode = 0; MODE(flags, mode); return open_any(at, name, flags, mode); }
int openat64(int at, const char *name, int flags, ...) { mode_t mode = 0; MODE(flags, mode); return open_any(at, name, flags, mode); }

// A call about one name or two; its record says the paths, with a NUL between them.
static int named(const char *kind, long number, int at, const char *one, int to, const char *two, long flags) {
    char first[PATH_MAX], second[PATH_MAX];
    const char *from = path_at(at, one, first), *onto = two ? path_at(to, two, second) : NULL;
    pthread_mutex_lock(&order);
    int done = (int)(two ? syscall(number, at, one, to, two, flags) : syscall(number, at, one, flags));
    int code = errno;
    if (done == 0 && (from || onto)) {
        struct stat status = {0};
        if (number != SYS_unlinkat) syscall(SYS_newfstatat, two ? to : at, two ? two : one, &status, AT_SYMLINK_NOFOLLOW);
        if (!from) from = "";
        if (!onto) onto = "";
        struct iovec parts[3] = {{(void *)from, strlen(from)}, {"", 1}, {(void *)onto, strlen(onto)}};
        record(parts, 3, sum(parts, 3), "%s %llu", kind, (unsigned long long)status.st_ino);
    }
    pthread_mutex_unlock(&order);
    errno = code;
    return done;
}

int mkdirat(int at, const char *name, mode_t mode) { return named("mkdir", SYS_mkdirat, at, name, at, NULL, mode); }
int mkdir(const char *name, mode_t mode) { return mkdirat(AT_FDCWD, name, mode); }
int unlinkat(int at, const char *name, int flags) { return named("unlink", SYS_unlinkat, at, name, at, NULL, flags); }
int unlink(const char *name) { return unlinkat(AT_FDCWD, name, 0); }
int rmdir(const char *name) { return unlinkat(AT_FDCWD, name, AT_REMOVEDIR); }
int linkat(int at, const char *name, int to, const char *other, int flags) {
    return named("link", SYS_linkat, at, name, to, other, flags);
}
int link(const char *name, const char *other) { return linkat(AT_FDCWD, name, AT_FDCWD, other, 0); }
int renameat2(int at, const char *name, int to, const char *other, unsigned flags) {
    return named("rename", SYS_renameat2, at, name, to, other, flags);
}
int renameat(int at, const char *name, int to, const char *other) { return renameat2(at, name, to, other, 0); }
int rename(const char *name, const char *other) { return renameat2(AT_FDCWD, name, AT_FDCWD, other, 0); }

// MARK: The clock

int clock_gettime(clockid_t clock, struct timespec *time) {
    int done = (int)syscall(SYS_clock_gettime, clock, time);
    if (booted >= 0 && clock == CLOCK_BOOTTIME) *time = (struct timespec){booted, 0};
    return done;
}
