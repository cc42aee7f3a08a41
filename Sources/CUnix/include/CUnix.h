/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CUNIX_H
#define CUNIX_H

#include <stddef.h>
#include <sys/types.h>

/*
 * What Swift must not or cannot do itself. Every function returns a negative errno value on failure.
 */

/* A limit of resources: RLIMIT_CPU and the like, and its value. */
struct apus_limit {
    int resource;
    unsigned long long value;
};

/* RLIMIT_NPROC, which Swift cannot see. */
extern const int apus_limit_of_processes;

/* What a new process is given. Everything is prepared by the caller; between fork and exec only
 * async-signal-safe calls are made. */
struct apus_process {
    const char *path;          /* of the executable */
    char *const *argv;         /* ends with NULL */
    char *const *envp;         /* ends with NULL: the whole environment */
    const char *directory;     /* working directory, or NULL to keep it */
    const int *descriptors;    /* descriptors[i] of this process becomes i of the new one; -1: /dev/null */
    size_t descriptor_count;   /* at least 3; every descriptor from here on is closed in the new process */
    int changes_user;          /* if not 0: setgroups, setgid, setuid to the following */
    uid_t uid;
    gid_t gid;
    const gid_t *groups;
    size_t group_count;
    int is_own_session;        /* if not 0: the process leads a session and a process group of its own */
    int dies_with_parent;      /* if not 0: it is killed when the thread that starts it ends */
    const struct apus_limit *limits; /* setrlimit(2), soft and hard */
    size_t limit_count;
};

/* Starts a process with default signal dispositions and an empty signal mask.
 * Returns its pid; a failure of exec is reported here as well (-errno), and no process is left. */
pid_t apus_spawn(const struct apus_process *what, int umask_bits);

/* Sends octets and descriptors (at most 8) in one message. Returns the octets sent. */
ssize_t apus_send_descriptors(int socket, const void *octets, size_t count,
                              const int *descriptors, size_t descriptor_count);

/* Receives octets and descriptors; the descriptors are close-on-exec. *descriptor_count is the room on
 * entry and the number received on return. Returns the octets received, 0 at the end. */
ssize_t apus_receive_descriptors(int socket, void *octets, size_t count,
                                 int *descriptors, size_t *descriptor_count);

/* The uid of the process at the other end of a Unix socket. */
int apus_peer_uid(int socket, uid_t *uid);

/* A pidfd for a child (close-on-exec). */
int apus_pidfd_open(pid_t pid);

/* Kills this process when its parent ends, and returns -ESRCH if the parent is gone already. */
int apus_die_with_parent(pid_t parent, int signal_number);

/* Opens a file below a directory, close-on-exec: whatever leads out of it, a link or `..`, is an error (-EXDEV). On a
 * kernel that cannot tell, no link is followed. */
int apus_open_beneath(int directory, const char *path, int flags);

/* A lock of fcntl(2) on the whole file, as other programs take it on mailboxes; it goes with the process, or when any
 * descriptor of the file is closed. Does not wait: -EAGAIN if another process has it. */
int apus_lock_record(int descriptor);

/* Octets beyond the largest file that a process may write are an error, not a signal. */
void apus_ignore_size_signal(void);

/* Other processes of the same user may not trace this one. */
void apus_forbid_tracing(void);

/* From now on neither this process nor what it starts can make a socket of another family than AF_UNIX, or become
 * more than it is by executing a file. It cannot be undone. */
int apus_forbid_network(void);

/* What shadow(5) keeps of a user's password, into `hash`, and the day on which the account expires, or -1. Returns 1, or
 * 0 if there is no such entry. */
int apus_shadow(const char *user, char *hash, size_t size, long *expiry);

/* open(2) and openat(2) with a mode: variadic in C, so not seen by Swift. */
int apus_open(const char *path, int flags, mode_t mode);
int apus_openat(int directory, const char *path, int flags, mode_t mode);
int apus_fcntl(int descriptor, int command, int argument);

/* Opens /dev/null as each of the descriptors 0, 1 and 2 that is closed: for the first moments of a process, before it has
 * other threads. */
int apus_open_standard_descriptors(void);

/* pipe2(2) with O_CLOEXEC. */
int apus_pipe(int ends[2]);

/* Blocks the signals for this thread and those it makes, and returns a descriptor they are read from. */
int apus_signal_descriptor(const int *numbers, size_t count);

/* The next signal on it: its number, or a negative errno value (-EAGAIN if there is none). */
int apus_next_signal(int descriptor);

/* The text of an errno value; never NULL, safe in any thread. */
const char *apus_error_text(int code, char *buffer, size_t size);

/* Asks for a file's octets to be written to storage, without waiting for it. */
int apus_start_writing(int descriptor);

/* Memory is got from the system in large pieces, and what was freed is kept for the next allocation, up to some
 * megabytes, instead of being given back and asked for again with every message. Before the first thread is made. */
void apus_keep_freed_memory(void);

/* A file without a name, in memory, that holds these octets; nobody can change it any more. Close-on-exec. */
int apus_memory_file(const char *name, const void *octets, size_t count);

/* Sets the soft limit of open descriptors to the hard one. */
int apus_raise_descriptor_limit(void);

#endif
