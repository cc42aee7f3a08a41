# SPDX-License-Identifier: Apache-2.0
"""Virtual domains: who is there, by tables, and mail in mailboxes that one user owns."""
import os
import pwd
import shutil
import smtplib
import stat
import subprocess
import tempfile
import time
import unittest

from apus import HERE, Apus
from peers import slurp, wait_for


def recipient(apus, address):
    """What RCPT answers."""
    with smtplib.SMTP("127.0.0.1", apus.port, timeout=30) as client:
        client.ehlo()
        client.mail("a@b.example")
        code, text = client.rcpt(address)
        return f"{code} {text.decode()}"


def send(apus, *recipients):
    with smtplib.SMTP("127.0.0.1", apus.port, timeout=30) as client:
        return client.sendmail("a@b.example", list(recipients), "Subject: hi\r\n\r\nx\r\n")


def write(path, text):
    """Puts a file in its place, older than now, so that it is believed at once."""
    with open(path + ".new", "w") as f:
        f.write(text)
    os.utime(path + ".new", (time.time() - 10 + write.count, time.time() - 10 + write.count))
    write.count += 0.001
    os.chmod(path + ".new", 0o644)
    os.replace(path + ".new", path)


write.count = 0


class Virtual:
    """An Apus with a virtual domain, and what there is of it."""

    def __init__(self, case, settings="", mailboxes="", aliases="", owner=None, root=False, **sections):
        self.case = case
        self.apus = Apus(root=root, **sections)
        case.addCleanup(self.apus.close)
        self.mailboxes, self.aliases = self.apus.root + "/mailboxes", self.apus.root + "/virtual"
        write(self.mailboxes, mailboxes)
        write(self.aliases, aliases)
        self.folder = self.apus.root + "/vmail"
        os.mkdir(self.folder)
        owner = owner or self.apus.user
        shutil.chown(self.folder, owner)
        self.apus.write_settings(extra=f"""
[virtual]
domains = ["v.example", "w.example"]
owner = "{owner}"
mailbox = "maildir:{self.folder}/%{{domain}}/%{{local}}"
mailboxes = ["text:{self.mailboxes}"]
aliases = ["text:{self.aliases}"]
{settings}
""")

    def new(self, *names):
        folder = os.path.join(self.folder, *names, "new")
        return [os.path.join(folder, name) for name in os.listdir(folder)] if os.path.isdir(folder) else []

    def wait(self, count, *names):
        self.case.assertTrue(wait_for(lambda: len(self.new(*names)) == count, 20), self.apus.log()[-3000:])
        return self.new(*names)


class VirtualDomains(unittest.TestCase):
    def test_virtual_users_have_mailboxes_and_aliases_of_their_own(self):
        virtual = Virtual(
            self, mailboxes="joe@v.example\n\"..\"@v.example\n\"a/b\"@v.example\njoe@w.example\n",
            aliases="info@v.example joe@v.example, alice\n@w.example @v.example\n")
        apus = virtual.apus.start()
        self.assertIn("550 5.1.1", recipient(apus, "nobody@v.example"))
        # A user of the system is nobody there.
        self.assertIn("550 5.1.1", recipient(apus, "alice@v.example"))
        self.assertEqual(send(apus, "Joe+news@V.example", "info@v.example", "\"..\"@v.example", "\"a/b\"@v.example",
                              "joe@w.example", "postmaster@v.example"), {})
        virtual.wait(2, "v.example", "joe")
        virtual.wait(1, "w.example", "joe")
        virtual.wait(1, "v.example", "%2E.")
        virtual.wait(1, "v.example", "a%2Fb")
        apus.wait_delivered(1)
        headers = [slurp(path).decode().split("\n\n")[0] for path in virtual.new("v.example", "joe")]
        self.assertEqual(sorted(line for h in headers for line in h.split("\n") if line.startswith(("Deliv", "X-Orig"))),
                         ["Delivered-To: Joe+news@V.example", "Delivered-To: joe@v.example", "X-Original-To: info@v.example"])
        self.assertEqual(sorted(os.listdir(virtual.folder)), ["v.example", "w.example"])
        text = apus.tool("explain", "x@w.example", check=False)[1]
        self.assertIn("@w.example is an alias of x@v.example", text)
        text = apus.tool("explain", "joe@v.example")[1]
        self.assertIn(f"-> <joe@v.example> by mailbox:{apus.user}:v.example/joe", text)

    def test_a_changed_table_counts_within_seconds_and_one_that_cannot_be_read_does_not(self):
        virtual = Virtual(self, mailboxes="joe@v.example\n")
        apus = virtual.apus.start()
        self.assertIn("550 5.1.1", recipient(apus, "mary@v.example"))
        write(virtual.mailboxes, "joe@v.example\nmary@v.example\n")
        self.assertTrue(wait_for(lambda: recipient(apus, "mary@v.example").startswith("250"), 10, 0.3), apus.log()[-2000:])
        write(virtual.mailboxes, "joe@v.example\nmary v.example\n")
        self.assertTrue(wait_for(lambda: recipient(apus, "joe@v.example") and apus.logged("table-kept"), 10, 0.3))
        self.assertIn("250", recipient(apus, "mary@v.example"))
        self.assertIn("is no address", apus.tool("check")[1] + apus.tool("check")[2])

    def test_a_table_that_cannot_be_read_makes_nobody_unknown_and_nothing_is_relayed_past_it(self):
        virtual = Virtual(self, mailboxes="joe@v.example\n")
        domains = virtual.apus.root + "/domains"
        write(domains, "t.example\n!\n")
        text = virtual.apus.sections["extra"]
        virtual.apus.write_settings(extra=text + f'domain-tables = ["text:{domains}"]\n')
        apus = virtual.apus.start()
        self.assertIn("250", recipient(apus, "joe@v.example"))
        for address in ("x@t.example", "x@elsewhere.example"):
            self.assertIn("451" if "elsewhere" in address else "550 5.1.1", recipient(apus, address))
        # What is wrong is told with its line.
        self.assertTrue(apus.logged("table-fault", domains, "line=2"))
        write(domains, "t.example\n")
        self.assertTrue(wait_for(lambda: "451" not in recipient(apus, "x@elsewhere.example"), 10, 0.3))

    def test_settings_that_cannot_mean_anything_are_told(self):
        apus = Apus()
        self.addCleanup(apus.close)
        for text, expected in [
            ('domains = ["apus.test"]', "is in domains.local too"),
            ('mailboxes = ["text:/etc/passwd"]', "virtual.mailboxes needs virtual.owner"),
            ('owner = "root"', "mail is never written as root"),
            ('aliases = ["/etc/virtual"]', "is not a table"),
            ('aliases = ["text:/does/not/exist"]', "/does/not/exist"),
            ('mailbox = "maildir:/srv/%{domain}"', "has no %{local}"),
            ('mailbox = "maildir:/srv/%{domain}/%{local}/%{user}"', "neither %{domain} nor %{local}"),
            ('mailbox = "maildir:/srv/../%{domain}/%{local}"', "has . or .. in it"),
        ]:
            apus.write_settings(extra="[virtual]\n" + text + "\n")
            status, out, err = apus.tool("check", check=False)
            self.assertNotEqual(status, 0, text)
            self.assertIn(expected, out + err, text)


@unittest.skipUnless(os.geteuid() == 0, "needs root")
class AsRoot(unittest.TestCase):
    def test_an_owner_who_does_not_exist_makes_mail_wait_and_not_bounce(self):
        done = subprocess.run([os.path.join(HERE, "../../etc/accounts")], capture_output=True, text=True)
        if done.returncode:
            self.skipTest("etc/accounts cannot make the users here: " + done.stderr)
        virtual = Virtual(self, mailboxes="joe@v.example\n", owner="root", root=True)
        virtual.apus.write_settings(extra=virtual.apus.sections["extra"].replace('owner = "root"', 'owner = "nobody-at-all"'))
        self.assertIn("virtual.owner: there is no user nobody-at-all", virtual.apus.tool("check")[1] + virtual.apus.tool("check")[2])
        apus = virtual.apus.start()
        self.assertEqual(send(apus, "joe@v.example"), {})
        self.assertTrue(wait_for(lambda: apus.logged("to=<joe@v.example>", "status=deferred", "dsn=4.3.5"), 15), apus.log()[-2000:])
        self.assertEqual(apus.count(), 1)

    def test_the_mailboxes_belong_to_their_owner(self):
        done = subprocess.run([os.path.join(HERE, "../../etc/accounts")], capture_output=True, text=True)
        if done.returncode:
            self.skipTest("etc/accounts cannot make the users here: " + done.stderr)
        home = tempfile.mkdtemp(prefix="apus-vmail-")
        self.addCleanup(shutil.rmtree, home, True)
        os.chmod(home, 0o755)
        owner = f"apus-{os.getpid()}-v"
        done = subprocess.run(["useradd", "-m", "-b", home, owner], capture_output=True, text=True)
        if done.returncode:
            self.skipTest("users cannot be made here: " + done.stderr)
        self.addCleanup(subprocess.run, ["userdel", owner], capture_output=True)
        # What the owner does with his own mail is not for theirs.
        write(f"{home}/{owner}/.forward", "nobody@elsewhere.example\n")
        shutil.chown(f"{home}/{owner}/.forward", owner)
        users = "".join(f"u{number}@v.example\n" for number in range(30))
        virtual = Virtual(self, mailboxes=users, owner=owner, root=True)
        apus = virtual.apus.start()
        self.assertEqual(send(apus, *users.split()), {})
        apus.wait_empty()
        entry = pwd.getpwnam(owner)
        for number in range(30):
            virtual.wait(1, "v.example", f"u{number}")
        for path, folders, files in os.walk(virtual.folder):
            for name in folders + files:
                status = os.lstat(os.path.join(path, name))
                self.assertEqual((status.st_uid, status.st_gid), (entry.pw_uid, entry.pw_gid), name)
                self.assertEqual(stat.S_IMODE(status.st_mode) & 0o077, 0, name)


if __name__ == "__main__":
    unittest.main()
