# SPDX-License-Identifier: Apache-2.0
"""apus-local, apus-bounce and apus-lookup run by hand, without the rest: frames in, frames and mail out."""
import email
import email.policy
import mailbox
import os
import pwd
import shutil
import subprocess
import tempfile
import time
import unittest

from apus import binaries
from peers import wait_for
from pipes import Deliveries, Part

CONTENT = b"Subject: hi\r\nMessage-ID: <1@a.example>\r\n\r\nline\r\n"
ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"


def message_id(number):
    value = 1_700_000_000_000_000 + number
    return "".join(ALPHABET[value >> 5 * (12 - place) & 31] for place in range(13))


def program(name):
    return os.path.join(binaries(), name)


def as_nobody():
    if os.geteuid() != 0:
        return {}
    entry = pwd.getpwnam("nobody")
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


class LocalWithoutRoot(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="apus-agents-")
        self.addCleanup(shutil.rmtree, self.folder, True)
        if os.geteuid() == 0:
            os.chown(self.folder, pwd.getpwnam("nobody").pw_uid, -1)
        self.settings = {"hostname": "mx.example.org", "mailbox": f"maildir:{self.folder}/%{{user}}"}

    def part(self):
        part = Part(program("apus-local"), self.settings, "deliver", **as_nobody())
        self.addCleanup(part.kill)
        return part

    def test_many_deliveries_to_several_users_at_once(self):
        part = self.part()
        deliveries = Deliveries(part)
        large = CONTENT + b"x" * 70 + b"\r\n" + b"".join(b"line %d\r\n" % i for i in range(100000))
        for i in range(60):
            deliveries.begin(message_id(i), f"local:user{i % 3}", large if i == 7 else CONTENT, [f"user{i % 3}@example.org"])
        for job in deliveries.run().values():
            self.assertEqual(job["outcomes"][0][:3], ["delivered", "0", "2.0.0"])
        for user in range(3):
            box = mailbox.Maildir(f"{self.folder}/user{user}", create=False)
            self.assertEqual(len(box), 20)
            for message in box:
                self.assertEqual(message["Return-Path"], "<alice@a.example>")
                self.assertEqual(message["Delivered-To"], f"user{user}@example.org")
        self.assertEqual(part.close(), 0)
        for user in range(3):
            self.assertEqual(os.listdir(f"{self.folder}/user{user}/tmp"), [])

    def test_a_killed_deliverer_repeats_what_was_not_noted_without_a_second_copy(self):
        for round in range(5):
            part = self.part()
            deliveries = Deliveries(part)
            for i in range(20):
                deliveries.begin(message_id(1000 * round + i), "local:joe", CONTENT, ["joe@example.org"])
            if round % 2:
                deliveries.run(noted=False)
            else:
                time.sleep(0.01 * round)
            part.kill()
            # The owner reads meanwhile, and deletes one.
            box = f"{self.folder}/joe"
            for n, name in enumerate(sorted(os.listdir(f"{box}/new")) if os.path.isdir(f"{box}/new") else []):
                os.rename(f"{box}/new/{name}", f"{box}/cur/{name}:2,S")
            part = self.part()
            deliveries = Deliveries(part)
            for i in range(20):
                deliveries.begin(message_id(1000 * round + i), "local:joe", CONTENT, ["joe@example.org"])
            deliveries.run()
            self.assertEqual(part.close(), 0)
            self.assertEqual(len(mailbox.Maildir(box, create=False)), 20 * (round + 1))
            self.assertEqual(os.listdir(f"{box}/tmp"), [])

    def test_a_full_disk_defers_and_leaves_nothing_behind(self):
        if os.geteuid() != 0:
            self.skipTest("needs root")
        small = os.path.join(self.folder, "small")
        os.mkdir(small)
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k,mode=777", "none", small], capture_output=True)
        if done.returncode:
            self.skipTest("no mount here")
        self.addCleanup(subprocess.run, ["umount", small])
        self.settings["mailbox"] = f"maildir:{small}/%{{user}}"
        part = self.part()
        deliveries = Deliveries(part)
        deliveries.begin(message_id(1), "local:joe", CONTENT + b"x" * 500_000, ["joe@example.org"])
        deliveries.begin(message_id(2), "local:joe", CONTENT, ["joe@example.org"])
        ended = deliveries.run()
        self.assertEqual(ended[1]["outcomes"][0][0:3], ["deferred", "0", "4.3.1"])
        self.assertEqual(ended[2]["outcomes"][0][0], "delivered")
        # The witness goes when the program has read `noted`.
        self.assertEqual(part.close(), 0)
        self.assertEqual(os.listdir(f"{small}/joe/tmp"), [])
        self.assertEqual(len(os.listdir(f"{small}/joe/new")), 1)

    def test_garbage_ends_the_program_and_nothing_else(self):
        for garbage in (b"x", b"5:hello,", b"0:,", b"99999999999:", b"25:4:rcpt,1:7,7:a@b.org,0:,,"):
            part = self.part()
            part.send_raw(garbage)
            part.process.stdin.close()
            part.process.wait(20)
            self.assertGreaterEqual(part.process.returncode, 0, garbage)
            self.assertIn("link-fault", part.logged())


@unittest.skipUnless(os.geteuid() == 0, "needs root")
class RealUsers(unittest.TestCase):
    """Tests of apus-local as root, with users of the system who are made for them."""
    # Names of their own for each run, so that two runs on one machine do not meet.
    USERS = tuple(f"apus-{os.getpid()}-{number}" for number in (1, 2, 3))

    @classmethod
    def setUpClass(cls):
        cls.homes = tempfile.mkdtemp(prefix="apus-homes-")
        os.chmod(cls.homes, 0o755)
        for user in cls.USERS:
            subprocess.run(["userdel", user], capture_output=True)
            subprocess.run(["useradd", "-m", "-b", cls.homes, "-s", "/usr/sbin/nologin", user], check=True, capture_output=True)

    @classmethod
    def tearDownClass(cls):
        for user in cls.USERS:
            subprocess.run(["userdel", user], capture_output=True)
        shutil.rmtree(cls.homes, True)

    def setUp(self):
        for user in self.USERS:
            shutil.rmtree(f"{self.homes}/{user}/Maildir", True)

    def part(self, **settings):
        part = Part(program("apus-local"), {"hostname": "mx.example.org", **settings}, "deliver")
        self.addCleanup(part.kill)
        return part

    def workers(self, part):
        found = []
        for task in os.listdir(f"/proc/{part.process.pid}/task"):
            with open(f"/proc/{part.process.pid}/task/{task}/children") as f:
                found += [int(pid) for pid in f.read().split()]
        return found


class LocalAsRoot(RealUsers):
    def test_a_user_whom_a_database_that_is_down_may_know_is_not_unknown(self):
        # Of what the C library brings along, this one cannot be asked without a configuration.
        switch = self.homes + "/nsswitch.conf"
        with open(switch, "w") as f:
            f.write("passwd: files hesiod\ngroup: files\nhosts: files\n")
        wrapper = self.homes + "/apus-local"
        with open(wrapper, "w") as f:
            f.write(f'#!/bin/sh\nexec unshare -m sh -c \'mount --bind {switch} /etc/nsswitch.conf && exec "$0" "$@"\' {program("apus-local")} "$@"\n')
        os.chmod(wrapper, 0o755)
        part = Part(wrapper, {"hostname": "mx.example.org"}, "deliver")
        self.addCleanup(part.kill)
        deliveries = Deliveries(part)
        stranger = deliveries.begin(message_id(1), "local:nobody-of-here", CONTENT, ["x@example.org"])
        known = deliveries.begin(message_id(2), f"local:{self.USERS[0]}", CONTENT, ["x@example.org"])
        ended = deliveries.run()
        self.assertEqual(ended[stranger]["outcomes"][0][::2][:2], ["deferred", "4.3.0"])
        self.assertEqual(ended[known]["outcomes"][0][0], "delivered")

    def test_each_mailbox_is_written_by_a_process_of_its_user_with_nothing_inherited(self):
        part = self.part()
        deliveries = Deliveries(part)
        for i in range(30):
            user = self.USERS[i % 3]
            deliveries.begin(message_id(i), f"local:{user}", CONTENT, [f"{user}@example.org"])
        for job in deliveries.run().values():
            self.assertEqual(job["outcomes"][0][0], "delivered")
        for user in self.USERS:
            entry = pwd.getpwnam(user)
            self.assertEqual(len(mailbox.Maildir(f"{entry.pw_dir}/Maildir", create=False)), 10)
            for path, folders, files in os.walk(f"{entry.pw_dir}/Maildir"):
                for name in [path] + [os.path.join(path, f) for f in files]:
                    status = os.stat(name)
                    self.assertEqual((status.st_uid, status.st_gid), (entry.pw_uid, entry.pw_gid), name)
                    self.assertEqual(status.st_mode & 0o077, 0, name)
        pids = self.workers(part)
        self.assertEqual(len(pids), 3)
        uids = set()
        for pid in pids:
            with open(f"/proc/{pid}/status") as f:
                status = dict(line.split(":\t", 1) for line in f.read().splitlines() if ":\t" in line)
            uids.add(int(status["Uid"].split()[0]))
            self.assertEqual(len(set(status["Uid"].split())), 1)
            self.assertEqual(len(set(status["Gid"].split())), 1)
            self.assertNotIn("0", status["Groups"].split())
            self.assertEqual(int(status["CapEff"], 16), 0)
            self.assertEqual(os.readlink(f"/proc/{pid}/cwd"), "/")
            # Three pipes; the mailbox is closed as soon as the queue has noted what became of the mail.
            self.assertTrue(wait_for(lambda: sorted(os.listdir(f"/proc/{pid}/fd")) == ["0", "1", "2"], 10))
            with open(f"/proc/{pid}/environ") as f:
                names = {pair.split("=")[0] for pair in f.read().split("\0") if pair}
            self.assertLessEqual(names, {"HOME", "USER", "LOGNAME", "PATH", "SWIFT_BACKTRACE"})
        self.assertEqual(uids, {pwd.getpwnam(user).pw_uid for user in self.USERS})
        self.assertEqual(part.close(), 0)
        self.assertTrue(wait_for(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in pids), 10))

    def test_root_and_unknown_users_get_nothing(self):
        deliveries = Deliveries(self.part())
        deliveries.begin(message_id(1), "local:root", CONTENT, ["root@example.org"])
        deliveries.begin(message_id(2), "local:apus-test-gone", CONTENT, ["x@example.org", "y@example.org"])
        ended = deliveries.run()
        self.assertEqual(ended[1]["outcomes"][0][0:3], ["failed", "0", "5.7.1"])
        self.assertEqual([o[0:3] for o in ended[2]["outcomes"].values()], [["failed", "0", "5.1.1"]] * 2)

    def test_an_owner_cannot_lead_the_delivery_elsewhere(self):
        user = self.USERS[0]
        home = pwd.getpwnam(user).pw_dir
        victim = os.path.join(self.homes, "victim")
        os.makedirs(victim + "/Maildir", exist_ok=True)
        os.chmod(victim, 0o700)
        os.symlink(victim + "/Maildir", f"{home}/Maildir")
        deliveries = Deliveries(self.part())
        deliveries.begin(message_id(1), f"local:{user}", CONTENT, ["x@example.org"])
        self.assertEqual(deliveries.run()[1]["outcomes"][0][0:3], ["deferred", "0", "4.2.0"])
        self.assertEqual(os.listdir(victim + "/Maildir"), [])
        os.unlink(f"{home}/Maildir")

    def test_workers_are_few_are_reused_and_leave_when_they_have_nothing_to_do(self):
        part = self.part(**{"workers-max": 2, "worker-idle": 1})
        deliveries = Deliveries(part)
        for i in range(60):
            user = self.USERS[i % 3]
            deliveries.begin(message_id(i), f"local:{user}", CONTENT, [f"{user}@example.org"])
        self.assertEqual(len(deliveries.run()), 60)
        self.assertLessEqual(len(self.workers(part)), 2)
        for user in self.USERS:
            self.assertEqual(len(os.listdir(f"{pwd.getpwnam(user).pw_dir}/Maildir/new")), 20)
        self.assertTrue(wait_for(lambda: not self.workers(part), 10))
        deliveries.begin(message_id(100), f"local:{self.USERS[0]}", CONTENT, ["x@example.org"])
        self.assertEqual(deliveries.run()[61]["outcomes"][0][0], "delivered")

    def test_a_killed_worker_defers_its_mail_and_another_one_delivers_it_once(self):
        part = self.part()
        deliveries = Deliveries(part)
        user = self.USERS[0]
        first = deliveries.begin(message_id(1), f"local:{user}", CONTENT + b"x" * 100_000, ["x@example.org"])
        self.assertEqual(part.receive()[0], b"want")
        for pid in self.workers(part):
            os.kill(pid, 9)
        self.assertEqual(deliveries.run()[first]["outcomes"][0][0:3], ["deferred", "0", "4.3.0"])
        again = deliveries.begin(message_id(1), f"local:{user}", CONTENT + b"x" * 100_000, ["x@example.org"])
        self.assertEqual(deliveries.run()[again]["outcomes"][0][0], "delivered")
        self.assertEqual(len(os.listdir(f"{pwd.getpwnam(user).pw_dir}/Maildir/new")), 1)

    def test_workers_do_not_outlive_the_program(self):
        part = self.part()
        deliveries = Deliveries(part)
        deliveries.begin(message_id(1), f"local:{self.USERS[0]}", CONTENT, ["x@example.org"])
        deliveries.run()
        pids = self.workers(part)
        self.assertEqual(len(pids), 1)
        part.kill()
        self.assertTrue(wait_for(lambda: not os.path.exists(f"/proc/{pids[0]}"), 10))


class Bounce(unittest.TestCase):
    FATE = (550, "5.1.1", "mx.remote.example[192.0.2.1]", "<x@remote.example> no such user here")

    def part(self, **settings):
        part = Part(program("apus-bounce"), {"hostname": "mx.example.org", **settings}, "deliver", **as_nobody())
        self.addCleanup(part.kill)
        return part

    def report(self, content, recipients, fate=FATE):
        deliveries = Deliveries(self.part())
        deliveries.begin(message_id(1), "bounce:", content, recipients, fate=fate)
        job = deliveries.run()[1]
        words = [verb for verb, _ in job["exchange"]]
        self.assertEqual(words[:2] + words[-1:], [b"mail", b"rcpt", b"commit"])
        self.assertEqual(job["exchange"][0][1][0], b"")
        self.assertEqual(job["exchange"][1][1][0], b"alice@a.example")
        data = b"".join(fields[0] for verb, fields in job["exchange"] if verb == b"data")
        self.assertEqual(job["exchange"][-1][1], [b"%d" % len(data), b"", b""])
        return data

    def parse(self, data):
        data.decode("ascii")
        self.assertTrue(all(len(line) <= 998 for line in data.split(b"\r\n")))
        self.assertEqual(data.count(b"\n"), data.count(b"\r\n"))
        message = email.message_from_bytes(data, policy=email.policy.SMTP)
        self.assertEqual(message.get_content_type(), "multipart/report")
        for part in message.walk():
            self.assertEqual(part.defects, [])
        return message

    def test_a_report_is_one_that_bounce_parsers_know(self):
        message = self.parse(self.report(CONTENT, ["x@remote.example", ("y@remote.example", "team@example.org")]))
        parts = message.get_payload()
        self.assertEqual(
            [p.get_content_type() for p in parts], ["text/plain", "message/delivery-status", "text/rfc822-headers"])
        self.assertEqual(message["Auto-Submitted"], "auto-replied")
        status = parts[1].get_payload()
        self.assertEqual(status[0]["Reporting-MTA"], "dns; mx.example.org")
        self.assertEqual(status[1]["Final-Recipient"], "rfc822; x@remote.example")
        self.assertEqual(status[1]["Remote-MTA"], "dns; mx.remote.example")
        self.assertEqual(status[2]["Original-Recipient"], "rfc822; team@example.org")
        try:
            from flufl.bounce import all_failures
        except ImportError:
            self.skipTest("flufl.bounce is not installed")
        plain = email.message_from_bytes(message.as_bytes())
        temporary, permanent = all_failures(plain)
        self.assertEqual(permanent, {b"x@remote.example", b"team@example.org"})

    def test_headers_of_any_kind_stay_whole(self):
        header = b"Subject: caf\xe9 = \x00 " + b"y" * 2000 + b"\r\nX: 1\r\n"
        message = self.parse(self.report(header + b"\r\nsecret body\r\n", ["x@remote.example"]))
        quoted = message.get_payload()[2].get_payload(decode=True)
        self.assertEqual(quoted, header)
        self.assertNotIn(b"secret body", message.as_bytes())

    def test_expired_mail_is_reported_in_words(self):
        message = self.parse(self.report(CONTENT, ["x@remote.example"], (0, "5.4.7", "apus-remote", "connection refused")))
        self.assertIn("could not be reached", message.get_payload()[0].get_payload())


class Lookup(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="apus-lookup-")
        os.chmod(self.folder, 0o755)
        self.addCleanup(shutil.rmtree, self.folder, True)
        self.aliases = os.path.join(self.folder, "aliases")
        self.write("team: alice, bob, x@remote.example\nbroken: |prog\n")
        self.part = Part(
            program("apus-lookup"),
            {"hostname": "mx.example.org", "local-domain": ["example.org"], "aliases": self.aliases,
             "user": ["alice", "bob"], "single-user": "bob"}, "ask", **as_nobody())
        self.addCleanup(self.part.kill)

    def write(self, text):
        with open(self.aliases, "w") as f:
            f.write(text)
        os.chmod(self.aliases, 0o644)

    def ask(self, verb, address):
        self.part.send(verb, 1, address)
        answers = []
        while True:
            got = [f.decode() for f in self.part.receive()]
            self.assertEqual(got.pop(1), "1")
            answers.append(" ".join(got))
            if got[0] != "target":
                return answers

    def test_questions_are_answered(self):
        self.assertEqual(self.ask("check", "Alice+x@example.org"), ["local"])
        self.assertEqual(self.ask("check", "x@remote.example"), ["remote"])
        self.assertEqual(self.ask("check", "nobody@example.org"), ["unknown 5.1.1 no such user here"])
        self.assertEqual(self.ask("check", "broken@example.org")[0].split()[0], "later")
        self.assertEqual(self.ask("resolve", "team@example.org"), [
            "target alice@example.org local:alice", "target bob@example.org local:bob",
            "target x@remote.example remote:remote.example", "resolved 3"])
        self.assertEqual(self.ask("resolve", "postmaster"), ["target bob@mx.example.org local:bob", "resolved 1"])
        self.assertEqual(self.part.close(), 0)

    def test_a_changed_file_is_seen_and_a_broken_one_is_not(self):
        self.assertEqual(self.ask("check", "new@example.org")[0].split()[0], "unknown")
        self.write("new: alice\nteam: bob\n")
        self.assertTrue(wait_for(lambda: self.ask("check", "new@example.org") == ["local"], 10))
        self.write("what is this\n")
        time.sleep(2.5)
        self.assertEqual(self.ask("check", "new@example.org"), ["local"])
        self.assertIn("aliases-kept", self.part.logged())
        os.unlink(self.aliases)
        time.sleep(1.5)
        self.assertEqual(self.ask("check", "new@example.org"), ["local"])
        self.assertIn("aliases-unreadable", self.part.logged())


if __name__ == "__main__":
    unittest.main()
