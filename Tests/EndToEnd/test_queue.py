# SPDX-License-Identifier: Apache-2.0
"""apus-queue run by hand, with all that it speaks to in this process: what it does when the other sides, the disk or the
file are not as they should be."""
import os
import pwd
import re
import shutil
import signal
import subprocess
import time
import unittest

from apus import binaries
from peers import wait_for
from pipes import Part, frame
from powercut.byhand import FAR, Message, Queue
from powercut.ledger import CHUNK, new_folder, own
from tracing import can_trace


class ByHand(unittest.TestCase):
    def setUp(self):
        self.folder = new_folder("apus-queue-")
        self.addCleanup(shutil.rmtree, self.folder, True)
        self.directory = os.path.join(self.folder, "queue")
        os.mkdir(self.directory, 0o700)
        own(self.folder)

    def queue(self, **more):
        queue = Queue(self.directory, **more)
        self.addCleanup(queue.kill)
        return queue

    def hand_in(self, queue, *messages):
        for message in messages:
            queue.submit(message)
        queue.until(lambda: all(m.answer for m in messages), "messages without an answer")

    def logged(self, queue, *words):
        return [line for line in queue.logged().splitlines() if all(w in line for w in words)]

    def writer(self, queue):
        """The thread that commits."""
        for task in os.listdir(f"/proc/{queue.process.pid}/task"):
            with open(f"/proc/{queue.process.pid}/task/{task}/comm") as file:
                if file.read().startswith("TP-#"):
                    return task

    def inject(self, queue, what):
        """Has strace do something to calls of the thread that commits."""
        tracer = subprocess.Popen(
            ["strace", "-e", "trace=" + what.partition(":")[0], "-e", "inject=" + what, "-o",
             os.path.join(self.folder, "calls"), "-p", self.writer(queue)],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.addCleanup(tracer.wait)
        self.addCleanup(tracer.kill)

        def attached():
            with open(f"/proc/{queue.process.pid}/task/{self.writer(queue)}/status") as file:
                return f"TracerPid:\t{tracer.pid}\n" in file.read()
        self.assertTrue(wait_for(attached, 20))


@unittest.skipUnless(can_trace(), "strace as root only")
class Imports(ByHand):
    IDENTITY = b"0000000zzz123"

    def frames(self, channel, content):
        yield frame("import", channel)
        yield frame("message", channel, self.IDENTITY, "from", "a@b.example", "body", "7bit", "arrival", 1795912521094497,
                    "expiry", 1895912521094497, "prefix-size", 0)
        yield frame("message", channel, self.IDENTITY, "size", len(content), "client", "t")
        yield frame("recipient", channel, 0, "to", "x@far.example", "route", "remote:far.example", "priority", "normal",
                    "state", "queued")
        yield frame("recipient", channel, 0, "due", 1795912521094497, "attempts", 0)
        for start in range(0, len(content), 65536):
            yield frame("data", channel, content[start:start + 65536])

    def test_a_message_whose_beginning_finds_no_room_is_not_imported_without_it(self):
        queue = self.queue(paused="true")
        self.hand_in(queue, Message("a@b.example", ["y@far.example"], b"first\r\n"))
        # The next transaction finds the disk full, after a second; those behind it find room. Why not at its first write:
        # where all its pages are in one row, that may be the meta page's, after which LMDB does nothing any more.
        self.inject(queue, "fdatasync:error=ENOSPC:delay_enter=1000000:when=1")
        content = b"H" * 131072 + b"T" * 3000
        channel = FAR + 99
        queue.answers[99] = []
        pipe = queue.pipes["apus"]
        for part in self.frames(channel, content):
            pipe.waiting += part
        queue.until(lambda: not pipe.waiting, "the import is not read")
        # The rest comes while the beginning is being written.
        time.sleep(0.4)
        pipe.send("whole", channel, len(content))
        pipe.send("commit", channel)
        queue.until(lambda: 99 in queue.ended, "the import has no end")
        self.assertTrue(self.logged(queue, "queue-full"), queue.logged())
        self.assertEqual(queue.ended[99], [])
        # What was on its way then has been written with this at the latest.
        self.hand_in(queue, Message("a@b.example", ["z@far.example"], b"second\r\n"))
        self.assertEqual(self.logged(queue, "imported"), [])
        listed = queue.answer("list", 0)
        self.assertEqual([row["to"] for row in listed], [b"y@far.example", b"z@far.example"])
        faults = [row for row in queue.answer("check") if "kind" in row]
        self.assertEqual(faults, [])


    def test_two_parts_of_one_message_are_both_imported_and_each_of_them_once(self):
        queue = self.queue(paused="true")

        def part(number, address):
            yield "message", (self.IDENTITY, "from", "a@b.example", "body", "7bit", "arrival", 1795912521094497,
                              "expiry", 1895912521094497, "prefix-size", 0)
            yield "message", (self.IDENTITY, "size", 4, "client", "t")
            yield "recipient", (number, "to", address, "route", "remote:far.example", "priority", "normal", "state", "queued")
            yield "recipient", (number, "due", 1795912521094497, "attempts", 0)
            yield "data", (b"hi\r\n",)
            yield "whole", (4,)

        def take(number, address):
            channel = queue.ask("import")
            for verb, fields in part(number, address):
                queue.pipes["apus"].send(verb, FAR + channel, *fields)
            queue.pipes["apus"].send("commit", FAR + channel)
            queue.until(lambda: channel in queue.ended, "no end of the import")
            return [row["result"] for row in queue.ended.pop(channel)]

        for round in range(2):
            results = take(0, "x@far.example") + take(1, "y@far.example")
            self.assertEqual(results, [b"imported" if round == 0 else b"skipped"] * 2)
            self.assertEqual({row["to"] for row in queue.answer("list", 0)}, {b"x@far.example", b"y@far.example"})
        self.assertEqual(queue.answer("count")[0]["recipients"], b"2")
        # The id of the first part is free again.
        queue.answer("remove", self.IDENTITY)
        self.assertEqual(take(1, "y@far.example"), [b"skipped"])
        self.assertEqual(queue.answer("count")[0]["recipients"], b"1")

    def test_who_waits_for_an_order_hears_that_it_is_under_way(self):
        queue = self.queue(paused="true")
        self.hand_in(queue, Message("a@b.example", ["y@far.example"], b"first\r\n"))
        self.inject(queue, "fdatasync:delay_enter=14000000")
        self.assertEqual(queue.answer("hold", "all")[-1]["changed"], b"1")
        self.assertEqual(queue.words, 1)

    def test_what_an_order_does_behind_an_outcome_is_logged(self):
        held = []
        queue = self.queue(agent=lambda name, sender, recipients: held.append(name))
        message = Message("a@b.example", ["y@far.example"], b"first\r\n")
        self.hand_in(queue, message)
        queue.until(lambda: held, "no delivery")
        (name, channel), = queue.deliveries
        self.inject(queue, "fdatasync:delay_enter=1500000")
        queue.pipes[name].send("outcome", channel, 0, "deferred", 450, "4.2.0", "t", "not now")
        queue.pipes[name].send("done", channel)
        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            queue.turn()
        self.assertEqual(self.logged(queue, "status=deferred"), [], "it is not written yet")
        self.assertEqual(queue.answer("remove", message.id)[0]["changed"], b"1")
        self.assertEqual(len(self.logged(queue, "operated", "status=removed", "to=<y@far.example>")), 1, queue.logged())


class Ends(ByHand):
    """The end of the input, for an apus-queue that is run by hand."""

    def end(self, queue, *names):
        for name in names:
            pipe = queue.pipes[name]
            pipe.flush()
            os.close(pipe.output)
            # Something that can be closed in the end, and that nobody reads.
            pipe.output = os.open("/dev/null", os.O_WRONLY)

    def test_what_was_asked_for_in_front_of_it_is_answered(self):
        queue = self.queue(agents=False)
        message = Message("a@b.example", ["y@far.example"], b"first\r\n")
        queue.submit(message)
        self.end(queue, "apus", "apus-smtpd")
        queue.until(lambda: message.answer, "no answer")
        self.assertEqual(message.answer[0], "queued")

    def test_mail_that_no_agent_is_there_for_does_not_keep_it_from_ending(self):
        queue = self.queue(agent=lambda name, sender, recipients: [("delivered", 250, "2.0.0")])
        for name in ("apus-local", "apus-bounce"):
            self.end(queue, name)
        self.hand_in(queue, Message("a@b.example", ["x@local.test", "y@far.example"], b"first\r\n"))
        queue.until(lambda: queue.done, "not delivered")
        self.end(queue, "apus", "apus-smtpd")
        queue.until(lambda: queue.process.poll() is not None, "no end", 10)
        self.assertEqual(queue.process.returncode, 0)


class Damage(ByHand):
    def test_a_message_with_a_hole_is_put_off_and_said_so_and_its_sender_is_told_in_the_end(self):
        holed = Message("a@b.example", ["x@far.example"], b"Subject: t\r\n\r\n" + b"y" * 4 * CHUNK)
        short = Message("a@b.example", ["z@far.example"], b"Subject: t\r\n\r\n" + b"z" * 2 * CHUNK)
        sound = Message("a@b.example", ["s@far.example"], b"Subject: t\r\n\r\n" + b"s" * 4 * CHUNK)
        with self.queue(paused="true") as queue:
            self.hand_in(queue, holed, short, sound)
        digits = "0123456789abcdefghjkmnpqrstvwxyz"
        with open(os.path.join(self.directory, "data.mdb"), "r+b") as file:
            octets = file.read()
            for message, last in ((holed, 4), (short, 2)):
                number = 0
                for digit in message.id:
                    number = number << 5 | digits.index(digit)
                key = number.to_bytes(8, "big")
                # The last part has the number of one that would stand further back.
                octets, count = re.subn(
                    re.escape(key + last.to_bytes(4, "big")), lambda _: key + (last + 1).to_bytes(4, "big"), octets)
                self.assertGreater(count, 0)
            file.seek(0)
            file.write(octets)
        queue = self.queue(agents=False)
        seen = []

        def agent(name, sender, recipients):
            seen.append((name, recipients))
            return [("delivered", 250, "2.0.0")] * len(recipients)
        queue.agent = agent
        # What is short would come unasked, with its envelope.
        remote = queue.pipes["apus-remote"]
        remote.send("hello", 0, "deliver", 1, "apus-remote", 200, 3 * CHUNK)
        for name in ("apus-local", "apus-bounce"):
            queue.hello(queue.pipes[name])
        queue.until(lambda: len(self.logged(queue, " recipient ")) == 3, "three recipients without a word")
        for message in (holed, short):
            self.assertTrue(self.logged(queue, "content-incomplete", message.id), queue.logged())
            self.assertTrue(
                self.logged(queue, " recipient ", "id=" + message.id, "status=deferred", "dsn=4.6.0"), queue.logged())
        self.assertEqual(seen, [("apus-remote", ["s@far.example"])])
        self.assertEqual([d.content[-CHUNK:] for d in queue.done], [b"s" * CHUNK])
        # Given up, it is reported with what is there.
        queue.done = []
        queue.answer("bounce", holed.id)
        queue.until(lambda: queue.done, "no report")
        self.assertEqual(queue.done[0].name, "apus-bounce")
        self.assertEqual(queue.done[0].content, holed.content[:4 * CHUNK])


class Forwards(ByHand):
    def test_mail_of_the_largest_size_that_is_taken_goes_on_to_others_however_long_the_fields_in_front(self):
        queue = self.queue(**{"message-size-max": 100_000})
        remote = []

        def agent(name, sender, recipients):
            if name == "apus-local":
                channel, = (c for n, c in queue.deliveries if n == name)
                queue.pipes[name].send("forward", channel, 0, sender, "x@far.example")
            elif name == "apus-remote":
                remote.append(recipients)
            return [("delivered", 250, "2.0.0")] * len(recipients)
        queue.agent = agent
        largest = Message("a@b.example", ["bob@local.test"], b"x" * 100_000)
        tooLarge = Message("a@b.example", ["bob@local.test"], b"x" * 100_001)
        self.hand_in(queue, largest, tooLarge)
        self.assertEqual(tooLarge.answer[:3], ("refused", "552", "5.3.4"))
        queue.until(lambda: len(self.logged(queue, " recipient ")) == 2, "the mail has not gone on")
        self.assertEqual(self.logged(queue, "dsn=5.3.4", " recipient "), [])
        self.assertEqual(remote, [["x@far.example"]])
        self.assertGreater(queue.done[-1].size, 100_000)


class Stop(ByHand):
    def test_deliveries_under_way_have_the_time_of_the_settings_and_no_more(self):
        held = []
        queue = self.queue(agent=lambda *_: held.append(1), **{"stop-timeout": 2})
        self.hand_in(queue, Message("a@b.example", ["x@far.example"], b"x\r\n"))
        queue.until(lambda: held, "no delivery")
        begun = time.monotonic()
        queue.process.send_signal(signal.SIGTERM)
        self.assertEqual(queue.process.wait(15), 0)
        self.assertGreater(time.monotonic() - begun, 1.9)
        self.assertTrue(self.logged(queue, "stop-timeout"), queue.logged())


class Unread(ByHand):
    def test_a_submitter_that_never_reads_its_answers_is_let_go(self):
        user = {}
        if os.geteuid() == 0:
            entry = pwd.getpwnam("nobody")
            user = dict(user=entry.pw_uid, group=entry.pw_gid, extra_groups=[])
        settings = {"directory": self.directory, "reserve": 0}
        with Part(os.path.join(binaries(), "apus-queue"), settings, "submit", hello=False, **user) as part:
            part.send("hello", 0, "submit", 1, "test", 0)
            # Refused at once, and so its channel is free again.
            some = frame("mail", 1, "a@b.example", "8bitmime", 1 << 40, "t") * 1000
            with self.assertRaises(BrokenPipeError):
                for _ in range(500):
                    part.send_raw(some)
            self.assertEqual(part.process.wait(20), 0)
            self.assertIn("link-fault peer=submitter dialect=submit kind=unread", part.logged()[-2000:])


class Memory(ByHand):
    PART = 60_000

    def begun(self, queue, count, partCount):
        """Begins so many messages, with so many parts of content each, and ends none; answers what it is answered."""
        pipe = queue.pipes["apus-smtpd"]
        part = b"x" * self.PART
        for _ in range(count):
            queue.channel += 1
            queue.submissions[queue.channel] = Begun()
            pipe.send("mail", queue.channel, "a@b.example", "8bitmime", 0, "t")
            pipe.send("rcpt", queue.channel, "x@far.example")
            for _ in range(partCount):
                pipe.send("data", queue.channel, part)
            queue.until(lambda: len(pipe.waiting) < 1_000_000, "the queue does not read")
        queue.until(lambda: not pipe.waiting, "the queue does not read")

    def own(self, queue):
        with open(f"/proc/{queue.process.pid}/status") as file:
            return sum(int(line.split()[1]) * 1024 for line in file if line.startswith(("RssAnon:", "RssShmem:")))

    def test_messages_that_begin_and_do_not_go_on_fill_no_memory(self):
        queue = self.queue(paused="true")
        self.hand_in(queue, Message("a@b.example", ["y@far.example"], b"first\r\n"))
        before = self.own(queue)
        for _ in range(25):
            self.begun(queue, 100, 2)
            # What was on its way to the disk is there when this is: the memory is not that of a slow disk.
            self.hand_in(queue, Message("a@b.example", ["z@far.example"], b"z" * 200_000))
        self.assertLess(self.own(queue) - before, 150 << 20)
        self.assertEqual(len(queue.submissions), 2_500, "some were refused")
        sizes = [row["size"] for row in queue.answer("list", 0)]
        self.assertEqual(sizes, [b"7"] + 25 * [b"200000"])

    @unittest.skipUnless(can_trace(), "strace as root only")
    def test_content_that_comes_faster_than_the_disk_takes_it_is_refused_in_the_end(self):
        queue = self.queue(paused="true")
        self.hand_in(queue, Message("a@b.example", ["y@far.example"], b"first\r\n"))
        self.inject(queue, "fdatasync:delay_enter=20000000:when=1")
        refused = []
        submitted = queue.submitted
        queue.submitted = lambda verb, channel, fields: (
            refused.append(fields[:2]) if verb == b"refused" else submitted(verb, channel, fields))
        self.begun(queue, 1_300, 4)
        queue.until(lambda: refused, "nothing is refused")
        self.assertEqual({tuple(r) for r in refused}, {(b"452", b"4.3.1")})
        self.assertLess(self.own(queue), 512 << 20)


class Begun:
    """A message of which no more comes."""
    credit = sent = 0
    content = b""
