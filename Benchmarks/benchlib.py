# SPDX-License-Identifier: Apache-2.0
"""benchlib.py: the parts bench.py is made of.

  Cgroup      gives one MTA a CPU account of its own (cgroup v1 cpuacct or v2;
              without either, /proc times of the process tree)
  Machine     whole-machine counters: CPU busy, steal, disk writes and flushes
  Sink        a smtp-sink whose received-message count can be read
  source()    one bounded smtp-source run
  Env         what a driver is given (see drivers/__init__.py)

Only loopback addresses are used.  Everything started is ended by pid.
"""
import os, pwd, shutil, signal, socket, subprocess, sys, tempfile, time

HERE = os.path.dirname(os.path.abspath(__file__))
HOST = "127.0.0.1"


def wait_for(check, timeout, step=0.01):
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        if check():
            return True
        time.sleep(step)
    return False


def free_port():
    with socket.socket() as s:
        s.bind((HOST, 0))
        return s.getsockname()[1]


def port_open(port):
    try:
        with socket.create_connection((HOST, port), 1) as s:
            s.settimeout(3)
            ok = s.recv(4) == b"220 " or True
            s.sendall(b"QUIT\r\n")
            s.recv(512)
            return ok
    except OSError:
        return False


def _slurp(path):
    with open(path) as f:
        return f.read()


class Cgroup:
    """A cgroup holding every process of one MTA."""

    def __init__(self, name):
        self.path = self.kind = None
        v1, v2 = "/sys/fs/cgroup/cpuacct", "/sys/fs/cgroup"
        if os.path.exists(v1 + "/cgroup.procs"):
            self.kind, base = "v1", v1
        elif os.path.exists(v2 + "/cgroup.controllers"):
            self.kind, base = "v2", v2
        if self.kind:
            path = os.path.join(base, "bench-%s-%d" % (name, os.getpid()))
            try:
                os.mkdir(path)
                self.path = path
            except OSError:
                self.kind = None
        self.roots = []

    def enter(self):
        """Runs in the child between fork and exec."""
        if self.path:
            fd = os.open(self.path + "/cgroup.procs", os.O_WRONLY)
            os.write(fd, b"0")
            os.close(fd)

    def pids(self):
        if self.path:
            return [int(p) for p in _slurp(self.path + "/cgroup.procs").split()]
        kids = {}
        for p in os.listdir("/proc"):
            if p.isdigit():
                try:
                    ppid = int(_slurp("/proc/%s/stat" % p).rsplit(")", 1)[1].split()[1])
                except OSError:
                    continue
                kids.setdefault(ppid, []).append(int(p))
        out, todo = [], [p for p in self.roots if os.path.exists("/proc/%d" % p)]
        while todo:
            p = todo.pop()
            out.append(p)
            todo += kids.get(p, [])
        return out

    def cpu(self):
        """(user, system) CPU seconds used so far.

        Their sum is the scheduler's own account. How it divides is known from samples at clock ticks only, and those
        alone would be wrong for programs that work in short bursts.
        """
        if self.kind == "v1":
            user, system = (int(_slurp(self.path + "/cpuacct.usage_" + w)) / 1e9 for w in ("user", "sys"))
            total = int(_slurp(self.path + "/cpuacct.usage")) / 1e9
            share = user / (user + system) if user + system else 0
            return total * share, total * (1 - share)
        if self.kind == "v2":
            d = dict(l.split() for l in _slurp(self.path + "/cpu.stat").splitlines())
            return int(d["user_usec"]) / 1e6, int(d["system_usec"]) / 1e6
        u = s = 0
        for p in self.pids():
            try:
                f = _slurp("/proc/%d/stat" % p).rsplit(")", 1)[1].split()
            except OSError:
                continue
            u += int(f[11]) + int(f[13])
            s += int(f[12]) + int(f[14])
        hz = os.sysconf("SC_CLK_TCK")
        return u / hz, s / hz

    def pss_kib(self):
        """(processes, sum of PSS in KiB)."""
        n = total = 0
        for p in self.pids():
            try:
                for line in _slurp("/proc/%d/smaps_rollup" % p).splitlines():
                    if line.startswith("Pss:"):
                        total += int(line.split()[1])
                        n += 1
            except OSError:
                pass
        return n, total

    def end_all(self):
        """End whatever is still in this cgroup: TERM, then KILL, by pid."""
        for sig, patience in ((signal.SIGTERM, 3), (signal.SIGKILL, 3)):
            for p in self.pids():
                try:
                    os.kill(p, sig)
                except OSError:
                    pass
            if wait_for(lambda: not self.pids(), patience, 0.05):
                return

    def remove(self):
        self.end_all()
        if self.path:
            try:
                os.rmdir(self.path)
            except OSError as e:
                print("note: %s: %s" % (self.path, e), file=sys.stderr)


class Machine:
    """Snapshot of whole-machine counters; subtract two for a run."""

    def __init__(self, path):
        f = [int(x) for x in _slurp("/proc/stat").splitlines()[0].split()[1:]]
        self.total, self.idle, self.iowait, self.steal = sum(f[:8]), f[3], f[4], f[7]
        self.kib = self.writes = self.flushes = 0
        dev = os.stat(path).st_dev
        want = "%d %d" % (os.major(dev), os.minor(dev))
        for line in _slurp("/proc/diskstats").splitlines():
            f = line.split()
            if f[0] + " " + f[1] == want:
                self.writes, self.kib = int(f[7]), int(f[9]) / 2
                self.flushes = int(f[18]) if len(f) > 18 else 0

    def since(self, a):
        t = max(1, self.total - a.total)
        pct = lambda n: round(100.0 * n / t, 1)
        return {"busy_pct": pct(t - (self.idle - a.idle) - (self.iowait - a.iowait)),
                "iowait_pct": pct(self.iowait - a.iowait),
                "steal_pct": pct(self.steal - a.steal),
                "disk_kib": self.kib - a.kib, "disk_writes": self.writes - a.writes,
                "disk_flushes": self.flushes - a.flushes}


class Sink:
    """smtp-sink on loopback.  count() is the number of messages it has taken."""

    def __init__(self, directory):
        self.port = free_port()
        # the running count goes to memory, not to the disk under test
        shm = "/dev/shm" if os.path.isdir("/dev/shm") else directory
        self.out = tempfile.NamedTemporaryFile(dir=shm, prefix="bench-sink-")
        self.proc = subprocess.Popen(
            ["smtp-sink", "-4", "-c", "-m", "2000", "-u", "nobody", "%s:%d" % (HOST, self.port), "1024"],
            stdout=self.out, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
        if not wait_for(lambda: port_open(self.port), 5, 0.05):
            raise RuntimeError("smtp-sink did not start")

    def count(self):
        size = os.fstat(self.out.fileno()).st_size
        tail = os.pread(self.out.fileno(), 200, max(0, size - 200)).decode("ascii", "replace")
        for part in reversed(tail.split("\r")):
            if "mesg=" in part and part.startswith("sess="):
                try:
                    return int(part.split("mesg=")[1].strip())
                except ValueError:
                    continue
        return 0

    def stop(self):
        self.proc.terminate()
        self.proc.wait(5)
        self.out.close()


def source(port, sessions, messages, length, rcpt, reuse=False, timeout=120, wait=True):
    """One smtp-source run; returns the seconds until its last message was acknowledged."""
    cmd = ["smtp-source", "-4", "-s", str(sessions), "-m", str(messages), "-l", str(length),
           "-f", "sender@example.org", "-t", rcpt, "-M", "client.example.org"]
    if reuse:
        cmd.append("-d")
    cmd.append("%s:%d" % (HOST, port))
    start = time.monotonic()
    p = subprocess.Popen(cmd, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        _, err = p.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        p.kill()
        p.communicate()
        raise RuntimeError("smtp-source ran past %d s" % timeout)
    if p.returncode:
        raise RuntimeError("smtp-source: " + err.decode("utf-8", "replace").strip()[-300:])
    return time.monotonic() - start


class Env:
    """Handed to a driver; lives as long as one start of the MTA."""
    user = os.environ.get("BENCH_USER", "benchuser")   # unix user for local delivery
    local_domain = "bench.test"                        # delivered locally in mode "local"
    sink_domain = "sink.test"                          # relayed to the sink
    runs_as = None                                     # a user instead of root

    def __init__(self, name, sink_port):
        self.dir = tempfile.mkdtemp(prefix="bench-%s-" % name, dir=os.environ.get("BENCH_TMP"))
        os.chmod(self.dir, 0o755)
        self.port, self.sink_port = free_port(), sink_port
        self.cgroup = Cgroup(name)

        self.cert = self.key = None

    def make_cert(self, kind):
        """A certificate for the MTA to show: "ec" (P-256) or "rsa" (2048)."""
        self.cert, self.key = self.path("cert.pem"), self.path("key.pem")
        new = ["ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"] if kind == "ec" else ["rsa:2048"]
        subprocess.run(["openssl", "req", "-x509", "-newkey", *new, "-nodes", "-days", "30", "-subj", "/CN=localhost",
                        "-keyout", self.key, "-out", self.cert], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.chmod(self.key, 0o600)

    def path(self, *parts):
        return os.path.join(self.dir, *parts)

    def write(self, name, text, mode=0o644):
        p = self.path(name)
        os.makedirs(os.path.dirname(p), exist_ok=True)
        with open(p, "w") as f:
            f.write(text)
        os.chmod(p, mode)
        return p

    def mkdir(self, name, owner=None, mode=0o755):
        p = self.path(name)
        os.makedirs(p, exist_ok=True)
        if owner:
            shutil.chown(p, *owner)
        os.chmod(p, mode)
        return p

    def spawn(self, argv, log="spawn.log", env=None, cwd=None):
        """Start a process of the MTA, inside its cgroup, as the user `runs_as` if there is one."""
        out = open(self.path(log), "ab")

        def enter():
            self.cgroup.enter()
            if self.runs_as:
                entry = pwd.getpwnam(self.runs_as)
                os.setgroups([])
                os.setgid(entry.pw_gid)
                os.setuid(entry.pw_uid)
        p = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=cwd,
                             env=dict(os.environ, **(env or {})), preexec_fn=enter,
                             start_new_session=True)
        self.cgroup.roots.append(p.pid)
        return p

    def close(self, keep=False):
        self.cgroup.remove()
        if not keep:
            shutil.rmtree(self.dir, ignore_errors=True)


def count_files(*dirs):
    """Files under these directories, at any depth."""
    n = 0
    for d in dirs:
        for _, _, files in os.walk(d):
            n += len(files)
    return n
