# SPDX-License-Identifier: Apache-2.0
"""Files in users' homes that say what becomes of their mail: .forward, and .qmail as dot-qmail(5) has it."""
import mailbox
import os
import pwd
import shutil
import smtplib
import time
import unittest

import test_rootmode
from peers import Sink, slurp, wait_for
from pipes import Deliveries
from test_agents import CONTENT, RealUsers, message_id

QMAIL = {"dot-files": "qmail", "dot-programs": "true"}


class DotFiles(RealUsers):
    def setUp(self):
        super().setUp()
        self.user = self.USERS[0]
        self.entry = pwd.getpwnam(self.user)
        self.home = self.entry.pw_dir
        self.clean()
        self.number = 0

    def clean(self):
        for name in os.listdir(self.home):
            path = f"{self.home}/{name}"
            shutil.rmtree(path) if os.path.isdir(path) and not os.path.islink(path) else os.unlink(path)
        os.chmod(self.home, 0o755)

    def put(self, name, text, mode=0o644):
        path = f"{self.home}/{name}"
        with open(path, "w") as f:
            f.write(text)
        os.chmod(path, mode)
        os.chown(path, self.entry.pw_uid, self.entry.pw_gid)
        return path

    def deliver(self, part, tag="", content=CONTENT, number=None, sender=b"alice@a.example"):
        """(outcome and status, text, forwards) of one message."""
        self.number += 1
        deliveries = Deliveries(part)
        deliveries.channel = self.number
        local = self.user + tag
        deliveries.begin(message_id(number or self.number), f"local:{self.user}", content, [f"{local}@example.org"], sender=sender)
        job = deliveries.run()[self.number + 1]
        outcome = job["outcomes"][0]
        return f"{outcome[0]} {outcome[2]}", outcome[4], job.get("forwards", {}).get(0, [])

    def files(self):
        """Where mail is: the names of files in the home that hold any, with their counts."""
        found = {}
        for name in os.listdir(self.home):
            path = f"{self.home}/{name}"
            if os.path.isdir(f"{path}/new"):
                count = len(os.listdir(f"{path}/new"))
                self.assertEqual(wait_for(lambda: os.listdir(f"{path}/tmp") == [], 5), True, name)
            elif not name.startswith(".") and os.path.isfile(path) and slurp(path).startswith(b"From "):
                count = len(mailbox.mbox(path))
            else:
                continue
            if count:
                found[name] = count
        return found


class Qmail(DotFiles):
    """Each row: the file's text, what is told of the message, where it goes on to, where it is."""
    ALICE = "alice@a.example"
    TABLE = [
        ("nothing in it: the mailbox", "", "delivered 2.0.0", [], {"Maildir": 1}),
        ("a comment only: nowhere", "# nothing\n", "delivered 2.0.0", [], {}),
        ("an address", "&bob@b.example\n", "delivered 2.0.0", ["bob@b.example"], {}),
        ("an address without the sign", "bob@b.example\n", "delivered 2.0.0", ["bob@b.example"], {}),
        ("blanks behind an address", "&bob@b.example \t\n", "delivered 2.0.0", ["bob@b.example"], {}),
        ("a name without a domain", "&bob\n", "delivered 2.0.0", ["bob@example.org"], {}),
        ("several addresses", "bob@b.example\n&carol@c.example\n", "delivered 2.0.0", ["bob@b.example", "carol@c.example"], {}),
        ("an mbox", "./box\n", "delivered 2.0.0", [], {"box": 1}),
        ("a Maildir", "./dir/\n", "delivered 2.0.0", [], {"dir": 1}),
        ("an absolute path", "HOME/box\nHOME/dir/\n", "delivered 2.0.0", [], {"box": 1, "dir": 1}),
        ("several of all kinds, addresses last", "bob@b.example\n./box\n# comment\n\n./dir/\n", "delivered 2.0.0", ["bob@b.example"], {"box": 1, "dir": 1}),
        ("a program that succeeds", "|exit 0\n./box\n", "delivered 2.0.0", [], {"box": 1}),
        ("99: nothing behind it", "./box\n|exit 99\n./dir/\n", "delivered 2.0.0", [], {"box": 1}),
        ("99: addresses in front of it count", "bob@b.example\n|exit 99\n&carol@c.example\n", "delivered 2.0.0", ["bob@b.example"], {}),
        ("100 is for ever", "|exit 100\n./box\n", "failed 5.3.0", [], {}),
        ("111 is for now", "|exit 111\n./box\n", "deferred 4.3.0", [], {}),
        ("64 is for ever", "|exit 64\n", "failed 5.3.0", [], {}),
        ("65 is for ever", "|exit 65\n", "failed 5.3.0", [], {}),
        ("70 is for ever", "|exit 70\n", "failed 5.3.0", [], {}),
        ("76 is for ever", "|exit 76\n", "failed 5.3.0", [], {}),
        ("77 is for ever", "|exit 77\n", "failed 5.3.0", [], {}),
        ("78 is for ever", "|exit 78\n", "failed 5.3.0", [], {}),
        ("112 is for ever", "|exit 112\n", "failed 5.3.0", [], {}),
        ("75 is for now", "|exit 75\n", "deferred 4.3.0", [], {}),
        ("67 is for now", "|exit 67\n", "deferred 4.3.0", [], {}),
        ("1 is for now", "|exit 1\n", "deferred 4.3.0", [], {}),
        ("a signal is for now", "|kill -9 $$\n", "deferred 4.3.0", [], {}),
        ("addresses are not done after a failure", "bob@b.example\n|exit 100\n", "failed 5.3.0", [], {}),
        ("the first line is empty", "\n./box\n", "deferred 4.3.5", [], {}),
        ("+list: only addresses from there on", "./box\n+list\nbob@b.example\n", "delivered 2.0.0", ["bob@b.example"], {"box": 1}),
        ("+list: no file behind it", "+list\n./box\n", "deferred 4.3.5", [], {}),
        ("+list: no program behind it", "+list\n|exit 0\n", "deferred 4.3.5", [], {}),
        ("something else behind a dot", ".x\n", "deferred 4.3.5", [], {}),
        ("no address", "&bob@\n", "deferred 4.3.5", [], {}),
        ("a path that climbs", "./../x\n", "deferred 4.3.5", [], {}),
    ]

    def test_the_instructions_of_dot_qmail(self):
        part = self.part(**QMAIL)
        for about, text, outcome, forwards, files in self.TABLE:
            with self.subTest(about):
                self.clean()
                self.put(".qmail", text.replace("HOME", self.home))
                got = self.deliver(part)
                self.assertEqual(got[0], outcome, got)
                self.assertEqual(got[2], [(self.ALICE, f) for f in forwards])
                self.assertEqual(self.files(), files)

    def test_which_file_is_the_one_for_an_extension(self):
        part = self.part(**QMAIL)
        for about, names, tag, expected in (
                ("none without an extension: the mailbox", [], "", "Maildir"),
                ("none with an extension: no such mailbox", [], "-x", None),
                (".qmail is not for extensions", [".qmail"], "-x", None),
                ("the one of that name", [".qmail", ".qmail-x", ".qmail-default"], "-x", ".qmail-x"),
                ("small letters", [".qmail-x"], "-X", ".qmail-x"),
                ("a colon for a dot", [".qmail-a:b"], "-a.b", ".qmail-a:b"),
                ("the default", [".qmail-default", ".qmail-y"], "-x", ".qmail-default"),
                ("the nearest default", [".qmail-default", ".qmail-a-default", ".qmail-a-b-default"], "-a-b-c", ".qmail-a-b-default"),
                ("the next default", [".qmail-default", ".qmail-a-default"], "-a-b-c", ".qmail-a-default"),
                ("a slash leads nowhere", [".qmail-x"], "-a/b", None)):
            with self.subTest(about):
                self.clean()
                for name in names:
                    self.put(name, f"./{name[1:]}\n")
                got = self.deliver(part, tag)
                self.assertEqual(got[0], "delivered 2.0.0" if expected else "failed 5.1.1", got)
                self.assertEqual(list(self.files()), [expected.removeprefix(".")] if expected else [])

    def test_what_a_program_is_told(self):
        self.put(".qmail-list-default", "|env > out; cat > message\n")
        part = self.part(**QMAIL)
        self.assertEqual(self.deliver(part, "-list-a-b")[0], "delivered 2.0.0")
        seen = dict(line.split("=", 1) for line in slurp(f"{self.home}/out").decode().split("\n") if "=" in line)
        for name, value in {"SENDER": "alice@a.example", "NEWSENDER": "alice@a.example", "RECIPIENT": f"{self.user}-list-a-b@example.org",
                            "USER": self.user, "HOME": self.home, "HOST": "example.org", "HOST2": "example", "LOCAL": f"{self.user}-list-a-b",
                            "EXT": "list-a-b", "EXT2": "a-b", "EXT3": "b", "EXT4": "", "DEFAULT": "a-b",
                            "RPLINE": "Return-Path: <alice@a.example>", "DTLINE": f"Delivered-To: {self.user}-list-a-b@example.org"}.items():
            self.assertEqual(seen[name], value, name)
        self.assertTrue(seen["UFLINE"].startswith("From alice@a.example "))
        self.assertEqual(slurp(f"{self.home}/message"), CONTENT.replace(b"\r\n", b"\n"))

    def test_a_list_with_an_owner_sends_as_the_owner_but_a_report_stays_a_report(self):
        self.put(".qmail-list", "&bob@b.example\n")
        self.put(".qmail-list-owner", "&alice@a.example\n")
        part = self.part(**QMAIL)
        self.assertEqual(self.deliver(part, "-list")[2], [(f"{self.user}-list-owner@example.org", "bob@b.example")])
        self.assertEqual(self.deliver(part, "-list", sender=b"")[2], [("", "bob@b.example")])

    def test_a_second_file_of_the_owner_gives_each_address_a_sender_of_its_own(self):
        part = self.part(**QMAIL)
        owner = f"{self.user}-list-owner@example.org"
        for about, names, sender, expected, marks in (
                ("both", [".qmail-list-owner", ".qmail-list-owner-default"], b"alice@a.example", owner, ["address", "verp"]),
                ("a report", [".qmail-list-owner", ".qmail-list-owner-default"], b"", "", []),
                ("no owner, so none of his", [".qmail-list-owner-default"], b"alice@a.example", "alice@a.example", [])):
            with self.subTest(about):
                self.clean()
                self.put(".qmail-list", "&bob@b.example\ncarol\n|echo \"$NEWSENDER\" > sender\n")
                for name in names:
                    self.put(name, "")
                deliveries = Deliveries(part)
                deliveries.channel = self.number = self.number + 1
                deliveries.begin(message_id(self.number), f"local:{self.user}", CONTENT, [f"{self.user}-list@example.org"], sender=sender)
                job = deliveries.run()[self.number + 1]
                self.assertEqual(job["forwards"][0], [(expected, "bob@b.example"), (expected, "carol@example.org")])
                self.assertEqual(job["marks"][0], [marks, marks])
                self.assertEqual(slurp(f"{self.home}/sender").decode().strip(), expected)

    def test_files_that_are_not_to_be_believed_defer(self):
        part = self.part(**QMAIL)
        for about, prepare in (
                ("world-writable", lambda: self.put(".qmail", "./box\n", 0o646)),
                ("somebody else's", lambda: os.chown(self.put(".qmail", "./box\n"), pwd.getpwnam(self.USERS[1]).pw_uid, -1)),
                ("a FIFO", lambda: os.mkfifo(f"{self.home}/.qmail")),
                ("a directory", lambda: os.mkdir(f"{self.home}/.qmail")),
                ("a link out of the home", lambda: os.symlink("/etc/hostname", f"{self.home}/.qmail")),
                ("a link by dots", lambda: os.symlink("../../../../etc/hostname", f"{self.home}/.qmail")),
                ("an executable file with more than addresses", lambda: self.put(".qmail", "./box\n", 0o744)),
                ("unreadable", lambda: os.chown(self.put(".qmail", "./box\n", 0o600), 0, 0)),
                ("too large", lambda: self.put(".qmail", "#\n" * 40000)),
                ("the home is world-writable", lambda: (self.put(".qmail", "./box\n"), os.chmod(self.home, 0o757))),
                ("the home is sticky", lambda: (self.put(".qmail", "./box\n"), os.chmod(self.home, 0o1755)))):
            with self.subTest(about):
                self.clean()
                prepare()
                begun = time.monotonic()
                got = self.deliver(part)
                self.assertTrue(got[0].startswith(("deferred 4.2.0", "deferred 4.3")), got)
                self.assertLess(time.monotonic() - begun, 5)
                self.assertEqual(self.files(), {})

    def test_a_sticky_home_makes_mail_wait_although_the_file_is_away(self):
        part = self.part(**QMAIL)
        os.chmod(self.home, 0o1755)
        for tag in ("", "-list"):
            self.assertEqual(self.deliver(part, tag)[0], "deferred 4.3.5", tag)
        os.chmod(self.home, 0o755)
        self.assertEqual([self.deliver(part, tag)[0] for tag in ("", "-list")], ["delivered 2.0.0", "failed 5.1.1"])

    def test_a_link_within_the_home_is_followed(self):
        self.put("rules", "./box\n")
        os.symlink("rules", f"{self.home}/.qmail")
        self.assertEqual(self.deliver(self.part(**QMAIL))[0], "delivered 2.0.0")
        self.assertEqual(self.files(), {"box": 1})

    def test_an_attempt_after_a_deferred_one_does_not_deliver_into_a_maildir_twice(self):
        self.put(".qmail", "./dir/\n|test -e ok || exit 111\n")
        part = self.part(**QMAIL)
        self.assertEqual(self.deliver(part, number=77)[0], "deferred 4.3.0")
        self.assertEqual(len(os.listdir(f"{self.home}/dir/new")), 1)
        for name in os.listdir(f"{self.home}/dir/new"):
            os.rename(f"{self.home}/dir/new/{name}", f"{self.home}/dir/cur/{name}:2,S")
        self.assertEqual(self.deliver(part, number=77)[0], "deferred 4.3.0")
        self.put("ok", "")
        self.assertEqual(self.deliver(part, number=77)[0], "delivered 2.0.0")
        self.assertEqual(os.listdir(f"{self.home}/dir/new"), [])
        self.assertEqual(len(os.listdir(f"{self.home}/dir/cur")), 1)
        self.assertTrue(wait_for(lambda: os.listdir(f"{self.home}/dir/tmp") == [], 5))

    def test_programs_only_where_the_settings_allow_them(self):
        self.put(".qmail", "|exit 0\n")
        got = self.deliver(self.part(**{"dot-files": "qmail"}))
        self.assertEqual(got[0], "deferred 4.3.5")
        self.assertIn("dot-programs", got[1])


class Forward(DotFiles):
    def test_the_targets_of_a_forward_file(self):
        part = self.part(**{"dot-programs": "true"})
        alice = "alice@a.example"
        user = self.user
        for about, text, outcome, forwards, files in (
                ("no target: the mailbox", "\n# c\n", "delivered 2.0.0", [], {"Maildir": 1}),
                ("an address", "bob@b.example\n", "delivered 2.0.0", ["bob@b.example"], {}),
                ("addresses on a line and on several", "bob@b.example, carol@c.example\ndave\n", "delivered 2.0.0",
                 ["bob@b.example", "carol@c.example", "dave@example.org"], {}),
                ("a copy for oneself", f"\\{user}, bob@b.example\n", "delivered 2.0.0", ["bob@b.example"], {"Maildir": 1}),
                ("oneself by name", f"{user.upper()}\nbob@b.example\n", "delivered 2.0.0", ["bob@b.example"], {"Maildir": 1}),
                ("oneself by address", f"{user}@Example.org\n", "delivered 2.0.0", [], {"Maildir": 1}),
                ("files", f"{self.home}/box, \"{self.home}/a dir/\"\n", "delivered 2.0.0", [], {"box": 1, "a dir": 1}),
                ("a file in the home", "~/box\n", "delivered 2.0.0", [], {"box": 1}),
                ("oneself by address behind the mark", f"\\{user}@Example.org, bob@b.example\n", "delivered 2.0.0", ["bob@b.example"], {"Maildir": 1}),
                ("an address in quotes", "\"joe smith\"@c.example, bob@b.example\n", "delivered 2.0.0", ['"joe smith"@c.example', "bob@b.example"], {}),
                ("an address with a name", "Joe Smith <joe@c.example>, \"Smith, Ann\" <ann@c.example>\n", "delivered 2.0.0",
                 ["joe@c.example", "ann@c.example"], {}),
                ("nowhere", "/dev/null\n", "delivered 2.0.0", [], {}),
                ("a program", "\"|cat > 'taken, all'\"\n", "delivered 2.0.0", [], {}),
                ("a program, the mark in front", "|\"/bin/cat -u > taken\"\n", "delivered 2.0.0", [], {}),
                ("no program", "|\n", "deferred 4.3.5", [], {}),
                ("a program without marks", "|cat > taken\n", "delivered 2.0.0", [], {}),
                ("a program that says no", "|exit 67\n", "failed 5.1.1", [], {}),
                ("a program that says later", "|exit 75\n", "deferred 4.3.0", [], {}),
                ("a mark that is not closed", "\"|cat\n", "deferred 4.3.5", [], {}),
                ("an include", ":include:/etc/passwd\n", "deferred 4.3.5", [], {}),
                ("somebody else behind the mark", "\\root\n", "deferred 4.3.5", [], {})):
            with self.subTest(about):
                self.clean()
                self.put(".forward", text)
                got = self.deliver(part)
                self.assertEqual(got[0], outcome, got)
                self.assertEqual(got[2], [(alice, f) for f in forwards])
                self.assertEqual(self.files(), files)

    def test_a_lock_file_that_is_left_over_and_cannot_be_removed_locks_nothing(self):
        spool = f"{self.homes}/spool"
        os.mkdir(spool)
        self.addCleanup(shutil.rmtree, spool)
        os.chmod(spool, 0o1777)
        with open(f"{spool}/box.lock", "w"):
            pass
        os.utime(f"{spool}/box.lock", (1, 1))
        self.put(".forward", f"{spool}/box\n")
        self.assertEqual(self.deliver(self.part())[0], "delivered 2.0.0")
        self.assertTrue(slurp(f"{spool}/box").startswith(b"From "))

    def test_a_file_for_a_tag_comes_first(self):
        self.put(".forward", "bob@b.example\n")
        self.put(".forward+lists", "carol@c.example\n")
        part = self.part()
        self.assertEqual([f for _, f in self.deliver(part, "+lists")[2]], ["carol@c.example"])
        self.assertEqual([f for _, f in self.deliver(part, "+other")[2]], ["bob@b.example"])
        self.assertEqual([f for _, f in self.deliver(part)[2]], ["bob@b.example"])

    def test_what_goes_on_to_more_addresses_than_one_delivery_may_have_goes_in_turn(self):
        self.put(".forward", "".join(f"u{i}@b.example\n" for i in range(400)))
        part = self.part()
        deliveries = Deliveries(part)
        deliveries.begin(message_id(1), f"local:{self.user}", CONTENT, [f"{self.user}+{i}@example.org" for i in range(3)])
        job = deliveries.run()[1]
        self.assertEqual({n: len(f) for n, f in job["forwards"].items()}, {0: 400, 1: 400})
        self.assertEqual([job["outcomes"][n][0] for n in range(3)], ["delivered", "delivered", "deferred"])
        deliveries.begin(message_id(1), f"local:{self.user}", CONTENT, [f"{self.user}+2@example.org"])
        self.assertEqual(len(deliveries.run()[2]["forwards"][0]), 400)
        self.assertNotIn("worker-dismissed", part.logged())

    def test_the_owner_of_virtual_users_says_nothing_about_their_mail(self):
        self.put(".forward", "bob@b.example\n")
        deliveries = Deliveries(self.part())
        deliveries.begin(message_id(1), f"mailbox:{self.user}:v.example/joe", CONTENT, ["joe@v.example"])
        job = deliveries.run()[1]
        self.assertEqual((job["outcomes"][0][0], job.get("forwards")), ("delivered", None))
        self.assertEqual(len(os.listdir(f"{self.home}/v.example/joe/new")), 1)

    def test_none_is_read_where_the_settings_say_so(self):
        self.put(".forward", "bob@b.example\n")
        self.assertEqual(self.deliver(self.part(**{"dot-files": "none"}))[2], [])
        self.assertEqual(self.files(), {"Maildir": 1})


class ForwardedMail(unittest.TestCase):
    """The whole of Apus, with a next host."""
    setUpClass = test_rootmode.AsRoot.__dict__["setUpClass"]
    apus = test_rootmode.AsRoot.apus

    def setUp(self):
        if os.geteuid():
            self.skipTest("needs root")
        for user in self.users:
            for name in ("Maildir",):
                shutil.rmtree(f"{self.homes}/{user}/{name}", True)
            for name in (".forward", ".qmail"):
                if os.path.exists(f"{self.homes}/{user}/{name}"):
                    os.unlink(f"{self.homes}/{user}/{name}")

    def sink(self):
        sink = Sink()
        self.addCleanup(sink.close)
        return sink

    def forward(self, user, text):
        path = f"{self.homes}/{user}/.forward"
        with open(path, "w") as f:
            f.write(text)
        os.chown(path, pwd.getpwnam(user).pw_uid, -1)

    def test_mail_goes_on_once_with_its_content_and_its_sender(self):
        sink = self.sink()
        apus = self.apus(smarthost=f"[127.0.0.1]:{sink.port}").start()
        self.forward(self.alice, f"one@b.example, two@c.example, {self.bob}, \\{self.alice}\n")
        large = "Subject: large\r\n\r\n" + "".join(f"line {i} {'x' * 60}\r\n" for i in range(20000))
        with smtplib.SMTP("127.0.0.1", apus.port, timeout=60) as client:
            client.sendmail("a@b.example", [f"{self.alice}@apus.test"], "Subject: small\r\n\r\nx\r\n")
            client.sendmail("a@b.example", [f"{self.alice}@apus.test"], large)
        apus.wait_empty(60)
        self.assertTrue(wait_for(lambda: sum(len(to) for _, to, _ in sink.messages) == 4, 20))
        self.assertEqual(sorted(r for _, to, _ in sink.messages for r in to), ["one@b.example"] * 2 + ["two@c.example"] * 2)
        for sender, _, content in sink.messages:
            self.assertEqual(sender, "a@b.example")
            self.assertIn(f"Delivered-To: {self.alice}@apus.test\r\n".encode(), content)
        self.assertTrue(any(content.endswith(large.encode().split(b"\r\n\r\n")[1]) for _, _, content in sink.messages))
        for user in (self.alice, self.bob):
            apus.wait_delivered(2, user)
            self.assertEqual({m["Subject"] for m in apus.messages(user)}, {"small", "large"})

    def test_a_loop_of_two_users_ends_with_a_report_to_the_sender(self):
        sink = self.sink()
        apus = self.apus(smarthost=f"[127.0.0.1]:{sink.port}").start()
        self.forward(self.alice, f"{self.bob}@apus.test\n")
        self.forward(self.bob, f"{self.alice}@apus.test\n")
        with smtplib.SMTP("127.0.0.1", apus.port, timeout=60) as client:
            client.sendmail("a@b.example", [f"{self.alice}@apus.test"], "Subject: round\r\n\r\nx\r\n")
        apus.wait_empty(60)
        self.assertTrue(wait_for(lambda: sink.messages, 20))
        self.assertEqual(len(sink.messages), 1)
        self.assertIn(b"5.4.6", sink.messages[0][2])
        self.assertEqual(sink.messages[0][1], ["a@b.example"])

    def test_what_cannot_be_looked_up_waits_and_what_does_not_exist_is_reported(self):
        sink = self.sink()
        apus = self.apus(smarthost=f"[127.0.0.1]:{sink.port}").start()
        self.forward(self.alice, "nobody-by-this-name@apus.test, one@c.example\n")
        with smtplib.SMTP("127.0.0.1", apus.port, timeout=60) as client:
            client.sendmail("a@b.example", [f"{self.alice}@apus.test"], "Subject: half\r\n\r\nx\r\n")
        apus.wait_empty(60)
        self.assertTrue(wait_for(lambda: len(sink.messages) == 2, 20))
        self.assertEqual({r for _, to, _ in sink.messages for r in to}, {"a@b.example", "one@c.example"})
        report = next(m for m in sink.messages if m[1] == ["a@b.example"])
        self.assertIn(b"nobody-by-this-name@apus.test", report[2])

    def with_rewriting(self, sink):
        secret = os.path.join(self.homes, "srs-secret")
        with open(secret, "w") as f:
            f.write("0123456789abcdef0123456789abcdef\n")
        os.chmod(secret, 0o600)
        return self.apus(smarthost=f"[127.0.0.1]:{sink.port}",
                         extra=f'[forwarding]\nsrs-domain = "srs.apus.test"\nsrs-secret = "{secret}"\n').start()

    def send(self, apus, sender, recipient, subject):
        with smtplib.SMTP("127.0.0.1", apus.port, timeout=60) as client:
            client.sendmail(sender, [recipient], f"Subject: {subject}\r\n\r\nx\r\n")
        apus.wait_empty(60)

    def test_senders_of_mail_that_goes_on_are_rewritten_and_what_comes_back_finds_them(self):
        sink = self.sink()
        apus = self.with_rewriting(sink)
        self.forward(self.alice, "one@c.example\n")
        self.send(apus, "a.b@b.example", f"{self.alice}@apus.test", "there")
        sender, to, _ = sink.messages.pop()
        self.assertRegex(sender, r"^SRS0=[a-z2-7]{8}=[a-z2-7]{2}=b\.example=a\.b@srs\.apus\.test$")
        self.assertEqual(to, ["one@c.example"])
        self.send(apus, "", sender, "back")
        back, to, _ = sink.messages.pop()
        self.assertEqual((back, to), ("", ["a.b@b.example"]))
        for forged in (sender.replace("a.b@", "c.d@"), sender.replace("SRS0=", "SRS0=aaaaaaaa=", 1)):
            with self.assertRaises(smtplib.SMTPRecipientsRefused) as refused:
                self.send(apus, "", forged, "forged")
            self.assertEqual(refused.exception.recipients[forged][0], 550)
        # Neither our own senders nor mail that only passes through are touched.
        self.send(apus, f"{self.bob}@apus.test", f"{self.alice}@apus.test", "own")
        self.assertEqual(sink.messages.pop()[0], f"{self.bob}@apus.test")
        self.send(apus, "a@b.example", "two@c.example", "through")
        self.assertEqual(sink.messages.pop()[0], "a@b.example")
        # A report of our own about mail that went on goes to the sender himself.
        self.forward(self.alice, f"{self.alice}@apus.test, nobody-of-this-name@apus.test\n")
        self.send(apus, "a@b.example", f"{self.alice}@apus.test", "fails")
        self.assertTrue(wait_for(lambda: sink.messages, 20))
        self.assertEqual(sink.messages[0][1], ["a@b.example"])

    def test_the_senders_wishes_about_reports_go_on_with_the_mail(self):
        sink = Sink(extensions=("PIPELINING", "8BITMIME", "SIZE 104857600", "ENHANCEDSTATUSCODES", "DSN"))
        self.addCleanup(sink.close)
        apus = self.apus(smarthost=f"[127.0.0.1]:{sink.port}").start()
        self.forward(self.alice, "one@c.example\n")
        with smtplib.SMTP("127.0.0.1", apus.port, timeout=60) as client:
            client.ehlo()
            client.sendmail("a@b.example", [f"{self.alice}@apus.test"], "Subject: x\r\n\r\nx\r\n",
                            mail_options=["ENVID=E1", "RET=HDRS"], rcpt_options=["NOTIFY=SUCCESS,FAILURE", "ORCPT=rfc822;o@apus.test"])
        apus.wait_empty(60)
        self.assertEqual([to for _, to, _ in sink.messages], [["one@c.example"]])
        said = " ".join(sink.commands)
        for wish in ("ENVID=E1", "RET=HDRS", "NOTIFY=SUCCESS,FAILURE", "ORCPT=rfc822;o@apus.test"):
            self.assertIn(wish, said)

    def test_what_comes_back_about_a_member_of_a_verp_list_says_of_whom_it_is(self):
        sink = Sink(rules={"RCPT": lambda line: "550 5.1.1 gone" if "two@d.example" in line else None})
        self.addCleanup(sink.close)
        apus = self.apus(smarthost=f"[127.0.0.1]:{sink.port}")
        apus.write_settings(local='dot-files = "qmail"')
        apus.start()
        home, uid = f"{self.homes}/{self.alice}", pwd.getpwnam(self.alice).pw_uid
        files = {".qmail-list": "&one@c.example\n&two@d.example\n", ".qmail-list-owner": "./owner/\n", ".qmail-list-owner-default": "./bounces/\n"}
        for name, text in files.items():
            with open(f"{home}/{name}", "w") as f:
                f.write(text)
            os.chown(f"{home}/{name}", uid, -1)
            self.addCleanup(os.unlink, f"{home}/{name}")
        with smtplib.SMTP("127.0.0.1", apus.port, timeout=60) as client:
            client.sendmail("a@b.example", [f"{self.alice}+list@apus.test"], "Subject: list\r\n\r\nx\r\n", mail_options=["ENVID=E1"])
        apus.wait_empty(60)
        self.assertEqual([(sender, to) for sender, to, _ in sink.messages],
                         [(f"{self.alice}+list-owner-one=c.example@apus.test", ["one@c.example"])])
        bounces = list(mailbox.Maildir(f"{home}/bounces", create=False))
        self.assertEqual([b["Delivered-To"] for b in bounces], [f"{self.alice}+list-owner-two=d.example@apus.test"])
        self.assertIn("two@d.example", bounces[0].as_string())
        self.assertFalse(os.path.exists(f"{home}/owner"))
        self.assertNotIn("ENVID", " ".join(sink.commands))

    def test_kills_in_the_middle_neither_lose_nor_double_what_goes_on(self):
        sink = self.sink()
        apus = self.apus(smarthost=f"[127.0.0.1]:{sink.port}", queue='retry-min = "1s"\nretry-max = "2s"\npaused = true').start()
        self.forward(self.alice, f"{self.bob}\n")
        with smtplib.SMTP("127.0.0.1", apus.port, timeout=60) as client:
            for i in range(200):
                client.sendmail("a@b.example", [f"{self.alice}@apus.test"], f"Subject: {i}\r\n\r\nx\r\n")
        apus.tool("queue", "start", check=False)
        apus.write_settings(queue='retry-min = "1s"\nretry-max = "2s"')
        os.kill(apus.pids("apusd")[0], 1)
        apus.kill_in_turn("apus-local", "apus-queue")
        subjects = sorted(int(m["Subject"]) for m in apus.messages(self.bob))
        self.assertEqual(sorted(set(subjects)), list(range(200)))
        self.assertEqual(len(subjects), 200)


if __name__ == "__main__":
    unittest.main()
