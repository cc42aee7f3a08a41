# SPDX-License-Identifier: Apache-2.0
"""The other side of a program's pipes: starts one by hand and speaks Documentation/pipes.md with it."""
import os
import select
import subprocess
import tempfile
import time


def netstring(octets):
    return b"%d:%s," % (len(octets), octets)


def octets(value):
    return value if isinstance(value, bytes) else str(value).encode()


def frame(verb, channel, *fields):
    return netstring(b"".join(netstring(octets(f)) for f in (verb, channel, *fields)))


def split(content):
    found = []
    while content:
        length, _, rest = content.partition(b":")
        found.append(rest[:int(length)])
        assert rest[int(length):int(length) + 1] == b","
        content = rest[int(length) + 1:]
    return found


class Part:
    """A program with its settings, and `words` for its command line; frames go to its descriptor 0 and come from its
    descriptor 1."""

    def __init__(self, path, settings, dialect, hello=True, words=(), **popen):
        self.file = tempfile.NamedTemporaryFile("w", suffix=".settings")
        for name, values in settings.items():
            for value in values if isinstance(values, list) else [values]:
                self.file.write(f"{name} {value}\n")
        self.file.flush()
        os.chmod(self.file.name, 0o644)
        self.log = tempfile.TemporaryFile()
        self.process = subprocess.Popen(
            [path, "--settings", self.file.name, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, **popen)
        self.buffer = b""
        if hello:
            self.send("hello", 0, dialect, 1, "test", 0)
            assert self.receive()[0] == b"hello"

    def send(self, verb, channel, *fields):
        self.send_raw(frame(verb, channel, *fields))

    def send_raw(self, data):
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def receive(self, seconds=20):
        """The next frame as a list; None at the end."""
        deadline = time.monotonic() + seconds
        while True:
            length, colon, rest = self.buffer.partition(b":")
            if colon and len(rest) > int(length):
                content, self.buffer = rest[:int(length)], rest[int(length) + 1:]
                return split(content)
            if not select.select([self.process.stdout], [], [], max(0, deadline - time.monotonic()))[0]:
                raise TimeoutError(self.logged())
            data = os.read(self.process.stdout.fileno(), 65536)
            if not data:
                return None
            self.buffer += data

    def logged(self):
        self.log.seek(0)
        return self.log.read().decode()

    def close(self, seconds=20):
        """Ends its input; returns its exit status."""
        self.process.stdin.close()
        try:
            return self.process.wait(seconds)
        finally:
            self.kill()

    def kill(self):
        """Ends it at once, and lets go of everything. Its log can still be read until the test is over."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            try:
                pipe.close()
            except OSError:
                pass

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()


class Deliveries:
    """The queue's side of the dialect `deliver`: gives deliveries to an agent and answers what it wants."""

    def __init__(self, part):
        self.part = part
        self.open = {}
        self.channel = 0

    def begin(self, id, route, content, recipients, sender=b"alice@a.example", fate=None, envelope=True):
        self.channel += 1
        data = frame("deliver", self.channel, id, sender, len(content), "8bitmime", route, 1_700_000_000_000_000)
        for number, recipient in enumerate(recipients):
            path, original = recipient if isinstance(recipient, tuple) else (recipient, "")
            data += frame("rcpt", self.channel, number, path, original)
            if fate:
                data += frame("fate", self.channel, number, *fate, 1_700_000_001_000_000)
        self.part.send_raw(data + frame("go", self.channel))
        self.open[self.channel] = {"content": content, "outcomes": {}, "exchange": []}
        return self.channel

    def run(self, noted=True, seconds=30):
        """Until all that is open has ended; returns what ended, by channel."""
        ended = {}
        while self.open:
            got = self.part.receive(seconds)
            if got is None:
                raise EOFError(self.part.logged())
            verb, channel, *fields = got
            channel = int(channel)
            job = self.open[channel]
            if verb == b"want":
                data = job["content"][int(fields[0]):int(fields[0]) + int(fields[1])]
                self.part.send_raw(b"".join(
                    frame("data", channel, data[i:i + 65536]) for i in range(0, len(data), 65536)))
            elif verb == b"outcome":
                job["outcomes"][int(fields[0])] = [f.decode() for f in fields[1:]]
            elif verb == b"forward":
                job.setdefault("forwards", {}).setdefault(int(fields[0]), []).append((fields[1].decode(), fields[2].decode()))
                job.setdefault("marks", {}).setdefault(int(fields[0]), []).append([f.decode() for f in fields[3:]])
            elif verb == b"done":
                if noted:
                    self.part.send("noted", channel)
                ended[channel] = self.open.pop(channel)
            elif verb in (b"mail", b"rcpt", b"data"):
                job["exchange"].append((verb, fields))
            elif verb == b"commit":
                job["exchange"].append((verb, fields))
                self.part.send("queued", channel, "0000000000009")
                ended[channel] = self.open.pop(channel)
            else:
                raise AssertionError(got)
        return ended
