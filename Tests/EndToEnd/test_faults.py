# SPDX-License-Identifier: Apache-2.0
"""Errors of the disk and of the pipes at chosen calls, put in by powercut/layer.c; and programs that stand still."""
import collections
import os
import shutil
import signal
import smtplib
import subprocess
import threading
import time
import unittest

from apus import DAEMONS, Apus
from peers import Sink, slurp, wait_for
from powercut.ledger import Run, new_folder, own, text
from powercut.byhand import Message, Queue
from powercut.disk import chance

SECONDS = float(os.environ.get("APUS_STOP_SECONDS", "1.5"))
EINTR, EIO, ENOMEM, ENOSPC = 4, 5, 12, 28


class Faults(unittest.TestCase):
    def run_with(self, fault, messages=120, more=()):
        run = Run(messages, 3, fault)
        self.addCleanup(run.close)
        run.messages += more
        return run.record()

    def whole(self, run):
        """The queue is whole: as the file system has it, and after power cuts."""
        self.assertEqual(run.early_answers(), [])
        end = len(run.records)
        for number in range(4):
            self.assertEqual(run.cut(end, number, journal=number % 2 == 0), [])
        self.assertEqual(run.check(run.directory, end), [])

    def ended(self, run):
        """It has stopped, has said so, and has accepted nothing since the fault. Answers the kinds of calls that followed."""
        log = run.queue.logged()
        self.assertEqual(run.queue.process.returncode, 71, log[-2000:])
        self.assertEqual(log.count("queue-broken"), 1)
        # Answers of the transaction before may leave after the fault; `whole` looks at what each waited for.
        fault = next(i for i, r in enumerate(run.records) if r.kind == "fault")
        self.assertTrue(run.queued_at)
        self.assertTrue(run.refusals)
        for _, (code, status, _) in run.refusals:
            self.assertEqual((code, status), ("451", "4.3.0"))
        self.whole(run)
        return [r.kind for r in run.records[fault + 1:] if r.kind != "out"]

    def test_after_a_failed_sync_nothing_is_accepted_and_nothing_is_synced_again(self):
        for number in (14, 27):
            run = self.run_with(f"sync:{EIO}:{number}")
            self.assertEqual(self.ended(run), ["sync", "sync-end"])

    def test_a_failed_write_of_the_meta_page_ends_the_queue_too(self):
        run = self.run_with(f"meta:{EIO}:20")
        # LMDB puts the old page back, so that no reader sees what was not confirmed; it does not try to commit again.
        self.assertLessEqual(set(self.ended(run)), {"write"})

    def test_a_failed_and_a_short_write_end_the_queue(self):
        for fault in (EIO, "short"):
            run = self.run_with(f"write:{fault}:60")
            self.assertLessEqual(set(self.ended(run)), {"write"})

    def test_a_full_disk_refuses_what_is_new_and_keeps_the_rest(self):
        run = self.run_with(f"write:{ENOSPC}:60,write:{ENOSPC}:111")
        self.assertIsNone(run.queue.exit_status)
        self.assertTrue(run.refusals)
        for _, (code, status, _) in run.refusals:
            self.assertEqual((code, status), ("452", "4.3.1"))
        for message in run.messages:
            if not message.is_aborted:
                self.assertIn(message.answer[0], ("queued", "refused"))
        self.assertGreater(len(run.queued_at), 50)
        self.whole(run)

    def test_no_memory_for_a_larger_map_ends_the_queue(self):
        more = [Message(f"m{n}@sender.test", [f"later-{n}-0@local.test"], text(chance(n), 6_000_000)) for n in range(200, 213)]
        run = self.run_with(f"map:{ENOMEM}:2", messages=20, more=more)
        self.ended(run)

    def test_short_and_interrupted_transfers_on_pipes_change_nothing(self):
        for fault in ("pipe-write:short:%3,pipe-read:short:%5", f"pipe-write:{EINTR}:%3,pipe-read:{EINTR}:%2"):
            run = self.run_with(fault)
            self.assertGreater(sum(r.kind == "fault" for r in run.records), 50)
            self.assertEqual(run.refusals, [])
            self.assertEqual(len(run.queued_at), sum(not m.is_aborted for m in run.messages) + len(run.reports))
            self.whole(run)


@unittest.skipUnless(os.geteuid() == 0, "needs root, for a small file system")
class FullDisk(unittest.TestCase):
    """A file system that is full to its last page: a write to it is short."""

    def setUp(self):
        folder = new_folder("apus-full-")
        self.directory = os.path.join(folder, "queue")
        self.addCleanup(shutil.rmtree, folder, True)
        os.mkdir(self.directory, 0o700)
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m,mode=0755", "none", self.directory], capture_output=True).returncode:
            self.skipTest("no mount here")
        self.addCleanup(subprocess.run, ["umount", "-l", self.directory])
        own(folder)
        self.seen = collections.Counter()

    def deliver(self, name, sender, recipients):
        self.seen.update(recipients)
        return [("delivered", 250, "2.0.0")] * len(recipients)

    def start(self, **more):
        queue = Queue(self.directory, agent=self.deliver, **{"retry-min": 1, "retry-max": 2, **more})
        self.addCleanup(queue.kill)
        return queue

    def fill(self, queue, count):
        messages = [Message(f"a{n}@b.example", [f"x{n}@h{n % 9}.example"], b"x" * 3000 + b"\r\n") for n in range(count)]
        for message in messages:
            queue.submit(message)
        queue.until(lambda: all(m.answer for m in messages), "no answer")
        self.assertEqual({m.answer[0] for m in messages}, {"queued"})
        # Whatever is left, with another program's file.
        with open(os.path.join(self.directory, "ballast"), "wb", buffering=0) as ballast:
            try:
                while True:
                    ballast.write(b"z" * 4096)
            except OSError:
                pass
        return messages

    def turn(self, queue, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end and queue.process.poll() is None:
            queue.turn(0.05)
        self.assertIsNone(queue.process.poll(), queue.logged()[-2000:])

    def drains(self, queue, count):
        os.remove(os.path.join(self.directory, "ballast"))
        queue.until(lambda: queue.answer("count")[0]["messages"] == b"0", "not empty", 60)
        self.assertEqual(len(self.seen), count)
        self.assertEqual([row for row in queue.answer("check") if "kind" in row], [])

    def test_what_finds_no_room_waits_and_is_noted_when_there_is_some(self):
        queue = self.start(agents=False)
        self.fill(queue, 300)
        for name in Queue.AGENTS:
            queue.hello(queue.pipes[name])
        self.turn(queue, 4)
        late = Message("a@b.example", ["late@h.example"], b"x\r\n")
        queue.submit(late)
        queue.until(lambda: late.answer, "no answer")
        if late.answer[0] == "refused":
            self.assertEqual(late.answer[1:3], ("452", "4.3.1"))
        self.assertNotIn("queue-broken", queue.logged())
        self.drains(queue, 300 + (late.answer[0] == "queued"))
        self.assertEqual(max(self.seen.values()), 1)

    def test_while_a_start_waits_for_room_an_order_makes_some_and_a_stop_need_not_wait(self):
        queue = self.start(agents=False)
        messages = self.fill(queue, 300)
        queue.kill()
        queue = self.start()
        self.turn(queue, 2)
        self.assertEqual(len(self.seen), 0)
        begun = time.monotonic()
        queue.answer("remove", messages[0].answer[1])
        self.assertLess(time.monotonic() - begun, 3)
        self.assertEqual(queue.answer("count")[0]["messages"], b"299")
        queue.process.terminate()
        self.assertEqual(queue.process.wait(5), 0)
        os.remove(os.path.join(self.directory, "ballast"))

    def test_a_start_on_it_delivers_nothing_whose_outcome_could_not_be_noted(self):
        queue = self.start(agents=False)
        self.fill(queue, 300)
        queue.kill()
        for _ in range(3):
            queue = self.start()
            self.turn(queue, 2)
            queue.kill()
        queue = self.start()
        self.turn(queue, 2)
        self.assertIn("queue-full", queue.logged())
        self.assertEqual(self.seen, {})
        self.drains(queue, 300)
        self.assertEqual(max(self.seen.values()), 1)


class Load:
    """Clients that send until they are told to stop, half of it for a mailbox, half for another server."""

    def __init__(self, apus, sink):
        self.apus, self.sink = apus, sink
        self.accepted, self.lock, self.is_over = [], threading.Lock(), threading.Event()
        self.threads = [threading.Thread(target=self.client, args=(n,)) for n in range(4)]

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.is_over.set()
        for thread in self.threads:
            thread.join(90)

    def client(self, number):
        count = 0
        while not self.is_over.is_set():
            try:
                with smtplib.SMTP("127.0.0.1", self.apus.port, timeout=60) as smtp:
                    for _ in range(10):
                        count += 1
                        token = f"token-{number}-{count}."
                        to = "alice@apus.test" if count % 2 else "x@elsewhere.example"
                        smtp.sendmail("a@b.example", [to], f"Subject: {token}\r\n\r\nx\r\n")
                        with self.lock:
                            self.accepted.append(token)
                        if self.is_over.is_set():
                            break
            except (OSError, smtplib.SMTPException):
                time.sleep(0.05)

    def goes_on(self):
        """Whether mail is accepted (again)."""
        before = len(self.accepted)
        return wait_for(lambda: len(self.accepted) > before + 20, 30)

    def found(self):
        """How often each token has arrived."""
        found = collections.Counter()
        for text in self.sink.bodies() + [slurp(p) for p in self.apus.delivered()]:
            at = text.index(b"token-")
            found[text[at:text.index(b".", at) + 1].decode()] += 1
        return found


class Want(unittest.TestCase):
    """Programs that are kept from what they need for a while, under load."""

    def hold(self, keep, give):
        sink = Sink()
        self.addCleanup(sink.close)
        with Apus(smarthost=f"127.0.0.1:{sink.port}", queue="retry-min = 1\nretry-max = 2\n") as apus:
            with Load(apus, sink) as load:
                for name in ["apusd"] + DAEMONS:
                    self.assertTrue(load.goes_on(), apus.log()[-3000:])
                    pids = apus.pids(name)
                    self.assertTrue(pids, name)
                    for pid in pids:
                        keep(pid)
                    try:
                        time.sleep(SECONDS)
                    finally:
                        for pid in pids:
                            give(pid)
                self.assertTrue(load.goes_on(), apus.log()[-3000:])
            # What has gathered meanwhile is more the longer they stood.
            apus.wait_empty(60 + 10 * SECONDS)
            found = load.found()
            self.assertEqual([t for t in load.accepted if not found[t]], [])
            # Nobody has died, so nothing was delivered twice either.
            self.assertEqual([t for t, n in found.items() if n > 1], [])
            self.assertGreater(len(load.accepted), 140)
            self.assertEqual(apus.logged("apusd", "ended"), [])

    def test_a_program_that_stands_still_for_a_while_loses_nothing(self):
        self.hold(lambda pid: os.kill(pid, signal.SIGSTOP), lambda pid: os.kill(pid, signal.SIGCONT))

    def test_a_program_without_another_descriptor_for_a_while_loses_nothing_and_does_not_spin(self):
        limits, busy = {}, []  # by pid: processor time before

        def ticks(pid):
            fields = slurp(f"/proc/{pid}/stat").rsplit(b")", 1)[1].split()
            return int(fields[11]) + int(fields[12])

        def limit(pid, count):
            # Only a process of the same user may.
            identity = Apus.identity_of(os.stat(f"/proc/{pid}").st_uid)
            subprocess.run(["prlimit", "--pid", str(pid), f"--nofile={count}:"], check=True, **identity)

        def keep(pid):
            limits[pid] = ticks(pid)
            # Not one more than it has now.
            limit(pid, len(os.listdir(f"/proc/{pid}/fd")))

        def give(pid):
            busy.append((ticks(pid) - limits[pid]) / os.sysconf("SC_CLK_TCK") / SECONDS)
            limit(pid, 4096)

        self.hold(keep, give)
        self.assertLess(max(busy), 0.8, busy)


if __name__ == "__main__":
    unittest.main()
