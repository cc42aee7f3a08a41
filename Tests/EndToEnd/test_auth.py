# SPDX-License-Identifier: Apache-2.0
"""Who is who: apus-vault, AUTH, and the rules for mail that users hand in."""
import base64
import os
import pwd
import re
import shutil
import signal
import smtplib
import socket
import ssl
import stat
import struct
import subprocess
import sys
import tempfile
import time
import unittest

import dovecot
from apus import HERE, Apus, binaries
from certificates import Authority
from peers import Raw, Sink, free_port, slurp, wait_for
from saslclient import SCRAM, b64, bearer, scram, token

MESSAGE = "From: <alice@apus.test>\r\nTo: <bob@elsewhere.test>\r\nSubject: mine\r\n\r\nHello.\r\n"


def plain(user, password, authzid=""):
    return b64(f"{authzid}\0{user}\0{password}".encode())


def fail2ban():
    """What the filter for fail2ban looks for."""
    text = slurp(os.path.join(HERE, "../../etc/fail2ban/apus.conf")).decode()
    return re.search(r"(?m)^failregex = (.*)$", text)[1].replace("<HOST>", r"(?P<host>\S+)")


class Users(unittest.TestCase):
    """One Apus for the class, with a listener for submission; `auth` and `submission` are of its settings."""

    auth = "failures-per-client-max = 100"
    submission = ""
    delay = 0
    users = {"alice": ("secret", None), "bob": ("hunter2", "sha512")}

    @classmethod
    def setUpClass(cls):
        folder = tempfile.mkdtemp(prefix="apus-auth-")
        cls.addClassCleanup(shutil.rmtree, folder, True)
        cls.authority = Authority(folder)
        certificate, key = cls.authority.issue("mx", "mx.apus.test", "127.0.0.1")
        cls.sink = Sink()
        cls.addClassCleanup(cls.sink.close)
        cls.port, cls.smtps = free_port(), free_port()
        cls.apus = Apus(smarthost=f"127.0.0.1:{cls.sink.port}")
        cls.passwords = os.path.join(cls.apus.root, "passwords")
        cls.senders = os.path.join(cls.apus.root, "senders")
        cls.apus.write_settings(extra=f"""
[[listen]]
address = "127.0.0.1:{cls.port}"
role = "submission"
[[listen]]
address = "127.0.0.1:{cls.smtps}"
role = "submission"
tls = "implicit"
[tls]
certificate = "{certificate}"
private-key = "{key}"
[auth]
{cls.source()}
failure-delay = {cls.delay}
{cls.auth}
[submission]
{cls.submission}
""")
        cls.become_strangers()
        cls.prepare()
        cls.apus.own()
        cls.addClassCleanup(cls.apus.close)
        cls.apus.start()
        assert wait_for(lambda: b"AUTH" in cls.greeting(), 10), cls.apus.log()

    @classmethod
    def become_strangers(cls, old="", new=""):
        """The tests come from 127.0.0.1, which is not to be trusted for that."""
        with open(cls.apus.config) as f:
            text = f.read().replace('relay-from = ["127.0.0.1/32"]', "")
        text = text.replace(old, new) if old else text
        with open(cls.apus.config, "w") as f:
            f.write(text)

    @classmethod
    def source(cls):
        return f'passwords = "{cls.passwords}"'

    @classmethod
    def prepare(cls):
        open(cls.passwords, "w").close()
        os.chmod(cls.passwords, 0o600)
        cls.apus.own()
        for user, (password, scheme) in cls.users.items():
            cls.passwd(user, password, scheme)

    @classmethod
    def passwd(cls, user, password, scheme=None, *words):
        done = subprocess.run(
            [os.path.join(binaries(), "apus"), "passwd", user, "--stdin", "--file", cls.passwords,
             *(["--scheme", scheme] if scheme else []), *words],
            input=password + "\n", capture_output=True, text=True, timeout=30, cwd="/", **cls.apus.identity())
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    @classmethod
    def context(cls, **words):
        return ssl.create_default_context(cafile=cls.authority.path("ca.pem"))

    @classmethod
    def greeting(cls):
        with smtplib.SMTP_SSL("127.0.0.1", cls.smtps, timeout=20, context=cls.context()) as smtp:
            return smtp.ehlo()[1]

    def secured(self, context=None):
        smtp = smtplib.SMTP_SSL("127.0.0.1", self.smtps, timeout=30, context=context or self.context())
        self.addCleanup(smtp.close)
        smtp.ehlo()
        return smtp

    def login(self, user="alice", password="secret"):
        smtp = self.secured()
        smtp.login(user, password)
        return smtp


class PasswordFile(Users):
    def test_passwords_are_asked_for_under_tls_alone(self):
        with smtplib.SMTP("127.0.0.1", self.port, timeout=20) as smtp:
            self.assertNotIn(b"AUTH", smtp.ehlo()[1])
            self.assertEqual(smtp.docmd("AUTH", "PLAIN " + plain("alice", "secret"))[0], 538)
            smtp._host = "mx.apus.test"
            smtp.starttls(context=self.context())
            self.assertIn(b"AUTH PLAIN LOGIN", smtp.ehlo()[1])
            self.assertEqual(smtp.docmd("AUTH", "PLAIN " + plain("alice", "secret"))[0], 235)

    def test_the_port_for_other_servers_has_no_auth(self):
        with smtplib.SMTP("127.0.0.1", self.apus.port, timeout=20) as smtp:
            smtp._host = "mx.apus.test"
            smtp.starttls(context=self.context())
            self.assertNotIn(b"AUTH", smtp.ehlo()[1])
            self.assertEqual(smtp.docmd("AUTH", "PLAIN " + plain("alice", "secret"))[0], 502)

    def test_smtplib_logs_in_and_the_field_and_the_log_say_who_it_was(self):
        with self.login() as smtp:
            smtp.sendmail("alice@apus.test", ["bob@elsewhere.test"], MESSAGE)
        self.assertTrue(wait_for(lambda: any(b"Subject: mine" in m[2] for m in self.sink.messages), 20))
        self.assertTrue(any(b"with ESMTPSA" in m[2] for m in self.sink.messages))
        self.assertTrue(self.apus.logged("authenticated", "user=alice", "mechanism=PLAIN"))
        self.assertTrue(self.apus.logged("queued", "user=alice", "from=<alice@apus.test>"))

    def test_swaks_knows_both_mechanisms(self):
        for mechanism in ("PLAIN", "LOGIN"):
            for user, password, status in (("alice", "secret", 0), ("bob", "hunter2", 0), ("alice", "hunter2", 28)):
                done = subprocess.run(
                    ["swaks", "--server", f"127.0.0.1:{self.port}", "-tls", "--auth", mechanism, "--auth-user", user,
                     "--auth-password", password, "--from", f"{user}@apus.test", "--to", "x@elsewhere.test"],
                    capture_output=True, text=True, timeout=60)
                self.assertEqual(done.returncode, status, done.stdout + done.stderr)

    def test_curl_logs_in_over_smtps(self):
        with tempfile.NamedTemporaryFile("w") as f:
            f.write(MESSAGE)
            f.flush()
            for password, status in (("secret", 0), ("wrong", 67)):
                done = subprocess.run(
                    ["curl", "-sS", "--url", f"smtps://127.0.0.1:{self.smtps}", "--cacert", self.authority.path("ca.pem"),
                     "--user", f"alice:{password}", "--mail-from", "alice@apus.test", "--mail-rcpt", "x@elsewhere.test",
                     "--upload-file", f.name], capture_output=True, text=True, timeout=60)
                self.assertEqual(done.returncode, status, done.stderr)

    def test_a_wrong_password_and_an_unknown_user_get_the_same_words_and_take_the_same_time(self):
        replies, times = set(), {}
        for user in ("alice", "bob", "nobody-of-that-name") * 2:
            smtp = self.secured()
            begin = time.monotonic()
            replies.add(smtp.docmd("AUTH", "PLAIN " + plain(user, "wrong")))
            times[user] = min(times.get(user, 60), time.monotonic() - begin)
        known = [times["alice"], times["bob"]]
        self.assertGreater(times["nobody-of-that-name"], min(known) / 3, times)
        self.assertLess(times["nobody-of-that-name"], max(known) * 3, times)
        self.assertEqual([code for code, text in replies], [535], replies)
        self.assertTrue(self.apus.logged("auth-failed", "user=alice", "mechanism=PLAIN", "reason=credentials"))

    def test_a_lost_exchange_can_be_begun_again(self):
        smtp = self.secured()
        self.assertEqual(smtp.docmd("AUTH", "LOGIN")[0], 334)
        self.assertEqual(smtp.docmd("*")[0], 501)
        self.assertEqual(smtp.docmd("AUTH", "LOGIN")[0], 334)
        self.assertEqual(smtp.docmd("x" * 20_000)[:1], (500,))
        self.assertEqual(smtp.docmd("AUTH", "LOGIN " + b64(b"alice")), (334, b64(b"Password:").encode()))
        self.assertEqual(smtp.docmd(b64(b"secret"))[0], 235)
        self.assertEqual(smtp.docmd("AUTH", "LOGIN")[0], 503)

    def test_who_has_not_authenticated_is_told_to(self):
        smtp = self.secured()
        self.assertEqual(smtp.mail("alice@apus.test")[0], 530)
        self.assertIn(b"5.7.0", smtp.mail("alice@apus.test")[1])

    def test_a_user_sends_as_himself_alone(self):
        smtp = self.login()
        self.assertEqual(smtp.mail("bob@apus.test")[0], 553)
        self.assertEqual(smtp.mail("alice@elsewhere.test")[0], 553)
        self.assertEqual(smtp.mail("Alice+tag@apus.test")[0], 250)
        self.assertEqual(smtp.rset()[0], 250)
        self.assertEqual(smtp.mail("")[0], 250)

    def test_what_a_message_lacks_is_added(self):
        with self.login() as smtp:
            smtp.sendmail("alice@apus.test", ["bare@elsewhere.test"], "Subject: bare\r\n\r\nx\r\n")
        self.assertTrue(wait_for(lambda: any(b"Subject: bare" in m[2] for m in self.sink.messages), 20))
        data = [m[2] for m in self.sink.messages if b"Subject: bare" in m[2]][0]
        for name in (b"Date", b"From", b"Message-ID", b"Received", b"Subject"):
            self.assertEqual(len(re.findall(rb"(?m)^%s:" % name, data)), 1, data)
        self.assertIn(b"\nFrom: <alice@apus.test>\r\n", data)

    def test_the_first_line_of_a_mailbox_file_does_not_make_a_body_of_the_header(self):
        with self.login() as smtp:
            smtp.sendmail("alice@apus.test", ["mbox@elsewhere.test"],
                          "From alice Thu Jan  1 00:00:00 1970\r\nSubject: of a mailbox\r\n\r\nx\r\n")
        self.assertTrue(wait_for(lambda: any(b"Subject: of a mailbox" in m[2] for m in self.sink.messages), 20))
        data = [m[2] for m in self.sink.messages if b"Subject: of a mailbox" in m[2]][0]
        header, body = data.split(b"\r\n\r\n", 1)
        self.assertIn(b"\nX-Mailbox-Line: From alice Thu Jan  1 00:00:00 1970\r\nSubject: of a mailbox", header)
        self.assertIn(b"\nFrom: <alice@apus.test>\r\n", header)
        self.assertEqual(body, b"x\r\n")

    def test_two_authors_are_refused(self):
        with self.login() as smtp, self.assertRaises(smtplib.SMTPDataError) as caught:
            smtp.sendmail("alice@apus.test", ["x@elsewhere.test"], "From: a@b.example\r\nFrom: c@d.example\r\n\r\nx\r\n")
        self.assertEqual(caught.exception.smtp_code, 550)

    def test_a_new_password_counts_without_a_restart(self):
        self.passwd("carol", "first")
        self.assertTrue(wait_for(lambda: self.attempt("carol", "first") == 235, 15, 1.1))
        self.passwd("carol", "second")
        self.assertTrue(wait_for(lambda: self.attempt("carol", "second") == 235, 15, 1.1))
        self.passwd("carol", "", None, "--delete")
        self.assertTrue(wait_for(lambda: self.attempt("carol", "second") == 535, 15, 1.1))

    def test_apus_passwd_refuses_what_crypt_does_not_take_and_says_so(self):
        for scheme in (None, "sha512", "bcrypt"):
            done = subprocess.run(
                [os.path.join(binaries(), "apus"), "passwd", "dora", "--stdin", "--file", self.passwords,
                 *(["--scheme", scheme] if scheme else [])],
                input="x" * 512 + "\n", capture_output=True, text=True, timeout=30, cwd="/", **self.apus.identity())
            self.assertNotEqual(done.returncode, 0)
            self.assertIn("511", done.stderr)
        self.assertNotIn(b"dora:", slurp(self.passwords))
        for password, scheme in (("x" * 511, "sha512"), ("x" * 1024, "scram-sha-256")):
            self.passwd("dora", password, scheme)
            self.assertTrue(wait_for(lambda: self.attempt("dora", password) == 235, 15, 1.1), scheme)

    def attempt(self, user, password):
        with smtplib.SMTP_SSL("127.0.0.1", self.smtps, timeout=30, context=self.context()) as smtp:
            smtp.ehlo()
            return smtp.docmd("AUTH", "PLAIN " + plain(user, password))[0]

    def test_the_filter_for_fail2ban_reads_the_failures_and_nobody_forges_one(self):
        smtp = self.secured()
        smtp.docmd("AUTH", "PLAIN " + plain('x" client=192.0.2.1 user="y', "wrong"))
        lines = self.apus.logged("auth-failed")
        self.assertTrue(lines)
        for line in lines:
            found = re.match(fail2ban(), line)
            if "reason=" in line and "credentials" in line:
                self.assertTrue(found, line)
            if found:
                self.assertEqual(found["host"], "127.0.0.1", line)

    def test_the_vault_may_die(self):
        self.apus.kill("apus-vault")
        self.assertIn(self.attempt("alice", "secret"), (235, 454))
        self.assertTrue(wait_for(lambda: self.attempt("alice", "secret") == 235, 20))

    def test_a_session_ends_with_so_many_refusals_too_while_the_vault_is_away(self):
        smtp = self.secured()
        os.kill(self.apus.process.pid, signal.SIGSTOP)
        try:
            self.apus.kill("apus-vault")
            # In another session, so that the loss is known for sure.
            self.attempt("alice", "secret")
            codes = [smtp.docmd("AUTH", "PLAIN " + plain("alice", "secret"))[0] for _ in range(3)]
        finally:
            os.kill(self.apus.process.pid, signal.SIGCONT)
        self.assertEqual(codes, [454, 454, 421])
        self.assertTrue(wait_for(lambda: self.attempt("alice", "secret") == 235, 20))

    def test_status_counts(self):
        self.attempt("alice", "secret")
        out = self.apus.tool("status", "--json")[1]
        self.assertIn("apus-vault", out)
        self.assertIn("authenticated", out)


class Limits(Users):
    auth = "failures-per-session-max = 2\nfailures-per-client-max = 5\nfailure-time = 4"
    submission = "messages-per-hour-max = 2\nrecipients-per-hour-max = 5\nclient-address-in-received = false\n"

    @classmethod
    def prepare(cls):
        super().prepare()
        with open(cls.senders, "w") as f:
            f.write("bob: *\nalice: @apus.test\n")
        cls.become_strangers("[submission]\n", f'[submission]\nsenders = "{cls.senders}"\n')

    def test_a_session_ends_with_its_last_failure_and_a_client_waits(self):
        seen = []
        for _ in range(3):
            smtp = self.secured()
            for _ in range(2):
                seen.append(smtp.docmd("AUTH", "PLAIN " + plain("alice", "wrong"))[0])
        self.assertEqual(seen, [535, 421, 535, 421, 535, 421])
        self.assertEqual(self.secured().docmd("AUTH", "PLAIN " + plain("alice", "secret"))[0], 454)
        self.assertTrue(self.apus.logged("auth-failed", "client=127.0.0.1", "reason=blocked"))
        smtp = self.secured()
        self.assertEqual([smtp.docmd("AUTH", "PLAIN " + plain("alice", "secret"))[0] for _ in range(2)], [454, 421],
                         "who has to wait can ask without end")
        time.sleep(4.1)
        self.assertEqual(self.secured().docmd("AUTH", "PLAIN " + plain("alice", "secret"))[0], 235)

    def test_the_table_says_who_sends_as_whom_and_rates_and_privacy_hold(self):
        self.assertTrue(wait_for(lambda: self.tried("bob", "hunter2"), 10, 1))
        smtp = self.login("bob", "hunter2")
        smtp.sendmail("who@ever.test", ["a@elsewhere.test", "b@elsewhere.test"], "Subject: private\r\n\r\nx\r\n")
        smtp.sendmail("bob@apus.test", ["c@elsewhere.test"], MESSAGE)
        code, text = smtp.mail("bob@apus.test")
        self.assertEqual((code, text[:5]), (450, b"4.7.1"))
        smtp = self.login("alice", "secret")
        self.assertEqual(smtp.mail("anything@apus.test")[0], 250)
        self.assertEqual([smtp.rcpt(f"r{n}@elsewhere.test")[0] for n in range(6)], [250] * 5 + [450])
        self.assertEqual(self.login("alice").mail("who@ever.test")[0], 450)
        self.assertTrue(wait_for(lambda: any(b"private" in m[2] for m in self.sink.messages), 20))
        data = [m[2] for m in self.sink.messages if b"private" in m[2]][0]
        self.assertNotIn(b"127.0.0.1", data)
        self.assertIn(b"Received: by mx.apus.test with ESMTPSA", data)

    def test_sessions_side_by_side_send_no_more_messages_than_one(self):
        self.passwd("carol", "third")
        self.assertTrue(wait_for(lambda: self.tried("carol", "third"), 10, 1))
        sessions = [self.login("carol", "third") for _ in range(4)]
        for smtp in sessions:
            self.assertEqual([smtp.mail("carol@apus.test")[0], smtp.rcpt("a@elsewhere.test")[0]], [250, 250])
            self.assertEqual(smtp.docmd("DATA")[0], 354)
        replies = []
        for smtp in sessions:
            smtp.send(b"Subject: beside\r\n\r\nx\r\n.\r\n")
            replies.append(smtp.getreply())
        self.assertEqual([code for code, text in replies], [250, 250, 450, 450])
        self.assertEqual(replies[3][1][:5], b"4.7.1")

    def tried(self, user, password):
        return self.secured().docmd("AUTH", "PLAIN " + plain(user, password))[0] == 235


class Abandoning(Users):
    auth = "failures-per-client-max = 3"

    def test_who_hangs_up_while_his_password_is_checked_has_failed_and_fail2ban_reads_it(self):
        vault, = self.apus.pids("apus-vault")
        os.kill(vault, signal.SIGSTOP)
        try:
            for number in range(1, 4):
                smtp = self.secured()
                smtp.send(f"AUTH PLAIN {plain('alice', 'wrong')}\r\n")
                # With a reset: who only says that he will send no more gets his answer, and his failure counts with it.
                smtp.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                smtp.close()
                self.assertTrue(wait_for(lambda: len(self.apus.logged("auth-failed", "reason=abandoned")) == number, 10),
                                self.apus.log()[-3000:])
        finally:
            os.kill(vault, signal.SIGCONT)
        self.assertEqual(self.secured().docmd("AUTH", "PLAIN " + plain("alice", "secret"))[0], 454)
        for line in self.apus.logged("auth-failed", "reason=abandoned"):
            self.assertEqual(re.match(fail2ban(), line)["host"], "127.0.0.1", line)


class HangingUp(Users):
    auth = "failures-per-client-max = 3"

    def test_who_closes_before_the_answer_has_failed_all_the_same(self):
        for number in range(1, 4):
            smtp = self.secured()
            smtp.send(f"AUTH PLAIN {plain('alice', 'wrong')}\r\n")
            smtp.close()
            self.assertTrue(wait_for(lambda: len(self.apus.logged("auth-failed", "client=127.0.0.1")) == number, 10),
                            self.apus.log()[-3000:])
        self.assertEqual(self.secured().docmd("AUTH", "PLAIN " + plain("alice", "secret"))[0], 454)


class Overdue(Users):
    auth = "failures-per-client-max = 2\nfailures-per-session-max = 10"
    submission = "[smtp]\nanswer-timeout = 1\n"

    def test_a_vault_that_does_not_answer_in_time_is_nobodys_failure(self):
        vault, = self.apus.pids("apus-vault")
        smtp = self.secured()
        os.kill(vault, signal.SIGSTOP)
        try:
            codes = [smtp.docmd("AUTH", "PLAIN " + plain("alice", "secret"))[0] for _ in range(3)]
        finally:
            os.kill(vault, signal.SIGCONT)
        self.assertEqual(codes, [454] * 3)
        self.assertEqual(smtp.docmd("AUTH", "PLAIN " + plain("alice", "secret"))[0], 235)


class SeveralProcesses(Users):
    auth = "failures-per-session-max = 10\nfailures-per-client-max = 6\nfailures-per-user-max = 4\nfailure-time = 6"
    submission = "messages-per-hour-max = 4\nrecipients-per-hour-max = 7\n[smtp]\nworkers = 3\n"

    def session(self, pid):
        """A session with that process of apus-smtpd: the others sleep until it has begun."""
        others = [p for p in self.apus.pids("apus-smtpd") if p != pid]
        for other in others:
            os.kill(other, signal.SIGSTOP)
        try:
            for other in others:
                # A moment may pass, in which it would still take a connection.
                self.assertTrue(wait_for(lambda: slurp(f"/proc/{other}/stat").rsplit(b") ", 1)[1][:1] == b"T", 10, 0.001))
            return self.secured()
        finally:
            for other in others:
                os.kill(other, signal.SIGCONT)

    def attempt(self, pid, user, password):
        with self.session(pid) as smtp:
            self.assertTrue(wait_for(lambda: b"AUTH" in smtp.ehlo()[1], 10))
            return smtp.docmd("AUTH", "PLAIN " + plain(user, password))[0]

    def all_processes(self):
        self.assertTrue(wait_for(lambda: len(self.apus.logged("apus-smtpd listen", f":{self.smtps}")) == 3, 20), self.apus.log())
        pids = self.apus.pids("apus-smtpd")
        self.assertEqual(len(pids), 3)
        return pids

    def logged_in(self, pid, user, password):
        smtp = self.session(pid)
        self.assertTrue(wait_for(lambda: b"AUTH" in smtp.ehlo()[1], 10))
        smtp.login(user, password)
        return smtp

    def test_what_a_user_has_sent_through_one_process_counts_with_all(self):
        pids = self.all_processes()
        self.assertTrue(wait_for(lambda: self.attempt(pids[0], "bob", "hunter2") == 235, 20, 0.5))
        for pid in pids[:2]:
            with self.logged_in(pid, "bob", "hunter2") as smtp:
                for _ in range(2):
                    smtp.sendmail("bob@apus.test", ["a@elsewhere.test"], MESSAGE)
        with self.logged_in(pids[2], "bob", "hunter2") as smtp:
            self.assertTrue(wait_for(lambda: (smtp.rset(), smtp.mail("bob@apus.test"))[1][0] == 450, 10))
        with self.logged_in(pids[0], "alice", "secret") as smtp:
            smtp.mail("alice@apus.test")
            self.assertEqual([smtp.rcpt(f"r{n}@elsewhere.test")[0] for n in range(4)], [250] * 4)
        with self.logged_in(pids[1], "alice", "secret") as smtp:
            smtp.mail("alice@apus.test")
            self.assertEqual([smtp.rcpt(f"r{n}@elsewhere.test")[0] for n in range(4)], [250] * 3 + [450])

    def test_failures_with_one_process_count_with_all(self):
        pids = self.all_processes()
        # Two of each: none of them has seen as many as are too many.
        for number, pid in enumerate(pids):
            self.assertEqual([self.attempt(pid, f"ghost-{number}-{n}", "x") for n in range(2)], [535, 535])
        self.assertEqual([self.attempt(pid, "alice", "secret") for pid in pids], [454] * 3)
        self.assertTrue(self.apus.logged("auth-failed", "client=127.0.0.1", "reason=blocked"))
        self.assertTrue(wait_for(lambda: self.attempt(pids[0], "alice", "secret") == 235, 20, 0.5))
        # As one user, from a client that has never got in as him.
        for pid in (pids[0], pids[1]):
            self.assertEqual([self.attempt(pid, "bob", "wrong") for _ in range(2)], [535, 535])
        self.assertEqual(self.attempt(pids[2], "bob", "hunter2"), 454)
        self.assertEqual(self.attempt(pids[2], "alice", "secret"), 235)


class Authors(Users):
    submission = 'from = "own"\n[smtp]\nanswer-timeout = 5\n'

    @classmethod
    def prepare(cls):
        super().prepare()
        with open(cls.senders, "w") as f:
            f.write("bob: bob@apus.test, sales@apus.test, @lists.apus.test\n")
        cls.become_strangers("[submission]\n", f'[submission]\nsenders = "{cls.senders}"\n')

    def hand_in(self, header, user="alice", password="secret", sender="alice@apus.test"):
        """The code and the beginning of the text, after the final dot."""
        with self.login(user, password) as smtp:
            smtp.mail(sender)
            smtp.rcpt("x@elsewhere.test")
            code, text = smtp.data(header + "\r\n\r\nx\r\n")
            return code, text.decode()

    def test_a_user_writes_as_himself(self):
        for number, header in enumerate((
                "From: alice@apus.test", "From: Alice <Alice+news@apus.test>", "From: a <alice@apus.test>\r\nSender: alice@apus.test",
                "Reply-To: bob@apus.test", "From: =?utf-8?q?A?=\r\n <alice@apus.test>, alice+2@apus.test")):
            self.assertEqual(self.hand_in(f"Subject: own {number}\r\n{header}")[0], 250, header)
            self.assertTrue(wait_for(lambda: any(b"Subject: own %d" % number in m[2] for m in self.sink.messages), 20))
        self.assertEqual(self.hand_in("From: alice@apus.test", sender="")[0], 250, "a receipt")

    def test_a_user_writes_as_nobody_else(self):
        for header, address in (
                ("From: bob@apus.test", "bob@apus.test"), ("From: The boss <ceo@bank.test>", "ceo@bank.test"),
                ("From: alice@apus.test, bob@apus.test\r\nSender: alice@apus.test", "bob@apus.test"),
                ("From: alice@apus.test\r\nSender: <bob@apus.test>", "bob@apus.test"),
                ("fRoM :\r\n bob@apus.test", "bob@apus.test")):
            code, text = self.hand_in(f"Subject: forged\r\n{header}")
            self.assertEqual((code, text[:5]), (550, "5.7.1"), header)
            self.assertIn(f"<{address}>", text)
        self.assertEqual(self.hand_in("Subject: forged\r\nFrom: bob@apus.test", sender="")[0], 550)
        for header in ("From: alice", "From: alice@apus.test <bob@apus.test>", "From: <alice@apus.test> bob@apus.test", "Sender:",
                       "From: x alice@apus.test", "From: " + "x" * 20_000 + " <alice@apus.test>"):
            code, text = self.hand_in(f"Subject: forged\r\n{header}")
            self.assertEqual((code, text[:5]), (550, "5.6.0"), header)
        self.assertTrue(self.apus.logged("refused", "code=550", "status=5.7.1", "ceo@bank.test"))
        self.assertEqual(self.hand_in("Subject: last\r\nFrom: alice@apus.test")[0], 250)
        self.assertTrue(wait_for(lambda: any(b"Subject: last" in m[2] for m in self.sink.messages), 20))
        self.assertFalse(any(b"forged" in m[2] for m in self.sink.messages))

    def test_the_table_of_senders_says_what_is_own(self):
        for header, code in (("From: Sales@apus.test, x@lists.apus.test\r\nSender: bob@apus.test", 250),
                             ("From: alice@apus.test", 550), ("From: bob+tag@apus.test", 550)):
            self.assertEqual(self.hand_in(header, "bob", "hunter2", "bob@apus.test")[0], code, header)

    def test_other_servers_are_not_asked(self):
        with smtplib.SMTP("127.0.0.1", self.apus.port, timeout=20) as smtp:
            smtp.sendmail("x@elsewhere.test", ["alice@apus.test"], "From: bob@apus.test\r\n\r\nx\r\n")

    def test_while_nobody_can_tell_the_mail_is_to_come_again(self):
        with self.login("bob", "hunter2") as smtp:
            smtp.mail("bob@apus.test")
            smtp.rcpt("x@elsewhere.test")
            self.assertEqual(smtp.docmd("DATA")[0], 354)
            pid, = self.apus.pids("apus-lookup")
            os.kill(pid, signal.SIGSTOP)
            try:
                smtp.send(b"From: sales@apus.test\r\n\r\nx\r\n.\r\n")
                code, text = smtp.getreply()
            finally:
                os.kill(pid, signal.SIGCONT)
            self.assertEqual((code, text[:5]), (451, b"4.4.3"))
        self.assertTrue(wait_for(
            lambda: self.hand_in("From: sales@apus.test", "bob", "hunter2", "bob@apus.test")[0] == 250, 10, 0.5))


class BareLineFeeds(Users):
    submission = 'bare-line-feed = "repair"'

    def hand_in(self, content):
        with self.login() as smtp:
            smtp.mail("alice@apus.test")
            smtp.rcpt("bob@elsewhere.test")
            self.assertEqual(smtp.docmd("DATA")[0], 354)
            smtp.send(content)
            return smtp.getreply()

    def test_a_bare_line_feed_of_a_user_is_repaired_and_never_ends_the_message(self):
        content = b"From: alice@apus.test\nSubject: repaired\r\n\nfirst\n.\nMAIL FROM:<x@y>\n.\r\nlast\r\n.\r\n"
        self.assertEqual(self.hand_in(content)[0], 250)
        self.assertTrue(wait_for(lambda: any(b"Subject: repaired" in m[2] for m in self.sink.messages), 20))
        data = [m[2] for m in self.sink.messages if b"Subject: repaired" in m[2]]
        self.assertEqual(len(data), 1)
        self.assertTrue(data[0].endswith(b"\r\n\r\nfirst\r\n\r\nMAIL FROM:<x@y>\r\n\r\nlast\r\n"), data[0])
        self.assertNotIn(b"\n", data[0].replace(b"\r\n", b""))

    def test_a_bare_carriage_return_is_refused_still(self):
        reply = self.hand_in(b"Subject: x\r\n\r\na\rb\nc\r\n.\r\n")
        self.assertEqual((reply[0], reply[1][:5]), (550, b"5.5.2"))

    def test_from_other_servers_it_is_refused(self):
        with smtplib.SMTP("127.0.0.1", self.apus.port, timeout=20) as smtp:
            smtp.ehlo()
            smtp.mail("x@elsewhere.test")
            smtp.rcpt("alice@apus.test")
            self.assertEqual(smtp.docmd("DATA")[0], 354)
            smtp.send(b"Subject: x\r\n\r\na\nb\r\n.\r\n")
            self.assertEqual(smtp.getreply()[0], 550)


class Scram(Users):
    auth = "client-certificates = true"
    users = {"alice": ("secret", "scram-sha-256"), "bob": ("hunter2", None)}

    @classmethod
    def prepare(cls):
        super().prepare()
        cls.authority.issue("alices", "alice.test")
        cls.authority.issue("strangers", "stranger.test")
        print_ = cls.authority.fingerprint("alices")
        with open(cls.passwords, "a") as f:
            f.write(f"alice:{{CERTIFICATE}}{print_}\n")

    def binding(self, smtp):
        import hashlib
        return hashlib.sha256(smtp.sock.getpeercert(True)).digest()

    def test_scram_is_offered_where_everybody_can_use_it_and_proves_both_sides(self):
        self.assertIn(b"AUTH SCRAM-SHA-256-PLUS SCRAM-SHA-256 PLAIN LOGIN", self.greeting())
        for user, password in (("alice", "secret"), ("bob", "hunter2"), ("Alice", "secret")):
            code, text, verified = scram(self.secured(), "SCRAM-SHA-256", SCRAM(user, password))
            self.assertEqual((code, verified), (235, True), text)
        self.assertTrue(self.apus.logged("authenticated", "user=bob", "mechanism=SCRAM-SHA-256"))
        # The same entries serve the other mechanisms.
        self.login().quit()

    def test_a_wrong_password_and_an_unknown_user_look_the_same(self):
        seen = {}
        for user, password in (("alice", "wrong"), ("ghost", "secret"), ("ghost", "secret")):
            client = SCRAM(user, password)
            self.assertEqual(scram(self.secured(), "SCRAM-SHA-256", client)[0], 535)
            seen.setdefault(user, set()).add((client.iterations, len(client.salt), client.salt))
        self.assertEqual(len(seen["ghost"]), 1, "a user who does not exist has one salt, as others have")
        self.assertEqual({s[:2] for s in seen["ghost"]}, {s[:2] for s in seen["alice"]})

    def test_an_unknown_user_has_the_same_salt_after_a_restart(self):
        def salt(user):
            client = SCRAM(user, "wrong")
            self.assertEqual(scram(self.secured(), "SCRAM-SHA-256", client)[0], 535)
            return client.salt
        before = [salt("ghost"), salt("alice")]
        self.assertEqual(os.stat(f"{self.apus.root}/state/decoy-key").st_mode & 0o777, 0o600)
        self.apus.stop()
        self.apus.start()
        self.assertEqual([salt("ghost"), salt("alice")], before)
        self.assertFalse(any(slurp(f"{self.apus.root}/state/decoy-key").strip() in slurp(p) for p in [self.apus.logfile]))

    def test_the_connection_is_bound_to(self):
        smtp = self.secured()
        client = SCRAM("alice", "secret", "p=tls-server-end-point,", self.binding(smtp))
        self.assertEqual(scram(smtp, "SCRAM-SHA-256-PLUS", client)[0::2], (235, True))
        smtp = self.secured()
        client = SCRAM("alice", "secret", "p=tls-server-end-point,", b"x" * 32)
        self.assertEqual(scram(smtp, "SCRAM-SHA-256-PLUS", client)[0], 535)
        client = SCRAM("alice", "secret", "y,")
        self.assertEqual(scram(self.secured(), "SCRAM-SHA-256", client)[0], 535, "a downgrade")
        self.assertTrue(self.apus.logged("auth-failed", "reason=binding"))

    def test_scram_may_be_used_without_tls(self):
        with smtplib.SMTP("127.0.0.1", self.port, timeout=20) as smtp:
            self.assertIn(b"AUTH SCRAM-SHA-256\n", smtp.ehlo()[1] + b"\n")
            self.assertEqual(scram(smtp, "SCRAM-SHA-256", SCRAM("alice", "secret"))[0::2], (235, True))

    def with_certificate(self, name):
        context = self.context()
        context.load_cert_chain(self.authority.path(name + ".pem"), self.authority.path(name + ".key"))
        return self.secured(context)

    def test_a_certificate_says_who_it_is(self):
        smtp = self.with_certificate("alices")
        self.assertIn(b"EXTERNAL", smtp.ehlo()[1])
        self.assertEqual(smtp.docmd("AUTH", "EXTERNAL =")[0], 235)
        self.assertEqual(smtp.mail("alice@apus.test")[0], 250)
        self.assertEqual(self.with_certificate("alices").docmd("AUTH", "EXTERNAL " + b64(b"bob"))[0], 535)
        self.assertEqual(self.with_certificate("strangers").docmd("AUTH", "EXTERNAL =")[0], 535)
        self.assertNotIn(b"EXTERNAL", self.secured().ehlo()[1])


class Checkpassword(Users):
    """The program inherits what apus-vault may do; so it can try for it."""

    @classmethod
    def source(cls):
        return f'checkpassword = ["{cls.program()}", "argument"]\nloopback-without-tls = true'

    @classmethod
    def program(cls):
        return os.path.join(cls.apus.root, "checkpassword")

    @classmethod
    def prepare(cls):
        with open(cls.program(), "w") as f:
            f.write(f"""#!{shutil.which("python3", path="/usr/bin:/usr/local/bin") or sys.executable}
import os, socket, subprocess, sys
user, password, stamp = os.read(3, 512).split(b"\\0")[:3]
assert sys.argv[1] == "argument" and stamp.startswith(b"Y")
if user == b"broken":
    sys.exit(111)
if user == b"network":
    tries = [(socket.AF_INET, socket.SOCK_STREAM), (socket.AF_INET6, socket.SOCK_DGRAM), (socket.AF_NETLINK, socket.SOCK_RAW)]
    for family, kind in tries:
        try:
            socket.socket(family, kind)
            sys.exit(0)
        except OSError:
            pass
    socket.socket(socket.AF_UNIX)
    sys.exit(1)
if (user, password) != (b"alice", b"secret"):
    sys.exit(1)
os.execv(sys.argv[2], sys.argv[2:])
""")
        os.chmod(cls.program(), 0o755)

    def code(self, user, password):
        return self.secured().docmd("AUTH", "PLAIN " + plain(user, password))[0]

    def test_the_program_decides(self):
        self.assertEqual([self.code("alice", p) for p in ("secret", "wrong")], [235, 535])
        self.assertEqual(self.code("broken", "x"), 454)
        self.assertTrue(self.apus.logged("apus-vault", "later", "status 111"))

    def test_a_session_ends_with_so_many_refusals_too_while_the_program_is_in_trouble(self):
        smtp = self.secured()
        self.assertEqual([smtp.docmd("AUTH", "PLAIN " + plain("broken", "x"))[0] for _ in range(3)], [454, 454, 421])

    def test_neither_apus_vault_nor_what_it_starts_can_open_an_internet_socket(self):
        self.assertEqual(self.code("network", "x"), 535, "a socket could be made")
        pid, = self.apus.pids("apus-vault")
        status = slurp(f"/proc/{pid}/status")
        status = status if isinstance(status, str) else status.decode()
        self.assertRegex(status, r"(?m)^Seccomp:\t2$")
        self.assertRegex(status, r"(?m)^NoNewPrivs:\t1$")

    def test_on_this_machine_a_password_may_be_shown_without_tls_if_the_settings_say_so(self):
        with smtplib.SMTP("127.0.0.1", self.port, timeout=20) as smtp:
            smtp.login("alice", "secret")


class Delay(Users):
    """A source that takes longer for some users than for others, as one does whose hashes are of several schemes."""

    delay = 2

    @classmethod
    def source(cls):
        return f'checkpassword = ["{cls.apus.root}/checkpassword"]'

    @classmethod
    def prepare(cls):
        path = os.path.join(cls.apus.root, "checkpassword")
        with open(path, "w") as f:
            f.write(r"""#!/bin/sh
case $(tr '\0' ' ' <&3) in
"slow "*) sleep 1; exit 1;;
"slower "*) sleep 3; exit 1;;
"alice "*) exec "$@";;
*) exit 1;;
esac
""")
        os.chmod(path, 0o755)

    def time(self, user, expected=535):
        smtp = self.secured()
        begin = time.monotonic()
        self.assertEqual(smtp.docmd("AUTH", "PLAIN " + plain(user, "x"))[0], expected)
        return time.monotonic() - begin

    def test_how_long_a_check_takes_does_not_show_in_a_refusal(self):
        fast, slow = self.time("fast"), self.time("slow")
        self.assertGreater(min(fast, slow), 1.95)
        self.assertLess(max(fast, slow), 2.7)

    def test_a_check_that_is_longer_than_the_delay_is_waited_for_and_no_longer(self):
        taken = self.time("slower")
        self.assertGreater(taken, 2.95)
        self.assertLess(taken, 4.5)

    def test_who_is_right_does_not_wait(self):
        self.assertLess(self.time("alice", 235), 1.9)


@unittest.skipIf(dovecot.missing(), dovecot.missing())
class Dovecot(Users):
    key = b"known to Dovecot and to whoever makes tokens"

    @classmethod
    def source(cls):
        return f'dovecot = "{cls.apus.root}/dovecot-run/auth-client"'

    @classmethod
    def prepare(cls):
        # Tokens are checked by Dovecot itself, with the key of whoever makes them.
        keys = os.path.join(cls.apus.root, "dovecot-keys")
        os.makedirs(os.path.join(keys, "default/HS256"))
        with open(os.path.join(keys, "default/HS256/default"), "w") as f:
            f.write(b64(cls.key))
        path = os.path.join(cls.apus.root, "dovecot-oauth2")
        with open(path, "w") as f:
            f.write(f"introspection_mode = local\nlocal_validation_key_dict = fs:posix:prefix={keys}/\n"
                    "username_attribute = sub\nissuers = tokens.apus.test\n")
        cls.dovecot = dovecot.Dovecot(
            cls.apus.root, {"alice": "secret"}, cls.apus.user, "plain login scram-sha-256 oauthbearer xoauth2",
            f"passdb {{\n  driver = oauth2\n  mechanisms = oauthbearer xoauth2\n  args = {path}\n}}")
        cls.addClassCleanup(cls.dovecot.stop)
        cls.dovecot.start()

    def code(self, user, password):
        return self.secured().docmd("AUTH", "PLAIN " + plain(user, password))[0]

    def token(self, user="alice", key=None, **words):
        return token(key or self.key, user, **{"iss": "tokens.apus.test", **words})

    def test_a_token_that_dovecot_believes_lets_its_user_in_as_himself_alone(self):
        self.assertTrue(wait_for(lambda: b"OAUTHBEARER" in self.greeting(), 20), self.apus.log())
        for mechanism in ("OAUTHBEARER", "XOAUTH2"):
            smtp = self.secured()
            shown = self.token()
            code, text = bearer(smtp, mechanism, "alice", shown)
            self.assertEqual(code, 235, (mechanism, text, self.dovecot.log()))
            self.assertTrue(wait_for(
                lambda: self.apus.logged("authenticated", "user=alice", f"mechanism={mechanism}"), 10), self.apus.log()[-3000:])
            self.assertEqual(smtp.mail("bob@apus.test")[0], 553)
            smtp.sendmail("alice@apus.test", ["bob@elsewhere.test"], f"Subject: {mechanism}\r\n\r\nx\r\n")
            self.assertTrue(wait_for(lambda: any(mechanism.encode() in m[2] for m in self.sink.messages), 20))
            self.assertNotIn(shown, self.apus.log())

    def test_a_token_that_dovecot_does_not_believe_lets_nobody_in(self):
        self.assertTrue(wait_for(lambda: b"OAUTHBEARER" in self.greeting(), 20), self.apus.log())
        now = time.time()
        bad = {
            "another key": self.token(key=b"guessed"), "for bob": self.token("bob"), "expired": self.token(issued=now - 3600),
            "not yet": self.token(issued=now + 3600), "unsigned": self.token(algorithm="none"), "no token": "secret",
            "another issuer": self.token(iss="tokens.elsewhere.test"), "cut": self.token()[:-4],
        }
        for mechanism in ("OAUTHBEARER", "XOAUTH2"):
            for what, shown in bad.items():
                smtp = self.secured()
                self.assertEqual(bearer(smtp, mechanism, "alice", shown)[0], 535, (mechanism, what))
                self.assertEqual(smtp.mail("alice@apus.test")[0], 530, (mechanism, what))
                # The session goes on, and so may the client.
                self.assertEqual(bearer(smtp, mechanism, "alice", self.token())[0], 235, (mechanism, what))
        self.assertTrue(wait_for(lambda: self.apus.logged("auth-failed", "mechanism=XOAUTH2", "reason=credentials"), 10))

    def test_curl_shows_its_token(self):
        self.assertTrue(wait_for(lambda: b"OAUTHBEARER" in self.greeting(), 20), self.apus.log())
        with tempfile.NamedTemporaryFile("w") as f:
            f.write(MESSAGE)
            f.flush()
            for mechanism in ("OAUTHBEARER", "XOAUTH2"):
                for shown, status in ((self.token(), 0), (self.token(key=b"guessed"), 67)):
                    done = subprocess.run(
                        ["curl", "-sS", "--url", f"smtps://127.0.0.1:{self.smtps}", "--cacert", self.authority.path("ca.pem"),
                         "--user", "alice:", "--oauth2-bearer", shown, "--login-options", f"AUTH={mechanism}",
                         "--mail-from", "alice@apus.test", "--mail-rcpt", "x@elsewhere.test", "--upload-file", f.name],
                        capture_output=True, text=True, timeout=60)
                    self.assertEqual(done.returncode, status, (mechanism, done.stdout, done.stderr))

    def test_dovecot_decides_and_while_it_is_away_nobody_is_told_that_he_is_wrong(self):
        self.assertTrue(wait_for(lambda: b"OAUTHBEARER" in self.greeting(), 20), self.apus.log())
        self.assertIn(b"AUTH SCRAM-SHA-256 OAUTHBEARER XOAUTH2 PLAIN LOGIN", self.greeting())
        self.assertEqual([self.code("alice", p) for p in ("secret", "wrong")], [235, 535])
        self.assertTrue(self.apus.logged("auth-failed", "user=alice", "reason=credentials"))
        code, text, verified = scram(self.secured(), "SCRAM-SHA-256", SCRAM("alice", "secret"))
        self.assertEqual((code, verified), (235, True), text)
        with self.login() as smtp:
            smtp.sendmail("alice@apus.test", ["bob@elsewhere.test"], MESSAGE)

        self.dovecot.stop()
        self.assertTrue(wait_for(lambda: self.apus.logged("dovecot-away"), 20))
        self.assertEqual(self.code("alice", "secret"), 454)
        self.assertEqual(self.code("alice", "wrong"), 454)
        self.dovecot.start()
        self.assertTrue(wait_for(lambda: self.code("alice", "secret") == 235, 20))

    def test_a_restart_of_dovecot_ends_no_session(self):
        self.assertTrue(wait_for(lambda: b"OAUTHBEARER" in self.greeting(), 20), self.apus.log())
        asked, other = self.secured(), self.login()
        self.assertEqual(other.mail("alice@apus.test")[0], 250)
        self.assertEqual(asked.docmd("AUTH", "LOGIN")[0], 334)
        away = len(self.apus.logged("dovecot-away"))
        self.dovecot.stop()
        self.assertTrue(wait_for(lambda: len(self.apus.logged("dovecot-away")) > away, 20))
        self.assertEqual(asked.docmd(b64(b"alice"))[0], 454)
        self.dovecot.start()
        self.assertTrue(wait_for(lambda: self.code("alice", "secret") == 235, 20))
        self.assertEqual(other.rcpt("bob@elsewhere.test")[0], 250)
        self.assertFalse(self.apus.logged("link-fault", "dialect=vault"))


@unittest.skipUnless(os.geteuid() == 0, "needs root")
class AsRoot(unittest.TestCase):
    def test_apus_smtpd_cannot_read_the_password_file_and_apus_vault_can(self):
        done = subprocess.run([os.path.join(HERE, "../../etc/accounts")], capture_output=True, text=True)
        if done.returncode:
            raise unittest.SkipTest("etc/accounts cannot make the users here: " + done.stderr)
        port = free_port()
        apus = Apus(root=True)
        self.addCleanup(apus.close)
        path = os.path.join(apus.root, "passwords")
        subprocess.run(
            [os.path.join(binaries(), "apus"), "passwd", "alice", "--stdin", "--file", path], input=b"secret\n",
            check=True, capture_output=True)
        entry = os.stat(path)
        self.assertEqual((entry.st_uid, entry.st_gid, stat.S_IMODE(entry.st_mode)),
                         (0, pwd.getpwnam("apus-vault").pw_gid, 0o640))
        apus.write_settings(extra=f"""
[[listen]]
address = "127.0.0.1:{port}"
role = "submission"
[auth]
passwords = "{path}"
loopback-without-tls = true
""", domains="")
        apus.start()
        with smtplib.SMTP("127.0.0.1", port, timeout=20) as smtp:
            self.assertTrue(wait_for(lambda: b"AUTH" in smtp.ehlo()[1], 10), apus.log())
            smtp.login("alice", "secret")

        def can_read(name):
            pid = apus.pids(name)[0]
            status = open(f"/proc/{pid}/status").read()
            uid = int(re.search(r"(?m)^Uid:\t(\d+)", status)[1])
            groups = [int(g) for g in re.search(r"(?m)^Groups:\t(.*)$", status)[1].split()]
            done = subprocess.run(["cat", path], user=uid, group=int(re.search(r"(?m)^Gid:\t(\d+)", status)[1]),
                                  extra_groups=groups, capture_output=True)
            return done.returncode == 0 and os.readlink(f"/proc/{pid}/root") == "/"

        self.assertTrue(can_read("apus-vault"))
        for name in ("apus-smtpd", "apus-lookup", "apus-queue", "apus-remote", "apus-bounce"):
            self.assertFalse(can_read(name), name)


if __name__ == "__main__":
    unittest.main()
