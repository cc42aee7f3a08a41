# SPDX-License-Identifier: Apache-2.0
"""Aliases that include files, run programs, write files, or are lists with an owner."""
import mailbox
import os
import pwd
import smtplib
import stat
import subprocess
import unittest

import test_rootmode
from apus import Apus, binaries
from peers import Sink, slurp, wait_for
from test_virtual import recipient, send, write


class Includes(unittest.TestCase):
    def apus(self, aliases, allowed=True):
        apus = Apus()
        self.addCleanup(apus.close)
        write(apus.aliases, aliases.format(root=apus.root))
        apus.write_settings(local=f'aliases = "{apus.aliases}"\n' + ("alias-includes = true\n" if allowed else ""))
        return apus

    def test_a_list_in_a_file_gets_its_mail_and_a_change_counts_within_seconds(self):
        apus = self.apus("list: :include:{root}/list\n")
        write(apus.root + "/list", f"# people\nalice\n:include:{apus.root}/more\n")
        write(apus.root + "/more", "bob,\n")
        self.assertEqual(apus.tool("check")[1], f"{apus.config}: OK\n")
        apus.start()
        self.assertEqual(send(apus, "list@apus.test"), {})
        for user in ("alice", "bob"):
            apus.wait_delivered(1, user)
        self.assertIn(f"includes bob ({apus.root}/more)", apus.tool("explain", "list@apus.test")[1])
        write(apus.root + "/more", "alice\n")
        self.assertTrue(wait_for(lambda: "by local:bob" not in apus.tool("explain", "list@apus.test")[1], 10, 0.5))
        # What is not in order does not take its place.
        write(apus.root + "/list", "alice\n|/bin/sh\n")
        self.assertTrue(wait_for(lambda: recipient(apus, "list@apus.test") and apus.logged("alias-fault", "/list", "line=2"), 10, 0.5))
        self.assertIn("250", recipient(apus, "list@apus.test"))
        self.assertIn("programs", apus.tool("check")[1] + apus.tool("check")[2])

    def test_without_leave_nothing_is_included(self):
        apus = self.apus("list: :include:{root}/list\n", allowed=False)
        write(apus.root + "/list", "alice\n")
        text = apus.tool("check")
        self.assertIn("local.alias-includes", text[1] + text[2])
        apus.start()
        self.assertIn("451", recipient(apus, "list@apus.test"))

    def test_what_is_no_file_is_not_waited_for(self):
        apus = self.apus("".join(f"a{n}: :include:{p}\n" for n, p in enumerate(
            ["{root}/pipe", "/dev/zero", "{root}", "/does/not/exist", "{root}/empty"])))
        os.mkfifo(apus.root + "/pipe")
        os.chmod(apus.root + "/pipe", 0o666)
        write(apus.root + "/empty", "")
        apus.start()
        for number in range(5):
            self.assertIn("451", recipient(apus, f"a{number}@apus.test"))
        self.assertIn("250", recipient(apus, "alice@apus.test"))


class OneUser(unittest.TestCase):
    """Without root: everything as the user of everything."""

    def test_a_program_and_a_list_work_without_root(self):
        apus = Apus()
        self.addCleanup(apus.close)
        write(apus.aliases, f"run: \"|id -un > {apus.root}/mail/id; cat > {apus.root}/mail/taken\"\nlist: alice, bob\nowner-list: bob\n")
        os.chown(apus.aliases, pwd.getpwnam(apus.user).pw_uid, -1)
        apus.write_settings(local=f'aliases = "{apus.aliases}"\nalias-programs = true')
        apus.start()
        self.assertEqual(send(apus, "run@apus.test", "list@apus.test"), {})
        for user in ("alice", "bob"):
            apus.wait_delivered(1, user)
            self.assertEqual(apus.messages(user)[0]["Return-Path"], "<owner-list@apus.test>")
        apus.wait_empty()
        self.assertEqual(slurp(f"{apus.root}/mail/id").decode().strip(), apus.user)
        self.assertTrue(slurp(f"{apus.root}/mail/taken").startswith(b"Return-Path: <a@b.example>\nDelivered-To: run@apus.test\n"))

    def test_what_is_not_allowed_is_told_and_waits(self):
        apus = Apus()
        self.addCleanup(apus.close)
        write(apus.aliases, "run: |cat\nbox: /srv/box\nlist: alice\n")
        apus.write_settings(local=f'aliases = "{apus.aliases}"')
        text = "".join(apus.tool("check")[1:])
        self.assertIn(f"{apus.aliases}:1: advice: run: \"|cat\": programs (|) are not allowed (local.alias-programs)", text)
        self.assertIn(f"{apus.aliases}:2: advice: box: \"/srv/box\": files are not allowed (local.alias-files)", text)
        apus.start()
        for name, answer in (("run", "451"), ("box", "451"), ("list", "250")):
            self.assertIn(answer, recipient(apus, f"{name}@apus.test"))
        # A reload is enough.
        apus.write_settings(local=f'aliases = "{apus.aliases}"\nalias-programs = true')
        os.kill(apus.process.pid, 1)
        self.assertTrue(wait_for(lambda: "250" in recipient(apus, "run@apus.test"), 10, 0.5))


@unittest.skipUnless(os.geteuid() == 0, "needs root")
class AsRoot(unittest.TestCase):
    """As root: what aliases say is done by a user of its own, who is bob here."""
    setUpClass = test_rootmode.AsRoot.__dict__["setUpClass"]
    setUp = test_rootmode.AsRoot.setUp

    SETTINGS = "alias-programs = true\nalias-files = true\nalias-includes = true\n"

    def apus(self, aliases, user=None, settings=SETTINGS, **sections):
        self.sink = Sink(extensions=("PIPELINING", "8BITMIME", "SIZE 104857600", "ENHANCEDSTATUSCODES", "DSN"),
                         rules={"RCPT": lambda line: "550 5.1.1 no such user" if "gone@" in line else None})
        self.addCleanup(self.sink.close)
        apus = Apus(root=True, smarthost=f"[127.0.0.1]:{self.sink.port}", **sections)
        self.addCleanup(apus.close)
        self.out = f"{apus.root}/out"
        os.mkdir(self.out)
        os.chown(self.out, pwd.getpwnam(self.bob).pw_uid, -1)
        write(apus.aliases, aliases.replace("OUT", self.out).replace("ALICE", self.alice).replace("BOB", self.bob))
        user = user or self.bob
        apus.write_settings(local=f'aliases = "{apus.aliases}"\nalias-user = "{user}"\n{settings}')
        return apus

    def send(self, apus, *to, sender="a@b.example", subject="hi", options=(), wishes=()):
        with smtplib.SMTP("127.0.0.1", apus.port, timeout=60) as client:
            client.ehlo()
            self.assertEqual(client.sendmail(sender, [f"{t}@apus.test" for t in to], f"Subject: {subject}\r\n\r\nx\r\n",
                                             mail_options=list(options), rcpt_options=list(wishes)), {})

    def test_a_program_runs_as_the_user_for_aliases_with_nothing_inherited(self):
        apus = self.apus('run: "|(id -un; id -Gn; pwd; umask; ls -l /proc/self/fd | grep -c 0) > OUT/id; env > OUT/env; cat > OUT/taken", ALICE\n').start()
        self.send(apus, "Run+Tag", sender="a.b$x|y@b.example")
        apus.wait_delivered(1, self.alice)
        apus.wait_empty()
        self.assertEqual(slurp(f"{self.out}/id").decode().split("\n")[:4], [self.bob, self.bob, "/", "0077"])
        env = dict(line.split("=", 1) for line in slurp(f"{self.out}/env").decode().splitlines())
        for name, value in {"USER": self.bob, "LOGNAME": self.bob, "HOME": pwd.getpwnam(self.bob).pw_dir, "SHELL": "/bin/sh",
                            "SENDER": "a.b_x_y@b.example", "RECIPIENT": "Run+Tag@apus.test", "LOCAL": "Run+Tag", "EXTENSION": "Tag",
                            "DOMAIN": "apus.test", "PATH": "/usr/local/bin:/usr/bin:/bin"}.items():
            self.assertEqual(env.get(name), value, name)
        self.assertEqual(set(env) - {"PWD", "OLDPWD", "_", "SHLVL"}, {"USER", "LOGNAME", "HOME", "SHELL", "PATH", "SENDER", "RECIPIENT", "ORIGINAL_RECIPIENT",
                                                                     "LOCAL", "DOMAIN", "EXTENSION"})
        self.assertTrue(slurp(f"{self.out}/taken").endswith(b"Subject: hi\n\nx\n"))
        self.assertIn("route=alias:run", apus.log())

    def test_what_a_program_says_is_the_outcome(self):
        apus = self.apus("no: \"|echo not today; exit 67\", ALICE\nlater: |exit 75\nslow: |sleep 100\nowner-slow: ALICE\n",
                         settings=self.SETTINGS + 'program-time = "1s"\n').start()
        self.send(apus, "no", sender=f"{self.alice}@apus.test")
        apus.wait_delivered(1, self.alice)
        report = apus.messages(self.alice)[0].as_string()
        self.assertIn("5.1.1", report)
        self.assertIn("not today", report)
        self.send(apus, "later", "slow")
        self.assertTrue(wait_for(lambda: apus.logged("later@apus.test", "status=deferred", "status 75"), 20), apus.log())
        self.assertTrue(wait_for(lambda: apus.logged("slow@apus.test", "status=deferred", "took too long"), 20), apus.log())
        self.assertEqual(len(apus.delivered(self.alice)), 1)
        listed = apus.tool("queue", "list", "--destination", "alias:later")[1]
        self.assertIn("later@apus.test", listed)
        self.assertNotIn("slow@apus.test", listed)

    def test_files_are_written_as_the_user_for_aliases(self):
        apus = self.apus("box: OUT/box, OUT/dir/\nroot: /etc/passwd\nnull: /dev/null\nowner-box: ALICE\n").start()
        before = slurp("/etc/passwd")
        self.send(apus, "box", "null")
        self.send(apus, "root")
        self.assertTrue(wait_for(lambda: apus.logged("postmaster@apus.test", "status=deferred") or apus.logged("root@apus.test", "status=deferred"), 20), apus.log())
        self.assertTrue(wait_for(lambda: apus.count() == 1, 20), apus.log())
        self.assertEqual(slurp("/etc/passwd"), before)
        uid = pwd.getpwnam(self.bob).pw_uid
        for path in (f"{self.out}/box", f"{self.out}/dir", f"{self.out}/dir/new"):
            self.assertEqual(os.stat(path).st_uid, uid)
        self.assertEqual(stat.S_IMODE(os.stat(f"{self.out}/box").st_mode), 0o600)
        self.assertTrue(slurp(f"{self.out}/box").startswith(b"From owner-box@apus.test "))
        self.assertEqual(len(mailbox.mbox(f"{self.out}/box")), 1)
        found = list(mailbox.Maildir(f"{self.out}/dir", create=False))
        self.assertEqual([m["Return-Path"] for m in found], ["<owner-box@apus.test>"])

    def test_a_list_sends_in_the_name_of_its_owner_who_gets_its_reports(self):
        apus = self.apus("list: one@c.example, gone@d.example, nested, :include:OUT/members\nowner-list: ALICE\nnested: \\BOB\n")
        write(f"{self.out}/members", "two@c.example\n")
        apus.start()
        self.send(apus, "list", sender="s@b.example", options=["ENVID=E1", "RET=FULL"], wishes=["NOTIFY=SUCCESS,FAILURE", "ORCPT=rfc822;x@y.example"])
        apus.wait_empty(60)
        apus.wait_delivered(1, self.bob)
        self.assertEqual(apus.messages(self.bob)[0]["Return-Path"], "<owner-list@apus.test>")
        sent = sorted((sender, r) for sender, to, _ in self.sink.messages for r in to)
        self.assertEqual(sent, [("", "s@b.example"), ("owner-list@apus.test", "one@c.example"), ("owner-list@apus.test", "two@c.example")])
        # The sender hears that the list has it, and nothing else; the rest is the owner's.
        report = next(content for sender, to, content in self.sink.messages if to == ["s@b.example"])
        self.assertIn(b"Action: delivered", report)
        self.assertIn(b"list@apus.test", report)
        self.assertIn(b"E1", report)
        self.assertNotIn(b"gone@d.example", report)
        for command in self.sink.commands:
            if command.startswith("MAIL FROM:<owner-list") or command.startswith("RCPT TO:") and "s@b" not in command:
                self.assertNotRegex(command, "ENVID|RET=|SUCCESS|y.example")
        [report] = apus.messages(self.alice)
        self.assertIn("gone@d.example", report.as_string())
        self.assertEqual(report["Delivered-To"], f"{self.alice}@apus.test")
        self.assertEqual(report["X-Original-To"], "owner-list@apus.test")

    def test_a_report_to_a_list_stays_a_report(self):
        apus = self.apus("list: one@c.example, gone@d.example\nowner-list: ALICE\n").start()
        self.send(apus, "list", sender="")
        apus.wait_empty(60)
        self.assertEqual([(sender, to) for sender, to, _ in self.sink.messages], [("", ["one@c.example"])])
        self.assertEqual(apus.delivered(self.alice), [])

    def test_a_circle_of_lists_ends_with_a_report_to_the_owner(self):
        apus = self.apus("a: b\nb: a\nowner-a: ALICE\nowner-b: BOB\n").start()
        self.assertTrue(wait_for(lambda: apus.logged("alias-fault", "circle"), 10))
        self.send(apus, "a")
        apus.wait_empty(60)
        apus.wait_delivered(1, self.bob)
        self.assertIn("5.4.6", apus.messages(self.bob)[0].as_string())
        self.assertEqual((len(apus.delivered(self.bob)), apus.delivered(self.alice), self.sink.messages), (1, [], []))

    def test_an_alias_that_names_itself_means_the_user(self):
        apus = self.apus("ALICE: ALICE, \"|cat >> OUT/log\"\nBOB: \\BOB, ALICE\nowner-BOB: ALICE\n").start()
        self.send(apus, self.alice, self.bob)
        apus.wait_empty(60)
        self.assertEqual((len(apus.delivered(self.alice)), len(apus.delivered(self.bob))), (2, 1))
        self.assertEqual(slurp(f"{self.out}/log").count(b"Subject: hi"), 2)

    def test_check_and_explain_show_it_and_newaliases_is_content(self):
        apus = self.apus("run: |cat\nlist: ALICE\nowner-list: BOB\nall: run, list, ALICE\n")
        self.assertEqual(apus.tool("check"), (0, f"{apus.config}: OK\n", ""))
        apus.start()
        text = apus.tool("explain", "all@apus.test")[1]
        for part in ("by alias:run", "by alias:list", f"by local:{self.alice}", "names programs or files", f"sends to others as owner-list ({apus.aliases}:3)"):
            self.assertIn(part, text)
        done = subprocess.run(["newaliases"], executable=f"{binaries()}/sendmail", capture_output=True, text=True, timeout=30)
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_a_user_for_aliases_who_is_not_there_makes_mail_wait_and_check_tells(self):
        apus = self.apus("list: BOB\nowner-list: ALICE\nplain: ALICE\n", user="nobody-of-this-name")
        status, out, err = apus.tool("check", check=False)
        self.assertIn("local.alias-user: there is no user nobody-of-this-name", out + err)
        apus.start()
        self.send(apus, "list", "plain")
        apus.wait_delivered(1, self.alice)
        self.assertTrue(wait_for(lambda: apus.logged("list@apus.test", "status=deferred", "dsn=4.3.5"), 20), apus.log())
        # Root is none.
        apus.write_settings(local=f'aliases = "{apus.aliases}"\nalias-user = "root"')
        status, out, err = apus.tool("check", check=False)
        self.assertNotEqual(status, 0)
        self.assertIn("local.alias-user", out + err)

    def test_what_the_user_cannot_read_or_others_can_write_is_told_and_makes_mail_wait(self):
        apus = self.apus("list: :include:OUT/members\nowner-list: ALICE\n")
        write(f"{self.out}/members", f"{self.alice}\n")
        os.chmod(f"{self.out}/members", 0o640)
        os.chown(f"{self.out}/members", 0, 0)
        self.assertIn(f"{self.out}/members cannot be read by the user {self.bob}", "".join(apus.tool("check")[1:]))
        apus.start()
        self.send(apus, "list")
        self.assertTrue(wait_for(lambda: apus.logged("list@apus.test", "status=deferred", "members"), 20), apus.log())
        os.chmod(f"{self.out}/members", 0o644)
        os.chmod(apus.aliases, 0o646)
        self.assertIn("must be root's, and not be writable by everybody", "".join(apus.tool("check")[1:]))
        apus.tool("queue", "flush", "--all")
        self.assertTrue(wait_for(lambda: apus.logged("list@apus.test", "status=deferred", "can be written by everybody"), 20), apus.log())
        os.chmod(apus.aliases, 0o644)
        apus.tool("queue", "flush", "--all")
        apus.wait_delivered(1, self.alice)
        apus.wait_empty()

    def test_the_queue_can_name_an_entry_and_nothing_to_run(self):
        apus = self.apus("run: \"|cat >> OUT/log\"\n", queue="paused = true").start()
        self.send(apus, self.alice)
        apus.tool("queue", "reroute", f"alias:|touch {self.out}/x", "--all")
        apus.write_settings(queue="")
        os.kill(apus.pids("apusd")[0], 1)
        self.assertTrue(wait_for(lambda: apus.logged("status=deferred", "have no", "any more"), 20), apus.log())
        self.assertEqual(os.listdir(self.out), [])
        apus.tool("queue", "reroute", "alias:run", "--all")
        apus.wait_empty()
        self.assertIn(b"Subject: hi", slurp(f"{self.out}/log"))

    def test_kills_in_the_middle_neither_lose_nor_double_what_a_list_sends(self):
        apus = self.apus(f"list: ALICE, BOB\nowner-list: ALICE\n", queue='retry-min = "1s"\nretry-max = "2s"\npaused = true').start()
        with smtplib.SMTP("127.0.0.1", apus.port, timeout=60) as client:
            for i in range(150):
                client.sendmail("a@b.example", ["list@apus.test"], f"Subject: {i}\r\n\r\nx\r\n")
        apus.write_settings(queue='retry-min = "1s"\nretry-max = "2s"')
        os.kill(apus.pids("apusd")[0], 1)
        apus.kill_in_turn("apus-local", "apus-queue")
        for user in (self.alice, self.bob):
            self.assertEqual(sorted(int(m["Subject"]) for m in apus.messages(user)), list(range(150)))


if __name__ == "__main__":
    unittest.main()
