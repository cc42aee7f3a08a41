# SPDX-License-Identifier: Apache-2.0
"""Apus as root starts it: a user for each program, and mailboxes that belong to their owners."""
import base64
import grp
import os
import pwd
import shutil
import signal
import smtplib
import socket
import ssl
import stat
import subprocess
import tempfile
import threading
import unittest

from apus import HERE, Apus, binaries
from certificates import Authority
from peers import Raw, Sink, free_port, slurp, wait_for

ACCOUNTS = os.path.join(HERE, "../../etc/accounts")
OWN_USERS = ["apus-smtpd", "apus-lookup", "apus-vault", "apus-queue", "apus-remote", "apus-bounce"]


def send(port, recipients, subject="hi", sender="a@b.example"):
    with smtplib.SMTP("127.0.0.1", port, timeout=20) as client:
        return client.sendmail(sender, list(recipients), f"Subject: {subject}\r\n\r\nx\r\n")


def status_of(pid):
    with open(f"/proc/{pid}/status") as f:
        return dict(line.split(":\t", 1) for line in f.read().splitlines() if ":\t" in line)


@unittest.skipUnless(os.geteuid() == 0, "needs root")
class AsRoot(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        done = subprocess.run([ACCOUNTS], capture_output=True, text=True)
        if done.returncode:
            raise unittest.SkipTest("etc/accounts cannot make the users here: " + done.stderr)
        cls.homes = tempfile.mkdtemp(prefix="apus-homes-")
        cls.addClassCleanup(shutil.rmtree, cls.homes, True)
        os.chmod(cls.homes, 0o755)
        # Names of their own for each run, so that two runs on one machine do not meet.
        cls.alice, cls.bob = cls.users = [f"apus-{os.getpid()}-{letter}" for letter in "ab"]
        for user in cls.users:
            done = subprocess.run(
                ["useradd", "-m", "-b", cls.homes, "-s", "/usr/sbin/nologin", user], capture_output=True, text=True)
            if done.returncode:
                raise unittest.SkipTest("users cannot be made here: " + done.stderr)
            cls.addClassCleanup(subprocess.run, ["userdel", user], capture_output=True)

    def setUp(self):
        for user in self.users:
            shutil.rmtree(f"{self.homes}/{user}/Maildir", True)

    def apus(self, **sections):
        apus = Apus(root=True, **sections)
        self.addCleanup(apus.close)
        return apus

    def started(self, **sections):
        return self.apus(**sections).start()

    def with_aliases(self, text, **sections):
        apus = self.apus(**sections)
        with open(apus.aliases, "w") as f:
            f.write(text)
        apus.write_settings(local=f'aliases = "{apus.aliases}"\n')
        return apus.start()

    def test_a_reload_reaches_a_user_whose_mail_never_pauses(self):
        apus = self.apus()
        apus.write_settings(local='dot-files = "none"\n')
        apus.start()
        home = f"{self.homes}/{self.alice}"
        self.addCleanup(os.unlink, f"{home}/.forward")
        with open(f"{home}/.forward", "w") as f:
            f.write("~/box\n")
        stop = threading.Event()

        def traffic():
            while not stop.wait(0.2):
                send(apus.port, [f"{self.alice}@apus.test"])
        thread = threading.Thread(target=traffic)
        thread.start()
        try:
            self.assertTrue(wait_for(lambda: os.path.isdir(f"{home}/Maildir/new") and os.listdir(f"{home}/Maildir/new"), 20))
            self.assertFalse(os.path.exists(f"{home}/box"))
            apus.write_settings(local='dot-files = "forward"\n')
            os.kill(apus.process.pid, signal.SIGHUP)
            # A worker that gets mail all the time does not end of its own.
            self.assertTrue(wait_for(lambda: os.path.exists(f"{home}/box"), 8))
        finally:
            stop.set()
            thread.join()

    def test_accounts_can_be_made_again_without_changing_anything(self):
        def accounts():
            return [(pwd.getpwnam(name), grp.getgrnam(name)) for name in OWN_USERS]

        before = accounts()
        files = [slurp(path) for path in ("/etc/passwd", "/etc/group")]
        done = subprocess.run([ACCOUNTS], capture_output=True, text=True)
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "", ""))
        self.assertEqual(accounts(), before)
        self.assertEqual([slurp(path) for path in ("/etc/passwd", "/etc/group")], files)
        self.assertEqual(len({user.pw_uid for user, group in before}), len(OWN_USERS))
        for user, group in before:
            self.assertNotIn(0, (user.pw_uid, user.pw_gid))
            self.assertEqual(user.pw_gid, group.gr_gid)
            self.assertTrue(user.pw_shell.endswith("nologin"))

    def test_each_mailbox_belongs_to_its_owner_and_to_nobody_else(self):
        apus = self.started()
        self.assertEqual(send(apus.port, [f"{user}@apus.test" for user in self.users]), {})
        apus.wait_empty()
        for user in self.users:
            apus.wait_delivered(1, user)
            # Its witness in tmp goes when the queue has noted the delivery.
            self.assertTrue(wait_for(lambda: not os.listdir(apus.maildir(user) + "/tmp"), 10))
            entry = pwd.getpwnam(user)
            seen = 0
            for path, folders, files in os.walk(apus.maildir(user)):
                for name in [path] + [os.path.join(path, f) for f in files]:
                    status = os.lstat(name)
                    self.assertEqual((status.st_uid, status.st_gid), (entry.pw_uid, entry.pw_gid), name)
                    wanted = 0o700 if stat.S_ISDIR(status.st_mode) else 0o600
                    self.assertEqual(stat.S_IMODE(status.st_mode), wanted, name)
                    seen += 1
            self.assertEqual(seen, 5)

    def test_each_program_runs_as_its_own_user_without_capabilities(self):
        apus = self.started()
        for name in OWN_USERS:
            entry = pwd.getpwnam(name)
            pids = apus.pids(name)
            self.assertEqual(len(pids), 1, name)
            status = status_of(pids[0])
            self.assertEqual(set(status["Uid"].split()), {str(entry.pw_uid)}, name)
            self.assertEqual(set(status["Gid"].split()), {str(entry.pw_gid)}, name)
            self.assertLessEqual(set(status["Groups"].split()), {str(entry.pw_gid)}, name)
            for kind in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
                self.assertEqual(int(status[kind], 16), 0, (name, kind))
        for name in ("apusd", "apus-local"):
            self.assertEqual(set(status_of(apus.pids(name)[0])["Uid"].split()), {"0"}, name)

    def test_the_program_that_faces_the_world_sees_an_empty_directory_that_it_cannot_write(self):
        apus = self.started()
        pid = apus.pids("apus-smtpd")[0]
        empty = f"{apus.root}/state/empty"
        self.assertEqual(os.readlink(f"/proc/{pid}/root"), empty)
        self.assertEqual(os.readlink(f"/proc/{pid}/cwd"), empty)
        self.assertEqual(os.listdir(f"/proc/{pid}/root/"), [])
        status = os.stat(empty)
        self.assertEqual((status.st_uid, status.st_mode & 0o022), (0, 0))
        # No descriptor leads to a file either.
        for number in os.listdir(f"/proc/{pid}/fd"):
            target = os.readlink(f"/proc/{pid}/fd/{number}")
            self.assertTrue(target.startswith(("pipe:", "socket:", "anon_inode:", "/dev/null")) or number == "2", target)

    def test_the_queue_is_for_its_user_alone_and_the_control_socket_for_root(self):
        apus = self.started()
        queue = pwd.getpwnam("apus-queue")

        def owner_and_mode(name):
            status = os.lstat(f"{apus.root}/state/{name}")
            return status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)

        self.assertEqual(owner_and_mode("queue"), (queue.pw_uid, queue.pw_gid, 0o700))
        for name in os.listdir(f"{apus.root}/state/queue"):
            self.assertEqual(owner_and_mode("queue/" + name), (queue.pw_uid, queue.pw_gid, 0o600), name)
        self.assertEqual(owner_and_mode("control"), (0, 0, 0o600))
        self.assertEqual(owner_and_mode("")[0:2], (0, 0))
        nobody = pwd.getpwnam("nobody")
        done = subprocess.run(
            [os.path.join(binaries(), "apus"), "queue", "count", "--config", apus.config], capture_output=True, text=True,
            user=nobody.pw_uid, group=nobody.pw_gid, extra_groups=[], cwd="/", timeout=20)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("control", done.stderr)

    def test_the_stopped_queue_is_opened_by_its_user_for_root_and_by_nobody_else(self):
        apus = self.started(queue="paused = true")
        send(apus.port, [f"{self.alice}@apus.test"])
        apus.stop()
        _, out, error = apus.tool("queue", "count")
        self.assertEqual(out.split()[0], "1")
        self.assertIn("apusd is not running", error)
        apus.tool("queue", "hold", "--all")
        queue = pwd.getpwnam("apus-queue")
        for name in os.listdir(f"{apus.root}/state/queue"):
            self.assertEqual(os.stat(f"{apus.root}/state/queue/{name}").st_uid, queue.pw_uid, name)
        done = subprocess.run(
            [os.path.join(binaries(), "apus"), "queue", "count", "--config", apus.config], capture_output=True, text=True,
            timeout=20, user=pwd.getpwnam(self.bob).pw_uid, cwd="/")
        self.assertEqual(done.returncode, 77, done.stderr)
        self.assertIn("belongs to apus-queue", done.stderr)
        apus.start()
        self.assertEqual([m["status"] for m in apus.listed()], ["held"])

    def test_mail_to_root_goes_where_the_alias_says_and_never_to_a_mailbox_of_root(self):
        before = os.path.exists("/root/Maildir")
        apus = self.with_aliases(f"root: {self.alice}\npostmaster: root\nto-root: root\nquoted: \"{self.bob}\"\n")
        for number, name in enumerate(("root", "Root", "postmaster", "to-root", "root+tag"), 1):
            send(apus.port, [f"{name}@apus.test"], name)
            apus.wait_delivered(number, self.alice)
        send(apus.port, ["postmaster"], "short")
        apus.wait_delivered(6, self.alice)
        send(apus.port, ["quoted@apus.test"])
        apus.wait_delivered(1, self.bob)
        apus.wait_empty()
        self.assertEqual(os.path.exists("/root/Maildir"), before)

    def test_without_an_alias_for_root_nothing_is_written_as_root(self):
        before = os.path.exists("/root/Maildir")
        apus = self.with_aliases(f"to-root: root\nboth: root, {self.bob}\n")
        with Raw(apus.port) as s:
            s.command("EHLO c.example")
            for name in ("root", "to-root"):
                s.command("MAIL FROM:<a@b.example>")
                reply = s.command(f"RCPT TO:<{name}@apus.test>")
                if reply.startswith("250"):
                    s.command("DATA")
                    s.send("Subject: x\r\n\r\nx\r\n.\r\n")
                    reply = s.reply()
                s.command("RSET")
                self.assertTrue(reply.startswith(("4", "5")), (name, reply))
        self.assertEqual(os.path.exists("/root/Maildir"), before)

    def test_aliases_nest_lead_outside_and_are_read_again_when_the_file_changes(self):
        sink = Sink()
        self.addCleanup(sink.close)
        apus = self.with_aliases(
            f"# all of them\nteam: staff,\n    outside@elsewhere.example\nstaff: {self.alice}, {self.bob}, deputy\n"
            f"deputy: {self.bob}\n", smarthost=f"127.0.0.1:{sink.port}")
        send(apus.port, ["Team@apus.test", "staff@apus.test"], "team")
        for user in self.users:
            apus.wait_delivered(1, user)
        self.assertTrue(wait_for(lambda: sink.messages), apus.log())
        self.assertEqual(sink.messages[0][1], ["outside@elsewhere.example"])
        apus.wait_empty()
        # Nobody gets it twice, however many ways lead to him.
        self.assertEqual([len(apus.delivered(user)) for user in self.users], [1, 1])
        with open(apus.aliases, "a") as f:
            f.write(f"later: {self.alice}\n")

        def known():
            with Raw(apus.port) as s:
                s.command("EHLO c.example")
                s.command("MAIL FROM:<a@b.example>")
                return s.command("RCPT TO:<later@apus.test>").startswith("250")
        self.assertTrue(wait_for(known, 15, 0.2), apus.log())

    def test_a_tag_behind_the_name_leads_to_the_same_mailbox_and_stays_visible(self):
        apus = self.started()
        send(apus.port, [f"{self.alice}+lists@apus.test", f"{self.alice.upper()}@APUS.TEST"])
        paths = apus.wait_delivered(1, self.alice)
        apus.wait_empty()
        text = b"".join(slurp(path) for path in paths)
        self.assertIn(f"Delivered-To: {self.alice}+lists@apus.test".encode(), text)
        self.assertEqual(send_fails(apus.port, f"{self.alice}-lists@apus.test"), 550)

    def test_a_home_that_is_not_there_keeps_the_mail_in_the_queue(self):
        apus = self.started(queue="retry-min = 1\nretry-max = 1\n")
        home = pwd.getpwnam(self.bob).pw_dir
        os.rename(home, home + ".away")
        try:
            send(apus.port, [f"{self.bob}@apus.test"])
            self.assertTrue(wait_for(lambda: apus.logged("status=deferred", self.bob), 20), apus.log())
            self.assertFalse(os.path.exists(home), "a home is not made by mail")
        finally:
            os.rename(home + ".away", home)
        apus.wait_delivered(1, self.bob)
        apus.wait_empty()

    def test_a_maildir_of_somebody_else_is_not_written(self):
        apus = self.started(queue="retry-min = 1\nretry-max = 1\n")
        os.makedirs(apus.maildir(self.bob) + "/new")
        send(apus.port, [f"{self.bob}@apus.test"])
        self.assertTrue(wait_for(lambda: apus.logged("status=deferred", self.bob), 20), apus.log())
        self.assertEqual(apus.delivered(self.bob), [])
        shutil.rmtree(apus.maildir(self.bob))
        apus.wait_delivered(1, self.bob)

    def test_a_start_without_the_accounts_says_how_to_make_them(self):
        apus = self.apus()
        # A password database without them, seen by this one process only.
        passwd = os.path.join(apus.root, "passwd")
        with open("/etc/passwd") as f:
            lines = [line for line in f if not line.startswith("apus-")]
        with open(passwd, "w") as f:
            f.writelines(lines)
        done = subprocess.run(["unshare", "--mount", "mount", "--bind", passwd, "/etc/passwd"], capture_output=True, text=True)
        if done.returncode:
            self.skipTest("no private mounts here: " + done.stderr)
        script = 'mount --bind "$1" /etc/passwd && shift && exec "$@"'
        for program, words in (("apusd", []), ("apus", ["check"])):
            done = subprocess.run(
                ["unshare", "--mount", "sh", "-c", script, "sh", passwd, os.path.join(binaries(), program), *words,
                 "--config", apus.config], capture_output=True, text=True, timeout=30)
            self.assertIn("etc/accounts", done.stdout + done.stderr)
            self.assertIn("apus-queue", done.stdout + done.stderr)
            if program == "apusd":
                self.assertEqual(done.returncode, 78)

    def test_a_queue_that_another_user_has_made_is_not_started_and_the_cure_is_said(self):
        apus = self.apus()
        os.makedirs(f"{apus.root}/state/queue")
        with open(f"{apus.root}/state/queue/format", "w"):
            pass
        apus.start(wait=False)
        self.assertEqual(apus.process.wait(20), 78)
        self.assertIn(f"chown -R apus-queue: {apus.root}/state/queue", apus.log())

    def test_a_recipient_that_leads_nowhere_does_not_cost_the_others_their_mail(self):
        apus = self.with_aliases("to-root: root\n")
        with Raw(apus.port) as s:
            s.command("EHLO c.example")
            s.command("MAIL FROM:<a@b.example>")
            for name in ("root", "to-root"):
                self.assertTrue(s.command(f"RCPT TO:<{name}@apus.test>").startswith("451 4.3.0"))
            self.assertTrue(s.command(f"RCPT TO:<{self.alice}@apus.test>").startswith("250"))
            s.command("DATA")
            s.send("Subject: x\r\n\r\nx\r\n.\r\n")
            self.assertTrue(s.reply().startswith("250"))
        apus.wait_delivered(1, self.alice)

    def test_the_accounts_of_this_machine_are_let_in_by_their_passwords(self):
        folder = tempfile.mkdtemp(prefix="apus-shadow-")
        self.addCleanup(shutil.rmtree, folder, True)
        authority = Authority(folder)
        certificate, key = authority.issue("mx", "127.0.0.1")
        port = free_port()
        apus = self.started(extra=f"""
[[listen]]
address = "127.0.0.1:{port}"
role = "submission"
tls = "implicit"
[tls]
certificate = "{certificate}"
private-key = "{key}"
[auth]
system = true
failure-delay = 0
""")

        def code(user, password):
            context = ssl.create_default_context(cafile=authority.path("ca.pem"))
            with smtplib.SMTP_SSL("127.0.0.1", port, timeout=30, context=context) as smtp:
                wait_for(lambda: b"AUTH PLAIN LOGIN" in smtp.ehlo()[1], 10)
                plain = base64.b64encode(f"\0{user}\0{password}".encode()).decode()
                return smtp.docmd("AUTH", "PLAIN " + plain)[0]

        def change(*words, **more):
            subprocess.run(words, check=True, capture_output=True, timeout=60, **more)

        def can_read_shadow(name):
            status = status_of(apus.pids(name)[0])
            uid, gid = int(status["Uid"].split()[0]), int(status["Gid"].split()[0])
            groups = [int(group) for group in status["Groups"].split()]
            return subprocess.run(["cat", "/etc/shadow"], user=uid, group=gid, extra_groups=groups, capture_output=True).returncode == 0

        change("chpasswd", input=f"{self.alice}:first password".encode())
        if "apus-vault" not in grp.getgrnam("shadow").gr_mem:
            self.assertEqual(code(self.alice, "first password"), 454, "it cannot be told yet")
            change("usermod", "-aG", "shadow", "apus-vault")
            self.addCleanup(change, "gpasswd", "-d", "apus-vault", "shadow")
        apus.stop()
        apus.start()
        self.assertEqual([name for name in OWN_USERS if can_read_shadow(name)], ["apus-vault"])
        self.assertEqual(code(self.alice, "first password"), 235, apus.log()[-3000:])
        self.assertEqual(code(self.alice, "First password"), 535)
        self.assertEqual(code(self.alice, ""), 535)
        # A change makes the file anew, and counts at once.
        hashed = subprocess.run(["openssl", "passwd", "-6", "second password"], check=True, capture_output=True, text=True)
        change("usermod", "-p", hashed.stdout.strip(), self.alice)
        self.assertEqual([code(self.alice, p) for p in ("first password", "second password")], [535, 235])
        self.assertEqual(code(self.bob, ""), 535, "he has no password")
        self.assertEqual(code("root", "second password"), 535)
        change("usermod", "-L", self.alice)
        self.assertEqual(code(self.alice, "second password"), 535, "the account is locked")
        change("usermod", "-U", "-e", "2001-01-01", self.alice)
        self.assertEqual(code(self.alice, "second password"), 535, "the account has expired")
        change("usermod", "-e", "", self.alice)
        self.assertEqual(code(self.alice, "second password"), 235)
        self.assertTrue(apus.logged("authenticated", f"user={self.alice}", "mechanism=PLAIN"))

    def test_what_nobody_else_may_read_is_not_read_for_the_programs(self):
        apus = self.apus()
        with open(apus.aliases, "w") as f:
            f.write(f"root: {self.alice}\n")
        os.chmod(apus.aliases, 0o600)
        apus.write_settings(local=f'aliases = "{apus.aliases}"\n')
        status, out, err = apus.tool("check", check=False)
        self.assertEqual(status, 1)
        self.assertIn("apus-lookup", out + err)

    def test_a_directory_that_is_closed_to_a_program_is_told_before_the_start(self):
        apus = self.apus()
        folder = f"{apus.root}/closed"
        os.mkdir(folder, 0o700)
        with open(f"{folder}/aliases", "w") as f:
            f.write(f"root: {self.alice}\n")
        os.chmod(f"{folder}/aliases", 0o644)
        apus.write_settings(local=f'aliases = "{folder}/aliases"\n')
        status, out, err = apus.tool("check", check=False)
        self.assertEqual(status, 0)
        self.assertIn(f"the directory {folder} is closed to it", out + err)

    def test_an_address_that_is_in_use_or_not_there_yet_is_a_reason_to_start_again(self):
        apus = self.apus()
        with socket.create_server(("127.0.0.1", apus.port)):
            apus.start(wait=False)
            self.assertEqual(apus.process.wait(20), 75, apus.log())
        apus.port, port = 0, apus.port
        text = apus.settings().replace("127.0.0.1:0", f"192.0.2.77:{port}")
        with open(apus.config, "w") as f:
            f.write(text)
        apus.start(wait=False)
        self.assertEqual(apus.process.wait(20), 75, apus.log())

    def test_a_postmaster_who_is_named_as_his_own_reader_is_told(self):
        apus = self.apus(extra='[bounce]\npostmaster = "postmaster@apus.test"\n')
        with open(apus.aliases, "w") as f:
            f.write("joe: alice\n")
        os.chmod(apus.aliases, 0o644)
        apus.write_settings(local=f'aliases = "{apus.aliases}"\n')
        self.assertIn("the very address whose reader is to be named", "".join(apus.tool("check")[1:]))
        with open(apus.aliases, "w") as f:
            f.write("postmaster: alice\n")
        self.assertNotIn("the very address", "".join(apus.tool("check")[1:]))


def send_fails(port, recipient):
    """The code with which the recipient is refused."""
    try:
        send(port, [recipient])
    except smtplib.SMTPRecipientsRefused as refused:
        return refused.recipients[recipient][0]


if __name__ == "__main__":
    unittest.main()
