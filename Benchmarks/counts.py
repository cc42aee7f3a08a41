# SPDX-License-Identifier: Apache-2.0
"""counts.py: what the processes of one MTA do for a message, counted from outside.

  Calls         system calls by name, with perf's tracepoints: nothing is slowed, so that what is shared stays shared
  Samples       where the CPU is spent, the kernel or which library, with perf
  Octets        what is read and written, by kind of descriptor, with strace
  Switches      context switches
  Allocations   calls of malloc and its kin, with Benchmarks/allocations.c in front of the C library
  instructions  user instructions, with callgrind

The last two need the programs started in a way of their own: `wrapped` makes a folder of executables for that.
"""
import collections, mmap, os, re, shutil, signal, struct, subprocess, tempfile, time
from benchlib import HERE, wait_for

PROGRAMS = ("apusd", "apus-smtpd", "apus-lookup", "apus-vault", "apus-queue", "apus-remote", "apus-local", "apus-bounce")
# What a mail program may be expected to call; the rest is counted together.
CALLS = """read write readv writev pread64 pwrite64 recvfrom sendto recvmsg sendmsg accept4 connect socket close shutdown
    getpeername getsockname getsockopt setsockopt epoll_wait epoll_pwait epoll_ctl poll timerfd_settime futex
    fsync fdatasync sync_file_range openat linkat renameat renameat2 unlinkat faccessat2 newfstatat fstatfs statfs flock
    fcntl lseek mmap munmap mprotect madvise brk clone3 sched_yield""".split()


def name_of(pid):
    """The program that a process runs; a worker of apus-local is one of its own."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as f:
            words = [w.decode("utf-8", "replace") for w in f.read().split(b"\0")]
    except OSError:
        return None
    for word in words:
        name = os.path.basename(word).removesuffix(".program")
        if name in PROGRAMS:
            return name + (" (worker)" if "--worker" in words else "")
    return os.path.basename(words[0])


def by_program(pids):
    found = collections.defaultdict(list)
    for pid in pids:
        found[name_of(pid)].append(pid)
    return dict(sorted(found.items(), key=lambda kv: [p in kv[0] for p in PROGRAMS].index(True) if kv[0] in PROGRAMS else 99))


class Calls:
    """perf stat on the system calls of some processes, from `start` to `stop`."""

    def __init__(self, programs):
        have = set(os.listdir("/sys/kernel/tracing/events/syscalls"))
        self.names = [c for c in CALLS if "sys_enter_" + c in have]
        self.programs, self.running = programs, {}

    @staticmethod
    def possible():
        return bool(shutil.which("perf")) and os.path.isdir("/sys/kernel/tracing/events/syscalls")

    def start(self):
        self.folder = tempfile.mkdtemp(prefix="apus-counts-")
        events = ["raw_syscalls:sys_enter"] + ["syscalls:sys_enter_" + c for c in self.names]
        for program, pids in self.programs.items():
            self.running[program] = subprocess.Popen(
                ["perf", "stat", "-x", ";", "-o", os.path.join(self.folder, program), "-e", ",".join(events),
                 "-p", ",".join(map(str, pids))], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(1.5)

    def stop(self):
        """{program: {call: count}}, with "all"."""
        found = {}
        for program, process in self.running.items():
            process.send_signal(signal.SIGINT)
            process.wait(30)
            counts = found[program] = {}
            with open(os.path.join(self.folder, program)) as f:
                for line in f:
                    fields = line.split(";")
                    if len(fields) > 2 and fields[0].isdigit():
                        counts[fields[2].replace("syscalls:sys_enter_", "").replace("raw_syscalls:sys_enter", "all")] = int(fields[0])
        shutil.rmtree(self.folder)
        return found


class Samples:
    """perf record on some processes, from `start` to `stop`."""

    LINE = re.compile(r"^\s*(\d+)\s+[0-9a-f]+\s.*\(([^()]*(?:\([^()]*\))?[^()]*)\)$")

    def __init__(self, programs):
        self.program_of = {pid: program for program, pids in programs.items() for pid in pids}

    @staticmethod
    def possible():
        return bool(shutil.which("perf"))

    def start(self):
        self.folder = tempfile.mkdtemp(prefix="apus-counts-")
        self.file = os.path.join(self.folder, "perf.data")
        self.running = subprocess.Popen(
            ["perf", "record", "-q", "-F", "2999", "-o", self.file, "-p", ",".join(map(str, self.program_of))],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(1.5)

    def stop(self):
        """{program: {place: samples}}; a place is "kernel", a library, or the program's own code."""
        self.running.send_signal(signal.SIGINT)
        self.running.wait(30)
        text = subprocess.run(["perf", "script", "-i", self.file, "-F", "pid,ip,sym,dso"], stdout=subprocess.PIPE,
                              stderr=subprocess.DEVNULL, text=True, errors="replace").stdout
        shutil.rmtree(self.folder)
        found = {}
        for line in text.splitlines():
            match = self.LINE.match(line)
            program = match and self.program_of.get(int(match[1]))
            if not program:
                continue
            place = os.path.basename(match[2].removesuffix(" (deleted)"))
            if place.startswith("["):
                place = "kernel" if "kernel" in place else "its own"
            elif ".so" not in place:
                place = "its own"
            found.setdefault(program, collections.Counter())[place.split(".so")[0]] += 1
        return found


def switches(programs):
    """{program: (voluntary, involuntary)} so far."""
    found = {}
    for program, pids in programs.items():
        total = [0, 0]
        for pid in pids:
            for task in os.listdir(f"/proc/{pid}/task"):
                with open(f"/proc/{pid}/task/{task}/status") as f:
                    text = f.read()
                for i, word in enumerate(("voluntary", "nonvoluntary")):
                    total[i] += int(re.search(rf"^{word}_ctxt_switches:\s+(\d+)", text, re.M)[1])
        found[program] = tuple(total)
    return found


class Octets:
    """strace on what carries octets: how many go through pipes, sockets and files, by program."""

    CALL = re.compile(r"^\d+\s+(\w+)\((?:\d+<([^>]*)>).*= (\d+)(?:<.*)?$")
    RESUMED = re.compile(r"^(\d+)\s+<\.\.\. (\w+) resumed>.*= (\d+)$")
    BEGUN = re.compile(r"^(\d+)\s+(\w+)\(\d+<([^>]*)>.*<unfinished \.\.\.>$")
    NAMES = "read,write,readv,writev,pread64,pwrite64,pwritev,recvfrom,sendto,recvmsg,sendmsg"

    def __init__(self, programs):
        self.programs, self.running = programs, {}

    @staticmethod
    def possible():
        return bool(shutil.which("strace"))

    def start(self):
        self.folder = tempfile.mkdtemp(prefix="apus-counts-")
        for program, pids in self.programs.items():
            command = ["strace", "-f", "-y", "-s", "0", "-e", "trace=" + self.NAMES, "-o", os.path.join(self.folder, program)]
            for pid in pids:
                command += ["-p", str(pid)]
            self.running[program] = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(1.5)

    @staticmethod
    def kind(place):
        if place.startswith("pipe:"):
            return "pipes"
        if place.startswith(("socket:", "TCP", "UNIX")):
            return "sockets"
        return "rest" if place.startswith("anon_inode") else "files"

    def stop(self):
        """{program: {(kind, "in" or "out"): octets}}"""
        found = {}
        for program, process in self.running.items():
            process.send_signal(signal.SIGINT)
            process.wait(60)
            counts, begun = found.setdefault(program, collections.Counter()), {}
            with open(os.path.join(self.folder, program), errors="replace") as f:
                for line in f:
                    line = line.rstrip("\n")
                    if match := self.BEGUN.match(line):
                        begun[match[1]] = match[3]
                        continue
                    if match := self.RESUMED.match(line):
                        call, place, count = match[2], begun.pop(match[1], ""), int(match[3])
                    elif match := self.CALL.match(line):
                        call, place, count = match[1], match[2], int(match[3])
                    else:
                        continue
                    counts[self.kind(place), "in" if call.startswith(("read", "pread", "recv")) else "out"] += count
        shutil.rmtree(self.folder)
        return found


def wrapped(command, strip=False):
    """A folder of executables in which each of our daemons is started by `command`, its words before the program's.

    `{program}` in a word is the program's name. Workers of apus-local, which start themselves, are not reached.
    """
    from drivers.apus import binary
    folder = tempfile.mkdtemp(prefix="apus-wrapped-")
    os.chmod(folder, 0o755)
    for name in (*PROGRAMS, "apus"):
        if name in ("apus", "apusd"):
            shutil.copy(binary(name), folder)
            continue
        shutil.copy(binary(name), os.path.join(folder, name + ".program"))
        if strip:
            subprocess.run(["strip", "--strip-debug", os.path.join(folder, name + ".program")], check=True)
        words = " ".join(w.replace("{program}", name) for w in command)
        path = os.path.join(folder, name)
        with open(path, "w") as f:
            f.write(f'#!/bin/sh\nexec {words} "${{0%/*}}/{name}.program" "$@"\n')
        os.chmod(path, 0o755)
    return folder


class Allocations:
    """Counts of malloc and its kin in programs started from `folder`; each has a file of counters in shared memory."""

    def __init__(self):
        self.place = tempfile.mkdtemp(prefix="apus-allocations-")
        os.chmod(self.place, 0o777)
        self.library = os.path.join(self.place, "allocations.so")
        subprocess.run([self.compiler(), "-O2", "-fPIC", "-shared", "-o", self.library, os.path.join(HERE, "allocations.c")], check=True)
        self.folder = wrapped(["env", f"LD_PRELOAD={self.library}", f"APUS_ALLOCATIONS={self.place}/{{program}}"])

    @staticmethod
    def possible():
        return bool(Allocations.compiler())

    @staticmethod
    def compiler():
        return shutil.which("cc") or shutil.which("clang")

    def read(self):
        """{program: (calls, octets)} so far."""
        found = {}
        for name in PROGRAMS:
            try:
                with open(os.path.join(self.place, name), "rb") as f:
                    found[name] = struct.unpack("QQ", f.read(16))
            except (OSError, struct.error):
                pass
        return found

    def close(self):
        shutil.rmtree(self.place, True)
        shutil.rmtree(self.folder, True)


class Callgrind:
    """User instructions of programs that run in valgrind's machine, started from `folder`."""

    def __init__(self):
        self.place = tempfile.mkdtemp(prefix="apus-callgrind-")
        os.chmod(self.place, 0o777)
        self.read_place = tempfile.mkdtemp(prefix="apus-callgrind-read-")
        # valgrind cannot read every compiler's debug sections, and needs only the names of functions.
        self.folder = wrapped(
            ["valgrind", "-q", "--tool=callgrind", f"--callgrind-out-file={self.place}/{{program}}.%p", "--dump-line=no"],
            strip=True)

    @staticmethod
    def possible():
        return bool(shutil.which("valgrind") and shutil.which("strip"))

    def read(self):
        """{program: instructions} of all processes that have ended since the last time."""
        found = {}
        for name in os.listdir(self.place):
            path = os.path.join(self.place, name)
            with open(path) as f:
                total = re.findall(r"^(?:totals|summary): (\d+)", f.read(), re.M)
            program = name.split(".")[0]
            found[program] = found.get(program, 0) + (int(total[-1]) if total else 0)
            os.rename(path, os.path.join(self.read_place, name))
        return found

    def close(self, keep=None):
        """Ends it; the files for callgrind_annotate go to the folder `keep`."""
        if keep:
            shutil.copytree(self.read_place, keep, dirs_exist_ok=True)
        for place in (self.place, self.read_place, self.folder):
            shutil.rmtree(place, True)
