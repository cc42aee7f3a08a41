# SPDX-License-Identifier: Apache-2.0
"""What Apus promises at its limits: sizes, numbers, full disks, slow clients, parts that break the rules."""
import base64
import contextlib
import hashlib
import json
import os
import re
import resource
import shutil
import signal
import smtplib
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import unittest

from apus import HERE, Apus, binaries
from peers import Raw, Sink, figure, slurp, wait_for
from tracing import Trace, can_trace, descriptors, pipes_between

MEGABYTE = 1_000_000


def setUpModule():
    # Copied once, before several threads want them.
    binaries()


def offer(session, recipients=("alice@apus.test",), sender="a@b.example"):
    """Up to and with DATA; the first reply that refuses, or that to DATA."""
    for line in [f"MAIL FROM:<{sender}>", *(f"RCPT TO:<{r}>" for r in recipients), "DATA"]:
        reply = session.command(line)
        if not reply.startswith(("250", "354")):
            break
    return reply


def submit(session, content, **envelope):
    """One message on a session; the last reply."""
    reply = offer(session, **envelope)
    if reply.startswith("354"):
        session.send(content + b".\r\n")
        reply = session.reply()
    return reply


def opened(port, **kwargs):
    session = Raw(port, **kwargs)
    session.command("EHLO c.example")
    return session


def status(apus, program):
    """The lines of `apus status` that a program has."""
    return [p for p in json.loads(apus.tool("status", "--json")[1])["programs"] if p["program"] == program]


def in_parallel(count, work):
    """Runs work(number) in threads; an error in one is an error here."""
    faults = []

    def run(number):
        try:
            work(number)
        except Exception as fault:
            faults.append(fault)
    threads = [threading.Thread(target=run, args=(i,), daemon=True) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    if faults:
        raise faults[0]


class Growth:
    """Samples the memory that the processes of an Apus have for themselves: RssAnon and RssShmem of /proc/PID/status.

    RssFile is left out: the pages of the queue's file that are mapped are the page cache's, which the kernel takes back
    when it likes; they count neither against nor for a program.
    """

    def __init__(self, apus):
        self.names = {pid: self.name(pid) for pid in apus.pids()}
        self.before = {pid: self.own(pid) for pid in self.names}
        self.peak = dict(self.before)
        self.samples = 0
        self.running = True
        self.thread = threading.Thread(target=self.run, daemon=True)

    @staticmethod
    def name(pid):
        with open(f"/proc/{pid}/comm") as f:
            return f.read().strip()

    @staticmethod
    def own(pid):
        with open(f"/proc/{pid}/status") as f:
            return sum(int(l.split()[1]) * 1024 for l in f if l.startswith(("RssAnon:", "RssShmem:")))

    def run(self):
        while self.running:
            for pid in self.names:
                self.peak[pid] = max(self.peak[pid], self.own(pid))
            self.samples += 1
            time.sleep(0.01)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.running = False
        self.thread.join()

    def most(self):
        return {self.names[pid]: self.peak[pid] - self.before[pid] for pid in self.names}


class Sizes(unittest.TestCase):
    def test_fifty_megabytes_pass_octet_for_octet_and_no_process_grows_by_more_than_sixteen(self):
        body = b"Subject: large\r\n\r\n" + base64.encodebytes(os.urandom(37_000_000)).replace(b"\n", b"\r\n")
        body += b".dot\r\n..\r\n" * 1000
        self.assertGreater(len(body), 50 * MEGABYTE)
        sink = Sink()
        self.addCleanup(sink.close)
        with Apus(smarthost=f"127.0.0.1:{sink.port}") as apus:
            both = ["alice@apus.test", "x@elsewhere.example"]
            with opened(apus.port) as session:
                for warming in range(3):
                    self.assertTrue(submit(session, b"Subject: small\r\n\r\nx\r\n", recipients=both).startswith("250"))
                apus.wait_empty()
                with Growth(apus) as growth:
                    self.assertTrue(offer(session, recipients=both).startswith("354"))
                    session.send(body.replace(b"\r\n.", b"\r\n..") + b".\r\n")
                    session.socket.settimeout(60)
                    self.assertTrue(session.reply().startswith("250"))
                    self.assertTrue(wait_for(lambda: len(sink.messages) == 4, 60), apus.log()[-3000:])
                    apus.wait_delivered(4, seconds=60)
                    apus.wait_empty()
            digest = hashlib.sha256(body).hexdigest()
            there = max((m[2] for m in sink.messages), key=len)
            here = max((slurp(p) for p in apus.delivered()), key=len)
            self.assertEqual(hashlib.sha256(there[-len(body):]).hexdigest(), digest)
            self.assertTrue(there[:-len(body)].startswith(b"Received: "))
            self.assertNotIn(b"\r", here)
            self.assertEqual(hashlib.sha256(here.replace(b"\n", b"\r\n")[-len(body):]).hexdigest(), digest)
            self.assertEqual(set(apus.pids()), set(growth.names), "a program was restarted")
            self.assertGreater(growth.samples, 20)
            figure("growth by a message of 50 MB", ", ".join(f"{n} {g / MEGABYTE:.1f} MB" for n, g in growth.most().items()))
            for name, octets in growth.most().items():
                self.assertLessEqual(octets, 16 * MEGABYTE, name)

    def test_a_client_that_asks_and_does_not_read_holds_at_most_a_quarter_of_a_megabyte(self):
        with Apus(extra="[smtp]\nerrors-max = 100000\n") as apus, contextlib.ExitStack() as stack:
            def client():
                s = stack.enter_context(socket.socket())
                s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                s.connect(("127.0.0.1", apus.port))
                s.setblocking(False)
                return s
            with Growth(apus) as growth:
                clients = [client() for _ in range(40)]
                for _ in range(60):
                    for s in clients:
                        with contextlib.suppress(BlockingIOError):
                            s.send(b"HELP\r\n" * 10_000)
                    time.sleep(0.02)
            most = growth.most()["apus-smtpd"] / len(clients)
            figure("held by a client that asks for help and does not read", f"{most / 1024:.0f} KiB")
            self.assertLessEqual(most, 256 * 1024)

    def test_the_operator_is_answered_at_once_while_five_thousand_messages_wait(self):
        with Apus(queue="paused = true\n") as apus:
            def fill(number):
                with opened(apus.port) as session:
                    for i in range(250):
                        if not submit(session, b"Subject: w\r\n\r\nx\r\n", recipients=["x@elsewhere.example"]).startswith("250"):
                            raise AssertionError("not taken")
            in_parallel(20, fill)
            self.assertEqual(apus.count(), 5000)
            first = apus.tool("queue", "list", "--limit", "1", "--json")[1]
            identity = re.search(r'"id":\s*"(\w+)"', first)[1]
            times = {}
            for words in (["status"], ["queue", "count"], ["queue", "list"], ["queue", "show", identity]):
                begun = time.monotonic()
                apus.tool(*words)
                times[" ".join(words[:2])] = time.monotonic() - begun
            figure("answers with 5000 messages waiting", ", ".join(f"{w} {t:.3f} s" for w, t in times.items()))
            self.assertEqual(len(apus.listed()), 5000)
            for words, seconds in times.items():
                self.assertLess(seconds, 1.0, words)


class Connections(unittest.TestCase):
    IDLE_OCTETS_MAX = 12 * 1024

    def setUp(self):
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.room = 1 << 20 if hard == resource.RLIM_INFINITY else hard
        if self.room < 5600:
            self.skipTest("needs 5,600 open files")
        # apusd itself raises what it is started with.
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 1024) if soft > 0 else 1024, hard))
        self.apus = Apus(extra="[smtp]\nsessions-max = 10100\n").start()
        self.addCleanup(self.apus.close)
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        with opened(self.apus.port) as session:
            for warming in range(20):
                self.assertTrue(submit(session, b"Subject: x\r\n\r\nx\r\n").startswith("250"))
        self.apus.wait_empty()
        self.sessions = []
        self.addCleanup(lambda: [s.close() for s in self.sessions])

    def open_up_to(self, count):
        while len(self.sessions) < count:
            self.sessions.append(opened(self.apus.port))

    def proportional(self):
        """The memory of apus-smtpd, PSS of /proc/PID/smaps_rollup."""
        total = 0
        for pid in self.apus.pids("apus-smtpd"):
            with open(f"/proc/{pid}/smaps_rollup") as f:
                total += sum(int(l.split()[1]) * 1024 for l in f if l.startswith("Pss:"))
        return total

    def test_five_thousand_connections_are_open_and_mail_goes_through_and_an_idle_one_takes_at_most_12_kib(self):
        self.open_up_to(50)
        before = self.proportional()
        self.open_up_to(1050)
        each = (self.proportional() - before) / 1000
        self.open_up_to(5000)
        figure("1000 idle connections", f"{each / 1024:.1f} KiB each; with 5000 PSS is {self.proportional() / MEGABYTE:.1f} MB")
        self.assertEqual([s["sessions"] for s in status(self.apus, "apus-smtpd")], [5000])
        begun = time.monotonic()
        with opened(self.apus.port) as session:
            self.assertTrue(submit(session, b"Subject: among\r\n\r\nx\r\n").startswith("250"))
        self.assertTrue(submit(self.sessions[2500], b"Subject: in the middle\r\n\r\nx\r\n").startswith("250"))
        self.apus.wait_delivered(22)
        figure("two messages among 5000 connections", f"{time.monotonic() - begun:.3f} s")
        for session in self.sessions:
            self.assertTrue(session.command("NOOP").startswith("250"))
        for session in self.sessions:
            session.close()
        self.assertTrue(wait_for(lambda: [s["sessions"] for s in status(self.apus, "apus-smtpd")] == [0], 10))
        self.assertLessEqual(each, self.IDLE_OCTETS_MAX)

    def test_with_ten_thousand_connections_open_an_idle_one_takes_at_most_12_kib(self):
        # Each end is a process of its own and has a descriptor for each connection.
        if self.room < 10_600:
            self.skipTest("needs 10,600 open files")
        before = self.proportional()
        self.open_up_to(10_000)
        each = (self.proportional() - before) / 10_000
        figure("10000 idle connections", f"{each / 1024:.1f} KiB each")
        self.assertEqual([s["sessions"] for s in status(self.apus, "apus-smtpd")], [10_000])
        self.assertTrue(submit(self.sessions[5000], b"Subject: in the middle\r\n\r\nx\r\n").startswith("250"))
        self.apus.wait_delivered(21)
        self.assertLessEqual(each, self.IDLE_OCTETS_MAX)


class Sessions(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.apus = Apus(extra="[smtp]\nsessions-max = 8\nsessions-per-client-max = 3\ncommand-timeout = 2\ndata-timeout = 2\ndata-rate-min = 1\n").start()

    @classmethod
    def tearDownClass(cls):
        cls.apus.close()

    def setUp(self):
        self.kept = []
        self.addCleanup(lambda: [s.close() for s in self.kept])
        self.assertTrue(wait_for(lambda: self.count() == 0, 10), self.apus.log()[-3000:])

    def count(self):
        return sum(s["sessions"] for s in status(self.apus, "apus-smtpd"))

    def come(self, source, timeout=20):
        session = Raw(self.apus.port, source=source, timeout=timeout)
        self.kept.append(session)
        return session

    def test_a_client_above_its_limit_is_turned_away_with_421_and_others_are_not(self):
        mine = [self.come("127.0.0.2") for _ in range(3)]
        self.assertTrue(all(s.greeting.startswith("220") for s in mine))
        turned = self.come("127.0.0.2")
        self.assertEqual(turned.greeting, "421 4.7.0 mx.apus.test too many connections from your address")
        self.assertEqual(turned.reply(), "")
        self.assertTrue(self.come("127.0.0.3").greeting.startswith("220"))
        # Who may relay is free of it.
        self.assertTrue(all(self.come("127.0.0.1").greeting.startswith("220") for _ in range(4)))
        self.assertTrue(self.apus.logged("turned-away", "client=127.0.0.2", "limit=sessions-per-client-max"))

    def test_a_client_that_leaves_makes_room_for_another_however_it_leaves(self):
        def quit_politely(session):
            self.assertTrue(session.command("QUIT").startswith("221"))

        def reset(session):
            session.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            session.close()

        def leave_in_data(session):
            session.command("EHLO c.example")
            self.assertTrue(offer(session).startswith("354"))
            session.send(b"Subject: cut")
            session.close()

        def half_close(session):
            session.socket.shutdown(socket.SHUT_WR)
            self.assertEqual(session.reply(), "")

        for leave in (quit_politely, Raw.close, reset, leave_in_data, half_close):
            mine = [self.come("127.0.0.2") for _ in range(3)]
            self.assertTrue(self.come("127.0.0.2").greeting.startswith("421"), leave)
            leave(mine[0])

            def comes():
                session = self.come("127.0.0.2")
                if session.greeting.startswith("220"):
                    mine.append(session)
                    return True
            self.assertTrue(wait_for(comes, 5, 0.05), leave)
            self.assertEqual(self.count(), 3)
            for session in self.kept:
                session.close()
            self.kept.clear()
            self.assertTrue(wait_for(lambda: self.count() == 0, 5), leave)

    def test_sessions_above_the_limit_of_all_are_turned_away_with_421_even_if_all_come_at_once(self):
        greetings = []
        in_parallel(30, lambda number: greetings.append(self.come(f"127.0.1.{number + 1}").greeting))
        self.assertEqual(sum(g.startswith("220") for g in greetings), 8)
        self.assertEqual(greetings.count("421 4.3.2 mx.apus.test is too busy, try later"), 22)
        self.assertEqual(self.count(), 8)
        self.assertTrue(self.come("127.0.0.1").greeting.startswith("421 4.3.2"))
        self.assertTrue(self.apus.logged("turned-away", "limit=sessions-max"))

    def check_ends(self, session, begun, after):
        self.assertEqual(session.reply(), "421 4.4.2 mx.apus.test waited too long for you")
        seconds = time.monotonic() - begun
        self.assertEqual(session.reply(), "")
        self.assertTrue(after - 0.1 <= seconds <= after + 2.5, seconds)

    def test_silence_between_commands_ends_the_session_with_421(self):
        begun = time.monotonic()
        session = self.come("127.0.0.2")
        self.check_ends(session, begun, 2)

    def test_one_octet_a_second_is_no_way_to_stay(self):
        session = self.come("127.0.0.2", timeout=1)
        begun = time.monotonic()
        reply = None
        for octet in b"NOOP and then some":
            session.send(bytes([octet]))
            try:
                reply = session.socket.recv(4096)
                break
            except TimeoutError:
                pass
        self.assertEqual(reply, b"421 4.4.2 mx.apus.test waited too long for you\r\n")
        self.assertLess(time.monotonic() - begun, 5)

    def test_a_client_that_stalls_within_a_message_is_ended_with_421_and_nothing_of_it_is_left(self):
        session = self.come("127.0.0.2")
        session.command("EHLO c.example")
        self.assertTrue(offer(session).startswith("354"))
        session.send(b"Subject: stalled\r\n\r\n" + b"x" * 70 + b"\r\n.")
        self.check_ends(session, time.monotonic(), 2)
        self.assertEqual(self.apus.count(), 0)
        self.assertFalse([p for p in self.apus.delivered() if b"Subject: stalled" in slurp(p)])

    def test_content_that_drips_is_ended_with_421_and_commands_that_lead_nowhere_are_too(self):
        apus = Apus(extra="[smtp]\ndata-timeout = 3\n")
        self.addCleanup(apus.close)
        apus.start()
        with Raw(apus.port, source="127.0.0.2") as session:
            session.command("EHLO c.example")
            self.assertTrue(offer(session).startswith("354"))
            session.socket.settimeout(0.4)
            begun, reply = time.monotonic(), b""
            while not reply and time.monotonic() - begun < 20:
                session.send(b"x")
                try:
                    reply = session.socket.recv(4096)
                except TimeoutError:
                    pass
            self.assertEqual(reply, b"421 4.4.2 mx.apus.test waited too long for you\r\n")
            self.assertGreater(time.monotonic() - begun, 2.5)
        with Raw(apus.port, source="127.0.0.2") as session:
            replies = [session.command("NOOP")[:3] for _ in range(121)]
            self.assertEqual(replies, 120 * ["250"] + ["421"])
        # What comes faster is taken, however long it takes.
        with Raw(apus.port, source="127.0.0.2") as session:
            session.command("EHLO c.example")
            self.assertTrue(offer(session).startswith("354"))
            for _ in range(30):
                session.send(b"y" * 298 + b"\r\n")
                time.sleep(0.3)
            session.send(b".\r\n")
            self.assertTrue(session.reply().startswith("250"))

    def test_a_client_that_goes_on_talking_is_not_ended(self):
        session = self.come("127.0.0.2")
        session.command("EHLO c.example")
        for _ in range(3):
            time.sleep(1.2)
            self.assertTrue(session.command("NOOP").startswith("250"))
        self.assertTrue(offer(session).startswith("354"))
        for _ in range(3):
            time.sleep(1.8)
            session.send(b"slow\r\n")
        session.send(b".\r\n")
        self.assertTrue(session.reply().startswith("250"))


@unittest.skipUnless(can_trace(), "needs strace and root")
class Syncs(unittest.TestCase):
    SYNCS = ("fdatasync", "fsync")
    READS = ("read", "readv")
    WRITES = ("write", "writev", "sendmsg")

    def submit_pipes(self, apus):
        """The names of the pipe that apus-queue reads submissions from and of the one that it answers on."""
        queue, smtpd = apus.pids("apus-queue"), apus.pids("apus-smtpd")
        (_, _, forth), = pipes_between(smtpd, queue)
        (_, _, back), = pipes_between(queue, smtpd)
        return forth, back

    def test_every_message_is_synced_before_its_250(self):
        with Apus(queue="paused = true\n") as apus, opened(apus.port) as session:
            forth, back = self.submit_pipes(apus)
            pid, = apus.pids("apus-queue")
            data = [(n, place, flags) for n, place, flags in descriptors(pid) if place.endswith("/queue/data.mdb")]
            # LMDB writes its first page, which makes the transaction, through a descriptor that syncs by itself.
            heads = [f"{n}<{place}>" for n, place, flags in data if flags & os.O_DSYNC]
            self.assertEqual(len(heads), 1, data)
            with Trace(pid) as trace:
                # One more than is looked at: of the last one strace may not see the end.
                for i in range(21):
                    self.assertTrue(submit(session, b"Subject: sync\r\n\r\nx\r\n").startswith("250"))
            commits = trace.named(self.READS, f"<{forth}>", "6:commit,")
            answers = trace.named(self.WRITES, f"<{back}>", "6:queued,")
            self.assertEqual(len(commits), 21)
            self.assertGreaterEqual(len(answers), 20)
            syncs = [c for c in trace.named(self.SYNCS, "/queue/data.mdb>") if c.result == "0"]
            pages = trace.named(("pwrite64", "pwritev", "pwritev2", "writev", "write"), "/queue/data.mdb>")
            for commit, answer in zip(commits[:20], answers):
                self.assertLess(commit.ended, answer.begun)
                between = [s for s in syncs if commit.ended < s.begun and s.ended < answer.begun]
                self.assertTrue(between, f"no sync before {answer}")
                content = [p for p in pages if commit.ended < p.begun and p.ended < between[-1].begun and "Subject: sync" in p.arguments]
                self.assertTrue(content, "the content was not written before the sync")
                head = [p for p in pages if between[-1].ended < p.begun and p.ended < answer.begun
                        and p.arguments.startswith(heads[0]) and int(p.result) > 0]
                self.assertTrue(head, "the transaction was not made before the answer")

    def test_a_hundred_clients_share_syncs(self):
        with Apus(queue="paused = true\n") as apus:
            barrier = threading.Barrier(100)
            pid, = apus.pids("apus-queue")

            def client(number):
                with opened(apus.port) as session:
                    for i in range(4):
                        barrier.wait(60)
                        if not submit(session, b"Subject: shared\r\n\r\nx\r\n").startswith("250"):
                            raise AssertionError("not taken")
            with Trace(pid, calls="fdatasync,fsync") as trace:
                in_parallel(100, client)
            self.assertEqual(apus.count(), 400)
            syncs = [c for c in trace.named(self.SYNCS, "/queue/data.mdb>") if c.result == "0"]
            figure("100 clients", f"{len(syncs)} syncs for 400 messages")
            self.assertGreater(len(syncs), 0)
            self.assertLess(len(syncs), 200)

    def test_a_mailbox_is_synced_file_and_directory_before_the_queue_is_told(self):
        with Apus() as apus, opened(apus.port) as session:
            self.assertTrue(submit(session, b"Subject: first\r\n\r\nx\r\n").startswith("250"))
            apus.wait_delivered(1)
            apus.wait_empty()
            pid, = apus.pids("apus-local")
            (_, _, back), = pipes_between([pid], apus.pids("apus-queue"))
            with Trace(pid) as trace:
                for i in range(10):
                    self.assertTrue(submit(session, b"Subject: m\r\n\r\nx\r\n").startswith("250"))
                    apus.wait_delivered(i + 2)
                    apus.wait_empty()
            told = trace.named(self.WRITES, f"<{back}>", "4:done,")
            self.assertEqual(len(told), 10)
            renames = trace.named(("rename", "renameat", "renameat2"), "new/")
            self.assertEqual(len(renames), 10)
            for rename, done in zip(renames, told):
                name = re.search(r'"new/([^"]+)"', rename.arguments)[1]
                file = [s for s in trace.named(self.SYNCS, f"/tmp/{name}>") if s.result == "0" and s.ended < rename.begun]
                folder = [s for s in trace.named(self.SYNCS, "/alice/new>") if s.result == "0" and rename.ended < s.begun]
                written = trace.named(("write", "writev", "pwrite64"), f"/tmp/{name}>")
                self.assertTrue(written and file, trace.found)
                self.assertLess(written[-1].ended, file[-1].begun, "written after the sync")
                self.assertTrue(folder and folder[0].ended < done.begun, f"{rename} {folder[:1]} {done}")

    def test_files_that_come_together_are_all_synced_before_the_first_gets_its_name_and_share_the_sync_of_the_folder(self):
        with Apus() as apus:
            pid, = apus.pids("apus-local")
            barrier = threading.Barrier(20)

            def client(number):
                with opened(apus.port) as session:
                    for i in range(5):
                        barrier.wait(60)
                        if not submit(session, b"Subject: m\r\n\r\nx\r\n").startswith("250"):
                            raise AssertionError("not taken")
            with Trace(pid) as trace:
                in_parallel(20, client)
                apus.wait_delivered(100)
                apus.wait_empty()
            folders = trace.named(self.SYNCS, "/alice/new>")
            files = [s for s in trace.named(self.SYNCS, "/alice/tmp/") if s.result == "0"]
            renames = trace.named(("renameat",), "new/")
            self.assertEqual((len(files), len(renames)), (100, 100))
            figure("100 mails", f"{len(folders)} syncs of the folder")
            self.assertLess(len(folders), 60)
            begin = -1
            for folder in folders:
                names = [r for r in renames if begin < r.begun < folder.begun]
                synced = [f for f in files if begin < f.begun < folder.begun]
                self.assertEqual(len(names), len(synced))
                self.assertLess(max(f.ended for f in synced), min(r.begun for r in names))
                begin = folder.ended


@unittest.skipUnless(os.geteuid() == 0, "needs root, for a small file system")
class FullDisk(unittest.TestCase):
    def start(self, size, reserve, **kwargs):
        apus = Apus(queue=f'paused = true\nreserve = "{reserve}"\nretry-min = 1\nretry-max = 2\n', **kwargs)
        state = os.path.join(apus.root, "state")
        os.makedirs(state)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=0755", "none", state], check=True)
        # After the mount is gone, what `close` could not remove.
        self.addCleanup(shutil.rmtree, apus.root, True)
        self.addCleanup(subprocess.run, ["umount", "-l", state], check=True)
        self.addCleanup(apus.close)
        apus.own()
        self.state = state
        return apus.start()

    def free(self):
        room = os.statvfs(self.state)
        return room.f_bavail * room.f_frsize

    def fill(self, apus, clients, octets, folder):
        """Sends until each client has been refused some times; the names of the messages that were accepted."""
        accepted, refused, lock = [], [], threading.Lock()

        def client(number):
            count = 0
            with opened(apus.port) as session:
                for i in range(2000):
                    name = f"f{number}-{i}-end"
                    reply = submit(session, f"Subject: {name}\r\n\r\n".encode() + (b"y" * 998 + b"\r\n") * (octets // 1000))
                    with lock:
                        (accepted if reply.startswith("250") else refused).append((name, reply))
                    if not reply.startswith("250"):
                        # The session is as usable as before.
                        if not session.command("RSET").startswith("250") or not session.command("NOOP").startswith("250"):
                            raise AssertionError("the session is not usable")
                        count += 1
                        if count >= 3:
                            return
        in_parallel(clients, client)
        self.assertTrue(refused, "never full")
        self.assertEqual({reply[:9] for _, reply in refused}, {"452 4.3.1"}, refused[:3])
        return [name for name, _ in accepted]

    def check_recovers(self, apus, accepted):
        self.assertEqual(apus.count(), len(accepted))
        figure("full disk", f"{len(accepted)} accepted, {self.free()} octets free")
        apus.write_settings(queue=apus.sections["queue"].replace("paused = true", "paused = false"))
        os.kill(apus.process.pid, signal.SIGHUP)
        apus.wait_delivered(len(accepted), seconds=60)
        apus.wait_empty()
        found = [re.search(rb"Subject: (\S+)", slurp(p))[1].decode() for p in apus.delivered()]
        self.assertEqual(sorted(found), sorted(accepted))

        def taken():
            with opened(apus.port) as session:
                return submit(session, b"Subject: again\r\n\r\nx\r\n").startswith("250")
        self.assertTrue(wait_for(taken, 5, 0.2), "no room again")
        apus.wait_delivered(len(accepted) + 1)

    def test_a_full_disk_refuses_new_mail_with_452_and_delivers_what_is_queued_from_the_reserve(self):
        apus = self.start("24m", "6 MiB")
        accepted = self.fill(apus, 1, 50_000, self.state)
        self.assertGreater(len(accepted), 100)
        self.check_recovers(apus, accepted)

    def test_many_large_messages_at_once_do_not_eat_up_the_reserve(self):
        apus = self.start("48m", "8 MiB")
        accepted = self.fill(apus, 8, 3_000_000, self.state)
        left = self.free()
        self.check_recovers(apus, accepted)
        self.assertGreater(left, 1 << 20, "the reserve was eaten up")


class Rules(unittest.TestCase):
    """Parts that break the rules of Documentation/pipes.md."""

    def folder(self):
        folder = tempfile.mkdtemp(prefix="apus-unruly-")
        self.addCleanup(shutil.rmtree, folder, True)
        for name in ("deliverer.py", "unruly.py"):
            shutil.copy(os.path.join(HERE, name), folder)
        os.mkdir(os.path.join(folder, "out"))
        for path in (folder, os.path.join(folder, "out")):
            os.chmod(path, 0o777)
        return folder

    def unruly(self, faults):
        """Settings of a local part that commits the faults, one a start, and delivers to the folder then."""
        folder = self.folder()
        python = shutil.which("python3", path="/usr/bin:/bin") or sys.executable
        words = [python, f"{folder}/unruly.py", f"{folder}/notes", ",".join(faults), python, f"{folder}/deliverer.py", f"{folder}/out"]
        return folder, "[programs]\nlocal = [%s]\n" % ", ".join(f'"{w}"' for w in words)

    def check(self, faults):
        """Mail waits while the part misbehaves, others' mail does not, and it is delivered once the part behaves."""
        folder, extra = self.unruly(faults)
        sink = Sink()
        try:
            with Apus(smarthost=f"127.0.0.1:{sink.port}", queue="retry-min = 1\nretry-max = 2\n", extra=extra) as apus:
                with opened(apus.port) as session:
                    self.assertTrue(submit(session, b"Subject: wait\r\n\r\nx\r\n").startswith("250"))
                    self.assertTrue(submit(session, b"Subject: go\r\n\r\nx\r\n", recipients=["x@elsewhere.example"]).startswith("250"))
                self.assertTrue(wait_for(lambda: sink.messages, 10), f"{faults}: others do not go on\n" + apus.log())
                out = os.path.join(folder, "out")
                self.assertTrue(wait_for(lambda: os.listdir(out), 30), f"{faults}: not delivered\n" + apus.log())
                apus.wait_empty()
                self.assertEqual(len(os.listdir(out)), 1, faults)
                self.assertTrue(slurp(os.path.join(out, os.listdir(out)[0])).endswith(b"Subject: wait\r\n\r\nx\r\n"))
                with open(os.path.join(folder, "notes")) as f:
                    starts = [float(l) for l in f]
                self.assertEqual(len(starts), len(faults) + 1, apus.log())
                told = apus.logged("apus-queue link-fault", "peer=apus-local")
                self.assertEqual(len(told), len(faults), f"{faults}\n" + "\n".join(told))
                self.assertEqual(len(apus.logged("apusd ended", "part=apus-local")), len(faults), apus.log())
                # At once, then after 1, 2, 4 … seconds.
                gaps = [b - a for a, b in zip(starts, starts[1:])]
                for number, gap in enumerate(gaps[1:]):
                    self.assertGreaterEqual(gap, 0.95 * (1 << number), gaps)
                for part in ("apus-queue", "apus-smtpd", "apus-remote", "apus-bounce", "apus-lookup"):
                    self.assertFalse(apus.logged("apusd ended", f"part={part}"), f"{faults}: {part} was not left alone")
        finally:
            sink.close()

    def test_frames_that_are_none_close_the_link_and_the_part_is_started_again_later_and_later(self):
        groups = [["garbage", "too-long", "endless-length", "no-comma"],
                  ["no-hello", "two-hellos", "wrong-dialect", "leading-zero"],
                  ["unknown-verb", "unknown-channel", "others-verb", "cut"],
                  ["too-many-fields", "few-fields", "long-text", "unknown-kind"],
                  ["wrong-status", "huge-want", "uninvited-report", "after-done"],
                  ["stranger", "two-outcomes", "wrong-version"]]
        in_parallel(len(groups), lambda number: self.check(groups[number]))

    def test_a_part_that_does_not_notice_the_end_of_its_link_is_replaced_too(self):
        self.check(["garbage!"])

    LINKS = (("apus-smtpd", "apus-queue"), ("apus-smtpd", "apus-lookup"), ("apus-smtpd", "apus-vault"), ("apus-queue", "apus-lookup"),
             ("apus-queue", "apus-remote"), ("apus-queue", "apus-local"), ("apus-queue", "apus-bounce"))

    def check_garbage(self, sink, writer, reader):
        """Octets that are no frame come out of a program of ours: the link ends, and soon mail goes through again."""
        with Apus(smarthost=f"127.0.0.1:{sink.port}") as apus:
            (pid, number, _), = pipes_between(apus.pids(writer), apus.pids(reader))
            with open(f"/proc/{pid}/fd/{number}", "wb", buffering=0) as pipe:
                pipe.write(b"25:4:rcpt,1:7,7:a@b.org,0:,garbage")
            self.assertTrue(wait_for(lambda: apus.logged(f"{reader} link-fault", f"peer={writer}"), 5), apus.log())
            subject = f"Subject: {writer}-{reader}"

            def works():
                try:
                    with smtplib.SMTP("127.0.0.1", apus.port, timeout=20) as client:
                        client.sendmail("alice@apus.test", ["alice@apus.test", "x@elsewhere.example", "gone@elsewhere.example"],
                                        f"{subject}\r\n\r\nx\r\n")
                    return True
                except (smtplib.SMTPException, OSError):
                    return False
            self.assertTrue(wait_for(works, 8, 0.1), "mail is refused from then on\n" + apus.log()[:5000])
            self.assertTrue(wait_for(lambda: any(subject.encode() in b for b in sink.bodies()), 8), apus.log())
            # The message, and the report about the recipient who does not exist.
            apus.wait_delivered(2, seconds=8)
            apus.wait_empty(8)

    def test_garbage_on_any_pipe_of_ours_ends_that_link_and_mail_goes_on(self):
        sink = Sink({"RCPT": lambda line: "550 5.1.1 no such user" if "gone@" in line else None})
        self.addCleanup(sink.close)
        ends = self.LINKS + tuple((b, a) for a, b in self.LINKS)
        faults = {}

        def check(number):
            try:
                self.check_garbage(sink, *ends[number])
            except AssertionError as fault:
                faults[ends[number]] = str(fault)
        for first in range(0, len(ends), 4):
            in_parallel(min(4, len(ends) - first), lambda number: check(first + number))
        self.assertFalse(faults, "\n".join(f"{a} to {b}: {text}" for (a, b), text in faults.items()))


if __name__ == "__main__":
    unittest.main()
