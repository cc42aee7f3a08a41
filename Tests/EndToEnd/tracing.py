# SPDX-License-Identifier: Apache-2.0
"""The system calls of a running process, by strace, for tests of what is on the disk when something is said."""
import collections
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time

from peers import wait_for

# The names of descriptors stand in the arguments: `fdatasync(20</…/data.mdb>)`. `begun` and `ended` are places in one
# order of all threads: a call with a smaller `ended` had returned before one with a larger `begun` was made.
Call = collections.namedtuple("Call", "name arguments result begun ended")

CALLS = ("read,readv,write,writev,sendmsg,pwrite64,pwritev,pwritev2,fdatasync,fsync,msync,sync_file_range,sync,syncfs,"
         "open,openat,link,linkat,rename,renameat,renameat2,unlink,unlinkat")
LINE = re.compile(r"^(\d+)\s+(.*)$")
WHOLE = re.compile(r"^(\w+)\((.*)\)\s+= (.*)$", re.S)
RESUMED = re.compile(r"^<\.\.\. (\w+) resumed>(.*)\)\s+= (.*)$", re.S)
UNFINISHED = " <unfinished ...>"


def can_trace():
    return shutil.which("strace") is not None and os.geteuid() == 0


class Trace:
    """Follows all threads of a process from `with` until its end."""

    def __init__(self, pid, calls=CALLS):
        self.pid = pid
        self.calls = calls
        self.found = []

    def __enter__(self):
        self.folder = tempfile.mkdtemp(prefix="apus-trace-")
        self.file = os.path.join(self.folder, "calls")
        self.process = subprocess.Popen(
            ["strace", "-f", "-y", "-s", "70000", "-e", "trace=" + self.calls, "-o", self.file, "-p", str(self.pid)],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        if not wait_for(self.is_attached, 20):
            self.__exit__()
            raise AssertionError("strace does not attach: " + self.words)
        return self

    def is_attached(self):
        for task in os.listdir(f"/proc/{self.pid}/task"):
            with open(f"/proc/{self.pid}/task/{task}/status") as f:
                if f"TracerPid:\t{self.process.pid}\n" not in f.read():
                    return False
        return True

    def is_quiet(self):
        size = os.path.getsize(self.file)
        time.sleep(0.2)
        return os.path.getsize(self.file) == size

    def __exit__(self, *_):
        # A call that others have seen the effect of may not have been written down yet.
        if os.path.exists(self.file):
            wait_for(self.is_quiet, 5)
        self.process.send_signal(signal.SIGINT)
        self.words = self.process.communicate(timeout=20)[1].decode(errors="replace")
        if os.path.exists(self.file):
            with open(self.file, errors="replace") as f:
                self.found = list(self.parse(f))
        shutil.rmtree(self.folder, True)

    @staticmethod
    def parse(lines):
        open_calls = {}
        for place, line in enumerate(lines):
            match = LINE.match(line.rstrip("\n"))
            if not match:
                continue
            thread, text = match.groups()
            if text.endswith(UNFINISHED):
                name, _, arguments = text[:-len(UNFINISHED)].partition("(")
                open_calls[thread] = (name, arguments, place)
            elif (match := RESUMED.match(text)) and thread in open_calls:
                name, arguments, begun = open_calls.pop(thread)
                yield Call(name, arguments + match[2], match[3], begun, place)
            elif match := WHOLE.match(text):
                yield Call(match[1], match[2], match[3], place, place)

    def named(self, names, *parts):
        """The calls with one of the names whose arguments hold all the parts, in the order of their beginning."""
        chosen = [c for c in self.found if c.name in names and all(p in c.arguments for p in parts)]
        return sorted(chosen, key=lambda c: c.begun)


def descriptors(pid):
    """(number, what it is, its open(2) flags) of all descriptors of a process."""
    found = []
    for number in os.listdir(f"/proc/{pid}/fd"):
        try:
            place = os.readlink(f"/proc/{pid}/fd/{number}")
            with open(f"/proc/{pid}/fdinfo/{number}") as f:
                flags = next(int(l.split()[1], 8) for l in f if l.startswith("flags:"))
        except OSError:
            continue
        found.append((int(number), place, flags))
    return found


def pipes_between(writers, readers):
    """(pid of the writer, descriptor, name of the pipe) of the pipes that lead from the ones to the others."""
    heads = {place for pid in readers for _, place, flags in descriptors(pid) if flags & os.O_ACCMODE == os.O_RDONLY}
    return [(pid, number, place) for pid in writers for number, place, flags in descriptors(pid)
            if place.startswith("pipe:") and flags & os.O_ACCMODE == os.O_WRONLY and place in heads]
