#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""profile.py: where the CPU of Apus goes, per message: system calls, context switches, octets copied, CPU in the kernel
and in each library, allocations, user instructions, by program; and what the same would cost with no MTA there.

    sudo Benchmarks/profile                       relay, accept and local, 4 KiB, 20 sessions
    sudo Benchmarks/profile --tests local --messages 4000
    sudo Benchmarks/profile --tests tls,plain-py --only samples

What is not installed (perf, strace, valgrind, cc) is left out and said so. Allocations and instructions are counted
without root's part of apus-local: one process delivers, as its one user. With TLS only samples are taken.
"""
import argparse, os, resource, subprocess, sys
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import bench, counts
from benchlib import HERE, Env, Sink, source

MODES = {"relay": "relay", "accept": "hold", "local": "local", "tls": "hold", "plain-py": "hold"}
# The clients that speak TLS, or that do the same without, are tlsclient.py's.
CLIENTS = 8
SESSIONS = 20
LENGTH = 4096


class Profiled(bench.Running):
    """One Apus to be looked at."""

    def __init__(self, kind, sink, folder=None, user=None, patience=20):
        self.kind = kind
        if folder:
            before, os.environ["APUS_BIN"] = os.environ.get("APUS_BIN"), folder
        try:
            super().__init__("apus", MODES[kind], sink, user=user, patience=patience, cert="ec" if kind == "tls" else None)
        finally:
            if folder:
                os.environ.pop("APUS_BIN")
                if before:
                    os.environ["APUS_BIN"] = before
        self.send(10 * SESSIONS)

    def send(self, messages):
        if self.kind in ("tls", "plain-py"):
            figures = self.load(self.kind, CLIENTS, messages, 1024, False,
                                lambda: bench.tls_client(self.env.port, CLIENTS, messages, 1024, self.kind == "tls"))
        else:
            figures = self.load(self.kind, SESSIONS, messages, LENGTH, False)
        if not figures["ok"]:
            raise RuntimeError("not all messages came through")
        return figures

    def programs(self):
        return counts.by_program(self.env.cgroup.pids())


def print_table(title, rows, digits=2):
    """rows: {program: {column: number}}; columns without a number are left out."""
    columns = []
    for row in rows.values():
        columns += [c for c in row if c not in columns]
    columns = [c for c in columns if any(row.get(c, 0) >= 0.5 * 10 ** -digits for row in rows.values())]
    print(f"\n{title}")
    names = [n for n in rows if any(rows[n].get(c, 0) >= 0.5 * 10 ** -digits for c in columns)]
    width = max([16] + [len(str(c)) + 2 for c in columns])
    print(" " * width + "".join(f"{n:>22}" for n in names) + f"{'together':>12}")
    for column in columns:
        values = [rows[n].get(column, 0) for n in names]
        print(f"{column:<{width}}" + "".join(f"{v:>22.{digits}f}" if v else " " * 22 for v in values) + f"{sum(values):>12.{digits}f}")


def per_message(found, messages):
    return {p: {c: n / messages for c, n in row.items()} for p, row in found.items()}


def profile_calls(kind, sink, messages):
    run = Profiled(kind, sink)
    try:
        programs = run.programs()
        calls = counts.Calls(programs) if counts.Calls.possible() else None
        if calls:
            calls.start()
        before = counts.switches(programs)
        figures = run.send(messages)
        after = counts.switches(programs)
        found = calls.stop() if calls else {}
        for row in found.values():
            total = row.pop("all", 0)
            row.update({"others": total - sum(row.values()), "all": total})
        if found:
            print_table(f"{kind}: system calls per message", per_message(found, messages))
        else:
            print("\nsystem calls: perf and its tracepoints are needed")
        rows = {p: {"by itself": (after[p][0] - before[p][0]) / messages, "by force": (after[p][1] - before[p][1]) / messages}
                for p in programs}
        print_table(f"{kind}: context switches per message", rows)
        print(f"\n{kind}: {figures['flushes_per_msg']} flushes and {figures['kib_per_msg']} KiB written to the disk per message")
        if not counts.Octets.possible():
            return print("\noctets: strace is needed")
        octets = counts.Octets(programs)
        octets.start()
        run.send(messages // 4)
        found = {p: {f"{kind_} {way}": n for (kind_, way), n in sorted(row.items())} for p, row in octets.stop().items()}
        print_table(f"{kind}: octets copied by system calls per message", per_message(found, messages // 4), 0)
    finally:
        run.close()


def profile_samples(kind, sink, messages):
    if not counts.Samples.possible():
        return print("\nsamples: perf is needed")
    run = Profiled(kind, sink)
    try:
        samples = counts.Samples(run.programs())
        samples.start()
        figures = run.send(messages)
        found = samples.stop()
        # What is sampled is divided like what the kernel's account says was used.
        each = 1000 * figures["cpu_per_1000"] / sum(sum(row.values()) for row in found.values())
        rows = {p: {place: each * n for place, n in row.most_common()} for p, row in found.items()}
        print_table(f"{kind}: CPU in microseconds per message, by samples", rows, 0)
    finally:
        run.close()


def profile_allocations(kind, sink, messages):
    if not counts.Allocations.possible():
        return print("\nallocations: a C compiler is needed")
    counter = counts.Allocations()
    run = Profiled(kind, sink, counter.folder, user=Env.user)
    try:
        before = counter.read()
        run.send(messages)
        after = counter.read()
        rows = {p: {"allocations": (after[p][0] - before[p][0]) / messages, "octets": (after[p][1] - before[p][1]) / messages}
                for p in before}
        print_table(f"{kind}: allocations per message", rows, 1)
    finally:
        run.close()
        counter.close()


def profile_instructions(kind, sink, messages, keep):
    if not counts.Callgrind.possible():
        return print("\ninstructions: valgrind is needed")
    machine = counts.Callgrind()
    try:
        totals = []
        # The difference of two lives of the programs is what the messages cost that only one of them has seen.
        for count in (0, messages):
            run = Profiled(kind, sink, machine.folder, user=Env.user, patience=120)
            try:
                if count:
                    run.send(count)
            finally:
                run.close()
            totals.append(machine.read())
        rows = {p: {"instructions": (totals[1][p] - totals[0][p]) / messages} for p in totals[1] if p in totals[0]}
        print_table(f"{kind}: user instructions per message", rows, 0)
    finally:
        machine.close(keep and os.path.join(keep, kind))


def floor(messages):
    """What the system asks of anybody."""
    sink = Sink("/tmp")
    try:
        def used(pid):
            with open(f"/proc/{pid}/stat") as f:
                fields = f.read().rsplit(")", 1)[1].split()
            return int(fields[11]) + int(fields[12])
        source(sink.port, SESSIONS, 200, LENGTH, "rcpt@sink.test")
        before, children = used(sink.proc.pid), resource.getrusage(resource.RUSAGE_CHILDREN)
        source(sink.port, SESSIONS, messages, LENGTH, "rcpt@sink.test")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        of_source = after.ru_utime + after.ru_stime - children.ru_utime - children.ru_stime
        of_sink = (used(sink.proc.pid) - before) / os.sysconf("SC_CLK_TCK")
        print(f"\nthe floor: CPU ms per message of smtp-source {1000 * of_source / messages:.3f}, "
              f"of smtp-sink {1000 * of_sink / messages:.3f}, with nothing between them")
    finally:
        sink.stop()
    compiler = counts.Allocations.compiler()
    if not compiler:
        return print("the floor of a Maildir and of TLS: a C compiler is needed")
    env = Env("floor", sink.port)
    try:
        env.make_cert("ec")
        program = env.path("floor")
        subprocess.run([compiler, "-O2", "-o", program, os.path.join(HERE, "floor.c"), "-lssl", "-lcrypto"], check=True)
        spent = [[float(subprocess.run([program, *words], check=True, stdout=subprocess.PIPE).stdout) / 1000 for words in (
            ["maildir", env.mkdir(f"maildir{number}"), "1600", str(LENGTH)], ["tls", env.cert, env.key, "1000"])]
            for number in range(5)]
        for what, figures in zip(("a file synced in a Maildir", "a server's handshake with OpenSSL, in memory"), zip(*spent)):
            print(f"the floor: CPU ms of {what} {sorted(figures)[2]:.3f} ({min(figures):.3f}-{max(figures):.3f})")
    finally:
        env.close(False)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tests", default="relay,accept,local")
    parser.add_argument("--messages", type=int, default=2000)
    parser.add_argument("--only", default="calls,samples,allocations,instructions,floor", help="what to count")
    parser.add_argument("--keep", metavar="FOLDER", help="where to leave what callgrind has written, for callgrind_annotate")
    options = parser.parse_args()
    only = options.only.split(",")
    bench.end_orderly()
    if "floor" in only:
        floor(10 * options.messages)
    for kind in options.tests.split(","):
        sink = Sink("/tmp")
        try:
            if "samples" in only:
                profile_samples(kind, sink, 3 * options.messages)
            if kind in ("tls", "plain-py"):
                continue
            if "calls" in only:
                profile_calls(kind, sink, options.messages)
            if "allocations" in only:
                profile_allocations(kind, sink, options.messages)
            if "instructions" in only:
                profile_instructions(kind, sink, options.messages // 4, options.keep)
        finally:
            sink.stop()


if __name__ == "__main__":
    main()
