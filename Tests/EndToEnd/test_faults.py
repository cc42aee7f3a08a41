# SPDX-License-Identifier: Apache-2.0
"""Errors of the disk and of the pipes at chosen calls, put in by powercut/layer.c; and programs that stand still."""
import collections
import os
import signal
import smtplib
import threading
import time
import unittest

from apus import DAEMONS, Apus
from peers import Sink, slurp, wait_for
from powercut.ledger import Run, text
from powercut.byhand import Message
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
        for number in (12, 25):
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


class Standstill(unittest.TestCase):
    def test_a_program_that_stands_still_for_a_while_loses_nothing(self):
        sink = Sink()
        self.addCleanup(sink.close)
        accepted, lock, stop = [], threading.Lock(), threading.Event()

        def client(number):
            count = 0
            while not stop.is_set():
                try:
                    with smtplib.SMTP("127.0.0.1", apus.port, timeout=60) as smtp:
                        for _ in range(10):
                            count += 1
                            token = f"token-{number}-{count}."
                            to = "alice@apus.test" if count % 2 else "x@elsewhere.example"
                            smtp.sendmail("a@b.example", [to], f"Subject: {token}\r\n\r\nx\r\n")
                            with lock:
                                accepted.append(token)
                            if stop.is_set():
                                break
                except (OSError, smtplib.SMTPException):
                    time.sleep(0.05)

        with Apus(smarthost=f"127.0.0.1:{sink.port}", queue="retry-min = 1\nretry-max = 2\n") as apus:
            threads = [threading.Thread(target=client, args=(n,)) for n in range(4)]
            for thread in threads:
                thread.start()
            try:
                for name in ["apusd"] + DAEMONS:
                    before = len(accepted)
                    self.assertTrue(wait_for(lambda: len(accepted) > before + 20, 20), apus.log()[-3000:])
                    pids = apus.pids(name)
                    self.assertTrue(pids, name)
                    for pid in pids:
                        os.kill(pid, signal.SIGSTOP)
                    try:
                        time.sleep(SECONDS)
                    finally:
                        for pid in pids:
                            os.kill(pid, signal.SIGCONT)
            finally:
                stop.set()
                for thread in threads:
                    thread.join(90)
            apus.wait_empty(60)
            found = collections.Counter()
            for text in sink.bodies() + [slurp(p) for p in apus.delivered()]:
                at = text.index(b"token-")
                found[text[at:text.index(b".", at) + 1].decode()] += 1
            self.assertEqual([t for t in accepted if not found[t]], [])
            # Nobody has died, so nothing was delivered twice either.
            self.assertEqual([t for t, n in found.items() if n > 1], [])
            self.assertGreater(len(accepted), 140)
            self.assertEqual(apus.logged("apusd", "died"), [])


if __name__ == "__main__":
    unittest.main()
