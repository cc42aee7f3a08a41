# SPDX-License-Identifier: Apache-2.0
"""apus-queue run by hand, with a submitter, apus-lookup, three agents and an operator in this process."""
import os
import pwd
import select
import subprocess
import tempfile
import time

from apus import binaries
from pipes import frame, split

FAR = 3_000_000_000


class Pipe:
    """Our ends of a link: frames to the queue, frames from it."""

    def __init__(self, name, dialect):
        self.name, self.dialect = name, dialect
        self.input, self.their_output = os.pipe()
        self.their_input, self.output = os.pipe()
        for fd in (self.input, self.output):
            os.set_blocking(fd, False)
        self.got, self.waiting = b"", bytearray()
        self.is_open = True

    def option(self):
        return f"{self.dialect}:{self.name}:{self.their_input}:{self.their_output}"

    def send(self, verb, channel, *fields):
        self.waiting += frame(verb, channel, *fields)

    def flush(self):
        while self.waiting:
            try:
                del self.waiting[:os.write(self.output, self.waiting[:65536])]
            except BlockingIOError:
                return
            except BrokenPipeError:
                self.waiting.clear()

    def frames(self):
        found = []
        try:
            while data := os.read(self.input, 1 << 20):
                self.got += data
            self.is_open = False
        except BlockingIOError:
            pass
        while True:
            length, colon, rest = self.got.partition(b":")
            if not colon or len(rest) <= int(length):
                return found
            self.got = rest[int(length) + 1:]
            found.append(split(rest[:int(length)]))


class Queue:
    """One apus-queue and the other ends of all its links.

    `agent` decides about a delivery: it is called with the agent's name, the reverse-path and the recipients' addresses,
    and answers an outcome (kind, code, status) for each; None for one leaves it without; None for all keeps the delivery open.
    """

    AGENTS = ("apus-remote", "apus-local", "apus-bounce")

    def __init__(self, directory, environment=None, agent=None, trace=None, agents=True, **settings):
        self.pipes = {}
        for name, dialect in [("apus-smtpd", "submit"), ("apus-lookup", "ask"), ("apus", "operate")] + [
                (a, "deliver") for a in self.AGENTS]:
            self.pipes[name] = Pipe(name, dialect)
        self.agent = agent or (lambda name, sender, recipients: [("delivered", 250, "2.0.0")] * len(recipients))
        self.trace = trace
        self.settings = tempfile.NamedTemporaryFile("w", suffix=".settings")
        for name, value in {"directory": directory, "reserve": 0, "retry-min": 3000, "retry-max": 3000, **settings}.items():
            self.settings.write(f"{name} {value}\n")
        self.settings.flush()
        os.chmod(self.settings.name, 0o644)
        user = {}
        if os.geteuid() == 0:
            entry = pwd.getpwnam("nobody")
            user = dict(user=entry.pw_uid, group=entry.pw_gid, extra_groups=[])
        words = [os.path.join(binaries(), "apus-queue"), "--settings", self.settings.name]
        for pipe in self.pipes.values():
            words += ["--link", pipe.option()]
        theirs = [fd for p in self.pipes.values() for fd in (p.their_input, p.their_output)]
        self.log = tempfile.TemporaryFile()
        self.process = subprocess.Popen(
            words, pass_fds=theirs, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=self.log,
            env={**os.environ, **(environment or {})}, **user)
        for fd in theirs:
            os.close(fd)
        self.channel = 0
        self.submissions = {}    # channel -> Submission
        self.deliveries = {}     # (agent, channel) -> Delivery
        self.answers = {}        # channel of a question -> rows
        self.ended = {}
        self.words = 0           # rows that say only that an answer is under way
        self.done = []           # deliveries that have ended
        for name, pipe in self.pipes.items():
            if agents or pipe.dialect != "deliver":
                self.hello(pipe)

    def hello(self, pipe):
        pipe.send("hello", 0, pipe.dialect, 1, pipe.name, 200)

    def position(self):
        """How long the trace is: all records that end behind it happened later than now."""
        return os.path.getsize(self.trace) if self.trace else 0

    # Submitting

    def submit(self, message):
        """Sends a message (attributes sender, recipients, content, prefix, suffix); it is told of what becomes of it."""
        self.channel += 1
        pipe = self.pipes["apus-smtpd"]
        self.submissions[self.channel] = message
        pipe.send("mail", self.channel, message.sender, "8bitmime", 0, "test")
        for recipient in message.recipients:
            pipe.send("rcpt", self.channel, recipient, *message.dsn)
        message.sent, message.credit = 0, 262144
        self.send_content(self.channel, message)

    def send_content(self, channel, message):
        pipe = self.pipes["apus-smtpd"]
        while message.sent < len(message.content):
            size = min(60000, message.credit, len(message.content) - message.sent)
            if size == 0:
                return
            pipe.send("data", channel, message.content[message.sent:message.sent + size])
            message.sent += size
            message.credit -= size
        if message.is_aborted:
            pipe.send("abort", channel)
            del self.submissions[channel]
        else:
            message.asked = self.position()
            pipe.send("commit", channel, len(message.content), message.prefix, message.suffix)

    def submitted(self, verb, channel, fields):
        message = self.submissions.get(channel)
        if verb == b"hello" or message is None:
            return
        if verb == b"more":
            message.credit += int(fields[0])
            if message.sent < len(message.content):
                self.send_content(channel, message)
        else:
            del self.submissions[channel]
            message.answer = (verb.decode(), *(f.decode() for f in fields))

    # Answering questions

    def asked(self, verb, channel, fields):
        if verb == b"resolve":
            pipe = self.pipes["apus-lookup"]
            user, _, domain = fields[0].rpartition(b"@")
            route = b"local:" + user if domain == b"local.test" else b"remote:" + domain
            pipe.send("target", channel, fields[0], route)
            pipe.send("resolved", channel, 1)

    # Delivering

    def delivered(self, name, verb, channel, fields):
        pipe = self.pipes[name]
        if verb == b"deliver":
            self.deliveries[name, channel] = Delivery(name, fields)
        job = self.deliveries.get((name, channel))
        if job is None:
            return
        if verb == b"rcpt":
            job.recipients.append((int(fields[0]), fields[1].decode()))
        elif verb == b"go":
            job.want(pipe, channel)
        elif verb == b"data":
            job.content += fields[0]
            if len(job.content) == job.wanted and job.wanted < job.size:
                job.want(pipe, channel)
            elif len(job.content) == job.size:
                self.finish(name, channel, job)
        elif verb in (b"noted", b"queued", b"refused"):
            job.answer = verb.decode()
            self.done.append(self.deliveries.pop((name, channel)))

    def finish(self, name, channel, job):
        pipe = self.pipes[name]
        outcomes = self.agent(name, job.sender, [r[1] for r in job.recipients])
        if outcomes is None:
            return
        # Noted before anything is sent, so that the queue cannot have acted on it earlier.
        job.finished = self.position()
        job.outcomes = outcomes
        if name == "apus-bounce" and outcomes and outcomes[0] and outcomes[0][0] == "report":
            job.report = outcomes[0][1]
            pipe.send("mail", channel, "", "7bit", 0, "report")
            pipe.send("rcpt", channel, job.report.recipients[0])
            pipe.send("data", channel, job.report.content)
            pipe.send("commit", channel, len(job.report.content), "", "")
            return
        for (number, _), outcome in zip(job.recipients, outcomes):
            if outcome:
                kind, code, status = outcome
                pipe.send("outcome", channel, number, kind, code, status, "test", "as the test says")
        pipe.send("done", channel)

    # Operating

    def ask(self, verb, *fields):
        self.channel += 1
        self.answers[self.channel] = []
        self.pipes["apus"].send(verb, FAR + self.channel, *fields)
        return self.channel

    def answered(self, verb, channel, fields):
        channel -= FAR
        if channel not in self.answers:
            return
        if verb == b"row" and not fields:
            self.words += 1
            return
        if verb == b"row":
            pairs = dict(zip((f.decode() for f in fields[::2]), fields[1::2]))
            rows = self.answers[channel]
            first = fields[0].decode()
            if rows and next(iter(rows[-1])) == first and rows[-1][first] == pairs[first]:
                rows[-1].update(pairs)
            else:
                rows.append(pairs)
        else:
            self.ended[channel] = self.answers.pop(channel) if verb == b"end" else []

    def answer(self, verb, *fields):
        channel = self.ask(verb, *fields)
        self.until(lambda: channel in self.ended, f"no answer to {verb}")
        return self.ended.pop(channel)

    # Running

    def turn(self, seconds=0.05):
        """Waits for frames and does what they want."""
        pipes = [p for p in self.pipes.values() if p.is_open]
        for pipe in pipes:
            pipe.flush()
        reading = {p.input: p for p in pipes}
        ready, _, _ = select.select(list(reading), [p.output for p in pipes if p.waiting], [], seconds)
        for fd in ready:
            pipe = reading[fd]
            for verb, channel, *fields in pipe.frames():
                if pipe.dialect == "submit":
                    self.submitted(verb, int(channel), fields)
                elif pipe.dialect == "ask":
                    self.asked(verb, int(channel), fields)
                elif pipe.dialect == "operate":
                    self.answered(verb, int(channel), fields)
                elif verb != b"hello":
                    self.delivered(pipe.name, verb, int(channel), fields)
        for pipe in pipes:
            pipe.flush()

    def until(self, check, what, seconds=30):
        deadline = time.monotonic() + seconds
        while not check():
            if time.monotonic() > deadline or (self.process.poll() is not None and not any(
                    p.is_open for p in self.pipes.values())):
                raise AssertionError(f"{what}; exit status {self.process.poll()}\n{self.logged()[-4000:]}")
            self.turn()

    def fd(self, name):
        """The number of the descriptor on which the queue writes to that program."""
        return self.pipes[name].their_output

    def logged(self):
        if self.log.closed:
            return self.last_words
        self.log.seek(0)
        return self.log.read().decode(errors="replace")

    def kill(self):
        if self.log.closed:
            return
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        for pipe in self.pipes.values():
            for fd in (pipe.input, pipe.output):
                try:
                    os.close(fd)
                except OSError:
                    pass
        self.settings.close()
        self.last_words = self.logged()
        self.log.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill()


class Message:
    """One message on its way in, and what is known of it later."""

    def __init__(self, sender, recipients, content, prefix=b"", suffix=b"", is_aborted=False):
        self.sender, self.recipients, self.content = sender, recipients, content
        self.prefix, self.suffix, self.is_aborted = prefix, suffix, is_aborted
        self.dsn = ()            # NOTIFY and ORCPT of all recipients
        self.asked = None        # the trace's length when acceptance was asked for
        self.answer = None

    @property
    def id(self):
        return self.answer[1] if self.answer and self.answer[0] == "queued" else None


class Delivery:
    def __init__(self, name, fields):
        self.name, self.id, self.sender, self.size = name, fields[0].decode(), fields[1].decode(), int(fields[2])
        self.route = fields[4].decode()
        self.recipients, self.content, self.wanted = [], b"", 0
        self.finished = self.outcomes = self.report = self.answer = None

    def want(self, pipe, channel):
        self.wanted = min(self.size, self.wanted + 1048576)
        pipe.send("want", channel, len(self.content), self.wanted - len(self.content))
