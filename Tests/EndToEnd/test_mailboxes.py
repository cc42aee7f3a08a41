# SPDX-License-Identifier: Apache-2.0
"""apus-local where mail does not go into a Maildir: mbox, programs, nowhere."""
import fcntl
import json
import mailbox
import os
import pty
import pwd
import select
import shutil
import stat
import subprocess
import threading
import time
import unittest

from peers import slurp, wait_for
from pipes import Deliveries, Part
import test_agents
from test_agents import CONTENT, RealUsers, message_id, program

FROM = (b"Subject: quoting\r\nFrom: x@a.example\r\n\r\nFrom the start\r\n>From once\r\n>>From twice\r\nFromage\r\n"
        b" From behind a blank\r\n>not quoted\r\nFrom \r\nlast line without an end: From ")


PYTHON = "/usr/bin/python3"


def text(path):
    return slurp(path).decode()


class OneUser(unittest.TestCase):
    """apus-local without root, as a user who has a home that he cannot write."""
    def setUp(self):
        test_agents.LocalWithoutRoot.setUp(self)
        self.privileges = {}
        if os.geteuid() == 0:
            entry = pwd.getpwnam("daemon")
            os.chown(self.folder, entry.pw_uid, -1)
            self.privileges = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}

    def part(self):
        part = Part(program("apus-local"), self.settings, "deliver", **self.privileges)
        self.addCleanup(part.kill)
        return part

    def deliver(self, part, number=1, content=CONTENT, user="joe", recipient=None):
        deliveries = Deliveries(part)
        deliveries.begin(message_id(number), f"local:{user}", content, [recipient or f"{user}@example.org"])
        return deliveries.run(seconds=60)[1]["outcomes"][0]

    def script(self, text, name="take"):
        path = f"{self.folder}/{name}"
        with open(path, "w") as f:
            f.write(f"#!{PYTHON}\n" + text if not text.startswith("#!") else text)
        os.chmod(path, 0o755)
        os.chmod(self.folder, 0o755)
        return path


class Mbox(OneUser):
    def setUp(self):
        super().setUp()
        self.settings["mailbox"] = f"mbox:{self.folder}/mail/%{{user}}"
        self.path = f"{self.folder}/mail/joe"

    def test_messages_are_read_back_by_others_as_they_came(self):
        part = self.part()
        deliveries = Deliveries(part)
        large = CONTENT + b"".join(b"From line %d\r\n" % i for i in range(30000))
        for number, content in enumerate([CONTENT, FROM, large, CONTENT]):
            deliveries.begin(message_id(number), "local:joe", content, ["joe+tag@example.org"])
        for job in deliveries.run().values():
            self.assertEqual(job["outcomes"][0][:3], ["delivered", "0", "2.0.0"])
        part.close()
        text = slurp(self.path)
        self.assertTrue(text.startswith(b"From alice@a.example "))
        self.assertIn(b"\n\n>From the start\n>>From once\n>>>From twice\nFromage\n From behind a blank\n>not quoted\n>From \nlast", text)
        self.assertEqual(stat.S_IMODE(os.stat(self.path).st_mode), 0o600)
        box = mailbox.mbox(self.path, create=False)
        self.assertEqual(len(box), 4)
        by_size = sorted((m.as_bytes() for m in box), key=len)
        self.assertIn(b"\n\nline\n", by_size[0])
        self.assertEqual(by_size[-1].count(b">From line"), 30000)
        for message in box:
            self.assertEqual(message["Return-Path"], "<alice@a.example>")
            self.assertEqual(message["Delivered-To"], "joe+tag@example.org")

    def test_mutt_shows_them(self):
        self.assertEqual(self.deliver(self.part(), content=FROM)[0], "delivered")
        os.mkdir(f"{self.folder}/Mail")
        # A terminal for it, and the index as it is on the screen.
        master, slave = pty.openpty()
        self.addCleanup(os.close, master)
        mutt = subprocess.Popen(
            ["mutt", "-n", "-F", "/dev/null", "-R", "-f", self.path], stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
            env={"TERM": "vt100", "HOME": self.folder, "PATH": os.environ["PATH"]})
        os.close(slave)
        self.addCleanup(mutt.wait)
        self.addCleanup(mutt.kill)
        seen = b""
        deadline = time.monotonic() + 20
        while not (b"quoting" in seen and b"Msgs:" in seen) and time.monotonic() < deadline:
            if select.select([master], [], [], 1)[0]:
                seen += os.read(master, 65536)
        self.assertIn(b"quoting", seen)
        self.assertIn(b"Msgs:1", seen)

    def test_a_mailbox_that_others_have_locked_is_waited_for_either_way(self):
        part = self.part()
        self.assertEqual(self.deliver(part)[0], "delivered")
        with open(self.path, "r+b") as f:
            fcntl.lockf(f, fcntl.LOCK_EX)
            threading.Timer(2, lambda: fcntl.lockf(f, fcntl.LOCK_UN)).start()
            begun = time.monotonic()
            self.assertEqual(self.deliver(part, 2)[0], "delivered")
            self.assertGreater(time.monotonic() - begun, 1.5)
        lock = self.path + ".lock"
        open(lock, "w").close()
        threading.Timer(2, lambda: os.unlink(lock)).start()
        begun = time.monotonic()
        self.assertEqual(self.deliver(part, 3)[0], "delivered")
        self.assertGreater(time.monotonic() - begun, 1.5)
        self.assertFalse(os.path.exists(lock))

    def test_a_lock_that_stays_defers_and_one_that_is_old_is_removed(self):
        part = self.part()
        self.assertEqual(self.deliver(part)[0], "delivered")
        lock = self.path + ".lock"
        open(lock, "w").close()
        outcome = self.deliver(part, 2)
        self.assertEqual(outcome[:3], ["deferred", "0", "4.2.0"])
        self.assertIn("locked", outcome[4])
        os.utime(lock, (time.time() - 700,) * 2)
        self.assertEqual(self.deliver(part, 2)[0], "delivered")
        self.assertFalse(os.path.exists(lock))
        self.assertEqual(len(mailbox.mbox(self.path)), 2)

    @unittest.skipUnless(os.geteuid() == 0, "needs root")
    def test_what_a_full_disk_has_cut_off_is_taken_back(self):
        small = os.path.join(self.folder, "small")
        os.mkdir(small)
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k,mode=777", "none", small], capture_output=True).returncode:
            self.skipTest("no mount here")
        self.addCleanup(subprocess.run, ["umount", small])
        self.settings["mailbox"] = f"mbox:{small}/%{{user}}"
        part = self.part()
        self.assertEqual(self.deliver(part)[0], "delivered")
        before = slurp(f"{small}/joe")
        self.assertEqual(self.deliver(part, 2, CONTENT + b"x" * 500_000)[:3], ["deferred", "0", "4.3.1"])
        self.assertEqual(slurp(f"{small}/joe"), before)
        self.assertEqual(self.deliver(part, 3)[0], "delivered")
        self.assertEqual(len(mailbox.mbox(f"{small}/joe")), 2)

    def test_whatever_is_no_file_of_the_users_is_left_alone(self):
        part = self.part()
        os.makedirs(f"{self.folder}/mail", exist_ok=True)
        os.chmod(f"{self.folder}/mail", 0o777)
        other = f"{self.folder}/other"
        open(other, "w").close()
        if os.geteuid() == 0:
            os.chown(other, pwd.getpwnam("daemon").pw_uid, -1)
        for make in (lambda: os.mkfifo(self.path), lambda: os.symlink(other, self.path), lambda: os.link(other, self.path),
                     lambda: os.mkdir(self.path), lambda: os.symlink("/dev/null", self.path)):
            make()
            begun = time.monotonic()
            outcome = self.deliver(part)
            self.assertEqual(outcome[:2], ["deferred", "0"], outcome)
            self.assertTrue(outcome[2].startswith("4.2"), outcome)
            self.assertLess(time.monotonic() - begun, 5)
            (os.rmdir if os.path.isdir(self.path) and not os.path.islink(self.path) else os.unlink)(self.path)
        self.assertEqual(os.path.getsize(other), 0)
        self.assertFalse(os.path.exists(self.path + ".lock"))


class Quota(OneUser):
    def setUp(self):
        super().setUp()
        self.box = f"{self.folder}/joe"
        self.settings["mailbox"] = f"maildir:{self.folder}/%{{user}}"

    def names(self):
        return os.listdir(self.box + "/new") + os.listdir(self.box + "/cur")

    def test_mail_for_a_full_mailbox_waits_or_is_returned(self):
        content = CONTENT + b"x" * 9_000
        self.settings["quota"] = 30_000
        part = self.part()
        for number in range(3):
            self.assertEqual(self.deliver(part, number, content)[0], "delivered")
        self.assertEqual(self.deliver(part, 4, content)[:3], ["deferred", "0", "4.2.2"])
        # A small one has room.
        self.assertEqual(self.deliver(part, 5)[0], "delivered")
        part.close()
        self.settings["over-quota"] = "fail"
        part = self.part()
        self.assertEqual(self.deliver(part, 4, content)[:3], ["failed", "0", "5.2.2"])
        self.assertEqual(len(self.names()), 4)
        self.assertEqual(os.listdir(self.box + "/tmp"), [])
        for name in self.names():
            self.assertEqual(int(name.split(",S=")[1]), os.path.getsize(f"{self.box}/new/{name}"))
        first, *lines = text(self.box + "/maildirsize").splitlines()
        self.assertEqual(first, "30000S")
        self.assertEqual(sum(int(line.split()[0]) for line in lines), sum(os.path.getsize(f"{self.box}/new/{n}") for n in self.names()))
        self.assertEqual(sum(int(line.split()[1]) for line in lines), 4)

    def test_a_burst_does_not_go_beyond_the_limit(self):
        self.settings["quota-messages"] = 10
        deliveries = Deliveries(self.part())
        for number in range(40):
            deliveries.begin(message_id(number), "local:joe", CONTENT, ["joe@example.org"])
        outcomes = [job["outcomes"][0][0] for job in deliveries.run().values()]
        self.assertEqual((outcomes.count("delivered"), outcomes.count("deferred")), (10, 30))
        self.assertEqual(len(self.names()), 10)

    def test_what_others_have_taken_out_is_noticed_before_mail_is_refused(self):
        self.settings["quota-messages"] = 2
        part = self.part()
        for number in range(2):
            self.assertEqual(self.deliver(part, number)[0], "delivered")
        self.assertEqual(self.deliver(part, 2)[0], "deferred")
        os.unlink(f"{self.box}/new/{self.names()[0]}")
        # Counted a moment ago: believed for fifteen minutes, so that a full mailbox is not counted for every message.
        self.assertEqual(self.deliver(part, 2)[0], "deferred")
        os.utime(f"{self.box}/maildirsize", (time.time() - 1000,) * 2)
        self.assertEqual(self.deliver(part, 2)[0], "delivered")
        # Another program says that it has taken one out.
        os.unlink(f"{self.box}/new/{self.names()[0]}")
        with open(f"{self.box}/maildirsize", "a") as f:
            f.write("-100 -1\n")
        self.assertEqual(self.deliver(part, 3)[0], "delivered")
        # What is marked as deleted, and the trash, do not count; folders do.
        name, other = sorted(self.names())
        os.rename(f"{self.box}/new/{name}", f"{self.box}/cur/{name}:2,ST")
        os.makedirs(f"{self.box}/.Trash/cur")
        shutil.copy(f"{self.box}/new/{other}", f"{self.box}/.Trash/cur/1.x")
        os.unlink(f"{self.box}/maildirsize")
        self.assertEqual(self.deliver(part, 4)[0], "delivered")
        os.makedirs(f"{self.box}/.Sent/cur")
        os.rename(f"{self.box}/new/{other}", f"{self.box}/.Sent/cur/{other}:2,S")
        os.unlink(f"{self.box}/maildirsize")
        self.assertEqual(self.deliver(part, 5)[0], "deferred")

    def test_the_mailboxs_own_file_counts_without_a_setting_and_a_broken_one_stops_nothing(self):
        part = self.part()
        self.assertEqual(self.deliver(part, 1)[0], "delivered")
        self.assertFalse(os.path.exists(self.box + "/maildirsize"))
        self.assertNotIn(",S=", self.names()[0])
        self.write("0S,1C\n100 1\n")
        self.assertEqual(self.deliver(part, 2)[:3], ["deferred", "0", "4.2.2"])
        self.write("garbage\n")
        self.assertEqual(self.deliver(part, 2)[0], "delivered")
        os.unlink(self.box + "/maildirsize")
        os.mkfifo(self.box + "/maildirsize")
        begun = time.monotonic()
        self.assertEqual(self.deliver(part, 3)[0], "delivered")
        self.assertLess(time.monotonic() - begun, 5)

    def write(self, content):
        with open(self.box + "/maildirsize", "w") as f:
            f.write(content)
        if self.privileges:
            os.chown(f.name, self.privileges["user"], -1)

    def test_a_repeated_delivery_finds_its_copy_although_its_name_has_a_size(self):
        self.settings["quota"] = 100_000
        part = self.part()
        deliveries = Deliveries(part)
        deliveries.begin(message_id(1), "local:joe", CONTENT, ["joe@example.org"])
        deliveries.run(noted=False)
        part.kill()
        name, = self.names()
        os.rename(f"{self.box}/new/{name}", f"{self.box}/cur/{name}:2,S")
        self.assertEqual(self.deliver(self.part(), 1)[0], "delivered")
        self.assertEqual(self.names(), [name + ":2,S"])


class Discard(OneUser):
    def test_mail_that_is_discarded_is_delivered_without_being_asked_for(self):
        self.settings["mailbox"] = "discard:"
        part = self.part()
        outcome = self.deliver(part)
        self.assertEqual(outcome[:3], ["delivered", "0", "2.0.0"])
        self.assertIn("discarded", outcome[4])


class Programs(OneUser):
    def with_program(self, text, *arguments, **settings):
        self.settings.update(program=[self.script(text), *arguments], **{k.replace("_", "-"): v for k, v in settings.items()})
        return self.part()

    def test_a_program_gets_the_message_and_knows_what_it_is(self):
        part = self.with_program(
            f"import os, sys, json\n"
            f"json.dump([sys.argv[1:], dict(os.environ), sys.stdin.read(), os.getcwd(), sorted(os.listdir('/proc/self/fd'))],"
            f" open('{self.folder}/out', 'w'))\n",
            "%{user}", "%{sender}", "to=%{recipient}", "%{extension}", "%{local} at %{domain}", "$HOME;`x`")
        outcome = self.deliver(part, recipient="Joe+tag-2@example.org")
        self.assertEqual(outcome[:3], ["delivered", "0", "2.0.0"])
        arguments, environment, received, folder, descriptors = json.loads(text(f"{self.folder}/out"))
        self.assertEqual(arguments, ["joe", "alice@a.example", "to=Joe+tag-2@example.org", "tag-2", "Joe+tag-2 at example.org", "$HOME;`x`"])
        for name in ("LC_CTYPE",):
            environment.pop(name, None)
        self.assertEqual(
            {k: environment[k] for k in environment if k not in ("HOME",)},
            {"USER": "joe", "LOGNAME": "joe", "PATH": "/usr/local/bin:/usr/bin:/bin", "SHELL": "/bin/sh", "SENDER": "alice@a.example",
             "RECIPIENT": "Joe+tag-2@example.org", "ORIGINAL_RECIPIENT": "Joe+tag-2@example.org", "LOCAL": "Joe+tag-2",
             "DOMAIN": "example.org", "EXTENSION": "tag-2"})
        self.assertEqual(received, "Return-Path: <alice@a.example>\nDelivered-To: Joe+tag-2@example.org\n" + CONTENT.decode().replace("\r\n", "\n"))
        # 0, 1, 2 and the one by which the list was read.
        self.assertEqual(len(descriptors), 4)

    def test_what_a_sender_chooses_is_neither_an_option_nor_anything_to_a_shell(self):
        part = self.with_program(
            f"import os, sys\nopen('{self.folder}/out', 'w').write('\\n'.join(sys.argv[1:] + [os.environ['SENDER']]))\n", "%{sender}", "%{local}", "-%{user}")
        deliveries = Deliveries(part)
        deliveries.begin(message_id(1), "local:joe", CONTENT, ['"-rf $(x)"@example.org'], sender=b'"-oX;`id`|"@a.example')
        self.assertEqual(deliveries.run()[1]["outcomes"][0][0], "delivered")
        words = text(f"{self.folder}/out").split("\n")
        self.assertEqual(words, ["_-oX__id___@a.example", "_rf___x_", "-joe", "_-oX__id___@a.example"])

    def test_each_exit_status_means_what_sysexits_says(self):
        part = self.with_program("import sys\nprint('because of\\nthis \\x1b[1m')\nsys.exit(int(sys.argv[1]))\n", "%{extension}")
        expected = {0: "delivered 2.0.0", 1: "deferred 4.3.0", 64: "failed 5.3.0", 65: "failed 5.6.0", 66: "failed 5.3.0", 67: "failed 5.1.1",
                    68: "failed 5.1.2", 69: "failed 5.3.0", 70: "failed 5.3.0", 71: "deferred 4.3.0", 72: "failed 5.3.0", 73: "failed 5.2.0",
                    74: "deferred 4.3.0", 75: "deferred 4.3.0", 76: "failed 5.5.0", 77: "failed 5.7.0", 78: "failed 5.3.5", 99: "deferred 4.3.0",
                    126: "deferred 4.3.0", 127: "deferred 4.3.0", 255: "deferred 4.3.0"}
        for number, (status, outcome) in enumerate(expected.items()):
            got = self.deliver(part, number, recipient=f"joe+{status}@example.org")
            self.assertEqual(f"{got[0]} {got[2]}", outcome, status)
            if status:
                self.assertIn("because of; this ?[1m", got[4])
        self.assertEqual(self.with_missing()[:3], ["deferred", "0", "4.2.0"])

    def with_missing(self):
        self.settings["program"] = ["/nonexistent/program"]
        return self.deliver(self.part())

    def test_a_program_that_hangs_with_all_its_children_is_killed_and_the_mail_waits(self):
        part = self.with_program(
            f"import os, time, signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
            f"for i in range(3):\n  if os.fork() == 0: break\n"
            f"open('{self.folder}/pid.%d' % os.getpid(), 'w').close()\ntime.sleep(1000)\n", program_time=3)
        begun = time.monotonic()
        outcome = self.deliver(part)
        self.assertEqual(outcome[:3], ["deferred", "0", "4.3.0"])
        self.assertIn("took too long", outcome[4])
        self.assertLess(time.monotonic() - begun, 10)
        pids = [int(name.split(".")[1]) for name in os.listdir(self.folder) if name.startswith("pid.")]
        self.assertEqual(len(pids), 4)
        self.assertTrue(wait_for(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in pids), 10))

    def test_a_child_that_keeps_the_output_open_does_not_hold_up_the_delivery(self):
        part = self.with_program("import os, time\nif os.fork() == 0:\n  time.sleep(20)\n")
        begun = time.monotonic()
        self.assertEqual(self.deliver(part)[0], "delivered")
        self.assertLess(time.monotonic() - begun, 5)

    def test_a_program_that_prints_without_end_or_reads_nothing_is_no_trouble(self):
        part = self.with_program("import sys\nfor i in range(20000): print('x' * 100)\nsys.exit(65)\n")
        outcome = self.deliver(part, content=CONTENT + b"y" * 3_000_000)
        self.assertEqual((outcome[0], outcome[2]), ("failed", "5.6.0"))
        self.assertLessEqual(len(outcome[4]), 500)

    def test_programs_of_one_user_run_two_at_a_time_and_mail_goes_on_meanwhile(self):
        part = self.with_program(
            f"import os, time\np='{self.folder}/run.%d' % os.getpid()\nopen(p, 'w').close()\n"
            f"n = len([f for f in os.listdir('{self.folder}') if f.startswith('run.')])\n"
            f"open('{self.folder}/max', 'a').write('%d\\n' % n)\ntime.sleep(0.5)\nos.unlink(p)\n")
        deliveries = Deliveries(part)
        for number in range(8):
            deliveries.begin(message_id(number), "local:joe", CONTENT, ["joe@example.org"])
        begun = time.monotonic()
        for job in deliveries.run().values():
            self.assertEqual(job["outcomes"][0][0], "delivered")
        self.assertGreater(time.monotonic() - begun, 1.9)
        self.assertEqual(max(map(int, text(f"{self.folder}/max").split())), 2)

    def test_a_message_for_several_gets_room_when_the_program_of_the_first_has_ended(self):
        part = self.with_program("import sys\nsys.exit(0)\n", programs_max=1)
        deliveries = Deliveries(part)
        for number in range(2):
            deliveries.begin(message_id(number), "local:joe", CONTENT, ["joe@example.org", "joe+2@example.org", "joe+3@example.org"])
        for job in deliveries.run(seconds=10).values():
            self.assertEqual([job["outcomes"][n][0] for n in range(3)], ["delivered"] * 3)

    def test_limits_of_memory_processor_and_files_hold(self):
        part = self.with_program("x = bytearray(500_000_000)\n", program_memory=200_000_000)
        self.assertEqual(self.deliver(part)[0], "deferred")
        part = self.with_program("while True: pass\n", program_processor_time=1)
        outcome = self.deliver(part)
        self.assertEqual(outcome[0], "deferred")
        self.assertIn("killed by signal", outcome[4])
        part = self.with_program(f"open('{self.folder}/big', 'wb').write(b'x' * 100_000)\n", program_file_size=50_000)
        self.assertEqual(self.deliver(part)[0], "deferred")
        self.assertLessEqual(os.path.getsize(f"{self.folder}/big"), 50_000)

    def test_a_program_ends_with_the_deliverer(self):
        part = self.with_program(f"import os, time\nopen('{self.folder}/pid', 'w').write(str(os.getpid()))\ntime.sleep(1000)\n")
        deliveries = Deliveries(part)
        deliveries.begin(message_id(1), "local:joe", CONTENT, ["joe@example.org"])
        got = part.receive()
        part.send("data", int(got[1]), CONTENT)
        self.assertTrue(wait_for(lambda: os.path.exists(f"{self.folder}/pid") and text(f"{self.folder}/pid"), 10))
        pid = int(text(f"{self.folder}/pid"))
        part.kill()
        self.assertTrue(wait_for(lambda: not os.path.exists(f"/proc/{pid}"), 10))


class ProgramsAsRoot(RealUsers):
    def test_procmail_and_maildrop_deliver_for_each_user_as_that_user(self):
        for n, (name, rules, arguments) in enumerate((
                ("procmail", (".procmailrc", "MAILDIR=$HOME\nDEFAULT=$HOME/Maildir/\n:0\n* ^Subject: hi\nsorted/\n"), ["-t"]),
                ("maildrop", (".mailfilter", 'if (/^Subject: hi/)\n{\n  to "$HOME/sorted"\n}\nto "$HOME/Maildir"\n'), []))):
            path = shutil.which(name)
            if not path:
                self.skipTest(f"no {name} here")
            for user in self.USERS[:2]:
                home = pwd.getpwnam(user)
                shutil.rmtree(f"{home.pw_dir}/sorted", True)
                with open(f"{home.pw_dir}/{rules[0]}", "w") as f:
                    f.write(rules[1])
                os.chown(f.name, home.pw_uid, home.pw_gid)
                os.chmod(f.name, 0o600)
                if name == "maildrop":
                    subprocess.run(["maildirmake.maildrop", f"{home.pw_dir}/sorted"], check=True, user=home.pw_uid, group=home.pw_gid)
            part = self.part(program=[path, *arguments])
            deliveries = Deliveries(part)
            for number, user in enumerate(self.USERS[:2]):
                deliveries.begin(message_id(10 * n + number), f"local:{user}", CONTENT, [f"{user}@example.org"])
            for job in deliveries.run().values():
                self.assertEqual(job["outcomes"][0][0], "delivered", job)
            for user in self.USERS[:2]:
                home = pwd.getpwnam(user)
                message, = mailbox.Maildir(f"{home.pw_dir}/sorted", create=False)
                self.assertEqual(message["Delivered-To"], f"{user}@example.org")
                for name in os.listdir(f"{home.pw_dir}/sorted/new"):
                    self.assertEqual(os.stat(f"{home.pw_dir}/sorted/new/{name}").st_uid, home.pw_uid)
            part.close()

    def test_a_program_that_forks_without_end_is_stopped_by_its_limit_and_others_get_their_mail(self):
        bomb = f"{self.homes}/bomb"
        with open(bomb, "w") as f:
            f.write(f"#!{PYTHON}\nimport os, time, pwd, signal\n"
                    f"if os.environ['USER'] != '{self.USERS[0]}': raise SystemExit(0)\n"
                    "try:\n  while True:\n    if os.fork() == 0: time.sleep(1000)\n"
                    "except OSError: print('no more', flush=True)\nwhile True: time.sleep(1)\n")
        os.chmod(bomb, 0o755)
        part = self.part(program=[bomb], **{"program-processes": 40, "program-time": 4})
        deliveries = Deliveries(part)
        first = deliveries.begin(message_id(1), f"local:{self.USERS[0]}", CONTENT, ["x@example.org"])
        second = deliveries.begin(message_id(2), f"local:{self.USERS[1]}", CONTENT, ["y@example.org"])
        ended = deliveries.run()
        self.assertEqual(ended[first]["outcomes"][0][:3], ["deferred", "0", "4.3.0"])
        self.assertIn("no more", ended[first]["outcomes"][0][4])
        self.assertEqual(ended[second]["outcomes"][0][0], "delivered")
        uid = str(pwd.getpwnam(self.USERS[0]).pw_uid)

        def left():
            return subprocess.run(["pgrep", "-U", uid, "-f", f"^{PYTHON} {bomb}"], capture_output=True, text=True).stdout.split()
        self.assertTrue(wait_for(lambda: not left(), 10), left())

    def test_a_program_is_its_user_with_his_groups_and_nothing_more(self):
        path = f"{self.homes}/who"
        with open(path, "w") as f:
            f.write(f"#!{PYTHON}\nimport os\n"
                    "open('who', 'w').write(repr((os.getresuid(), os.getresgid(), sorted(os.getgroups()), os.umask(0), os.getcwd(), os.getsid(0) == os.getpid())))\n")
        os.chmod(path, 0o755)
        part = self.part(program=[path])
        deliveries = Deliveries(part)
        deliveries.begin(message_id(1), f"local:{self.USERS[0]}", CONTENT, ["x@example.org"])
        self.assertEqual(deliveries.run()[1]["outcomes"][0][0], "delivered")
        entry = pwd.getpwnam(self.USERS[0])
        uids, gids, groups, umask, folder, leads = eval(text(f"{entry.pw_dir}/who"))
        self.assertEqual((uids, gids, umask, folder, leads), ((entry.pw_uid,) * 3, (entry.pw_gid,) * 3, 0o077, entry.pw_dir, True))
        self.assertEqual(groups, sorted(os.getgrouplist(entry.pw_name, entry.pw_gid)))


if __name__ == "__main__":
    unittest.main()
