# SPDX-License-Identifier: Apache-2.0
"""The disk after a power cut, from the trace that layer.c has recorded.

The model is worse than any real file system. On the disk is for certain only what a sync has confirmed that had
returned before the cut. Of everything else that was written before the cut, each sector of 512 octets is there or not,
each for itself; the file is as long as what is there makes it; what is missing in between is zeros. A sync that failed
confirms nothing, and no later one confirms what it was asked for: that is what Linux does.

Names (files made, linked, renamed, removed) are there for certain after a sync of their directory. Of the others there
is, with `journal`, all up to some point in time (ext4, XFS, Btrfs: one journal, in order, and a sync of anything carries all names
before it); without, each or not, and a rename into a synced directory may be half there.
"""
import os
import random
import shutil
import subprocess
import tempfile

SECTOR = 512
_layer = None


def layer():
    """The path of the built layer, where any user can load it."""
    global _layer
    if _layer is None:
        folder = tempfile.mkdtemp(prefix="apus-layer-")
        os.chmod(folder, 0o755)
        import atexit
        atexit.register(shutil.rmtree, folder, True)
        source = os.path.join(os.path.dirname(os.path.abspath(__file__)), "layer.c")
        compiler = shutil.which("cc") or shutil.which("clang") or "gcc"
        built = os.path.join(folder, "layer.so")
        subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", built, source], check=True)
        os.chmod(built, 0o755)
        _layer = built
    return _layer


def environment(trace, directory, fault=None, **more):
    """The environment variables that load the layer."""
    found = {"LD_PRELOAD": layer(), "APUS_TRACE": trace, "APUS_TRACE_DIR": os.path.realpath(directory), **more}
    if fault:
        found["APUS_FAULT"] = fault
    return found


class Record:
    """One line of the trace; `end` is the offset in the trace behind it."""
    __slots__ = ("kind", "numbers", "data", "end")

    def __init__(self, kind, numbers, data, end):
        self.kind, self.numbers, self.data, self.end = kind, numbers, data, end

    def __repr__(self):
        return f"{self.kind} {self.numbers} {len(self.data)}"


def read_trace(path):
    with open(path, "rb") as f:
        octets = f.read()
    records, at = [], 0
    while at < len(octets):
        line = octets.index(b"\n", at)
        kind, *numbers, length = octets[at:line].split()
        at = line + 1 + int(length)
        assert octets[at:at + 1] == b"\n"
        records.append(Record(kind.decode(), [int(n) for n in numbers], octets[line + 1:at], at + 1))
        at += 1
    unknown = [r for r in records if r.kind == "unknown"]
    assert not unknown, [r.data for r in unknown]
    return records


class File:
    def __init__(self):
        self.image = bytearray()
        self.pending = []

    def apply(self, offset, data):
        apply(self.image, offset, data)

    def after_cut(self, choose):
        """The content, with those of the unconfirmed sectors that `choose` keeps."""
        image = bytearray(self.image)
        for _, offset, data in self.pending:
            if data is None:
                if choose():
                    apply(image, offset, None)
                continue
            at = 0
            while at < len(data):
                size = min(SECTOR - (offset + at) % SECTOR, len(data) - at)
                if choose():
                    apply(image, offset + at, data[at:at + size])
                at += size
        return image


def apply(image, offset, data):
    """A write, or with no data a change of the length."""
    if data is None:
        if offset < len(image):
            del image[offset:]
        else:
            image.extend(bytes(offset - len(image)))
        return
    if len(image) < offset:
        image.extend(bytes(offset - len(image)))
    image[offset:offset + len(data)] = data


class Disk:
    """Replays a trace up to a cut. `root` is the inode of the watched directory.

    `unheard` are indexes of records (`sync`, `meta`) that the disk claims to have done, and has not.
    """

    def __init__(self, root, journal=True, unheard=()):
        self.journal = journal
        self.unheard = set(unheard)
        self.root = root
        self.files = {}          # inode number now -> File
        self.directories = {root: ""}
        self.live = {}           # path -> the object that has it now
        self.inodes = {"": root}
        self.names = {}          # path -> the object that has it on the disk for certain
        self.pending = []        # changes of names: (number, what, path, object)
        self.syncs = {}          # sync id -> (inode, time, names up to)
        self.count = 0

    # What happened

    def replay(self, records, start, end):
        for index in range(start, end):
            self.happen(records[index], index)
        return self

    def happen(self, record, index):
        self.count += 1
        kind, numbers = record.kind, record.numbers
        if kind == "write":
            self.file(numbers[0]).pending.append((self.count, numbers[1], record.data))
        elif kind == "truncate":
            self.file(numbers[0]).pending.append((self.count, numbers[1], None))
        elif kind == "meta":
            file = self.file(numbers[0])
            file.pending.append((self.count, numbers[1], record.data))
            self.syncs["meta", numbers[0]] = None if index in self.unheard else file.pending[-1]
        elif kind == "meta-end":
            written = self.syncs.pop(("meta", numbers[0]))
            file = self.file(numbers[0])
            if written in file.pending:
                file.pending.remove(written)
                file.apply(written[1], written[2])
        elif kind == "sync":
            self.syncs[numbers[1]] = None if index in self.unheard else self.count
        elif kind == "sync-end":
            time = self.syncs.pop(numbers[1])
            if time is not None and numbers[2] == 0:
                self.synced(numbers[0], time)
            elif time is not None:
                # The kernel forgets what it could not write: no later sync brings it.
                file = self.files.get(numbers[0])
                if file:
                    file.pending = [(float("inf") if p[0] < time else p[0], p[1], p[2]) for p in file.pending]
        elif kind in ("create", "mkdir", "link", "unlink", "rename"):
            one, _, two = record.data.decode().partition("\0")
            self.named(kind, numbers[0], one, two)

    def file(self, inode):
        return self.files.setdefault(inode, File())

    def named(self, kind, inode, one, two):
        if kind == "create":
            self.files[inode] = File()
            changes = [("add", one, self.files[inode])]
        elif kind == "mkdir":
            self.directories[inode] = one
            changes = [("add", one, "directory")]
        elif kind == "link":
            changes = [("add", two, self.live[one])]
        elif kind == "unlink":
            changes = [("remove", one, None)]
        else:
            changes = [("add", two, self.live[one]), ("remove", one, None)]
        for what, path, thing in changes:
            if what == "add":
                self.live[path] = thing
            else:
                self.live.pop(path, None)
        self.pending.append((self.count, changes))

    def synced(self, inode, time):
        file = self.files.get(inode)
        if file:
            for _, offset, data in (p for p in file.pending if p[0] < time):
                file.apply(offset, data)
            file.pending = [p for p in file.pending if p[0] >= time]
        directory = self.directories.get(inode)
        kept = []
        for change in self.pending:
            number, changes = change
            if number > time or directory is None:
                kept.append(change)
            elif self.journal:
                self.name(self.names, changes)
            else:
                # Only the half of a rename that is in this directory.
                here = [c for c in changes if os.path.dirname(c[1]) == directory]
                rest = [c for c in changes if c not in here]
                self.name(self.names, here)
                if rest:
                    kept.append((number, rest))
        self.pending = kept

    @staticmethod
    def name(names, changes):
        for what, path, thing in changes:
            if what == "add":
                names[path] = thing
            else:
                names.pop(path, None)

    # What is left

    def write(self, folder, chance, keep=None):
        """Writes the tree after the cut into an empty folder.

        `keep` is the share of what is unconfirmed that the disk has; by default chance says.
        """
        names = dict(self.names)
        if keep is None:
            keep = chance.choice([0, 0.05, 0.5, 0.95, 1])

        def choose():
            return chance.random() < keep
        if self.journal:
            for _, changes in self.pending[:round(keep * chance.uniform(0.5, 1) * len(self.pending))]:
                self.name(names, changes)
        else:
            for _, changes in self.pending:
                for change in changes:
                    if choose():
                        self.name(names, [change])
        written = {}
        for path in sorted(names):
            thing, target = names[path], os.path.join(folder, path)
            if not os.path.isdir(os.path.dirname(target)):
                continue
            if thing == "directory":
                os.mkdir(target, 0o700)
            elif id(thing) in written:
                os.link(written[id(thing)], target)
            else:
                with open(target, "wb") as f:
                    f.write(thing.after_cut(choose))
                os.chmod(target, 0o600)
                written[id(thing)] = target


def split_pipes(records):
    """The frames that left on each descriptor, with the index of the record with which their last octet left:
    {descriptor: [(index, octets of the netstring's content)]}."""
    streams = {}
    for index, record in enumerate(records):
        if record.kind != "out":
            continue
        stream = streams.setdefault(record.numbers[0], [b"", []])
        stream[0] += record.data
        while True:
            length, colon, rest = stream[0].partition(b":")
            if not colon or len(rest) <= int(length):
                break
            stream[1].append((index, rest[:int(length)]))
            stream[0] = rest[int(length) + 1:]
    return {fd: frames for fd, (_, frames) in streams.items()}


def chance(seed):
    return random.Random(seed)
