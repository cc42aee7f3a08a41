# SPDX-License-Identifier: Apache-2.0
"""What apus-local puts into Maildirs, as Dovecot shows it over IMAP, and the quota that both keep."""
import email
import imaplib
import mailbox
import os
import pwd
import subprocess
import tempfile
import shutil
import unittest

from peers import free_port, slurp, wait_for
from pipes import Deliveries
from test_agents import CONTENT, RealUsers, message_id

DOVECOT = shutil.which("dovecot", path=os.environ.get("PATH", "") + ":/usr/sbin")


@unittest.skipUnless(DOVECOT and os.path.exists("/usr/lib/dovecot/imap"), "Dovecot's IMAP server is not installed")
class ReadByDovecot(RealUsers):
    def setUp(self):
        super().setUp()
        self.user = self.USERS[0]
        self.entry = pwd.getpwnam(self.user)
        folder = tempfile.mkdtemp(prefix="apus-imap-")
        self.addCleanup(shutil.rmtree, folder, True)
        os.chmod(folder, 0o755)
        self.port = free_port()
        self.log = f"{folder}/log"
        with open(f"{folder}/users", "w") as f:
            f.write(f"{self.user}:{{PLAIN}}secret:{self.entry.pw_uid}:{self.entry.pw_gid}::{self.entry.pw_dir}\n")
        with open(f"{folder}/conf", "w") as f:
            f.write(f"""
protocols = imap
base_dir = {folder}/run
state_dir = {folder}/run
log_path = {self.log}
default_internal_user = nobody
default_internal_group = nogroup
default_login_user = nobody
first_valid_uid = 1
ssl = no
disable_plaintext_auth = no
listen = 127.0.0.1
mail_location = maildir:~/Maildir
mail_plugins = quota
protocol imap {{
  mail_plugins = quota imap_quota
}}
passdb {{
  driver = passwd-file
  args = {folder}/users
}}
userdb {{
  driver = passwd-file
  args = {folder}/users
}}
plugin {{
  quota = maildir:User quota
  quota_rule = *:messages=5
}}
service imap-login {{
  chroot =
  inet_listener imap {{
    port = {self.port}
  }}
  inet_listener imaps {{
    port = 0
  }}
}}
service stats {{
  unix_listener stats-writer {{
    mode = 0666
  }}
}}
""")
        os.mkdir(f"{folder}/run")
        dovecot = subprocess.Popen([DOVECOT, "-F", "-c", f"{folder}/conf"], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

        def stop():
            dovecot.terminate()
            dovecot.wait(20)
        self.addCleanup(stop)

    def imap(self):
        client = []

        def connect():
            try:
                client.append(imaplib.IMAP4("127.0.0.1", self.port))
            except OSError:
                pass
            return client
        self.assertTrue(wait_for(connect, 20), slurp(self.log) if os.path.exists(self.log) else "")
        self.addCleanup(client[0].logout)
        client[0].login(self.user, "secret")
        client[0].select("INBOX")
        return client[0]

    def deliver(self, part, *numbers, content=CONTENT):
        deliveries = Deliveries(part)
        for number in numbers:
            deliveries.begin(message_id(number), f"local:{self.user}", content, [f"{self.user}@example.org"])
        return [job["outcomes"][0] for job in deliveries.run().values()]

    def test_messages_come_out_as_they_went_in(self):
        contents = [CONTENT + b"first\r\n", b"Subject: =?utf-8?Q?=C3=A9?=\r\n\r\n\xff binary \xc3\xa9\r\n.\r\n", CONTENT + b"From x\r\n" * 5000]
        part = self.part()
        for number, content in enumerate(contents):
            self.assertEqual(self.deliver(part, number, content=content)[0][0], "delivered")
        imap = self.imap()
        _, (numbers,) = imap.search(None, "ALL")
        self.assertEqual(len(numbers.split()), 3)
        fetched = [imap.fetch(number, "(BODY.PEEK[])")[1][0][1] for number in numbers.split()]
        for content in contents:
            self.assertEqual(len([f for f in fetched if f.endswith(content)]), 1, content[:80])
        for message in fetched:
            self.assertTrue(message.startswith(b"Return-Path: <alice@a.example>\r\nDelivered-To: "), message[:80])
            self.assertEqual(email.message_from_bytes(message)["Return-Path"], "<alice@a.example>")

    def test_dovecot_and_we_keep_one_quota(self):
        part = self.part(**{"quota-messages": 5})
        self.assertEqual([o[0] for o in self.deliver(part, *range(5))], ["delivered"] * 5)
        self.assertEqual(self.deliver(part, 10)[0][:3], ["deferred", "0", "4.2.2"])
        imap = self.imap()
        self.assertIn(b"MESSAGE 5 5", imap.getquotaroot("INBOX")[1][1][0])
        # What the reader takes out makes room at once.
        imap.store("1:2", "+FLAGS", "\\Deleted")
        imap.expunge()
        self.assertEqual(self.deliver(part, 10)[0][0], "delivered", slurp(f"{self.entry.pw_dir}/Maildir/maildirsize"))
        imap.noop()
        self.assertIn(b"MESSAGE 4 5", imap.getquotaroot("INBOX")[1][1][0])
        self.assertEqual(len(mailbox.Maildir(f"{self.entry.pw_dir}/Maildir", create=False)), 4)
        # And what it puts in takes it.
        self.assertEqual(imap.append("INBOX", None, None, CONTENT)[0], "OK")
        self.assertEqual(self.deliver(part, 11)[0][:3], ["deferred", "0", "4.2.2"])


if __name__ == "__main__":
    unittest.main()
