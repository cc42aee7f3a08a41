#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""bench.py: measure a mail transfer agent on this machine, over loopback only.

    ./bench.py --mta postfix,opensmtpd --tests relay,accept --runs 3
    ./bench.py --report                 tables from results/results.jsonl
    ./bench.py --list                   tests and drivers

Needs root, smtp-source and smtp-sink (Debian package postfix) and, for the peers,
./get-peers.sh once.  Each test starts the MTA afresh in a private directory
(BENCH_TMP, else the system's temporary directory: put it on the disk to be tested,
not on tmpfs), warms it up, then takes the runs.  One JSON line per run is added to
results/results.jsonl.  What a figure means is in README.md.
"""
import argparse, atexit, importlib, json, os, resource, shutil, signal, socket, statistics, subprocess, sys, time
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from latency import NextHop, latency
from benchlib import HERE, HOST, Env, Machine, Sink, port_open, source, wait_for

RESULTS = os.environ.get("BENCH_RESULTS") or os.path.join(HERE, "../.build/benchmark/results.jsonl")
#        test: (group, kind, MTA mode, sessions, messages, bytes, reuse sessions)
TESTS = {
    "relay-4k-s20": ("relay", "relay", "relay", 20, 5000, 4096, False),
    "relay-4k-s100": ("relay", "relay", "relay", 100, 5000, 4096, False),
    "relay-4k-s20-reuse": ("relay", "relay", "relay", 20, 5000, 4096, True),
    "relay-64k-s20": ("relay", "relay", "relay", 20, 2000, 65536, False),
    "relay-64k-s100": ("relay", "relay", "relay", 100, 2000, 65536, False),
    "accept-4k-s1": ("accept", "accept", "hold", 1, 1000, 4096, False),
    "accept-4k-s20": ("accept", "accept", "hold", 20, 5000, 4096, False),
    "accept-4k-s100": ("accept", "accept", "hold", 100, 5000, 4096, False),
    "accept-4k-s20-reuse": ("accept", "accept", "hold", 20, 5000, 4096, True),
    "defer-4k-s20": ("accept", "accept", "defer", 20, 3000, 4096, False),
    "discard-4k-s20": ("accept", "discard", "discard", 20, 5000, 4096, False),
    "local-4k-s20": ("local", "local", "local", 20, 3000, 4096, False),
    "tls-ec": ("tls", "tls", "hold", 8, 1000, 1024, False),
    "tls-rsa": ("tls", "tls", "hold", 8, 1000, 1024, False),
    "plain-py": ("tls", "tls", "hold", 8, 1000, 1024, False),
    "latency": ("latency", "latency", "relay", 1, 200, 4096, False),
    "idle": ("idle", "idle", "hold", 1000, 0, 0, False),
    "idle-10k": ("idle", "idle", "hold", 10000, 0, 0, False),
}
QUIET = 0.5        # seconds without work before the CPU account is closed


def maildir(user):
    return os.path.join(os.path.expanduser("~" + user), "Maildir")


cleared = []       # what earlier runs have delivered, out of the way
FREED_SECONDS = 370                     # for so long ext4 without a journal remembers freed inodes
waits = False                           # whether to wait until it has forgotten: where CPU seconds are the result


def clear_maildir(user):
    """An empty mailbox. The old one is only moved, and removed at the end: ext4 without a journal looks past inodes that were
    freed in the last minutes, one by one, at each new file, and that would be counted as the MTA's work."""
    note = os.path.expanduser("~%s/.bench-removed" % user)
    if waits and not cleared and os.path.exists(note):
        wait = FREED_SECONDS - (time.time() - os.stat(note).st_mtime)
        os.unlink(note)
        if wait > 0:
            print("   waiting %d s: mailboxes of the last benchmark were removed just now" % wait, file=sys.stderr, flush=True)
            time.sleep(wait)
    if os.path.exists(maildir(user)):
        if not cleared:
            atexit.register(remove_cleared, note)
        cleared.append("%s.%d-%d" % (maildir(user), os.getpid(), len(cleared)))
        os.rename(maildir(user), cleared[-1])


def remove_cleared(note):
    for path in cleared:
        shutil.rmtree(path, ignore_errors=True)
    open(note, "w").close()


def delivered(user):
    try:
        return len(os.listdir(maildir(user) + "/new"))
    except FileNotFoundError:
        return 0


def calibrate():
    """CPU seconds of a fixed piece of work: tells a slow minute of the machine from a slow MTA."""
    t = time.process_time()
    n = 0
    for i in range(600000):
        n += i
    for i in range(60000):
        os.getppid()
        os.access("/", os.F_OK)
    return round(time.process_time() - t, 4)


class Running:
    """One start of one MTA."""

    def __init__(self, mta, mode, sink, connections=200, keep=False, user=None, patience=20, cert=None):
        self.env = Env(mta, sink.port)
        if cert:
            self.env.make_cert(cert)
        self.env.runs_as = user
        self.keep = keep
        self.driver = importlib.import_module("drivers." + mta).Driver(self.env)
        self.sink = sink
        try:
            self.driver.start(mode, connections)
            if not wait_for(lambda: port_open(self.env.port), patience, 0.1):
                raise RuntimeError("%s does not answer; see %s" % (mta, self.env.dir))
            if hasattr(self.driver, "ready"):
                self.driver.ready()
        except BaseException:
            self.keep = True
            self.close()
            raise

    def close(self):
        try:
            self.driver.stop()
        finally:
            self.env.close(self.keep)

    def load(self, kind, sessions, messages, length, reuse, client=None):
        """One run; returns a dictionary of figures. `client` sends instead of smtp-source and says how long it took."""
        env, cg = self.env, self.env.cgroup
        rcpt = "%s@%s" % (env.user, env.local_domain) if kind == "local" else "rcpt@" + env.sink_domain
        if kind == "local":
            clear_maildir(env.user)
        base = self.sink.count()
        m0, c0, t0 = Machine(env.dir), cg.cpu(), time.monotonic()
        r = {}
        accepted = client() if client else source(env.port, sessions, messages, length, rcpt, reuse)
        end = accepted
        limit = 120
        if kind == "relay":
            ok = wait_for(lambda: self.sink.count() - base >= messages, limit)
            end = time.monotonic() - t0
        elif kind == "local":
            ok = wait_for(lambda: delivered(env.user) >= messages, limit, 0.03)
            end = time.monotonic() - t0
        elif kind == "discard":
            ok = wait_for(lambda: self.driver.queued() == 0, limit, 0.03)
            end = time.monotonic() - t0
        else:
            ok = True
        if kind in ("relay", "local"):
            wait_for(lambda: self.driver.queued() == 0, 15, 0.1)
        m1 = Machine(env.dir).since(m0)
        last = cg.cpu()
        while True:                       # until the MTA has stopped working
            time.sleep(QUIET)
            c1 = cg.cpu()
            if sum(c1) - sum(last) < 0.02 or time.monotonic() - t0 > limit:
                break
            last = c1
        cpu = sum(c1) - sum(c0)
        r.update(m1)
        r.update(ok=ok, messages=messages, seconds=round(end, 3), accept_seconds=round(accepted, 3),
                 rate=round(messages / end, 1), accept_rate=round(messages / accepted, 1),
                 cpu=round(cpu, 3), cpu_per_1000=round(1000 * cpu / messages, 3),
                 user_per_1000=round(1000 * (c1[0] - c0[0]) / messages, 3),
                 sys_per_1000=round(1000 * (c1[1] - c0[1]) / messages, 3),
                 kib_per_msg=round(m1["disk_kib"] / messages, 1),
                 writes_per_msg=round(m1["disk_writes"] / messages, 2),
                 flushes_per_msg=round(m1["disk_flushes"] / messages, 2))
        if kind == "relay":
            r["extra_deliveries"] = self.sink.count() - base - messages
        return r


def idle(run, want):
    """Open up to `want` connections, EHLO each, and see what they weigh."""
    cg = run.env.cgroup
    source(run.env.port, 5, 50, 4096, "rcpt@" + run.env.sink_domain)
    time.sleep(2)
    n0, p0 = cg.pss_kib()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    socks, t0, c0 = [], time.monotonic(), cg.cpu()
    why = ""
    try:
        for number in range(want):
            # One address has ports for 28,000 connections at a time, fewer while old ones wait for their end.
            source_address = ("127.0.%d.1" % (number // 2000), 0)
            s = socket.create_connection((HOST, run.env.port), 10, source_address)
            s.settimeout(10)
            socks.append(s)
            if not s.recv(1000).startswith(b"220"):
                why = "no 220"
                break
            s.sendall(b"EHLO client.example.org\r\n")
            buf = b""
            while b"250 " not in buf:
                d = s.recv(2000)
                if not d:
                    raise OSError("closed")
                buf += d
    except OSError as e:
        why = str(e)
    opened = len(socks) - (1 if why else 0)
    took = time.monotonic() - t0
    time.sleep(1)
    c1 = cg.cpu()
    n1, p1 = cg.pss_kib()
    for s in socks:
        s.close()
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return dict(ok=opened == want, opened=opened, stopped_by=why, seconds=round(took, 2), processes_rest=n0,
                processes=n1, rest_kib=p0, loaded_kib=p1, kib_per_conn=round((p1 - p0) / max(1, opened), 1),
                cpu_per_1000=round(1000 * (sum(c1) - sum(c0)) / max(1, opened), 3), messages=opened)


def tls_client(port, workers, messages, length, tls):
    """A full handshake and one message on each connection; with "plain" the same without TLS. Returns the seconds."""
    words = [str(port), str(workers), str(messages), str(length), "tls" if tls else "plain"]
    done = subprocess.run([sys.executable, os.path.join(HERE, "tlsclient.py"), *words], timeout=120, stdout=subprocess.PIPE, check=True)
    return float(done.stdout)


def one_test(mta, test, runs, scale, keep):
    group, kind, mode, sessions, messages, length, reuse = TESTS[test]
    messages = max(1, int(messages * scale))
    out = []
    fresh = mode in ("hold", "defer") # the queue grows: start each run from an empty one
    cert = {"tls-ec": "ec", "tls-rsa": "rsa"}.get(test)
    sink = NextHop() if kind == "latency" else Sink("/tmp")
    run = None
    try:
        for i in range(runs):
            if run is None:
                run = Running(mta, mode, sink, max(200, sessions), keep, cert=cert)
                if kind not in ("idle", "latency"):
                    n = 40 if sessions == 1 else 3 * sessions
                    run.load(kind, sessions, n, 4096, reuse)
            calib = calibrate()
            if kind == "idle":
                r = idle(run, sessions)
            elif kind == "latency":
                r = latency(run.env.port, sink, messages, length, "rcpt@" + run.env.sink_domain)
            elif kind == "tls":
                r = run.load("accept", 0, messages, length, reuse,
                             lambda: tls_client(run.env.port, sessions, messages, length, bool(cert)))
            else:
                r = run.load(kind, sessions, messages, length, reuse)
            r.update(calib=calib, mta=os.environ.get("BENCH_LABEL", mta), test=test, at=int(time.time()))
            out.append(r)
            os.makedirs(os.path.dirname(RESULTS), exist_ok=True)
            with open(RESULTS, "a") as f:
                f.write(json.dumps(r) + "\n")
            if fresh:
                run.close()
                run = None
        return out
    finally:
        if run:
            run.close()
        sink.stop()
        if kind == "local":
            clear_maildir(Env.user)


def spread(rows, key, digits=0):
    v = [r[key] for r in rows if key in r]
    if not v:
        return "-"
    f = "%%.%df" % digits
    return "%s (%s-%s)" % tuple(f % x for x in (statistics.median(v), min(v), max(v)))


def report(rows):
    by = {}
    for r in rows:
        by.setdefault((r["test"], r["mta"]), []).append(r)
    order = {t: i for i, t in enumerate(TESTS)}
    print("median (min-max); CPU is the MTA's own; busy, iowait and steal are the whole machine's")
    print("%-20s %-16s %2s %-20s %-20s %-19s %9s %6s %6s %5s/%s/%s" % (
        "test", "mta", "n", "messages/s", "accepted/s", "CPU s per 1000", "user+sys", "KiB/m", "flsh/m", "busy%", "iow", "steal  calib ms"))
    for (test, mta), rs in sorted(by.items(), key=lambda kv: (order.get(kv[0][0], 99), kv[0][1])):
        if TESTS[test][1] == "latency":
            print("%-20s %-16s %2d from the final dot, median and 99th percentile: first octet at the next hop %s %s ms, "
                  "content %s %s ms, 250 %s %s ms" % (
                      test, mta, len(rs), spread(rs, "first_ms", 2), spread(rs, "first_p99_ms", 2), spread(rs, "content_ms", 2),
                      spread(rs, "content_p99_ms", 2), spread(rs, "answer_ms", 2), spread(rs, "answer_p99_ms", 2)))
            continue
        if TESTS[test][1] == "idle":
            print("%-20s %-16s %2d KiB/conn %s of %d opened; rest %d KiB, %d->%d processes; CPU s/1000 conns %s %s" % (
                test, mta, len(rs), spread(rs, "kib_per_conn", 1), rs[-1]["opened"], rs[-1]["rest_kib"],
                rs[-1]["processes_rest"], rs[-1]["processes"], spread(rs, "cpu_per_1000", 2), rs[-1]["stopped_by"]))
            continue
        med = lambda k: statistics.median(r[k] for r in rs)
        bad = "" if all(r["ok"] for r in rs) else "  INCOMPLETE"
        print("%-20s %-16s %2d %-20s %-20s %-19s %4.2f+%4.2f %6.1f %6.2f %5.0f/%.0f/%.0f  %s%s" % (
            test, mta, len(rs), spread(rs, "rate"), spread(rs, "accept_rate"), spread(rs, "cpu_per_1000", 2),
            med("user_per_1000"), med("sys_per_1000"), med("kib_per_msg"), med("flushes_per_msg"),
            med("busy_pct"), med("iowait_pct"), med("steal_pct"),
            spread([dict(c=1000 * r["calib"]) for r in rs if "calib" in r], "c"), bad))


def end_orderly():
    """SIGTERM ends what was started, as Ctrl-C does."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--mta", default="postfix")
    ap.add_argument("--tests", default="relay,accept,local,idle", help="test names or groups")
    ap.add_argument("--runs", type=int, default=3)
    ap.add_argument("--scale", type=float, default=1.0, help="multiply the message counts")
    ap.add_argument("--keep", action="store_true", help="keep the MTA's directory")
    ap.add_argument("--report", action="store_true")
    ap.add_argument("--list", action="store_true")
    a = ap.parse_args()
    if a.list:
        print("tests:  ", *TESTS)
        print("groups: ", *sorted({t[0] for t in TESTS.values()}))
        print("drivers:", *sorted(f[:-3] for f in os.listdir(HERE + "/drivers") if f.endswith(".py") and f[0] != "_"))
        return
    if a.report:
        report([json.loads(l) for l in open(RESULTS)])
        return
    global waits
    waits = True
    end_orderly()
    wanted = a.tests.split(",")
    rows = []
    for mta in a.mta.split(","):
        driver = importlib.import_module("drivers." + mta).Driver
        skip = getattr(driver, "skip", ())          # unless asked for by name
        for test, spec in TESTS.items():
            if (test in wanted or spec[0] in wanted and test not in skip) and spec[2] in driver.modes:
                print("-- %s %s" % (mta, test), file=sys.stderr, flush=True)
                try:
                    rows += one_test(mta, test, a.runs, a.scale, a.keep)
                except Exception as e:
                    print("   failed: %s" % e, file=sys.stderr, flush=True)
    report(rows)


if __name__ == "__main__":
    main()
