# SPDX-License-Identifier: Apache-2.0
"""Mail of users handed to a server of mailboxes by LMTP."""
import os
import re
import shutil
import smtplib
import socketserver
import subprocess
import threading
import unittest

from apus import Apus
from dovecot import DOVECOT
from peers import slurp, wait_for

MESSAGE = "From: <x@elsewhere.example>\r\nTo: <alice@apus.test>\r\nSubject: {}\r\n\r\n.dots\r\n..and more\r\nHello.\r\n"


class Server:
    """LMTP on a socket, with the reply that `verdicts` has for a recipient; others are delivered."""

    def __init__(self, path, verdicts=None):
        self.messages, self.commands, self.connections = [], [], 0
        server = self

        class Handler(socketserver.StreamRequestHandler):
            def say(self, line):
                self.wfile.write(line.encode() + b"\r\n")

            def handle(self):
                server.connections += 1
                recipients = []
                self.say("220 lmtp ready")
                while line := self.rfile.readline().decode().strip():
                    server.commands.append(line)
                    word = line.split()[0].upper()
                    if word == "LHLO":
                        self.wfile.write(b"250-lmtp\r\n250 PIPELINING\r\n")
                    elif word == "RCPT":
                        recipients.append(re.search("<(.*)>", line).group(1))
                        self.say("250 ok")
                    elif word == "DATA":
                        self.say("354 go")
                        content = b""
                        while (line := self.rfile.readline()) != b".\r\n":
                            content += line[1:] if line.startswith(b".") else line
                        for recipient in recipients:
                            reply = (verdicts or {}).get(recipient, "250 2.0.0 saved")
                            if reply.startswith("2"):
                                server.messages.append((recipient, content))
                            self.say(reply)
                        recipients = []
                    elif word == "QUIT":
                        return self.say("221 bye")
                    else:
                        self.say("250 ok")

        class Listener(socketserver.ThreadingUnixStreamServer):
            daemon_threads = True

        self.listener = Listener(path, Handler)
        os.chmod(path, 0o666)
        threading.Thread(target=self.listener.serve_forever, args=(0.05,), daemon=True).start()

    def close(self):
        self.listener.shutdown()
        self.listener.server_close()


class Handing(unittest.TestCase):
    """An Apus whose users have their mail elsewhere."""

    def apus(self, **words):
        apus = Apus(queue="retry-min = 1\n", **words)
        self.addCleanup(apus.close)
        os.chmod(apus.root, 0o777)
        self.path = os.path.join(apus.root, "lmtp")
        apus.write_settings(local=f'lmtp = "{self.path}"\n')
        return apus

    def server(self, **words):
        server = Server(self.path, **words)
        self.addCleanup(server.close)
        return server

    def send(self, apus, subject, *recipients, sender="x@elsewhere.example"):
        with smtplib.SMTP("127.0.0.1", apus.port, timeout=20) as smtp:
            smtp.sendmail(sender, list(recipients), MESSAGE.format(subject))


class LMTP(Handing):
    def test_each_recipient_has_an_outcome_of_his_own_and_the_connection_is_used_again(self):
        apus = self.apus()
        server = self.server(verdicts={"bob@apus.test": "552 5.2.2 mailbox full"})
        apus.start()
        self.send(apus, "one", "alice@apus.test", "bob@apus.test")
        self.assertTrue(wait_for(lambda: apus.logged("to=<bob@apus.test>", "status=failed", "dsn=5.2.2", "mailbox full"), 20),
                        apus.log()[-3000:])
        self.assertTrue(apus.logged("to=<alice@apus.test>", "status=delivered", f"who={self.path}"))
        self.assertEqual([m[0] for m in server.messages], ["alice@apus.test"])
        self.assertTrue(server.messages[0][1].endswith(b"\r\n\r\n.dots\r\n..and more\r\nHello.\r\n"))
        self.send(apus, "two", "alice@apus.test")
        self.assertTrue(wait_for(lambda: len(server.messages) == 2, 20))
        self.assertEqual(server.connections, 1)
        self.assertEqual(server.commands[0], "LHLO mx.apus.test")
        self.assertEqual(os.listdir(os.path.join(apus.root, "mail")), [], "apus-local has nothing of it")

    def test_a_mailbox_that_does_not_open_keeps_no_other_mail_waiting(self):
        apus = self.apus()
        apus.write_settings(queue='retry-min = "30s"\nretry-max = "600s"\n')
        server = self.server(verdicts={"alice@apus.test": "451 4.3.0 <alice> Temporary internal error"})
        apus.start()
        for number in range(4):
            self.send(apus, f"{number}", "alice@apus.test")
            self.assertTrue(wait_for(lambda: len(apus.logged("to=<alice@apus.test>", "status=deferred", "dsn=4.3.0")) == number + 1, 20))
        self.send(apus, "for bob", "bob@apus.test")
        self.assertTrue(wait_for(lambda: [m[0] for m in server.messages] == ["bob@apus.test"], 5), apus.log()[-3000:])
        self.assertEqual(apus.logged("destination-down"), [])

    def test_unknown_users_are_refused_at_rcpt_and_mail_waits_while_the_server_is_away(self):
        apus = self.apus()
        apus.start()
        with self.assertRaises(smtplib.SMTPRecipientsRefused):
            self.send(apus, "x", "nobody@apus.test")
        self.send(apus, "later", "alice@apus.test")
        self.assertTrue(wait_for(lambda: apus.logged("status=deferred", "dsn=4.4.1", "connect"), 20), apus.log()[-3000:])
        server = self.server()
        self.assertTrue(wait_for(lambda: len(server.messages) == 1, 30), apus.log()[-3000:])
        apus.wait_empty()

    def test_who_wants_to_hear_of_success_hears_that_it_was_delivered_not_relayed(self):
        apus = self.apus()
        server = self.server()
        apus.start()
        with smtplib.SMTP("127.0.0.1", apus.port, timeout=20) as smtp:
            smtp.ehlo()
            smtp.sendmail("bob@apus.test", ["alice@apus.test"], MESSAGE.format("dsn"), rcpt_options=["NOTIFY=SUCCESS"])
        self.assertTrue(wait_for(lambda: [m for m in server.messages if m[0] == "bob@apus.test"], 20), apus.log()[-3000:])
        report = [m[1] for m in server.messages if m[0] == "bob@apus.test"][0]
        self.assertIn(b"Action: delivered", report)

    def test_a_setting_that_is_no_server_is_told(self):
        apus = self.apus()
        apus.write_settings(local='lmtp = "dovecot"\n')
        status, out, _ = apus.tool("check", check=False)
        self.assertEqual(status, 1)
        self.assertIn('"dovecot" is not a server for LMTP', out)


@unittest.skipIf(os.geteuid() != 0 or not DOVECOT or not os.path.exists("/usr/lib/dovecot/lmtp"), "needs root and Dovecot's LMTP")
class DovecotWithSieve(Handing):
    def setUp(self):
        self.here = self.apus()
        run = os.path.join(self.here.root, "run")
        os.makedirs(run)
        os.chmod(self.here.root, 0o755)
        mail = os.path.join(self.here.root, "dovecot")
        os.makedirs(os.path.join(mail, "alice"))
        with open(os.path.join(mail, "alice/.dovecot.sieve"), "w") as file:
            file.write('require ["fileinto", "mailbox"];\nif header :contains "subject" "swift" { fileinto :create "Birds"; }\n')
        user = self.here.user
        group = subprocess.run(["id", "-gn", user], capture_output=True, text=True).stdout.strip()
        numbers = [subprocess.run(["id", w, user], capture_output=True, text=True).stdout.strip() for w in ("-u", "-g")]
        subprocess.run(["chown", "-R", f"{user}:{group}", mail], check=True)
        config = os.path.join(self.here.root, "dovecot.conf")
        with open(config, "w") as file:
            file.write(f"""
protocols = lmtp
base_dir = {run}
state_dir = {run}
log_path = {self.here.root}/dovecot.log
default_internal_user = {user}
default_internal_group = {group}
default_login_user = {user}
first_valid_uid = 1
ssl = no
mail_location = maildir:~/Maildir
auth_username_format = %Ln
postmaster_address = postmaster@apus.test
passdb {{
  driver = static
  args = nopassword=y
}}
userdb {{
  driver = static
  args = uid={numbers[0]} gid={numbers[1]} home={mail}/%n allow_all_users=yes
}}
protocol lmtp {{
  mail_plugins = sieve
}}
plugin {{
  sieve = file:~/sieve;active=~/.dovecot.sieve
}}
service lmtp {{
  unix_listener {self.path} {{
    mode = 0666
  }}
}}
service stats {{
  unix_listener stats-writer {{
    mode = 0666
  }}
}}
""")
        dovecot = subprocess.Popen([DOVECOT, "-F", "-c", config], stdin=subprocess.DEVNULL)

        def stop():
            dovecot.terminate()
            dovecot.wait(20)
        self.addCleanup(stop)
        self.assertTrue(wait_for(lambda: os.path.exists(self.path), 20), slurp(self.here.root + "/dovecot.log"))
        self.mail = mail

    def test_a_rule_files_the_message_and_the_rest_goes_to_the_inbox(self):
        self.here.start()
        self.send(self.here, "the first swift", "alice@apus.test")
        self.send(self.here, "a sparrow", "alice@apus.test", "bob@apus.test")
        found = {}

        def look():
            for path, _, files in os.walk(self.mail):
                if path.endswith("/new"):
                    found[path[len(self.mail) + 1:]] = [slurp(os.path.join(path, f)) for f in files]
            return {k: len(v) for k, v in found.items()} == {
                "alice/Maildir/.Birds/new": 1, "alice/Maildir/new": 1, "bob/Maildir/new": 1}
        self.assertTrue(wait_for(look, 20), str(found) + self.here.log()[-2000:] + str(slurp(self.here.root + "/dovecot.log")))
        self.assertIn(b"swift", found["alice/Maildir/.Birds/new"][0])
        self.here.wait_empty()


if __name__ == "__main__":
    unittest.main()
