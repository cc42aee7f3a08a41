# SPDX-License-Identifier: Apache-2.0
"""A recorded run of apus-queue, what it promised up to any point of it, and whether a disk keeps that."""
import collections
import os
import pwd
import shutil
import tempfile

from pipes import split
from powercut.byhand import Message, Queue
from powercut.disk import Disk, chance, environment, read_trace, split_pipes


# What a value of the database `content` holds, by queue.md.
CHUNK = 4080


def own(folder):
    """Gives a folder to the user that the queue runs as."""
    if os.geteuid() == 0:
        entry = pwd.getpwnam("nobody")
        for path, _, files in os.walk(folder):
            for name in [path] + [os.path.join(path, f) for f in files]:
                os.chown(name, entry.pw_uid, entry.pw_gid)
    return folder


def new_folder(prefix="apus-powercut-"):
    folder = tempfile.mkdtemp(prefix=prefix)
    os.chmod(folder, 0o755)
    return folder


def text(random, size):
    """So many octets of lines; no two alike, so that mixed-up pages show."""
    lines, length = [], 0
    while length < size:
        line = b"%032x\r\n" % random.getrandbits(128)
        lines.append(line)
        length += len(line)
    return b"".join(lines)[:max(size, 1)]


class Run:
    """Messages of all sizes from several channels, deliveries with every outcome, bounces; recorded.

    The local part of a recipient says what becomes of it: ok, later, fail, stay (the delivery is not finished).
    """

    def __init__(self, messages, seed, fault=None):
        self.folder = new_folder()
        self.directory = os.path.join(self.folder, "queue")
        os.mkdir(self.directory, 0o700)
        self.root = os.stat(self.directory).st_ino
        self.trace = os.path.join(self.folder, "trace")
        open(self.trace, "wb").close()
        own(self.folder)
        self.random = chance(seed)
        self.messages = [self.message(i) for i in range(messages)]
        self.reports = []
        self.queue = Queue(
            self.directory, environment(self.trace, self.directory, fault), agent=self.outcomes, trace=self.trace)

    def message(self, number):
        random = self.random
        size = random.choice([40, 700, 2_000, 4_080, 4_081, 6_000, 30_000])
        if number % 25 == 7:
            size = random.choice([140_000, 300_000, 700_000])
        if number == 15:
            size = 2_500_000
        if number == 17:
            size = 400_000
        recipients = []
        for n in range(random.choice([1, 1, 1, 2, 3])):
            kind = random.choice(["ok", "ok", "later", "fail", "stay"])
            domain = "stay.example" if kind == "stay" else random.choice(["local.test", f"d{random.randrange(8)}.example"])
            recipients.append(f"{kind}-{number}-{n}@{domain}")
        prefix, suffix = (b"Received: by mx with SMTP id ", b"; now\r\n") if number % 2 else (b"", b"")
        return Message(f"m{number}@sender.test", recipients, text(random, size), prefix, suffix, number % 12 == 5)

    def outcomes(self, name, sender, recipients):
        if name == "apus-bounce":
            number = int(sender[1:].partition("@")[0]) if sender else 0
            if number % 4 == 0 or not sender:
                return [("failed", 0, "5.0.0")] * len(recipients)
            if number % 4 == 1:
                return [None] * len(recipients)
            # Where the report itself stays or is delivered.
            kind, count = ("ok", "later")[number % 2], len(self.reports)
            report = Message("", [f"{kind}-r{count}-{number}@local.test"], text(self.random, 1_500))
            report.asked, report.about = self.queue.position(), sender
            self.reports.append(report)
            return [("report", report)]
        kinds = [r.partition("-")[0] for r in recipients]
        if "stay" in kinds:
            return None
        fate = {"ok": ("delivered", 250, "2.0.0"), "later": ("deferred", 452, "4.2.2"), "fail": ("failed", 550, "5.1.1")}
        return [fate[k] for k in kinds]

    def record(self, concurrent=12):
        """Runs it to its end."""
        waiting = collections.deque(self.messages)
        queue = self.queue
        while (waiting or queue.submissions) and queue.process.poll() is None:
            while waiting and len(queue.submissions) < concurrent:
                queue.submit(waiting.popleft())
            queue.turn()
        while queue.process.poll() is not None and queue.pipes["apus-smtpd"].is_open:
            queue.turn()
        if queue.process.poll() is None:
            # A queue that an injected fault has ended may end here too; `exit_status` tells.
            ended = lambda: queue.process.poll() is not None
            quiet = lambda: ended() or not [
                d for d in queue.deliveries.values() if not d.recipients or "stay" not in d.recipients[0][1]]
            for _ in range(8):
                queue.turn()
                queue.until(quiet, "deliveries do not end")
                if ended():
                    while queue.pipes["apus-smtpd"].is_open:
                        queue.turn()
                    break
        return self.end()

    def end(self):
        # None: it went on to the end.
        self.queue.exit_status = self.queue.process.poll()
        self.queue.kill()
        self.records = read_trace(self.trace)
        self.read_promises()
        return self

    def close(self):
        self.queue.kill()
        shutil.rmtree(self.folder, True)

    def early_answers(self):
        """Messages whose `queued` left before all that was written of them was synced, and after that the meta page that
        makes it count; and outcomes whose `noted` left before a meta page was synced. The trace alone says so."""
        early = []
        of = {message.id: message for message in self.messages + self.reports if message.id}
        writes = [i for i, r in enumerate(self.records) if r.kind == "write"]
        for name, answer in self.queued_at.items():
            content = of[name].content
            # Octets of the first chunk and of the last that has enough of them to be known by.
            start = (len(content) - 16) // CHUNK * CHUNK
            last = -1
            for part in (content[:30], content[start:][-30:] if len(content) % CHUNK >= 16 else content[start:start + CHUNK][-30:]):
                found = next((i for i in writes if i < answer and part in self.records[i].data), None)
                if found is None:
                    early.append(f"{name}: queued before it was written")
                else:
                    last = max(last, found)
            if not self.is_committed(last, answer):
                early.append(f"{name}: queued before it was synced")
        for found in self.jobs_of.values():
            for job, _ in found:
                noted = self.noted_at.get(id(job))
                if noted is not None:
                    done = next(i for i, r in enumerate(self.records) if r.end > job.finished)
                    if not self.is_committed(done - 1, noted):
                        early.append(f"{job.id}: noted before it was synced")
        return early

    def is_committed(self, after, before):
        """Whether between two records a whole sync lies and, after it, the whole write of a meta page."""
        wanted = ["sync", "sync-end", "meta", "meta-end"]
        for index in range(after + 1, before):
            record = self.records[index]
            if record.kind == wanted[0] and not (record.kind == "sync-end" and record.numbers[2]):
                wanted.pop(0)
                if not wanted:
                    return True
        return False

    def read_promises(self):
        """When each answer left: the index of its record."""
        frames = split_pipes(self.records)
        self.queued_at, self.noted_at, self.refusals = {}, {}, []
        for index, content in frames.get(self.queue.fd("apus-smtpd"), []):
            verb, _, *fields = split(content)
            if verb == b"queued":
                self.queued_at[fields[0].decode()] = index
            elif verb == b"refused":
                self.refusals.append((index, [f.decode() for f in fields]))
        jobs = collections.defaultdict(list)
        for (name, _), job in self.queue.deliveries.items():
            jobs[name].append(job)
        for job in self.queue.done:
            jobs[job.name].append(job)
        self.jobs_of = collections.defaultdict(list)
        for name in Queue.AGENTS:
            open_jobs, unseen = {}, collections.defaultdict(list)
            for job in jobs[name]:
                unseen[job.id, tuple(r[0] for r in job.recipients)].append(job)
            numbers = collections.defaultdict(list)
            opened = {}
            for index, content in frames.get(self.queue.fd(name), []):
                verb, channel, *fields = split(content)
                if verb == b"deliver":
                    opened[channel] = fields[0].decode()
                elif verb == b"rcpt" and channel in opened:
                    numbers[channel].append(int(fields[0]))
                elif verb == b"go":
                    found = unseen.get((opened[channel], tuple(numbers.pop(channel))))
                    if found:
                        open_jobs[channel] = found.pop(0)
                elif verb in (b"noted", b"queued") and channel in open_jobs:
                    job = open_jobs.pop(channel)
                    self.noted_at[id(job)] = index
                    if verb == b"queued" and job.report:
                        job.report.answer = ("queued", fields[0].decode())
                        self.queued_at[fields[0].decode()] = index
            for job in jobs[name]:
                for number, address in job.recipients:
                    self.jobs_of[address].append((job, number))
        for found in self.jobs_of.values():
            found.sort(key=lambda j: float("inf") if j[0].finished is None else j[0].finished)

    # What holds after a cut

    def states(self, address, cut, end):
        """What may be known of a recipient: some of queued, failed, gone."""
        possible, failing = {"queued"}, False
        for job, number in self.jobs_of.get(address, []):
            if job.finished is None or end <= job.finished:
                break
            if job.report:
                effect = "gone"
            else:
                outcome = job.outcomes[[r[0] for r in job.recipients].index(number)]
                if job.name == "apus-bounce":
                    effect = "gone" if outcome else "failed"
                else:
                    effect = {"delivered": "gone", "deferred": "queued", "failed": "failed"}[outcome[0]]
            noted = self.noted_at.get(id(job))
            possible = {effect} if noted is not None and noted < cut else possible | {effect}
        return possible

    def check(self, directory, cut):
        """Starts a queue on the directory; answers all that is wrong with it, as lines."""
        end = self.records[cut - 1].end if cut else 0
        queue = Queue(directory, agents=False, agent=lambda name, sender, recipients: [
            ("failed", 0, "5.0.0") if name == "apus-bounce" else ("delivered", 250, "2.0.0")] * len(recipients))
        with queue:
            try:
                return self.compare(queue, cut, end)
            except AssertionError as error:
                return [f"the queue does not work: {error}"]

    def compare(self, queue, cut, end):
        wrong = []
        listed = queue.answer("list", 0)
        counted = queue.answer("count")[0]
        if int(counted["messages"]) != len(listed):
            wrong.append(f"count says {counted}, list has {len(listed)}")
        asked = [(row["id"].decode(), queue.ask("show", row["id"])) for row in listed]
        queue.until(lambda: all(c in queue.ended for _, c in asked), "show does not answer")
        seen = {}
        for name, channel in asked:
            rows = queue.ended.pop(channel)
            if not rows:
                wrong.append(f"{name} is in the list and cannot be shown")
                continue
            seen[name] = {row["to"].decode(): row["status"].decode() for row in rows[1:]}, rows[0]["from"].decode()
        by_sender = {}
        for name, (recipients, sender) in seen.items():
            key = sender or next(iter(recipients), "")
            if key in by_sender:
                wrong.append(f"{key} is there twice: {name}, {by_sender[key]}")
            by_sender[key] = name
        owed = {}
        for message in self.messages + self.reports:
            key = message.sender or message.recipients[0]
            name = by_sender.pop(key, None)
            wrong += self.compare_message(message, key, name, seen, cut, end)
            if name:
                owed[name] = message
        for key, name in by_sender.items():
            wrong.append(f"{name} of {key} is there and was never handed in")
        for report in self.reports:
            wrong += self.compare_exchange(report, seen, end)
        return wrong + self.drain(queue, seen, owed)

    def compare_message(self, message, key, name, seen, cut, end):
        accepted = message.id is not None and self.queued_at.get(message.id, cut) < cut
        if name is None:
            if accepted and not all("gone" in self.states(r, cut, end) for r in message.recipients):
                return [f"LOST {message.id} of {key}"]
            return []
        if message.asked is None or end <= message.asked:
            return [f"{name} of {key} is there before its commit was asked for"]
        wrong = []
        if message.id is not None and message.id != name:
            wrong.append(f"{key} was queued as {message.id} and is there as {name}")
        recipients, _ = seen[name]
        for address in message.recipients:
            possible = self.states(address, cut, end)
            status = {"delivering": "queued", None: "gone"}.get(recipients.get(address), recipients.get(address))
            if status not in possible:
                wrong.append(f"{'LOST ' if status == 'gone' else ''}{name}: {address} is {status}, not of {possible}")
        for address in set(recipients) - set(message.recipients):
            wrong.append(f"{name}: {address} is nobody's")
        return wrong

    def compare_exchange(self, report, seen, end):
        """The report is there and what it reports is gone, or neither."""
        jobs = [j for found in self.jobs_of.values() for j, _ in found if j.report is report]
        if not jobs or end <= report.asked:
            return []
        about = [address for _, address in jobs[0].recipients]
        left = [a for recipients, _ in seen.values() for a in recipients if a in about]
        is_there = any(report.recipients[0] in recipients for recipients, _ in seen.values())
        if left and (is_there or len(left) < len(about)):
            return [f"half an exchange: {report.recipients[0]} {'and' if is_there else 'without'} {left} of {about}"]
        ended = [j for j, _ in self.jobs_of.get(report.recipients[0], []) if j.finished is not None and j.finished < end]
        if not left and not is_there and not ended:
            return [f"LOST the report {report.recipients[0]}"]
        return []

    def drain(self, queue, seen, owed):
        """Has everything delivered, and looks at the content."""
        wrong = []
        queue.answer("flush", "all")
        for name in Queue.AGENTS:
            queue.hello(queue.pipes[name])
        empty = []

        def is_empty():
            if not empty or empty[-1] in queue.ended:
                if empty and int(queue.ended.pop(empty[-1])[0]["messages"]) == 0:
                    return True
                empty.append(queue.ask("count"))
            return False
        queue.until(is_empty, "the queue does not get empty")
        whole = set()
        for job in queue.done + list(queue.deliveries.values()):
            message = owed.get(job.id)
            if message is None or job.id in whole:
                continue
            whole.add(job.id)
            expected = message.content
            if message.prefix or message.suffix:
                expected = message.prefix + job.id.encode() + message.suffix + expected
            if job.content != expected:
                wrong.append(f"BROKEN content of {job.id}: {len(job.content)} octets for {len(expected)}")
        for name in set(seen) - whole:
            wrong.append(f"{name} was never delivered")
        return wrong

    def cut(self, cut, seed, keep=None, journal=True, unheard=()):
        """The queue after a power cut behind so many records; answers what is wrong."""
        random = chance(f"{seed}/{cut}")
        folder = new_folder("apus-cut-")
        try:
            disk = Disk(self.root, journal, unheard).replay(self.records, 0, cut)
            disk.write(folder, random, keep)
            os.chmod(folder, 0o700)
            own(folder)
            return self.check(folder, cut)
        finally:
            shutil.rmtree(folder, True)
