# SPDX-License-Identifier: Apache-2.0
"""The power fails while apus-local delivers: what it has called delivered is in the Maildir, whole, and once."""
import os
import random
import shutil
import unittest

from apus import binaries
from pipes import Deliveries, Part, split
from powercut.disk import Disk, chance, environment, read_trace, split_pipes
from powercut.ledger import new_folder, own, text
from test_agents import as_nobody, message_id

CUTS = int(os.environ.get("APUS_POWERCUT_CUTS", "60"))
SEED = int(os.environ.get("APUS_POWERCUT_SEED", "1"))


class Noting(Part):
    """Remembers how long the trace was when the queue noted what had become of a delivery."""

    trace = None

    def send(self, verb, channel, *fields):
        if verb == "noted":
            self.noted[channel] = os.path.getsize(self.trace)
        super().send(verb, channel, *fields)


class TheMaildir(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = new_folder()
        cls.addClassCleanup(shutil.rmtree, cls.folder, True)
        cls.mail = os.path.join(cls.folder, "mail")
        os.mkdir(cls.mail, 0o700)
        cls.root = os.stat(cls.mail).st_ino
        trace = os.path.join(cls.folder, "trace")
        open(trace, "wb").close()
        own(cls.folder)
        random_ = chance(SEED)
        with cls.part(cls.mail, environment(trace, cls.mail)) as part:
            part.trace, part.noted = trace, {}
            deliveries = Deliveries(part)
            cls.jobs = {}
            for batch in range(12):
                for n in range(random_.choice([1, 3, 8])):
                    number = len(cls.jobs)
                    user = f"user{random_.randrange(3)}"
                    content = b"Subject: %d\r\n\r\n" % number + text(random_, random_.choice([10, 3_000, 9_000, 200_000]))
                    recipients = [f"{user}@example.org", f"{user}+tag@example.org"][:random_.choice([1, 1, 2])]
                    channel = deliveries.begin(message_id(number), f"local:{user}", content, recipients)
                    cls.jobs[channel] = (number, user, content, recipients)
                deliveries.run()
            cls.noted = part.noted
            part.close()
            part.log.close()
        cls.records = read_trace(trace)
        cls.delivered_at = {}
        for index, frame in split_pipes(cls.records)[1]:
            verb, channel, *fields = split(frame)
            if verb == b"outcome" and fields[1] == b"delivered":
                cls.delivered_at[int(channel), int(fields[0])] = index

    @staticmethod
    def part(mail, more):
        settings = {"hostname": "mx.example.org", "mailbox": f"maildir:{mail}/%{{user}}"}
        return Noting(os.path.join(binaries(), "apus-local"), settings, "deliver", env={**os.environ, **more}, **as_nobody())

    def copies(self, mail):
        """What lies in `new` of all mailboxes: {(user, recipient, content): how often}."""
        found = {}
        for user in os.listdir(mail):
            new = os.path.join(mail, user, "new")
            for name in os.listdir(new) if os.path.isdir(new) else []:
                with open(os.path.join(new, name), "rb") as f:
                    header, _, content = f.read().partition(b"Subject:")
                recipient = header.partition(b"Delivered-To: ")[2].partition(b"\n")[0].decode()
                key = (user, recipient, b"Subject:" + content)
                found[key] = found.get(key, 0) + 1
        return found

    def key(self, job, recipient):
        _, user, content, recipients = job
        return (user, recipients[recipient], content.replace(b"\r\n", b"\n"))

    def cut(self, cut, journal, keep=None, unheard=()):
        """What is wrong after a cut, and after the deliveries were repeated that the queue had not noted."""
        folder = new_folder("apus-cut-")
        try:
            Disk(self.root, journal, unheard).replay(self.records, 0, cut).write(folder, chance(f"{SEED}/{cut}"), keep)
            own(folder)
            end = self.records[cut - 1].end if cut else 0
            found = self.copies(folder)
            wrong = [f"LOST delivery {place}" for place, index in self.delivered_at.items()
                     if index < cut and not found.get(self.key(self.jobs[place[0]], place[1]))]
            again = [c for c in self.jobs if c not in self.noted or self.noted[c] >= end]
            if again:
                # The machine has just been started.
                with self.part(folder, {"LD_PRELOAD": environment("", "")["LD_PRELOAD"], "APUS_BOOTED": "0"}) as part:
                    part.noted = {}
                    part.trace = "/dev/null"
                    deliveries = Deliveries(part)
                    for at in range(0, len(again), 20):
                        for channel in again[at:at + 20]:
                            number, user, content, recipients = self.jobs[channel]
                            deliveries.begin(message_id(number), f"local:{user}", content, recipients)
                        for job in deliveries.run().values():
                            wrong += [str(o) for o in job["outcomes"].values() if o[0] != "delivered"]
                    part.close()
                    part.log.close()
                found = self.copies(folder)
            for channel, job in self.jobs.items():
                for recipient in range(len(job[3])):
                    count = found.pop(self.key(job, recipient), 0)
                    if count == 0:
                        wrong.append(f"LOST {channel}/{recipient}")
                    elif count > 1 and journal:
                        wrong.append(f"{channel}/{recipient} is there {count} times")
            if found:
                wrong.append(f"{len(found)} in new that are nobody's or not whole")
            return wrong
        finally:
            shutil.rmtree(folder, True)

    def test_what_was_called_delivered_is_there_and_once(self):
        self.assertEqual(len(self.delivered_at), sum(len(j[3]) for j in self.jobs.values()))
        random_ = random.Random(SEED)
        for number in range(CUTS):
            cut = random_.randrange(len(self.records) + 1)
            if number % 2:
                cut = random_.choice(sorted(set(self.delivered_at.values()))) + 1
            self.assertEqual(self.cut(cut, journal=number % 4 < 2), [], f"cut {number} behind record {cut}, seed {SEED}")

    def test_a_failed_sync_defers_and_the_next_attempt_delivers_once(self):
        for number in range(1, 8):
            folder = new_folder("apus-fault-")
            self.addCleanup(shutil.rmtree, folder, True)
            mail, trace = os.path.join(folder, "mail"), os.path.join(folder, "trace")
            os.mkdir(mail, 0o700)
            open(trace, "wb").close()
            own(folder)
            jobs = [self.jobs[channel] for channel in sorted(self.jobs)[:6]]
            deferred = 0
            for fault in (f"sync:5:{number}", None):
                with self.part(mail, environment(trace, mail, fault)) as part:
                    part.trace, part.noted = trace, {}
                    deliveries = Deliveries(part)
                    channels = {deliveries.begin(message_id(n), f"local:{user}", content, to): (n, user, content, to)
                                for n, user, content, to in jobs}
                    jobs = []
                    for channel, job in deliveries.run().items():
                        fates = [o[0] for o in job["outcomes"].values()]
                        if fates != ["delivered"] * len(channels[channel][3]):
                            self.assertIn("deferred", fates)
                            deferred += 1
                            jobs.append(channels[channel])
                    part.close()
                    part.log.close()
            self.assertEqual(jobs, [])
            self.assertGreater(deferred, 0, number)
            counts = self.copies(mail)
            for channel in sorted(self.jobs)[:6]:
                for recipient in range(len(self.jobs[channel][3])):
                    self.assertEqual(counts.pop(self.key(self.jobs[channel], recipient), 0), 1, (number, channel))
            self.assertEqual(counts, {})

    def test_a_sync_that_is_not_done_is_found(self):
        """The canary: of the file, and of the directory."""
        chance_ = random.Random(SEED)
        directories = {r.numbers[0] for r in self.records if r.kind == "mkdir"}
        for of_directory in (False, True):
            found = 0
            for answer in chance_.sample(sorted(set(self.delivered_at.values())), 6):
                last = max(i for i in range(answer) if self.records[i].kind == "sync"
                           and (self.records[i].numbers[0] in directories) == of_directory)
                # Without a journal: with one, the sync of any directory carries all names.
                wrong = self.cut(answer + 1, journal=False, keep=0, unheard=[last])
                found += bool([w for w in wrong if "LOST delivery" in w])
            self.assertGreater(found, 4, of_directory)


if __name__ == "__main__":
    unittest.main()
