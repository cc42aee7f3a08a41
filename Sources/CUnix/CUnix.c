/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "CUnix.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/audit.h>
#include <linux/close_range.h>
#include <linux/filter.h>
#include <linux/openat2.h>
#include <linux/seccomp.h>
#include <malloc.h>
#include <shadow.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

const int apus_limit_of_processes = RLIMIT_NPROC;

enum { DESCRIPTORS_MAX = 64, PASSED_MAX = 8 };

/* In the child: tell the parent what failed, through the pipe that exec would have closed. */
static void fail(int report) {
    int code = errno;
    ssize_t ignored = write(report, &code, sizeof code);
    (void)ignored;
    _exit(127);
}

static void close_from(unsigned first, int keep) {
    if (keep > (int)first) syscall(SYS_close_range, first, (unsigned)keep - 1, 0);
    syscall(SYS_close_range, (unsigned)keep + 1 > first ? (unsigned)keep + 1 : first, ~0U, 0);
}

static void child(const struct apus_process *what, int umask_bits, int report) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = SIG_DFL;
    for (int number = 1; number < NSIG; number++) sigaction(number, &action, NULL);

    /* First out of the way of the numbers to be given, then into place. */
    int moved[DESCRIPTORS_MAX];
    int floor = (int)what->descriptor_count + 1;
    report = fcntl(report, F_DUPFD_CLOEXEC, floor);
    if (report < 0) _exit(127);
    for (size_t i = 0; i < what->descriptor_count; i++) {
        int source = what->descriptors[i];
        moved[i] = source < 0 ? open("/dev/null", O_RDWR | O_CLOEXEC) : source;
        if (moved[i] < 0) fail(report);
        moved[i] = fcntl(moved[i], F_DUPFD_CLOEXEC, floor);
        if (moved[i] < 0) fail(report);
    }
    for (size_t i = 0; i < what->descriptor_count; i++)
        if (dup2(moved[i], (int)i) < 0) fail(report);
    close_from((unsigned)what->descriptor_count, report);

    umask((mode_t)umask_bits);
    if (what->is_own_session && setsid() < 0) fail(report);
    for (size_t i = 0; i < what->limit_count; i++) {
        struct rlimit limit = { what->limits[i].value, what->limits[i].value }, now;
        /* A limit that is lower already stays. */
        if (getrlimit((__rlimit_resource_t)what->limits[i].resource, &now) == 0 && now.rlim_max < limit.rlim_max)
            limit.rlim_cur = limit.rlim_max = now.rlim_max;
        if (setrlimit((__rlimit_resource_t)what->limits[i].resource, &limit) < 0) fail(report);
    }
    if (what->changes_user) {
        if (setgroups(what->group_count, what->groups) < 0) fail(report);
        if (setgid(what->gid) < 0) fail(report);
        if (setuid(what->uid) < 0) fail(report);
        if (what->uid != 0 && setuid(0) == 0) { errno = EPERM; fail(report); }
    }
    if (what->directory && chdir(what->directory) < 0) fail(report);
    /* After the change of user, which would take it back. */
    if (what->dies_with_parent && prctl(PR_SET_PDEATHSIG, SIGKILL) < 0) fail(report);

    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    execve(what->path, what->argv, what->envp);
    fail(report);
}

pid_t apus_spawn(const struct apus_process *what, int umask_bits) {
    if (what->descriptor_count < 3 || what->descriptor_count > DESCRIPTORS_MAX) return -EINVAL;
    int report[2];
    if (pipe2(report, O_CLOEXEC) < 0) return -errno;

    /* No handler of ours may run in the child before its dispositions are reset. */
    sigset_t all, before;
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, &before);
    pid_t pid = fork();
    if (pid == 0) child(what, umask_bits, report[1]);
    int fork_error = errno;
    sigprocmask(SIG_SETMASK, &before, NULL);
    close(report[1]);
    if (pid < 0) {
        close(report[0]);
        return -fork_error;
    }
    int code = 0;
    ssize_t count;
    do count = read(report[0], &code, sizeof code);
    while (count < 0 && errno == EINTR);
    close(report[0]);
    if (count == 0) return pid;
    while (waitpid(pid, NULL, 0) < 0 && errno == EINTR) {}
    return count == (ssize_t)sizeof code && code > 0 ? -code : -EIO;
}

ssize_t apus_send_descriptors(int socket, const void *octets, size_t count,
                              const int *descriptors, size_t descriptor_count) {
    if (descriptor_count > PASSED_MAX) return -EINVAL;
    union { struct cmsghdr header; char room[CMSG_SPACE(sizeof(int) * PASSED_MAX)]; } control;
    struct iovec vector = { (void *)octets, count };
    struct msghdr message;
    memset(&message, 0, sizeof message);
    memset(&control, 0, sizeof control);
    message.msg_iov = &vector;
    message.msg_iovlen = 1;
    if (descriptor_count > 0) {
        message.msg_control = control.room;
        message.msg_controllen = CMSG_SPACE(sizeof(int) * descriptor_count);
        struct cmsghdr *header = CMSG_FIRSTHDR(&message);
        header->cmsg_level = SOL_SOCKET;
        header->cmsg_type = SCM_RIGHTS;
        header->cmsg_len = CMSG_LEN(sizeof(int) * descriptor_count);
        memcpy(CMSG_DATA(header), descriptors, sizeof(int) * descriptor_count);
    }
    ssize_t sent;
    do sent = sendmsg(socket, &message, MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    return sent < 0 ? -errno : sent;
}

ssize_t apus_receive_descriptors(int socket, void *octets, size_t count,
                                 int *descriptors, size_t *descriptor_count) {
    union { struct cmsghdr header; char room[CMSG_SPACE(sizeof(int) * PASSED_MAX)]; } control;
    struct iovec vector = { octets, count };
    struct msghdr message;
    memset(&message, 0, sizeof message);
    message.msg_iov = &vector;
    message.msg_iovlen = 1;
    message.msg_control = control.room;
    message.msg_controllen = sizeof control.room;
    ssize_t received;
    do received = recvmsg(socket, &message, MSG_CMSG_CLOEXEC);
    while (received < 0 && errno == EINTR);
    size_t room = *descriptor_count, found = 0;
    *descriptor_count = 0;
    if (received < 0) return -errno;
    for (struct cmsghdr *header = CMSG_FIRSTHDR(&message); header; header = CMSG_NXTHDR(&message, header)) {
        if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
        size_t number = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < number; i++) {
            int descriptor;
            memcpy(&descriptor, CMSG_DATA(header) + i * sizeof(int), sizeof descriptor);
            if (found < room) descriptors[found++] = descriptor;
            else close(descriptor);
        }
    }
    *descriptor_count = found;
    return received;
}

int apus_peer_uid(int socket, uid_t *uid) {
    struct ucred credentials;
    socklen_t length = sizeof credentials;
    if (getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &credentials, &length) < 0) return -errno;
    *uid = credentials.uid;
    return 0;
}

int apus_pidfd_open(pid_t pid) {
    int descriptor = (int)syscall(SYS_pidfd_open, pid, 0);
    return descriptor < 0 ? -errno : descriptor;
}

int apus_die_with_parent(pid_t parent, int signal_number) {
    if (prctl(PR_SET_PDEATHSIG, signal_number) < 0) return -errno;
    return getppid() == parent ? 0 : -ESRCH;
}

int apus_open_beneath(int directory, const char *path, int flags) {
    struct open_how how = { .flags = (unsigned)(flags | O_CLOEXEC), .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS };
    long result;
    do result = syscall(SYS_openat2, directory, path, &how, sizeof how);
    while (result < 0 && (errno == EINTR || errno == EAGAIN));
    if (result < 0 && errno == ENOSYS) result = openat(directory, path, flags | O_CLOEXEC | O_NOFOLLOW);
    return result < 0 ? -errno : (int)result;
}

int apus_lock_record(int descriptor) {
    struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
    if (fcntl(descriptor, F_SETLK, &lock) == 0) return 0;
    return errno == EACCES ? -EAGAIN : -errno;
}

void apus_ignore_size_signal(void) { signal(SIGXFSZ, SIG_IGN); }

void apus_forbid_tracing(void) { prctl(PR_SET_DUMPABLE, 0); }

#if defined(__x86_64__)
#define APUS_AUDIT_ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define APUS_AUDIT_ARCH AUDIT_ARCH_AARCH64
#endif

int apus_forbid_network(void) {
#ifdef APUS_AUDIT_ARCH
#define LOAD(member) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, member))
#define ANSWER(value) BPF_STMT(BPF_RET | BPF_K, (value))
#define IF_EQUAL(value, then, otherwise) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (value), (then), (otherwise))
    struct sock_filter rules[] = {
        /* Calls of another architecture have other numbers: none is needed. */
        LOAD(arch),
        IF_EQUAL(APUS_AUDIT_ARCH, 1, 0),
        ANSWER(SECCOMP_RET_ERRNO | ENOSYS),
        LOAD(nr),
#ifdef __x86_64__
        /* So have those of x32. */
        BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, 0x40000000, 0, 1),
        ANSWER(SECCOMP_RET_ERRNO | ENOSYS),
#endif
        /* A ring could make sockets without asking again. */
        IF_EQUAL(__NR_io_uring_setup, 0, 1),
        ANSWER(SECCOMP_RET_ERRNO | ENOSYS),
        IF_EQUAL(__NR_socket, 1, 0),
        ANSWER(SECCOMP_RET_ALLOW),
        LOAD(args[0]), /* the lower half: both architectures are little-endian */
        IF_EQUAL(AF_UNIX, 0, 1),
        ANSWER(SECCOMP_RET_ALLOW),
        ANSWER(SECCOMP_RET_ERRNO | EAFNOSUPPORT),
    };
    struct sock_fprog program = { sizeof rules / sizeof rules[0], rules };
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0) return -errno;
    return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) < 0 ? -errno : 0;
#else
    return -ENOSYS;
#endif
}

int apus_shadow(const char *user, char *hash, size_t size, long *expiry) {
    char buffer[16384];
    struct spwd entry, *found = NULL;
    int code;
    do code = getspnam_r(user, &entry, buffer, sizeof buffer, &found);
    while (code == EINTR);
    int result = code != 0 && code != ENOENT ? -code : found != NULL && strlen(found->sp_pwdp) < size;
    if (result == 1) {
        strcpy(hash, found->sp_pwdp);
        *expiry = found->sp_expire;
    }
    explicit_bzero(buffer, sizeof buffer);
    return result;
}

int apus_open(const char *path, int flags, mode_t mode) {
    int descriptor;
    do descriptor = open(path, flags | O_CLOEXEC, mode);
    while (descriptor < 0 && errno == EINTR);
    return descriptor < 0 ? -errno : descriptor;
}

int apus_openat(int directory, const char *path, int flags, mode_t mode) {
    int descriptor;
    do descriptor = openat(directory, path, flags | O_CLOEXEC, mode);
    while (descriptor < 0 && errno == EINTR);
    return descriptor < 0 ? -errno : descriptor;
}

int apus_fcntl(int descriptor, int command, int argument) {
    int result = fcntl(descriptor, command, argument);
    return result < 0 ? -errno : result;
}

int apus_open_standard_descriptors(void) {
    for (int number = 0; number <= 2; number++) {
        if (fcntl(number, F_GETFD) >= 0) continue;
        /* The lowest free number is this one, as those below it are open. What we start is to have it too: no O_CLOEXEC. */
        int descriptor;
        do descriptor = open("/dev/null", O_RDWR);
        while (descriptor < 0 && errno == EINTR);
        if (descriptor < 0) return -errno;
    }
    return 0;
}

int apus_pipe(int ends[2]) { return pipe2(ends, O_CLOEXEC) < 0 ? -errno : 0; }

int apus_signal_descriptor(const int *numbers, size_t count) {
    sigset_t set;
    sigemptyset(&set);
    for (size_t i = 0; i < count; i++) sigaddset(&set, numbers[i]);
    if (sigprocmask(SIG_BLOCK, &set, NULL) < 0) return -errno;
    int descriptor = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    return descriptor < 0 ? -errno : descriptor;
}

int apus_next_signal(int descriptor) {
    struct signalfd_siginfo info;
    ssize_t count;
    do count = read(descriptor, &info, sizeof info);
    while (count < 0 && errno == EINTR);
    if (count < 0) return -errno;
    return count == (ssize_t)sizeof info ? (int)info.ssi_signo : -EIO;
}

const char *apus_error_text(int code, char *buffer, size_t size) { return strerror_r(code, buffer, size); }

int apus_start_writing(int descriptor) {
    return sync_file_range(descriptor, 0, 0, SYNC_FILE_RANGE_WRITE) < 0 ? -errno : 0;
}

void apus_keep_freed_memory(void) {
    /* A second arena would grow by a page at a time, with a system call for each. */
    mallopt(M_ARENA_MAX, 1);
    mallopt(M_TOP_PAD, 256 << 10);
    mallopt(M_TRIM_THRESHOLD, 4 << 20);
    mallopt(M_MMAP_THRESHOLD, 1 << 20);
}

int apus_raise_descriptor_limit(void) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) < 0) return -errno;
    limit.rlim_cur = limit.rlim_max;
    return setrlimit(RLIMIT_NOFILE, &limit) < 0 ? -errno : 0;
}

int apus_memory_file(const char *name, const void *octets, size_t count) {
    int descriptor = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (descriptor < 0) return -errno;
    const char *rest = octets;
    while (count > 0) {
        ssize_t written = write(descriptor, rest, count);
        if (written < 0 && errno == EINTR) continue;
        if (written <= 0) {
            int code = written < 0 ? errno : EIO;
            close(descriptor);
            return -code;
        }
        rest += written;
        count -= (size_t)written;
    }
    if (fcntl(descriptor, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL) != 0) {
        int code = errno;
        close(descriptor);
        return -code;
    }
    return descriptor;
}
